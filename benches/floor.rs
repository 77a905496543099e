//! The floor: what forwarding costs when nothing is done but what must be done. Receive a frame, open it, and for each
//! subscriber rewrite the header, seal and send. One thread, sockets on loopback, AES-GCM as SRTP uses it (RFC 7714).
//!
//! `cargo bench --bench floor` prints nanoseconds of the thread's CPU time per forwarded packet; with `--test`, or under
//! `cargo test --benches`, it only shows that it works. `benches/forward.rs` and the running server are measured
//! against it. All methods take turns block by block, so that a busy machine hits all alike: compare ratios.
//!
//! `cargo bench --bench floor -- --json --shape a` prints the floor of one shape of `scripts/bench-server` as a JSON
//! object, with AES-256-GCM and receivers like those of `stube load`: GRO and kernel timestamps.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;

/// 12 bytes of RTP, then two words of one-byte extensions (MID and transport-wide sequence number) behind their head.
const HEADER_BYTES: usize = 24;
/// A frame of video: some 44 kbit, 30 a second are 1.3 Mbit/s.
const VIDEO: Frame = Frame { packets: 5, payload_bytes: 1100 };
const AUDIO: Frame = Frame { packets: 1, payload_bytes: 100 };
/// Payloads are not longer.
const PAYLOAD_MAX_BYTES: usize = 1100;
/// A block forwards about so many packets; between blocks the receivers' queues are emptied.
const BLOCK_PACKETS: usize = 500;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What is forwarded at a time.
#[derive(Clone, Copy)]
struct Frame {
    packets: usize,
    payload_bytes: usize,
}

impl Frame {
    const fn packet_bytes(self) -> usize {
        HEADER_BYTES + self.payload_bytes + MAX_TAG_LEN
    }
}

/// A part of a shape's forwarded packets.
struct Part {
    /// Of all forwarded packets.
    share: f64,
    frame: Frame,
    subscribers: u32,
    /// Frames that are received and forwarded to nobody, for each one that is forwarded.
    unforwarded: f64,
}

/// The shapes of `scripts/bench-server`.
fn shape(name: &str) -> Option<Vec<Part>> {
    let two = Frame { packets: 2, ..VIDEO };
    let one = Frame { packets: 1, ..VIDEO };
    let part = |share, frame, subscribers, unforwarded| Part { share, frame, subscribers, unforwarded };
    Some(match name {
        // One to 50, 2 Mbit/s.
        "a" => vec![part(1.0, VIDEO, 50, 0.0)],
        // All to all of five: video 34 pps, audio 50 pps.
        "b" => vec![part(0.405, two, 4, 0.0), part(0.595, AUDIO, 4, 0.0)],
        // Rooms of 25: 9 cameras of 17 pps and 4 microphones of 50 pps of 25 each are forwarded.
        "c" => vec![part(0.434, one, 24, 16.0 / 9.0), part(0.566, AUDIO, 24, 21.0 / 4.0)],
        // The same without cameras.
        "d" => vec![part(1.0, AUDIO, 24, 21.0 / 4.0)],
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Send {
    Nothing,
    Plain,
    Gso,
}

/// One direction's SRTP context.
struct Context {
    key: LessSafeKey,
    salt: [u8; 12],
    ssrc: u32,
}

impl Context {
    fn new(algorithm: &'static Algorithm, number: u32) -> Self {
        let secret: Vec<u8> = (0..algorithm.key_len() as u32).map(|i| (number * 31 + i * 7) as u8).collect();
        let key = UnboundKey::new(algorithm, &secret).expect("a key of the algorithm's length");
        Self { key: LessSafeKey::new(key), salt: [number as u8; 12], ssrc: 0x1000 + number }
    }

    /// RFC 7714 §8.1, with a rollover count of 0.
    fn nonce(&self, seq: u16) -> Nonce {
        let mut iv = [0; 12];
        iv[2..6].copy_from_slice(&self.ssrc.to_be_bytes());
        iv[10..].copy_from_slice(&seq.to_be_bytes());
        iv.iter_mut().zip(self.salt).for_each(|(byte, salt)| *byte ^= salt);
        Nonce::assume_unique_for_key(iv)
    }

    /// Writes a packet into `out`: header, then `plain` sealed.
    fn seal(&self, out: &mut [u8], seq: u16, timestamp: u32, wide_seq: u16, marker: bool, plain: &[u8]) {
        let (header, rest) = out.split_at_mut(HEADER_BYTES);
        let (cipher, tag) = rest.split_at_mut(plain.len());
        header[0] = 0x90;
        header[1] = (u8::from(marker) << 7) | 96;
        header[2..4].copy_from_slice(&seq.to_be_bytes());
        header[4..8].copy_from_slice(&timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        header[12..19].copy_from_slice(&[0xBE, 0xDE, 0, 2, 0x40, b'0', 0x31]);
        header[19..21].copy_from_slice(&wide_seq.to_be_bytes());
        header[21..].fill(0);
        let (nonce, aad) = (self.nonce(seq), Aad::from(&*header));
        self.key.seal_out_of_place_scatter(nonce, aad, plain, cipher, &[], tag).expect("sizes fit");
    }

    fn open(&self, packet: &[u8], plain: &mut [u8]) {
        let (header, rest) = packet.split_at(HEADER_BYTES);
        let (cipher, tag) = rest.split_at(rest.len() - MAX_TAG_LEN);
        let nonce = self.nonce(u16::from_be_bytes([header[2], header[3]]));
        self.key.open_separate_gather(nonce, Aad::from(header), cipher, tag, plain).expect("an authentic packet");
    }
}

struct Subscriber {
    context: Context,
    seq_offset: u16,
    timestamp_offset: u32,
    wide_seq: u16,
    address: SocketAddr,
    /// Where the packets arrive.
    socket: UdpSocket,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
    socket.set_nonblocking(true).expect("non-blocking");
    // As much as the system allows.
    let _ = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("bound")
}

/// A publisher, a forwarder and its subscribers.
struct Room {
    frame: Frame,
    unforwarded: f64,
    /// Frames that came and go nowhere, not yet published.
    owed: f64,
    waiting: usize,
    publisher: Context,
    seq: u16,
    feeder: UdpSocket,
    feeder_state: UdpSocketState,
    forwarder: UdpSocket,
    state: UdpSocketState,
    subscribers: Vec<Subscriber>,
    received: Vec<u8>,
    plain: Vec<[u8; PAYLOAD_MAX_BYTES]>,
    out: Vec<u8>,
}

impl Room {
    fn new(algorithm: &'static Algorithm, part: &Part) -> Self {
        let (feeder, forwarder) = (socket(), socket());
        let frame = part.frame;
        let subscriber = |number: u32| {
            let socket = socket();
            Subscriber {
                context: Context::new(algorithm, number + 1),
                seq_offset: number as u16,
                timestamp_offset: number * 77,
                wide_seq: 0,
                address: address(&socket),
                socket,
            }
        };
        Self {
            frame,
            unforwarded: part.unforwarded,
            owed: 0.0,
            waiting: 0,
            publisher: Context::new(algorithm, 0),
            seq: 0,
            feeder_state: UdpSocketState::new((&feeder).into()).expect("a UDP socket"),
            feeder,
            state: UdpSocketState::new((&forwarder).into()).expect("a UDP socket"),
            forwarder,
            subscribers: (0..part.subscribers).map(subscriber).collect(),
            received: vec![0; 1 << 16],
            plain: vec![[0; PAYLOAD_MAX_BYTES]; frame.packets],
            out: vec![0; frame.packet_bytes() * frame.packets],
        }
    }

    fn begin(&mut self) {
        // Below 2^15, so that rollover counts stay 0. Nonces repeat over blocks: this is no place for secrets.
        self.seq = 0;
    }

    /// The publisher sends a frame, and others some that nobody sees; not measured.
    fn publish(&mut self) {
        let Frame { packets, payload_bytes } = self.frame;
        let mut burst = vec![0; self.frame.packet_bytes() * packets];
        for (index, packet) in burst.chunks_mut(self.frame.packet_bytes()).enumerate() {
            let plain = vec![self.seq as u8; payload_bytes];
            self.publisher.seal(packet, self.seq, 90_000, self.seq, index == packets - 1, &plain);
            self.seq += 1;
        }
        self.owed += self.unforwarded;
        self.waiting = self.owed as usize;
        self.owed -= self.waiting as f64;
        for _ in 0..=self.waiting {
            send(&self.feeder, &self.feeder_state, address(&self.forwarder), &burst, self.frame.packet_bytes());
        }
    }

    /// Receives one frame; opens it if it shall be forwarded.
    fn take(&mut self, open: bool) {
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(&mut self.received)];
        let mut taken = 0;
        while taken < self.frame.packets {
            let socket = UdpSockRef::from(&self.forwarder);
            self.state.recv(socket, &mut slices, &mut meta).expect("the frame is there");
            for packet in slices[0][..meta[0].len].chunks(meta[0].stride) {
                if open {
                    self.publisher.open(packet, &mut self.plain[taken][..self.frame.payload_bytes]);
                }
                taken += 1;
            }
        }
    }

    /// The work: one frame from socket to sockets.
    fn forward(&mut self, how: Send) {
        let Frame { packets, payload_bytes } = self.frame;
        let packet_bytes = self.frame.packet_bytes();
        self.take(true);
        for _ in 0..self.waiting {
            self.take(false);
        }
        let (first_seq, timestamp) = (self.seq - packets as u16, 90_000u32);
        for subscriber in &mut self.subscribers {
            let sealed = self.out.chunks_mut(packet_bytes).zip(&self.plain).enumerate();
            for (index, (packet, plain)) in sealed {
                let seq = (first_seq + index as u16).wrapping_add(subscriber.seq_offset);
                let timestamp = timestamp.wrapping_add(subscriber.timestamp_offset);
                subscriber.wide_seq = subscriber.wide_seq.wrapping_add(1);
                let (marker, plain) = (index == packets - 1, &plain[..payload_bytes]);
                subscriber.context.seal(packet, seq, timestamp, subscriber.wide_seq, marker, plain);
            }
            match how {
                Send::Nothing => {}
                Send::Plain => {
                    for packet in self.out.chunks(packet_bytes) {
                        self.forwarder.send_to(packet, subscriber.address).expect("room in the queue");
                    }
                }
                Send::Gso => send(&self.forwarder, &self.state, subscriber.address, &self.out, packet_bytes),
            }
        }
    }

    /// Empties the subscribers' queues and checks what came; not measured.
    fn receive(&mut self, frames: usize) {
        let mut plain = [0; PAYLOAD_MAX_BYTES];
        let plain = &mut plain[..self.frame.payload_bytes];
        for subscriber in &self.subscribers {
            let mut expected = 0u16;
            while usize::from(expected) < frames * self.frame.packets {
                let length = subscriber.socket.recv(&mut self.received).expect("nothing is lost on loopback");
                let packet = &self.received[..length];
                assert_eq!(length, self.frame.packet_bytes());
                assert_eq!(&packet[2..4], (expected + subscriber.seq_offset).to_be_bytes());
                subscriber.context.open(packet, plain);
                assert!(plain.iter().all(|byte| *byte == expected as u8));
                expected += 1;
            }
            assert!(subscriber.socket.recv(&mut self.received).is_err(), "more than was sent");
        }
    }

    /// One block by one method: nanoseconds of CPU per forwarded packet; none if the thread was disturbed.
    fn block(&mut self, how: Send) -> Option<f64> {
        let frames = BLOCK_PACKETS.div_ceil(self.subscribers.len() * self.frame.packets);
        self.begin();
        let (mut cpu_ns, mut wall_ns) = (0, 0);
        for _ in 0..frames {
            self.publish();
            let (cpu, wall) = (thread_cpu_ns(), Instant::now());
            self.forward(how);
            cpu_ns += thread_cpu_ns() - cpu;
            wall_ns += wall.elapsed().as_nanos() as u64;
        }
        if how != Send::Nothing {
            self.receive(frames);
        }
        let undisturbed = wall_ns <= cpu_ns + cpu_ns / 20 + 1000 * frames as u64;
        undisturbed.then(|| cpu_ns as f64 / (frames * self.frame.packets * self.subscribers.len()) as f64)
    }
}

fn send(socket: &UdpSocket, state: &UdpSocketState, destination: SocketAddr, contents: &[u8], packet_bytes: usize) {
    let segment_size = (contents.len() > packet_bytes).then_some(packet_bytes);
    let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
    state.try_send(socket.into(), &transmit).expect("room in the queue, and a kernel with UDP_SEGMENT");
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Costs in order, by method.
fn costs(room: &mut Room, methods: &[Send], rounds: usize) -> Vec<Vec<f64>> {
    let mut costs = vec![Vec::new(); methods.len()];
    for round in 0..rounds * 20 {
        // On a busy machine many blocks are disturbed; a few that were not are enough.
        if round >= rounds && costs.iter().all(|costs| costs.len() >= rounds.min(10)) {
            break;
        }
        for (how, costs) in methods.iter().zip(&mut costs) {
            costs.extend(room.block(*how));
        }
    }
    costs.iter_mut().for_each(|costs| costs.sort_by(f64::total_cmp));
    costs
}

fn percentile(costs: &[f64], percent: usize) -> Option<f64> {
    costs.get(costs.len() * percent / 100).copied()
}

/// The floor of a shape: by GSO and by plain sends, the tenth percentile and the median of its parts, weighted.
fn print_shape(name: &str, rounds: usize) {
    let parts = shape(name).expect("--shape a, b, c or d");
    let mut sums = [0.0; 4];
    for part in &parts {
        let mut room = Room::new(&AES_256_GCM, part);
        let costs = costs(&mut room, &[Send::Gso, Send::Plain], rounds);
        for (method, costs) in costs.iter().enumerate() {
            for (place, percent) in [10, 50].into_iter().enumerate() {
                sums[method * 2 + place] += part.share * percentile(costs, percent).unwrap_or(f64::NAN);
            }
        }
    }
    let [gso, gso_median, plain, plain_median] = sums.map(f64::round);
    println!(
        "{{\"shape\":\"{name}\",\"gso_ns\":{gso},\"gso_median_ns\":{gso_median},\"plain_ns\":{plain},\
         \"plain_median_ns\":{plain_median},\"cipher\":\"AES-256-GCM\",\"rounds\":{rounds}}}"
    );
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().skip_while(|arg| *arg != name).nth(1);
    if args.iter().any(|arg| arg == "--json") {
        let rounds = value("--rounds").and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
        return print_shape(value("--shape").map_or("a", String::as_str), rounds);
    }
    let measure = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let rounds = if measure { 400 } else { 2 };
    let names = ["none", "plain", "GSO"];
    let Frame { packets, payload_bytes } = VIDEO;
    println!("floor: video, frames of {packets} packets of {payload_bytes} B; ns of CPU per forwarded packet");
    println!("{:>11}  {:<11}  {:<5}  {:>6}  {:>6}  {:>8}", "subscribers", "cipher", "send", "p10", "median", "blocks");
    for subscribers in [10, 50] {
        for (algorithm, cipher) in [(&AES_128_GCM, "AES-128-GCM"), (&AES_256_GCM, "AES-256-GCM")] {
            let part = Part { share: 1.0, frame: VIDEO, subscribers, unforwarded: 0.0 };
            let mut room = Room::new(algorithm, &part);
            let costs = costs(&mut room, &[Send::Nothing, Send::Plain, Send::Gso], rounds);
            for (send, costs) in names.iter().zip(costs) {
                let at = |percent: usize| percentile(&costs, percent).map_or("-".into(), |ns| format!("{ns:.0}"));
                let kept = format!("{}/{rounds}", costs.len());
                println!("{subscribers:>11}  {cipher:<11}  {send:<5}  {:>6}  {:>6}  {kept:>8}", at(10), at(50));
            }
        }
    }
    if !measure {
        for name in ["a", "b", "c", "d"] {
            print_shape(name, 1);
        }
        println!("floor: works; for figures run `cargo bench --bench floor`");
    }
}
