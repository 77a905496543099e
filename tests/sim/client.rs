//! A client: a real str0m endpoint that offers, publishes fake media, and watches what it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::crypto::CryptoProvider;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::channel::Channel;
use crate::check::Faults;
use crate::decoder::Slot;
use crate::encoding::Ladder;
use crate::net::Packet;
use crate::red;
use crate::rng::Rng;
use crate::source::Publication;
use crate::stamp::{Stamp, TrackKey};
use crate::toy_dtls;
use crate::viewer::{Received, Viewer};

/// How often a client looks at its decoders.
const DECODER_TICK: Duration = Duration::from_millis(100);
/// Names of a simulcast camera's encodings, lowest first.
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// What a client is like.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub index: usize,
    pub identity: String,
    pub address: SocketAddr,
    pub microphone: bool,
    pub camera: bool,
    pub simulcast: bool,
    /// The camera adapts, and what is shown is recorded: for the scenarios of quality.
    pub adaptive: Option<Ladder>,
    pub audio_slots: usize,
    pub video_slots: usize,
}

/// A datagram a client wants sent.
pub struct Outgoing {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
}

/// A key frame request that reached a publisher.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub mid: Mid,
    pub rid: Option<Rid>,
    /// When the server sent it.
    pub sent_at: Instant,
}

/// What a further offer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Publish a second video m-line, by default source a screen share.
    PublishScreen,
    Unpublish(Mid),
    Republish(Mid),
    IceRestart,
}

/// One participant's endpoint.
pub struct Client {
    pub config: ClientConfig,
    pub publications: Vec<Publication>,
    pub slots: Vec<Slot>,
    pub channel: Channel,
    /// Raw frames, where the far side is not the server.
    pub frames: Vec<Vec<u8>>,
    pub outbox: Vec<Outgoing>,
    pub connected_at: Option<Instant>,
    pub last_received: Option<Instant>,
    pub asked: Vec<Asked>,
    /// str0m says that the far side has closed the connection.
    pub closed: bool,
    rtc: Rtc,
    rng: Rng,
    pending: Option<(SdpPendingOffer, Option<Change>)>,
    channel_id: Option<ChannelId>,
    channel_open: bool,
    mids: BTreeMap<u32, Mid>,
    rtc_due: Instant,
    decoder_due: Instant,
}

impl Client {
    /// A client that has not offered anything yet.
    pub fn new(config: ClientConfig, crypto: Arc<CryptoProvider>, seed: u64, now: Instant) -> Self {
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_crypto_provider(crypto)
            .set_dtls_cert(toy_dtls::certificate(&config.identity))
            .clear_codecs()
            .enable_opus(true, config.adaptive.is_none() && red::is_offered_by(config.index))
            .enable_vp8(true)
            .enable_vp9(config.adaptive.is_some_and(|ladder| !ladder.is_simulcast()))
            .build(now);
        let candidate = Candidate::host(config.address, "udp").expect("a host candidate");
        rtc.add_local_candidate(candidate);
        let rng = Rng::new(seed, &format!("client {}", config.index));
        Self {
            config,
            publications: Vec::new(),
            slots: Vec::new(),
            channel: Channel::default(),
            frames: Vec::new(),
            outbox: Vec::new(),
            connected_at: None,
            last_received: None,
            asked: Vec::new(),
            closed: false,
            rtc,
            rng,
            pending: None,
            channel_id: None,
            channel_open: false,
            mids: BTreeMap::new(),
            rtc_due: now,
            decoder_due: now,
        }
    }

    /// The offer to join with.
    pub fn first_offer(&mut self) -> String {
        let config = self.config.clone();
        let mut sdp = self.rtc.sdp_api();
        let mut published = Vec::new();
        if config.microphone {
            let mid = sdp.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
            published.push((mid, MediaKind::Audio, Vec::new()));
        }
        if config.camera {
            let rids: Vec<Rid> = RIDS.into_iter().filter(|_| config.simulcast).map(Rid::from).collect();
            let simulcast = config
                .simulcast
                .then(|| Simulcast { send: RIDS.into_iter().map(SimulcastLayer::new).collect(), recv: Vec::new() });
            let mid = sdp.add_media(MediaKind::Video, Direction::SendOnly, None, None, simulcast);
            published.push((mid, MediaKind::Video, rids));
        }
        for (kind, count) in [(MediaKind::Audio, config.audio_slots), (MediaKind::Video, config.video_slots)] {
            for _ in 0..count {
                let mid = sdp.add_media(kind, Direction::RecvOnly, None, None, None);
                let mut slot = Slot::new(mid, kind);
                slot.viewer = config.adaptive.map(|_| Viewer::default());
                self.slots.push(slot);
            }
        }
        let channel = sdp.add_channel_with_config(ChannelConfig {
            label: "stube".to_owned(),
            ordered: true,
            reliability: Reliability::Reliable,
            negotiated: None,
            protocol: "stube.v1".to_owned(),
        });
        let (offer, pending) = sdp.apply().expect("there is something to offer");
        self.channel_id = Some(channel);
        self.pending = Some((pending, None));
        for (mid, kind, rids) in published {
            let track = TrackKey { client: config.index, number: self.publications.len() };
            let mut publication = Publication::new(track, mid, kind, &rids, &mut self.rng);
            if let Some(ladder) = config.adaptive.filter(|_| kind == MediaKind::Video) {
                publication = publication.adaptive(ladder, &mut self.rng);
            }
            self.publications.push(publication);
        }
        offer.to_sdp_string()
    }

    /// A further offer; `None` while one is unanswered or nothing would change.
    pub fn further_offer(&mut self, change: Change, now: Instant) -> Option<String> {
        if self.pending.is_some() {
            return None;
        }
        let mut sdp = self.rtc.sdp_api();
        let mut screen = None;
        match change {
            Change::PublishScreen => {
                screen = Some(sdp.add_media(MediaKind::Video, Direction::SendOnly, None, None, None));
            }
            Change::Unpublish(mid) => sdp.set_direction(mid, Direction::Inactive),
            Change::Republish(mid) => sdp.set_direction(mid, Direction::SendOnly),
            Change::IceRestart => {
                sdp.ice_restart(true);
            }
        }
        let (offer, pending) = sdp.apply()?;
        if let Some(mid) = screen {
            let track = TrackKey { client: self.config.index, number: self.publications.len() };
            let mut publication = Publication::new(track, mid, MediaKind::Video, &[], &mut self.rng);
            publication.active = false;
            self.publications.push(publication);
        }
        for publication in &mut self.publications {
            if change == Change::Unpublish(publication.mid) {
                publication.active = false;
            } else if change == Change::Republish(publication.mid) {
                publication.republished.push(now);
            }
        }
        self.pending = Some((pending, Some(change)));
        Some(offer.to_sdp_string())
    }

    /// The server's answer to the last offer.
    pub fn handle_answer(&mut self, answer: &str, now: Instant, faults: &mut Faults) {
        let answer = match SdpAnswer::from_sdp_string(answer) {
            Ok(answer) => answer,
            Err(error) => return faults.add(format!("the answer cannot be read: {error}")),
        };
        let Some((pending, change)) = self.pending.take() else {
            return faults.add("an answer without an offer");
        };
        if let Err(error) = self.rtc.sdp_api().accept_answer(pending, answer) {
            return faults.add(format!("the answer does not fit the offer: {error}"));
        }
        for publication in &mut self.publications {
            let again = change == Some(Change::Republish(publication.mid))
                || (change == Some(Change::PublishScreen) && publication.poll_timeout().is_none());
            publication.active |= again;
            if again {
                publication.start(now);
                publication.want_keyframe(None);
            }
        }
        self.drain(now, now, faults);
    }

    /// The offer was refused; a later one may try again.
    pub fn offer_refused(&mut self) {
        self.pending = None;
    }

    /// Answers another client's offer: for testing the harness without a server.
    pub fn answer(&mut self, offer: &str, now: Instant, faults: &mut Faults) -> String {
        let offer = SdpOffer::from_sdp_string(offer).expect("an offer");
        let answer = self.rtc.sdp_api().accept_offer(offer).expect("an answer").to_sdp_string();
        self.drain(now, now, faults);
        answer
    }

    /// Sends a message over the data channel; false while it is closed or full.
    pub fn say(&mut self, message: &Value, now: Instant, faults: &mut Faults) -> bool {
        let Some(id) = self.channel_id.filter(|_| self.channel_open) else { return false };
        let Some(mut channel) = self.rtc.channel(id) else { return false };
        let written = channel.write(false, message.to_string().as_bytes()).unwrap_or(false);
        self.drain(now, now, faults);
        written
    }

    /// Mutes or unmutes an own track; `false` if the server has not told its sid or the channel is closed.
    pub fn mute(&mut self, number: usize, muted: bool, now: Instant, faults: &mut Faults) -> bool {
        let Some(sid) = self.own_track(number) else { return false };
        let said = self.say(&json!({"type": "mute", "track": sid, "muted": muted}), now, faults);
        if said {
            let publication = &mut self.publications[number];
            publication.muted = muted;
            publication.want_keyframe(None);
        }
        said
    }

    /// The server's name for an own track, as the data channel told it.
    pub fn own_track(&self, number: usize) -> Option<String> {
        let source = self.source_of(number);
        self.channel.own_tracks.iter().find(|(_, track)| track.source == source).map(|(sid, _)| sid.clone())
    }

    /// The default source of a publication: by kind, in order of m-lines.
    pub fn source_of(&self, number: usize) -> &'static str {
        let kind = self.publications[number].kind;
        let place = self.publications[..number].iter().filter(|publication| publication.kind == kind).count();
        match (kind, place) {
            (MediaKind::Audio, 0) => "microphone",
            (MediaKind::Audio, 1) => "screen_share_audio",
            (MediaKind::Video, 0) => "camera",
            (MediaKind::Video, 1) => "screen_share",
            _ => "unknown",
        }
    }

    /// Whether a payload type carries retransmissions.
    pub fn is_resend(&self, payload_type: u8) -> bool {
        self.rtc.codec_config().params().iter().any(|params| params.resend().is_some_and(|pt| *pt == payload_type))
    }

    /// When to call [`Client::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        let media = self.publications.iter().filter_map(Publication::poll_timeout).min();
        let due = self.rtc_due.min(self.decoder_due);
        media.map_or(due, |media| media.min(due))
    }

    /// Does what is due: str0m's timers, frames, a look at the decoders.
    pub fn handle_timeout(&mut self, now: Instant, faults: &mut Faults) {
        for publication in &mut self.publications {
            publication.produce(&mut self.rtc, now);
        }
        if self.decoder_due <= now {
            self.decoder_due = now + DECODER_TICK;
            self.ask_for_keyframes(now);
        }
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            faults.add(format!("str0m: {error}"));
        }
        self.drain(now, now, faults);
    }

    fn ask_for_keyframes(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if slot.asks_for_keyframe(now)
                && let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(slot.mid, None)
            {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }

    /// Takes a datagram from the network.
    pub fn receive(&mut self, packet: &Packet, now: Instant, faults: &mut Faults) {
        self.last_received = Some(now);
        let Ok(contents) = packet.contents.as_slice().try_into() else {
            return faults.add("a datagram of no known protocol");
        };
        let (source, destination) = (packet.source, packet.destination);
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, receive)) {
            faults.add(format!("str0m: {error}"));
        }
        // What a copy asks for has been asked for once.
        let asked = self.asked.len();
        self.drain(packet.sent_at, now, faults);
        if packet.copy {
            self.asked.truncate(asked);
        }
    }

    /// `cause` is when the far side sent what is being handled.
    fn drain(&mut self, cause: Instant, now: Instant, faults: &mut Faults) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(due)) => {
                    self.rtc_due = due.max(now + Duration::from_micros(1));
                    return;
                }
                Ok(Output::Transmit(transmit)) => self.outbox.push(Outgoing {
                    source: transmit.source,
                    destination: transmit.destination,
                    contents: transmit.contents.to_vec(),
                }),
                Ok(Output::Event(event)) => self.handle_event(event, cause, now, faults),
                // A goodbye that comes before SCTP is up ends in an error too.
                Err(_) => {
                    self.closed = true;
                    self.rtc.disconnect();
                    self.rtc_due = now + DECODER_TICK;
                    return;
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event, cause: Instant, now: Instant, faults: &mut Faults) {
        match event {
            Event::Connected => {
                self.connected_at.get_or_insert(now);
                self.publications.iter_mut().for_each(|publication| publication.start(now));
            }
            Event::MediaAdded(media) => self.slots.push(Slot::new(media.mid, media.kind)),
            Event::ChannelOpen(id, label) => {
                if label != "stube" {
                    faults.add(format!("a channel {label} was opened"));
                }
                self.channel_id = Some(id);
                self.channel_open = true;
            }
            Event::ChannelClose(_) => self.channel_open = false,
            Event::ChannelData(data) if self.config.is_member() => {
                self.channel.receive(&data.data, now, faults);
                self.obey();
            }
            Event::ChannelData(data) => self.frames.push(data.data),
            Event::KeyframeRequest(request) => {
                self.asked.push(Asked { mid: request.mid, rid: request.rid, sent_at: cause });
                let of_mid = self.publications.iter_mut().filter(|publication| publication.mid == request.mid);
                of_mid.for_each(|publication| publication.want_keyframe(request.rid));
            }
            Event::RtpPacket(packet) => self.handle_rtp(&packet, now, faults),
            Event::Closed => self.closed = true,
            _ => {}
        }
    }

    /// Sends the encodings that the server has said are needed.
    pub fn obey(&mut self) {
        for (sid, rid, needed) in std::mem::take(&mut self.channel.needs_told) {
            let own = (0..self.publications.len()).find(|number| self.own_track(*number).as_ref() == Some(&sid));
            if let Some(number) = own {
                self.publications[number].set_needed(&rid, needed);
            }
        }
    }

    fn handle_rtp(&mut self, packet: &RtpPacket, now: Instant, faults: &mut Faults) {
        let ssrc = packet.header.ssrc;
        let is_red = self.rtc.codec_config().iter().any(|params| params.red() == Some(packet.header.payload_type));
        let known = self.mids.get(&*ssrc).copied();
        let mid = known.or_else(|| self.rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid()));
        let Some(slot) = mid.and_then(|mid| self.slots.iter_mut().find(|slot| slot.mid == mid)) else {
            return faults.add("RTP on an m-line that is not a slot");
        };
        self.mids.insert(*ssrc, slot.mid);
        if *slot.ssrc.get_or_insert(*ssrc) != *ssrc {
            faults.add(format!("slot {} has changed its SSRC", slot.mid));
        }
        if let Some(viewer) = &mut slot.viewer {
            if slot.kind == MediaKind::Audio {
                return viewer.hear(now);
            }
            return match Received::parse(packet) {
                Ok(received) => viewer.receive(received, now),
                Err(what) => faults.add(format!("slot {}: {what}", slot.mid)),
            };
        }
        let stamp = match slot.kind {
            MediaKind::Audio => red::read(&packet.payload, is_red, red::is_offered_by(self.config.index)),
            MediaKind::Video => Stamp::parse_vp8(&packet.payload),
        };
        match stamp {
            Ok(stamp) => {
                slot.dating.note(packet, &stamp, slot.kind, now);
                slot.receive(*packet.seq_no, stamp, now);
            }
            Err(what) => faults.add(format!("slot {}: {what}", slot.mid)),
        }
    }

    /// Closes the connection, as a browser's `close()` does.
    pub fn close(&mut self, now: Instant, faults: &mut Faults) {
        // It refuses while SCTP is still being set up; then there is nobody to say goodbye to.
        if self.rtc.close().is_err() {
            self.rtc.disconnect();
        }
        self.drain(now, now, faults);
        self.channel_open = false;
    }
}

impl ClientConfig {
    /// Whether the client talks to a server, not to another client.
    fn is_member(&self) -> bool {
        self.identity != ANSWERER
    }
}

/// The identity of the client that plays the server's part in the harness's own test.
pub const ANSWERER: &str = "answerer";
