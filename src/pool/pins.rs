//! Pins: how many sessions of a pool may keep their connection beyond a transaction.

use std::rc::{Rc, Weak};

use super::Pool;
use super::line::{self, Line};
use crate::refusal::{Kind, Refusal};

/// A pinned session's place among those of its pool; given back on drop.
pub struct PinPlace {
    pool: Weak<Pool>,
    line: Rc<Line>,
}

impl Drop for PinPlace {
    fn drop(&mut self) {
        self.line.pinned.set(self.line.pinned.get() - 1);
        if let Some(pool) = self.pool.upgrade() {
            pool.pinned.set(pool.pinned.get() - 1);
        }
    }
}

impl std::fmt::Debug for PinPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinPlace").field("org", self.line.limits.org()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Lets one more session of `line`'s organization keep its lease; refused (53400) where that would leave no connection
    /// for all the others, or where its organization keeps half of the pool already.
    pub fn pin(&self, line: &Rc<Line>) -> Result<PinPlace, Refusal> {
        let size = self.settings.borrow().size;
        if self.pinned.get() >= size.saturating_sub(1).max(1) {
            return Err(Refusal::new(Kind::TooManyPins, "too many sessions keep a server connection"));
        }
        let most = line::pinned_max(size);
        if line.pinned.get() >= most {
            let message = format!("this organization keeps {most} of {size} server connections, the most that it may");
            return Err(Refusal::new(Kind::TooManyPins, message));
        }
        self.pinned.set(self.pinned.get() + 1);
        line.pinned.set(line.pinned.get() + 1);
        Ok(PinPlace { pool: Weak::clone(&self.me), line: Rc::clone(line) })
    }
}
