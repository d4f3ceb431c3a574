//! Questions of the proxy's own whose answer may be an error: for attesting a database, and for applying policies.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{AskError, Connection};
use crate::wire::frame::{self, backend};

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The most notices that are kept.
const NOTICES_MAX: usize = 10_000;

/// What a server said to one simple Query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The rows of all its statements, in text format.
    pub rows: Vec<Vec<Option<String>>>,
    /// Notices and warnings: severity and words.
    pub notices: Vec<(String, String)>,
    /// The error that ended it.
    pub no: Option<ServerNo>,
}

/// A server's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({sqlstate})")]
pub struct ServerNo {
    /// The five characters.
    pub sqlstate: String,
    /// The sentence, and the hint if there is one.
    pub message: String,
}

impl Connection {
    /// Sends `sql` as one simple Query and reads the whole answer, an error included, whatever the transaction status is.
    ///
    /// # Errors
    /// When the socket fails, the server breaks the protocol, or the answer takes longer than `patience`; the connection must
    /// be closed then, as when the future is dropped.
    pub async fn inquire(&mut self, sql: &str, patience: Duration) -> Result<Answer, AskError> {
        let mut bytes = Vec::new();
        frame::put_query(&mut bytes, sql);
        let work = async {
            self.server.stream.write_all(&bytes).await?;
            self.server.stream.flush().await?;
            self.read_answer().await
        };
        tokio::time::timeout(patience, work).await.map_err(|_| AskError::Timeout)?
    }

    async fn read_answer(&mut self) -> Result<Answer, AskError> {
        let (mut answer, mut buffer, mut read) = (Answer::default(), Vec::with_capacity(8192), 0);
        loop {
            let count = self.server.stream.read_buf(&mut buffer).await?;
            read += count;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if read > ANSWER_BYTES_MAX {
                return Err(AskError::Protocol);
            }
            let mut at = 0;
            while let Some(header) = frame::header(&buffer[at..]).map_err(|_| AskError::Protocol)? {
                let Some(message) = buffer.get(at..at + header.size) else { break };
                at += header.size;
                if answer.hear(header.tag, &message[frame::HEADER_BYTES..])? {
                    return Ok(answer);
                }
            }
            buffer.drain(..at);
        }
    }
}

impl Answer {
    /// Takes one message in; whether it was the last.
    fn hear(&mut self, tag: u8, body: &[u8]) -> Result<bool, AskError> {
        match tag {
            backend::READY_FOR_QUERY => return Ok(true),
            backend::DATA_ROW => self.rows.push(frame::row_values(body).ok_or(AskError::Protocol)?),
            backend::ERROR_RESPONSE => self.no = Some(no(body)),
            backend::NOTICE_RESPONSE if self.notices.len() < NOTICES_MAX => {
                let ServerNo { message, .. } = no(body);
                self.notices.push((field(body, b'S'), message));
            }
            backend::NOTICE_RESPONSE
            | backend::PARAMETER_STATUS
            | backend::ROW_DESCRIPTION
            | backend::COMMAND_COMPLETE
            | backend::EMPTY_QUERY_RESPONSE => {}
            _ => return Err(AskError::Protocol),
        }
        Ok(false)
    }
}

fn field(body: &[u8], field: u8) -> String {
    String::from_utf8_lossy(frame::error_field(body, field).unwrap_or_default()).into_owned()
}

fn no(body: &[u8]) -> ServerNo {
    let (mut message, hint) = (field(body, b'M'), field(body, b'H'));
    if !hint.is_empty() {
        message.push_str("; ");
        message.push_str(&hint);
    }
    ServerNo { sqlstate: field(body, b'C'), message }
}
