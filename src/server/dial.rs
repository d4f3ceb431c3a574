//! Reaching a server: the socket, its options, and TLS.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::net::{self, ServerStream};
use crate::wire::server_login::{self, TlsAnswer};

use super::error::ConnectFault;
use super::spec::{Address, ConnectSpec, TlsPlan};
use super::tls;

/// A reached server, not yet logged in to.
pub(super) struct Dialled {
    pub(super) stream: ServerStream,
    /// The hash that binds SCRAM to this TLS connection (RFC 5929, tls-server-end-point), where one is defined.
    pub(super) end_point: Option<Vec<u8>>,
    /// Whether the server's certificate has been verified against a CA and the host name.
    pub(super) verified: bool,
}

/// Connects, and encrypts as the spec says.
pub(super) async fn dial(spec: &ConnectSpec) -> Result<Dialled, ConnectFault> {
    match &spec.address {
        Address::Unix { dir, port } => {
            let path = dir.join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(path).await.map_err(ConnectFault::Dial)?;
            Ok(clear(ServerStream::Unix(stream)))
        }
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ConnectFault::Dial)?;
            net::tune(&stream).map_err(ConnectFault::Dial)?;
            encrypt(&spec.tls, host, stream).await
        }
    }
}

fn clear(stream: ServerStream) -> Dialled {
    Dialled { stream, end_point: None, verified: false }
}

async fn encrypt(plan: &TlsPlan, host: &str, mut stream: TcpStream) -> Result<Dialled, ConnectFault> {
    let (config, optional, verified) = match plan {
        TlsPlan::Disable => return Ok(clear(ServerStream::Tcp(stream))),
        TlsPlan::Prefer(config) => (config, true, false),
        TlsPlan::Require(config) => (config, false, false),
        TlsPlan::VerifyFull(config) => (config, false, true),
    };
    stream.write_all(&server_login::ssl_request()).await.map_err(ConnectFault::Io)?;
    match server_login::tls_answer(read_answer(&mut stream).await?)? {
        TlsAnswer::Accepted => handshake(Arc::clone(config), host, stream, verified).await,
        TlsAnswer::Refused if optional => Ok(clear(ServerStream::Tcp(stream))),
        TlsAnswer::Refused => Err(ConnectFault::TlsRefused),
    }
}

/// Reads with room for more than the one byte of the answer, so that whatever was stuffed behind it shows here and
/// cannot be taken for something that came encrypted (CVE-2021-23222).
async fn read_answer(stream: &mut TcpStream) -> Result<u8, ConnectFault> {
    let mut answer = [0; 2];
    match stream.read(&mut answer).await.map_err(ConnectFault::Io)? {
        0 => Err(ConnectFault::Closed),
        1 => Ok(answer[0]),
        _ => Err(ConnectFault::StuffedBytes),
    }
}

async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
    verified: bool,
) -> Result<Dialled, ConnectFault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| ConnectFault::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(ConnectFault::Tls)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let end_point = certificate.and_then(|certificate| tls::server_end_point(certificate));
    Ok(Dialled { stream: ServerStream::Tls(Box::new(stream)), end_point, verified })
}
