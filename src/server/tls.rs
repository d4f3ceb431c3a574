//! TLS towards servers: which certificates are believed, and the hash that binds SCRAM to one.

use std::sync::Arc;

use ::aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// What is asked of a server's certificate.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nothing: encrypted, to whomever (libpq's `require` without a CA file).
    Anyone,
    /// Signed by one of these (libpq's `verify-ca`).
    Chain(Roots),
    /// Signed by one of these, and for the host that we dialled (libpq's `verify-full`).
    ChainAndName(Roots),
}

/// The certificates that are believed.
#[derive(Debug)]
pub(super) struct Roots {
    anchors: RootCertStore,
    /// The certificates of a CA file themselves: a server's own self-signed certificate may stand there, as is usual
    /// with Postgres, and such a one is an authority in form, which a chain may not end with.
    themselves: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), Error> {
        if self.themselves.iter().any(|own| own == end_entity) {
            return in_its_time(end_entity, now);
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.anchors, intermediates, now, algorithms)
    }
}

fn in_its_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |error| Err(Error::InvalidCertificate(error));
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return bad(CertificateError::BadEncoding) };
    let (validity, now) = (parsed.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    if now < validity.not_before.timestamp() {
        return bad(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return bad(CertificateError::Expired);
    }
    Ok(())
}

/// A client's TLS configuration with that trust.
pub(super) fn client_config(trust: Trust) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The certificates of a PEM file; `None` if there is none, or one that cannot anchor a chain.
pub(super) fn roots_of_pem(pem: &[u8]) -> Option<Roots> {
    let themselves = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    let mut anchors = RootCertStore::empty();
    for certificate in &themselves {
        anchors.add(certificate.clone()).ok()?;
    }
    (!anchors.is_empty()).then_some(Roots { anchors, themselves })
}

/// The certificates that the system trusts; reads files.
pub(super) fn roots_of_system() -> Option<Roots> {
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!anchors.is_empty()).then_some(Roots { anchors, themselves: Vec::new() })
}

/// Checks a server's certificate as far as [`Trust`] asks, and always that the server holds its key.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, named) = match &self.trust {
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
            Trust::Chain(roots) => (roots, false),
            Trust::ChainAndName(roots) => (roots, true),
        };
        roots.verify(end_entity, intermediates, now, &self.provider)?;
        if named {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The channel binding data `tls-server-end-point` of a certificate (RFC 5929 section 4.1): its hash by the hash of its
/// own signature, with SHA-256 in the place of MD5 and SHA-1. `None` where the RFC defines nothing (Ed25519).
pub(super) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let signature = &parsed.signature_algorithm;
    let hash = if signature.algorithm == oid::OID_PKCS1_RSASSAPSS {
        match SignatureAlgorithm::try_from(signature).ok()? {
            SignatureAlgorithm::RSASSA_PSS(parameters) => hash_of(parameters.hash_algorithm_oid())?,
            _ => return None,
        }
    } else {
        hash_of(&signature.algorithm)?
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

fn hash_of(algorithm: &oid::Oid<'_>) -> Option<&'static digest::Algorithm> {
    let sha256 = [
        oid::OID_PKCS1_MD5WITHRSAENC,
        oid::OID_PKCS1_SHA1WITHRSA,
        oid::OID_PKCS1_SHA256WITHRSA,
        oid::OID_SIG_ECDSA_WITH_SHA256,
        oid::OID_HASH_SHA1,
        oid::OID_NIST_HASH_SHA256,
    ];
    let sha384 = [oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384, oid::OID_NIST_HASH_SHA384];
    let sha512 = [oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512, oid::OID_NIST_HASH_SHA512];
    let table = [(&sha256[..], &digest::SHA256), (&sha384[..], &digest::SHA384), (&sha512[..], &digest::SHA512)];
    table.into_iter().find(|(oids, _)| oids.contains(algorithm)).map(|(_, hash)| hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate(key: &KeyPair) -> CertificateDer<'static> {
        CertificateParams::new(["db".to_owned()]).unwrap().self_signed(key).unwrap().der().clone()
    }

    #[test]
    fn the_end_point_is_hashed_as_the_certificate_itself_was() {
        let cases = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_ECDSA_P521_SHA512, Some(&digest::SHA512)),
            (&rcgen::PKCS_ED25519, None),
        ];
        for (algorithm, hash) in cases {
            let certificate = certificate(&KeyPair::generate_for(algorithm).unwrap());
            let wanted = hash.map(|hash| digest::digest(hash, &certificate).as_ref().to_vec());
            assert_eq!(server_end_point(&certificate), wanted);
        }
        assert_eq!(server_end_point(&CertificateDer::from(b"no certificate".to_vec())), None);
    }

    #[test]
    fn a_certificate_that_stands_in_the_ca_file_itself_is_believed_in_its_time_only() {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(["db".to_owned()]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        let roots = roots_of_pem(certificate.pem().as_bytes()).unwrap();
        let provider = aws_lc_rs::default_provider();
        let year =
            |year: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs((year - 1970) * 31_557_600 + 9));
        let verify = |now| roots.verify(certificate.der(), &[], now, &provider);
        assert_eq!(verify(year(2025)), Ok(()));
        assert_eq!(verify(year(2019)), Err(Error::InvalidCertificate(CertificateError::NotValidYet)));
        assert_eq!(verify(year(2031)), Err(Error::InvalidCertificate(CertificateError::Expired)));
        let other = self::certificate(&KeyPair::generate().unwrap());
        assert!(roots.verify(&other, &[], year(2025), &provider).is_err());
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_no_ca_file() {
        assert!(roots_of_pem(b"").is_none());
        assert!(roots_of_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_none());
    }
}
