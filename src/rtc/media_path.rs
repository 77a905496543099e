//! Media of one peer: what a datagram brings, and what leaves.

use std::time::Instant;

use str0m::Input;
use str0m::net::{Protocol, Receive};

use super::burst::Burst;
use super::egress::Copy;
use super::ingress::{Desk, Received, Taken};
use super::path::Hop;
use super::peer::{Peer, PeerOutput, Shared};
use super::store::PacketRef;
use super::{Datagram, Stats, demux, policer};
use crate::command::Transport;
use crate::media::meter::DropReason;
use crate::media::{EncodingIndex, Forward, Packet, SlotIndex, TrackKey};
use crate::rtp::rtcp;
use crate::units::Bitrate;

/// Packets of one RTCP compound that are looked at; 41 streams with a report and a request each are some fifty.
const CONTROL_PACKETS_MAX: usize = 100;
/// Larger RTP packets come in fragments or are made up; none fits a path's MTU (1,500 bytes and a little).
const RTP_BYTES_MAX: usize = 1600;

/// What a datagram was.
#[expect(clippy::large_enum_variant, reason = "handed on at once; a box would be an allocation for each packet")]
pub enum Arrival {
    Media(Received),
    /// RTCP, or RTP that is not forwarded. [`Peer::take_event`] has what came of it.
    Feedback,
    /// str0m's. Drain [`Peer::poll`].
    Session,
}

impl Peer {
    /// One datagram, if there are no more of them than [`policer`] allows.
    pub fn receive(
        &mut self,
        datagram: &Datagram<'_>,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<Arrival, DropReason> {
        let media = demux::media(datagram.contents);
        let admitted = match media {
            Some(_) => self.media_policer.admits(&policer::MEDIA, now),
            None => self.session_policer.admits(&policer::SESSION, now),
        };
        if !admitted {
            return Err(DropReason::Policed);
        }
        self.path.heard(datagram.transport, datagram.source, now);
        self.hear(datagram.contents.len(), now);
        match media {
            Some(demux::Media::Rtp) => return self.rtp(datagram.contents, shared, now),
            Some(demux::Media::Rtcp) => return self.rtcp(datagram.contents, shared, now),
            None => {}
        }
        let contents = datagram.contents.try_into().map_err(|_| DropReason::Malformed)?;
        let proto = match datagram.transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let receive = Receive { proto, source: datagram.source, destination: datagram.destination, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).map_err(|_| DropReason::Malformed)?;
        Ok(Arrival::Session)
    }

    fn rtp(&mut self, contents: &[u8], shared: &mut Shared, now: Instant) -> Result<Arrival, DropReason> {
        if contents.len() > RTP_BYTES_MAX {
            return Err(DropReason::Malformed);
        }
        let Shared { formats, store, plain, .. } = shared;
        let (incoming, config) = (&mut self.incoming, self.rtc.codec_config());
        let mut meaning = |pt| incoming.of(pt, config, formats);
        let mut desk = Desk { formats: &mut meaning, store, plain };
        match self.ingress.receive(contents, &mut desk, now) {
            Taken::Packet(received) => {
                if received.broken {
                    self.events.push_back(PeerOutput::Broken(received.track, received.encoding));
                }
                Ok(Arrival::Media(received))
            }
            Taken::Nothing => Ok(Arrival::Feedback),
            Taken::Dropped(reason) => Err(reason),
        }
    }

    fn rtcp(&mut self, contents: &[u8], shared: &mut Shared, now: Instant) -> Result<Arrival, DropReason> {
        let Shared { store, stats, plain, .. } = shared;
        self.ingress.open_rtcp(contents, plain)?;
        for packet in rtcp::parse(plain).take(CONTROL_PACKETS_MAX) {
            let Ok(packet) = packet else { break };
            match packet {
                rtcp::Packet::SenderReport { ssrc, info, reports } => {
                    self.ingress.sender_report(ssrc, &info, now);
                    reports.for_each(|block| self.egress.reported(&block, now));
                }
                rtcp::Packet::ReceiverReport { reports, .. } => {
                    reports.for_each(|block| self.egress.reported(&block, now));
                }
                rtcp::Packet::Nack { media, pairs, .. } if !self.is_leaving() => {
                    self.egress.retransmit(media, pairs.lost(), store, stats, now);
                }
                rtcp::Packet::TransportFeedback(feedback) => self.egress.flow().feedback(&feedback, now),
                rtcp::Packet::Remb { bitrate_bps, .. } => self.egress.flow().remb(Bitrate::from_bps(bitrate_bps), now),
                rtcp::Packet::Pli { media, .. } => self.keyframe_wanted(media, stats),
                rtcp::Packet::Fir { entries, .. } => {
                    for (ssrc, _) in entries {
                        self.keyframe_wanted(ssrc, stats);
                    }
                }
                // Goodbyes are said over DTLS and HTTP; a stream's end shows in its silence.
                _ => {}
            }
        }
        self.egress.sample(&mut stats.samples, now);
        self.tell_estimate();
        Ok(Arrival::Feedback)
    }

    /// Puts an estimate that is news among the events.
    pub fn tell_estimate(&mut self) {
        if let Some((estimate, measured)) = self.egress.flow().take_estimate() {
            self.events.push_back(PeerOutput::Estimate(estimate, measured));
        }
    }

    fn keyframe_wanted(&mut self, ssrc: u32, stats: &mut Stats) {
        let Some(slot) = self.egress.slot_of(ssrc) else { return };
        stats.keyframe_requests_in += 1;
        let wanted = SlotIndex(slot as u16);
        let known = |event: &PeerOutput| matches!(event, PeerOutput::KeyframeWanted(slot) if *slot == wanted);
        if !self.events.iter().any(known) {
            self.events.push_back(PeerOutput::KeyframeWanted(wanted));
        }
    }

    /// Queues copies for a slot, or counts why not.
    pub fn push(&mut self, forward: &Forward, burst: &Burst, shared: &mut Shared, now: Instant) {
        let packets = forward.packets(&burst.facts);
        let Err(reason) = self.push_all(forward, packets, burst, shared, now) else { return };
        shared.stats.drops.add(reason, packets.len() as u64);
    }

    fn push_all(
        &mut self,
        forward: &Forward,
        packets: &[Packet],
        burst: &Burst,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.takes_media(now) {
            return Err(DropReason::SubscriberNotReady);
        }
        let stream = burst.stream().ok_or(DropReason::Internal)?;
        let types = self.outgoing.of(stream.format, self.rtc.codec_config(), &shared.formats);
        let types = types.ok_or(DropReason::CodecMismatch)?;
        // RED names its blocks' payload types; where the subscriber's differ it would understand none.
        let red = self.slots.get(usize::from(forward.slot.0)).and_then(|slot| slot.red);
        let red = red.filter(|_| stream.format.primary == Some(types.media));
        let primary_only = stream.format.primary.is_some() && red.is_none();
        let store = &shared.store;
        let copies = packets.iter().map(|facts| {
            let (seq, timestamp) = forward.numbers(facts);
            let packet = PacketRef { ring: stream.ring, seq: facts.seq };
            let primary = primary_only.then(|| store.get(packet)).flatten();
            Copy {
                packet,
                seq,
                timestamp,
                captured_at: facts.captured_at,
                clock_rate_hz: facts.codec.clock_rate_hz(),
                bytes: primary.map_or(facts.bytes, |stored| stored.primary().len()),
                payload_type: red.unwrap_or(types.media),
                primary_only,
                rtx_payload_type: types.rtx,
                patch: forward.patch,
            }
        });
        let refused = self.egress.push(usize::from(forward.slot.0), copies, &mut shared.stats, now)?;
        shared.stats.drops.add(DropReason::SubscriberTooSlow, refused as u64);
        Ok(())
    }

    /// Seals what waits into the buffer: datagrams of the returned length, the last maybe shorter. Zero if none.
    pub fn fill(&mut self, buffer: &mut Vec<u8>, shared: &mut Shared, now: Instant) -> usize {
        if self.egress.is_ready() && self.ingress.has_feedback(now) {
            let round_trip = self.egress.round_trip();
            self.ingress.feedback(self.egress.rtcp(), &self.cname, round_trip, now);
        }
        let segment = self.egress.fill(buffer, &shared.store, &mut shared.stats, now);
        while let Some(slot) = self.egress.take_starved() {
            self.events.push_back(PeerOutput::Starved(SlotIndex(slot as u16)));
        }
        segment
    }

    /// Whether [`Self::fill`] would send something.
    pub fn has_work(&self, now: Instant) -> bool {
        self.egress.has_work(now) || self.ingress.has_feedback(now)
    }

    /// Where media goes now, of UDP and TCP the one in use.
    pub fn hop(&mut self, now: Instant) -> Option<Hop> {
        let hop = self.path.current(now)?;
        self.sends_to = Some((hop.transport, hop.remote.ip()));
        Some(hop)
    }

    /// Asks the client for a keyframe of one of its encodings.
    pub fn request_keyframe(&mut self, track: TrackKey, encoding: EncodingIndex) -> bool {
        self.ingress.request_keyframe(track, encoding, self.egress.rtcp())
    }
}
