//! The page that Prometheus reads: names, help and labels, in one place (OpenMetrics 1.0 text format).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::process::Process;
use super::tally::{Histogram, Tally, seconds};
use super::{AuditCounters, CLOSINGS, KINDS, closing_labels};
use crate::event::StatementClass;
use crate::pool::stats::PoolStats;
use crate::refusal::Kind;

/// The `Content-Type` of what is rendered.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One organization's series, or those of `other`.
#[derive(Debug, Clone)]
pub struct OrganizationSeries {
    /// The value of `org_id`.
    pub label: String,
    /// What was counted.
    pub tally: Tally,
    /// Sessions open now.
    pub sessions: u64,
    /// Storage as metered last, in bytes.
    pub storage_bytes: Option<u64>,
}

/// One shard's pools, all data threads together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardSeries {
    shard: String,
    active: u64,
    idle: u64,
    connecting: u64,
    closing: u64,
    waiting: u64,
    waiting_us_max: u64,
    connects: u64,
    connect_failures: u64,
    discarded: u64,
    leases: u64,
    contexts_told: u64,
    waited_us: u64,
    up: bool,
}

impl ShardSeries {
    /// One for each shard, by name: counts summed, the longest wait of all, up only when every thread serves it.
    pub fn sum(pools: &[Arc<PoolStats>]) -> Vec<Self> {
        let mut shards: Vec<Self> = Vec::new();
        for stats in pools {
            let known = shards.iter_mut().find(|shard| shard.shard == stats.shard.as_str());
            match known {
                Some(shard) => shard.add(stats),
                None => {
                    let mut shard = Self { shard: stats.shard.to_string(), up: true, ..Self::default() };
                    shard.add(stats);
                    shards.push(shard);
                }
            }
        }
        shards.sort_by(|one, two| one.shard.cmp(&two.shard));
        shards
    }

    fn add(&mut self, stats: &PoolStats) {
        let gauge = |value: &AtomicU32| u64::from(value.load(Relaxed));
        let count = |value: &AtomicU64| value.load(Relaxed);
        self.active += gauge(&stats.server_active);
        self.idle += gauge(&stats.server_idle);
        self.connecting += gauge(&stats.server_connecting);
        self.closing += gauge(&stats.server_closing);
        self.waiting += gauge(&stats.waiting);
        self.waiting_us_max = self.waiting_us_max.max(count(&stats.waiting_us_max));
        self.connects += count(&stats.connects_total);
        self.connect_failures += count(&stats.connect_failures_total);
        self.discarded += count(&stats.discarded_total);
        self.leases += count(&stats.leases_total);
        self.contexts_told += count(&stats.contexts_told_total);
        self.waited_us += count(&stats.waited_us_total);
        self.up &= gauge(&stats.up) != 0;
    }
}

/// What one page shows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The named organizations, and `other`.
    pub organizations: Vec<OrganizationSeries>,
    /// How many organizations are counted apart.
    pub organizations_known: usize,
    /// Sessions ended, by reason; none on the page of one organization.
    pub closed: Option<[u64; CLOSINGS]>,
    /// Logins refused, by kind; none on the page of one organization.
    pub logins_refused: Option<[u64; KINDS]>,
    /// The pools.
    pub shards: Vec<ShardSeries>,
    /// The audit trail's counters; none on the page of one organization.
    pub audit: Option<Arc<AuditCounters>>,
    /// Whether each shard's walls held when they were last looked at.
    pub attested: Vec<(String, bool)>,
}

impl Snapshot {
    /// The page, with its end mark.
    pub fn render(self, process: Option<Process>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("partywall").register_collector(Box::new(self));
        if let Some(process) = process {
            registry.register_collector(Box::new(process));
        }
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &registry)?;
        Ok(page)
    }

    fn each_org<'a>(
        &'a self,
        rows: impl Fn(&'a OrganizationSeries) -> Vec<(Labels<'a>, Value<'a>)> + 'a,
    ) -> impl Iterator<Item = (Labels<'a>, Value<'a>)> {
        self.organizations.iter().flat_map(rows)
    }

    fn organizations(&self, page: &mut Page<'_>) -> fmt::Result {
        page.histogram(
            "query_latency_seconds",
            "From the client's statement to the end of its answer, waiting included.",
            self.each_org(latencies),
        )?;
        page.counter("queries", "Statements that have ended.", self.each_org(queries))?;
        page.histogram(
            "query_wait_seconds",
            "How long statements waited for a server connection.",
            self.each_org(|org| vec![(vec![("org_id", &org.label)], Value::Histogram(&org.tally.waits))]),
        )?;
        page.counter(
            "result_bytes",
            "Bytes of rows and COPY data forwarded to clients.",
            self.each_org(|org| vec![(vec![("org_id", &org.label)], Value::Count(org.tally.result_bytes))]),
        )?;
        page.counter("refusals", "Refusals that logged-in clients heard.", self.each_org(refusals))?;
        page.gauge(
            "client_connections",
            "Sessions open now.",
            self.each_org(|org| vec![(vec![("org_id", &org.label)], Value::Count(org.sessions))]),
        )?;
        page.gauge("storage_usage_bytes", "Storage as metered last.", self.each_org(storage))
    }

    fn doors(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some((closed, refused)) = self.closed.zip(self.logins_refused) else { return Ok(()) };
        let organizations = Value::Count(self.organizations_known as u64);
        page.gauge("organizations", "Organizations counted apart.", [(vec![], organizations)])?;
        let closed =
            closing_labels().zip(closed).map(|(reason, count)| (vec![("reason", reason)], Value::Count(count)));
        page.counter("sessions_closed", "Sessions that have ended.", closed)?;
        let kinds = Kind::ALL.iter().map(|kind| kind.row().label);
        let refused = kinds.zip(refused).map(|(reason, count)| (vec![("reason", reason)], Value::Count(count)));
        page.counter("logins_refused", "Clients that did not get in.", refused)?;
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        page.info("build", "Which Partywall this is.", &version)
    }

    fn walls(&self, page: &mut Page<'_>) -> fmt::Result {
        let rows = self.attested.iter();
        let rows = rows.map(|(shard, holds)| (vec![("shard", shard.as_str())], Value::Count(u64::from(*holds))));
        page.gauge("shard_attested", "1 when the shard's walls held when they were last looked at.", rows)
    }

    fn pools(&self, page: &mut Page<'_>) -> fmt::Result {
        if self.shards.is_empty() {
            return Ok(());
        }
        page.gauge("shard_up", "1 when every data thread serves the shard.", self.each_shard(|s| u64::from(s.up)))?;
        let states = self.shards.iter().flat_map(|shard| {
            let states = [
                ("active", shard.active),
                ("idle", shard.idle),
                ("connecting", shard.connecting),
                ("closing", shard.closing),
            ];
            states.map(|(state, count)| (vec![("shard", shard.shard.as_str()), ("state", state)], Value::Count(count)))
        });
        page.gauge("pool_server_connections", "Server connections by what they do.", states)?;
        page.gauge("pool_waiting", "Statements waiting for a server connection.", self.each_shard(|s| s.waiting))?;
        let longest = self.each_shard_s(|s| s.waiting_us_max);
        page.gauge("pool_wait_seconds_max", "How long the longest-waiting statement has waited.", longest)?;
        page.counter("pool_connects", "Server connections opened.", self.each_shard(|s| s.connects))?;
        let failures = self.each_shard(|s| s.connect_failures);
        page.counter("pool_connect_failures", "Attempts to open a server connection that failed.", failures)?;
        let discarded = self.each_shard(|s| s.discarded);
        page.counter("pool_discarded", "Server connections closed as not known to be clean.", discarded)?;
        page.counter("pool_leases", "Leases given.", self.each_shard(|s| s.leases))?;
        let told = self.each_shard(|s| s.contexts_told);
        page.counter("pool_contexts_told", "Leases that had to be told the session's context first.", told)?;
        let waited = self.each_shard_s(|s| s.waited_us);
        page.counter("pool_wait_seconds", "Time that statements spent waiting for a server connection.", waited)
    }

    fn each_shard(&self, value: impl Fn(&ShardSeries) -> u64) -> impl Iterator<Item = (Labels<'_>, Value<'_>)> {
        self.shards.iter().map(move |shard| (vec![("shard", shard.shard.as_str())], Value::Count(value(shard))))
    }

    fn each_shard_s(&self, us: impl Fn(&ShardSeries) -> u64) -> impl Iterator<Item = (Labels<'_>, Value<'_>)> {
        self.shards.iter().map(move |shard| (vec![("shard", shard.shard.as_str())], Value::Seconds(seconds(us(shard)))))
    }

    fn audit(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(audit) = &self.audit else { return Ok(()) };
        let count = |value: &AtomicU64| Value::Count(value.load(Relaxed));
        page.counter("audit_records", "Audit records written.", [(vec![], count(&audit.written_total))])?;
        let dropped = [
            (vec![("kind", "security")], count(&audit.security_dropped_total)),
            (vec![("kind", "statement")], count(&audit.statements_dropped_total)),
        ];
        page.counter("audit_dropped", "Audit records lost to a full queue or an unwritable file.", dropped)?;
        let summarized = [(vec![], count(&audit.summarized_total))];
        let help = "Audit records beyond their organization's share of the trail, which a summary counts.";
        page.counter("audit_summarized", help, summarized)?;
        let failures = [(vec![], count(&audit.write_failures_total))];
        page.counter("audit_write_failures", "Writes to the audit file that failed.", failures)
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.organizations(&mut page)?;
        self.doors(&mut page)?;
        self.pools(&mut page)?;
        self.walls(&mut page)?;
        self.audit(&mut page)
    }
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        let row = |value: Option<u64>| value.map(|value| (vec![], Value::Count(value)));
        page.gauge("process_resident_memory_bytes", "Resident memory.", row(self.resident_bytes))?;
        page.gauge("process_open_fds", "Open file descriptors.", row(self.open_fds))
    }
}

fn latencies(org: &OrganizationSeries) -> Vec<(Labels<'_>, Value<'_>)> {
    let classes = StatementClass::ALL.iter().zip(&org.tally.classes);
    let rows = classes.filter_map(|(class, tally)| {
        let labels = vec![("org_id", org.label.as_str()), ("query_type", class.as_str())];
        Some((labels, Value::Histogram(&tally.as_ref()?.latency)))
    });
    rows.collect()
}

fn queries(org: &OrganizationSeries) -> Vec<(Labels<'_>, Value<'_>)> {
    let classes = StatementClass::ALL.iter().zip(&org.tally.classes);
    let rows = classes.filter_map(|(class, tally)| Some((class.as_str(), tally.as_ref()?.results)));
    let rows = rows.flat_map(|(class, results)| {
        ["success", "error"].into_iter().zip(results).map(move |(result, count)| {
            (vec![("org_id", org.label.as_str()), ("query_type", class), ("result", result)], Value::Count(count))
        })
    });
    rows.collect()
}

fn refusals(org: &OrganizationSeries) -> Vec<(Labels<'_>, Value<'_>)> {
    let rows = org.tally.refusals.iter().filter_map(|(kind, count)| {
        let reason = Kind::ALL.get(*kind)?.row().label;
        Some((vec![("org_id", org.label.as_str()), ("reason", reason)], Value::Count(*count)))
    });
    rows.collect()
}

fn storage(org: &OrganizationSeries) -> Vec<(Labels<'_>, Value<'_>)> {
    org.storage_bytes.map(|bytes| (vec![("org_id", org.label.as_str())], Value::Count(bytes))).into_iter().collect()
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// A sample's value.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Count(u64),
    Seconds(f64),
    Histogram(&'a Histogram),
}

/// Writes families: a head each, and its samples.
struct Page<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Page<'_> {
    fn counter<'a>(&mut self, name: &str, help: &str, rows: impl Rows<'a>) -> fmt::Result {
        self.family(name, help, MetricType::Counter, rows)
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, rows: impl Rows<'a>) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, rows)
    }

    fn histogram<'a>(&mut self, name: &str, help: &str, rows: impl Rows<'a>) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, rows)
    }

    fn info(&mut self, name: &str, help: &str, labels: &Labels<'_>) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    fn family<'a>(&mut self, name: &str, help: &str, kind: MetricType, rows: impl Rows<'a>) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                sample(&mut family, kind, value)?;
            } else {
                sample(&mut family.encode_family(&labels)?, kind, value)?;
            }
        }
        Ok(())
    }
}

trait Rows<'a>: IntoIterator<Item = (Labels<'a>, Value<'a>)> {}
impl<'a, T: IntoIterator<Item = (Labels<'a>, Value<'a>)>> Rows<'a> for T {}

fn sample(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: Value<'_>) -> fmt::Result {
    let is_counter = matches!(kind, MetricType::Counter);
    match value {
        Value::Count(count) if is_counter => encoder.encode_counter::<NoLabelSet, u64, f64>(&count, None),
        Value::Count(count) => encoder.encode_gauge(&count),
        Value::Seconds(time) if is_counter => encoder.encode_counter::<NoLabelSet, f64, f64>(&time, None),
        Value::Seconds(time) => encoder.encode_gauge(&time),
        Value::Histogram(times) => {
            encoder.encode_histogram::<NoLabelSet>(times.sum_s(), times.count(), &times.buckets(), None)
        }
    }
}
