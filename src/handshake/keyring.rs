//! The keys in force: read by every login, replaced by `control` alone, and the way to ask it for fresher ones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::auth::Verifier;

/// How long a login waits for fresher keys.
const REFRESH_WAIT_MAX: Duration = Duration::from_secs(5);

/// The verifier in force, for all threads.
pub struct KeyRing {
    verifier: ArcSwap<Verifier>,
    asked: watch::Sender<u64>,
    answered: watch::Receiver<u64>,
    wait_max: Duration,
}

impl KeyRing {
    /// A ring with its first verifier, and the one handle that can replace it.
    pub fn new(verifier: Verifier) -> (Arc<Self>, KeyRingControl) {
        Self::with_wait(verifier, REFRESH_WAIT_MAX)
    }

    fn with_wait(verifier: Verifier, wait_max: Duration) -> (Arc<Self>, KeyRingControl) {
        let (asked, questions) = watch::channel(0);
        let (answers, answered) = watch::channel(0);
        let ring = Arc::new(Self { verifier: ArcSwap::from_pointee(verifier), asked, answered, wait_max });
        (Arc::clone(&ring), KeyRingControl { ring, questions, answers })
    }

    /// The verifier in force. Take it once per login, and again after [`Self::refreshed`].
    pub fn current(&self) -> Arc<Verifier> {
        self.verifier.load_full()
    }

    /// Asks for fresher keys, because a token names one that we do not know, and waits until they are here.
    ///
    /// Comes back after at most 5 seconds, with fresher keys or not, and at once where it is too early to ask the
    /// issuer again. May be dropped at any time.
    pub async fn refreshed(&self) {
        let mut answered = self.answered.clone();
        let mut ticket = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            ticket = *asked;
        });
        // Too late and nobody there any more both mean: go on with the keys that there are.
        let _ = tokio::time::timeout(self.wait_max, answered.wait_for(|answer| *answer >= ticket)).await;
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("verifier", &*self.verifier.load()).finish_non_exhaustive()
    }
}

/// The handle of `control`: there is one per ring, and nothing else replaces a verifier.
#[derive(Debug)]
pub struct KeyRingControl {
    ring: Arc<KeyRing>,
    questions: watch::Receiver<u64>,
    answers: watch::Sender<u64>,
}

impl KeyRingControl {
    /// Puts a new verifier in force. Logins under way finish with the one they took.
    pub fn replace(&self, verifier: Verifier) {
        self.ring.verifier.store(Arc::new(verifier));
    }

    /// The verifier in force.
    pub fn current(&self) -> Arc<Verifier> {
        self.ring.current()
    }

    /// Waits until a login asks for fresher keys. May be dropped at any time: a question is not lost.
    pub async fn asked(&mut self) {
        // Cannot fail: the ring that we hold has the sender.
        let _ = self.questions.changed().await;
    }

    /// The latest question, if it still wants its [`Self::answer`].
    pub fn question(&self) -> Option<u64> {
        let question = *self.questions.borrow();
        (question > *self.answers.borrow()).then_some(question)
    }

    /// Lets all logins go on that had asked by `question`; those that asked later wait on.
    pub fn answer(&self, question: u64) {
        self.answers.send_replace(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{KeySet, TokenRules};
    use crate::config::Auth;

    fn verifier(secret: u8) -> Verifier {
        Verifier::new(TokenRules::from(&Auth::default()), KeySet::from_secret(&[secret; 32]).unwrap())
    }

    #[tokio::test]
    async fn a_login_that_asks_goes_on_with_the_new_keys() {
        let (ring, mut control) = KeyRing::new(verifier(1));
        let before = ring.current();
        let login = async {
            ring.refreshed().await;
            ring.current()
        };
        let keeper = async {
            control.asked().await;
            let question = control.question().unwrap();
            control.replace(verifier(2));
            control.answer(question);
            assert_eq!(control.question(), None);
        };
        let (after, ()) = tokio::join!(login, keeper);
        assert_eq!(after.keys(), verifier(2).keys());
        assert_eq!(before.keys(), verifier(1).keys());
    }

    #[tokio::test]
    async fn a_login_does_not_wait_for_ever() {
        let (ring, control) = KeyRing::with_wait(verifier(1), Duration::from_millis(1));
        ring.refreshed().await;
        assert_eq!(control.question(), Some(1));
    }

    #[tokio::test]
    async fn a_login_does_not_wait_for_a_control_that_has_gone() {
        let (ring, control) = KeyRing::with_wait(verifier(1), Duration::from_secs(3600));
        drop(control);
        ring.refreshed().await;
    }

    #[tokio::test]
    async fn an_answer_to_an_earlier_question_is_not_taken_for_ones_own() {
        let (ring, mut control) = KeyRing::with_wait(verifier(1), Duration::from_millis(1));
        ring.refreshed().await;
        control.asked().await;
        let first = control.question().unwrap();
        ring.refreshed().await;
        control.answer(first);
        assert_eq!(control.question(), Some(first + 1));
    }
}
