//! A real client of a few lines: str0m over a UDP socket or a TCP connection, that sends sound and pictures all the time
//! and counts what it gets of whom.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::channel::ChannelConfig;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::client::{Server, Session, header, join_token};

/// How often it sends.
const FRAME: Duration = Duration::from_millis(20);
/// How long a look at the socket takes at most.
const LOOK: Duration = Duration::from_millis(2);

/// What the server has said to one caller, oldest first.
pub type Messages = Vec<serde_json::Value>;

/// What one caller has got: packets by who sent them, and whether they are of a picture.
pub type Heard = BTreeMap<(u8, bool), u64>;

/// A participant with a PeerConnection.
pub struct Caller {
    pub identity: String,
    pub session: Session,
    /// Its mark in what it sends.
    pub number: u8,
    heard: Arc<Mutex<Heard>>,
    told: Arc<Mutex<Messages>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How its datagrams travel.
enum Wire {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, read: Vec<u8> },
}

impl Wire {
    fn local(&self) -> SocketAddr {
        let address = match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp { stream, .. } => stream.local_addr(),
        };
        address.expect("a bound socket")
    }

    fn protocol(&self) -> Protocol {
        if matches!(self, Self::Udp(_)) { Protocol::Udp } else { Protocol::Tcp }
    }

    fn send(&mut self, destination: SocketAddr, contents: &[u8]) {
        // Whoever does not get it, asks again.
        let _ = match self {
            Self::Udp(socket) => socket.send_to(contents, destination).map(drop),
            Self::Tcp { stream, .. } => {
                stream.write_all(&[&(contents.len() as u16).to_be_bytes()[..], contents].concat())
            }
        };
    }

    /// The next datagram; waits a moment for it.
    fn receive(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; 4096];
        match self {
            Self::Udp(socket) => {
                let (length, source) = socket.recv_from(&mut buffer).ok()?;
                Some((source, buffer[..length].to_vec()))
            }
            Self::Tcp { stream, read } => {
                let source = stream.peer_addr().ok()?;
                let frame = |read: &mut Vec<u8>| {
                    let length = usize::from(u16::from_be_bytes(*read.first_chunk()?));
                    let contents = read.get(2..2 + length)?.to_vec();
                    read.drain(..2 + length);
                    Some(contents)
                };
                if let Some(contents) = frame(read) {
                    return Some((source, contents));
                }
                match stream.read(&mut buffer) {
                    Ok(length) => read.extend_from_slice(&buffer[..length]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => std::thread::sleep(LOOK),
                }
                frame(read).map(|contents| (source, contents))
            }
        }
    }
}

impl Caller {
    /// Joins, over TCP if `tcp` is where the server listens for it.
    pub async fn join(server: &Server, room: &str, identity: &str, number: u8, over_tcp: bool) -> Self {
        let provider = Arc::new(str0m::crypto::from_feature_flags());
        let mut config = RtcConfig::new().set_crypto_provider(provider).set_rtp_mode(true).clear_codecs();
        config = config.enable_opus(true, false).enable_vp8(true);
        let mut rtc = config.build(Instant::now());
        let mut api = rtc.sdp_api();
        let sent = [MediaKind::Audio, MediaKind::Video]
            .map(|kind| (api.add_media(kind, Direction::SendOnly, None, None, None), kind));
        for kind in [MediaKind::Audio, MediaKind::Video] {
            for _ in 0..4 {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        }
        let (label, protocol) = ("stube".to_owned(), "stube.v1".to_owned());
        api.add_channel_with_config(ChannelConfig { label, protocol, ..ChannelConfig::default() });
        let (offer, pending) = api.apply().expect("an offer");
        let token = join_token(room, identity);
        let request = server.offer("/v1/sessions", &token, &offer.to_sdp_string());
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 201, "{identity} joins {room}");
        let session = Session { url: header(&response, "location"), etag: header(&response, "etag"), token };
        let answer = response.text().await.expect("an answer");
        let wire = open(&answer, over_tcp);
        let candidate = match &wire {
            Wire::Udp(_) => Candidate::host(wire.local(), "udp"),
            Wire::Tcp { .. } => Candidate::builder().tcp().host(wire.local()).tcptype(TcpType::Active).build(),
        };
        rtc.add_local_candidate(candidate.expect("a candidate"));
        let unwanted = if over_tcp { " udp " } else { " tcp " };
        let wanted = |line: &&str| !(line.starts_with("a=candidate") && line.contains(unwanted));
        let answer: String = answer.lines().filter(wanted).map(|line| format!("{line}\r\n")).collect();
        let answer = SdpAnswer::from_sdp_string(&answer).expect("an answer in SDP");
        rtc.sdp_api().accept_answer(pending, answer).expect("an answer to the offer");
        let (heard, told) = (Arc::<Mutex<Heard>>::default(), Arc::<Mutex<Messages>>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (notes, stopped) = ((Arc::clone(&heard), Arc::clone(&told)), Arc::clone(&stop));
        let thread = std::thread::spawn(move || talk(rtc, wire, &sent, number, (&notes.0, &notes.1), &stopped));
        Self { identity: identity.to_owned(), session, number, heard, told, stop, thread: Some(thread) }
    }

    /// What it has got so far.
    pub fn heard(&self) -> Heard {
        self.heard.lock().expect("no caller panics").clone()
    }

    /// What the server has said to it so far.
    pub fn told(&self) -> Messages {
        self.told.lock().expect("no caller panics").clone()
    }

    /// Waits until it gets sound and pictures of another, both from now on.
    pub async fn hears(&self, other: &Self, what: &str) {
        let (before, deadline) = (self.heard(), Instant::now() + Duration::from_secs(10));
        let more = |heard: &Heard, video| heard.get(&(other.number, video)) > before.get(&(other.number, video));
        while !(more(&self.heard(), false) && more(&self.heard(), true)) {
            let (identity, heard) = (&self.identity, self.heard());
            assert!(Instant::now() < deadline, "{what}: {identity} gets nothing of {}: {heard:?}", other.identity);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Leaves over HTTP.
    pub async fn leave(mut self, server: &Server) {
        let gone = server.request("DELETE", &self.session.url).send().await.expect("an answer");
        assert_eq!(gone.status(), 200, "{} leaves", self.identity);
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no caller panics");
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn open(answer: &str, over_tcp: bool) -> Wire {
    if !over_tcp {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(LOOK)).expect("a timeout");
        return Wire::Udp(socket);
    }
    let line = answer.lines().find(|line| line.starts_with("a=candidate") && line.contains(" tcp "));
    let words: Vec<&str> = line.expect("a TCP candidate").split_whitespace().collect();
    let stream = TcpStream::connect(format!("{}:{}", words[4], words[5])).expect("a connection");
    stream.set_read_timeout(Some(LOOK)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    Wire::Tcp { stream, read: Vec::new() }
}

/// Sends and receives until told to stop.
fn talk(
    mut rtc: Rtc,
    mut wire: Wire,
    sent: &[(Mid, MediaKind)],
    number: u8,
    notes: (&Mutex<Heard>, &Mutex<Messages>),
    stop: &AtomicBool,
) {
    let (heard, told) = notes;
    let (local, proto) = (wire.local(), wire.protocol());
    let (began, mut frames, mut connected) = (Instant::now(), 0, false);
    while !stop.load(Ordering::Relaxed) && rtc.is_alive() {
        let now = Instant::now();
        if connected && now >= began + FRAME * frames {
            frames = (now - began).as_millis() as u32 / FRAME.as_millis() as u32 + 1;
            sent.iter().for_each(|(mid, kind)| send_frame(&mut rtc, *mid, *kind, number, frames, now));
        }
        if rtc.handle_input(Input::Timeout(now)).is_err() {
            return;
        }
        loop {
            match rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => wire.send(transmit.destination, &transmit.contents),
                Ok(Output::Event(Event::Connected)) => connected = true,
                Ok(Output::Event(Event::RtpPacket(packet))) => {
                    // Sound is marked in its first byte, pictures behind the VP8 descriptor and the frame's header.
                    let (video, at) = if packet.payload.len() == 40 { (false, 0) } else { (true, 11) };
                    if let Some(mark) = packet.payload.get(at) {
                        *heard.lock().expect("no caller panics").entry((*mark, video)).or_default() += 1;
                    }
                }
                Ok(Output::Event(Event::ChannelData(data))) => {
                    let message = serde_json::from_slice(&data.data).expect("JSON");
                    told.lock().expect("no caller panics").push(message);
                }
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) => break,
                Err(_) => return,
            }
        }
        if let Some((source, contents)) = wire.receive()
            && let Ok(contents) = contents.as_slice().try_into()
        {
            let receive = Receive { proto, source, destination: local, contents };
            if rtc.handle_input(Input::Receive(Instant::now(), receive)).is_err() {
                return;
            }
        }
    }
}

fn send_frame(rtc: &mut Rtc, mid: Mid, kind: MediaKind, number: u8, frame: u32, now: Instant) {
    let pt = rtc.media(mid).and_then(|media| media.remote_pts().first().copied());
    let (ticks, payload) = match kind {
        MediaKind::Audio => (960, vec![number; 40]),
        // Each picture is a keyframe of 16 by 16 pixels (RFC 7741 §4.2, RFC 6386 §9.1).
        MediaKind::Video => {
            let mut payload = vec![0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 16, 0, 16, 0];
            payload.resize(200, number);
            (1800, payload)
        }
    };
    let mut api = rtc.direct_api();
    let (Some(pt), Some(stream)) = (pt, api.stream_tx_by_mid(mid, None)) else { return };
    let packet = RtpWrite::new(pt, u64::from(1000 + frame).into(), frame * ticks, now, payload);
    stream.write_rtp(packet.marker(kind == MediaKind::Video).nackable(false));
}
