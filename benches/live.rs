//! What a forwarded packet costs the running server: the real binary, real sockets on loopback, real str0m clients.
//!
//! `cargo bench --bench live` starts the server with one shard, lets one client publish 2 Mbit/s of video in frames of
//! five to ten others, and prints the scheduler's nanoseconds of all the server's threads per media packet received,
//! and its memory with and without participants. The clients read their sockets on a 1 ms grid, so that no send of
//! the server wakes a sleeping reader. With `--test` it only shows that it works. Compare with `--bench floor`.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "forward/client.rs"]
mod client;

use client::Client;

/// Share of the packets that must arrive for a window to count, and how many windows are tried.
const ARRIVED_MIN: f64 = 0.8;
const ATTEMPTS: u32 = 5;
const SUBSCRIBERS: usize = 10;
const FRAME_PACKETS: u32 = 5;
const PAYLOAD_BYTES: usize = 1100;
const FRAME: Duration = Duration::from_micros(22_222);
const GRID: Duration = Duration::from_millis(1);
const KEY: (&str, &str) = ("devkey", "devsecret-devsecret-devsecret-dev");

/// The server process; ends with it.
struct Server {
    process: Child,
    http: SocketAddr,
    /// Its ledger; gone with it.
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

impl Server {
    fn start() -> Self {
        let (http, admin) = (free_port(), free_port());
        let udp = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let folder = tempfile::tempdir().expect("a folder");
        let process = Command::new(env!("CARGO_BIN_EXE_stube"))
            .args(["serve", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")])
            .env("STUBE__HTTP__LISTEN", http.to_string())
            .env("STUBE__ADMIN__LISTEN", admin.to_string())
            .env("STUBE__MEDIA__UDP_LISTEN", udp.to_string())
            .env("STUBE__MEDIA__TCP_LISTEN", "")
            .env("STUBE__SHARD__COUNT", "1")
            .env("STUBE__LEDGER__URL", format!("sqlite://{}", folder.path().join("stube.db").display()))
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let server = Self { process, http, _folder: folder };
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(admin).is_err() {
            assert!(Instant::now() < until, "the server listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// CPU time of all threads so far, in nanoseconds.
    fn cpu_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("Linux");
        let time = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        };
        tasks.flatten().map(time).sum()
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// A client with its socket.
struct Peer {
    client: Client,
    socket: UdpSocket,
}

impl Peer {
    async fn join(http: &reqwest::Client, server: &Server, who: usize, publishes: bool) -> Self {
        let base = format!("http://{}/v1", server.http);
        let ticket = http.post(format!("{base}/rooms/live/tokens")).basic_auth(KEY.0, Some(KEY.1));
        let ticket = ticket.json(&serde_json::json!({ "identity": who.to_string() }));
        let ticket: serde_json::Value = ticket.send().await.expect("an answer").json().await.expect("JSON");
        let token = ticket["token"].as_str().expect("a token");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("non-blocking");
        let address = socket.local_addr().expect("bound");
        let (mut client, offer) = Client::at(address, publishes, usize::from(!publishes), Instant::now());
        let join = http.post(format!("{base}/sessions")).bearer_auth(token).header("Content-Type", "application/sdp");
        let answer = join.body(offer).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        client.accept(&answer.text().await.expect("an SDP answer"));
        Self { client, socket }
    }

    fn turn(&mut self, now: Instant) {
        let mut buffer = [0; 2048];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => self.client.receive(source, &buffer[..length], now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("receiving: {error}"),
            }
        }
        for (_, destination, contents) in self.client.poll(now) {
            let _ = self.socket.send_to(&contents, destination);
        }
    }
}

/// Runs the clients for a while; media packets received.
fn run(peers: &mut [Peer], span: Duration) -> u64 {
    let (start, mut received) = (Instant::now(), 0);
    let mut next_frame = start;
    loop {
        let now = Instant::now();
        if now >= start + span {
            return received;
        }
        if now >= next_frame {
            next_frame += FRAME;
            peers.iter_mut().for_each(|peer| peer.client.publish_frame(FRAME_PACKETS, PAYLOAD_BYTES, now));
        }
        for peer in peers.iter_mut() {
            peer.turn(now);
            received += peer.client.take_received();
        }
        std::thread::sleep(GRID);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let measure = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let (warm, window) = if measure { (5, 10) } else { (3, 1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = Server::start();
    let idle_kib = server.resident_kib();
    let http = reqwest::Client::new();
    let mut peers: Vec<Peer> = runtime.block_on(async {
        let room = http.post(format!("http://{}/v1/rooms", server.http)).basic_auth(KEY.0, Some(KEY.1));
        let room = room.json(&serde_json::json!({ "name": "live" })).send().await.expect("an answer");
        assert_eq!(room.status(), 201);
        let mut peers = Vec::new();
        for who in 0..=SUBSCRIBERS {
            peers.push(Peer::join(&http, &server, who, who == 0).await);
        }
        peers
    });
    run(&mut peers, Duration::from_secs(warm));
    let sent = window as f64 / FRAME.as_secs_f64() * f64::from(FRAME_PACKETS) * SUBSCRIBERS as f64;
    let mut play = || {
        let before = server.cpu_ns();
        let received = run(&mut peers, Duration::from_secs(window));
        (received, server.cpu_ns() - before)
    };
    let (mut received, mut spent) = play();
    // A machine that stands still for a moment says nothing of the server: the window is played again.
    for _ in 1..ATTEMPTS {
        if received as f64 <= sent * ARRIVED_MIN {
            (received, spent) = play();
        }
    }
    assert!(received as f64 > sent * ARRIVED_MIN, "{received} of {sent:.0} packets arrived");
    let per_participant = server.resident_kib().saturating_sub(idle_kib) / (SUBSCRIBERS as u64 + 1);
    println!(
        "live: 1 to {SUBSCRIBERS}, video of {PAYLOAD_BYTES} B in frames of {FRAME_PACKETS}, one shard, {window} s"
    );
    println!("  {} ns of CPU per forwarded packet ({received} packets)", spent / received);
    println!("  {:.1} % of a core", spent as f64 / (window as f64 * 1e7));
    println!("  {idle_kib} KiB resident idle, {per_participant} KiB more per participant");
}
