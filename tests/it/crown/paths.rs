//! The ways by which a text reaches the server.

use crate::support::{Message, Raw, Wire};

/// What is read beside a trick, in its own batch.
const BESIDE: &str = "SELECT min(body), max(body) FROM canary";

/// A way by protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// One Query.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync.
    Extended,
    /// Named, twice, with another statement in the batch.
    Pipelined,
    /// As the query of COPY … TO STDOUT.
    Copy,
    /// As the query of a cursor.
    Cursor,
}

impl Path {
    /// Every way.
    pub const ALL: [Self; 5] = [Self::Simple, Self::Extended, Self::Pipelined, Self::Copy, Self::Cursor];

    /// The bytes, and how many ReadyForQuery they are answered with.
    fn wire(self, sql: &str) -> (Wire, usize) {
        match self {
            Self::Simple => (Wire::new().query(sql), 1),
            Self::Extended => {
                (Wire::new().parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0).sync(), 1)
            }
            Self::Pipelined => {
                let first = Wire::new().parse("trick", sql).bind("", "trick", &[]).execute("", 0);
                let beside = first.parse("", BESIDE).bind("", "", &[]).execute("", 0).sync();
                (beside.bind("again", "trick", &[]).execute("again", 0).sync(), 2)
            }
            Self::Copy => (Wire::new().query(&format!("COPY ({sql}) TO STDOUT")), 1),
            Self::Cursor => {
                let declare = format!("DECLARE trick CURSOR FOR {sql}");
                let begun = Wire::new().query("BEGIN").query(&declare);
                (begun.query("FETCH ALL FROM trick").query("COMMIT"), 4)
            }
        }
    }

    /// Sends a text so; everything that was heard, up to the end of the connection at most.
    pub async fn send(self, raw: &mut Raw, sql: &str) -> Vec<Message> {
        let (wire, readies) = self.wire(sql);
        raw.send(wire).await;
        hear(raw, readies, matches!(self, Self::Extended | Self::Pipelined)).await
    }
}

/// Messages up to and with that many ReadyForQuery; a COPY that waits for data gets none.
pub async fn hear(raw: &mut Raw, mut readies: usize, extended: bool) -> Vec<Message> {
    let mut heard = Vec::new();
    while readies > 0 {
        let Some(message) = raw.message().await else { break };
        match message.tag {
            b'Z' => readies -= 1,
            // The Sync that was sent with it is not heard while data is waited for.
            b'G' if extended => raw.send(Wire::new().copy_done().sync()).await,
            b'G' => raw.send(Wire::new().copy_done()).await,
            _ => {}
        }
        heard.push(message);
    }
    heard
}
