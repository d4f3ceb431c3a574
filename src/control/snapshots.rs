//! What every data thread reads and only `control` replaces: door, directory, guard, shards; and what all threads count in.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::load::{read_seal_keys, read_secret};
use crate::auth::Throttle;
use crate::cancel::Registry;
use crate::config::{Config, Shard, TlsFiles};
use crate::event::{Event, Observer};
use crate::guard::Guard;
use crate::handshake::{Door, KeyRing, Reserved};
use crate::ids::ShardName;
use crate::limits::Limits;
use crate::net::tls::ServerTls;
use crate::net::{Caps, Proxies};
use crate::pool::{Fitness, Gate, Telling};
use crate::server::ConnectSpec;
use crate::session::{Judges, Signal};
use crate::tenant::Directory;

/// Something that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unusable {
    what: String,
    why: String,
}

impl Unusable {
    fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

/// A shard as data threads open pools for it.
#[derive(Debug, Clone)]
pub struct ShardPlan {
    /// As the configuration has it.
    pub shard: Shard,
    /// How to reach it.
    pub spec: ConnectSpec,
    /// How its connections are told contexts.
    pub telling: Telling,
    /// Rises when a reload changes how it is reached.
    pub epoch: u64,
    ca_pem: Option<Vec<u8>>,
}

/// All that is shared between data threads.
pub struct Snapshots {
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// What clients are greeted with.
    pub door: ArcSwap<Door>,
    /// The keys in force.
    pub keys: Arc<KeyRing>,
    /// The organizations.
    pub directory: ArcSwap<Directory>,
    /// The judge.
    pub guard: Arc<ArcSwap<Guard>>,
    /// Where long statements are judged.
    pub judges: Arc<Judges>,
    /// The shards; data threads watch it.
    pub shards: watch::Sender<Arc<Vec<ShardPlan>>>,
    /// Who failed to log in lately.
    pub throttle: Throttle,
    /// What organizations use.
    pub limits: Limits,
    /// The live sessions.
    pub registry: Arc<Registry>,
    /// The connections.
    pub caps: Arc<Caps>,
    /// Who hears of what happens.
    pub observer: Arc<dyn Observer>,
    /// How the shards stand.
    pub board: Arc<Board>,
    tls: ArcSwapOption<ServerTls>,
    make_guard: MakeGuard,
    paused: AtomicBool,
}

/// Makes the judge for a configuration.
pub type MakeGuard = fn(&Config) -> Guard;

impl Snapshots {
    /// The first snapshots, of a configuration that has been checked. Blocking: reads certificates and passwords.
    pub fn new(
        config: Config,
        keys: Arc<KeyRing>,
        observer: Arc<dyn Observer>,
        board: Arc<Board>,
        make_guard: MakeGuard,
    ) -> Result<Self, Unusable> {
        let tls = config.listen.tls.as_ref().map(load_tls).transpose()?.map(Arc::new);
        let shards = plan_shards(&config, &[])?;
        let judges = Judges::start().map_err(|error| Unusable::new("threads that judge statements", error))?;
        board.enlist(&config);
        Ok(Self {
            judges,
            door: ArcSwap::from_pointee(door(&config, tls.clone())),
            directory: ArcSwap::from_pointee(Directory::new(&config)),
            guard: Arc::new(ArcSwap::from_pointee(make_guard(&config))),
            shards: watch::Sender::new(Arc::new(shards)),
            throttle: Throttle::new(Default::default()),
            limits: Limits::default(),
            registry: Registry::new(),
            caps: Caps::new(config.listen.max_client_conn, config.listen.max_client_conn_per_address),
            keys,
            observer,
            board,
            tls: ArcSwapOption::from(tls),
            make_guard,
            paused: AtomicBool::new(false),
            config: ArcSwap::from_pointee(config),
        })
    }

    /// Puts a new, checked configuration in force, part by part: what cannot be used leaves the old part in force and is
    /// returned, to be told loudly. Blocking: reads certificates and passwords.
    pub fn replace(&self, mut config: Config) -> Vec<Unusable> {
        let mut unusable = Vec::new();
        // What server connections are told stays until the next start, so the guard must go on protecting just that.
        config.context = self.config.load().context.clone();
        if let Err(error) = self.replace_tls(&config) {
            unusable.push(error);
        }
        // Not in the `match`: what is borrowed there could not be replaced in its arms.
        let planned = plan_shards(&config, &self.shards.borrow());
        match planned {
            Ok(shards) => {
                self.board.enlist(&config);
                self.directory.store(Arc::new(Directory::new(&config)));
                self.config.store(Arc::new(config.clone()));
                self.board.doubt_changed(&self.shards.borrow(), &shards);
                self.shards.send_replace(Arc::new(shards));
            }
            // Nobody is placed on a shard that there is no way to.
            Err(error) => unusable.push(error),
        }
        self.door.store(Arc::new(door(&config, self.tls.load_full())));
        self.guard.store(Arc::new((self.make_guard)(&config)));
        self.caps.set_max(config.listen.max_client_conn, config.listen.max_client_conn_per_address);
        self.limits.retier(|org, current| {
            let own = config.organizations.get(org).and_then(|organization| organization.tier.as_ref());
            let tiers = &config.tiers;
            let name = own.unwrap_or(&current.name);
            tiers.tiers.get(name).or_else(|| tiers.tiers.get(&tiers.default)).cloned()
        });
        // Of this configuration, even where the one in force had to stay: a suspension holds at once.
        let directory = Directory::new(&config);
        self.registry.each(|signals| {
            if directory.admits(signals.org()).is_err() {
                signals.raise(Signal::Suspended);
            }
        });
        self.config.store(Arc::new(config));
        unusable
    }

    /// Pauses or resumes all shards, until the other is asked for or the process ends (PgBouncer's PAUSE and RESUME): while
    /// paused, what runs goes on to its safe point, what comes waits, and server connections are closed.
    pub fn pause(&self, paused: bool) {
        if self.paused.swap(paused, Ordering::SeqCst) != paused {
            tracing::info!("{}", if paused { "paused: statements wait" } else { "resumed" });
            // The data threads look at it whenever the shards' plans change.
            self.shards.send_modify(|_| ());
        }
    }

    /// Whether all shards are paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    fn replace_tls(&self, config: &Config) -> Result<(), Unusable> {
        let Some(files) = &config.listen.tls else {
            self.tls.store(None);
            return Ok(());
        };
        match self.tls.load_full() {
            Some(tls) => {
                let (certificate, key) = read_tls(files)?;
                let kept = |error| Unusable::new(files.certificate.display().to_string(), error);
                tls.replace(&certificate, &key).map_err(kept)
            }
            None => {
                self.tls.store(Some(Arc::new(load_tls(files)?)));
                Ok(())
            }
        }
    }
}

fn door(config: &Config, tls: Option<Arc<ServerTls>>) -> Door {
    Door {
        tls,
        plaintext_passwords: config.listen.plaintext_passwords,
        login_timeout: config.listen.client_login_timeout,
        reserved: Reserved::new(&config.context),
        proxies: Proxies::new(config.listen.proxy_protocol, &config.listen.trusted_proxies),
    }
}

/// The judge that a configuration asks for.
pub fn guard(config: &Config) -> Guard {
    Guard::new(&config.guard, &context_names(config), config.guard.statement_bytes_max)
}

fn context_names(config: &Config) -> [String; 5] {
    let names = &config.context;
    [&names.organization, &names.user, &names.project, &names.roles, &names.permissions].map(String::clone)
}

fn load_tls(files: &TlsFiles) -> Result<ServerTls, Unusable> {
    let (certificate, key) = read_tls(files)?;
    ServerTls::load(&certificate, &key).map_err(|error| Unusable::new(files.certificate.display().to_string(), error))
}

fn read_tls(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>), Unusable> {
    Ok((read(&files.certificate)?, read(&files.private_key)?))
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    std::fs::read(path).map_err(|error| Unusable::new(path.display().to_string(), error))
}

/// How each shard is reached (blocking: reads passwords and certificates); a shard that was there and is reached the same way keeps its epoch.
pub fn plan_shards(config: &Config, old: &[ShardPlan]) -> Result<Vec<ShardPlan>, Unusable> {
    let seal_keys = config.context.seal_key.as_ref().map(read_seal_keys).transpose();
    let seal_keys = seal_keys.map_err(|error| Unusable::new("context.seal_key_file", error))?;
    let plan = |shard: &Shard| {
        let what = || format!("shard {}", shard.name);
        let password = shard.password.as_ref().map(read_secret).transpose();
        let password = password.map_err(|error| Unusable::new(what(), error))?;
        let ca_pem = shard.tls_ca_file.as_deref().map(read).transpose()?;
        let timeout = config.pool.server_connect_timeout;
        let spec = ConnectSpec::new(shard, password, ca_pem.as_deref(), timeout)
            .map_err(|error| Unusable::new(what(), error))?
            .with_empty_settings(context_names(config));
        let keys = seal_keys.as_ref().map(|keys| keys.of_shard(shard.name.as_str())).unwrap_or_default();
        let telling = Telling { names: config.context.clone(), keys };
        let known = old.iter().find(|plan| plan.shard.name == shard.name);
        let same = |plan: &ShardPlan| {
            let sized =
                Shard { pool_size: plan.shard.pool_size, min_pool_size: plan.shard.min_pool_size, ..shard.clone() };
            plan.ca_pem == ca_pem
                && plan.spec.password == spec.password
                && plan.shard == sized
                && plan.telling == telling
        };
        let epoch = known.map_or(0, |plan| plan.epoch + u64::from(!same(plan)));
        Ok(ShardPlan { shard: shard.clone(), spec, telling, epoch, ca_pem })
    };
    config.shards.iter().map(plan).collect()
}

/// How the shards stand, as the pools tell it: what `/readyz` shows.
#[derive(Debug, Default)]
pub struct Board {
    shards: Mutex<HashMap<ShardName, Result<(), String>>>,
    gates: Mutex<HashMap<ShardName, Arc<Gate>>>,
    breaches: Mutex<HashMap<ShardName, String>>,
    draining: AtomicBool,
}

impl Board {
    /// Says that no new clients are taken any more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether no new clients are taken any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Every shard by name: served, or why not.
    pub fn shards(&self) -> Vec<(ShardName, Result<(), String>)> {
        let mut shards: Vec<_> = self.shards.lock().iter().map(|(name, state)| (name.clone(), state.clone())).collect();
        shards.sort_by(|a, b| a.0.cmp(&b.0));
        shards
    }

    /// The gate of a shard; one that nobody has heard of is shut until it is attested.
    pub fn gate(&self, shard: &ShardName) -> Arc<Gate> {
        Arc::clone(self.gates.lock().entry(shard.clone()).or_default())
    }

    /// Why a shard must not be served although it can be reached.
    pub fn breach(&self, shard: &ShardName) -> Option<String> {
        self.breaches.lock().get(shard).cloned()
    }

    /// Shuts the gates of shards that are reached in another way than before, until they are attested.
    fn doubt_changed(&self, old: &[ShardPlan], new: &[ShardPlan]) {
        for plan in new {
            let known = old.iter().find(|known| known.shard.name == plan.shard.name);
            if known.is_some_and(|known| known.epoch != plan.epoch) {
                self.gate(&plan.shard.name).set(Fitness::Unknown);
            }
        }
    }

    fn enlist(&self, config: &Config) {
        let mut shards = self.shards.lock();
        shards.retain(|name, _| config.shards.iter().any(|shard| shard.name == *name));
        for shard in &config.shards {
            shards.entry(shard.name.clone()).or_insert_with(|| Err("not reached yet".to_owned()));
        }
    }
}

impl Observer for Board {
    fn event(&self, event: &Event) {
        let (name, state) = match event {
            Event::ShardUp(name) => (name, Ok(())),
            Event::ShardDown(name, why) => {
                // Whatever comes back need not be what went away.
                self.gate(name).set(Fitness::Unknown);
                (name, Err(why.clone()))
            }
            Event::ShardAttested { shard, breach, served } => {
                let mut breaches = self.breaches.lock();
                match breach {
                    Some(breach) if !served => drop(breaches.insert(shard.clone(), breach.clone())),
                    Some(_) | None => drop(breaches.remove(shard)),
                }
                return;
            }
            Event::SessionOpened(_)
            | Event::SessionClosed { .. }
            | Event::LoginRefused { .. }
            | Event::Refused { .. }
            | Event::Statement { .. } => return,
        };
        // A pool of a shard that was taken away lives as long as its sessions, but is nothing to be ready for.
        if let Some(known) = self.shards.lock().get_mut(name) {
            *known = state;
        }
    }
}
