//! Whatever a client sends, it hears through the proxy what it would have heard from the server itself.
//!
//! Random conversations are held twice, past the proxy and through it, with other sessions of another organization taking
//! turns on the same server connection; what is answered must be the same, message by message.

use crate::support::raw::brief;
use crate::support::{Proxy, Random, Raw, Shard, Wire, scaled, seed};

/// Statement names: few, so that they meet.
const NAMES: [&str; 4] = ["", "a", "b", "c"];
const PORTALS: [&str; 2] = ["", "p"];

/// What is parsed: fine, wrong, and fine only sometimes.
const TEXTS: [&str; 9] = [
    "SELECT current_setting('app.current_org_id')",
    "SELECT body FROM canary WHERE id < 5 ORDER BY id",
    "SELECT count(*) FROM canary",
    "SELECT 1 / (SELECT 0)",
    "SELECT nothing FROM nowhere",
    "SELEKT",
    "",
    "INSERT INTO ledger (id, body) SELECT 1, 'x' WHERE false",
    "SELECT 7",
];

/// What is sent as a simple Query.
const QUERIES: [&str; 9] = [
    "SELECT DISTINCT org_id FROM canary",
    "SELECT 1; SELECT 2",
    "SELECT 1; SELECT 1/0; SELECT 3",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "",
];

/// Adds one random message, never one after which a session cannot go on.
fn message(wire: Wire, random: &mut Random) -> (Wire, usize) {
    let (name, portal) = (random.pick(&NAMES), random.pick(&PORTALS));
    match random.below(16) {
        0..=3 => (wire.parse(name, random.pick(&TEXTS)), 0),
        4..=7 => (wire.bind(portal, name, &[]).execute(portal, random.below(3) as u32), 0),
        // In a failed transaction a connection that does not have the statement cannot describe it.
        8 => (wire.parse("", "SELECT 7").describe(b'S', name), 0),
        9 => (wire.describe(b'P', "p"), 0),
        // Not the unnamed one: PostgreSQL can crash on what a simple Query left there.
        10..=11 => (wire.execute("p", random.below(3) as u32), 0),
        12 => (wire.close(random.pick(b"SP"), name), 0),
        13 => (wire.flush(), 0),
        _ => (wire.sync(), 1),
    }
}

/// One batch to be sent at once, and how many ReadyForQuery it asks for.
fn batch(random: &mut Random) -> (Wire, usize) {
    if random.one_in(3) {
        return (Wire::new().query(random.pick(&QUERIES)), 1);
    }
    let (mut wire, mut readies) = (Wire::new(), 0);
    for _ in 0..random.below(14) {
        let (longer, ready) = message(wire, random);
        (wire, readies) = (longer, readies + ready);
    }
    (wire.sync(), readies + 1)
}

/// Holds the same random conversation with both, while `other` takes turns.
async fn compare(seed: u64, direct: &mut Raw, proxied: &mut Raw, other: &mut Raw) {
    let mut random = Random::new(seed);
    let mut history = Vec::new();
    for turn in 0..12 {
        let (wire, readies) = batch(&mut random);
        history.push(format!("{turn}: {:?}", String::from_utf8_lossy(&wire.0)));
        direct.send(wire.clone()).await;
        let expected = brief(&direct.until_readies(readies).await);
        proxied.send(wire).await;
        let heard = brief(&proxied.until_readies(readies).await);
        assert_eq!(heard, expected, "PARTYWALL_TEST_SEED={seed}\n{}", history.join("\n"));
        if expected.ends_with("ZI") {
            let said = other.converse(
                Wire::new().parse("a", TEXTS[0]).bind("", "a", &[]).execute("", 0).close(b'S', "a").sync(),
                1,
            );
            assert_eq!(said.await, "1 2 D(globex) C(SELECT 1) 3 ZI", "the other organization");
        }
    }
}

#[tokio::test]
async fn random_conversations_are_answered_as_the_server_itself_answers_them() {
    let shard = Shard::shared();
    let proxy = Proxy::before(shard).pool_size(1).option("pool", "max_prepared_statements = 2").start().await;
    let first = seed();
    for seed in (0..scaled(300) as u64).map(|at| first.wrapping_add(at)) {
        let (mut direct, mut proxied) = (Raw::past_the_proxy(shard, "acme").await, proxy.raw("acme").await);
        let mut other = proxy.raw("globex").await;
        compare(seed, &mut direct, &mut proxied, &mut other).await;
    }
}
