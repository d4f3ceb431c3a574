//! Tests of the counting and of the page, read by a strict parser of the OpenMetrics text format.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::*;
use crate::event::{SessionFacts, StatementClass, StatementDone};
use crate::ids::{SessionId, ShardName, TierName};

type Series = BTreeMap<String, f64>;

/// Reads a page as strictly as the format's text demands; gives each sample by its name and labels.
fn parse(page: &str) -> Series {
    let body = page.strip_suffix("# EOF\n").expect("the page ends with its mark");
    let mut series = Series::new();
    let mut heads = HashSet::new();
    let mut family: Option<(String, String)> = None;
    let mut help: Option<String> = None;
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("help has words");
            assert!(!text.is_empty() && heads.insert(name.to_owned()), "one head per family: {line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(help.as_deref(), Some(name), "help and type go together");
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let (name_only, labels) = name.split_once('{').map_or((name, None), |(n, l)| (n, Some(l)));
            let (family, kind) = family.as_ref().expect("a sample stands under its head");
            let suffix = name_only.strip_prefix(family.as_str()).expect("a sample carries its family's name");
            let allowed: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_sum", "_count", "_bucket"],
                "info" => &["_info"],
                _ => &[""],
            };
            assert!(allowed.contains(&suffix), "{line} under {kind}");
            check_labels(labels, line);
            let value = value.parse().expect("a number");
            assert!(series.insert(name.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    check_histograms(&series);
    series
}

fn check_labels(labels: Option<&str>, line: &str) {
    let Some(labels) = labels else { return };
    let labels = labels.strip_suffix('}').expect("a closing brace");
    let mut names = HashSet::new();
    for label in labels.split(',') {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        assert!(names.insert(name), "label twice: {line}");
        let value = value.strip_suffix('"').expect("a closing quote");
        assert!(!value.contains(['"', '\n', '\\']), "{line}");
    }
}

/// Buckets rise, and the last one holds as many as `_count` says.
fn check_histograms(series: &Series) {
    for (name, count) in series.iter().filter(|(name, _)| name.contains("_count{")) {
        let (family, labels) = name.split_once("_count{").expect("labels");
        let (prefix, suffix) = (format!("{family}_bucket{{le=\""), format!("\",{labels}"));
        let buckets: Vec<_> =
            series.iter().filter(|(name, _)| name.starts_with(&prefix) && name.ends_with(&suffix)).collect();
        assert_eq!(buckets.len(), tally::BOUNDS_US.len() + 1, "{name}");
        let (_, last) = buckets.iter().find(|(name, _)| name.contains("le=\"+Inf\"")).expect("a last bucket");
        assert_eq!(last, &count, "{name}");
        assert!(buckets.iter().all(|(_, below)| below <= last));
    }
}

fn org(name: &str) -> OrgId {
    OrgId::new(name).expect("a good name")
}

fn facts(name: &str) -> Arc<SessionFacts> {
    Arc::new(SessionFacts {
        session: SessionId(1),
        org: org(name),
        user: None,
        tier: TierName::new("free"),
        shard: ShardName::new("s1"),
        address: None,
        application_name: None,
        tls: true,
    })
}

fn run(metrics: &Metrics, name: &str, statements: usize) {
    let handle = metrics.organization(&org(name)).expect("metrics count statements");
    for _ in 0..statements {
        handle.statement(&StatementDone {
            class: StatementClass::Read,
            latency: Duration::from_millis(3),
            waited: Duration::ZERO,
            result_bytes: 100,
            failed: false,
        });
    }
}

fn page(metrics: &Metrics) -> Series {
    parse(&metrics.render(Instant::now()).expect("a page"))
}

/// Statements that the page tells of, by organization.
fn queries(series: &Series) -> BTreeMap<String, f64> {
    let prefix = "partywall_queries_total{org_id=\"";
    let rows = series.iter().filter_map(|(name, value)| {
        let rest = name.strip_prefix(prefix)?;
        name.contains("success").then(|| (rest.split('"').next().unwrap_or_default().to_owned(), *value))
    });
    rows.collect()
}

#[test]
fn the_page_is_well_formed_and_says_what_happened() {
    let metrics = Metrics::new(50);
    let stats = Arc::new(PoolStats::new(ShardName::new("s1"), 0));
    let second = Arc::new(PoolStats::new(ShardName::new("s1"), 1));
    metrics.watch_pool(Arc::clone(&stats));
    metrics.watch_pool(Arc::clone(&second));
    stats.server_active.store(2, Relaxed);
    second.server_active.store(3, Relaxed);
    stats.waiting_us_max.store(1_500_000, Relaxed);
    stats.up.store(1, Relaxed);
    metrics.event(&Event::SessionOpened(facts("org_1")));
    metrics.event(&Event::Refused { facts: facts("org_1"), kind: Kind::Forbidden, message: "no".into() });
    let login = Event::LoginRefused { address: None, org: None, kind: Kind::InvalidToken, why: "expired".into() };
    metrics.event(&login);
    run(&metrics, "org_1", 2);
    metrics.set_storage(&org("org_1"), 4096);
    let series = page(&metrics);
    for (name, value) in [
        ("partywall_queries_total{org_id=\"org_1\",query_type=\"read\",result=\"success\"}", 2.0),
        ("partywall_query_latency_seconds_sum{org_id=\"org_1\",query_type=\"read\"}", 0.006),
        ("partywall_query_latency_seconds_bucket{le=\"0.0025\",org_id=\"org_1\",query_type=\"read\"}", 0.0),
        ("partywall_query_latency_seconds_bucket{le=\"0.005\",org_id=\"org_1\",query_type=\"read\"}", 2.0),
        ("partywall_result_bytes_total{org_id=\"org_1\"}", 200.0),
        ("partywall_client_connections{org_id=\"org_1\"}", 1.0),
        ("partywall_refusals_total{org_id=\"org_1\",reason=\"forbidden\"}", 1.0),
        ("partywall_storage_usage_bytes{org_id=\"org_1\"}", 4096.0),
        ("partywall_logins_refused_total{reason=\"invalid_token\"}", 1.0),
        ("partywall_sessions_closed_total{reason=\"client_gone\"}", 0.0),
        ("partywall_pool_server_connections{shard=\"s1\",state=\"active\"}", 5.0),
        ("partywall_pool_wait_seconds_max{shard=\"s1\"}", 1.5),
        // One of two threads does not serve it.
        ("partywall_shard_up{shard=\"s1\"}", 0.0),
        (concat!("partywall_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(series.get(name), Some(&value), "{name} in {series:#?}");
    }
    assert!(series.contains_key("process_resident_memory_bytes"));
}

#[test]
fn only_the_most_active_are_named_and_the_rest_are_summed() {
    let metrics = Metrics::new(2);
    for (name, statements) in [("quiet", 1), ("busy", 30), ("calm", 2), ("busier", 40)] {
        run(&metrics, name, statements);
        metrics.event(&Event::SessionOpened(facts(name)));
    }
    let series = page(&metrics);
    let expected = [("busier", 40.0), ("busy", 30.0), ("other", 3.0)].map(|(name, n)| (name.to_owned(), n));
    assert_eq!(queries(&series), BTreeMap::from(expected));
    assert_eq!(series.get("partywall_client_connections{org_id=\"other\"}"), Some(&2.0));
}

#[test]
fn every_statement_is_told_once_and_no_series_ever_falls() {
    let metrics = Metrics::new(2);
    let names = ["a", "b", "c", "d", "e"];
    let mut told = BTreeMap::new();
    let mut sum = 0;
    let mut state = 7_u64;
    for round in 0..200 {
        for name in names {
            // A small generator, so that another two are the most active each round.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let statements = usize::try_from(state >> 58).expect("six bits");
            run(&metrics, name, statements);
            sum += statements;
        }
        for (name, value) in queries(&page(&metrics)) {
            let before = told.insert(name.clone(), value).unwrap_or_default();
            assert!(value >= before, "{name} fell from {before} to {value} in round {round}");
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let expected = sum as f64;
        assert!((told.values().sum::<f64>() - expected).abs() < 0.5, "round {round}: {told:?} is not {sum}");
    }
    assert_eq!(told.len(), names.len() + 1, "each was among the most active once");
}

#[test]
fn an_organization_called_other_does_not_break_the_page() {
    let metrics = Metrics::new(50);
    run(&metrics, "other", 5);
    run(&metrics, "org_1", 1);
    assert_eq!(queries(&page(&metrics)).get("other"), Some(&5.0));
}

#[test]
fn one_organization_on_demand_shows_all_its_own_and_nobody_else() {
    let metrics = Metrics::new(0);
    run(&metrics, "mine", 3);
    run(&metrics, "theirs", 4);
    page(&metrics);
    let text = metrics.render_org(&org("mine")).expect("known").expect("a page");
    assert_eq!(queries(&parse(&text)), BTreeMap::from([("mine".to_owned(), 3.0)]));
    assert!(!text.contains("theirs"));
    assert!(metrics.render_org(&org("nobody")).is_none());
}

#[test]
fn an_organization_is_forgotten_an_hour_after_its_last_session_and_its_counts_stay_in_the_sum() {
    let metrics = Metrics::new(50);
    let start = Instant::now();
    let (handle, minute) = (metrics.organization(&org("held")), Duration::from_secs(60));
    metrics.event(&Event::SessionOpened(facts("seated")));
    run(&metrics, "gone", 3);
    metrics.sweep(start);
    run(&metrics, "gone", 4);
    metrics.sweep(start + 59 * minute);
    assert_eq!(metrics.organizations.len(), 3);
    run(&metrics, "gone", 5);
    metrics.sweep(start + 61 * minute);
    assert_eq!(metrics.organizations.len(), 2, "who has a session or a handle stays");
    let other = metrics.sweep(start + 61 * minute).pop().expect("other is last");
    assert_eq!((other.label.as_str(), other.tally.waits.count()), (OTHER, 5));
    drop(handle);
}

#[test]
fn the_hour_begins_anew_with_each_session() {
    let metrics = Metrics::new(50);
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    metrics.organization(&org("org_1"));
    metrics.sweep(start);
    metrics.event(&Event::SessionOpened(facts("org_1")));
    metrics.sweep(start + 30 * minute);
    let closed =
        Event::SessionClosed { facts: facts("org_1"), reason: CloseReason::ClientGone, lasted: Duration::ZERO };
    metrics.event(&closed);
    metrics.sweep(start + 61 * minute);
    metrics.sweep(start + 120 * minute);
    assert_eq!(metrics.organizations.len(), 1);
    metrics.sweep(start + 121 * minute);
    assert!(metrics.organizations.is_empty());
}

#[test]
fn organizations_beyond_the_bound_are_counted_together() {
    let metrics = Metrics::new(1);
    for number in 0..ORGANIZATIONS_MAX {
        metrics.organization(&org(&format!("org_{number}")));
    }
    run(&metrics, "late", 6);
    metrics.event(&Event::SessionOpened(facts("late")));
    assert_eq!(metrics.organizations.len(), ORGANIZATIONS_MAX);
    let series = page(&metrics);
    assert_eq!(queries(&series).get("other"), Some(&6.0));
    assert_eq!(series.get("partywall_client_connections{org_id=\"other\"}"), Some(&1.0));
    let closed = Event::SessionClosed { facts: facts("late"), reason: CloseReason::ClientGone, lasted: Duration::ZERO };
    metrics.event(&closed);
    let series = page(&metrics);
    assert_eq!(series.get("partywall_client_connections{org_id=\"other\"}"), Some(&0.0));
    assert_eq!(series.get("partywall_sessions_closed_total{reason=\"client_gone\"}"), Some(&1.0));
}

#[test]
fn a_refused_login_does_not_make_an_organization_known() {
    let metrics = Metrics::new(50);
    let kind = Kind::OrganizationSuspended;
    metrics.event(&Event::LoginRefused { address: None, org: Some(org("gone")), kind, why: String::new() });
    assert!(metrics.organizations.is_empty());
    let series = page(&metrics);
    let name = "partywall_refusals_total{org_id=\"other\",reason=\"organization_suspended\"}";
    assert_eq!(series.get(name), Some(&1.0));
}

#[test]
fn a_pool_that_its_owner_dropped_is_not_shown() {
    let metrics = Metrics::new(50);
    let stats = Arc::new(PoolStats::new(ShardName::new("s1"), 0));
    metrics.watch_pool(Arc::clone(&stats));
    assert!(page(&metrics).contains_key("partywall_shard_up{shard=\"s1\"}"));
    drop(stats);
    assert!(!page(&metrics).contains_key("partywall_shard_up{shard=\"s1\"}"));
}
