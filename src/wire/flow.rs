//! The conversation with one server connection as a value without IO: what is owed, where a lease may end.
//!
//! Both directions of the relay are driven by it. What the client sent is entered with [`Flow::sent`]; what the server
//! answers is judged with [`Flow::received`] (PostgreSQL manual, "Message Flow").

use super::frame::backend;
use super::owed::Queue;

pub use super::owed::{OWED_BYTES_MAX, OWED_MAX, Owed, Weigh};

/// The transaction status of ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl Status {
    /// Reads the byte on the wire.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The byte on the wire.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What to do with a backend message.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Pass it on.
    Forward,
    /// The client must not see it.
    Swallow,
    /// The client sees these bytes instead.
    Replace(Box<[u8]>),
}

/// One thing that a client is still to hear when its server is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// An error.
    Error,
    /// ReadyForQuery.
    Ready,
    /// Nothing now: what the client sends up to its Sync is to be dropped.
    Skip,
}

/// A backend message that no conversation allows here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("backend message {tag:#04x} where none such may come")]
pub struct Violation {
    /// Its type byte.
    pub tag: u8,
}

/// The state of one conversation.
#[derive(Debug)]
pub struct Flow<U> {
    owed: Queue<U>,
    status: Status,
    /// Extended messages have been sent since the last Sync.
    batch_open: bool,
    /// The server waits for COPY data and ignores Sync and Flush.
    copy_in: bool,
    /// The server discards everything until a Sync that the client has still to send.
    skipping: bool,
    /// What a skip has undone and the session has not yet taken.
    undone: Vec<U>,
    /// How many Syncs have been sent: the number of the batch that is being sent.
    batch: u64,
    /// How many of them have been answered.
    answered: u64,
}

impl<U> Default for Flow<U> {
    fn default() -> Self {
        Self {
            owed: Queue::default(),
            status: Status::Idle,
            batch_open: false,
            copy_in: false,
            skipping: false,
            undone: Vec::new(),
            batch: 0,
            answered: 0,
        }
    }
}

impl<U: Weigh> Flow<U> {
    /// The last transaction status heard.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether extended messages have been sent since the last Sync.
    pub fn batch_open(&self) -> bool {
        self.batch_open
    }

    /// Whether the server waits for COPY data.
    pub fn copy_in(&self) -> bool {
        self.copy_in
    }

    /// Whether the server discards what is sent until a Sync.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// Whether any reply is owed.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Whether so many replies are owed, or such long ones, that no more should be asked for.
    ///
    /// The server keeps its answers to an open batch until it is told to send them: whoever waits for them sends a Flush.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.owed.is_full()
    }

    /// How many bytes are kept for the replies that are owed.
    pub fn bytes(&self) -> usize {
        self.owed.bytes()
    }

    /// The number of the batch that is being sent; each Sync ends one.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Whether a batch that has been sent whole has not been answered whole.
    pub fn is_behind(&self) -> bool {
        self.answered < self.batch
    }

    /// Whether the batch of that number has been sent whole and not been answered whole.
    pub fn is_undecided(&self, batch: u64) -> bool {
        (self.answered..self.batch).contains(&batch)
    }

    /// Whether any batch up to that one has been sent whole and not been answered whole.
    pub fn is_undecided_before(&self, last: u64) -> bool {
        self.is_behind() && self.answered <= last
    }

    /// Whether a lease may end here: nothing owed, no batch or COPY open, transaction idle.
    pub fn is_safe(&self) -> bool {
        self.owed.is_empty() && self.status == Status::Idle && !self.batch_open && !self.copy_in && !self.skipping
    }

    /// Whether rows or COPY data may come now.
    #[inline]
    pub fn streams(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Query { .. } | Owed::Execute))
    }

    /// Whether the statement that is being answered came as a simple Query.
    pub fn answers_query(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Query { .. }))
    }

    /// Whether what is being answered is a message of the client's or ours, and not merely the end of a batch.
    pub fn answers_a_message(&self) -> bool {
        self.owed.front().is_some_and(|owed| !matches!(owed, Owed::Sync { .. } | Owed::CopyEnd))
    }

    /// The portal or cursor of the reply that is owed next, as told to [`Self::sent_for`]; 0 where it has none.
    #[inline]
    pub fn source(&self) -> u64 {
        self.owed.source()
    }

    /// Whether COPY data sent now may find a COPY: one that the server has answered, or one that is on its way.
    pub fn may_copy(&self) -> bool {
        let may = |owed: &Owed<U>| matches!(owed, Owed::Query { .. } | Owed::Execute);
        self.copy_in || self.owed.iter().any(may)
    }

    /// Whether the statement that is being answered is a simple Query of ours that stands for an Execute.
    pub fn answers_as_execute(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Query { as_execute: true }))
    }

    /// Enters a message that was sent to the server, or a reply made here.
    pub fn sent(&mut self, owed: Owed<U>) {
        self.sent_for(owed, 0);
    }

    /// As [`Self::sent`], for a message about the portal or cursor that the session knows by the number `source`.
    pub fn sent_for(&mut self, owed: Owed<U>, source: u64) {
        match owed {
            Owed::Sync { .. } => {
                self.batch_open = false;
                self.skipping = false;
                self.batch += 1;
            }
            Owed::Query { .. } | Owed::Local { .. } | Owed::CopyEnd | Owed::Poison { query: true, .. } => {}
            Owed::Parse { .. }
            | Owed::Bind { .. }
            | Owed::Describe
            | Owed::Execute
            | Owed::Close { .. }
            | Owed::Poison { query: false, .. } => self.batch_open = true,
        }
        self.owed.push_back_for(owed, source);
    }

    /// Enters a Sync of the client; `false` when the server ignores it because COPY data is expected.
    pub fn sent_sync(&mut self) -> bool {
        if self.copy_in {
            return false;
        }
        self.sent(Owed::Sync { ours: false });
        true
    }

    /// Enters CopyDone or CopyFail of the client.
    pub fn sent_copy_end(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else if self.may_copy() {
            self.owed.push_back(Owed::CopyEnd);
        }
    }

    /// Judges a backend message by its type and, for ReadyForQuery, the first byte of its body.
    pub fn received(&mut self, tag: u8, first: u8) -> Result<Reply, Violation> {
        let violation = Violation { tag };
        match tag {
            backend::NOTICE_RESPONSE | backend::PARAMETER_STATUS => return Ok(Reply::Forward),
            backend::ERROR_RESPONSE => return Ok(self.failed()),
            backend::READY_FOR_QUERY => return self.ready(first).ok_or(violation),
            _ => {}
        }
        self.drop_copy_ends();
        let head = self.owed.front().ok_or(violation)?;
        let (allowed, finishes) = match head {
            Owed::Query { .. } => (Self::answers_a_query(tag), false),
            Owed::Execute => (Self::answers_an_execute(tag), Self::ends_an_execute(tag)),
            Owed::Parse { .. } => (tag == backend::PARSE_COMPLETE, true),
            Owed::Bind { .. } => (tag == backend::BIND_COMPLETE, true),
            Owed::Close { .. } => (tag == backend::CLOSE_COMPLETE, true),
            Owed::Describe => (
                matches!(tag, backend::PARAMETER_DESCRIPTION | backend::ROW_DESCRIPTION | backend::NO_DATA),
                tag != backend::PARAMETER_DESCRIPTION,
            ),
            Owed::Sync { .. } | Owed::CopyEnd | Owed::Local { .. } | Owed::Poison { .. } => (false, false),
        };
        if !allowed {
            return Err(violation);
        }
        let ours = matches!(
            head,
            Owed::Parse { ours: true, .. } | Owed::Bind { ours: true, .. } | Owed::Close { ours: true, .. }
        );
        if tag == backend::COPY_IN_RESPONSE {
            self.begin_copy_in();
        } else if finishes {
            self.owed.pop_front();
        }
        Ok(if ours { Reply::Swallow } else { Reply::Forward })
    }

    /// Takes the next reply made here, once everything before it has been answered.
    pub fn take_local(&mut self) -> Option<Box<[u8]>> {
        self.drop_copy_ends();
        if !matches!(self.owed.front(), Some(Owed::Local { .. })) {
            return None;
        }
        match self.owed.pop_front() {
            Some(Owed::Local { bytes, .. }) => Some(bytes),
            _ => None,
        }
    }

    /// Takes what skipped messages have undone, newest first.
    pub fn take_undone(&mut self) -> Vec<U> {
        let mut undone = std::mem::take(&mut self.undone);
        undone.reverse();
        undone
    }

    /// Ends the conversation, the server being lost: what the client is to hear for each message that it has sent.
    ///
    /// A client always gets one error for a statement or batch that was on its way, and never more than it waits for.
    pub fn lose(&mut self) -> Vec<Lost> {
        let mut answers = Vec::new();
        let mut told = false;
        let mut open = self.batch_open && !self.skipping;
        for owed in std::mem::take(&mut self.owed).into_items() {
            match owed {
                Owed::Query { as_execute: true } => {
                    answers.push(Lost::Error);
                    open = true;
                    told = true;
                }
                Owed::Query { as_execute: false } | Owed::Poison { query: true, .. } => {
                    answers.extend([Lost::Error, Lost::Ready]);
                    told = false;
                }
                Owed::Sync { ours } => {
                    if !ours {
                        answers.push(Lost::Ready);
                    }
                    told = false;
                }
                Owed::CopyEnd => {}
                Owed::Parse { quiet: true, undo, .. } | Owed::Close { ours: true, undo } => self.undone.push(undo),
                // No answer, only a place where something is undone.
                Owed::Local { bytes, undo } if bytes.is_empty() => self.undone.push(undo),
                Owed::Parse { undo, .. }
                | Owed::Bind { undo, .. }
                | Owed::Close { undo, .. }
                | Owed::Local { undo, .. } => {
                    self.undone.push(undo);
                    tell(&mut answers, &mut told);
                }
                Owed::Describe | Owed::Execute | Owed::Poison { query: false, .. } => {
                    tell(&mut answers, &mut told);
                }
            }
        }
        if open && !told {
            tell(&mut answers, &mut told);
        }
        open |= self.skipping;
        if open {
            answers.push(Lost::Skip);
        }
        answers
    }

    /// Whether a skip has undone anything.
    pub fn has_undone(&self) -> bool {
        !self.undone.is_empty()
    }

    fn answers_a_query(tag: u8) -> bool {
        matches!(
            tag,
            backend::ROW_DESCRIPTION
                | backend::DATA_ROW
                | backend::COMMAND_COMPLETE
                | backend::EMPTY_QUERY_RESPONSE
                | backend::COPY_IN_RESPONSE
                | backend::COPY_OUT_RESPONSE
                | backend::COPY_DATA
                | backend::COPY_DONE
        )
    }

    fn answers_an_execute(tag: u8) -> bool {
        Self::ends_an_execute(tag)
            || matches!(
                tag,
                backend::DATA_ROW
                    | backend::COPY_IN_RESPONSE
                    | backend::COPY_OUT_RESPONSE
                    | backend::COPY_DATA
                    | backend::COPY_DONE
            )
    }

    fn ends_an_execute(tag: u8) -> bool {
        matches!(tag, backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE | backend::PORTAL_SUSPENDED)
    }

    fn drop_copy_ends(&mut self) {
        while matches!(self.owed.front(), Some(Owed::CopyEnd)) {
            self.owed.pop_front();
        }
    }

    /// The server now reads COPY data: of what it was sent behind the COPY it ignores each Sync up to the data's end
    /// (PostgreSQL manual, "COPY Operations": libraries send one without noticing that the command was COPY).
    fn begin_copy_in(&mut self) {
        let end = self.owed.iter().position(|owed| matches!(owed, Owed::CopyEnd));
        self.copy_in = end.is_none();
        let mut at = 0;
        let last = end.unwrap_or(self.owed.len());
        let answered = &mut self.answered;
        self.owed.retain(|owed| {
            let sync = at > 0 && at < last && matches!(owed, Owed::Sync { .. });
            *answered += u64::from(sync);
            let ignored = sync || Some(at) == end;
            at += 1;
            !ignored
        });
    }

    /// After an error in an extended message the server discards everything until Sync (PostgreSQL manual, "Pipelining").
    fn failed(&mut self) -> Reply {
        self.copy_in = false;
        self.drop_copy_ends();
        if matches!(self.owed.front(), Some(Owed::Parse { quiet: true, .. })) {
            self.skip();
            return Reply::Swallow;
        }
        if let Some((query, bytes)) = self.owed.pop_poison() {
            if query {
                self.owed.push_front(Owed::Query { as_execute: false });
            } else {
                self.skip();
            }
            return Reply::Replace(bytes);
        }
        match self.owed.front() {
            None | Some(Owed::Query { .. } | Owed::Sync { .. } | Owed::Poison { .. }) => Reply::Forward,
            Some(
                Owed::Parse { .. }
                | Owed::Bind { .. }
                | Owed::Describe
                | Owed::Execute
                | Owed::Close { .. }
                | Owed::CopyEnd
                | Owed::Local { .. },
            ) => {
                self.skip();
                Reply::Forward
            }
        }
    }

    fn skip(&mut self) {
        while let Some(owed) = self.owed.front() {
            if matches!(owed, Owed::Sync { .. }) {
                return;
            }
            match self.owed.pop_front() {
                Some(
                    Owed::Parse { undo, .. }
                    | Owed::Bind { undo, .. }
                    | Owed::Close { undo, .. }
                    | Owed::Local { undo, .. },
                ) => {
                    self.undone.push(undo);
                }
                _ => continue,
            }
        }
        self.skipping = true;
    }

    fn ready(&mut self, byte: u8) -> Option<Reply> {
        self.drop_copy_ends();
        let sync = match self.owed.front() {
            Some(Owed::Query { .. }) => false,
            Some(Owed::Sync { .. }) => true,
            _ => return None,
        };
        self.status = Status::from_byte(byte)?;
        self.answered += u64::from(sync);
        self.copy_in = false;
        let ours = matches!(self.owed.pop_front(), Some(Owed::Sync { ours: true } | Owed::Query { as_execute: true }));
        Some(if ours { Reply::Swallow } else { Reply::Forward })
    }
}

fn tell(answers: &mut Vec<Lost>, told: &mut bool) {
    if !*told {
        answers.push(Lost::Error);
        *told = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestFlow = Flow<u32>;

    impl Weigh for u32 {
        fn bytes(&self) -> usize {
            0
        }
    }

    fn receive(flow: &mut TestFlow, tags: &[u8]) {
        for &tag in tags {
            assert_eq!(flow.received(tag, b'I'), Ok(Reply::Forward), "{}", tag as char);
        }
    }

    fn parse(undo: u32) -> Owed<u32> {
        Owed::Parse { ours: false, quiet: false, undo }
    }

    #[test]
    fn a_simple_query_is_safe_only_after_ready() {
        let mut flow = TestFlow::default();
        assert!(flow.is_safe());
        flow.sent(Owed::Query { as_execute: false });
        receive(&mut flow, b"TDDC");
        assert!(!flow.is_safe());
        assert_eq!(flow.received(b'Z', b'T'), Ok(Reply::Forward));
        assert!(!flow.is_safe());
        flow.sent(Owed::Query { as_execute: false });
        receive(&mut flow, b"CZ");
        assert!(flow.is_safe());
    }

    #[test]
    fn an_open_batch_is_not_safe_even_when_all_is_answered() {
        let mut flow = TestFlow::default();
        flow.sent(parse(1));
        receive(&mut flow, b"1");
        assert!(!flow.is_safe());
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"Z");
        assert!(flow.is_safe());
    }

    #[test]
    fn an_error_skips_to_sync_and_undoes_what_was_skipped() {
        let mut flow = TestFlow::default();
        for undo in 1..=3 {
            flow.sent(parse(undo));
        }
        flow.sent(Owed::Local { bytes: Box::from(&b"x"[..]), undo: 4 });
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"1E");
        assert_eq!(flow.take_undone(), [4, 3, 2]);
        assert!(!flow.skipping());
        receive(&mut flow, b"Z");
        assert!(flow.is_safe());
    }

    #[test]
    fn after_an_error_without_sync_the_server_skips_what_comes() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Bind { ours: false, undo: 0 });
        receive(&mut flow, b"E");
        assert!(flow.skipping() && !flow.is_safe());
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"Z");
        assert!(flow.is_safe());
    }

    #[test]
    fn ready_without_a_question_is_a_violation() {
        let mut flow = TestFlow::default();
        assert_eq!(flow.received(b'Z', b'I'), Err(Violation { tag: b'Z' }));
        flow.sent(Owed::Execute);
        assert_eq!(flow.received(b'Z', b'I'), Err(Violation { tag: b'Z' }));
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"C");
        assert_eq!(flow.received(b'Z', b'?'), Err(Violation { tag: b'Z' }));
    }

    #[test]
    fn replies_out_of_turn_are_violations() {
        for tag in *b"123CDGHTIcdnstWVRKv" {
            let mut flow = TestFlow::default();
            assert_eq!(flow.received(tag, 0), Err(Violation { tag }), "{}", tag as char);
            flow.sent(Owed::Sync { ours: false });
            assert_eq!(flow.received(tag, 0), Err(Violation { tag }), "{}", tag as char);
        }
    }

    #[test]
    fn a_sync_sent_before_copy_began_is_ignored_as_the_server_ignores_it() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Execute);
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"G");
        assert!(flow.copy_in());
        assert!(!flow.sent_sync(), "a Sync inside COPY asks for nothing");
        flow.sent_copy_end();
        assert!(flow.sent_sync());
        receive(&mut flow, b"CZ");
        assert!(flow.is_safe());
    }

    #[test]
    fn copy_data_sent_ahead_of_the_answer_is_understood() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Execute);
        flow.sent_copy_end();
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"GCZ");
        assert!(flow.is_safe());
    }

    #[test]
    fn copy_data_may_come_before_anything_of_its_batch_is_answered() {
        let mut flow = TestFlow::default();
        assert!(!flow.may_copy());
        flow.sent(parse(1));
        flow.sent(Owed::Bind { ours: false, undo: 0 });
        flow.sent(Owed::Execute);
        flow.sent(Owed::Sync { ours: false });
        assert!(flow.may_copy());
        flow.sent_copy_end();
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"12GCZ");
        assert!(flow.is_safe());
    }

    #[test]
    fn copy_that_fails_at_once_leaves_no_trace_of_the_data_sent_behind_it() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Query { as_execute: false });
        flow.sent_copy_end();
        receive(&mut flow, b"EZ");
        flow.sent(Owed::Query { as_execute: false });
        receive(&mut flow, b"CZ");
        assert!(flow.is_safe());
    }

    #[test]
    fn our_own_messages_are_swallowed_and_our_own_replies_wait_their_turn() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Parse { ours: true, quiet: false, undo: 1 });
        flow.sent(Owed::Bind { ours: false, undo: 0 });
        flow.sent(Owed::Local { bytes: Box::from(&b"local"[..]), undo: 2 });
        flow.sent(Owed::Sync { ours: false });
        assert_eq!(flow.take_local(), None);
        assert_eq!(flow.received(b'1', 0), Ok(Reply::Swallow));
        receive(&mut flow, b"2");
        assert_eq!(flow.take_local().as_deref(), Some(&b"local"[..]));
        receive(&mut flow, b"Z");
    }

    #[test]
    fn a_poisoned_message_turns_the_servers_error_into_the_refusal() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Poison { query: false, bytes: Box::from(&b"no"[..]) });
        assert_eq!(flow.received(b'E', 0), Ok(Reply::Replace(Box::from(&b"no"[..]))));
        assert!(flow.skipping());
        flow.sent(Owed::Sync { ours: false });
        receive(&mut flow, b"Z");
        flow.sent(Owed::Poison { query: true, bytes: Box::from(&b"no"[..]) });
        assert_eq!(flow.received(b'E', 0), Ok(Reply::Replace(Box::from(&b"no"[..]))));
        receive(&mut flow, b"Z");
        assert!(flow.is_safe());
    }

    #[test]
    fn a_lost_server_leaves_one_error_for_each_statement_on_its_way() {
        let mut flow = TestFlow::default();
        flow.sent(Owed::Query { as_execute: false });
        flow.sent(parse(1));
        flow.sent(Owed::Bind { ours: false, undo: 0 });
        flow.sent(Owed::Sync { ours: false });
        flow.sent(Owed::Local { bytes: Box::default(), undo: 2 });
        flow.sent(Owed::Sync { ours: false });
        flow.sent(Owed::Execute);
        use Lost::{Error, Ready, Skip};
        assert_eq!(flow.lose(), [Error, Ready, Error, Ready, Ready, Error, Skip]);
        assert_eq!(flow.take_undone(), [2, 0, 1]);
        assert!(!flow.owes());
    }
}
