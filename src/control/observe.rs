//! Several listeners as one, and the listener that writes to the program's own log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{Level, debug, error, info, warn};

use crate::audit::{cut, quoted};
use crate::event::{CloseReason, Event, Observer, OrgObserver, SessionFacts, StatementClass, StatementDone};
use crate::ids::OrgId;
use crate::refusal::Kind;

/// Lines that clients can cause, in each second; what is beyond is counted, and told by organization.
const LINES_MAX: u32 = 200;
/// Those of one organization, and of all who have no name yet.
const LINES_OF_ONE_MAX: u32 = 50;
/// Organizations whose lines are counted apart in one second.
const ORGANIZATIONS_MAX: usize = 4096;
/// Organizations of which is told how many lines were left out; the rest is told as a sum.
const NAMED_MAX: usize = 20;
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

/// Writes logins, goodbyes, refusals and shards to the log; no statements, and only so many lines a second of what clients
/// cause: in all, and of each organization, so that none takes the place of another's.
#[derive(Debug, Default)]
pub struct LogObserver {
    second: Mutex<Second>,
}

/// The second that is being counted.
#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    /// Lines written.
    lines: u32,
    /// Lines of each organization, and of those who have no name; written and left out.
    organizations: HashMap<Option<OrgId>, u32>,
    /// Lines of organizations beyond those that are counted apart.
    others: u32,
    left_out: HashMap<Option<OrgId>, u32>,
    left_out_others: u32,
}

/// What a second left out: of whom (none: of the nameless) how many lines; and how many of others.
type LeftOut = (Vec<(Option<OrgId>, u32)>, u32);

impl Second {
    /// Whether one more line of `org` may be written.
    fn take(&mut self, org: Option<&OrgId>) -> bool {
        let org = org.cloned();
        let is_counted = self.organizations.contains_key(&org) || self.organizations.len() < ORGANIZATIONS_MAX;
        let (known, limit) = if is_counted {
            (self.organizations.entry(org.clone()).or_default(), LINES_OF_ONE_MAX)
        } else {
            (&mut self.others, LINES_MAX)
        };
        *known = known.saturating_add(1);
        if *known <= limit && self.lines < LINES_MAX {
            self.lines += 1;
            return true;
        }
        let is_named = self.left_out.contains_key(&org) || self.left_out.len() < NAMED_MAX;
        let count = if is_named { self.left_out.entry(org).or_default() } else { &mut self.left_out_others };
        *count = count.saturating_add(1);
        false
    }

    /// Begins the next second if this one is over; what it has left out.
    fn roll(&mut self, now: Instant) -> Option<LeftOut> {
        if self.began.is_some_and(|began| now.saturating_duration_since(began) < SECOND) {
            return None;
        }
        let ended = std::mem::replace(self, Self { began: Some(now), ..Self::default() });
        let mut named: Vec<_> = ended.left_out.into_iter().collect();
        named.sort();
        (!named.is_empty() || ended.left_out_others > 0).then_some((named, ended.left_out_others))
    }
}

impl LogObserver {
    /// Whether a line that a client of `org` caused may be written at `now`.
    fn may_write(&self, org: Option<&OrgId>, now: Instant) -> bool {
        self.tell_left_out(now);
        self.second.lock().take(org)
    }

    /// Says what the last second left out, if it is over and left anything out. Called each second too, since the line that
    /// would do it may never come.
    pub fn tell_left_out(&self, now: Instant) {
        let Some((named, others)) = self.second.lock().roll(now) else { return };
        for (org, lines) in named {
            let org = org.as_ref().map(tracing::field::display);
            warn!(org, lines, "log lines about clients were left out");
        }
        if others > 0 {
            warn!(lines = others, "log lines about clients of other organizations were left out");
        }
    }
}

/// Says each second what was left out of the log; runs until it is dropped.
pub async fn tell_what_is_left_out(log: Arc<LogObserver>) {
    let mut second = tokio::time::interval(SECOND);
    loop {
        second.tick().await;
        log.tell_left_out(Instant::now());
        super::logging::tell_left_out(Instant::now());
    }
}

impl Observer for LogObserver {
    fn event(&self, event: &Event) {
        match event {
            Event::ShardUp(shard) => info!(%shard, "shard is served"),
            Event::ShardDown(shard, why) => error!(%shard, why = %why.escape_debug(), "shard is not served"),
            // The attestor writes each finding itself.
            Event::Statement { .. } | Event::ShardAttested { .. } => {}
            Event::SessionOpened(facts) | Event::SessionClosed { facts, .. } | Event::Refused { facts, .. } => {
                if self.may_write(Some(&facts.org), Instant::now()) {
                    client_line(event);
                }
            }
            Event::LoginRefused { org, .. } => {
                if self.may_write(org.as_ref(), Instant::now()) {
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
            let (reason, why) = (kind.row().label, cut(why).escape_debug());
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
    let words = quoted(kind, message).map(|words| tracing::field::display(words.escape_debug()));
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
    use super::super::logging::Captured;
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
        let captured = Captured::default();
        let sink = captured.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone());
        let log = LogObserver::default();
        tracing::subscriber::with_default(subscriber.finish(), || events.iter().for_each(|event| log.event(event)));
        captured.text()
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

    fn org(name: &str) -> Option<OrgId> {
        Some(OrgId::new(name).expect("a good name"))
    }

    #[test]
    fn a_flood_of_lines_is_cut_and_told_of_in_the_next_second() {
        let (mut second, start) = (Second::default(), Instant::now());
        assert_eq!(second.roll(start), None);
        let mut many = |org: Option<OrgId>| (0..100).filter(|_| second.take(org.as_ref())).count();
        assert_eq!(many(org("greedy")), LINES_OF_ONE_MAX as usize);
        assert_eq!(many(None), LINES_OF_ONE_MAX as usize, "those who have no name are one");
        assert_eq!(many(org("other")), LINES_OF_ONE_MAX as usize);
        assert_eq!(second.roll(start), None, "it is not over");
        let told = [(None, 50), (org("greedy"), 50), (org("other"), 50)];
        assert_eq!(second.roll(start + SECOND), Some((told.into(), 0)));
        assert!(second.take(org("greedy").as_ref()));
        assert_eq!(second.roll(start + 2 * SECOND), None);
        let written = (0..1000).filter(|number| second.take(org(&format!("org_{number}")).as_ref())).count();
        assert_eq!(written, LINES_MAX as usize, "all together");
        let (named, others) = second.roll(start + 3 * SECOND).expect("it is told");
        assert_eq!((named.len(), others), (NAMED_MAX, 1000 - LINES_MAX - NAMED_MAX as u32));
        (0..10_000).for_each(|number| _ = second.take(org(&format!("org_{number}")).as_ref()));
        assert_eq!(second.organizations.len(), ORGANIZATIONS_MAX);
    }

    #[test]
    fn what_is_left_out_is_told_though_no_line_follows() {
        let captured = Captured::default();
        let sink = captured.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || sink.clone());
        let (log, start) = (LogObserver::default(), Instant::now());
        tracing::subscriber::with_default(subscriber.finish(), || {
            (0..70).for_each(|_| _ = log.may_write(org("greedy").as_ref(), start));
            log.tell_left_out(start);
            assert!(captured.text().is_empty());
            log.tell_left_out(start + SECOND);
        });
        let text = captured.text();
        assert!(text.contains("log lines about clients were left out org=greedy lines=20"), "{text}");
    }
}
