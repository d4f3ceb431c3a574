//! What the demo prints for people, once clients can connect.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::files::token_file;
use super::{DATABASE, ORGANIZATIONS, PEOPLE, Prepared};

pub(super) fn banner(prepared: &Prepared) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, hence the results that nobody looks at.
    let _ = organizations(&mut text, prepared);
    let _ = psql(&mut text, prepared);
    let _ = tools(&mut text, prepared);
    let _ = operator(&mut text, prepared);
    text.push_str("\nCtrl-C stops everything and removes it.\n");
    text
}

fn organizations(text: &mut String, prepared: &Prepared) -> std::fmt::Result {
    writeln!(text, "\nThree organizations, two databases, one address:")?;
    for shard in &prepared.shards {
        for org in &shard.organizations {
            writeln!(text, "  {:8} {:13} {:8} {:>6} rows", org.sample.id, org.sample.tier, shard.name, org.rows)?;
        }
    }
    Ok(())
}

fn psql(text: &mut String, prepared: &Prepared) -> std::fmt::Result {
    let folder = prepared.folder().display();
    let [analyst, developer] = PEOPLE;
    let login = |org: &str, role: &str| format!("PGPASSWORD=$(cat {folder}/{})", token_file(org, role));
    let url = |user: &str, ssl: &str| format!("postgres://{user}@127.0.0.1:{}/{DATABASE}?sslmode={ssl}", prepared.port);
    let [acme, globex, _] = ORGANIZATIONS.map(|org| org.id);
    let (ana, dan) = (url(analyst.name, "require"), url(developer.name, "require"));
    let verified = url(analyst.name, &format!("verify-full&sslrootcert={folder}/tls/ca.crt"));
    let asks = login(acme, analyst.role);

    writeln!(text, "\nA prompt as {acme}'s analyst; the password is a token:")?;
    writeln!(text, "  {asks} psql '{verified}'")?;
    writeln!(text, "\n{acme} and {globex} share tables. {acme} sees its own rows, and asks in vain for {globex}'s:")?;
    writeln!(text, "  {asks} psql '{ana}' -c 'SELECT org_id, count(*) FROM runs GROUP BY org_id'")?;
    writeln!(text, "  {asks} psql '{ana}' -c \"SELECT count(*) FROM runs WHERE org_id = '{globex}'\"")?;
    writeln!(text, "  {asks} psql '{ana}' -c \"SET app.current_org_id = '{globex}'\"")?;
    let globex_asks = login(globex, analyst.role);
    writeln!(text, "\nThe same statement, as {globex}:")?;
    writeln!(text, "  {globex_asks} psql '{ana}' -c 'SELECT org_id, count(*) FROM runs GROUP BY org_id'")?;
    writeln!(text, "\nAn analyst only reads; a developer writes, and only for the own organization:")?;
    let pause = "UPDATE pipelines SET status = 'paused' WHERE name LIKE 'orders%'";
    writeln!(text, "  {asks} psql '{ana}' -c \"{pause}\"")?;
    writeln!(text, "  {} psql '{dan}' -c \"{pause}\"", login(acme, developer.role))
}

fn tools(text: &mut String, prepared: &Prepared) -> std::fmt::Result {
    let ([_, globex, _], [analyst, _]) = (ORGANIZATIONS, PEOPLE);
    let token = prepared.token(globex.id, analyst.name).unwrap_or_default();
    writeln!(text, "\nA BI tool (Metabase, Superset, DBeaver, Grafana …), as {}'s analyst:", globex.id)?;
    writeln!(
        text,
        "  host 127.0.0.1   port {}   database {DATABASE}   user {}   SSL mode require",
        prepared.port, analyst.name
    )?;
    writeln!(text, "  password {token}")
}

fn operator(text: &mut String, prepared: &Prepared) -> std::fmt::Result {
    let (folder, port) = (prepared.folder().display(), prepared.admin_port);
    writeln!(text, "\nThe operator's side:")?;
    writeln!(text, "  curl -s http://127.0.0.1:{port}/readyz")?;
    writeln!(text, "  curl -s http://127.0.0.1:{port}/metrics | grep partywall_")?;
    writeln!(
        text,
        "  curl -s -H \"Authorization: Bearer $(cat {folder}/secrets/admin.token)\" http://127.0.0.1:{port}/api/v1/organizations/globex/metrics"
    )?;
    writeln!(text, "  tail -f {folder}/audit.jsonl")?;
    for shard in prepared.shards.iter().take(1) {
        let beside = shard.cluster.binaries().program("psql");
        let psql = if beside.is_file() { beside } else { PathBuf::from("psql") };
        let port = shard.cluster.port();
        writeln!(text, "  and past the proxy, as the superuser who sees all rows of {}:", shard.name)?;
        writeln!(
            text,
            "  PGPASSWORD=$(cat {folder}/secrets/{}.superuser) {} -h 127.0.0.1 -p {port} -U postgres {DATABASE} -c 'SELECT org_id, count(*) FROM runs GROUP BY org_id'",
            shard.name,
            psql.display()
        )?;
    }
    Ok(())
}
