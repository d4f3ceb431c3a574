//! Reloading: on SIGHUP and when a file changes, without dropping a session; what is bad leaves what was good in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use super::load::load_again;
use super::snapshots::Snapshots;
use crate::config::{self, Auth, Config, SecretRef};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another without reading it.
type Mark = Option<(SystemTime, u64)>;

/// The files that are watched, and how each was when it was last looked at.
type Marks = BTreeMap<PathBuf, Mark>;

/// Watches the configuration's files and reloads when one changes or `asked` is notified; runs until it is dropped.
pub async fn keep_current(
    path: PathBuf,
    snapshots: Arc<Snapshots>,
    keys: watch::Sender<Arc<Auth>>,
    asked: Arc<Notify>,
) {
    let mut seen = marks(&path, &snapshots).await;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let signalled = tokio::select! {
            () = asked.notified() => true,
            _ = look.tick() => false,
        };
        let now = marks(&path, &snapshots).await;
        if signalled || now != seen {
            reload(&path, &snapshots, &keys).await;
            seen = marks(&path, &snapshots).await;
            // As they were before they were read: what changes meanwhile is read at the next look.
            for (file, mark) in now {
                seen.entry(file).and_modify(|known| *known = mark);
            }
        }
    }
}

async fn reload(path: &Path, snapshots: &Arc<Snapshots>, keys: &watch::Sender<Arc<Auth>>) {
    let (file, shared) = (path.to_owned(), Arc::clone(snapshots));
    let work = tokio::task::spawn_blocking(move || {
        let config = load_again(&file)?;
        tell_what_needs_a_restart(&shared.config.load(), &config);
        let auth = Arc::new(config.auth.clone());
        Ok::<_, config::Faults>((auth, shared.replace(config)))
    });
    match work.await {
        Ok(Ok((auth, unusable))) => {
            keys.send_replace(auth);
            for error in &unusable {
                tracing::error!(%error, "a part of the new configuration cannot be used; the old part stays in force");
            }
            tracing::info!(file = %path.display(), kept_old = unusable.len(), "configuration reloaded");
        }
        Ok(Err(faults)) => {
            for fault in &faults.0 {
                tracing::error!(%fault, "the new configuration has a fault");
            }
            tracing::error!(file = %path.display(), "the new configuration was not taken; the old one stays in force");
        }
        Err(error) => tracing::error!(%error, "the reload did not end"),
    }
}

fn tell_what_needs_a_restart(old: &Config, new: &Config) {
    let changed = [
        ("listen.address", old.listen.address != new.listen.address),
        ("listen.threads", old.listen.threads != new.listen.threads),
        ("[admin]", old.admin != new.admin),
        ("[context]", old.context != new.context),
        ("[audit]", old.audit != new.audit),
        ("[log]", old.log != new.log),
        ("pool.idle_transaction_timeout_s", old.pool.idle_transaction_timeout != new.pool.idle_transaction_timeout),
    ];
    for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(key, "this key takes effect at the next start");
    }
}

async fn marks(path: &Path, snapshots: &Snapshots) -> Marks {
    let (path, config) = (path.to_owned(), snapshots.config.load_full());
    let look = move || files(&path, &config).into_iter().map(|file| (file.clone(), mark(&file))).collect();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

fn mark(file: &Path) -> Mark {
    let data = std::fs::metadata(file).ok()?;
    Some((data.modified().ok()?, data.len()))
}

/// The files that a reload would read; those of token keys are watched with the keys.
fn files(path: &Path, config: &Config) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    if let Ok(text) = std::fs::read_to_string(path) {
        let policies = config::policy_files(path, &text);
        files.extend(policies.tiers.into_iter().chain(policies.guard));
    }
    if let Some(tls) = &config.listen.tls {
        files.extend([tls.certificate.clone(), tls.private_key.clone()]);
    }
    if let Some(SecretRef::File(file)) = &config.context.seal_key {
        files.push(file.clone());
    }
    for shard in &config.shards {
        files.extend(shard.tls_ca_file.clone());
        if let Some(SecretRef::File(file)) = &shard.password {
            files.push(file.clone());
        }
    }
    files
}
