//! The operators' door over HTTP: is it alive, is it ready, what is counted, and one organization on demand.
//!
//! `/healthz`, `/readyz` and `/metrics` answer anybody who reaches the address (scrapers and orchestrators carry no
//! token), so it belongs on an inner network; everything under `/api/` wants the bearer token, and is not there at all
//! while no token is set. One request a connection, bounded in size, time and number. Runs on the control runtime.

mod door;
mod token;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Path, Request, State as Shared};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::ids::{OrgId, ShardName};
use crate::metrics::{self, Metrics};

pub use token::{Token, TokenError};

use door::Door;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// An answer that takes longer is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It is served.
    Up,
    /// It cannot be reached.
    Down,
    /// It can be reached, but is not fit to be served.
    Unattested,
}

/// One shard, as `/readyz` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Which one.
    pub name: ShardName,
    /// How it stands.
    pub health: Health,
    /// Why it is not up; for operators, without secrets.
    pub reason: Option<String>,
}

/// Whoever knows whether clients can be served.
pub trait Readiness: Send + Sync {
    /// Every shard. Must not block.
    fn shards(&self) -> Vec<ShardState>;

    /// Whether no new clients are taken any more.
    fn is_draining(&self) -> bool {
        false
    }
}

/// What the door needs to answer.
pub struct State {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is ready.
    pub readiness: Arc<dyn Readiness>,
    /// What opens `/api/`; none keeps it shut.
    pub token: Option<Token>,
}

/// Answers until `stop` is done; what is being answered then is finished, within the door's deadlines.
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(Door::new(listener), router(state)).with_graceful_shutdown(stop).await
}

fn router(state: Arc<State>) -> Router {
    let api = Router::new()
        .route("/organizations/{id}/metrics", get(organization_metrics))
        .fallback(async || StatusCode::NOT_FOUND)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&state), authorize));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .nest("/api/v1", api)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(within_bounds))
        .with_state(state)
}

/// Gives up on slow answers, and closes the connection after each.
async fn within_bounds(request: Request, next: Next) -> Response {
    let answer = timeout(ANSWER_TIMEOUT, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Lets nobody in without the token; without one in force there is nothing to see.
async fn authorize(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let Some(token) = &state.token else { return StatusCode::NOT_FOUND.into_response() };
    if token.is_carried_by(request.headers().get(AUTHORIZATION)) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response()
}

#[derive(Serialize)]
struct ReadyBody {
    ready: bool,
    draining: bool,
    shards: Vec<ShardBody>,
}

#[derive(Serialize)]
struct ShardBody {
    name: String,
    state: Health,
    reason: Option<String>,
}

/// Ready: at least one shard is up, none is unfit, and new clients are taken. One that is merely down keeps the others'
/// organizations served; one that is unfit is a fault of the set-up that nobody should be sent to.
async fn readyz(Shared(state): Shared<Arc<State>>) -> Response {
    let (shards, draining) = (state.readiness.shards(), state.readiness.is_draining());
    let has = |health| shards.iter().any(|shard| shard.health == health);
    let ready = has(Health::Up) && !has(Health::Unattested) && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let shards = shards.into_iter().map(|shard| ShardBody {
        name: shard.name.to_string(),
        state: shard.health,
        reason: shard.reason,
    });
    (status, Json(ReadyBody { ready, draining, shards: shards.collect() })).into_response()
}

async fn scrape(Shared(state): Shared<Arc<State>>) -> Response {
    let page = spawn_blocking(move || state.metrics.render(Instant::now())).await;
    match page {
        Ok(Ok(page)) => openmetrics(page),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn organization_metrics(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Response {
    let Ok(org) = OrgId::new(&id) else { return StatusCode::BAD_REQUEST.into_response() };
    match state.metrics.render_org(&org) {
        Some(Ok(page)) => openmetrics(page),
        Some(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn openmetrics(page: String) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response()
}

#[cfg(test)]
mod tests;
