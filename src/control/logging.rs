//! Sets up the program's own log: to standard error, as text or JSON, as loud as the configuration or `RUST_LOG` says.

use std::io::{self, IsTerminal};

use tracing::Dispatch;
use tracing_subscriber::filter::ParseError;
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
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).into(),
        LogFormat::Json => builder.json().flatten_event(true).into(),
    };
    Ok(dispatch.try_init()?)
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

#[cfg(test)]
mod tests {
    use super::*;

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
