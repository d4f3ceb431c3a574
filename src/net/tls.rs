//! The proxy's own certificate, and TLS towards clients.
//!
//! PostgreSQL manual, "SSL Session Encryption": a client asks with SSLRequest, or begins TLS at once and then must offer
//! the protocol `postgresql` by ALPN (RFC 7301). Whoever offers other protocols only is refused in either case.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The name by which TLS clients ask for this protocol (IANA, "TLS ALPN Protocol IDs").
pub const ALPN: &[u8] = b"postgresql";
const CERTIFICATES_MAX: usize = 16;
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file is no PEM, or holds no certificate.
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[source] pem::Error),
    /// No certificate, or more than a chain has.
    #[error("the certificate file holds {0} certificates; it should hold 1 to {CERTIFICATES_MAX}")]
    Chain(usize),
    /// The first certificate is damaged.
    #[error("the certificate is damaged")]
    Damaged,
    /// The key file is no PEM, or holds no private key. The words never quote it.
    #[error("the private key cannot be read")]
    Key,
    /// The key does not belong to the certificate, or is of a kind that nobody here can use.
    #[error("the private key cannot be used with the certificate: {0}")]
    Match(#[source] rustls::Error),
    /// The cryptography is not there.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// TLS towards clients; shared by all data threads, and replaced whole when the files change.
#[derive(Debug)]
pub struct ServerTls {
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    expires_at: SystemTime,
}

impl ServerTls {
    /// Reads a certificate chain (the server's own first) and its private key, both PEM.
    ///
    /// A certificate whose time is over, or nearly, is a warning in the log and not an error: some clients do not look.
    pub fn load(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { current: ArcSwap::from_pointee(Current::read(certificate_pem, key_pem)?) })
    }

    /// Replaces certificate and key for the connections to come. On an error the old ones stay.
    pub fn replace(&self, certificate_pem: &[u8], key_pem: &[u8]) -> Result<(), TlsError> {
        self.current.store(Arc::new(Current::read(certificate_pem, key_pem)?));
        Ok(())
    }

    /// When the certificate's time ends.
    pub fn expires_at(&self) -> SystemTime {
        self.current.load().expires_at
    }

    /// Does the TLS handshake. Cancelling it closes the connection.
    ///
    /// A client that offers protocols by ALPN must offer [`ALPN`]; one that offers none is let in, and
    /// [`spoke_alpn`] tells.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// Whether client and proxy have agreed on [`ALPN`].
pub fn spoke_alpn(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN)
}

impl Current {
    fn read(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem)
            .take(CERTIFICATES_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(TlsError::Certificate)?;
        if chain.is_empty() || chain.len() > CERTIFICATES_MAX {
            return Err(TlsError::Chain(chain.len()));
        }
        let expires_at = validity(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::Key)?;
        Ok(Self { config: Arc::new(config(chain, key)?), expires_at })
    }
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Match)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Tickets are sealed with a key that lives and dies with this configuration: a new certificate ends resumption.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}

fn validity(certificate: &CertificateDer<'_>) -> Result<SystemTime, TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| TlsError::Damaged)?;
    let time = |time: x509_parser::time::ASN1Time| UNIX_EPOCH + Duration::from_secs(time.timestamp().max(0) as u64);
    let (begins, ends) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
    let now = SystemTime::now();
    if now > ends {
        tracing::warn!("the TLS certificate has expired: clients that verify it will not connect");
    } else if now < begins {
        tracing::warn!("the TLS certificate is not valid yet: clients that verify it will not connect");
    } else if now + EXPIRY_WARNING > ends {
        tracing::warn!("the TLS certificate expires within two weeks");
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(expired: bool) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        if expired {
            parameters.not_after = rcgen::date_time_ymd(2001, 2, 3);
            parameters.not_before = rcgen::date_time_ymd(2000, 2, 3);
        }
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_taken() {
        let (certificate, key) = pair(false);
        let tls = ServerTls::load(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(tls.expires_at() > SystemTime::now());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_the_old_pair_stays() {
        let ((certificate, key), (_, other)) = (pair(false), pair(false));
        let tls = ServerTls::load(certificate.as_bytes(), key.as_bytes()).unwrap();
        let before = Arc::clone(&tls.current.load().config);
        assert!(matches!(tls.replace(certificate.as_bytes(), other.as_bytes()), Err(TlsError::Match(_))));
        assert!(Arc::ptr_eq(&before, &tls.current.load().config));
        tls.replace(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current.load().config));
    }

    #[test]
    fn an_expired_certificate_is_taken_and_its_end_is_known() {
        let (certificate, key) = pair(true);
        let tls = ServerTls::load(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(tls.expires_at(), UNIX_EPOCH + Duration::from_secs(981_158_400));
    }

    #[test]
    fn files_that_hold_something_else_are_refused_without_quoting_the_key() {
        let (certificate, key) = pair(false);
        let load = |certificate: &str, key: &str| ServerTls::load(certificate.as_bytes(), key.as_bytes());
        assert!(matches!(load("", &key), Err(TlsError::Chain(0))));
        assert!(matches!(load(&key, &key), Err(TlsError::Chain(0))), "a key is no certificate");
        assert!(matches!(load(&certificate.repeat(17), &key), Err(TlsError::Chain(17))));
        assert!(matches!(load(&certificate, ""), Err(TlsError::Key)));
        assert!(matches!(load(&certificate, &certificate), Err(TlsError::Key)));
        let broken = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let error = load(&certificate, broken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
        let damaged = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
        assert!(matches!(load(damaged, &key), Err(TlsError::Damaged)));
    }
}
