//! Whether the server's unnamed portal is one that a Bind made, and not what a simple Query left there.
//!
//! A simple Query runs in the unnamed portal. Where it fails in a transaction, PostgreSQL (13 to 18) keeps that portal
//! until the transaction ends, and lets the memory of its statement go: an Execute of it reads what is no longer there,
//! which can end the server process, and with it every session of the cluster. So none is passed on.

use super::names::Undo;
use crate::wire::flow::Flow;

/// The unnamed portal of the leased server connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum UnnamedPortal {
    /// No simple Query came since it was bound, or since the connection was leased: the server may be asked.
    #[default]
    Sound,
    /// A simple Query came, and no Bind since.
    Gone,
    /// Bound in that batch, after a simple Query: gone if the batch fails before it.
    Bound(u64),
}

/// What an Execute or Describe of it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The server is asked.
    Pass,
    /// There is none.
    Refuse,
    /// An answer that is on its way decides.
    Wait,
}

impl UnnamedPortal {
    /// A simple Query is sent, the client's or ours: it takes the portal's place.
    pub(super) fn query(&mut self) {
        *self = Self::Gone;
    }

    /// A Bind of it is sent; returns what is to be undone if that comes to nothing.
    pub(super) fn bind(&mut self, flow: &Flow<Undo>) -> Undo {
        if *self != Self::Sound {
            *self = Self::Bound(flow.batch());
        }
        Undo::UnnamedPortal(flow.batch())
    }

    /// A Bind of it in that batch came to nothing.
    pub(super) fn bound_in_vain(&mut self, batch: u64) {
        if *self == Self::Bound(batch) {
            *self = Self::Gone;
        }
    }

    /// Whether it may be used now.
    pub(super) fn usable(self, flow: &Flow<Undo>) -> Use {
        match self {
            Self::Sound => Use::Pass,
            Self::Gone => Use::Refuse,
            Self::Bound(batch) if flow.is_undecided(batch) => Use::Wait,
            Self::Bound(_) => Use::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flow::Owed;

    #[test]
    fn it_is_passed_on_only_after_a_bind_that_stands() {
        let mut flow = Flow::default();
        let mut portal = UnnamedPortal::default();
        assert_eq!(portal.usable(&flow), Use::Pass);
        portal.query();
        assert_eq!(portal.usable(&flow), Use::Refuse);
        let undo = portal.bind(&flow);
        assert_eq!(
            portal.usable(&flow),
            Use::Pass,
            "a Bind that fails makes the server skip what follows in its batch"
        );
        flow.sent(Owed::Bind { ours: false, undo });
        flow.sent(Owed::Sync { ours: false });
        assert_eq!(portal.usable(&flow), Use::Wait, "it may still fail");
        portal.bound_in_vain(7);
        assert_eq!(portal.usable(&flow), Use::Wait, "another batch failed");
        portal.bound_in_vain(0);
        assert_eq!(portal.usable(&flow), Use::Refuse);
    }
}
