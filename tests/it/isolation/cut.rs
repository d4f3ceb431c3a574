//! A client or a server that is gone at any byte, and bytes that come one by one.

use crate::support::dribble::Manner;
use crate::support::raw::brief;
use crate::support::{Dribble, Proxy, Raw, Shard, Wire, stride, until};

/// A session with everything in it: its messages by turns, and how many ReadyForQuery answer each.
fn turns() -> Vec<(Wire, usize)> {
    let own = "SELECT org_id, current_setting('app.current_org_id') FROM canary WHERE id = 1";
    vec![
        (Wire::new().query(own), 1),
        (Wire::new().parse("s", own).describe(b'S', "s").sync(), 1),
        (Wire::new().bind("", "s", &[]).execute("", 0).close(b'S', "s").sync(), 1),
        (Wire::new().query("BEGIN"), 1),
        (Wire::new().query("INSERT INTO ledger (body) VALUES ('cut') RETURNING body"), 1),
        (Wire::new().query("COPY ledger (body) FROM STDIN").copy_data(b"cut\ncut\n").copy_done(), 1),
        (Wire::new().query("COPY (SELECT org_id FROM canary WHERE id < 3) TO STDOUT"), 1),
        (Wire::new().query("ROLLBACK"), 1),
        (Wire::new().query("SELECT 1/0"), 1),
        (Wire::new().query("SET my.own = 'x'"), 1),
        (Wire::new().query(own), 1),
    ]
}

/// Plays the session; what is heard ends where the connection does.
async fn play(raw: &mut Raw) -> Vec<String> {
    let mut heard = Vec::new();
    for (wire, readies) in turns() {
        raw.send(wire).await;
        let answer = raw.until_readies(readies).await;
        for row in answer.iter().filter(|message| message.tag == b'D' && message.body[1] == 2) {
            assert_eq!(row.brief(), "D(acme,acme)");
        }
        let over = answer.last().is_none_or(|message| message.tag != b'Z');
        heard.push(brief(&answer));
        if over {
            break;
        }
    }
    heard
}

/// Another organization, on the one server connection.
async fn probe(proxy: &Proxy, globex: &mut Raw, after: &str) {
    let heard = globex.query("SELECT DISTINCT org_id, current_setting('app.current_org_id') FROM canary").await;
    assert_eq!(heard, "T D(globex,globex) C(SELECT 1) ZI", "{after}: {}", proxy.address());
}

#[tokio::test]
async fn bytes_one_at_a_time_give_the_same_conversation() {
    let shard = Shard::shared();
    let direct = play(&mut Raw::past_the_proxy(shard, "acme").await).await;
    let server_side = Dribble::to(([127, 0, 0, 1], shard.cluster.port()).into(), Manner::BYTEWISE).await;
    let proxy = Proxy::before_port(server_side.address.port(), &shard.password).pool_size(1).start().await;
    let client_side = Dribble::to(proxy.address(), Manner::BYTEWISE).await;
    let token = proxy.token("acme", "ada", &["developer"]);
    assert_eq!(play(&mut Raw::log_in(client_side.address, &token).await).await, direct);
    probe(&proxy, &mut proxy.raw("globex").await, "bytewise").await;
}

/// What a client sends in the session, and what it is sent.
async fn client_bytes(proxy: &Proxy) -> (usize, usize) {
    let wire = Dribble::to(proxy.address(), Manner::SOUND).await;
    let token = proxy.token("acme", "ada", &["developer"]);
    play(&mut Raw::log_in(wire.address, &token).await).await;
    wire.passed()
}

#[tokio::test]
async fn a_client_that_is_gone_at_any_byte_leaves_nothing_behind() {
    let shard = Shard::shared();
    let proxy = Proxy::before(shard).pool_size(1).start().await;
    let token = proxy.token("acme", "ada", &["developer"]);
    let mut globex = proxy.raw("globex").await;
    let (up, down) = client_bytes(&proxy).await;
    let wire = Dribble::to(proxy.address(), Manner::SOUND).await;
    for at in (0..up.max(down)).step_by(stride()) {
        for (limit, manner) in
            [(up, Manner { cut_after_up: at, ..Manner::SOUND }), (down, Manner { cut_after_down: at, ..Manner::SOUND })]
        {
            if at < limit {
                wire.behave(manner);
                if let Some(mut raw) = Raw::try_log_in(wire.address, &token).await {
                    play(&mut raw).await;
                }
            }
        }
        if at % 4 == 0 {
            probe(&proxy, &mut globex, &format!("{at} of {up} bytes up, {down} down")).await;
        }
    }
    probe(&proxy, &mut globex, "at the end").await;
    let sql = "SELECT count(*) FROM ledger WHERE body = 'cut'";
    let left = shard.admin().await.query_one(sql, &[]).await.expect("counts");
    assert_eq!(left.get::<_, i64>(0), 0, "nothing was committed");
}

#[tokio::test]
async fn a_server_that_is_gone_at_any_byte_is_replaced() {
    let shard = Shard::shared();
    let to = ([127, 0, 0, 1], shard.cluster.port()).into();
    let wire = Dribble::to(to, Manner::SOUND).await;
    let proxy = Proxy::before_port(wire.address.port(), &shard.password).pool_size(1).start().await;
    // The pool's first connection has only logged in.
    let login = wire.passed();
    let mut acme = proxy.raw("acme").await;
    play(&mut acme).await;
    let session = wire.passed();
    drop(acme);
    let mut globex = proxy.raw("globex").await;
    let after = |at: usize, login: usize, whole: usize| (login + at < whole).then_some(login + at);
    // A shard that was lost is dialled again with a pause: a cut costs more here than on the client's side.
    for at in (0..(session.0 - login.0).max(session.1 - login.1)).step_by(stride().pow(2)) {
        let up = after(at, login.0, session.0).map(|at| Manner { cut_after_up: at, ..Manner::SOUND });
        let down = after(at, login.1, session.1).map(|at| Manner { cut_after_down: at, ..Manner::SOUND });
        for manner in [up, down].into_iter().flatten() {
            wire.behave(manner);
            wire.cut_all();
            let mut acme = proxy.raw("acme").await;
            let heard = play(&mut acme).await;
            assert!(!heard.is_empty(), "{manner:?}");
            wire.behave(Manner::SOUND);
            drop(acme);
        }
        if at % 4 == 0 {
            wire.cut_all();
            let mut fresh = proxy.raw("acme").await;
            until("the shard is back", async || fresh.query("SELECT 1").await == "T D(1) C(SELECT 1) ZI").await;
            probe(&proxy, &mut globex, &format!("{at}")).await;
        }
    }
}
