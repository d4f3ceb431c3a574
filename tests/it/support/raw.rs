//! A client that speaks the protocol by hand: any bytes, in any order, in any pieces.

use std::net::SocketAddr;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Shard, soon};

/// Messages of a client, one after another.
#[derive(Debug, Clone, Default)]
pub struct Wire(pub Vec<u8>);

impl Wire {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Any message: a type byte and a body.
    #[must_use]
    pub fn message(mut self, tag: u8, body: &[u8]) -> Self {
        self.0.push(tag);
        self.0.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    /// Bytes as they are.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Query.
    #[must_use]
    pub fn query(self, sql: &str) -> Self {
        self.message(b'Q', &cstr(sql))
    }

    /// Parse, with no parameter types.
    #[must_use]
    pub fn parse(self, name: &str, sql: &str) -> Self {
        self.message(b'P', &[cstr(name), cstr(sql), vec![0, 0]].concat())
    }

    /// Bind of text parameters; results as text.
    #[must_use]
    pub fn bind(self, portal: &str, statement: &str, parameters: &[&str]) -> Self {
        let mut body = [cstr(portal), cstr(statement), vec![0, 0]].concat();
        body.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            body.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
            body.extend_from_slice(parameter.as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        self.message(b'B', &body)
    }

    /// Describe of a statement (`S`) or portal (`P`).
    #[must_use]
    pub fn describe(self, kind: u8, name: &str) -> Self {
        self.message(b'D', &[vec![kind], cstr(name)].concat())
    }

    /// Close of a statement (`S`) or portal (`P`).
    #[must_use]
    pub fn close(self, kind: u8, name: &str) -> Self {
        self.message(b'C', &[vec![kind], cstr(name)].concat())
    }

    /// Execute; `rows` 0 is all.
    #[must_use]
    pub fn execute(self, portal: &str, rows: u32) -> Self {
        self.message(b'E', &[cstr(portal), rows.to_be_bytes().to_vec()].concat())
    }

    /// Flush.
    #[must_use]
    pub fn flush(self) -> Self {
        self.message(b'H', &[])
    }

    /// Sync.
    #[must_use]
    pub fn sync(self) -> Self {
        self.message(b'S', &[])
    }

    /// CopyData.
    #[must_use]
    pub fn copy_data(self, data: &[u8]) -> Self {
        self.message(b'd', data)
    }

    /// CopyDone.
    #[must_use]
    pub fn copy_done(self) -> Self {
        self.message(b'c', &[])
    }

    /// CopyFail.
    #[must_use]
    pub fn copy_fail(self, why: &str) -> Self {
        self.message(b'f', &cstr(why))
    }

    /// Terminate.
    #[must_use]
    pub fn terminate(self) -> Self {
        self.message(b'X', &[])
    }

    /// The start-up message of protocol 3.0.
    pub fn startup(parameters: &[(&str, &str)]) -> Self {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend([cstr(name), cstr(value)].concat());
        }
        body.push(0);
        let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend(body);
        Self(bytes)
    }

    /// The answer to the request for a password.
    #[must_use]
    pub fn password(self, password: &str) -> Self {
        self.message(b'p', &cstr(password))
    }
}

fn cstr(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// The columns of a DataRow, as text; NULL as "∅".
    pub fn columns(&self) -> Vec<String> {
        assert_eq!(self.tag, b'D', "a DataRow");
        let count = u16::from_be_bytes([self.body[0], self.body[1]]);
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        for _ in 0..count {
            let (length, after) = rest.split_at(4);
            let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
            let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
            columns.push(if length < 0 { "∅".to_owned() } else { String::from_utf8_lossy(value).into_owned() });
            rest = after;
        }
        columns
    }

    /// A field of an ErrorResponse or NoticeResponse: `C` is the code, `M` the message.
    pub fn field(&self, code: u8) -> String {
        let fields = self.body.split(|&byte| byte == 0);
        let field = fields.into_iter().find(|field| field.first() == Some(&code));
        field.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
    }

    /// In short, for comparing conversations: the type, and what matters of the rest.
    pub fn brief(&self) -> String {
        match self.tag {
            b'D' => format!("D({})", self.columns().join(",")),
            b'E' => format!("E({})", self.field(b'C')),
            b'C' => format!("C({})", String::from_utf8_lossy(&self.body).trim_end_matches('\0')),
            b'Z' => format!("Z{}", char::from(self.body[0])),
            tag => char::from(tag).to_string(),
        }
    }
}

/// In short, a whole conversation, without ParameterStatus and notices.
pub fn brief(messages: &[Message]) -> String {
    let said = messages.iter().filter(|message| !matches!(message.tag, b'S' | b'N'));
    said.map(Message::brief).collect::<Vec<_>>().join(" ")
}

/// A connection of a client that speaks by hand.
pub struct Raw {
    /// The socket.
    pub stream: TcpStream,
    read: Vec<u8>,
    /// What a CancelRequest for this session must say.
    pub cancel_key: (u32, Vec<u8>),
}

impl Raw {
    /// A connection that has said nothing yet.
    pub async fn dial(address: SocketAddr) -> Self {
        let stream = soon("the proxy accepts", TcpStream::connect(address)).await.expect("connects");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, read: Vec::new(), cancel_key: (0, Vec::new()) }
    }

    /// A session, logged in without TLS by this token.
    pub async fn log_in(address: SocketAddr, token: &str) -> Self {
        Self::log_in_with(address, token, &[]).await
    }

    /// A session, or nothing where the connection ends before the login does.
    pub async fn try_log_in(address: SocketAddr, token: &str) -> Option<Self> {
        let mut raw = Self::dial(address).await;
        raw.send(Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)])).await;
        raw.message().await.filter(|message| message.tag == b'R')?;
        raw.send(Wire::new().password(token)).await;
        raw.until_ready().await.last().filter(|message| message.tag == b'Z')?;
        Some(raw)
    }

    /// A session, with more start-up parameters.
    pub async fn log_in_with(address: SocketAddr, token: &str, more: &[(&str, &str)]) -> Self {
        Self::dial(address).await.logged_in(token, more).await
    }

    /// A session on a connection of the caller's making.
    pub async fn log_in_on(stream: TcpStream, token: &str) -> Self {
        Self { stream, read: Vec::new(), cancel_key: (0, Vec::new()) }.logged_in(token, &[]).await
    }

    async fn logged_in(self, token: &str, more: &[(&str, &str)]) -> Self {
        let mut raw = self;
        let own = [("user", "ada"), ("database", Shard::DATABASE)];
        raw.send(Wire::startup(&[&own, more].concat())).await;
        assert_eq!(raw.message().await.map(|message| message.tag), Some(b'R'), "a password is asked for");
        raw.send(Wire::new().password(token)).await;
        let welcome = raw.until_ready().await;
        assert_eq!(welcome.last().map(Message::brief).as_deref(), Some("ZI"), "logged in: {}", brief(&welcome));
        let key = welcome.iter().find(|message| message.tag == b'K').expect("a cancel key");
        let (pid, key) = key.body.split_at(4);
        raw.cancel_key = (u32::from_be_bytes(pid.try_into().expect("four bytes")), key.to_vec());
        raw
    }

    /// A session of the shared role on the server itself, past the proxy, told that it is `org`'s.
    pub async fn past_the_proxy(shard: &Shard, org: &str) -> Self {
        Self::past_the_proxy_with(shard, org, &[]).await
    }

    /// As [`Self::past_the_proxy`], with more start-up parameters.
    pub async fn past_the_proxy_with(shard: &Shard, org: &str, more: &[(&str, &str)]) -> Self {
        let mut raw = Self::dial(([127, 0, 0, 1], shard.cluster.port()).into()).await;
        let own = [("user", Shard::USER), ("database", Shard::DATABASE), ("app.current_org_id", org)];
        raw.send(Wire::startup(&[&own, more].concat())).await;
        raw.prove(&shard.password).await;
        raw.until_ready().await;
        raw
    }

    /// Answers a server's SCRAM-SHA-256.
    async fn prove(&mut self, password: &str) {
        assert_eq!(self.message().await.map(|message| message.tag), Some(b'R'), "SASL is asked for");
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = scram.message();
        let length = (first.len() as u32).to_be_bytes();
        let body = [&cstr("SCRAM-SHA-256"), &length[..], first].concat();
        self.send(Wire::new().message(b'p', &body)).await;
        let challenge = self.message().await.expect("a challenge");
        scram.update(&challenge.body[4..]).expect("a sound challenge");
        self.send(Wire::new().message(b'p', scram.message())).await;
        let proof = self.message().await.expect("a proof");
        scram.finish(&proof.body[4..]).expect("the server knows the password too");
    }

    /// Sends bytes; a peer that has gone is noticed when reading.
    pub async fn send(&mut self, wire: Wire) {
        drop(soon("the proxy takes what it is sent", self.stream.write_all(&wire.0)).await);
    }

    /// The next message; none when the connection has ended.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            if let Some((&[tag, a, b, c, d], _)) = self.read.split_first_chunk::<5>() {
                let end = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
                if self.read.len() >= end {
                    let body = self.read[5..end].to_vec();
                    self.read.drain(..end);
                    return Some(Message { tag, body });
                }
            }
            let count = soon("the proxy says something", self.stream.read_buf(&mut self.read)).await;
            if count.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Messages up to and with ReadyForQuery, or to the end of the connection.
    pub async fn until_ready(&mut self) -> Vec<Message> {
        self.until_readies(1).await
    }

    /// Messages up to and with that many ReadyForQuery, or to the end of the connection.
    pub async fn until_readies(&mut self, mut count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while count > 0 {
            let Some(message) = self.message().await else { break };
            count -= usize::from(message.tag == b'Z');
            messages.push(message);
        }
        messages
    }

    /// Messages up to and with the first of that type, or to the end of the connection.
    pub async fn until_tag(&mut self, tag: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            let last = message.tag == tag;
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// Everything up to the end of the connection.
    pub async fn until_closed(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        messages
    }

    /// Sends, and returns the conversation up to as many ReadyForQuery, in short.
    pub async fn converse(&mut self, wire: Wire, readies: usize) -> String {
        self.send(wire).await;
        brief(&self.until_readies(readies).await)
    }

    /// Runs a simple Query; the conversation in short.
    pub async fn query(&mut self, sql: &str) -> String {
        self.converse(Wire::new().query(sql), 1).await
    }

    /// Sends a CancelRequest for this session, on a connection of its own, and waits until that is closed.
    pub async fn cancel(&self, address: SocketAddr) {
        cancel(address, self.cancel_key.0, &self.cancel_key.1).await;
    }
}

/// Sends a CancelRequest, and waits until the proxy has closed its connection.
pub async fn cancel(address: SocketAddr, pid: u32, key: &[u8]) {
    let mut raw = Raw::dial(address).await;
    let mut bytes = (12 + key.len() as u32).to_be_bytes().to_vec();
    bytes.extend(80_877_102_u32.to_be_bytes());
    bytes.extend(pid.to_be_bytes());
    bytes.extend(key);
    raw.send(Wire(bytes)).await;
    raw.until_closed().await;
}
