//! Which counts have been told to which series: an organization's own, or `other`.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::OTHER;
use super::exposition::OrganizationSeries;
use super::tally::{Counters, Tally};
use crate::ids::OrgId;

/// An organization without sessions is forgotten after this long.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// What earlier scrapes have told.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: HashMap<OrgId, Account>,
    other: Tally,
    /// What of the overflow has been told (all of it to `other`).
    overflow_told: Tally,
}

/// What earlier scrapes have told of one organization.
#[derive(Debug, Default)]
struct Account {
    own: Option<Box<Tally>>,
    to_other: Option<Box<Tally>>,
    statements: u64,
    /// Statements lately: those since the last scrape and half of the score before.
    score: u64,
    idle_since: Option<Instant>,
}

impl Account {
    /// What was counted and not told yet.
    fn news(&self, counters: &Counters) -> Tally {
        [&self.own, &self.to_other].into_iter().flatten().fold(counters.read(), |tally, told| tally.since(told))
    }
}

impl Ledger {
    /// Tells what is new to the organizations' own series (the `named_max` most active ones) and to `other`; returns
    /// the series to show, `other` last.
    pub fn share_out(
        &mut self,
        organizations: &DashMap<OrgId, Arc<Counters>>,
        overflow: &Counters,
        named_max: usize,
        now: Instant,
    ) -> Vec<OrganizationSeries> {
        self.reap(organizations, now);
        let named = self.most_active(organizations, named_max);
        let mut series = Vec::with_capacity(named.len() + 1);
        let (mut sessions, mut storage) = (overflow.sessions(), None);
        for entry in organizations {
            let (org, counters) = entry.pair();
            let account = self.accounts.entry(org.clone()).or_default();
            let news = account.news(counters);
            if named.contains(org) {
                series.push(named_series(org, counters, account, &news));
                continue;
            }
            self.other.add(&news);
            account.to_other.get_or_insert_default().add(&news);
            sessions += counters.sessions();
            storage = counters.storage().map_or(storage, |bytes| Some(storage.unwrap_or(0) + bytes));
        }
        let news = overflow.read().since(&self.overflow_told);
        self.overflow_told.add(&news);
        self.other.add(&news);
        series.sort_by(|one, two| one.label.cmp(&two.label));
        series.push(OrganizationSeries {
            label: OTHER.to_owned(),
            tally: self.other.clone(),
            sessions,
            storage_bytes: storage,
        });
        series
    }

    /// Forgets organizations that had no session for [`IDLE_MAX`]; what was not told of them goes to `other`.
    fn reap(&mut self, organizations: &DashMap<OrgId, Arc<Counters>>, now: Instant) {
        let mut idle = Vec::new();
        for entry in organizations {
            let account = self.accounts.entry(entry.key().clone()).or_default();
            if !is_unused(entry.value()) {
                account.idle_since = None;
                continue;
            }
            let since = *account.idle_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= IDLE_MAX {
                idle.push(entry.key().clone());
            }
        }
        for org in idle {
            // Asked again under the map's lock: nobody can have taken a handle in between.
            let Some((org, counters)) = organizations.remove_if(&org, |_, counters| is_unused(counters)) else {
                continue;
            };
            let account = self.accounts.remove(&org).unwrap_or_default();
            self.other.add(&account.news(&counters));
        }
    }

    /// The organizations with the highest scores. One that is called `other` is never named: two series would share
    /// their labels, and Prometheus would refuse the whole page.
    fn most_active(&mut self, organizations: &DashMap<OrgId, Arc<Counters>>, named_max: usize) -> HashSet<OrgId> {
        let mut ranking = Vec::with_capacity(organizations.len());
        for entry in organizations {
            let (org, counters) = entry.pair();
            let account = self.accounts.entry(org.clone()).or_default();
            let statements = counters.statements();
            account.score = account.score / 2 + statements.saturating_sub(account.statements);
            account.statements = statements;
            if org.as_str() != OTHER {
                ranking.push((Reverse(account.score), Reverse(counters.sessions()), org.clone()));
            }
        }
        ranking.sort_unstable();
        ranking.into_iter().take(named_max).map(|(_, _, org)| org).collect()
    }
}

fn is_unused(counters: &Arc<Counters>) -> bool {
    counters.sessions() == 0 && Arc::strong_count(counters) == 1
}

fn named_series(org: &OrgId, counters: &Counters, account: &mut Account, news: &Tally) -> OrganizationSeries {
    let own = account.own.get_or_insert_default();
    own.add(news);
    OrganizationSeries {
        label: org.to_string(),
        tally: (**own).clone(),
        sessions: counters.sessions(),
        storage_bytes: counters.storage(),
    }
}
