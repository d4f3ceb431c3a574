//! The conversation of a login: start-up, authentication, and what the server says before it is ready.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::Secret;
use crate::net::ServerStream;
use crate::wire::server_login::{self, Authentication, LoginReader, LoginReply, ServerError};

use super::dial::Dialled;
use super::error::ConnectFault;
use super::settings::STARTUP_SETTINGS;
use super::spec::ConnectSpec;

/// ReadyForQuery's status outside a transaction.
pub(super) const IDLE: u8 = b'I';

/// A socket, what was read from it, and what the server has told so far.
pub(super) struct Conversation {
    pub(super) stream: ServerStream,
    pub(super) buffer: BytesMut,
    pub(super) pid: i32,
    pub(super) secret_key: Vec<u8>,
    pub(super) parameters: Vec<(String, String)>,
    reader: LoginReader,
}

impl Conversation {
    fn new(stream: ServerStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(4096),
            pid: 0,
            secret_key: Vec::new(),
            parameters: Vec::new(),
            reader: LoginReader::default(),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectFault> {
        self.stream.write_all(bytes).await.map_err(ConnectFault::Io)?;
        self.stream.flush().await.map_err(ConnectFault::Io)
    }

    /// The next message that means something to the caller: settings are noted, notices passed over, errors end it.
    pub(super) async fn receive(&mut self) -> Result<LoginReply, ConnectFault> {
        loop {
            match self.receive_any().await? {
                LoginReply::Parameter { name, value } => self.note(name, value),
                LoginReply::Error(ServerError { sqlstate, message }) => {
                    return Err(ConnectFault::Refused { sqlstate, message });
                }
                LoginReply::Other => {}
                reply => return Ok(reply),
            }
        }
    }

    async fn receive_any(&mut self) -> Result<LoginReply, ConnectFault> {
        loop {
            if let Some(reply) = self.reader.next(&mut self.buffer)? {
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(ConnectFault::Io)? == 0 {
                return Err(ConnectFault::Closed);
            }
        }
    }

    fn note(&mut self, name: String, value: String) {
        match self.parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.parameters.push((name, value)),
        }
    }

    /// The next message, which has to be about authentication.
    async fn receive_authentication(&mut self) -> Result<Authentication, ConnectFault> {
        match self.receive().await? {
            LoginReply::Authentication(authentication) => Ok(authentication),
            _ => Err(out_of_turn()),
        }
    }
}

/// Logs in and reads up to ReadyForQuery.
pub(super) async fn log_in(spec: &ConnectSpec, dialled: Dialled) -> Result<Conversation, ConnectFault> {
    let Dialled { stream, end_point, verified } = dialled;
    let mut conversation = Conversation::new(stream);
    let own = [
        ("user", spec.user.as_str()),
        ("database", spec.database.as_str()),
        ("application_name", spec.application_name),
    ];
    let empty = spec.empty_settings.iter().map(|name| (name.as_str(), ""));
    let startup = server_login::startup(own.into_iter().chain(STARTUP_SETTINGS).chain(empty)).map_err(internal)?;
    conversation.send(&startup).await?;
    authenticate(spec, &mut conversation, Wall { end_point, verified }).await?;
    become_ready(&mut conversation).await?;
    Ok(conversation)
}

/// What TLS has shown of the server.
struct Wall {
    end_point: Option<Vec<u8>>,
    verified: bool,
}

async fn authenticate(spec: &ConnectSpec, conversation: &mut Conversation, wall: Wall) -> Result<(), ConnectFault> {
    let answer = match conversation.receive_authentication().await? {
        Authentication::Ok => return Ok(()),
        Authentication::Sasl(mechanisms) => {
            scram(password_of(spec)?, conversation, &mechanisms, wall.end_point).await?;
            return expect_ok(conversation).await;
        }
        Authentication::Md5Password(salt) => {
            server_login::password(md5_hash(spec.user.as_bytes(), password_of(spec)?.expose(), salt).as_bytes())
        }
        Authentication::CleartextPassword if wall.verified => server_login::password(password_of(spec)?.expose()),
        Authentication::CleartextPassword => {
            return Err(ConnectFault::Authentication(
                "the server asks for the password in clear text, which is sent only under tls = \"verify-full\"",
            ));
        }
        Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => return Err(out_of_turn()),
        Authentication::Other(_) => {
            return Err(ConnectFault::Authentication(
                "the server asks for an authentication method other than a password; use scram-sha-256 in pg_hba.conf",
            ));
        }
    };
    conversation.send(&answer.map_err(internal)?).await?;
    expect_ok(conversation).await
}

async fn expect_ok(conversation: &mut Conversation) -> Result<(), ConnectFault> {
    match conversation.receive_authentication().await? {
        Authentication::Ok => Ok(()),
        _ => Err(out_of_turn()),
    }
}

fn password_of(spec: &ConnectSpec) -> Result<&Secret, ConnectFault> {
    spec.password.as_ref().ok_or(ConnectFault::NoPassword)
}

/// SCRAM-SHA-256, bound to the TLS connection where both sides can (RFC 5802, RFC 7677). The server has to prove at the
/// end that it knows the password, too.
async fn scram(
    password: &Secret,
    conversation: &mut Conversation,
    mechanisms: &[String],
    end_point: Option<Vec<u8>>,
) -> Result<(), ConnectFault> {
    let (mechanism, binding) = choose(mechanisms, end_point)?;
    let scram = ScramSha256::new(password.expose(), binding);
    conversation.send(&server_login::sasl_initial_response(mechanism, scram.message()).map_err(internal)?).await?;
    let Authentication::SaslContinue(challenge) = conversation.receive_authentication().await? else {
        return Err(out_of_turn());
    };
    let mut scram = answer_challenge(scram, challenge).await?;
    conversation.send(&server_login::sasl_response(scram.message()).map_err(internal)?).await?;
    let Authentication::SaslFinal(proof) = conversation.receive_authentication().await? else {
        return Err(out_of_turn());
    };
    scram.finish(&proof).map_err(|error| ConnectFault::Scram(error.to_string()))
}

/// Hashing the password takes milliseconds, and as many as the server says (the library refuses more than 100 000
/// rounds): not on a data thread.
async fn answer_challenge(mut scram: ScramSha256, challenge: bytes::Bytes) -> Result<ScramSha256, ConnectFault> {
    let hashing = tokio::task::spawn_blocking(move || scram.update(&challenge).map(|()| scram));
    match hashing.await {
        Ok(Ok(scram)) => Ok(scram),
        Ok(Err(error)) => Err(ConnectFault::Scram(error.to_string())),
        Err(error) => Err(internal(error)),
    }
}

/// The strongest mechanism that both sides have. Where we could have bound and the server does not offer it, we say so
/// (`y`), so that somebody in between who took the offer away is found out.
fn choose(mechanisms: &[String], end_point: Option<Vec<u8>>) -> Result<(&'static str, ChannelBinding), ConnectFault> {
    let offers = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
    match end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)))
        }
        Some(_) if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
        None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
        _ => Err(ConnectFault::Authentication("the server offers no SASL mechanism that we know (SCRAM-SHA-256)")),
    }
}

async fn become_ready(conversation: &mut Conversation) -> Result<(), ConnectFault> {
    let mut keyed = false;
    loop {
        match conversation.receive().await? {
            LoginReply::KeyData { pid, secret_key } if !keyed => {
                keyed = true;
                (conversation.pid, conversation.secret_key) = (pid, secret_key);
            }
            LoginReply::Ready(IDLE) if keyed => return Ok(()),
            _ => return Err(out_of_turn()),
        }
    }
}

pub(super) fn out_of_turn() -> ConnectFault {
    ConnectFault::Protocol("a message came out of turn".to_owned())
}

fn internal(error: impl std::fmt::Display) -> ConnectFault {
    ConnectFault::Internal(error.to_string())
}
