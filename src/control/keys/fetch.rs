//! One fetch of a JWKS document over HTTPS: bounded in time, in bytes and in trust.

use std::error::Error;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Client, Response, Url, redirect};
use serde_json::{Map, Value};

use super::Timing;
use crate::auth::{Jwks, KEY_FILE_BYTES_MAX, KeyError, KeySet};
use crate::config::https_url;

/// Why a JWKS document could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The CA file cannot be read, or is not PEM.
    #[error("the CA file {0} cannot be used: {1}")]
    CaFile(PathBuf, String),
    /// Not an `https` URL.
    #[error("the URL is not an https one")]
    Url,
    /// No connection, a certificate that is not trusted, an answer that broke off.
    #[error("the request failed: {0}")]
    Request(String),
    /// Too slow.
    #[error("there was no answer in time")]
    Timeout,
    /// Not 200; redirects are not followed.
    #[error("the answer was {0}")]
    Status(u16),
    /// More than [`KEY_FILE_BYTES_MAX`].
    #[error("the answer is larger than {KEY_FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// What the issuer published is no configuration of its own.
    #[error("the issuer's configuration is not usable: {0}")]
    Discovery(&'static str),
    /// What came is no key set.
    #[error("the answer is not usable: {0}")]
    Keys(#[from] KeyError),
}

/// Fetches the document at `url`, trusting the system's authorities or, where given, those in `ca_file` alone.
///
/// Each fetch has its own connection: at one every few minutes that costs nothing, and a new CA file is seen. A proxy
/// named by the environment (`HTTPS_PROXY`) is used, except to reach this very machine. May be dropped at any time.
pub(super) async fn fetch(url: &str, ca_file: Option<&Path>, timing: &Timing) -> Result<Jwks, FetchError> {
    let fetching = async { Ok(KeySet::from_jwks(&document(url, ca_file, timing).await?)?) };
    tokio::time::timeout(timing.fetch_timeout, fetching).await.unwrap_or(Err(FetchError::Timeout))
}

/// Fetches the keys of `issuer` from where its own configuration says (OpenID Connect Discovery 1.0, sections 4 and 4.3).
///
/// Both documents under the bounds of one [`fetch`], and both over https: whoever could change either could make tokens.
pub(super) async fn discover(issuer: &str, ca_file: Option<&Path>, timing: &Timing) -> Result<Jwks, FetchError> {
    let discovering = async {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let keys_at = jwks_uri(&document(&url, ca_file, timing).await?, issuer)?;
        Ok(KeySet::from_jwks(&document(&keys_at, ca_file, timing).await?)?)
    };
    tokio::time::timeout(timing.fetch_timeout, discovering).await.unwrap_or(Err(FetchError::Timeout))
}

/// Where the keys are, by an issuer's configuration; it must be of that very issuer.
fn jwks_uri(configuration: &[u8], issuer: &str) -> Result<String, FetchError> {
    let members: Map<String, Value> =
        serde_json::from_slice(configuration).map_err(|_| FetchError::Discovery("it is not a JSON object"))?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(FetchError::Discovery("it is of another issuer"));
    }
    let url = text("jwks_uri").ok_or(FetchError::Discovery("it names no jwks_uri"))?;
    https_url(url).map_err(|_| FetchError::Discovery("its jwks_uri is not an https URL"))
}

async fn document(url: &str, ca_file: Option<&Path>, timing: &Timing) -> Result<Vec<u8>, FetchError> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "https").ok_or(FetchError::Url)?;
    let client = client(&url, ca_file, timing).await?;
    let request = client.get(url).header("accept", "application/jwk-set+json, application/json");
    let response = request.send().await.map_err(FetchError::request)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    body(response).await
}

async fn client(url: &Url, ca_file: Option<&Path>, timing: &Timing) -> Result<Client, FetchError> {
    let mut builder = Client::builder()
        .https_only(true)
        .redirect(redirect::Policy::none())
        .connect_timeout(timing.connect_timeout)
        .timeout(timing.fetch_timeout)
        .user_agent(concat!("partywall/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        builder = builder.tls_certs_only(authorities(path).await?);
    }
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    // Building reads the system's authorities from disk.
    let built = tokio::task::spawn_blocking(move || builder.build()).await;
    built.map_err(|error| FetchError::Request(error.to_string()))?.map_err(FetchError::request)
}

async fn authorities(path: &Path) -> Result<Vec<Certificate>, FetchError> {
    let fault = |why: String| FetchError::CaFile(path.to_owned(), why);
    let pem = tokio::fs::read(path).await.map_err(|error| fault(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| fault(chain(&error)))?;
    if authorities.is_empty() { Err(fault("there is no certificate in it".to_owned())) } else { Ok(authorities) }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The body, chunk by chunk, so that a hostile length costs no more than the bound.
async fn body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::request)? {
        if body.len() + chunk.len() > KEY_FILE_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl FetchError {
    fn request(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        // The log line names the source by itself; the URL may hold more than should be logged.
        Self::Request(chain(&error.without_url()))
    }
}

/// An error with its causes, which is where TLS says what it dislikes.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(words, ": {error}");
        cause = error.source();
    }
    words
}
