//! Asks STUN and TURN servers what clients will ask them: their address, or a relay with our credentials.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet};
use turn_client_proto::prelude::TurnClientApi;
use turn_client_proto::stun::Instant as StunInstant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::types::TransportType;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::udp::TurnClientUdp;

use crate::config::IceUrl;
use crate::control::ice::Credentials;

/// How long a server may take. Browsers wait longer, callers do not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server that answers may refuse, and how often: with other credentials than ours the library asks on and on.
const REFUSALS_FOR: Duration = Duration::from_secs(4);
const ANSWERS_MAX: u32 = 4;
/// How long it waits for an answer before it looks at its deadlines.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(200);
/// The largest answer that is read at once.
const ANSWER_MAX_BYTES: usize = 1500;
/// The cookie of STUN messages (RFC 8489 §5), and the first bytes of a Binding request and of its success.
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
const BINDING: [u8; 4] = [0, 1, 0, 0];
const BINDING_SUCCESS: [u8; 2] = [1, 1];
/// Names one request; there is but one.
const TRANSACTION: [u8; 12] = *b"stube-doctor";

/// What a server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It told us our address.
    Answered,
    /// It made a relay for us.
    Relayed,
    /// It is there and makes none: most likely it has another secret.
    Refused,
    Silent(String),
}

/// Something that datagrams, or a stream of them, go through.
enum Wire {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Both ends of a wire.
#[derive(Clone, Copy)]
struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
}

/// Asks a server: with credentials for a relay, without them for our address.
pub async fn ask(url: &IceUrl, credentials: Option<&Credentials>) -> Answer {
    let asked = async {
        let (mut wire, ends) = connect(url).await?;
        match credentials {
            None => binding(&mut wire).await.map(|()| Answer::Answered),
            Some(credentials) => allocation(&mut wire, ends, credentials).await,
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Silent(error.to_string()),
        Err(_) => Answer::Silent(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

#[expect(clippy::disallowed_methods, reason = "ring 3; a command that looks at the network and ends")]
async fn connect(url: &IceUrl) -> io::Result<(Wire, Ends)> {
    let (host, port) = url.host_and_port();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let remote = lookup_host((bare, port)).await?.next().ok_or(io::ErrorKind::NotFound)?;
    if !url.is_tcp() {
        let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(remote).await?;
        let local = socket.local_addr()?;
        return Ok((Wire::Udp(socket), Ends { local, remote }));
    }
    let stream = TcpStream::connect(remote).await?;
    let ends = Ends { local: stream.local_addr()?, remote };
    if !url.is_tls() {
        return Ok((Wire::Stream(Box::new(stream)), ends));
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(trusting_the_system().map_err(io::Error::other)?));
    Ok((Wire::Stream(Box::new(connector.connect(name, stream).await?)), ends))
}

/// As browsers do: by the certificates of the system.
fn trusting_the_system() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_platform_verifier()?.with_no_client_auth())
}

impl Wire {
    async fn send(&mut self, contents: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(contents).await.map(drop),
            Self::Stream(stream) => {
                stream.write_all(contents).await?;
                stream.flush().await
            }
        }
    }

    async fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = match self {
            Self::Udp(socket) => socket.recv(into).await?,
            Self::Stream(stream) => stream.read(into).await?,
        };
        if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(length) }
    }

    fn transport(&self) -> TransportType {
        if matches!(self, Self::Udp(_)) { TransportType::Udp } else { TransportType::Tcp }
    }
}

/// A Binding request (RFC 8489 §3) and its answer. One that is lost is not sent again: who asks can ask again.
async fn binding(wire: &mut Wire) -> io::Result<()> {
    wire.send(&[&BINDING[..], &COOKIE, &TRANSACTION].concat()).await?;
    let mut answer = [0; ANSWER_MAX_BYTES];
    let length = wire.receive(&mut answer).await?;
    let is_success =
        answer[..length].starts_with(&BINDING_SUCCESS) && answer[4..20] == [&COOKIE[..], &TRANSACTION].concat();
    if is_success { Ok(()) } else { Err(io::Error::other("what answers there is no STUN server")) }
}

async fn allocation(wire: &mut Wire, ends: Ends, credentials: &Credentials) -> io::Result<Answer> {
    let config = TurnConfig::new(TurnCredentials::new(&credentials.username, &credentials.credential));
    match wire.transport() {
        TransportType::Udp => negotiate(wire, ends, TurnClientUdp::allocate(ends.local, ends.remote, config)).await,
        TransportType::Tcp => negotiate(wire, ends, TurnClientTcp::allocate(ends.local, ends.remote, config)).await,
    }
}

/// An Allocate request (RFC 8656 §7), and the end of what it made.
#[expect(clippy::disallowed_methods, reason = "ring 3; the library's deadlines need a clock")]
async fn negotiate(wire: &mut Wire, ends: Ends, mut client: impl TurnClientApi) -> io::Result<Answer> {
    let began = Instant::now();
    let now = || StunInstant::from_nanos(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX));
    let mut answers = 0;
    loop {
        let next = client.poll(now());
        while let Some(transmit) = client.poll_transmit(now()) {
            wire.send(&transmit.data).await?;
        }
        while let Some(event) = client.poll_event() {
            match event {
                TurnEvent::AllocationCreated(..) => {
                    // What cannot be given back ends by itself in ten minutes.
                    if client.delete(now()).is_ok() {
                        while let Some(transmit) = client.poll_transmit(now()) {
                            wire.send(&transmit.data).await?;
                        }
                    }
                    return Ok(Answer::Relayed);
                }
                TurnEvent::AllocationCreateFailed(_) => return Ok(Answer::Refused),
                _ => {}
            }
        }
        // The first answer tells the realm, the second whether it knows us.
        if answers >= ANSWERS_MAX || (answers >= 2 && began.elapsed() > REFUSALS_FOR) {
            return Ok(Answer::Refused);
        }
        let pause = match next {
            TurnPollRet::WaitUntil(at) => at.checked_duration_since(now()).unwrap_or_default(),
            _ => return Ok(Answer::Refused),
        };
        let mut answer = [0; ANSWER_MAX_BYTES];
        let transport = wire.transport();
        tokio::select! {
            read = wire.receive(&mut answer) => {
                let contents = &answer[..read?];
                answers += 1;
                client.recv(Transmit::new(contents, transport, ends.remote, ends.local), now());
            }
            () = tokio::time::sleep(pause.clamp(LOOK_MIN, LOOK_MAX)) => {}
        }
    }
}
