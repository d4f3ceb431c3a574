//! Every way of beginning a connection through the whole proxy, and the bound on all connections together.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::greedy::developer;
use crate::support::{Proxy, Shard, Wire, soon, until};

const READY: &[u8] = b"Z\0\0\0\x05I";

/// SSLRequest and GSSENCRequest (PostgreSQL manual, "Message Formats").
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Everything up to and with the next ReadyForQuery, or to the end of the connection.
async fn until_ready(stream: &mut dyn Stream) -> Vec<u8> {
    let mut heard = Vec::new();
    while !heard.ends_with(READY) {
        if soon("the proxy answers", stream.read_buf(&mut heard)).await.unwrap_or(0) == 0 {
            break;
        }
    }
    heard
}

/// Logs in as a developer of acme, and reads a row.
async fn logs_in(mut stream: Box<dyn Stream>, way: &str) {
    let startup = Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]);
    stream.write_all(&startup.0).await.expect("sends");
    let mut asked = [0; 9];
    soon("a password is asked for", stream.read_exact(&mut asked)).await.expect("nine bytes");
    assert_eq!(asked, *b"R\0\0\0\x08\0\0\0\x03", "{way}");
    stream.write_all(&Wire::new().password(&developer("acme")).0).await.expect("sends");
    assert!(until_ready(&mut stream).await.ends_with(READY), "{way}: logged in");
    let sql = "SELECT 'rows of ' || org_id FROM canary WHERE id = 1";
    stream.write_all(&Wire::new().query(sql).0).await.expect("sends");
    let heard = String::from_utf8_lossy(&until_ready(&mut stream).await).into_owned();
    assert!(heard.contains("rows of acme"), "{way}: {heard}");
}

async fn dial(address: SocketAddr) -> TcpStream {
    soon("the proxy accepts", TcpStream::connect(address)).await.expect("connects")
}

/// Asks for encryption, and returns the answer's one byte.
async fn ask(stream: &mut TcpStream, request: [u8; 8]) -> u8 {
    stream.write_all(&request).await.expect("sends");
    soon("an answer", stream.read_u8()).await.expect("a byte")
}

async fn encrypt(proxy: &Proxy, stream: TcpStream) -> Box<dyn Stream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(proxy.ca_file()).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    Box::new(soon("TLS", TlsConnector::from(Arc::new(config)).connect(name, stream)).await.expect("TLS"))
}

#[tokio::test]
async fn every_way_of_asking_for_encryption_leads_to_rows() {
    let proxy = Proxy::before(Shard::shared()).tls().start().await;
    logs_in(Box::new(dial(proxy.address()).await), "clear text on this machine").await;

    let mut stream = dial(proxy.address()).await;
    assert_eq!(ask(&mut stream, GSS_REQUEST).await, b'N');
    logs_in(Box::new(stream), "after GSSENCRequest").await;

    let mut stream = dial(proxy.address()).await;
    assert_eq!(ask(&mut stream, TLS_REQUEST).await, b'S');
    logs_in(encrypt(&proxy, stream).await, "after SSLRequest").await;

    let mut stream = dial(proxy.address()).await;
    assert_eq!(ask(&mut stream, GSS_REQUEST).await, b'N');
    assert_eq!(ask(&mut stream, TLS_REQUEST).await, b'S');
    logs_in(encrypt(&proxy, stream).await, "after both").await;

    let stream = dial(proxy.address()).await;
    logs_in(encrypt(&proxy, stream).await, "TLS from the first byte").await;
}

#[tokio::test]
async fn connections_are_bounded_whatever_address_they_come_from() {
    let proxy = Proxy::before(Shard::shared()).option("listen", "max_client_conn = 3").start().await;
    let from = async |last: u8| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, last], 0).into()).expect("an address of this machine");
        soon("the proxy accepts", socket.connect(proxy.address())).await.expect("connects")
    };
    let asked = async |stream: &mut TcpStream| {
        let startup = Wire::startup(&[("user", "ada"), ("database", Shard::DATABASE)]);
        stream.write_all(&startup.0).await.expect("sends");
        let mut heard = vec![0; 9];
        let count = soon("the proxy answers", stream.read(&mut heard)).await.expect("bytes");
        heard.truncate(count);
        heard.first() == Some(&b'R')
    };
    let mut seated = [from(1).await, from(2).await, from(3).await];
    for stream in &mut seated {
        assert!(asked(stream).await, "there is a place");
    }
    assert!(!asked(&mut from(4).await).await, "a fourth is turned away");
    drop(seated);
    until("places have come back", async || asked(&mut from(4).await).await).await;
}
