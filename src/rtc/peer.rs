//! One client's PeerConnection: the only place that polls str0m.
//!
//! str0m does ICE, DTLS, SCTP and SDP. Media passes it by: RTP and RTCP go to [`Ingress`] and [`Egress`], with the keys
//! that DTLS exported.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use str0m::channel::ChannelId;
use str0m::net::Protocol;
use str0m::{Event, IceConnectionState, Input, Output, Rtc};

use super::clock::NtpClock;
use super::egress::Egress;
use super::formats::{Formats, Incoming, Outgoing};
use super::ingress::Ingress;
use super::offer::Offer;
use super::outbox::Outbox;
use super::path::{Hop, Path};
use super::policer::Policer;
use super::store::PacketStore;
use super::{Stats, Timer, Transmit, answer, channel, crypto, demux};
use crate::command::{EndReason, MediaKind, ShardIndex, Transport};
use crate::ids::{IdSource, SessionId};
use crate::media::signal::{Request, Signal};
use crate::media::{EncodingIndex, Seat, Settled, SlotIndex, TrackKey};
use crate::units::Bitrate;

mod packing;

pub use packing::PackedPeer;

/// str0m may ask to be woken at once; a millisecond later is soon enough and never a busy loop.
pub const MIN_SLEEP: Duration = Duration::from_millis(1);
/// A client that is heard at all checks its path several times in this span (RFC 7675 §5.1: every 4 to 6 s).
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// A client that has not been heard of for this long is sent no media: str0m and RFC 7675 give a path up then or a
/// little later. What is sent and does not arrive uses numbers up, and after 2^15 the receiver would lose count of the
/// rollovers; in this time that is 2,000 packets a second of one stream.
const UNHEARD_TIMEOUT: Duration = Duration::from_secs(15);
/// So long after it was last heard a client counts as there: it checks its path every 4 to 6 s (RFC 7675 §5.1), and
/// nobody shall be billed for the time it takes to find out that they are gone.
const PRESENT_UNHEARD: Duration = Duration::from_secs(6);
/// After an ICE restart the old credentials stay valid for packets under way.
const MAX_UFRAGS: usize = 2;

/// Receiving m-lines in the life of one session; the 41 of one offer, and some that were given up.
pub const MAX_SLOTS: usize = 64;

/// One client's PeerConnection. `E`: its sending side, or that [packed](PackedPeer).
pub struct Peer<E = Egress> {
    pub(super) rtc: Rtc,
    pub room: usize,
    pub seat: Seat,
    pub session: SessionId,
    /// Where it was opened: its client sends there as long as it lives.
    pub home: ShardIndex,
    /// The engines it has left, which pass on what still comes in there.
    pub relays: Vec<ShardIndex>,
    pub phase: Phase,
    pub opened_at: Instant,
    pub connected_at: Option<Instant>,
    /// Number of the ICE session, from 1.
    pub ice: u32,
    pub ufrags: VecDeque<String>,
    /// Authenticated source addresses, oldest first.
    pub addresses: VecDeque<Address>,
    /// Where the last datagram went.
    pub sends_to: Option<(Transport, IpAddr)>,
    pub path: Path,
    pub(super) offer: Offer,
    pub(super) slots: Vec<SlotLine>,
    pub ingress: Ingress,
    pub egress: E,
    pub(super) cname: String,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    channel: Option<ChannelId>,
    outbox: Outbox,
    /// What came of RTCP.
    pub(super) events: VecDeque<PeerOutput>,
    /// Bound what the client sends of media, and of all else.
    pub media_policer: Policer,
    pub session_policer: Policer,
    /// When the client was last heard, and when to look whether it still is.
    pub heard_at: Instant,
    pub presence: Presence,
    silence_due: Instant,
    /// When str0m next has work.
    pub due: Instant,
    /// It has something to send and stands in the engine's queue.
    pub dirty: bool,
    /// str0m has something to send.
    pub wants_tick: bool,
}

/// An authenticated source address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub transport: Transport,
    pub source: SocketAddr,
    /// The engine its datagrams come in at, if that is another.
    pub via: Option<ShardIndex>,
}

/// What the peers of an engine share.
pub struct Shared {
    pub formats: Formats,
    pub store: PacketStore,
    pub stats: Stats,
    pub ids: IdSource,
    pub clock: NtpClock,
    /// Plaintext of the packet at hand.
    pub plain: Vec<u8>,
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

/// What a session is billed by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presence {
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Time in which nothing was heard of the client, before it came back.
    pub gaps: Duration,
}

/// A receiving m-line.
#[derive(Debug, Clone)]
pub struct SlotLine {
    /// Its MID.
    pub name: String,
    pub kind: MediaKind,
    /// What it sends with; for the session's life.
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    pub first_seq: u16,
    /// The payload type it sends RED (RFC 2198) with, if that is negotiated now.
    pub red: Option<u8>,
}

/// What a peer has done.
pub enum PeerOutput {
    Transmit(Transmit),
    Connected,
    PathLost,
    PathRestored,
    ChannelOpen,
    Request(Request),
    KeyframeWanted(SlotIndex),
    /// The subscriber's network took too little: the slot's video was given up.
    Starved(SlotIndex),
    /// What the subscriber's network takes; whether feedback said so.
    Estimate(Bitrate, bool),
    /// Too much of an encoding was lost to be asked for again.
    Broken(TrackKey, EncodingIndex),
    /// The client closed its PeerConnection, or str0m gave up.
    Ended(EndReason),
}

/// Whose PeerConnection a new [`Peer`] is.
pub struct Owner {
    pub room: usize,
    pub session: SessionId,
    pub home: ShardIndex,
}

impl Peer {
    /// A peer that has seen no offer yet.
    pub fn new(rtc: Rtc, owner: Owner, offer: Offer, shared: &mut Shared, until: Instant, now: Instant) -> Self {
        // RFC 7022 §4.2: random for each session.
        let cname = format!("{:08x}{:08x}{:08x}", shared.ids.bits(), shared.ids.bits(), shared.ids.bits());
        Self {
            rtc,
            room: owner.room,
            seat: Seat(0),
            session: owner.session,
            home: owner.home,
            relays: Vec::new(),
            phase: Phase::Connecting { until },
            opened_at: now,
            connected_at: None,
            ice: 0,
            ufrags: VecDeque::new(),
            addresses: VecDeque::new(),
            sends_to: None,
            path: Path::default(),
            offer,
            slots: Vec::new(),
            ingress: Ingress::new(shared.ids.bits(), shared.clock),
            egress: Egress::new(cname.clone(), shared.clock, now),
            cname,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            channel: None,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            media_policer: Policer::new(now),
            session_policer: Policer::new(now),
            heard_at: now,
            presence: Presence::default(),
            silence_due: now + SILENCE_TIMEOUT,
            due: now,
            dirty: false,
            wants_tick: false,
        }
    }

    /// Lets time pass, which also releases what was written. Drain [`Self::poll`] afterwards.
    pub fn tick(&mut self, now: Instant) {
        self.wants_tick = false;
        self.flush_outbox();
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.rtc.disconnect();
        }
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
    pub fn close(&mut self, shared: &mut Shared) {
        self.egress.close(&mut shared.stats);
        self.wants_tick = true;
        if self.rtc.close().is_err() {
            self.rtc.disconnect();
        }
    }

    /// When a client that sends nothing any more counts as lost. str0m finds a path dead by itself, but not one that
    /// never came up again after an ICE restart.
    pub fn silent_from(&self) -> Instant {
        self.heard_at + SILENCE_TIMEOUT
    }

    /// The participant sits in another room now, and is billed for it anew.
    pub fn relocated(&mut self, room: usize, settled: &Settled, now: Instant) {
        self.room = room;
        self.seat = settled.seat;
        self.ingress.rename_tracks(&settled.tracks);
        self.presence = Presence::default();
        self.connected_at = self.connected_at.map(|_| now);
    }

    /// Takes note of a datagram of the client's.
    pub fn hear(&mut self, bytes: usize, now: Instant) {
        self.presence.rx_bytes += bytes as u64;
        if self.connected_at.is_some() {
            self.presence.gaps += now.saturating_duration_since(self.heard_at + PRESENT_UNHEARD);
        }
        self.heard_at = now;
    }

    /// How long the client has been there since its media connected: never too long, and never less than it was.
    pub fn present_for(&self, now: Instant) -> Duration {
        let until = now.min(self.heard_at + PRESENT_UNHEARD);
        let since = self.connected_at.map_or(Duration::ZERO, |since| until.saturating_duration_since(since));
        since.saturating_sub(self.presence.gaps)
    }

    /// Whether media is likely to reach the client.
    pub fn takes_media(&self, now: Instant) -> bool {
        let connected = matches!(self.phase, Phase::Connected | Phase::Lost { .. });
        connected && now < self.heard_at + UNHEARD_TIMEOUT
    }

    /// Whether the session has ended and only the goodbye is left.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. } | Phase::Closing { .. })
    }

    /// The next deadline: the session's own or str0m's.
    pub fn wake(&self) -> (Instant, Timer) {
        let own = match self.phase {
            // Not moved with every packet: when it comes, it is set anew.
            Phase::Connected => (self.silence_due, Timer::Silence),
            Phase::Connecting { until } => (until, Timer::Connect),
            Phase::Lost { until } => (until, Timer::Restart),
            Phase::Leaving { until } | Phase::Closing { until } => (until, Timer::Peer),
        };
        let feedback = self.ingress.poll_timeout().map(|at| (at, Timer::Feedback));
        let pacer = self.egress.poll_timeout().map(|at| (at, Timer::Pacer));
        own.min((self.due, Timer::Peer)).min(feedback.unwrap_or(own)).min(pacer.unwrap_or(own))
    }

    /// Whether nothing has come for long; if not, looks again later.
    pub fn is_silent(&mut self, now: Instant) -> bool {
        self.silence_due = self.silent_from();
        now >= self.silence_due
    }

    /// Whether str0m still has something to do.
    pub fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    /// Payload types have been negotiated anew.
    pub(super) fn set_formats(&mut self, answer: &str) {
        self.incoming = Incoming::new(answer::red(answer, None));
        for slot in &mut self.slots {
            slot.red = answer::red(answer, Some(&slot.name)).first().map(|red| red.payload_type);
        }
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

    /// What came of RTCP.
    pub fn take_event(&mut self) -> Option<PeerOutput> {
        self.events.pop_front()
    }

    /// The next thing str0m did; `None` sets [`Self::due`].
    pub fn poll(&mut self, now: Instant) -> Option<PeerOutput> {
        // Left by a peer that panicked: not this one's.
        drop(crypto::take_exported());
        loop {
            let output = match self.rtc.poll_output() {
                Ok(output) => output,
                Err(_) => {
                    self.rtc.disconnect();
                    return Some(PeerOutput::Ended(EndReason::ConnectionLost));
                }
            };
            if let Some((sealer, opener)) = crypto::take_exported() {
                self.egress.set_sealer(sealer);
                self.ingress.set_opener(opener);
            }
            let output = match output {
                Output::Timeout(at) => {
                    self.due = at.max(now + MIN_SLEEP);
                    return None;
                }
                Output::Transmit(transmit) => self.transmit(transmit, now),
                Output::Event(event) => self.event(event, now),
            };
            if output.is_some() {
                return output;
            }
        }
    }

    fn transmit(&mut self, transmit: str0m::net::Transmit, now: Instant) -> Option<PeerOutput> {
        let transport = if transmit.proto == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        let contents: Vec<u8> = transmit.contents.into();
        // Whatever str0m makes of RTP and RTCP must not leave: it counts SRTCP indices of its own under the same keys.
        if demux::media(&contents).is_some() {
            return None;
        }
        let nominated = Hop { transport, remote: transmit.destination, local: transmit.source };
        // The answer to a check goes where the check came from.
        let hop = if demux::is_stun(&contents) { nominated } else { self.path.current(now).unwrap_or(nominated) };
        self.sends_to = Some((hop.transport, hop.remote.ip()));
        self.presence.tx_bytes += contents.len() as u64;
        Some(PeerOutput::Transmit(Transmit {
            transport: hop.transport,
            source: hop.local,
            destination: hop.remote,
            segment: contents.len(),
            contents,
        }))
    }

    fn event(&mut self, event: Event, now: Instant) -> Option<PeerOutput> {
        match event {
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
}
