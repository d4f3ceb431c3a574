//! The sealed context: ordinary settings that are believed only under a seal for them, this server process and this time.

use partywall::context::seal::{Form, Who};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Walled, acme, count, keys, refused};

const ALL: &str = "SELECT count(*) FROM notes";

async fn facts(client: &Client) -> (i32, i64) {
    let row = client.query_one("SELECT pg_backend_pid(), extract(epoch FROM now())::bigint", &[]).await.expect("tells");
    (row.get(0), row.get(1))
}

async fn tell(client: &Client, who: Who<'_>, seal: &str) {
    for (name, value) in [
        ("app.current_org_id", who.organization),
        ("app.current_user_id", who.user),
        ("app.current_project_id", who.project),
        ("app.current_roles", who.roles),
        ("app.current_permissions", who.permissions),
        ("partywall.seal", seal),
    ] {
        client.query("SELECT set_config($1, $2, false)", &[&name, &value]).await.expect("sets");
    }
}

#[tokio::test]
async fn settings_are_believed_only_under_their_seal() {
    let walled = Walled::new(Form::Sealed).await;
    let client = walled.app().await;
    let (pid, now_s) = facts(&client).await;
    let seal = |pid, expiry| keys()[0].standing_seal(acme(), pid, expiry);
    assert_eq!(count(&client, ALL).await, 0, "nothing told");
    tell(&client, acme(), &seal(pid, now_s + 60)).await;
    assert_eq!(count(&client, ALL).await, 2);
    assert_eq!(count(&client, "SELECT count(*) FROM notes WHERE org_id = 'globex'").await, 0);
    for sql in [
        "SET app.current_org_id = 'globex'",
        "SET app.current_user_id = 'boss'",
        "SET app.current_roles = 'admin'",
        "SET app.current_permissions = ''",
        "SET partywall.seal = ''",
        "SET partywall.seal = 'x.y.z'",
        "RESET ALL",
    ] {
        tell(&client, acme(), &seal(pid, now_s + 60)).await;
        client.batch_execute(sql).await.expect(sql);
        assert_eq!(count(&client, ALL).await, 0, "{sql}");
        let roles = client.query_one("SELECT partywall.roles()", &[]).await.expect("reads");
        assert_eq!(roles.get::<_, Option<String>>(0), None, "{sql}");
    }
    tell(&client, acme(), &seal(pid + 1, now_s + 60)).await;
    assert_eq!(count(&client, ALL).await, 0, "a seal for another server process");
    tell(&client, acme(), &seal(pid, now_s - 1)).await;
    assert_eq!(
        refused(&client, ALL).await,
        Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION),
        "one that has expired"
    );
    assert!(refused(&client, "SELECT * FROM partywall.seal_key").await.is_some());
}
