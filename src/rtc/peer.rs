//! One client's PeerConnection: the only place that polls str0m.
//!
//! **The seam to the egress plane.** Rooms and the engine know only [`Peer::write`], which sends one copy of a packet
//! on a slot. Today it queues on a str0m stream; an egress plane of our own can replace it without touching them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use str0m::channel::ChannelId;
use str0m::media::{KeyframeRequestKind, Mid, Rid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Event, IceConnectionState, Input, Output, Rtc};

use super::formats::{FormatKey, Formats, Incoming, Outgoing};
use super::offer::Offer;
use super::outbox::Outbox;
use super::path::{Hop, Path};
use super::{Datagram, Timer, Transmit, channel, codec, demux};
use crate::command::{EndReason, MediaKind, Transport};
use crate::ids::{ParticipantId, SessionId};
use crate::media::clock::{PublisherClock, Report};
use crate::media::meter::DropReason;
use crate::media::signal::{Request, Signal};
use crate::media::{EncodingIndex, Forward, Packet, Seat, SlotIndex, TrackKey};

/// str0m may ask to be woken at once; a millisecond later is soon enough and never a busy loop.
const MIN_SLEEP: Duration = Duration::from_millis(1);
/// A client that is heard at all checks its path several times in this span (RFC 7675 §5.1: every 4 to 6 s).
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// After an ICE restart the old credentials stay valid for packets under way.
const MAX_UFRAGS: usize = 2;

/// Streams remembered for one client; 8 tracks of 3 encodings are 24. Beyond, old ones are looked up anew.
const MAX_SOURCES: usize = 64;
/// Receiving m-lines in the life of one session; the 41 of one offer, and some that were given up.
pub const MAX_SLOTS: usize = 64;

/// One client's PeerConnection.
pub struct Peer {
    pub(super) rtc: Rtc,
    pub room: usize,
    pub seat: Seat,
    pub session: SessionId,
    pub participant: ParticipantId,
    pub phase: Phase,
    pub opened_at: Instant,
    pub connected_at: Option<Instant>,
    /// Number of the ICE session, from 1.
    pub ice: u32,
    pub ufrags: VecDeque<String>,
    /// Authenticated source addresses, oldest first.
    pub addresses: VecDeque<(Transport, SocketAddr)>,
    /// Where the last datagram went.
    pub sends_to: Option<(Transport, IpAddr)>,
    pub path: Path,
    pub(super) offer: Offer,
    pub(super) tracks: Vec<TrackLine>,
    pub(super) slots: Vec<SlotLine>,
    sources: FxHashMap<u32, SourceStream>,
    clock: PublisherClock,
    incoming: Incoming,
    outgoing: Outgoing,
    channel: Option<ChannelId>,
    outbox: Outbox,
    /// When the client was last heard.
    pub heard_at: Instant,
    /// When str0m next has work.
    pub due: Instant,
    /// It has something to send and stands in the engine's queue.
    pub dirty: bool,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// ICE and DTLS go on; ends at the deadline.
    Connecting {
        until: Instant,
    },
    Connected,
    /// The media path is lost; ends at the deadline unless it comes back.
    Lost {
        until: Instant,
    },
    /// `leave` is on its way; str0m closes at the deadline, or as soon as it is delivered.
    Leaving {
        until: Instant,
    },
    /// str0m says goodbye; the peer is dropped at the deadline.
    Closing {
        until: Instant,
    },
}

/// A publishing m-line.
#[derive(Debug, Clone)]
pub struct TrackLine {
    pub mid: Mid,
    pub kind: MediaKind,
    /// The room's key, once it has one.
    pub key: Option<TrackKey>,
    pub rids: Vec<String>,
}

/// A receiving m-line.
#[derive(Debug, Clone)]
pub struct SlotLine {
    pub mid: Mid,
    pub name: String,
    pub kind: MediaKind,
    pub ssrc: Option<Ssrc>,
    pub first_seq: u16,
}

/// A stream we receive.
#[derive(Debug, Clone, Copy)]
struct SourceStream {
    track: TrackKey,
    kind: MediaKind,
    encoding: EncodingIndex,
    report: Option<Report>,
}

/// What came out of str0m.
#[expect(clippy::large_enum_variant, reason = "RTP is the common case; a box would cost an allocation a packet")]
pub enum PeerOutput {
    Transmit(Transmit),
    Rtp(Received),
    /// RTP nobody publishes.
    Unpublished,
    Connected,
    PathLost,
    PathRestored,
    ChannelOpen,
    Request(Request),
    KeyframeWanted(SlotIndex),
    /// The client closed its PeerConnection, or str0m gave up.
    Ended(EndReason),
}

/// A received packet with what is known of it.
pub struct Received {
    pub track: TrackKey,
    pub kind: MediaKind,
    pub encoding: EncodingIndex,
    pub format: FormatKey,
    pub facts: Packet,
    pub packet: RtpPacket,
}

/// Whose PeerConnection a new [`Peer`] is.
pub struct Owner {
    pub room: usize,
    pub session: SessionId,
    pub participant: ParticipantId,
}

impl Peer {
    /// A peer that has seen no offer yet.
    pub fn new(rtc: Rtc, owner: Owner, offer: Offer, until: Instant, now: Instant) -> Self {
        Self {
            rtc,
            room: owner.room,
            seat: Seat(0),
            session: owner.session,
            participant: owner.participant,
            phase: Phase::Connecting { until },
            opened_at: now,
            connected_at: None,
            ice: 0,
            ufrags: VecDeque::new(),
            addresses: VecDeque::new(),
            sends_to: None,
            path: Path::default(),
            offer,
            tracks: Vec::new(),
            slots: Vec::new(),
            sources: FxHashMap::default(),
            clock: PublisherClock::default(),
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            channel: None,
            outbox: Outbox::default(),
            heard_at: now,
            due: now,
            dirty: false,
        }
    }

    // === input ===

    /// One datagram. Drain [`Self::poll`] before the next: str0m keeps one received packet only.
    pub fn receive(&mut self, datagram: &Datagram<'_>, now: Instant) -> Result<(), DropReason> {
        let contents = datagram.contents.try_into().map_err(|_| DropReason::Malformed)?;
        let proto = match datagram.transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let receive = Receive { proto, source: datagram.source, destination: datagram.destination, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).map_err(|_| DropReason::Malformed)
    }

    /// Lets time pass, which also releases what was written. Drain [`Self::poll`] afterwards.
    pub fn tick(&mut self, now: Instant) {
        self.flush_outbox();
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.rtc.disconnect();
        }
    }

    /// Sends one copy of a packet on a slot. Payload bytes written, or why not.
    pub fn write(
        &mut self,
        forward: &Forward,
        received: &Received,
        formats: &Formats,
    ) -> Result<(MediaKind, usize), DropReason> {
        if !matches!(self.phase, Phase::Connected | Phase::Lost { .. }) {
            return Err(DropReason::SubscriberNotReady);
        }
        let slot = self.slots.get(usize::from(forward.slot.0)).ok_or(DropReason::SubscriberNotReady)?;
        let (ssrc, kind) = (slot.ssrc.ok_or(DropReason::SubscriberNotReady)?, slot.kind);
        let pt = self.outgoing.of(received.format, self.rtc.codec_config(), formats);
        let pt = pt.ok_or(DropReason::CodecMismatch)?;
        let packet = &received.packet;
        let write =
            RtpWrite::new(pt, forward.seq.into(), forward.timestamp, forward.captured_at, packet.payload.clone())
                .marker(packet.header.marker)
                .nackable(kind == MediaKind::Video)
                .ext_vals(codec::forwarded_extensions(&packet.header.ext_vals));
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx(&ssrc).ok_or(DropReason::SubscriberNotReady)?;
        stream.write_rtp(write);
        Ok((kind, packet.payload.len()))
    }

    /// Asks the client for a keyframe of one of its encodings.
    pub fn request_keyframe(&mut self, track: TrackKey, encoding: EncodingIndex) -> bool {
        let Some(line) = self.tracks.iter().find(|line| line.key == Some(track)) else { return false };
        let rid = line.rids.get(usize::from(encoding.0)).map(|rid| Rid::from(rid.as_str()));
        let mid = line.mid;
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_rx_by_mid(mid, rid) else { return false };
        stream.request_keyframe(KeyframeRequestKind::Pli);
        true
    }

    /// Queues a message on the data channel. False if the client reads too slowly to take it.
    pub fn tell(&mut self, signal: &Signal) -> bool {
        let fits = match signal {
            Signal::Message { .. } | Signal::Error { .. } => {
                self.outbox.push_expendable(signal);
                true
            }
            Signal::Leave { .. } => {
                self.outbox.push_last(signal);
                true
            }
            _ => self.outbox.push(signal),
        };
        self.flush_outbox();
        fits
    }

    fn flush_outbox(&mut self) {
        let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) else { return };
        while let Some(message) = self.outbox.front() {
            if !matches!(channel.write(false, message), Ok(true)) {
                break;
            }
            self.outbox.pop();
        }
    }

    /// Whether everything told has been handed over and acknowledged.
    pub fn is_flushed(&mut self) -> bool {
        let buffered = self.channel.and_then(|id| self.rtc.channel(id)).map_or(0, |mut c| c.buffered_amount());
        self.outbox.is_empty() && buffered == 0
    }

    /// Says goodbye on every layer: RTCP BYE, SCTP shutdown, DTLS close_notify.
    pub fn close(&mut self) {
        if self.rtc.close().is_err() {
            self.rtc.disconnect();
        }
    }

    /// When a client that sends nothing any more counts as lost. str0m finds a path dead by itself, but not one that
    /// never came up again after an ICE restart.
    pub fn silent_from(&self) -> Instant {
        self.heard_at + SILENCE_TIMEOUT
    }

    /// Whether the session has ended and only the goodbye is left.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. } | Phase::Closing { .. })
    }

    /// The next deadline: the session's own or str0m's.
    pub fn wake(&self) -> (Instant, Timer) {
        let own = match self.phase {
            Phase::Connected => (self.silent_from(), Timer::Silence),
            Phase::Connecting { until } => (until, Timer::Connect),
            Phase::Lost { until } => (until, Timer::Restart),
            Phase::Leaving { until } | Phase::Closing { until } => (until, Timer::Peer),
        };
        own.min((self.due, Timer::Peer))
    }

    /// Whether str0m still has something to do.
    pub fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    /// The room's key for a track just published.
    pub fn set_track_key(&mut self, mid: &str, key: TrackKey) {
        let mid = Mid::from(mid);
        for line in self.tracks.iter_mut().filter(|line| line.mid == mid) {
            line.key = Some(key);
        }
    }

    /// Forgets a track's streams: what still comes of them is not published.
    pub fn forget_track(&mut self, key: TrackKey) {
        self.sources.retain(|_, source| source.track != key);
    }

    /// Forgets all tracks: the session is over, and their keys may soon be somebody else's.
    pub fn forget_tracks(&mut self) {
        self.tracks.clear();
        self.sources.clear();
    }

    pub(super) fn forget_formats(&mut self) {
        self.incoming = Incoming::default();
        self.outgoing = Outgoing::default();
    }

    /// Notes our ICE credentials, which change with every restart.
    pub(super) fn note_credentials(&mut self) {
        let ufrag = self.rtc.direct_api().local_ice_credentials().ufrag;
        if self.ufrags.back() != Some(&ufrag) {
            self.ufrags.push_back(ufrag);
            self.ice += 1;
        }
    }

    /// The ufrag to forget now, if any: older than the last two.
    pub fn take_stale_ufrag(&mut self) -> Option<String> {
        (self.ufrags.len() > MAX_UFRAGS).then(|| self.ufrags.pop_front()).flatten()
    }

    // === output ===

    /// The next thing str0m did; `None` sets [`Self::due`].
    pub fn poll(&mut self, formats: &mut Formats, now: Instant) -> Option<PeerOutput> {
        loop {
            let output = match self.rtc.poll_output() {
                Ok(output) => output,
                Err(_) => {
                    self.rtc.disconnect();
                    return Some(PeerOutput::Ended(EndReason::ConnectionLost));
                }
            };
            match output {
                Output::Timeout(at) => {
                    self.due = at.max(now + MIN_SLEEP);
                    return None;
                }
                Output::Transmit(transmit) => return Some(self.transmit(transmit, now)),
                Output::Event(event) => {
                    if let Some(output) = self.event(event, formats, now) {
                        return Some(output);
                    }
                }
            }
        }
    }

    fn transmit(&mut self, transmit: str0m::net::Transmit, now: Instant) -> PeerOutput {
        let transport = if transmit.proto == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        let contents: Vec<u8> = transmit.contents.into();
        let nominated = Hop { transport, remote: transmit.destination, local: transmit.source };
        let hop = if demux::is_stun(&contents) {
            // The answer to a check goes where the check came from.
            nominated
        } else {
            self.path.redirect(transport, nominated.remote, now).unwrap_or(nominated)
        };
        self.sends_to = Some((hop.transport, hop.remote.ip()));
        PeerOutput::Transmit(Transmit {
            transport: hop.transport,
            source: hop.local,
            destination: hop.remote,
            contents,
        })
    }

    fn event(&mut self, event: Event, formats: &mut Formats, now: Instant) -> Option<PeerOutput> {
        match event {
            Event::RtpPacket(packet) => Some(self.received(packet, formats, now)),
            Event::Connected => Some(PeerOutput::Connected),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => Some(PeerOutput::PathLost),
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed) => {
                Some(PeerOutput::PathRestored)
            }
            Event::ChannelOpen(id, label) => self.channel_open(id, &label),
            Event::ChannelData(data) if Some(data.id) == self.channel => self.channel_data(&data.data, now),
            Event::ChannelClose(id) if Some(id) == self.channel => {
                self.channel = None;
                None
            }
            Event::KeyframeRequest(request) => {
                let slot = self.slots.iter().position(|slot| slot.mid == request.mid)?;
                Some(PeerOutput::KeyframeWanted(SlotIndex(slot as u16)))
            }
            Event::SenderFeedback(feedback) => {
                self.sender_report(&feedback.sender_info, feedback.received_at);
                None
            }
            Event::Closed => Some(PeerOutput::Ended(EndReason::ClientLeft)),
            _ => None,
        }
    }

    fn channel_open(&mut self, id: ChannelId, label: &str) -> Option<PeerOutput> {
        let protocol = self.rtc.channel(id)?.config().map(|config| config.protocol.clone());
        if label != channel::LABEL || protocol.as_deref() != Some(channel::PROTOCOL) || self.channel.is_some() {
            return None;
        }
        self.channel = Some(id);
        Some(PeerOutput::ChannelOpen)
    }

    fn channel_data(&mut self, data: &[u8], now: Instant) -> Option<PeerOutput> {
        if let Err(fault) = self.outbox.admit(data.len(), now) {
            self.tell(&fault.into());
            return None;
        }
        match channel::decode(data) {
            Ok(request) => request.map(PeerOutput::Request),
            Err(fault) => {
                self.tell(&fault.into());
                None
            }
        }
    }

    fn sender_report(&mut self, info: &str0m::rtp::rtcp::SenderInfo, received_at: Instant) {
        let Some(source) = self.sources.get_mut(&*info.ssrc) else { return };
        let since_1970 = info.ntp_time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let report = Report { ntp_micros: since_1970.as_micros() as i64, timestamp: info.rtp_time.numer() as u32 };
        source.report = Some(report);
        self.clock.report(report, received_at);
    }

    fn received(&mut self, packet: RtpPacket, formats: &mut Formats, now: Instant) -> PeerOutput {
        let ssrc = *packet.header.ssrc;
        let source = match self.sources.get(&ssrc) {
            Some(source) => *source,
            None => match self.resolve(packet.header.ssrc) {
                Some(source) => {
                    if self.sources.len() >= MAX_SOURCES {
                        self.sources.clear();
                    }
                    self.sources.insert(ssrc, source);
                    source
                }
                None => return PeerOutput::Unpublished,
            },
        };
        let format = self.incoming.of(packet.header.payload_type, self.rtc.codec_config(), formats);
        let Some((codec, format)) = format else { return PeerOutput::Unpublished };
        let captured_at = self.clock.captured_at(source.report, packet.header.timestamp, codec.clock_rate_hz(), now);
        let facts = codec::facts(&packet, codec, captured_at);
        let SourceStream { track, kind, encoding, .. } = source;
        PeerOutput::Rtp(Received { track, kind, encoding, format, facts, packet })
    }

    /// Which track and encoding a new stream belongs to. str0m has matched it by MID and RID, or by SSRC.
    fn resolve(&mut self, ssrc: Ssrc) -> Option<SourceStream> {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_rx(&ssrc)?;
        let (mid, rid) = (stream.mid(), stream.rid());
        let line = self.tracks.iter().find(|line| line.mid == mid)?;
        let encoding = match rid {
            Some(rid) => line.rids.iter().position(|known| Rid::from(known.as_str()) == rid)?,
            None => 0,
        };
        let encoding = EncodingIndex(encoding as u8);
        Some(SourceStream { track: line.key?, kind: line.kind, encoding, report: None })
    }
}
