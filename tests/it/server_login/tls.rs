//! TLS to real servers: which certificates are believed, and SCRAM bound to the certificate.

use partywall::config::{Host, TlsMode};
use partywall::provision::{Cluster, ClusterOptions, ClusterTls};
use partywall::server::{self, ConnectError, ConnectFault, ConnectSpec, ServerConnection};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};

use super::{one, read_answer, role, shard, spec, start, start_sleeping};

/// An authority, and a certificate for `names` that it has signed with a key of that kind.
struct Pki {
    ca_pem: String,
    server: ClusterTls,
}

fn pki(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Pki {
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    let ca_key = KeyPair::generate_for(algorithm).expect("a key");
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let parameters = CertificateParams::new(names).expect("parameters");
    let certificate = parameters.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
    let server = ClusterTls { certificate_pem: certificate.pem(), private_key_pem: key.serialize_pem() };
    Pki { ca_pem, server }
}

async fn cluster(tls: &ClusterTls) -> Cluster {
    let options = ClusterOptions { tls: Some(tls.clone()), ..ClusterOptions::default() };
    let cluster = Cluster::start_with(&options).expect("a cluster");
    role(&cluster, "app", "").await;
    cluster
}

fn with_tls(cluster: &Cluster, host: &str, mode: TlsMode, ca_pem: Option<&str>) -> ConnectSpec {
    let mut shard = shard(Host::Tcp(host.to_owned()), cluster.port(), "app");
    shard.tls = mode;
    spec(&shard, ca_pem)
}

async fn is_encrypted(connection: &mut ServerConnection) -> bool {
    let encrypted = one(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await == "t";
    assert_eq!(encrypted, connection.stream.is_tls());
    encrypted
}

fn tls_failure(result: Result<ServerConnection, ConnectError>) -> String {
    let error = result.expect_err("is not believed");
    assert!(matches!(error.fault(), ConnectFault::Tls(_)) && !error.is_transient(), "{error}");
    error.to_string()
}

#[tokio::test]
async fn verify_full_believes_the_right_name_from_the_right_authority_only() {
    let pki = pki(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let stranger = self::pki(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = cluster(&pki.server).await;
    let full = TlsMode::VerifyFull;
    let good = with_tls(&cluster, "127.0.0.1", full, Some(&pki.ca_pem));
    let mut connection = server::connect(&good).await.expect("logs in");
    assert!(is_encrypted(&mut connection).await);

    let other_name = with_tls(&cluster, "localhost", full, Some(&pki.ca_pem));
    assert!(tls_failure(server::connect(&other_name).await).contains("not valid for name"));
    let other_authority = with_tls(&cluster, "127.0.0.1", full, Some(&stranger.ca_pem));
    tls_failure(server::connect(&other_authority).await);
    let authority_of_the_system = with_tls(&cluster, "127.0.0.1", full, None);
    tls_failure(server::connect(&authority_of_the_system).await);
}

#[tokio::test]
async fn require_and_prefer_look_at_the_chain_only_where_there_is_a_ca_file() {
    let pki = pki(&["db.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let stranger = self::pki(&["db.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = cluster(&pki.server).await;
    for mode in [TlsMode::Require, TlsMode::Prefer] {
        for ca_pem in [None, Some(pki.ca_pem.as_str())] {
            let spec = with_tls(&cluster, "127.0.0.1", mode, ca_pem);
            let mut connection = server::connect(&spec).await.expect("logs in");
            assert!(is_encrypted(&mut connection).await);
        }
        let spec = with_tls(&cluster, "127.0.0.1", mode, Some(&stranger.ca_pem));
        tls_failure(server::connect(&spec).await);
    }
    let disabled = with_tls(&cluster, "127.0.0.1", TlsMode::Disable, None);
    assert!(!is_encrypted(&mut server::connect(&disabled).await.expect("logs in")).await);
}

#[tokio::test]
async fn a_server_without_tls_is_taken_by_prefer_and_by_no_other() {
    let cluster = start();
    role(&cluster, "app", "").await;
    let prefer = with_tls(&cluster, "127.0.0.1", TlsMode::Prefer, None);
    assert!(!is_encrypted(&mut server::connect(&prefer).await.expect("logs in")).await);
    let pki = pki(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    for mode in [TlsMode::Require, TlsMode::VerifyFull] {
        let spec = with_tls(&cluster, "127.0.0.1", mode, Some(&pki.ca_pem));
        let error = server::connect(&spec).await.expect_err("is refused");
        assert!(matches!(error.fault(), ConnectFault::TlsRefused), "{error}");
    }
}

/// A server with TLS offers SCRAM-SHA-256-PLUS, and refuses a client that says it could bind and does not: so that with
/// these certificates, each hashed in its own way, a login shows that the binding is right.
#[tokio::test]
async fn scram_is_bound_to_certificates_of_every_hash() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let pki = pki(&["127.0.0.1"], algorithm);
        let cluster = cluster(&pki.server).await;
        let spec = with_tls(&cluster, "127.0.0.1", TlsMode::VerifyFull, Some(&pki.ca_pem));
        assert!(is_encrypted(&mut server::connect(&spec).await.expect("logs in")).await);
    }
}

#[tokio::test]
async fn a_cancel_goes_over_tls_where_the_session_does() {
    let pki = pki(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let cluster = cluster(&pki.server).await;
    let spec = with_tls(&cluster, "127.0.0.1", TlsMode::VerifyFull, Some(&pki.ca_pem));
    let mut connection = server::connect(&spec).await.expect("logs in");
    start_sleeping(&cluster, &mut connection).await;
    server::cancel(&spec, connection.pid, &connection.secret_key).await.expect("is heard");
    assert_eq!(read_answer(&mut connection).await, Err("an error".to_owned()));

    let blind = with_tls(&cluster, "localhost", TlsMode::VerifyFull, Some(&pki.ca_pem));
    assert!(server::cancel(&blind, connection.pid, &connection.secret_key).await.is_err());
}

/// pg_hba.conf of these tests: how everybody over TCP proves himself.
fn ask_for(cluster: &Cluster, method: &str) {
    let hba = format!(
        "local all all scram-sha-256\nhost all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 {method}\n"
    );
    std::fs::write(cluster.folder().join("data/pg_hba.conf"), hba).expect("is written");
}

#[tokio::test]
async fn the_password_itself_is_sent_only_to_a_server_that_has_shown_who_it_is() {
    let pki = pki(&["127.0.0.1"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let mut cluster = cluster(&pki.server).await;
    ask_for(&cluster, "password");
    cluster.restart().expect("restarts");
    let full = with_tls(&cluster, "127.0.0.1", TlsMode::VerifyFull, Some(&pki.ca_pem));
    server::connect(&full).await.expect("logs in");
    for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require] {
        let spec = with_tls(&cluster, "127.0.0.1", mode, Some(&pki.ca_pem));
        let error = server::connect(&spec).await.expect_err("is refused");
        assert!(matches!(error.fault(), ConnectFault::Authentication(_)), "{error}");
    }
}

#[tokio::test]
async fn md5_and_trust_are_understood() {
    let mut cluster = start();
    cluster
        .run("postgres", "SET password_encryption = 'md5'; CREATE ROLE app LOGIN PASSWORD 's3cret of the shard'")
        .await
        .expect("a role");
    for method in ["md5", "trust"] {
        ask_for(&cluster, method);
        cluster.restart().expect("restarts");
        let spec = with_tls(&cluster, "127.0.0.1", TlsMode::Disable, None);
        server::connect(&spec).await.expect("logs in");
    }
}
