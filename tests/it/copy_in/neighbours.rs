//! Staged COPYs of two organizations on one server connection: nothing passes from one to the other.

use super::{is_clean, rows_of, shard, staged, turn};
use crate::support::dribble::Manner;
use crate::support::raw::brief;
use crate::support::{Dribble, Proxy, Random, Raw, Wire, scaled, seed, stride, until};

const LOAD: &str = "COPY loaded (id, body) FROM STDIN";

/// The other organization's look at the server connection.
async fn probe(globex: &mut Raw, after: &str) {
    let seen = "SELECT DISTINCT org_id, current_setting('app.current_org_id') FROM canary UNION ALL \
                SELECT relname, 'left' FROM pg_class WHERE relnamespace = pg_my_temp_schema()";
    assert_eq!(globex.query(seen).await, "T D(globex,globex) C(SELECT 1) ZI", "{after}");
}

#[tokio::test]
async fn a_client_that_is_gone_at_any_byte_loads_all_or_nothing() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let token = proxy.token("acme", "ada", &["developer"]);
    let mut globex = proxy.raw("globex").await;
    let wire = Dribble::to(proxy.address(), Manner::SOUND).await;
    let conversation = || Wire::new().query(LOAD).copy_data(b"1\ta\n2\tb\n").copy_data(b"3\tc\n").copy_done();
    let mut whole = Raw::log_in(wire.address, &token).await;
    assert_eq!(whole.converse(conversation(), 1).await, "G C(COPY 3) ZI");
    let (up, down) = wire.passed();
    whole.query("DELETE FROM loaded").await;
    drop(whole);
    for at in (0..up.max(down)).step_by(stride()) {
        for manner in [Manner { cut_after_up: at, ..Manner::SOUND }, Manner { cut_after_down: at, ..Manner::SOUND }] {
            wire.behave(manner);
            if let Some(mut raw) = Raw::try_log_in(wire.address, &token).await {
                raw.send(conversation()).await;
                raw.until_ready().await;
            }
            probe(&mut globex, &format!("{manner:?}")).await;
            let rows = rows_of("acme").await;
            assert!(rows == 0 || rows == 3, "{rows} rows after {manner:?}");
            shard().admin().await.batch_execute("DELETE FROM loaded").await.expect("empties");
        }
    }
    until("nothing is left", async || is_clean().await).await;
}

#[tokio::test]
async fn bytes_one_at_a_time_load_the_same() {
    let _turn = turn().await;
    let server_side = Dribble::to(([127, 0, 0, 1], shard().cluster.port()).into(), Manner::BYTEWISE).await;
    let plan = Proxy::before_port(server_side.address.port(), &shard().password).pool_size(1);
    let proxy = plan.sections("[guard]\ncopy_from = \"staged\"").start().await;
    let client_side = Dribble::to(proxy.address(), Manner::BYTEWISE).await;
    let mut raw = Raw::log_in(client_side.address, &proxy.token("acme", "ada", &["developer"])).await;
    let wire = Wire::new().query(LOAD).copy_data(b"1\ta\n2\tb\n").copy_data(b"3\tc\n").copy_done();
    assert_eq!(raw.converse(wire, 1).await, "G C(COPY 3) ZI");
    let wire = Wire::new().query(LOAD).copy_data(b"4\ta\nx\tb\n").copy_data(b"3\tc\n").copy_done();
    assert_eq!(raw.converse(wire, 1).await, "G E(22P02) ZI");
    let wire =
        Wire::new().parse("", LOAD).bind("", "", &[]).execute("", 0).sync().copy_data(b"4\ta\n").copy_done().sync();
    assert_eq!(raw.converse(wire, 1).await, "1 2 G C(COPY 1) ZI");
    assert_eq!(raw.query("DELETE FROM loaded").await, "C(DELETE 4) ZI");
}

/// One session's random history: COPYs that succeed and fail in every way, in and out of transactions; its rows.
async fn history(proxy: &Proxy, org: &str, mut random: Random, mut next: i64) -> i64 {
    let mut raw = proxy.raw(org).await;
    let mut rows = 0;
    for _ in 0..scaled(400) {
        let block = random.one_in(3);
        if block {
            raw.query("BEGIN").await;
        }
        let count = random.below(5) as i64;
        let mut data = (0..count).map(|row| format!("{}\t{org}\n", next + row)).collect::<String>();
        next += count;
        let (wire, good) = match random.below(8) {
            0 => (Wire::new().copy_data((data + "x\tx\n").as_bytes()).copy_done(), false),
            1 => (Wire::new().copy_data(data.as_bytes()).copy_fail("no"), false),
            2 => {
                data.push_str("1000000\tx\n");
                (Wire::new().copy_data(data.as_bytes()).copy_done(), false)
            }
            _ => (Wire::new().copy_data(data.as_bytes()).copy_done(), true),
        };
        let extended = random.one_in(2);
        let opening = match extended {
            true => Wire::new().parse("", LOAD).bind("", "", &[]).execute("", 0).sync(),
            false => Wire::new().query(LOAD),
        };
        if random.one_in(20) {
            // Gone in the middle.
            raw.send(opening.bytes(&wire.0[..wire.0.len() / 2])).await;
            raw = proxy.raw(org).await;
            continue;
        }
        let wire = if extended { wire.sync() } else { wire };
        let heard = raw.converse(opening.bytes(&wire.0), 1).await;
        let status = match (block, good) {
            (false, _) => "ZI",
            (true, true) => "ZT",
            (true, false) => "ZE",
        };
        assert!(heard.ends_with(status) && heard.contains(&format!("C(COPY {count})")) == good, "{org}: {heard}");
        let mut kept = good;
        if block {
            kept &= !random.one_in(3);
            raw.query(if kept { "COMMIT" } else { "ROLLBACK" }).await;
        }
        rows += if kept { count } else { 0 };
        let seen = raw.query("SELECT DISTINCT body FROM loaded").await;
        assert!(
            seen == format!("T D({org}) C(SELECT 1) ZI") || rows == 0 && seen == "T C(SELECT 0) ZI",
            "{org}: {seen}"
        );
    }
    rows
}

#[tokio::test]
async fn sessions_of_two_organizations_load_through_one_connection() {
    let _turn = turn().await;
    let proxy = staged().pool_size(1).start().await;
    let seed = seed();
    let run = |org, number: u64| history(&proxy, org, Random::new(seed ^ number), number as i64 * 100_000);
    let (a, b, c, d) = tokio::join!(run("acme", 1), run("globex", 2), run("acme", 3), run("globex", 4));
    assert_eq!((rows_of("acme").await, rows_of("globex").await), (a + c, b + d));
    until("nothing is left", async || is_clean().await).await;
    shard().admin().await.batch_execute("DELETE FROM loaded").await.expect("empties");
    let mut globex = proxy.raw("globex").await;
    probe(&mut globex, "at the end").await;
    assert_eq!(brief(&super::copy(&mut globex, LOAD, &[b"1\ta\n"]).await), "G C(COPY 1) ZI");
    globex.query("DELETE FROM loaded").await;
}
