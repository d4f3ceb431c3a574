//! Several listeners as one, and the listener that writes to the program's own log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{Level, debug, error, info, warn};

use crate::audit::may_be_quoted;
use crate::event::{CloseReason, Event, Observer, OrgObserver, SessionFacts, StatementClass, StatementDone};
use crate::ids::OrgId;
use crate::refusal::Kind;

/// Lines that clients can cause, in each second; what is beyond is counted and told in one line.
const LINES_MAX: u32 = 200;
const SECOND: Duration = Duration::from_secs(1);

/// Tells everything to each of its listeners, in their order.
pub struct Fanout {
    observers: Vec<Arc<dyn Observer>>,
}

impl Fanout {
    /// One listener out of many.
    pub fn new(observers: Vec<Arc<dyn Observer>>) -> Self {
        Self { observers }
    }
}

impl Observer for Fanout {
    fn event(&self, event: &Event) {
        for observer in &self.observers {
            observer.event(event);
        }
    }

    fn organization(&self, org: &OrgId) -> Option<Arc<dyn OrgObserver>> {
        let mut handles: Vec<_> = self.observers.iter().filter_map(|observer| observer.organization(org)).collect();
        if handles.len() > 1 { Some(Arc::new(OrgFanout(handles.into()))) } else { handles.pop() }
    }

    fn wants_statements(&self, class: StatementClass) -> bool {
        self.observers.iter().any(|observer| observer.wants_statements(class))
    }
}

/// One organization's handles, where there are several.
struct OrgFanout(Box<[Arc<dyn OrgObserver>]>);

impl OrgObserver for OrgFanout {
    fn statement(&self, done: &StatementDone) {
        for observer in &self.0 {
            observer.statement(done);
        }
    }
}

/// Writes logins, goodbyes, refusals and shards to the log; no statements, and no more than `LINES_MAX` lines a second
/// of what clients cause.
#[derive(Debug, Default)]
pub struct LogObserver {
    window: Mutex<Window>,
}

/// The second that is being counted.
#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    lines: u32,
}

impl Window {
    /// Whether one more line may be written; and how many were left out in the second before, when a new one begins.
    fn take(&mut self, now: Instant) -> (bool, u32) {
        let is_over = self.start.is_none_or(|start| now.saturating_duration_since(start) >= SECOND);
        let left_out = if is_over { self.lines.saturating_sub(LINES_MAX) } else { 0 };
        if is_over {
            *self = Self { start: Some(now), lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        (self.lines <= LINES_MAX, left_out)
    }
}

impl LogObserver {
    /// Whether a line that a client caused may be written now.
    fn may_write(&self) -> bool {
        let (may, left_out) = self.window.lock().take(Instant::now());
        if left_out > 0 {
            warn!(lines = left_out, "log lines about clients were left out");
        }
        may
    }
}

impl Observer for LogObserver {
    fn event(&self, event: &Event) {
        match event {
            Event::ShardUp(shard) => info!(%shard, "shard is served"),
            Event::ShardDown(shard, why) => error!(%shard, why = %why.escape_debug(), "shard is not served"),
            // The attestor writes each finding itself.
            Event::Statement { .. } | Event::ShardAttested { .. } => {}
            Event::SessionOpened(_)
            | Event::SessionClosed { .. }
            | Event::LoginRefused { .. }
            | Event::Refused { .. } => {
                if self.may_write() {
                    client_line(event);
                }
            }
        }
    }
}

fn client_line(event: &Event) {
    match event {
        Event::SessionOpened(facts) => opened(facts),
        Event::SessionClosed { facts, reason, lasted } => closed(facts, *reason, *lasted),
        Event::LoginRefused { address, org, kind, why } => {
            let (org, address) = (org.as_ref().map(tracing::field::display), address.map(tracing::field::display));
            let (reason, why) = (kind.row().label, why.escape_debug());
            leveled(*kind, |loud| match loud {
                Loudness::Error => error!(org, address, reason, %why, "login refused"),
                Loudness::Warn => warn!(org, address, reason, %why, "login refused"),
                Loudness::Info => info!(org, address, reason, %why, "login refused"),
                Loudness::Debug => debug!(org, address, reason, %why, "login refused"),
            });
        }
        Event::Refused { facts, kind, message } => refused(facts, *kind, message),
        Event::Statement { .. } | Event::ShardUp(_) | Event::ShardDown(..) | Event::ShardAttested { .. } => {}
    }
}

fn opened(facts: &SessionFacts) {
    let SessionFacts { session, org, tier, shard, tls, .. } = facts;
    let user = facts.user.as_ref().map(|user| tracing::field::display(user.as_str().escape_debug()));
    let address = facts.address.map(tracing::field::display);
    info!(%session, %org, user, %tier, %shard, address, tls, "session opened");
}

fn closed(facts: &SessionFacts, reason: CloseReason, lasted: Duration) {
    let SessionFacts { session, org, .. } = facts;
    info!(%session, %org, reason = reason.as_str(), lasted_s = lasted.as_secs_f64(), "session closed");
}

fn refused(facts: &SessionFacts, kind: Kind, message: &str) {
    let SessionFacts { session, org, .. } = facts;
    let reason = kind.row().label;
    let words = may_be_quoted(kind).then(|| tracing::field::display(message.escape_debug()));
    leveled(kind, |loud| match loud {
        Loudness::Error => error!(%session, %org, reason, words, "refused"),
        Loudness::Warn => warn!(%session, %org, reason, words, "refused"),
        Loudness::Info => info!(%session, %org, reason, words, "refused"),
        Loudness::Debug => debug!(%session, %org, reason, words, "refused"),
    });
}

/// A level that can be matched.
#[derive(Clone, Copy)]
enum Loudness {
    Error,
    Warn,
    Info,
    Debug,
}

/// Writes as loudly as the table of refusals says.
fn leveled(kind: Kind, write: impl FnOnce(Loudness)) {
    let level = kind.row().level;
    write(if level == Level::ERROR {
        Loudness::Error
    } else if level == Level::WARN {
        Loudness::Warn
    } else if level == Level::INFO {
        Loudness::Info
    } else {
        Loudness::Debug
    });
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::ids::{SessionId, ShardName, TierName, UserId};
    use crate::metrics::Metrics;

    struct Wants(StatementClass);

    impl Observer for Wants {
        fn event(&self, _event: &Event) {}

        fn wants_statements(&self, class: StatementClass) -> bool {
            class == self.0
        }
    }

    #[test]
    fn all_listeners_hear_and_one_is_enough_to_want_a_statement() {
        let (one, two) = (Arc::new(Metrics::new(5)), Arc::new(Metrics::new(5)));
        let wants = Arc::new(Wants(StatementClass::Ddl));
        let log = Arc::new(LogObserver::default());
        let fanout = Fanout::new(vec![Arc::clone(&one) as _, wants as _, Arc::clone(&two) as _, log as _]);
        let org = OrgId::new("org_1").expect("a good name");
        let handle = fanout.organization(&org).expect("two of them listen");
        assert!(fanout.wants_statements(StatementClass::Ddl) && !fanout.wants_statements(StatementClass::Read));
        let done = StatementDone {
            class: StatementClass::Read,
            latency: SECOND,
            waited: SECOND,
            result_bytes: 1,
            failed: true,
        };
        handle.statement(&done);
        let kind = Kind::InvalidToken;
        fanout.event(&Event::LoginRefused { address: None, org: None, kind, why: "expired".to_owned() });
        for metrics in [one, two] {
            let page = metrics.render(Instant::now()).expect("a page");
            assert!(page.contains("partywall_queries_total{org_id=\"org_1\",query_type=\"read\",result=\"error\"} 1"));
            assert!(page.contains("partywall_logins_refused_total{reason=\"invalid_token\"} 1"));
        }
    }

    /// What the log says of events.
    fn logged(events: &[Event]) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&buffer);
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Sink(Arc::clone(&sink)));
        let log = LogObserver::default();
        tracing::subscriber::with_default(subscriber.finish(), || events.iter().for_each(|event| log.event(event)));
        let bytes = buffer.lock().clone();
        String::from_utf8(bytes).expect("text")
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_client_can_forge_no_line_and_no_literal_reaches_the_log() {
        let facts = Arc::new(SessionFacts {
            session: SessionId(1),
            org: OrgId::new("org_1").expect("a good name"),
            user: Some(UserId::new("eve\nERROR forged\u{1b}[2J")),
            tier: TierName::new("free"),
            shard: ShardName::new("s1"),
            address: None,
            application_name: None,
            tls: true,
        });
        let no = |kind, message: &str| Event::Refused { facts: Arc::clone(&facts), kind, message: message.to_owned() };
        let text = logged(&[
            Event::SessionOpened(Arc::clone(&facts)),
            no(Kind::Syntax, "syntax error at or near \"hunter2\""),
            no(Kind::Forbidden, "SET ROLE\nERROR forged"),
            Event::SessionClosed { facts: Arc::clone(&facts), reason: CloseReason::ClientGone, lasted: SECOND },
        ]);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.contains("hunter2") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("reason=\"syntax\"") && text.contains("session opened"), "{text}");
    }

    #[test]
    fn a_flood_of_lines_is_cut_and_told_of_in_the_next_second() {
        let mut window = Window::default();
        let start = Instant::now();
        let written = (0..LINES_MAX + 50).filter(|_| window.take(start).0).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(window.take(start + SECOND), (true, 50));
        assert_eq!(window.take(start + SECOND), (true, 0));
    }
}
