//! Accepts connections, within limits, until told to stop: HTTP, and what comes before it or beside it on its port.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

use super::edge::Peer;
use super::opening::{OPENING_TIMEOUT, Opened, Stream, open};
use crate::shard::Shards;
use crate::tls::Tls;

/// The most connections at a time. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;

/// How long a client may take to send a request's head, and how long an idle connection stays.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request head, in bytes: the largest token, and room for what browsers add.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 100;

/// How long a client may leave an answer unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may take once the listener is told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait after the kernel could not give us a connection, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come in, and what they may be.
pub struct Entrance {
    pub listeners: Vec<TcpListener>,
    /// HTTP is spoken within TLS.
    pub tls: Option<Arc<Tls>>,
    /// They may be ICE-TCP too: for these shards.
    pub media: Option<Shards>,
}

impl Entrance {
    /// For plain HTTP.
    pub fn plain(listener: TcpListener) -> Self {
        Self { listeners: vec![listener], tls: None, media: None }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let accepted = self.listeners.iter().map(|listener| listener.poll_accept(context));
            accepted.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// What a connection turned out to be, in time.
    async fn open(&self, stream: TcpStream) -> Opened {
        // Answers are small and awaited; Nagle's algorithm would hold them back. Fails only if the client is gone.
        let _ = stream.set_nodelay(true);
        let opened = tokio::time::timeout(OPENING_TIMEOUT, open(stream, self.tls.as_deref(), self.media.as_ref()));
        // What goes wrong here are clients that hang up, say nothing, or want no TLS that we speak: theirs, not ours.
        opened.await.ok().and_then(Result::ok).unwrap_or(Opened::Over)
    }
}

/// Serves `router` on an entrance until `stop` turns true or its sender is gone.
pub async fn serve(entrance: Entrance, router: Router, mut stop: watch::Receiver<bool>) {
    let entrance = Arc::new(entrance);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = async { (slot.await, entrance.accept().await) } => accepted,
        };
        let (Ok(slot), Ok((stream, address))) = accepted else {
            pause().await;
            continue;
        };
        let (entrance, router, watcher) = (Arc::clone(&entrance), router.clone(), graceful.watcher());
        let mut stop = stop.clone();
        spawn(async move {
            let attend = attend(&entrance, stream, router, Peer(address.ip().to_canonical()), watcher, &mut stop);
            attend.await;
            drop(slot);
        });
    }
    drop(entrance);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("closing connections with requests in flight");
    }
}

#[expect(clippy::disallowed_methods, reason = "the listener waits for the kernel to have connections again")]
async fn pause() {
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Finds out what a connection is, and serves it to its end.
async fn attend(
    entrance: &Entrance,
    stream: TcpStream,
    router: Router,
    peer: Peer,
    watcher: Watcher,
    stop: &mut watch::Receiver<bool>,
) {
    // A client that reads nothing must not hold its connection for ever.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
    let opened = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        opened = entrance.open(stream) => opened,
    };
    let connection = match opened {
        Opened::Http(stream) => connection(stream, router, peer),
        Opened::Unprotected(stream) => connection(Box::new(stream), Router::new().fallback(unprotected), peer),
        Opened::Over => return,
    };
    // Errors here are clients that hang up or send garbage: theirs, not ours.
    drop(watcher.watch(connection).await);
}

/// The answer to whoever leaves out the s of https.
async fn unprotected() -> (StatusCode, &'static str) {
    (StatusCode::BAD_REQUEST, "this port speaks HTTPS: use https://\n")
}

fn connection(
    stream: Box<dyn Stream>,
    router: Router,
    peer: Peer,
) -> impl GracefulConnection<Output = hyper::Result<()>> {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.map(Body::new)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
}

#[expect(clippy::disallowed_methods, reason = "ring 3; one task a connection, bounded by CONNECTIONS_MAX")]
fn spawn(connection: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(connection);
}
