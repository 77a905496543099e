//! From a client's offer to our answer, and from m-lines to tracks and slots.

use std::time::{Duration, Instant};

use str0m::change::SdpOffer;
use str0m::media::Mid;
use str0m::{Candidate as Str0mCandidate, Rtc, RtcConfig};

use super::offer::{LinePurpose, Offer};
use super::peer::{MAX_SLOTS, Peer, SlotLine, TrackLine};
use super::{Candidate, Crypto, codec};
use crate::command::{MediaKind, Refusal, Transport};
use crate::ids::IdSource;
use crate::media::{Codec, CodecSet, NewSlot, NewTrack, TrackKey};

/// How often we report what we send (RFC 3550 §6.2 allows 360 ÷ kbit/s seconds). A second lets a receiver put sound
/// and picture in sync soon after a slot changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Retransmission caches, in packets: a second of 4 Mbit/s video; audio has no RTX.
const VIDEO_CACHE_PACKETS: usize = 512;
const AUDIO_CACHE_PACKETS: usize = 2;
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
        .set_rtcp_report_interval_audio(REPORT_INTERVAL)
        .set_rtcp_report_interval_video(REPORT_INTERVAL)
        .set_send_buffer_video(VIDEO_CACHE_PACKETS)
        .set_send_buffer_audio(AUDIO_CACHE_PACKETS)
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

/// Puts the payload types of every m-line of an answer in the offer's order. str0m lists them in its own, but a client
/// sends what stands first, and its order is its user's preference (RFC 3264 §6.1).
fn in_offered_order(answer: &str, offer: &str) -> String {
    let mut offered = offer.lines().filter(|line| line.starts_with("m="));
    let mut ordered = String::with_capacity(answer.len());
    for line in answer.lines() {
        if line.starts_with("m=") {
            let preference: Vec<&str> = offered.next().unwrap_or("").split_whitespace().skip(3).collect();
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let place = |pt: &&str| preference.iter().position(|other| other == pt).unwrap_or(usize::MAX);
            // The first three words are media, port and protocol; a stable sort keeps unknown ones last as they were.
            if let Some(payload_types) = words.get_mut(3..) {
                payload_types.sort_by_key(place);
            }
            ordered.push_str(&words.join(" "));
        } else {
            ordered.push_str(line);
        }
        ordered.push_str("\r\n");
    }
    ordered
}

impl Peer {
    /// Accepts an offer in the text str0m shall see. Returns the answer; [`Self::changes`] tells what is new.
    pub fn accept(&mut self, offer: &Offer, text: &str) -> Result<String, Refusal> {
        // str0m's messages may quote the SDP, so they stay here.
        let parsed = SdpOffer::from_sdp_string(text);
        let parsed = parsed.map_err(|_| Refusal::InvalidSdp("the SDP parser refused it".into()))?;
        let answer =
            self.rtc.sdp_api().accept_offer(parsed).map_err(|_| {
                Refusal::NotAcceptable("it does not fit the session, or lacks what WebRTC requires".into())
            })?;
        self.offer = offer.clone();
        self.forget_formats();
        self.note_credentials();
        Ok(in_offered_order(&answer.to_sdp_string(), text))
    }

    /// Whether the session can take the offer's receiving m-lines beside those it has had.
    pub fn check_slots(&self, offer: &Offer) -> Result<(), Refusal> {
        let is_new = |mid: &str| !self.slots.iter().any(|slot| slot.name == mid);
        let receives = |line: &&super::offer::Line| matches!(line.purpose, LinePurpose::Receive(_));
        let new = offer.lines.iter().filter(receives).filter(|line| is_new(&line.mid)).count();
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
            let mid = Mid::from(line.mid.as_str());
            let LinePurpose::Publish(kind) = line.purpose else { continue };
            let position = if kind == MediaKind::Audio { &mut audio_position } else { &mut video_position };
            *position += 1;
            let known = self.tracks.iter().any(|track| track.mid == mid);
            let Some(codec) = self.first_codec(mid).filter(|_| !known) else { continue };
            let sid = ids.id();
            self.tracks.push(TrackLine { mid, kind, key: None, rids: line.rids.clone() });
            let (rids, position) = (line.rids.clone(), *position - 1);
            changes.publish.push(NewTrack { sid, mid: line.mid.clone(), kind, position, codec, rids });
        }
        let publishes = |mid: Mid| {
            lines
                .iter()
                .any(|line| matches!(line.purpose, LinePurpose::Publish(_)) && Mid::from(line.mid.as_str()) == mid)
        };
        changes.unpublish = self.tracks.iter().filter(|track| !publishes(track.mid)).filter_map(|t| t.key).collect();
        self.tracks.retain(|track| publishes(track.mid));
        for line in &lines {
            let LinePurpose::Receive(kind) = line.purpose else { continue };
            let mid = Mid::from(line.mid.as_str());
            if !self.slots.iter().any(|slot| slot.mid == mid) {
                let first_seq = (ids.bits() & FIRST_SEQ_MASK) as u16;
                self.slots.push(SlotLine { mid, name: line.mid.clone(), kind, ssrc: None, first_seq });
            }
        }
        changes.slots = (0..self.slots.len()).map(|index| self.describe_slot(index, &lines)).collect();
        self.offer.lines = lines;
        changes
    }

    fn describe_slot(&mut self, index: usize, lines: &[super::offer::Line]) -> NewSlot {
        let SlotLine { mid, name, kind, first_seq, .. } = self.slots[index].clone();
        let receives = lines.iter().any(|line| line.mid == name && matches!(line.purpose, LinePurpose::Receive(_)));
        // A line that no longer receives stays a slot, but nothing fits into it.
        let codecs = if receives { self.codecs(mid).collect() } else { CodecSet::default() };
        let stream = self.rtc.direct_api().stream_tx_by_mid(mid, None).map(|stream| stream.ssrc());
        self.slots[index].ssrc = stream;
        NewSlot { mid: name, kind, codecs, first_seq }
    }

    /// The codecs negotiated on an m-line, preferred first.
    fn codecs(&self, mid: Mid) -> impl Iterator<Item = Codec> {
        let pts = self.rtc.media(mid).map_or(&[][..], |media| media.remote_pts());
        pts.iter().filter_map(|pt| {
            let params = self.rtc.codec_config().find(|params| params.pt() == *pt)?;
            codec::codec_of(params.spec().codec)
        })
    }

    fn first_codec(&self, mid: Mid) -> Option<Codec> {
        self.codecs(mid).next()
    }
}

#[cfg(test)]
mod tests {
    use super::in_offered_order;

    #[test]
    fn what_the_client_prefers_comes_first() {
        let offer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97\r\n";
        let answer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\na=mid:1\r\n";
        let expected =
            "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97\r\na=mid:1\r\n";
        assert_eq!(in_offered_order(answer, offer), expected);
    }
}
