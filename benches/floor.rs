//! The floor: what forwarding costs when nothing is done but what must be done. Receive a frame, open it, and for each
//! subscriber rewrite the header, seal and send. One thread, sockets on loopback, AES-GCM as SRTP uses it (RFC 7714).
//!
//! `cargo bench --bench floor` prints nanoseconds of the thread's CPU time per forwarded packet; with `--test`, or under
//! `cargo test --benches`, it only shows that it works. `benches/forward.rs` and the running server are measured
//! against it. All methods take turns block by block, so that a busy machine hits all alike: compare ratios.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;

/// 12 bytes of RTP, then two words of one-byte extensions (MID and transport-wide sequence number) behind their head.
const HEADER_BYTES: usize = 24;
const PAYLOAD_BYTES: usize = 1100;
const PACKET_BYTES: usize = HEADER_BYTES + PAYLOAD_BYTES + MAX_TAG_LEN;
/// A frame of video: some 44 kbit, 30 a second are 1.3 Mbit/s.
const FRAME_PACKETS: usize = 5;
/// A block forwards about so many packets; between blocks the receivers' queues are emptied.
const BLOCK_PACKETS: usize = 500;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

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
    publisher: Context,
    seq: u16,
    feeder: UdpSocket,
    feeder_state: UdpSocketState,
    forwarder: UdpSocket,
    state: UdpSocketState,
    subscribers: Vec<Subscriber>,
    received: Vec<u8>,
    plain: Vec<[u8; PAYLOAD_BYTES]>,
    out: Vec<u8>,
}

impl Room {
    fn new(algorithm: &'static Algorithm, subscribers: u32) -> Self {
        let (feeder, forwarder) = (socket(), socket());
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
            publisher: Context::new(algorithm, 0),
            seq: 0,
            feeder_state: UdpSocketState::new((&feeder).into()).expect("a UDP socket"),
            feeder,
            state: UdpSocketState::new((&forwarder).into()).expect("a UDP socket"),
            forwarder,
            subscribers: (0..subscribers).map(subscriber).collect(),
            received: vec![0; 1 << 16],
            plain: vec![[0; PAYLOAD_BYTES]; FRAME_PACKETS],
            out: vec![0; PACKET_BYTES * FRAME_PACKETS],
        }
    }

    fn begin(&mut self) {
        // Below 2^15, so that rollover counts stay 0. Nonces repeat over blocks: this is no place for secrets.
        self.seq = 0;
    }

    /// The publisher sends a frame; not measured.
    fn publish(&mut self) {
        let mut burst = vec![0; PACKET_BYTES * FRAME_PACKETS];
        for (index, packet) in burst.chunks_mut(PACKET_BYTES).enumerate() {
            let marker = index == FRAME_PACKETS - 1;
            self.publisher.seal(packet, self.seq, 90_000, self.seq, marker, &[self.seq as u8; PAYLOAD_BYTES]);
            self.seq += 1;
        }
        send(&self.feeder, &self.feeder_state, address(&self.forwarder), &burst);
    }

    /// The work: one frame from socket to sockets.
    fn forward(&mut self, how: Send) {
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(&mut self.received)];
        let mut taken = 0;
        while taken < FRAME_PACKETS {
            let socket = UdpSockRef::from(&self.forwarder);
            self.state.recv(socket, &mut slices, &mut meta).expect("the frame is there");
            for packet in slices[0][..meta[0].len].chunks(meta[0].stride) {
                self.publisher.open(packet, &mut self.plain[taken]);
                taken += 1;
            }
        }
        let (first_seq, timestamp) = (self.seq - FRAME_PACKETS as u16, 90_000u32);
        for subscriber in &mut self.subscribers {
            let packets = self.out.chunks_mut(PACKET_BYTES).zip(&self.plain).enumerate();
            for (index, (packet, plain)) in packets {
                let seq = (first_seq + index as u16).wrapping_add(subscriber.seq_offset);
                let timestamp = timestamp.wrapping_add(subscriber.timestamp_offset);
                subscriber.wide_seq = subscriber.wide_seq.wrapping_add(1);
                let marker = index == FRAME_PACKETS - 1;
                subscriber.context.seal(packet, seq, timestamp, subscriber.wide_seq, marker, plain);
            }
            match how {
                Send::Nothing => {}
                Send::Plain => {
                    for packet in self.out.chunks(PACKET_BYTES) {
                        self.forwarder.send_to(packet, subscriber.address).expect("room in the queue");
                    }
                }
                Send::Gso => send(&self.forwarder, &self.state, subscriber.address, &self.out),
            }
        }
    }

    /// Empties the subscribers' queues and checks what came; not measured.
    fn receive(&mut self, frames: usize) {
        let mut packet = [0; PACKET_BYTES + 1];
        let mut plain = [0; PAYLOAD_BYTES];
        for subscriber in &self.subscribers {
            for expected in 0..(frames * FRAME_PACKETS) as u16 {
                let length = subscriber.socket.recv(&mut packet).expect("nothing is lost on loopback");
                assert_eq!(length, PACKET_BYTES);
                assert_eq!(&packet[2..4], (expected + subscriber.seq_offset).to_be_bytes());
                subscriber.context.open(&packet[..length], &mut plain);
                assert_eq!(plain, [expected as u8; PAYLOAD_BYTES]);
            }
            assert!(subscriber.socket.recv(&mut packet).is_err(), "more than was sent");
        }
    }

    /// One block by one method: nanoseconds of CPU per forwarded packet; none if the thread was disturbed.
    fn block(&mut self, how: Send) -> Option<f64> {
        let frames = BLOCK_PACKETS.div_ceil(self.subscribers.len() * FRAME_PACKETS);
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
        undisturbed.then(|| cpu_ns as f64 / (frames * FRAME_PACKETS * self.subscribers.len()) as f64)
    }
}

fn send(socket: &UdpSocket, state: &UdpSocketState, destination: SocketAddr, contents: &[u8]) {
    let segment_size = Some(PACKET_BYTES);
    let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
    state.try_send(socket.into(), &transmit).expect("room in the queue, and a kernel with UDP_SEGMENT");
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let measure = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--test");
    let rounds = if measure { 400 } else { 2 };
    let methods = [(Send::Nothing, "none"), (Send::Plain, "plain"), (Send::Gso, "GSO")];
    println!("floor: video, frames of {FRAME_PACKETS} packets of {PAYLOAD_BYTES} B; ns of CPU per forwarded packet");
    println!("{:>11}  {:<11}  {:<5}  {:>6}  {:>6}  {:>8}", "subscribers", "cipher", "send", "p10", "median", "blocks");
    for subscribers in [10, 50] {
        for (algorithm, cipher) in [(&AES_128_GCM, "AES-128-GCM"), (&AES_256_GCM, "AES-256-GCM")] {
            let mut room = Room::new(algorithm, subscribers);
            let mut costs: [Vec<f64>; 3] = Default::default();
            for _ in 0..rounds {
                for ((how, _), costs) in methods.iter().zip(&mut costs) {
                    costs.extend(room.block(*how));
                }
            }
            for ((_, send), mut costs) in methods.iter().zip(costs) {
                costs.sort_by(f64::total_cmp);
                let at =
                    |share: usize| costs.get(costs.len() * share / 100).map_or("-".into(), |ns| format!("{ns:.0}"));
                let kept = format!("{}/{rounds}", costs.len());
                println!("{subscribers:>11}  {cipher:<11}  {send:<5}  {:>6}  {:>6}  {kept:>8}", at(10), at(50));
            }
        }
    }
    if !measure {
        println!("floor: works; for figures run `cargo bench --bench floor`");
    }
}
