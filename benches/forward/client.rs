//! A str0m client that publishes and receives video, driven in virtual time.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// One participant outside the engine.
pub struct Client {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    camera: Option<Mid>,
    pub address: SocketAddr,
    pub connected: bool,
    received: u64,
    /// Datagrams that wait for the next poll.
    backlog: Vec<Sent>,
    seq: u64,
    timestamp: u32,
}

/// Source, destination and contents of a datagram.
type Sent = (SocketAddr, SocketAddr, Vec<u8>);

impl Client {
    /// A client at an address, and its offer.
    pub fn at(address: SocketAddr, publishes: bool, slots: usize, now: Instant) -> (Self, String) {
        let mut rtc = RtcConfig::new().set_rtp_mode(true).clear_codecs().enable_vp8(true).build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a host candidate"));
        let mut api = rtc.sdp_api();
        let camera = publishes.then(|| api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None));
        for _ in 0..slots {
            api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = api.apply().expect("an offer");
        let client = Self {
            rtc,
            pending: Some(pending),
            camera,
            address,
            connected: false,
            received: 0,
            backlog: Vec::new(),
            seq: 1,
            timestamp: 0,
        };
        (client, offer.to_sdp_string())
    }

    /// Takes the server's answer.
    pub fn accept(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).expect("an answer");
        let pending = self.pending.take().expect("an offer was made");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("an answer that fits");
    }

    /// Queues a frame, if this client publishes. Every tenth begins with a keyframe's first bytes.
    pub fn publish_frame(&mut self, packets: u32, bytes: usize, now: Instant) {
        let Some(mid) = self.camera.filter(|_| self.connected) else { return };
        let pt = self.rtc.media(mid).and_then(|media| media.remote_pts().first().copied()).expect("a payload type");
        let keyframe = self.seq % 50 == 1;
        for index in 0..packets {
            let mut payload = vec![7; bytes];
            // VP8 descriptor: S on the first packet; the frame header's lowest bit is 0 for a keyframe.
            payload[0] = if index == 0 { 0x10 } else { 0 };
            payload[1] = u8::from(!keyframe);
            let write = RtpWrite::new(pt, self.seq.into(), self.timestamp, now, payload);
            let write = write.marker(index + 1 == packets).nackable(true);
            let mut api = self.rtc.direct_api();
            api.stream_tx_by_mid(mid, None).expect("a stream").write_rtp(write);
            self.seq += 1;
        }
        self.timestamp = self.timestamp.wrapping_add(2000);
    }

    /// What the client sends now.
    pub fn poll(&mut self, now: Instant) -> Vec<Sent> {
        self.rtc.handle_input(Input::Timeout(now)).expect("time passes");
        let mut sent = Vec::new();
        self.drain(&mut sent);
        sent
    }

    /// A datagram arrives. What it makes the client send waits for the next poll.
    pub fn receive(&mut self, source: SocketAddr, contents: &[u8], now: Instant) {
        let contents = contents.try_into().expect("a datagram of ours");
        let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).expect("input");
        let mut sent = Vec::new();
        self.drain(&mut sent);
        self.backlog = sent;
    }

    fn drain(&mut self, sent: &mut Vec<Sent>) {
        sent.append(&mut self.backlog);
        loop {
            match self.rtc.poll_output().expect("output") {
                Output::Timeout(_) => return,
                Output::Transmit(t) => sent.push((t.source, t.destination, t.contents.to_vec())),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(_)) => self.received += 1,
                Output::Event(_) => {}
            }
        }
    }

    /// Media packets since the last call.
    pub fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }
}
