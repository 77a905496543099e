//! One simulated participant: its connection, what it publishes and what it receives.

use std::time::Instant;

use mio::{Registry, Token};

use super::counts::Counts;
use super::inbound::{Inbound, note_connected};
use super::link::{Buffers, Link, Shared, Wishes};
use super::outbound::{Outbound, Scratch, Shape};
use super::sdp::Description;
use crate::ids::IdSource;
use crate::rtp::header::is_rtcp;
use crate::rtp::rtcp::{self, Packet};

/// Reports of sender and receiver.
const REPORT_NS: u64 = 1_000_000_000;
/// The SSRC of one who publishes nothing.
const NOBODY: u32 = 1;

/// What all participants are told by the options.
pub struct Media {
    /// One shape for each encoding, the smallest first.
    pub video: Vec<Shape>,
    pub audio_bytes: usize,
    pub feedback_ns: u64,
    /// Received packets to throw away, of 2³².
    pub loss: u32,
}

/// See the module.
pub struct Participant {
    pub room: usize,
    /// Its place in the room; who leaves is replaced by one with the same.
    pub place: usize,
    serial: u32,
    link: Link,
    offer: String,
    media: Option<(Outbound, Inbound)>,
    /// To speak under in RTCP.
    ssrc: u32,
    pub session_url: Option<String>,
    pub started_ns: u64,
    posted_ns: u64,
    pub connected: bool,
    feedback_ns: u64,
    report_ns: u64,
    talking: bool,
}

/// What a turn of a participant needs besides itself.
pub struct Turn<'a> {
    pub now: Instant,
    /// Since 1970.
    pub now_ns: u64,
    pub media: &'a Media,
    pub scratch: &'a mut Scratch,
    pub counts: &'a mut Counts,
}

impl Participant {
    /// One who has not joined yet.
    pub fn open(
        shared: &Shared,
        wishes: Wishes,
        registry: &Registry,
        (serial, room, place): (u32, usize, usize),
        (now, now_ns): (Instant, u64),
    ) -> anyhow::Result<Self> {
        let (link, offer) = Link::open(shared, wishes, registry, Token(serial as usize), now)?;
        Ok(Self {
            room,
            place,
            serial,
            link,
            offer,
            media: None,
            ssrc: NOBODY,
            session_url: None,
            started_ns: now_ns,
            posted_ns: 0,
            connected: false,
            feedback_ns: u64::MAX,
            report_ns: u64::MAX,
            talking: true,
        })
    }

    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// The server's answer came; the join was posted at `posted_ns`.
    pub fn accept(
        &mut self,
        answer: &str,
        session_url: String,
        posted_ns: u64,
        media: &Media,
        ids: &mut IdSource,
        now: Instant,
    ) -> anyhow::Result<()> {
        self.session_url = Some(session_url);
        self.posted_ns = posted_ns;
        let offered = Description::read(&std::mem::take(&mut self.offer));
        let taken = Description::read(answer);
        self.link.accept(answer, now)?;
        let outbound = Outbound::new(self.serial, &offered, &taken, &media.video, media.audio_bytes, ids);
        let interval_ns = media.video.first().map_or(0, |shape| shape.interval_ns);
        let mut inbound = Inbound::new(&offered, &taken, interval_ns);
        inbound.loss = (media.loss, ids.bits());
        inbound.waiting_since_ns = Some(posted_ns);
        self.ssrc = outbound.ssrc().unwrap_or(NOBODY);
        self.media = Some((outbound, inbound));
        Ok(())
    }

    /// Whether it speaks from now on.
    pub fn talk(&mut self, talking: bool) {
        self.talking = talking;
        if let Some((outbound, _)) = &mut self.media {
            outbound.talk(talking);
        }
    }

    /// When to take the next turn, in nanoseconds since 1970.
    pub fn due_ns(&self, now: Instant, now_ns: u64) -> u64 {
        let link = now_ns + self.link.due.saturating_duration_since(now).as_nanos() as u64;
        let Some((outbound, inbound)) = self.media.as_ref().filter(|_| self.connected) else { return link };
        let repair = if inbound.wants_repair { now_ns + 5_000_000 } else { u64::MAX };
        link.min(outbound.due_ns()).min(self.feedback_ns).min(self.report_ns).min(repair)
    }

    /// Does what is due. Whether the connection lives.
    pub fn turn(&mut self, turn: &mut Turn<'_>) -> bool {
        if turn.now >= self.link.due && !self.link.drive(turn.now, turn.counts) {
            return false;
        }
        self.check_connected(turn);
        let Some((outbound, inbound)) = self.media.as_mut().filter(|_| self.connected) else { return true };
        let (link, now_ns, ssrc) = (&mut self.link, turn.now_ns, self.ssrc);
        outbound.send_due(now_ns, link, turn.scratch, turn.counts);
        let rtcp = &mut turn.scratch.rtcp;
        if now_ns >= self.feedback_ns {
            self.feedback_ns = (self.feedback_ns + turn.media.feedback_ns).max(now_ns);
            inbound.feedback(rtcp, ssrc, |rtcp| {
                turn.counts.feedbacks_sent += 1;
                send_rtcp(link, rtcp, turn.counts);
            });
        }
        rtcp.clear();
        if now_ns >= self.report_ns {
            self.report_ns = (self.report_ns + REPORT_NS).max(now_ns);
            inbound.report(rtcp, ssrc, now_ns);
            outbound.report(now_ns, rtcp);
        }
        if inbound.wants_repair {
            inbound.ask(rtcp, ssrc, now_ns, turn.counts);
        }
        if !rtcp.is_empty() {
            send_rtcp(link, rtcp, turn.counts);
        }
        true
    }

    /// Media begins with the end of the handshake.
    fn check_connected(&mut self, turn: &mut Turn<'_>) {
        if self.connected || !self.link.connected || self.link.srtp.is_none() {
            return;
        }
        let Some((outbound, _)) = &mut self.media else { return };
        self.connected = true;
        note_connected(&mut turn.counts.joins, self.posted_ns, turn.now_ns);
        outbound.start(turn.now_ns);
        outbound.talk(self.talking);
        // Spread, so that participants do not all report at once.
        let spread = |interval_ns: u64| turn.now_ns + u64::from(self.serial) * 7_919_000 % interval_ns.max(1);
        self.feedback_ns = spread(turn.media.feedback_ns);
        self.report_ns = spread(REPORT_NS);
    }

    /// Reads what waits in the socket. Whether the connection lives.
    pub fn receive(&mut self, buffers: &mut Buffers, turn: &mut Turn<'_>) -> bool {
        let (media, now_ns) = (&mut self.media, turn.now_ns);
        let scratch = &mut *turn.scratch;
        let alive = self.link.receive(buffers, turn.now, turn.counts, |link, datagram, at_ns, counts| {
            let Some((outbound, inbound)) = media else { return };
            let at_ns = if at_ns == 0 { now_ns } else { at_ns };
            if datagram.get(1).is_some_and(|second| is_rtcp(*second)) {
                hear(link, outbound, inbound, datagram, now_ns, scratch, counts);
            } else if let Some((_, opener)) = &link.srtp {
                inbound.receive(opener, datagram, at_ns, counts);
            }
        });
        self.check_connected(turn);
        alive
    }

    /// What it receives, for the figures.
    pub fn inbound(&mut self) -> Option<&mut Inbound> {
        self.media.as_mut().map(|(_, inbound)| inbound)
    }

    /// Sends so many datagrams that are good for nothing.
    pub fn flood(&self, how_many: usize) {
        self.link.flood(how_many);
    }

    pub fn close(&mut self, registry: &Registry) {
        self.link.close(registry);
    }
}

/// An RTCP datagram arrived.
fn hear(
    link: &mut Link,
    outbound: &mut Outbound,
    inbound: &mut Inbound,
    datagram: &[u8],
    now_ns: u64,
    scratch: &mut Scratch,
    counts: &mut Counts,
) {
    let mut plain = std::mem::take(&mut scratch.rtcp);
    let opened = link.srtp.as_mut().is_some_and(|(_, opener)| opener.open_rtcp(datagram, &mut plain).is_ok());
    if !opened {
        counts.strange += 1;
    }
    for packet in rtcp::parse(&plain).map_while(Result::ok).filter(|_| opened) {
        match packet {
            Packet::SenderReport { ssrc, info, .. } => inbound.note_report(ssrc, &info, now_ns),
            Packet::Nack { media, pairs, .. } => {
                counts.nacks_received += 1;
                outbound.resend(media, pairs.lost(), link, scratch, counts);
            }
            Packet::Pli { media, .. } => {
                counts.plis_received += 1;
                outbound.want_keyframe(media);
            }
            Packet::Fir { entries, .. } => {
                counts.plis_received += 1;
                entries.for_each(|(ssrc, _)| outbound.want_keyframe(ssrc));
            }
            _ => {}
        }
    }
    plain.clear();
    scratch.rtcp = plain;
}

fn send_rtcp(link: &mut Link, rtcp: &mut Vec<u8>, counts: &mut Counts) {
    let sealed = link.srtp.as_mut().is_some_and(|(sealer, _)| sealer.seal_rtcp(rtcp, 0).is_ok());
    if sealed {
        link.send(rtcp, counts);
    }
    rtcp.clear();
}
