//! The periodic look at sessions: statements overdue, tokens expired; and organizations without sessions forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::snapshots::Snapshots;

const LOOK_EVERY: Duration = Duration::from_millis(250);
const REAP_EVERY: u32 = 240;

/// Looks at the clock for all sessions; runs until it is dropped.
pub async fn sweep(snapshots: Arc<Snapshots>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    for round in 1_u32.. {
        look.tick().await;
        let now = Instant::now();
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        snapshots.registry.each(|signals| signals.look_at_clock(now, unix_s));
        if round.is_multiple_of(REAP_EVERY) {
            snapshots.limits.reap();
        }
    }
}
