//! No sequence of messages ends a server process: that would end the sessions of every organization there.

use crate::support::{Proxy, Random, Raw, Shard, Wire, scaled, seed};

use super::assert_no_process_died;

/// Each step is sent at once, and asks for so many ReadyForQuery.
type Steps = Vec<(Wire, usize)>;

/// A comment so long that its memory goes back to the system when the statement has ended.
fn long(sql: &str) -> String {
    format!("{sql} /*{}*/", "x".repeat(400_000))
}

/// Ways to an Execute of the unnamed portal where only a failed simple Query left one.
///
/// PostgreSQL's `exec_simple_query` keeps the statement in memory that is reset before the next message; the portal stays
/// where the statement fails while it runs in a transaction block. `ROLLBACK TO` and `COPY` fail so always.
fn shapes() -> Vec<(&'static str, Steps)> {
    let new = Wire::new;
    let failing = long("ROLLBACK TO nowhere");
    let execute = new().execute("", 0).sync();
    let one = |wire: Wire| (wire, 1);
    vec![
        (
            "one after another",
            vec![
                one(new().query("BEGIN")),
                one(new().query("SELEKT")),
                one(new().query(&failing)),
                one(execute.clone()),
            ],
        ),
        (
            "in the transaction that it fails",
            vec![one(new().query("BEGIN")), one(new().query(&long("FETCH c"))), one(execute.clone())],
        ),
        ("all at once", vec![(new().query("BEGIN").query(&failing).execute("", 0).sync(), 3)]),
        ("by COPY", vec![(new().query("BEGIN").query(&long("COPY nowhere FROM STDIN")).execute("", 0).sync(), 3)]),
        (
            "with a statement that is refused here in between",
            vec![(new().query("BEGIN").query("LOAD 'x'").query(&failing).execute("", 0).sync(), 4)],
        ),
        (
            "behind a Bind that fails in the failed transaction",
            vec![
                (new().query("BEGIN").query(&failing).parse("a", "SELECT 1").sync(), 3),
                (new().bind("", "a", &["too", "many"]).sync().execute("", 0).sync(), 2),
            ],
        ),
        (
            "behind a Bind that was skipped",
            vec![
                (new().parse("a", "SELECT 1").sync().query("BEGIN").query(&failing), 3),
                (new().describe(b'S', "none").bind("", "a", &[]).sync().execute("", 0).sync(), 2),
            ],
        ),
        (
            "behind a RESET of the session's own",
            vec![
                (new().query("SET work_mem = 100").query("BEGIN").query(&failing), 3),
                (new().parse("", "RESET ALL").bind("", "", &[]).sync().execute("", 0).sync(), 2),
            ],
        ),
        (
            "in a savepoint",
            vec![
                (new().query("BEGIN").query("SAVEPOINT s").query(&failing).execute("", 0).sync(), 4),
                (new().query("ROLLBACK TO s").execute("", 0).sync(), 2),
            ],
        ),
        (
            "Describe before Execute",
            vec![(new().query("BEGIN").query(&failing).describe(b'P', "").sync().execute("", 0).sync(), 4)],
        ),
    ]
}

#[tokio::test]
async fn what_a_failed_query_left_in_the_unnamed_portal_is_not_executed() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    for (name, steps) in shapes() {
        let mut raw = proxy.raw("acme").await;
        for (wire, readies) in steps {
            let heard = raw.converse(wire, readies).await;
            assert!(heard.contains('Z') && !heard.contains("E(5"), "{name}: {heard}");
        }
        assert_no_process_died(&shard, name);
        assert!(raw.query("ROLLBACK").await.ends_with("ZI"), "{name}: the session goes on");
    }
}

/// What a driver does with the unnamed portal goes on: after a failed Query, in a failed transaction, in pieces.
#[tokio::test]
async fn the_unnamed_portal_that_was_bound_is_executed() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let mut raw = proxy.raw("acme").await;
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) ZT");
    let three = "SELECT generate_series(1, 3)";
    let first = raw.converse(Wire::new().parse("", three).bind("", "", &[]).execute("", 1).sync(), 1).await;
    assert_eq!(first, "1 2 D(1) s ZT");
    assert_eq!(raw.converse(Wire::new().execute("", 1).sync(), 1).await, "D(2) s ZT");
    let again = Wire::new().bind("", "", &[]).sync().execute("", 1).sync();
    assert_eq!(raw.converse(again, 2).await, "2 ZT D(1) s ZT", "a batch before its answer");
    assert_eq!(raw.query("SELECT 1/0").await, "E(22012) ZE");
    let rollback = Wire::new().parse("", "ROLLBACK").bind("", "", &[]).describe(b'P', "").execute("", 0).sync();
    assert_eq!(raw.converse(rollback, 1).await, "1 2 n C(ROLLBACK) ZI");
}

/// Names, few, so that they meet.
const NAMES: [&str; 4] = ["", "a", "b", "c"];
const PORTALS: [&str; 4] = ["", "", "p", "c"];

/// Statements of every kind that meets portals, transactions or prepared statements; fine, wrong, and fine sometimes.
const TEXTS: [&str; 36] = [
    "SELECT body FROM canary WHERE id < 5 ORDER BY id",
    "SELECT 1 / (SELECT 0)",
    "SELECT 1 / (3 - id) FROM canary ORDER BY id",
    "SELECT nothing FROM nowhere",
    "SELEKT",
    "",
    "INSERT INTO ledger (id, body) VALUES (1, 'x') ON CONFLICT DO NOTHING",
    "INSERT INTO ledger (body) VALUES ('x') RETURNING id",
    "INSERT INTO ledger (id) VALUES (1), (1)",
    "BEGIN",
    "COMMIT",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "DECLARE c CURSOR FOR SELECT id FROM canary ORDER BY id",
    "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1 / (3 - id) FROM canary ORDER BY id",
    "FETCH 2 FROM c",
    "FETCH BACKWARD 1 FROM p",
    "MOVE ALL FROM c",
    "CLOSE c",
    "CLOSE ALL",
    "PREPARE a AS SELECT id FROM canary",
    "EXECUTE a",
    "EXPLAIN EXECUTE b",
    "DEALLOCATE a",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "RESET ALL",
    "SET work_mem = '100kB'",
    "SHOW work_mem",
    "COPY ledger (body) FROM STDIN",
    "COPY (SELECT id FROM canary) TO STDOUT",
    "SELECT 1; SELECT 1/0; SELECT 3",
];

/// Adds one random message.
fn message(wire: Wire, random: &mut Random) -> Wire {
    let (name, portal) = (random.pick(&NAMES), random.pick(&PORTALS));
    let text = random.pick(&TEXTS);
    let text = if random.one_in(50) { long(text) } else { text.to_owned() };
    match random.below(20) {
        0..=2 => wire.parse(name, &text),
        3..=5 => wire.bind(portal, name, &[]),
        6 => wire.bind(portal, name, &["too", "many"]),
        7 => wire.describe(b'S', name),
        8 => wire.describe(b'P', portal),
        9..=11 => wire.execute(portal, random.below(3) as u32),
        12 => wire.close(random.pick(b"SP"), name),
        13 => wire.copy_data(b"row\n").copy_done(),
        14 => wire.copy_fail("no"),
        15..=16 => wire.sync(),
        _ => wire.query(&text),
    }
}

/// Holds one random conversation; `false`: the session has ended, as it may where the protocol was broken.
///
/// How many ReadyForQuery come depends on what fails, so a text that does not parse is sent last, and its error awaited.
async fn converse(seed: u64, raw: &mut Raw) -> bool {
    let mut random = Random::new(seed);
    for turn in 0..8 {
        let mut wire = Wire::new();
        for _ in 0..random.below(16) {
            wire = message(wire, &mut random);
        }
        let mark = format!("mark_{turn}");
        raw.send(wire.copy_fail("the end").sync().query(&mark)).await;
        let mut marked = false;
        loop {
            let Some(message) = raw.message().await else { return false };
            assert!(message.tag != b'D' || !is_foreign(&message.body), "PARTYWALL_TEST_SEED={seed}");
            marked |= message.tag == b'E' && message.field(b'M').contains(&mark);
            if marked && message.tag == b'Z' {
                break;
            }
        }
    }
    true
}

/// Whether a row of somebody else is in these bytes.
fn is_foreign(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains("canary of ") && !text.contains("canary of acme")
}

#[tokio::test]
async fn random_conversations_end_no_server_process() {
    let shard = Shard::start();
    let proxy = Proxy::before(&shard).pool_size(2).option("pool", "max_prepared_statements = 2").start().await;
    let first = seed();
    let mut raw = proxy.raw("acme").await;
    for seed in (0..scaled(1500) as u64).map(|at| first.wrapping_add(at)) {
        if !converse(seed, &mut raw).await || seed % 4 == 0 {
            raw = proxy.raw("acme").await;
        }
        if seed % 16 == 0 {
            assert_no_process_died(&shard, &format!("PARTYWALL_TEST_SEED={seed} or the 16 before"));
        }
    }
    assert_no_process_died(&shard, "at the end");
    let heard = proxy.raw("globex").await.query("SELECT DISTINCT org_id FROM canary").await;
    assert_eq!(heard, "T D(globex) C(SELECT 1) ZI", "another organization");
}
