//! Prepared statements and COPY through transaction pooling: as on a connection of one's own, with others in between.

use crate::support::{Proxy, Raw, Shard, Wire};

/// Each step is sent at once, and asks for so many ReadyForQuery.
type Steps = Vec<(Wire, usize)>;

fn conversations() -> Vec<(&'static str, Steps)> {
    [statements(), copies()].concat()
}

fn statements() -> Vec<(&'static str, Steps)> {
    let new = Wire::new;
    let own = "SELECT current_setting('app.current_org_id')";
    vec![
        (
            "unnamed, bound in a later transaction",
            vec![(new().parse("", own).sync(), 1), (new().bind("", "", &[]).execute("", 0).sync(), 1)],
        ),
        (
            "a Parse that fails, then the same name again",
            vec![
                (new().parse("a", "SELECT nothing FROM nowhere").sync(), 1),
                (new().parse("a", own).describe(b'S', "a").sync(), 1),
                (new().bind("", "a", &[]).execute("", 0).sync(), 1),
            ],
        ),
        (
            "DEALLOCATE of one whose table is out of sight by now",
            vec![
                (new().parse("seen", "SELECT body FROM canary WHERE id = 1").sync(), 1),
                (new().query("SET search_path = pg_catalog"), 1),
                (new().query("DEALLOCATE seen"), 1),
                (new().query("DEALLOCATE seen"), 1),
                (new().query("RESET search_path"), 1),
            ],
        ),
        (
            "an error in the middle of a batch",
            vec![
                (new().parse("b", own).sync(), 1),
                (new().bind("", "b", &["one too many"]).execute("", 0).parse("c", own).sync(), 1),
                (new().bind("", "c", &[]).sync(), 1),
                (new().bind("", "b", &[]).execute("", 0).sync(), 1),
            ],
        ),
        (
            "several statements in one Parse",
            vec![
                (new().parse("", "SET work_mem = 100; RESET work_mem").sync(), 1),
                (new().parse("", "SELECT 1; RESET ALL").bind("", "", &[]).execute("", 0).sync(), 1),
            ],
        ),
        (
            "closed, and named anew",
            vec![
                (new().parse("d", "SELECT 1").sync(), 1),
                (new().close(b'S', "d").parse("d", "SELECT 2").bind("", "d", &[]).execute("", 0).sync(), 1),
                (new().close(b'S', "d").sync(), 1),
                (new().bind("", "d", &[]).sync(), 1),
            ],
        ),
        (
            "portals in pieces",
            vec![
                (new().query("BEGIN"), 1),
                (new().parse("e", "SELECT generate_series(1, 5)").bind("p", "e", &[]).execute("p", 2).sync(), 1),
                (new().execute("p", 2).sync(), 1),
                (new().describe(b'P', "p").execute("p", 0).close(b'P', "p").sync(), 1),
                (new().execute("p", 0).sync(), 1),
                (new().query("ROLLBACK"), 1),
            ],
        ),
    ]
}

fn copies() -> Vec<(&'static str, Steps)> {
    let new = Wire::new;
    let own = "SELECT current_setting('app.current_org_id')";
    vec![
        (
            "COPY in, by a simple and by an extended statement",
            vec![
                (new().query("BEGIN"), 1),
                (new().query("COPY ledger (body) FROM STDIN").copy_data(b"a\nb\n").copy_done(), 1),
                (new().query("COPY ledger (body) FROM STDIN").copy_data(b"a\n").copy_fail("no"), 1),
                (new().query("ROLLBACK"), 1),
            ],
        ),
        (
            "COPY in whose Sync comes early",
            vec![
                (new().query("BEGIN"), 1),
                (
                    new()
                        .parse("", "COPY ledger (body) FROM STDIN")
                        .bind("", "", &[])
                        .execute("", 0)
                        .sync()
                        .copy_data(b"a\n")
                        .copy_done()
                        .sync(),
                    1,
                ),
                (new().query("ROLLBACK"), 1),
            ],
        ),
        (
            "COPY in with a wrong row, and data that keeps coming",
            vec![
                (new().query("COPY canary FROM STDIN").copy_data(b"x\ty\tz\n").copy_data(b"more\n").copy_done(), 1),
                (new().query(own), 1),
            ],
        ),
        (
            "COPY out, whole and with an error",
            vec![
                (new().query("COPY (SELECT id FROM canary WHERE id < 4 ORDER BY id) TO STDOUT"), 1),
                (new().query("COPY (SELECT 1 / (3 - id) FROM canary ORDER BY id) TO STDOUT"), 1),
                (new().query(own), 1),
            ],
        ),
    ]
}

#[tokio::test]
async fn statements_and_copies_go_as_on_a_connection_of_ones_own() {
    let shard = Shard::shared();
    let proxy = Proxy::before(shard).pool_size(1).option("pool", "max_prepared_statements = 5").start().await;
    for (name, steps) in conversations() {
        let (mut direct, mut proxied) = (Raw::past_the_proxy(shard, "acme").await, proxy.raw("acme").await);
        let mut other = proxy.raw("globex").await;
        for (step, (wire, readies)) in steps.into_iter().enumerate() {
            let expected = direct.converse(wire.clone(), readies).await;
            assert_eq!(proxied.converse(wire, readies).await, expected, "{name}: step {step}");
            if expected.ends_with("ZI") {
                let own = Wire::new().parse("", "SELECT current_setting('app.current_org_id')").bind("", "", &[]);
                let said = other.converse(own.execute("", 0).sync(), 1).await;
                assert_eq!(said, "1 2 D(globex) C(SELECT 1) ZI", "{name}: step {step}");
            }
        }
    }
}

#[tokio::test]
async fn many_sessions_use_the_same_names_for_different_statements_on_a_connection_that_holds_few() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).option("pool", "max_prepared_statements = 5").start().await;
    let mut sessions = Vec::new();
    for number in 0..8 {
        let org = ["acme", "globex"][number % 2];
        let mut raw = proxy.raw(org).await;
        for name in ["a", "b", "c"] {
            let sql = format!("SELECT '{number}{name}', current_setting('app.current_org_id')");
            assert_eq!(raw.converse(Wire::new().parse(name, &sql).sync(), 1).await, "1 ZI");
        }
        sessions.push((number, org, raw));
    }
    for _ in 0..5 {
        for (number, org, raw) in &mut sessions {
            for name in ["c", "a", "b"] {
                let said = raw.converse(Wire::new().bind("", name, &[]).execute("", 0).sync(), 1).await;
                assert_eq!(said, format!("2 D({number}{name},{org}) C(SELECT 1) ZI"));
            }
        }
    }
}

#[tokio::test]
async fn a_portal_bound_anew_after_a_reset_is_the_new_one() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    let reset = Wire::new().parse("a", "RESET ALL").bind("", "a", &[]).execute("", 0);
    let then = reset.parse("b", "SELECT 7").bind("", "b", &[]).execute("", 0).sync();
    assert_eq!(raw.converse(then, 1).await, "1 2 C(RESET) 1 2 D(7) C(SELECT 1) ZI");
}
