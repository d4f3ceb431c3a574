//! The signals that the process obeys: stop, stop at once, reload, pause, resume.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that operators send, with PgBouncer's meanings. From [`ShutdownSignals::listen`] on none of them ends the
/// process by itself, and none is lost, whenever it comes.
#[derive(Debug)]
pub struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    pause: Signal,
    resume: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// SIGTERM or SIGINT: drain, then end.
    Drain,
    /// SIGQUIT: end at once.
    Quit,
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Pause,
    /// SIGUSR2.
    Resume,
}

impl ShutdownSignals {
    /// Begins to listen; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for SIGTERM, SIGINT or SIGQUIT. May be dropped at any time.
    pub async fn stop(&mut self) {
        while !matches!(self.next().await, Request::Drain | Request::Quit) {}
    }

    /// Waits for the next signal. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Drain,
            _ = self.interrupt.recv() => Request::Drain,
            _ = self.quit.recv() => Request::Quit,
            _ = self.hang_up.recv() => Request::Reload,
            _ = self.pause.recv() => Request::Pause,
            _ = self.resume.recv() => Request::Resume,
        }
    }
}
