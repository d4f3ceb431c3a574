//! A server connection with all that is known of it: what it was told, what it has prepared, what it has been through.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bond::Bond;
use super::cleaning::{self, Cleaning, Left};
use super::statements::{LARGE_TEXT_BYTES, Prepared, Statement};
use super::{Asker, Wish};
use crate::context::Context;
use crate::context::seal::Form;
use crate::ids::{OrgId, SessionId};
use crate::net::ServerStream;
use crate::server::ServerConnection;
use crate::wire::flow::Status;
use crate::wire::frame::{self, backend};

/// How long a server may take to answer what the proxy itself asks of it.
pub const OWN_ROUND_TRIP_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes that such an answer may have.
const OWN_ANSWER_BYTES_MAX: usize = 1 << 20;

/// The most settings that a server may report.
const PARAMETERS_MAX: usize = 100;

/// What a connection has been through since it was last cleaned, and so what must happen before another session of the
/// same organization may have it. For another organization it is cleaned whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taint {
    /// Nothing that its context does not say, but for [`Left`].
    None,
    /// State that [`Cleaning::All`] takes away.
    Clean,
    /// State that nothing takes away: it must be closed.
    Close,
}

/// A pooled server connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket and who is behind it.
    pub server: ServerConnection,
    /// The context it has confirmed; `None` for that of its start-up.
    pub told: Option<Context>,
    /// What makes the database believe it.
    pub(super) bond: Bond,
    /// What it has been through.
    pub taint: Taint,
    /// What another session of the same organization must not meet.
    pub left: Left,
    /// What it reported of its settings, where a session has heard exactly that since the last change.
    pub reported: Option<Rc<[(String, String)]>>,
    /// Named statements prepared on it.
    pub prepared: Prepared,
    /// The unnamed statement on it.
    pub unnamed: Option<Rc<Statement>>,
    /// Its process has read a large text.
    large_text: bool,
    /// The session that had it last; none since it was cleaned.
    pub(super) last_session: Option<SessionId>,
    /// The organization that had it last; none since it was cleaned.
    pub(super) last_org: Option<OrgId>,
    /// Since when it has been idle.
    pub(super) idle_since: Instant,
    /// Under which settings it was opened.
    pub(super) epoch: u64,
}

/// Why the server did not do what the proxy itself asked; the connection must be closed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket failed.
    #[error("the connection to the server failed: {0}")]
    Io(#[from] io::Error),
    /// No answer in `OWN_ROUND_TRIP_TIMEOUT`.
    #[error("the server did not answer in time")]
    Timeout,
    /// The server answered with an error.
    #[error("the server refused: {0}")]
    Refused(String),
    /// What another session left could not be taken away; the words are about that session and nobody else's business.
    #[error("it could not be cleaned: {0}")]
    Unclean(String),
    /// The server answered something else than was asked.
    #[error("the server's answer was not understood")]
    Protocol,
}

impl AskError {
    /// The error of a hand-over: where something of another session was to be taken away, it may be about that.
    fn of(self, cleaning: Cleaning) -> Self {
        match (self, cleaning) {
            (Self::Refused(words), Cleaning::All) => Self::Unclean(words),
            (error, _) => error,
        }
    }
}

impl Connection {
    pub(super) fn new(server: ServerConnection, bond: Bond) -> Self {
        Self {
            server,
            told: None,
            bond,
            taint: Taint::None,
            left: Left::default(),
            reported: None,
            prepared: Prepared::default(),
            unnamed: None,
            large_text: false,
            last_session: None,
            last_org: None,
            idle_since: Instant::now(),
            epoch: 0,
        }
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut ServerStream {
        &mut self.server.stream
    }

    /// Remembers a ParameterStatus, given its body.
    pub fn note_parameter(&mut self, body: &[u8]) {
        let Some((name, rest)) = frame::split_cstr(body) else { return };
        let Some((value, _)) = frame::split_cstr(rest) else { return };
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        self.reported = None;
        let parameters = &mut self.server.parameters;
        if let Some((_, known)) = parameters.iter_mut().find(|(known, _)| *known == name) {
            *known = value.into_owned();
        } else if parameters.len() < PARAMETERS_MAX {
            parameters.push((name.into_owned(), value.into_owned()));
        }
    }

    /// Makes the taint at least `taint`.
    pub fn taint(&mut self, taint: Taint) {
        self.taint = self.taint.max(taint);
    }

    /// Remembers that its process reads a text of so many bytes.
    #[inline]
    pub fn note_text(&mut self, bytes: usize) {
        self.large_text |= bytes >= LARGE_TEXT_BYTES;
    }

    /// Whether its process is likely to hold memory that nobody needs any more.
    pub(super) fn is_swollen(&self) -> bool {
        self.large_text && !self.prepared.has_large_in_use()
    }

    /// Whether nothing has come since the last answer: an idle server has nothing to say but that it goes.
    ///
    /// Costs no system call: the runtime already knows whether the socket became readable.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.server.stream.is_quiet()
    }

    /// Whether it has confirmed this very context, and the database will believe it for a while.
    pub fn carries(&self, context: &Context) -> bool {
        self.told.as_ref() == Some(context) && self.bond.is_fresh()
    }

    /// What must be taken away before the asker has it.
    pub(super) fn cleaning_for(&self, asker: &Asker) -> Cleaning {
        let wish = &asker.wish;
        let same = self.last_session == Some(wish.session);
        let strange = self.last_org.as_ref().is_some_and(|last| last != asker.line.limits.org());
        if !same && (strange || self.taint != Taint::None) {
            return Cleaning::All;
        }
        if self.is_as_left(wish) { Cleaning::Nothing } else { Cleaning::Left }
    }

    /// Whether nothing is left, or all that is left is the session's own, and not overtaken by what it did elsewhere.
    fn is_as_left(&self, wish: &Wish) -> bool {
        self.left.is_empty() && (!wish.asks_sequences || self.last_session.is_none_or(|last| last == wish.session))
            || self.last_session == Some(wish.session)
                && (!self.left.contains(Left::SEQUENCES) || wish.sequences_on == Some(self.server.pid))
    }

    /// Whether it is the session's as it is, without a word: nothing of another one is on it.
    pub(super) fn suits(&self, wish: &Wish) -> bool {
        // The same context is of the same organization.
        (self.taint == Taint::None || self.last_session == Some(wish.session))
            && self.is_as_left(wish)
            && self.carries(&wish.context)
    }

    /// From now on nobody's: whatever session has it next, it is cleaned for it.
    pub fn disown(&mut self) {
        self.last_session = None;
        self.taint(Taint::Clean);
    }

    /// Takes away what `cleaning` says, tells it `context`, and waits until it has confirmed; the only way a context comes
    /// onto a connection.
    ///
    /// On any error, or when dropped half-way, the connection is in an unknown state and must be closed. Returns whether
    /// anything was sent.
    pub async fn tell(&mut self, context: Option<&Context>, cleaning: Cleaning) -> Result<bool, AskError> {
        let (mut bytes, mut answers, mut sql) = (Vec::new(), 0, String::new());
        match cleaning {
            Cleaning::Nothing | Cleaning::Left => self.discards(context, cleaning).push(&mut sql),
            Cleaning::All => answers = self.put_cleaning(&mut bytes, &mut sql).await?,
        }
        let blank = Context::new([]);
        let wanted = context.unwrap_or(&blank);
        // First, as a time-out of the context's own could end it.
        if let Some(entry) = self.bond.attest(self.told.as_ref(), wanted, self.server.pid) {
            sql.push_str(&entry);
            sql.push(';');
        }
        wanted.tell(self.told.as_ref(), &mut sql);
        if !sql.is_empty() {
            frame::put_query(&mut bytes, &sql);
            answers += 1;
        }
        if answers > 0 {
            self.unnamed = None;
            self.told = None;
            let asked = self.ask(&bytes, answers, |_, _| Ok(())).await;
            asked.map_err(|error| error.of(cleaning))?;
        }
        self.told = context.cloned();
        if cleaning != Cleaning::Nothing {
            self.left = Left::default();
        }
        if cleaning == Cleaning::All {
            self.taint = Taint::None;
            (self.last_session, self.last_org) = (None, None);
        }
        Ok(answers > 0)
    }

    /// What goes where not everything does: what is left, and plans made under other settings than those to come.
    fn discards(&self, context: Option<&Context>, cleaning: Cleaning) -> Left {
        let mut discards = Left::default();
        if cleaning == Cleaning::Left {
            discards = self.left;
            // Code may have taken a value where no statement showed it.
            discards.add(Left::SEQUENCES);
        }
        if self.told.as_ref().is_some_and(|told| told.scope() != context.map_or(0, Context::scope)) {
            discards.add(Left::PLANS);
        }
        discards
    }

    /// Writes what takes everything away: whole messages into `bytes`, and the rest into `sql`, in front of the context.
    /// Returns how many answers the messages ask for.
    async fn put_cleaning(&mut self, bytes: &mut Vec<u8>, sql: &mut String) -> Result<usize, AskError> {
        let (form, mut answers) = (self.bond.form(), 1);
        frame::put_query(bytes, cleaning::before(form, self.server.server_version_num));
        self.told = None;
        self.prepared.clear();
        match form {
            Form::Plain | Form::Sealed => {}
            Form::Guarded if self.bond.clears() => sql.push_str(cleaning::CLEAR),
            Form::Guarded => {
                // The carrier goes with the settings, and the next entry needs a new greeting.
                frame::put_query(bytes, "RESET ALL");
                self.unnamed = None;
                let asked = self.ask(bytes, std::mem::take(&mut answers) + 1, |_, _| Ok(())).await;
                asked.map_err(|error| error.of(Cleaning::All))?;
                bytes.clear();
                self.greet().await?;
            }
        }
        sql.push_str(cleaning::REST);
        cleaning::push_seed(sql).map_err(|_| AskError::Unclean("no random numbers".to_owned()))?;
        Ok(answers)
    }

    /// Sends Sync and waits for the answer: whatever came before it has been read by the server.
    pub async fn settle(&mut self) -> Result<(), AskError> {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, frame::frontend::SYNC, |_| {});
        self.ask(&bytes, 1, |_, _| Ok(())).await
    }

    /// Sends `bytes`, which ask for `ready` ReadyForQuery, and reads to the last; `row` sees every message but
    /// ParameterStatus and notices: its type and body.
    pub async fn ask(
        &mut self,
        bytes: &[u8],
        ready: usize,
        row: impl FnMut(u8, &[u8]) -> Result<(), AskError>,
    ) -> Result<(), AskError> {
        let work = self.ask_unbounded(bytes, ready, row);
        tokio::time::timeout(OWN_ROUND_TRIP_TIMEOUT, work).await.map_err(|_| AskError::Timeout)?
    }

    async fn ask_unbounded(
        &mut self,
        bytes: &[u8],
        mut ready: usize,
        mut row: impl FnMut(u8, &[u8]) -> Result<(), AskError>,
    ) -> Result<(), AskError> {
        self.server.stream.write_all(bytes).await?;
        self.server.stream.flush().await?;
        let mut answer: Vec<u8> = Vec::with_capacity(1024);
        let mut read = 0;
        while ready > 0 {
            if self.server.stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            read += answer.len();
            if read > OWN_ANSWER_BYTES_MAX {
                return Err(AskError::Protocol);
            }
            let mut at = 0;
            while let Some(header) = frame::header(&answer[at..]).map_err(|_| AskError::Protocol)? {
                let Some(message) = answer.get(at..at + header.size) else { break };
                at += header.size;
                if self.heard(header.tag, &message[frame::HEADER_BYTES..], &mut row)? {
                    ready = ready.checked_sub(1).ok_or(AskError::Protocol)?;
                }
            }
            answer.drain(..at);
        }
        // What comes behind the last answer nobody asked for.
        if answer.is_empty() { Ok(()) } else { Err(AskError::Protocol) }
    }

    /// Judges one message of an answer; whether it was ReadyForQuery.
    fn heard(
        &mut self,
        tag: u8,
        body: &[u8],
        row: &mut impl FnMut(u8, &[u8]) -> Result<(), AskError>,
    ) -> Result<bool, AskError> {
        match tag {
            backend::READY_FOR_QUERY if body == [Status::Idle.byte()] => Ok(true),
            backend::READY_FOR_QUERY => Err(AskError::Protocol),
            backend::PARAMETER_STATUS => {
                self.note_parameter(body);
                Ok(false)
            }
            backend::NOTICE_RESPONSE => Ok(false),
            backend::ERROR_RESPONSE => Err(AskError::Refused(frame::error_text(body))),
            backend::COMMAND_COMPLETE
            | backend::EMPTY_QUERY_RESPONSE
            | backend::ROW_DESCRIPTION
            | backend::DATA_ROW => row(tag, body).map(|()| false),
            _ => Err(AskError::Protocol),
        }
    }

    /// Says goodbye and closes; never fails.
    pub async fn close(mut self: Box<Self>) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, frame::frontend::TERMINATE, |_| {});
        let goodbye = async {
            let _ = self.server.stream.write_all(&bytes).await;
            let _ = self.server.stream.shutdown().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }
}
