//! Accepts HTTP connections, within limits, until told to stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

use super::edge::Peer;

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

/// Serves `router` on `listener` until `stop` turns true or its sender is gone.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = async { (slot.await, listener.accept().await) } => accepted,
        };
        let (Ok(slot), Ok((stream, address))) = accepted else {
            pause().await;
            continue;
        };
        let connection = graceful.watch(connection(stream, router.clone(), Peer(address.ip())));
        spawn(async move {
            // Errors here are clients that hang up or send garbage: theirs, not ours.
            drop(connection.await);
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("closing connections with requests in flight");
    }
}

#[expect(clippy::disallowed_methods, reason = "the listener waits for the kernel to have connections again")]
async fn pause() {
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn connection(
    stream: TcpStream,
    router: Router,
    peer: Peer,
) -> impl hyper_util::server::graceful::GracefulConnection<Output = hyper::Result<()>> {
    // Answers are small and awaited; Nagle's algorithm would hold them back. Fails only if the client is gone.
    let _ = stream.set_nodelay(true);
    // A client that reads nothing must not hold its connection for ever.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
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
