//! Thousands of transactions in turn over one server connection, in every way a client can send one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage, Statement};

use crate::support::{Proxy, Random, Shard, Wire, scaled, seed};

/// A row of the reader's, and the context it was read under.
const ROW: &str = "SELECT org_id, current_setting('app.current_org_id'), id FROM canary";

/// A reader: who it is, its connection, and what it has prepared.
struct Reader {
    org: &'static str,
    client: Client,
    prepared: Statement,
    random: Random,
}

impl Reader {
    async fn new(proxy: &Proxy, org: &'static str, seed: u64) -> Self {
        let client = proxy.connect(org).await;
        let prepared = client.prepare(&format!("{ROW} WHERE id = $1")).await.expect("prepares");
        Self { org, client, prepared, random: Random::new(seed) }
    }

    fn own(&self, rows: &[Row], count: usize) {
        assert_eq!(rows.len(), count, "{} reads all of its rows", self.org);
        for row in rows {
            assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (self.org, self.org));
        }
    }

    fn own_text(&self, messages: &[SimpleQueryMessage], count: usize) {
        let rows: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((row.get(0), row.get(1))),
                _ => None,
            })
            .collect();
        assert_eq!(rows, vec![(Some(self.org), Some(self.org)); count]);
    }

    /// One transaction, of any kind.
    async fn transaction(&mut self) -> Result<(), Error> {
        let id = 1 + self.random.below(100) as i32;
        match self.random.below(8) {
            0 => self.own_text(&self.client.simple_query(&format!("{ROW} WHERE id = {id}")).await?, 1),
            1 => {
                let sql = format!("{ROW} WHERE id = {id}; {ROW} WHERE id <= 2");
                self.own_text(&self.client.simple_query(&sql).await?, 3);
            }
            2 => self.own(&self.client.query(&self.prepared, &[&id]).await?, 1),
            3 => self.own(&self.client.query(&format!("{ROW} WHERE id <= $1"), &[&id]).await?, id as usize),
            4 => {
                // Two at once, so that they are pipelined.
                let parameters: [&(dyn ToSql + Sync); 1] = [&id];
                let query = || self.client.query(&self.prepared, &parameters);
                let (one, other) = tokio::join!(query(), query());
                self.own(&one?, 1);
                self.own(&other?, 1);
            }
            5 => self.in_a_block(id).await?,
            6 => self.with_portals(id).await?,
            _ => self.with_settings(id).await?,
        }
        Ok(())
    }

    /// BEGIN, reads and writes, and COMMIT or ROLLBACK, each by itself.
    async fn in_a_block(&self, id: i32) -> Result<(), Error> {
        self.client.batch_execute("BEGIN").await?;
        self.own_text(&self.client.simple_query(&format!("{ROW} WHERE id = {id}")).await?, 1);
        let insert = "INSERT INTO ledger (body) VALUES ($1) RETURNING org_id, current_setting('app.current_org_id')";
        self.own(&self.client.query(insert, &[&"in turn"]).await?, 1);
        self.own(&self.client.query(&self.prepared, &[&id]).await?, 1);
        let foreign = self.client.query("SELECT 1 FROM ledger WHERE org_id <> $1", &[&self.org]).await?;
        assert!(foreign.is_empty());
        self.client.batch_execute(if id % 2 == 0 { "COMMIT" } else { "ROLLBACK" }).await
    }

    /// A portal that is read in pieces.
    async fn with_portals(&mut self, id: i32) -> Result<(), Error> {
        let org = self.org;
        let transaction = self.client.transaction().await?;
        let portal = transaction.bind(&format!("{ROW} WHERE id <= $1 ORDER BY id"), &[&id]).await?;
        let mut rows = Vec::new();
        loop {
            let piece = transaction.query_portal(&portal, 40).await?;
            rows.extend(piece.iter().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))));
            if piece.len() < 40 {
                break;
            }
        }
        transaction.commit().await?;
        assert_eq!(rows, vec![(org.to_owned(), org.to_owned()); id as usize]);
        Ok(())
    }

    /// A setting of the session's own, which the next server connection has, too.
    async fn with_settings(&self, id: i32) -> Result<(), Error> {
        let own = format!("{}_{id}", self.org);
        self.client.batch_execute(&format!("SET my.own = '{own}'")).await?;
        let row = self.client.query_one("SELECT current_setting('my.own')", &[]).await?;
        assert_eq!(row.get::<_, &str>(0), own);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_belongs_to_its_reader_in_thousands_of_transactions_on_one_server_connection() {
    let (seed, total) = (seed(), scaled(20_000));
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let done = AtomicUsize::new(0);
    let readers = (0..8).map(|number| {
        let (proxy, done) = (&proxy, &done);
        async move {
            let org = ["acme", "globex"][number % 2];
            let mut reader = Reader::new(proxy, org, seed.wrapping_add(number as u64)).await;
            while done.fetch_add(1, Ordering::Relaxed) < total {
                reader.transaction().await.expect("nothing fails");
            }
        }
    });
    join_all(readers).await;
}

/// A client that sends something and is gone, at any byte of it.
async fn killed(proxy: &Proxy, random: &mut Random) {
    let org = random.pick(&["initech", "hooli"]);
    let mut raw = proxy.raw(org).await;
    let wire = match random.below(5) {
        0 => {
            Wire::new().query("BEGIN").query("INSERT INTO ledger (body) VALUES ('never')").query("SELECT * FROM canary")
        }
        1 => Wire::new().query("SELECT count(*) FROM canary a, canary b, canary c"),
        2 => Wire::new().parse("x", ROW).bind("", "x", &[]).execute("", 1).flush().execute("", 0).sync(),
        3 => Wire::new()
            .query("COPY ledger (body) FROM STDIN")
            .copy_data(b"never\n")
            .copy_data(b"never\n")
            .copy_fail("no"),
        _ => Wire::new().query("SET my.own = 'left'").query("SELECT nextval('ticket')").query("COPY canary TO STDOUT"),
    };
    let cut = random.below(wire.0.len() + 1);
    raw.send(Wire(wire.0[..cut].to_vec())).await;
    for _ in 0..random.below(3) {
        // Gone in the middle of the answers, too.
        let _ = tokio::time::timeout(Duration::from_millis(2), raw.message()).await;
    }
}

/// Whether an error is what a cancel does.
fn is_cancel(error: &Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_while_clients_are_killed_and_cancels_come_at_random() {
    let (seed, total) = (seed(), scaled(20_000));
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let (done, cancelled) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = || done.load(Ordering::Relaxed) >= total;
    let readers = (0..6).map(|number| {
        let (proxy, done, cancelled) = (&proxy, &done, &cancelled);
        async move {
            let org = ["acme", "globex"][number % 2];
            let mut reader = Reader::new(proxy, org, seed.wrapping_add(number as u64)).await;
            let (token, mut random) = (reader.client.cancel_token(), Random::new(seed ^ number as u64));
            while done.fetch_add(1, Ordering::Relaxed) < total {
                let cancel = random.one_in(8);
                let (outcome, ()) = tokio::join!(reader.transaction(), async {
                    if cancel {
                        tokio::time::sleep(Duration::from_micros(random.below(3000) as u64)).await;
                        token.cancel_query(tokio_postgres::NoTls).await.expect("the proxy takes it");
                    }
                });
                if let Err(error) = outcome {
                    assert!(
                        is_cancel(&error) || error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION),
                        "{error:?}"
                    );
                    cancelled.fetch_add(1, Ordering::Relaxed);
                    // A cancel that comes late may hit this one too.
                    while let Err(error) = reader.client.batch_execute("ROLLBACK").await {
                        assert!(is_cancel(&error), "{error:?}");
                    }
                }
            }
        }
    });
    let killers = (0..2).map(|number| {
        let (proxy, is_over) = (&proxy, &is_over);
        async move {
            let mut random = Random::new(!seed ^ number);
            while !is_over() {
                killed(proxy, &mut random).await;
            }
        }
    });
    tokio::join!(join_all(readers), join_all(killers));
    assert!(cancelled.load(Ordering::Relaxed) > 0, "some were cancelled");
    // Nothing of the killed is left, and the one server connection serves on.
    let admin = Shard::shared().admin().await;
    let left = admin.query_one("SELECT count(*) FROM ledger WHERE body = 'never'", &[]).await.expect("counts");
    assert_eq!(left.get::<_, i64>(0), 0);
    let mut last = proxy.raw("acme").await;
    assert_eq!(last.query("SELECT count(*) FROM canary").await, "T D(100) C(SELECT 1) ZI");
}
