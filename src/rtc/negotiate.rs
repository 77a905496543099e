//! From a client's offer to our answer, and from m-lines to tracks and slots.

use std::time::Instant;

use str0m::change::SdpOffer;
use str0m::format::PayloadParams;
use str0m::media::Mid;
use str0m::{Candidate as Str0mCandidate, Rtc, RtcConfig};

use super::ingress::TrackLine;
use super::offer::{Line, LinePurpose, Offer};
use super::peer::{MAX_SLOTS, Peer, SlotLine};
use super::{Candidate, Crypto, answer, codec};
use crate::command::{MediaKind, Refusal, Transport};
use crate::ids::IdSource;
use crate::media::{Codec, CodecSet, NewSlot, NewTrack, TrackKey};

/// First sequence numbers stay below this, so that a receiver's rollover count of 0 is right (RFC 3711 §3.3.1).
const FIRST_SEQ_MASK: u32 = 0x3fff;

/// What an accepted offer changed.
#[derive(Default)]
pub struct Changes {
    pub publish: Vec<NewTrack>,
    pub unpublish: Vec<TrackKey>,
    pub slots: Vec<NewSlot>,
}

/// A fresh `Rtc` that listens on our candidates.
pub fn build(crypto: &Crypto, candidates: &[Candidate], now: Instant) -> Rtc {
    let mut rtc = RtcConfig::new()
        .set_crypto_provider(crypto.provider())
        .set_dtls_cert(crypto.certificate())
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_opus(true, false)
        .enable_vp8(true)
        .enable_vp9(true)
        .enable_h264(true)
        .enable_av1(true)
        .set_stats_interval(None)
        .build(now);
    for candidate in candidates {
        let host = match candidate.transport {
            Transport::Udp => Str0mCandidate::host(candidate.address, "udp"),
            Transport::Tcp => {
                let passive = Str0mCandidate::builder().tcp().host(candidate.address);
                passive.tcptype(str0m::net::TcpType::Passive).build()
            }
        };
        if let Ok(host) = host {
            rtc.add_local_candidate(host);
        }
    }
    rtc
}

impl Peer {
    /// Accepts an offer in the text str0m shall see. Returns the answer; [`Self::changes`] tells what is new.
    pub fn accept(&mut self, offer: &Offer, text: &str, ids: &mut IdSource, now: Instant) -> Result<String, Refusal> {
        // str0m's messages may quote the SDP, so they stay here.
        let parsed = SdpOffer::from_sdp_string(text);
        let parsed = parsed.map_err(|_| Refusal::InvalidSdp("the SDP parser refused it".into()))?;
        let answer =
            self.rtc.sdp_api().accept_offer(parsed).map_err(|_| {
                Refusal::NotAcceptable("it does not fit the session, or lacks what WebRTC requires".into())
            })?;
        self.offer = offer.clone();
        self.note_credentials();
        self.add_slots(offer, ids);
        let is_slot = |mid: &str| offer.lines.iter().any(|line| line.mid == mid && line.receives());
        let answer = answer::finish(&answer.to_sdp_string(), text, is_slot, &self.slots, &self.cname);
        self.set_formats(&answer);
        for (index, slot) in self.slots.iter().enumerate() {
            let first_rtx = (ids.bits() & FIRST_SEQ_MASK) as u16;
            self.egress.set_stream(index, slot, answer::extension_ids(&answer, Some(&slot.name)), first_rtx, now);
        }
        // BUNDLE: an id means the same on every m-line (RFC 9143 §15).
        self.ingress.set_extension_ids(answer::extension_ids(&answer, None));
        Ok(answer)
    }

    fn add_slots(&mut self, offer: &Offer, ids: &mut IdSource) {
        for line in &offer.lines {
            let LinePurpose::Receive(kind) = line.purpose else { continue };
            if self.slots.iter().any(|slot| slot.name == line.mid) {
                continue;
            }
            let first_seq = (ids.bits() & FIRST_SEQ_MASK) as u16;
            let ssrc = self.new_ssrc(ids, &[]);
            let rtx_ssrc = self.new_ssrc(ids, &[ssrc]);
            self.slots.push(SlotLine { name: line.mid.clone(), kind, ssrc, rtx_ssrc, first_seq, red: None });
        }
    }

    /// A random SSRC that this session does not use yet (RFC 3550 §8.1).
    fn new_ssrc(&self, ids: &mut IdSource, others: &[u32]) -> u32 {
        loop {
            let ssrc = ids.bits();
            let taken = |slot: &SlotLine| slot.ssrc == ssrc || slot.rtx_ssrc == ssrc;
            if ssrc != 0 && !others.contains(&ssrc) && !self.slots.iter().any(taken) {
                return ssrc;
            }
        }
    }

    /// Whether the session can take the offer's receiving m-lines beside those it has had.
    pub fn check_slots(&self, offer: &Offer) -> Result<(), Refusal> {
        let is_new = |mid: &str| !self.slots.iter().any(|slot| slot.name == mid);
        let new = offer.lines.iter().filter(|line| line.receives()).filter(|line| is_new(&line.mid)).count();
        if self.slots.len() + new > MAX_SLOTS {
            let why = "the session has had 64 recvonly m-lines; reuse them by their mids, or join anew";
            return Err(Refusal::NotAcceptable(why.into()));
        }
        Ok(())
    }

    /// Compares the m-lines with the tracks and slots so far.
    pub fn changes(&mut self, ids: &mut IdSource) -> Changes {
        let mut changes = Changes::default();
        let lines = std::mem::take(&mut self.offer.lines);
        let (mut audio_position, mut video_position) = (0, 0);
        for line in &lines {
            let LinePurpose::Publish(kind) = line.purpose else { continue };
            let position = if kind == MediaKind::Audio { &mut audio_position } else { &mut video_position };
            *position += 1;
            let payload_types = self.payload_types(&line.mid);
            if let Some(known) = self.ingress.lines.iter_mut().find(|track| track.mid == line.mid) {
                known.ssrcs.clone_from(&line.ssrcs);
                known.rtx_ssrcs.clone_from(&line.rtx_ssrcs);
                known.payload_types = payload_types;
                continue;
            }
            let Some(codec) = self.codecs(&line.mid).next() else { continue };
            let Line { mid, rids, ssrcs, rtx_ssrcs, .. } = line.clone();
            changes.publish.push(NewTrack {
                sid: ids.id(),
                mid: mid.clone(),
                kind,
                position: *position - 1,
                codec,
                rids: rids.clone(),
            });
            self.ingress.lines.push(TrackLine { mid, kind, key: None, rids, ssrcs, rtx_ssrcs, payload_types });
        }
        let publishes =
            |mid: &str| lines.iter().any(|line| matches!(line.purpose, LinePurpose::Publish(_)) && line.mid == mid);
        let gone = self.ingress.lines.iter().filter(|track| !publishes(&track.mid));
        changes.unpublish = gone.filter_map(|track| track.key).collect();
        self.ingress.lines.retain(|track| publishes(&track.mid));
        changes.slots = self.slots.iter().map(|slot| self.describe_slot(slot, &lines)).collect();
        self.offer.lines = lines;
        changes
    }

    fn describe_slot(&self, slot: &SlotLine, lines: &[Line]) -> NewSlot {
        let SlotLine { name, kind, first_seq, .. } = slot.clone();
        let receives = lines.iter().any(|line| line.mid == name && line.receives());
        // A line that no longer receives stays a slot, but nothing fits into it.
        let codecs = if receives { self.codecs(&name).collect() } else { CodecSet::default() };
        NewSlot { mid: name, kind, codecs, first_seq }
    }

    /// The codecs negotiated on an m-line, preferred first.
    fn codecs(&self, mid: &str) -> impl Iterator<Item = Codec> {
        let pts = self.rtc.media(Mid::from(mid)).map_or(&[][..], |media| media.remote_pts());
        pts.iter().filter_map(|pt| {
            let params = self.rtc.codec_config().find(|params| params.pt() == *pt)?;
            codec::codec_of(params.spec().codec)
        })
    }

    /// The payload types negotiated on an m-line, for media, its retransmission and RED.
    fn payload_types(&self, mid: &str) -> Vec<u8> {
        let pts = self.rtc.media(Mid::from(mid)).map_or(&[][..], |media| media.remote_pts());
        let all = pts.iter().flat_map(|pt| {
            let params = self.rtc.codec_config().find(|params| params.pt() == *pt);
            let rtx = params.and_then(PayloadParams::resend).map(|pt| *pt);
            [Some(**pt), rtx, self.incoming.red_of(**pt)]
        });
        all.flatten().collect()
    }
}
