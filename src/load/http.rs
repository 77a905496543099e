//! The tool's side of the HTTP API: rooms, joins and leaves, in tasks beside the thread that carries media.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::{anyhow, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::clock;
use crate::command::{Grants, Profile};
use crate::config::Secret;
use crate::control::clock::Clock;
use crate::control::token::{self, Claims};
use crate::remote::{Failure, Target};

/// Requests in flight.
const IN_FLIGHT: usize = 64;
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// How long a token is good for: it is used at once.
const TOKEN_TTL_S: u64 = 300;
/// For those who join before the one they replace has left.
const SPARE_PLACES: usize = 20;
/// So that rooms are gone soon after a tool that was killed.
const EMPTY_TIMEOUT_S: u64 = 60;

/// What became of a request.
pub enum Reply {
    Joined { serial: u32, answer: String, session_url: String, posted_ns: u64 },
    Refused { serial: u32, why: String },
    Left { ended: bool },
}

struct Desk {
    client: Client<HttpConnector, Full<Bytes>>,
    origin: String,
    key: String,
    secret: Secret,
    /// Where the secret is from.
    source: &'static str,
    clock: Clock,
    in_flight: Semaphore,
    replies: Sender<Reply>,
}

/// Makes requests; cheap to clone.
#[derive(Clone)]
pub struct Http {
    desk: Arc<Desk>,
    handle: Handle,
}

impl Http {
    /// For a server that speaks plain HTTP.
    pub fn new(target: Target, handle: Handle, replies: Sender<Reply>) -> anyhow::Result<Self> {
        let Target { url, key, secret, source } = target;
        ensure!(url.scheme() == "http", "--url: {url}: https is not supported yet; use a plain listener");
        let desk = Desk {
            client: Client::builder(TokioExecutor::new()).build_http(),
            origin: url.origin().ascii_serialization(),
            key,
            secret: secret.as_str().into(),
            source,
            clock: Clock::start(),
            in_flight: Semaphore::new(IN_FLIGHT),
            replies,
        };
        Ok(Self { desk: Arc::new(desk), handle })
    }

    /// The address by which this machine reaches the server.
    pub fn local_address(&self) -> anyhow::Result<IpAddr> {
        let authority = self.desk.origin.trim_start_matches("http://");
        let with_port = if authority.parse::<SocketAddr>().is_ok() || authority.rsplit_once(':').is_some() {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let server = with_port.to_socket_addrs()?.next().ok_or_else(|| anyhow!("--url has no address"))?;
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        #[expect(clippy::disallowed_methods, reason = "asks the kernel for a route and sends nothing")]
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        Ok(socket.local_addr()?.ip())
    }

    /// Allocates a room.
    pub async fn allocate(&self, name: &str, participants: usize) -> anyhow::Result<()> {
        let room = serde_json::json!({
            "name": name, "max_participants": participants + SPARE_PLACES, "empty_timeout_s": EMPTY_TIMEOUT_S,
        });
        let (status, _, body) = self.desk.tenant(Method::POST, "/v1/rooms", &room.to_string()).await?;
        let Desk { key, source, .. } = &*self.desk;
        if status == StatusCode::UNAUTHORIZED {
            bail!("cannot allocate a room as the API key {key}, with the secret of {source}: {status} {body}");
        }
        ensure!(status.is_success(), "cannot allocate a room: {status} {body}");
        Ok(())
    }

    /// Ends a room.
    pub async fn end_room(&self, name: &str) -> anyhow::Result<()> {
        self.desk.tenant(Method::DELETE, &format!("/v1/rooms/{name}"), "").await.map(drop)
    }

    /// Joins; the reply comes through the channel.
    pub fn join(&self, serial: u32, room: &str, offer: &str) {
        let (desk, room, offer) = (Arc::clone(&self.desk), room.to_owned(), offer.to_owned());
        drop(self.handle.spawn(async move {
            let reply = match desk.join(serial, &room, offer).await {
                Ok((answer, session_url, posted_ns)) => Reply::Joined { serial, answer, session_url, posted_ns },
                Err(error) => Reply::Refused { serial, why: format!("{error:#}") },
            };
            // Nobody listens any more at the end.
            let _ = desk.replies.send(reply);
        }));
    }

    /// Ends a session; the reply comes through the channel.
    pub fn leave(&self, session_url: String) {
        let desk = Arc::clone(&self.desk);
        drop(self.handle.spawn(async move {
            let _permit = desk.in_flight.acquire().await;
            let request = Request::builder().method(Method::DELETE).uri(&session_url).body(Full::default());
            let ended = match request {
                Ok(request) => desk.send(request).await.is_ok_and(|(status, ..)| status.is_success()),
                Err(_) => false,
            };
            let _ = desk.replies.send(Reply::Left { ended });
        }));
    }
}

impl Desk {
    /// Why no answer came.
    fn silence(&self, error: legacy::Error) -> anyhow::Error {
        if !error.is_connect() {
            return error.into();
        }
        let mut causes = std::iter::successors(error.source(), |&error| error.source());
        let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
        let why = match io.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => "the connection is refused".to_owned(),
            _ => io.map_or_else(|| "no connection comes about".to_owned(), io::Error::to_string),
        };
        let advice = "is it running? It answers where http.listen says, or give --url";
        Failure::Unreachable { at: self.origin.clone(), why, advice }.into()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Option<String>, String)> {
        let response = self.client.request(request).await.map_err(|error| self.silence(error))?;
        let status = response.status();
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.map(str::to_owned);
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
        Ok((status, location, String::from_utf8_lossy(&body).into_owned()))
    }

    /// A request by the tenant itself.
    async fn tenant(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> anyhow::Result<(StatusCode, Option<String>, String)> {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD
            .encode([self.key.as_bytes(), b":", self.secret.as_bytes()].concat());
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.origin))
            .header(header::AUTHORIZATION, format!("Basic {pair}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_owned()))?;
        self.send(request).await
    }

    /// Posts an offer: the answer, the session, and when it was posted.
    async fn join(&self, serial: u32, room: &str, offer: String) -> anyhow::Result<(String, String, u64)> {
        let profile = Profile {
            identity: format!("load{serial}").into(),
            name: "".into(),
            metadata: "".into(),
            attributes: [].into(),
            grants: Grants::default(),
        };
        let claims = Claims::for_join(&self.key, room, &profile);
        let token = token::mint(&claims, &self.secret, self.clock.unix_seconds(), TOKEN_TTL_S)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/v1/sessions", self.origin))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/sdp")
            .body(Full::from(offer))?;
        let _permit = self.in_flight.acquire().await?;
        let posted_ns = clock::wall_ns();
        let (status, location, answer) = self.send(request).await?;
        if status != StatusCode::CREATED {
            bail!("{status} {answer}");
        }
        let location = location.ok_or_else(|| anyhow!("an answer without Location"))?;
        let absolute = location.starts_with("http");
        let session_url = if absolute { location } else { format!("{}{location}", self.origin) };
        Ok((answer, session_url, posted_ns))
    }
}
