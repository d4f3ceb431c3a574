//! Sets up the program's own log: to standard error, as text or JSON, as loud as the configuration or `RUST_LOG` says, and
//! with a bound on the lines that one place in the program writes in a second.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Dispatch, Event, Metadata, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG is not a log filter")]
    Filter(#[from] ParseError),
    /// It was set up before.
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// Starts the log of this process; once. `rust_log` is the value of `RUST_LOG`, which wins over the configuration.
pub fn start(log: &Log, rust_log: Option<&str>) -> Result<(), LoggingError> {
    let builder = fmt().with_env_filter(filter(log.level, rust_log)?).with_writer(io::stderr);
    let dispatch: Dispatch = match log.format {
        LogFormat::Text => builder
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .with(Bounded { lines: &LINES, now: Instant::now })
            .into(),
        LogFormat::Json => {
            builder.json().flatten_event(true).finish().with(Bounded { lines: &LINES, now: Instant::now }).into()
        }
    };
    Ok(dispatch.try_init()?)
}

/// Lines that one place in the program may write in a second: whatever a client, a server or a full disk makes it say in a
/// loop, the log is not filled by it.
const LINES_MAX: u32 = 500;
const SECOND: Duration = Duration::from_secs(1);

static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);

/// Lines of this second by the place that writes them, of which there are as many as the program has.
#[derive(Debug, Default)]
struct Lines(Mutex<HashMap<Identifier, Place>>);

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    began: Instant,
    lines: u32,
}

impl Lines {
    fn take(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        let mut places = self.0.lock();
        let place = places.entry(metadata.callsite()).or_insert(Place { metadata, began: now, lines: 0 });
        if now.saturating_duration_since(place.began) >= SECOND && place.lines <= LINES_MAX {
            (place.began, place.lines) = (now, 0);
        }
        place.lines = place.lines.saturating_add(1);
        place.lines <= LINES_MAX
    }

    /// The places whose second is over and that left lines out, and how many; they may write again.
    fn left_out(&self, now: Instant) -> Vec<(&'static Metadata<'static>, u32)> {
        let mut left_out = Vec::new();
        for place in self.0.lock().values_mut() {
            if place.lines > LINES_MAX && now.saturating_duration_since(place.began) >= SECOND {
                left_out.push((place.metadata, place.lines - LINES_MAX));
                (place.began, place.lines) = (now, 0);
            }
        }
        left_out
    }
}

/// Says which places in the program wrote more lines than they may; to be called each second.
pub(super) fn tell_left_out(now: Instant) {
    for (metadata, lines) in LINES.left_out(now) {
        let place = format!("{}:{}", metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        warn!(level = %metadata.level(), place, lines, "log lines were left out");
    }
}

/// Keeps lines from the log that are beyond the bound of their place.
struct Bounded {
    lines: &'static Lines,
    now: fn() -> Instant,
}

impl<S: Subscriber> Layer<S> for Bounded {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        self.lines.take(event.metadata(), (self.now)())
    }
}

/// Our own lines from `level` on; those of libraries only when they are warnings, or louder still.
fn filter(level: LogLevel, rust_log: Option<&str>) -> Result<EnvFilter, ParseError> {
    if let Some(directives) = rust_log.filter(|directives| !directives.is_empty()) {
        return EnvFilter::builder().parse(directives);
    }
    let libraries = match level {
        LogLevel::Error => LogLevel::Error,
        LogLevel::Warn | LogLevel::Info | LogLevel::Debug | LogLevel::Trace => LogLevel::Warn,
    };
    EnvFilter::builder().parse(format!("{},partywall={}", libraries.as_str(), level.as_str()))
}

/// A log that is kept, for tests.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(super) struct Captured(std::sync::Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Captured {
    /// All that was written.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

#[cfg(test)]
impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_writes_so_many_lines_a_second_and_what_it_left_out_is_told() {
        static LINES: LazyLock<Lines> = LazyLock::new(Lines::default);
        static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
        let captured = Captured::default();
        let sink = captured.clone();
        let subscriber = fmt().with_ansi(false).with_writer(move || sink.clone()).finish();
        let subscriber = subscriber.with(Bounded { lines: &LINES, now: || *NOW });
        tracing::subscriber::with_default(subscriber, || {
            (0..10 * LINES_MAX).for_each(|number| warn!(number, "again"));
            warn!("another");
        });
        let text = captured.text();
        assert!(text.contains("another"), "another place is not touched by it");
        assert_eq!(text.matches("again").count(), LINES_MAX as usize);
        let later = *NOW + SECOND;
        let left_out: Vec<u32> = LINES.left_out(later).into_iter().map(|(_, lines)| lines).collect();
        assert_eq!(left_out, [9 * LINES_MAX]);
        assert!(LINES.left_out(later + SECOND).is_empty());
    }

    #[test]
    fn the_environment_wins_over_the_configuration() {
        let text = |level, rust_log| filter(level, rust_log).map(|filter| filter.to_string()).unwrap_or_default();
        assert_eq!(text(LogLevel::Debug, None), "partywall=debug,warn");
        assert_eq!(text(LogLevel::Error, None), "partywall=error,error");
        assert_eq!(text(LogLevel::Error, Some("")), "partywall=error,error");
        assert_eq!(text(LogLevel::Error, Some("hyper=trace")), "hyper=trace");
        assert!(filter(LogLevel::Info, Some("a=b=c")).is_err());
    }
}
