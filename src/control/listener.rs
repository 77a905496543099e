//! Accepts connections, within limits, until told to stop: HTTP, and what comes before it or beside it on its port.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::shard::{Census, Count, Limits, Shards};
use crate::tls::Tls;

/// The most connections at a time. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;

/// The most connections from one network where clients come themselves: an office behind one address, a few for each of
/// its people.
const PER_NETWORK_MAX: usize = 512;

/// Those of them of which nobody knows yet what they are: a crowd that shakes hands at once.
const OPENING_PER_NETWORK_MAX: usize = 64;

/// Where connections from this machine come from: those of a proxy, or of somebody who could do worse than take them all.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

const LIMITS: Limits = Limits {
    all: Count { connections: CONNECTIONS_MAX, pending: CONNECTIONS_MAX },
    of_network: Count { connections: PER_NETWORK_MAX, pending: OPENING_PER_NETWORK_MAX },
};

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
    /// Whether an address is a proxy's, whose connections are those of many.
    pub trusts: Trust,
}

/// Asked of each connection's address: the answer may change while the server runs.
pub type Trust = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Entrance {
    /// For plain HTTP.
    pub fn plain(listener: TcpListener) -> Self {
        Self { listeners: vec![listener], tls: None, media: None, trusts: Box::new(|_| false) }
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let accepted = listeners.iter().map(|listener| listener.poll_accept(context));
        accepted.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// What connections may be, for the tasks that attend to them: those must not hold the listeners.
struct Opener {
    tls: Option<Arc<Tls>>,
    media: Option<Shards>,
}

impl Opener {
    /// Whether there is anything to find out. Where there is not, a proxy stands before all clients, as a rule.
    fn looks(&self) -> bool {
        self.tls.is_some() || self.media.is_some()
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

/// A connection that counts for its network until this is dropped.
struct Counted {
    census: Arc<Mutex<Census>>,
    peer: IpAddr,
    opened: bool,
}

impl Counted {
    /// None if there are too many of its network.
    fn admit(census: &Arc<Mutex<Census>>, peer: IpAddr) -> Option<Self> {
        let mut counts = lock(census);
        counts.admits(peer).then(|| {
            counts.add(peer);
            Self { census: Arc::clone(census), peer, opened: false }
        })
    }

    /// It has turned out what it is.
    fn open(&mut self) {
        self.opened = true;
        lock(&self.census).establish(self.peer);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.census).remove(self.peer, self.opened);
    }
}

fn lock(census: &Mutex<Census>) -> MutexGuard<'_, Census> {
    census.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves `router` on an entrance until `stop` turns true or its sender is gone.
pub async fn serve(entrance: Entrance, router: Router, mut stop: watch::Receiver<bool>) {
    let Entrance { listeners, tls, media, trusts } = entrance;
    let opener = Arc::new(Opener { tls, media });
    let census = Arc::new(Mutex::new(Census::within(LIMITS)));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = async { (slot.await, accept(&listeners).await) } => accepted,
        };
        let (Ok(slot), Ok((stream, address))) = accepted else {
            pause().await;
            continue;
        };
        let peer = address.ip().to_canonical();
        let counts = opener.looks() && !LOCALHOST.contains(&peer) && !trusts(peer);
        let counted = counts.then(|| Counted::admit(&census, peer));
        if matches!(counted, Some(None)) {
            // Dropping it closes it.
            tracing::debug!("a connection too many from one network");
            continue;
        }
        let (opener, router, watcher) = (Arc::clone(&opener), router.clone(), graceful.watcher());
        let mut stop = stop.clone();
        spawn(async move {
            attend(&opener, stream, counted.flatten(), router, Peer(peer), watcher, &mut stop).await;
            drop(slot);
        });
    }
    drop(listeners);
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
    opener: &Opener,
    stream: TcpStream,
    mut counted: Option<Counted>,
    router: Router,
    peer: Peer,
    watcher: Watcher,
    stop: &mut watch::Receiver<bool>,
) {
    // A client that reads nothing must not hold its connection for ever.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
    let opened = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        opened = opener.open(stream) => opened,
    };
    if let Some(counted) = &mut counted {
        counted.open();
    }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn one_network_takes_neither_all_openings_nor_all_connections() {
        let census = Arc::new(Mutex::new(Census::within(LIMITS)));
        let [peer, other] = ["192.0.2.7", "192.0.2.8"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let admit = || Counted::admit(&census, peer);
        let opening: Vec<_> = (0..OPENING_PER_NETWORK_MAX).map_while(|_| admit()).collect();
        assert_eq!(opening.len(), OPENING_PER_NETWORK_MAX);
        assert!(admit().is_none() && Counted::admit(&census, other).is_some());
        drop(opening);
        let open = |mut counted: Counted| {
            counted.open();
            counted
        };
        let opened: Vec<_> = (0..PER_NETWORK_MAX).map_while(|_| admit().map(open)).collect();
        assert_eq!(opened.len(), PER_NETWORK_MAX);
        assert!(admit().is_none() && Counted::admit(&census, other).is_some());
        drop(opened);
        assert!(admit().is_some());
    }

    #[tokio::test]
    async fn a_listener_that_stops_is_closed_while_requests_are_in_flight() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Notify::new());
        let told = Arc::clone(&asked);
        let router = Router::new().fallback(move || async move {
            told.notify_one();
            std::future::pending::<()>().await;
        });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(Entrance::plain(listener), router, stopped));
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        asked.notified().await;
        stop.send_replace(true);
        serving.await.expect("no panic");
        // The task of the request is still there, and must not keep the port.
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
