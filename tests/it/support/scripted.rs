//! A peer that plays a server: it logs anybody in as a fit server would, and answers a context as its script says.
//!
//! It keeps account of whose each of its connections is, by what it has itself confirmed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the server does with a statement that tells it a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Confirms it.
    Confirm,
    /// ErrorResponse 57014 and ReadyForQuery(I): a cancel has hit it.
    Cancelled,
    /// The same, having confirmed the first part of it.
    CancelledHalfWay,
    /// An error, and then never a ReadyForQuery.
    ErrorAndSilence,
    /// Confirms it, in a transaction block.
    InTransaction,
    /// Confirms it, in a failed transaction block.
    InFailedTransaction,
    /// Confirms it twice.
    Twice,
    /// Bytes of no protocol.
    Garbage,
    /// A message that is no answer to this.
    Unasked,
    /// A message of an impossible length.
    ImpossibleLength,
    /// Half a message, then the end.
    HalfAMessage,
    /// The end.
    Close,
    /// Waits until [`Scripted::let_go`], then confirms it.
    Late,
    /// Takes it, and never says a word.
    Silence,
}

/// A statement that a connection was given to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The connection, from 0, in the order of logging in.
    pub connection: usize,
    /// The organization of the last context that the server confirmed on it.
    pub confirmed: Option<String>,
    /// Whether a context had been sent that was not confirmed yet, or had failed.
    pub in_doubt: bool,
    /// The text.
    pub sql: String,
}

#[derive(Default)]
struct Account {
    script: VecDeque<Act>,
    answer: Option<Vec<u8>>,
    ran: Vec<Ran>,
    connections: usize,
    told: usize,
}

/// The peer; it listens until it is dropped.
pub struct Scripted {
    /// Where.
    pub port: u16,
    account: Arc<Mutex<Account>>,
    go: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Scripted {
    /// Begins to listen. Contexts are confirmed unless [`Scripted::next`] says otherwise.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (account, go) = (Arc::<Mutex<Account>>::default(), Arc::new(Notify::new()));
        let (shared, gate) = (Arc::clone(&account), Arc::clone(&go));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (account, go) = (Arc::clone(&shared), Arc::clone(&gate));
                tokio::spawn(async move {
                    let _ = Peer { stream, account, go, number: 0, confirmed: None, in_doubt: false }.serve().await;
                });
            }
        });
        Self { port, account, go, task }
    }

    /// What is done with the next contexts, in turn.
    pub fn next(&self, acts: &[Act]) {
        self.account.lock().expect("not poisoned").script.extend(acts);
    }

    /// The bytes that the next statement is answered with.
    pub fn answer_next(&self, bytes: &[u8]) {
        self.account.lock().expect("not poisoned").answer = Some(bytes.to_vec());
    }

    /// Lets an [`Act::Late`] go on.
    pub fn let_go(&self) {
        self.go.notify_one();
    }

    /// Every statement that was not a context, so far.
    pub fn ran(&self) -> Vec<Ran> {
        self.account.lock().expect("not poisoned").ran.clone()
    }

    /// How many contexts have been received.
    pub fn told(&self) -> usize {
        self.account.lock().expect("not poisoned").told
    }

    /// How many connections have logged in.
    pub fn connections(&self) -> usize {
        self.account.lock().expect("not poisoned").connections
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Peer {
    stream: TcpStream,
    account: Arc<Mutex<Account>>,
    go: Arc<Notify>,
    number: usize,
    confirmed: Option<String>,
    in_doubt: bool,
}

impl Peer {
    async fn serve(mut self) -> std::io::Result<()> {
        let length = self.stream.read_u32().await? as usize;
        let mut startup = vec![0; length - 4];
        self.stream.read_exact(&mut startup).await?;
        if startup.starts_with(&80_877_102_u32.to_be_bytes()) {
            // A CancelRequest: closing is the answer.
            return Ok(());
        }
        // It plays a server for sessions, not one whose walls could be looked at.
        if String::from_utf8_lossy(&startup).contains("partywall-attest") {
            return Ok(());
        }
        self.welcome().await?;
        loop {
            let tag = self.stream.read_u8().await?;
            let length = self.stream.read_u32().await? as usize;
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body).await?;
            match tag {
                b'Q' => self.query(&String::from_utf8_lossy(&body[..body.len() - 1])).await?,
                b'X' => return Ok(()),
                b'S' => self.say(&[(b'Z', b"I")]).await?,
                b'P' => {
                    self.note(&String::from_utf8_lossy(&body));
                    self.say(&[(b'1', b"")]).await?;
                }
                b'B' => self.say(&[(b'2', b"")]).await?,
                b'E' => self.say(&[(b'C', b"SELECT 0\0")]).await?,
                _ => {}
            }
        }
    }

    async fn welcome(&mut self) -> std::io::Result<()> {
        let number = {
            let mut account = self.account.lock().expect("not poisoned");
            account.connections += 1;
            account.connections - 1
        };
        self.number = number;
        let key = [&(number as u32 + 1).to_be_bytes()[..], b"keys"].concat();
        let parameters: [&[u8]; 4] = [
            b"server_version\x0015.0\0",
            b"client_encoding\0UTF8\0",
            b"standard_conforming_strings\0on\0",
            b"application_name\0\0",
        ];
        self.say(&[(b'R', &[0; 4])]).await?;
        for parameter in parameters {
            self.say(&[(b'S', parameter)]).await?;
        }
        self.say(&[(b'K', &key), (b'Z', b"I")]).await
    }

    async fn query(&mut self, sql: &str) -> std::io::Result<()> {
        if sql.contains("rolbypassrls") {
            return self.say(&[(b'D', &fit_row()), (b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
        }
        let Some((_, rest)) = sql.split_once("SET \"app\".\"current_org_id\"='") else {
            if sql.starts_with("SET \"") || sql.starts_with("RESET \"") || sql.starts_with("DISCARD ") {
                return self.say(&[(b'C', b"SET\0"), (b'Z', b"I")]).await;
            }
            self.note(sql);
            let answer = self.account.lock().expect("not poisoned").answer.take();
            if let Some(answer) = answer {
                return self.stream.write_all(&answer).await;
            }
            return self.say(&[(b'C', b"SELECT 0\0"), (b'Z', b"I")]).await;
        };
        let org = rest.split('\'').next().unwrap_or_default().to_owned();
        let act = {
            let mut account = self.account.lock().expect("not poisoned");
            account.told += 1;
            account.script.pop_front().unwrap_or(Act::Confirm)
        };
        self.in_doubt = true;
        self.act(act, org).await
    }

    async fn act(&mut self, act: Act, org: String) -> std::io::Result<()> {
        const ERROR: (u8, &[u8]) = (b'E', b"SERROR\0C57014\0Mcanceling statement due to user request\0\0");
        const SET: (u8, &[u8]) = (b'C', b"SET\0");
        match act {
            Act::Confirm => {}
            Act::Late => self.go.notified().await,
            Act::Cancelled => return self.say(&[ERROR, (b'Z', b"I")]).await,
            Act::CancelledHalfWay => return self.say(&[SET, ERROR, (b'Z', b"I")]).await,
            Act::ErrorAndSilence => return self.say(&[ERROR]).await,
            Act::InTransaction => return self.say(&[SET, (b'Z', b"T")]).await,
            Act::InFailedTransaction => return self.say(&[SET, (b'Z', b"E")]).await,
            Act::Twice => return self.say(&[SET, (b'Z', b"I"), SET, (b'Z', b"I")]).await,
            Act::Garbage => return self.stream.write_all(&[0xff; 64]).await,
            Act::Unasked => return self.say(&[(b'A', b"\0\0\0\x01channel\0\0"), SET, (b'Z', b"I")]).await,
            Act::ImpossibleLength => return self.stream.write_all(&[b'C', 0, 0, 0, 1, b'Z', 0, 0, 0, 5, b'I']).await,
            Act::HalfAMessage => {
                self.stream.write_all(&[b'C', 0, 0, 0, 8, b'S']).await?;
                return self.stream.shutdown().await;
            }
            Act::Close => return self.stream.shutdown().await,
            Act::Silence => return Ok(()),
        }
        self.confirmed = Some(org);
        self.in_doubt = false;
        self.say(&[SET, (b'Z', b"I")]).await
    }

    fn note(&self, sql: &str) {
        let ran = Ran {
            connection: self.number,
            confirmed: self.confirmed.clone(),
            in_doubt: self.in_doubt,
            sql: sql.to_owned(),
        };
        self.account.lock().expect("not poisoned").ran.push(ran);
    }

    async fn say(&mut self, messages: &[(u8, &[u8])]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend((body.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        self.stream.write_all(&bytes).await
    }
}

/// What the question about the login role is answered with by a server that is fit.
fn fit_row() -> Vec<u8> {
    let head = ["150013", "f", "t", "f", "f", "f", "f", "f"].map(Some);
    let settings = ["on", "on", "UTF8", "UTF8", "\"$user\", public", "origin", "off"].map(Some);
    let columns: Vec<Option<&str>> = head.into_iter().chain([None, None]).chain(settings).chain([Some("f")]).collect();
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for column in columns {
        match column {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    body
}
