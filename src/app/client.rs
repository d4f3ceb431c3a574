//! One client from accept to goodbye: greeted, identified, seated, served.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;

use super::data_thread::{Here, beside};
use crate::auth::Identity;
use crate::config::{OnExpiry, PoolMode};
use crate::event::{Event, SessionFacts};
use crate::handshake::{self, Desk, Greeted, Login, NotAdmitted};
use crate::net::{ClientStream, Step, Ticket};
use crate::refusal::{Kind, Refusal};
use crate::session::{self, Opening, Session, Signal, Signals};
use crate::tenant::Tenant;

/// How long accepting rests when the system has no more sockets to give.
const NO_SOCKETS_PAUSE: Duration = Duration::from_millis(50);

/// A connection has come, or could not.
pub(super) async fn accepted(here: &Rc<Here>, accepted: io::Result<(TcpStream, SocketAddr)>) {
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(NO_SOCKETS_PAUSE).await;
            return;
        }
    };
    // Whom a balancer's connection is for is not known yet.
    let handed_on = here.snapshots.door.load().proxies.may_say(peer.ip());
    match here.snapshots.caps.try_enter((!handed_on).then_some(peer.ip())) {
        Ok(ticket) => beside(serve(Rc::clone(here), stream, peer, ticket)),
        Err(too_many) => {
            let refusal = Refusal::from(too_many);
            refused(here, peer.ip(), refusal.kind(), too_many.to_string());
            beside(async move { handshake::turn_away(stream, &refusal).await });
        }
    }
}

fn refused(here: &Here, address: IpAddr, kind: Kind, why: String) {
    here.snapshots.observer.event(&Event::LoginRefused { address: Some(address), org: None, kind, why });
}

async fn serve(here: Rc<Here>, stream: TcpStream, peer: SocketAddr, ticket: Ticket) {
    let door = here.snapshots.door.load_full();
    let greeted = Box::pin(handshake::greet(stream, peer, &door, &ticket)).await;
    drop(door);
    match greeted {
        Greeted::Login(login) => {
            if let Some((session, registration)) = Box::pin(log_in(&here, login, &ticket)).await {
                session::run(session).await;
                drop(registration);
            }
        }
        Greeted::Cancel(cancelling) => {
            let request = &cancelling.request;
            if let Some(signals) = here.snapshots.registry.find(request.pid, &request.key) {
                signals.raise(Signal::Cancel);
            }
        }
        Greeted::Refused { kind, why, address } => refused(&here, address, kind, why),
        Greeted::Gone => {}
    }
    drop(ticket);
}

/// A session with its place in the registry, or nothing when the client has heard a no.
async fn log_in(
    here: &Here,
    login: Box<Login>,
    ticket: &Ticket,
) -> Option<(Box<Session>, crate::cancel::Registration)> {
    let snapshots = &here.snapshots;
    let (directory, keys) = (snapshots.directory.load_full(), Arc::clone(&snapshots.keys));
    let desk = Desk { keys: &keys, throttle: &snapshots.throttle, directory: &directory };
    let peer = login.peer.ip();
    let (identity, tenant) = match handshake::log_in(&login, desk, unix_now()).await {
        Ok(admitted) => admitted,
        Err(no) => {
            snapshots.observer.event(&no.clone().event(peer));
            hold_back(login, &no, ticket).await;
            return None;
        }
    };
    let deadline = login.deadline;
    let org = identity.org().clone();
    let no = |kind: Kind, why: String| Event::LoginRefused { address: Some(peer), org: Some(org), kind, why };
    let opening = seat(here, login, identity, &tenant);
    let opened = match opening {
        // From here on the organization's seats bound it, and not the places of those who have not logged in.
        Ok(_) if !ticket.logged_in() => {
            snapshots.observer.event(&no(Kind::TooManyConnections, "its place was given to another".to_owned()));
            return None;
        }
        Ok((opening, registration)) => {
            // A client that does not take the answer, or a shard that does not give it, ends with the deadline.
            match tokio::time::timeout_at(deadline, opening.open()).await {
                Ok(Ok(session)) => return Some((session, registration)),
                Ok(Err(refused)) => Some(*refused),
                Err(_) => None,
            }
        }
        Err(refused) => Some(*refused),
    };
    match opened {
        Some((stream, refusal)) => {
            handshake::refuse(stream, &refusal).await;
            snapshots.observer.event(&no(refusal.kind(), refusal.message().to_owned()));
        }
        None => snapshots.observer.event(&no(Kind::LoginTimeout, "the login was not answered in time".to_owned())),
    }
    None
}

/// Tells a client that it is not admitted, late where many fail; not at all where somebody new has its place by then.
async fn hold_back(login: Box<Login>, no: &NotAdmitted, ticket: &Ticket) {
    ticket.step(Step::Refused);
    let until = login.deadline.min(tokio::time::Instant::now() + no.hold);
    tokio::select! {
        biased;
        () = ticket.given_up() => {}
        () = tokio::time::sleep_until(until) => handshake::refuse(login.stream, &no.refusal).await,
    }
}

type Seated = Result<(Opening, crate::cancel::Registration), Box<(ClientStream, Refusal)>>;

/// Gives an admitted client its seat, its number and its settings.
fn seat(here: &Here, login: Box<Login>, identity: Identity, tenant: &Tenant) -> Seated {
    let snapshots = &here.snapshots;
    let Login { stream, peer, protocol, parameters, .. } = *login;
    let config = snapshots.config.load();
    let expires_at = match config.auth.on_expiry {
        OnExpiry::Disconnect => identity.expires_at(),
        OnExpiry::Keep => u64::MAX,
    };
    let grace_s = config.auth.expiry_grace.as_secs();
    let signals = Arc::new(Signals::new(tenant.org().clone(), expires_at).with_grace(grace_s));
    let prepared = (|| {
        let unavailable =
            || Refusal::new(Kind::ShardUnavailable, "the database of this organization is not available now");
        let pool = here.pools.get(tenant.shard()).ok_or_else(|| unavailable().fatal())?;
        let limits = snapshots.limits.organization(tenant.org(), tenant.tier());
        let seat = limits.seat()?;
        let guard = snapshots.guard.load();
        let rights = guard.session_rights(identity.roles(), identity.permissions(), identity.is_bare());
        let bounds = session::tier_limits(&seat.limits().tier(), config.pool.idle_transaction_timeout);
        let rights = rights.with_limits(bounds);
        let settings = session::startup_settings(&snapshots.guard.load(), &rights, &parameters);
        let settings = settings.map_err(Refusal::fatal)?;
        let registration = snapshots
            .registry
            .register(protocol, Arc::clone(&signals))
            .map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?;
        Ok((pool, seat, settings, registration))
    })();
    let (pool, seat, settings, registration) = match prepared {
        Ok(prepared) => prepared,
        Err(refusal) => return Err(Box::new((stream, refusal))),
    };
    let facts = Arc::new(SessionFacts {
        session: registration.session(),
        org: tenant.org().clone(),
        user: identity.user().cloned(),
        tier: tenant.tier().name.clone(),
        shard: tenant.shard().clone(),
        address: Some(peer.ip()),
        application_name: parameters.application_name.as_deref().map(Arc::from),
        tls: stream.is_tls(),
    });
    let opening = Opening {
        thread: Rc::clone(&here.thread),
        pool,
        facts,
        identity: Arc::new(identity),
        seat,
        signals,
        client: stream,
        session_mode: tenant.pool_mode() == PoolMode::Session,
        settings,
        cancel_key: registration.key().to_vec(),
    };
    Ok((opening, registration))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
