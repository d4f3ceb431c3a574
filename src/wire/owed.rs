//! The replies that are owed to a client, in their order, counted in number and in bytes.

use std::collections::VecDeque;

/// How many replies may be owed before the relay stops reading the client.
pub const OWED_MAX: usize = 4096;

/// How many bytes may be kept for owed replies before the relay stops reading the client; one reply may cross it.
pub const OWED_BYTES_MAX: usize = 256 * 1024;

/// So many places of an empty queue are kept for the next pipeline.
const PLACES_KEPT: usize = 64;

/// What is kept until a reply has come, and has a size.
pub trait Weigh {
    /// How many bytes are kept for it beyond its own size: names, texts.
    fn bytes(&self) -> usize;
}

/// One reply that is owed, in the order of the messages that ask for it.
///
/// `U` is what the session undoes when the server skips a Parse after an error.
#[derive(Debug)]
pub enum Owed<U> {
    /// A simple Query: anything up to ReadyForQuery, which is swallowed when it stands for an Execute of the client.
    Query {
        /// The client sent an Execute, and hears no ReadyForQuery before its Sync.
        as_execute: bool,
    },
    /// ParseComplete; swallowed when the Parse was ours.
    Parse {
        /// We sent it, the client does not know of it.
        ours: bool,
        /// The client must not hear of its failure either: a message of its own will fail for it.
        quiet: bool,
        /// Undone when the server skips or refuses it.
        undo: U,
    },
    /// BindComplete; swallowed when the Bind was ours.
    Bind {
        /// We sent it, the client does not know of it.
        ours: bool,
        /// Undone when the server skips or refuses it.
        undo: U,
    },
    /// RowDescription or NoData, with ParameterDescription before it for a statement.
    Describe,
    /// Rows, and one of CommandComplete, EmptyQueryResponse, PortalSuspended.
    Execute,
    /// CloseComplete; swallowed when the Close was ours.
    Close {
        /// We sent it, the client does not know of it.
        ours: bool,
        /// Undone when the server skips it.
        undo: U,
    },
    /// ReadyForQuery; swallowed when the Sync was ours.
    Sync {
        /// We sent it, the client does not know of it.
        ours: bool,
    },
    /// No reply: where the client ended its COPY data.
    CopyEnd,
    /// A reply made here; goes out when all before it have.
    Local {
        /// Whole messages; none where only the undoing matters.
        bytes: Box<[u8]>,
        /// Undone when an error before it makes the server skip.
        undo: U,
    },
    /// A message sent only to fail, so that the server's transaction fails with the refusal the client hears instead.
    Poison {
        /// A simple Query (ReadyForQuery follows), not an extended message (skipped to Sync).
        query: bool,
        /// The refusal: an ErrorResponse.
        bytes: Box<[u8]>,
    },
}

impl<U: Weigh> Owed<U> {
    fn bytes(&self) -> usize {
        match self {
            Self::Query { .. } | Self::Describe | Self::Execute | Self::Sync { .. } | Self::CopyEnd => 0,
            Self::Parse { undo, .. } | Self::Bind { undo, .. } | Self::Close { undo, .. } => undo.bytes(),
            Self::Local { bytes, undo } => bytes.len() + undo.bytes(),
            Self::Poison { bytes, .. } => bytes.len(),
        }
    }
}

/// Owed replies, the next one first.
#[derive(Debug)]
pub(super) struct Queue<U> {
    items: VecDeque<Entry<U>>,
    bytes: usize,
}

/// A reply that is owed, and the portal or cursor that it is about, as a number of the session's; 0 for none.
#[derive(Debug)]
struct Entry<U> {
    owed: Owed<U>,
    source: u64,
}

impl<U> Default for Queue<U> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

impl<U: Weigh> Queue<U> {
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= OWED_MAX || self.bytes >= OWED_BYTES_MAX
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Owed<U>> {
        self.items.front().map(|entry| &entry.owed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Owed<U>> {
        self.items.iter().map(|entry| &entry.owed)
    }

    /// The portal or cursor of the next one.
    #[inline]
    pub(super) fn source(&self) -> u64 {
        self.items.front().map_or(0, |entry| entry.source)
    }

    pub(super) fn push_back(&mut self, owed: Owed<U>) {
        self.push_back_for(owed, 0);
    }

    pub(super) fn push_back_for(&mut self, owed: Owed<U>, source: u64) {
        self.bytes += owed.bytes();
        self.items.push_back(Entry { owed, source });
    }

    pub(super) fn push_front(&mut self, owed: Owed<U>) {
        self.bytes += owed.bytes();
        self.items.push_front(Entry { owed, source: 0 });
    }

    pub(super) fn pop_front(&mut self) -> Option<Owed<U>> {
        let Entry { owed, .. } = self.items.pop_front()?;
        self.bytes -= owed.bytes();
        if self.items.is_empty() && self.items.capacity() > PLACES_KEPT {
            self.items = VecDeque::new();
        }
        Some(owed)
    }

    /// Takes the first reply where it is the refusal of a poisoned message: whether that is a Query, and the refusal.
    pub(super) fn pop_poison(&mut self) -> Option<(bool, Box<[u8]>)> {
        self.front().filter(|owed| matches!(owed, Owed::Poison { .. }))?;
        match self.pop_front() {
            Some(Owed::Poison { query, bytes }) => Some((query, bytes)),
            _ => None,
        }
    }

    /// Keeps only those that `keep` wants.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Owed<U>) -> bool) {
        self.items.retain(|entry| keep(&entry.owed));
        self.bytes = self.iter().map(Owed::bytes).sum();
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = Owed<U>> {
        self.items.into_iter().map(|entry| entry.owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Undo(usize);

    impl Weigh for Undo {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn local(bytes: usize, undo: usize) -> Owed<Undo> {
        Owed::Local { bytes: vec![0; bytes].into(), undo: Undo(undo) }
    }

    #[test]
    fn owed_replies_are_bounded_in_number_and_in_bytes() {
        let mut queue = Queue::default();
        for _ in 1..OWED_MAX {
            queue.push_back(local(0, 0));
        }
        assert!(!queue.is_full());
        queue.push_back(local(0, 0));
        assert!(queue.is_full());
        while queue.pop_front().is_some() {}
        assert!(queue.items.capacity() <= PLACES_KEPT, "an idle session keeps no places");
        queue.push_back(local(OWED_BYTES_MAX / 2, OWED_BYTES_MAX / 2 - 1));
        assert!(!queue.is_full());
        queue.push_back(Owed::Poison { query: true, bytes: Box::from(&b"no"[..]) });
        assert!(queue.is_full());
    }

    #[test]
    fn what_has_been_answered_is_no_longer_counted() {
        let mut queue = Queue::default();
        queue.push_back(Owed::Poison { query: false, bytes: Box::from(&b"no"[..]) });
        queue.push_back(Owed::Parse { ours: false, quiet: false, undo: Undo(5) });
        queue.push_back(local(3, 4));
        queue.push_back(Owed::Sync { ours: false });
        assert_eq!(queue.bytes(), 2 + 5 + 7);
        assert!(queue.pop_poison().is_some_and(|(query, bytes)| !query && *bytes == *b"no"));
        assert!(queue.pop_poison().is_none());
        queue.retain(|owed| !matches!(owed, Owed::Parse { .. }));
        assert_eq!((queue.bytes(), queue.len()), (7, 2));
        queue.pop_front();
        assert_eq!(queue.bytes(), 0);
    }
}
