//! TLS of the public listener, its certificate from files; and a port that HTTPS and ICE-TCP share.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use reqwest::tls::Version;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::binary::{output, write};
use crate::caller::Caller;
use crate::client::{PUBLISH_OFFER, SECRET, Server, answered, believing, join_token, refused};

/// Connections that say nothing, or nothing that anybody speaks; and how many of them one network may have.
const IDLERS: usize = 200;
const OPENING_PER_NETWORK_MAX: usize = 64;
/// Where they come from, and where proxies are: on this machine, and one that is trusted.
const CROWD: [u8; 4] = [127, 0, 0, 2];
const PROXIES: [[u8; 4]; 2] = [[127, 0, 0, 1], [127, 0, 0, 3]];
/// Less than a request to an ACME server may take.
const AT_ONCE: Duration = Duration::from_secs(15);

/// A certificate for 127.0.0.1 that is its own root, and its key.
struct Pair {
    chain: String,
    key: String,
}

impl Pair {
    fn new(last_year: i32) -> Self {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        Self { chain: params.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
    }

    fn valid() -> Self {
        Self::new(2120)
    }

    fn expired() -> Self {
        Self::new(2021)
    }
}

/// The two files.
struct Files(TempDir);

impl Files {
    fn with(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        files.write(&pair.chain, &pair.key);
        files
    }

    fn write(&self, chain: &str, key: &str) {
        std::fs::write(self.0.path().join("chain.pem"), chain).expect("written");
        std::fs::write(self.0.path().join("key.pem"), key).expect("written");
    }

    fn section(&self) -> String {
        let folder = self.0.path().display();
        format!("[http.tls]\ncertificate = \"{folder}/chain.pem\"\nkey = \"{folder}/key.pem\"\n")
    }
}

async fn reload(server: &Server) -> Value {
    answered(server.order("/v1/node/reload").json(&json!({})), 200, "reload").await
}

/// Whether a client that believes this root alone is answered.
async fn is_shown(server: &Server, root: &Pair) -> bool {
    believing(&root.chain).get(server.url("/v1/openapi.json")).send().await.is_ok()
}

/// What a connection gets that says this, until it is closed.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    // Closed with or without a reset: what came before counts.
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_within_tls_and_urls_say_so() {
    let pair = Pair::valid();
    let files = Files::with(&pair);
    let server = Server::trusted(&files.section(), &[], Some(&pair.chain)).await;
    let room = server.room("hall").await;
    assert!(room["whip_url"].as_str().is_some_and(|url| url.starts_with("https://127.0.0.1:")), "{room}");
    let session = server.join("hall", "ada").await;
    assert!(session.url.starts_with('/') || session.url.starts_with("https://"), "{}", session.url);
    let root = reqwest::Certificate::from_pem(pair.chain.as_bytes()).expect("a root");
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client = reqwest::Client::builder().tls_certs_only([root.clone()]);
        let client = client.tls_version_min(version).tls_version_max(version).build().expect("a client");
        assert_eq!(client.get(server.url("/")).send().await.expect("an answer").status(), 200, "{version:?}");
    }
    let metrics = server.admin("/metrics").await.text().await.expect("metrics");
    assert!(metrics.contains("stube_tls_certificate_expiry_timestamp_seconds 4733510400"), "{metrics}");
    assert!(metrics.contains("stube_tls_enabled 1"), "{metrics}");
    assert_eq!(server.admin("/readyz").await.status(), 200);
    let address = server.address();
    let plain = tokio::task::spawn_blocking(move || say(address, b"GET / HTTP/1.0\r\n\r\n")).await.expect("no panic");
    let plain = String::from_utf8_lossy(&plain);
    assert!(plain.starts_with("HTTP/1.0 400") && plain.contains("use https://"), "{plain}");
    server.stop().await;
}

#[tokio::test]
async fn a_reload_takes_another_certificate_and_a_bad_one_changes_nothing() {
    let (first, second, expired) = (Pair::valid(), Pair::valid(), Pair::expired());
    let files = Files::with(&first);
    let server = Server::trusted(&files.section(), &[], Some(&first.chain)).await;
    server.write_config(|base| base.to_owned() + &files.section());
    assert_eq!(reload(&server).await, json!({"changed": [], "needs_restart": []}));
    let (chain, key) = (&first.chain, &first.key);
    for (chain, key, file, why) in [
        (chain, &second.key, "key.pem", "this key belongs to another certificate"),
        (
            &expired.chain,
            &expired.key,
            "chain.pem",
            "the certificate has expired: it was valid until 2021-01-01T00:00:00",
        ),
        (key, key, "chain.pem", "no certificate in it"),
        (chain, &String::new(), "key.pem", "no private key in it"),
    ] {
        files.write(chain, key);
        let said = refused(server.order("/v1/node/reload").json(&json!({})), 422, "invalid_config", why).await;
        let detail = said["detail"].as_str().unwrap_or_default();
        assert!(detail.starts_with("http.tls.") && detail.contains(file) && detail.contains(why), "{detail}");
        assert!(is_shown(&server, &first).await, "{why}");
    }
    files.write(&second.chain, &second.key);
    assert_eq!(reload(&server).await, json!({"changed": ["http.tls"], "needs_restart": []}));
    assert!(is_shown(&server, &second).await && !is_shown(&server, &first).await);
    // Off is another listener.
    server.write_config(str::to_owned);
    assert_eq!(reload(&server).await, json!({"changed": [], "needs_restart": ["http.tls"]}));
    assert!(is_shown(&server, &second).await);
    server.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_no_obstacle_to_a_start_but_told() {
    let pair = Pair::expired();
    let server = Server::trusted(&Files::with(&pair).section(), &[], Some(&pair.chain)).await;
    let ready = server.admin("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.text().await.expect("a text"), "the TLS certificate is not valid now\n");
    server.stop().await;
}

#[test]
fn the_command_line_looks_at_the_files() {
    let (pair, other, expired) = (Pair::valid(), Pair::valid(), Pair::expired());
    // Relative paths begin where the configuration is, wherever it is read.
    let config = write("tls", "[http.tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n");
    let beside = |name: &str| config.with_file_name(name);
    let pairs = [
        (&pair.chain, &pair.key, 0, ""),
        (&pair.chain, &other.key, 78, "http.tls.key: FOLDER/key.pem: this key belongs to another certificate"),
        (&expired.chain, &expired.key, 78, "http.tls.certificate: FOLDER/chain.pem: the certificate has expired"),
    ];
    for (chain, key, status, line) in pairs {
        std::fs::write(beside("chain.pem"), chain).expect("written");
        std::fs::write(beside("key.pem"), key).expect("written");
        let output = output(&["check-config"], &config, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}: {error}");
        let folder = config.parent().map(Path::to_string_lossy).unwrap_or_default();
        assert!(error.contains(&line.replace("FOLDER", &folder)), "{error}");
    }
    std::fs::write(beside("chain.pem"), &pair.chain).expect("written");
    std::fs::remove_file(beside("key.pem")).expect("removed");
    let output = output(&["serve"], &config, &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{error}");
    assert!(error.starts_with("stube: http.tls.key: ") && error.contains("key.pem: No such file"), "{error}");
}

#[tokio::test]
async fn a_key_is_taken_back_although_the_certificate_has_expired() {
    let expired = Pair::expired();
    let files = Files::with(&expired);
    let server = Server::trusted(&files.section(), &[], Some(&expired.chain)).await;
    let other = "another-secret-which-is-as-long-as-this";
    server.write_config(|base| base.replace(SECRET, other) + &files.section());
    assert_eq!(reload(&server).await, json!({"changed": ["keys"], "needs_restart": []}));
    let metrics = server.admin("/metrics").await.text().await.expect("metrics");
    assert!(metrics.contains("stube_tls_enabled 1"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_handshakes_fail_and_the_operator_hears_why() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let section = ordering(nobody, "\"localhost\"");
    let server = Server::configured(&section, &[]).await;
    let metrics = after_failures(&server, 1).await;
    assert!(metrics.contains("stube_tls_certificate_expiry_timestamp_seconds 0"), "{metrics}");
    let ready = server.admin("/readyz").await.text().await.expect("a text");
    assert_eq!(ready, "no TLS certificate yet: see the log\n");
    let error = reqwest::get(server.url("/")).await.expect_err("no certificate");
    assert!(format!("{error:?}").contains("AccessDenied"), "a TLS alert: {error:?}");
    // Reading the same again is no way past the pause; wanting something else is.
    server.write_config(|base| base.to_owned() + &section);
    reload(&server).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    after_failures(&server, 1).await;
    server.write_config(|base| base.to_owned() + &ordering(nobody, "\"localhost\", \"sfu.localhost\""));
    reload(&server).await;
    after_failures(&server, 2).await;
    server.stop().await;
}

/// The section that orders a certificate for these names.
fn ordering(acme_server: SocketAddr, names: &str) -> String {
    format!("[http.tls]\ndomains = [{names}]\nacme_directory = \"https://{acme_server}/dir\"\n")
}

/// The metrics, as soon as so many orders have failed, and no more than these.
async fn after_failures(server: &Server, count: u32) -> String {
    let wanted = format!("stube_acme_orders_total{{result=\"failed\"}} {count}\n");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let metrics = server.admin("/metrics").await.text().await.expect("metrics");
        if metrics.contains(&wanted) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{count} failed orders: {metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_wants_something_else_ends_an_order() {
    let bind = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port") };
    // They accept, and say nothing.
    let (first, second) = (bind().await, bind().await);
    let section = |acme_server: &tokio::net::TcpListener| {
        ordering(acme_server.local_addr().expect("an address"), "\"localhost\"")
    };
    let server = Server::configured(&section(&first), &[]).await;
    let (mut asked_first, _) = timeout(AT_ONCE, first.accept()).await.expect("at once").expect("a connection");
    server.write_config(|base| base.to_owned() + &section(&second));
    reload(&server).await;
    let (mut asked_second, _) = timeout(AT_ONCE, second.accept()).await.expect("at once").expect("a connection");
    let given_up = timeout(AT_ONCE, asked_first.read_to_end(&mut Vec::new())).await;
    assert!(given_up.is_ok(), "the first order goes on");
    let pair = Pair::valid();
    let files = Files::with(&pair);
    server.write_config(|base| base.to_owned() + &files.section());
    reload(&server).await;
    let given_up = timeout(AT_ONCE, asked_second.read_to_end(&mut Vec::new())).await;
    assert!(given_up.is_ok(), "the second order goes on");
    assert!(is_shown(&server, &pair).await);
    // Giving up is no failure.
    after_failures(&server, 0).await;
    server.stop().await;
}

/// A port that nobody listens on now.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string()
}

/// A connection from this address.
fn connect_from(source: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
    socket.connect(&server.into()).expect("a connection");
    socket.into()
}

/// Connections that stay, having said nothing or too little. Those beyond a limit may be closed before they say it.
fn idle(count: usize, source: [u8; 4], server: SocketAddr) -> Vec<TcpStream> {
    let beginnings: [&[u8]; 5] = [b"", &[0x16], &[0], &[0, 100, 0, 1, 0], &[0x16, 3, 1, 2, 0]];
    let begin = |beginning: &&[u8]| {
        let mut stream = connect_from(source, server);
        let _ = stream.write_all(beginning);
        stream
    };
    beginnings.iter().cycle().take(count).map(begin).collect()
}

/// How many of these the server has not closed.
fn open_of(streams: &[TcpStream]) -> usize {
    let is_open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).expect("a mode");
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a mode");
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    streams.iter().filter(is_open).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_takes_https_and_media_and_is_not_held_up() {
    let pair = Pair::valid();
    let files = Files::with(&pair);
    let address = free_port();
    let changes = [
        ("STUBE__HTTP__LISTEN", &*address),
        ("STUBE__MEDIA__TCP_LISTEN", &*address),
        ("STUBE__HTTP__TRUSTED_PROXIES", "127.0.0.3"),
    ];
    let server = Server::trusted(&files.section(), &changes, Some(&pair.chain)).await;
    // First come those who say nothing or too little, and stay.
    let crowd = idle(IDLERS, CROWD, server.address());
    let proxied: Vec<_> =
        PROXIES.into_iter().flat_map(|proxy| idle(OPENING_PER_NETWORK_MAX + 1, proxy, server.address())).collect();
    for room in ["hall", "attic"] {
        server.room(room).await;
    }
    // They came before, so the server has seen them.
    assert_eq!(open_of(&crowd), OPENING_PER_NETWORK_MAX, "of one network");
    assert_eq!(open_of(&proxied), proxied.len(), "of proxies");
    // On both shards, of which one accepts.
    let ada = Caller::join(&server, "hall", "ada", 1, true).await;
    let bob = Caller::join(&server, "hall", "bob", 2, true).await;
    let cara = Caller::join(&server, "attic", "cara", 3, true).await;
    let dan = Caller::join(&server, "attic", "dan", 4, false).await;
    ada.hears(&bob, "over the shared port").await;
    bob.hears(&ada, "over the shared port").await;
    cara.hears(&dan, "over TCP").await;
    dan.hears(&cara, "over UDP").await;
    let offer = server.offer("/v1/sessions", &join_token("hall", "eve"), PUBLISH_OFFER);
    let answer = offer.send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    let text = answer.text().await.expect("an answer");
    let port = address.rsplit(':').next().expect("a port");
    let over_tcp: Vec<_> =
        text.lines().filter(|line| line.starts_with("a=candidate") && line.contains(" tcp ")).collect();
    assert!(!over_tcp.is_empty() && over_tcp.iter().all(|line| line.contains(&format!(" {port} "))), "{over_tcp:?}");
    // Garbage is closed at once.
    let began = Instant::now();
    for garbage in [&b"\r\n\r\n"[..], &[0xff; 64], &[0, 100, 0, 1, 0, 80, 0, 0, 0, 0, 0], b"\x00\x13\x00\x01"] {
        let address = address.parse().expect("an address");
        let answer = tokio::task::spawn_blocking(move || say(address, garbage)).await.expect("no panic");
        assert!(answer.is_empty(), "{garbage:?}: {answer:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Silence in its time.
    for mut idler in crowd.into_iter().chain(proxied) {
        idler.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout");
        let end = idler.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() != ErrorKind::WouldBlock));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    ada.hears(&bob, "after all that").await;
    for caller in [ada, bob, cara, dan] {
        caller.leave(&server).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_takes_plain_http_and_media() {
    let address = free_port();
    let changes = [("STUBE__HTTP__LISTEN", &*address), ("STUBE__MEDIA__TCP_LISTEN", &*address)];
    let server = Server::with(&changes).await;
    server.room("hall").await;
    let ada = Caller::join(&server, "hall", "ada", 1, true).await;
    let bob = Caller::join(&server, "hall", "bob", 2, true).await;
    ada.hears(&bob, "over the shared port").await;
    for caller in [ada, bob] {
        caller.leave(&server).await;
    }
    server.stop().await;
}
