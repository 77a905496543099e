//! One participant's connection: a socket, str0m for ICE, DTLS and SCTP, and SRTP of our own beside it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, UdpSocketState};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::crypto::CryptoProvider;
use str0m::crypto::dtls::DtlsCert;
use str0m::media::{Direction, MediaKind as RtcKind, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use super::counts::Counts;
use crate::command::MediaKind;
use crate::rtc::take_exported;
use crate::rtp::srtp::{Opener, Sealer};

/// One receive call takes so many datagrams.
pub const BATCH: usize = 16;
/// Beyond every path's MTU.
pub const BUFFER_BYTES: usize = 4096;
const SOCKET_BUFFER_BYTES: usize = 1 << 20;
/// A datagram of a flood, in bytes, and how many leave in one send.
const FLOOD_BYTES: usize = 200;
const FLOOD_RUN: usize = 50;
/// First bytes of RTP and RTCP (RFC 7983 §7), which str0m neither sees nor sends here.
const MEDIA: std::ops::RangeInclusive<u8> = 128..=191;
/// First bytes of DTLS.
const DTLS: std::ops::RangeInclusive<u8> = 20..=63;
/// str0m reports on media, of which it sees none.
const NEVER: Duration = Duration::from_secs(3600);
/// Encodings of simulcast, the smallest first.
pub const RIDS: [&str; 3] = ["q", "h", "f"];

/// What all connections of the tool share.
pub struct Shared {
    pub provider: Arc<CryptoProvider>,
    pub certificate: DtlsCert,
    /// The address by which this machine reaches the server.
    pub local: IpAddr,
}

/// Which m-lines a participant offers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    pub camera: bool,
    pub microphone: bool,
    pub simulcast: bool,
    pub video_slots: usize,
    pub audio_slots: usize,
    pub channel: bool,
}

/// Memory to receive into, one for all.
pub struct Buffers(Vec<Vec<u8>>);

impl Default for Buffers {
    fn default() -> Self {
        Self(vec![vec![0; BUFFER_BYTES]; BATCH])
    }
}

/// See the module.
pub struct Link {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    socket: mio::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    pub srtp: Option<(Sealer, Opener)>,
    pub connected: bool,
    /// When str0m wants to be driven.
    pub due: Instant,
}

impl Link {
    /// A connection that is not one yet, and its offer.
    pub fn open(
        shared: &Shared,
        wishes: Wishes,
        registry: &Registry,
        token: Token,
        now: Instant,
    ) -> anyhow::Result<(Self, String)> {
        #[expect(clippy::disallowed_methods, reason = "the load tool's participants have sockets of their own")]
        let mut socket = mio::net::UdpSocket::bind(SocketAddr::new(shared.local, 0))?;
        // As much as the system allows; with less it only loses sooner.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let state = UdpSocketState::new((&socket).into())?;
        // Receivers out on a network get datagrams, not the server's GSO runs whole: let the kernel cut them here as a
        // network card's driver would, or the server seems a third cheaper than it is.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGroSegment, &false)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        let local = socket.local_addr()?;
        let mut rtc = RtcConfig::new()
            .set_crypto_provider(Arc::clone(&shared.provider))
            .set_dtls_cert(shared.certificate.clone())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_stats_interval(None)
            .set_rtcp_report_interval_audio(NEVER)
            .set_rtcp_report_interval_video(NEVER)
            .build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp")?);
        let (offer, pending) = offer(&mut rtc, wishes).ok_or_else(|| anyhow::anyhow!("nothing to offer"))?;
        let link = Self {
            rtc,
            pending: Some(pending),
            socket,
            state,
            local,
            remote: None,
            srtp: None,
            connected: false,
            due: now,
        };
        Ok((link, offer))
    }

    /// Takes the server's answer.
    pub fn accept(&mut self, answer: &str, now: Instant) -> anyhow::Result<()> {
        let answer = SdpAnswer::from_sdp_string(answer)?;
        if let Some(pending) = self.pending.take() {
            self.rtc.sdp_api().accept_answer(pending, answer)?;
        }
        self.due = now;
        Ok(())
    }

    /// Lets str0m do what is due. Whether the connection lives.
    pub fn drive(&mut self, now: Instant, counts: &mut Counts) -> bool {
        self.rtc.handle_input(Input::Timeout(now)).is_ok() && self.poll(counts)
    }

    /// A datagram for str0m. Whether the connection lives.
    fn feed(&mut self, source: SocketAddr, datagram: &[u8], now: Instant, counts: &mut Counts) -> bool {
        let Ok(contents) = datagram.try_into() else {
            counts.strange += 1;
            return true;
        };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
        self.rtc.handle_input(Input::Receive(now, receive)).is_ok() && self.poll(counts)
    }

    fn poll(&mut self, counts: &mut Counts) -> bool {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.due = at;
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    let first = transmit.contents.first().copied().unwrap_or(0);
                    if !MEDIA.contains(&first) {
                        if DTLS.contains(&first) {
                            self.remote = Some(transmit.destination);
                        }
                        counts.datagrams_out += 1;
                        // What does not leave is repeated.
                        let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                    }
                }
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::ChannelData(_))) => counts.channel_messages += 1,
                Ok(Output::Event(_)) => {}
                Err(_) => return false,
            }
        }
        if let Some(contexts) = take_exported() {
            self.srtp = Some(contexts);
        }
        self.rtc.is_alive()
    }

    /// Sends a datagram to where the handshake went.
    pub fn send(&self, datagram: &[u8], counts: &mut Counts) {
        let Some(remote) = self.remote else { return };
        counts.datagrams_out += 1;
        if self.socket.send_to(datagram, remote).is_err() {
            counts.send_errors += 1;
        }
    }

    /// Sends so many datagrams that look like RTP, in runs. What the kernel does not take is lost, as floods are.
    pub fn flood(&self, how_many: usize) {
        let Some(destination) = self.remote else { return };
        let mut run = [0; FLOOD_BYTES * FLOOD_RUN];
        run.chunks_mut(FLOOD_BYTES).for_each(|datagram| datagram[0] = *MEDIA.start());
        for left in (1..=how_many).rev().step_by(FLOOD_RUN) {
            let contents = &run[..left.min(FLOOD_RUN) * FLOOD_BYTES];
            let segment_size = Some(FLOOD_BYTES);
            let transmit = quinn_udp::Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
            let _ = self.state.try_send((&self.socket).into(), &transmit);
        }
    }

    /// Reads all that waits. Media goes to `each` with the nanoseconds since 1970 at which the kernel had it; the rest
    /// to str0m. Whether the connection lives.
    pub fn receive(
        &mut self,
        buffers: &mut Buffers,
        now: Instant,
        counts: &mut Counts,
        mut each: impl FnMut(&mut Self, &[u8], u64, &mut Counts),
    ) -> bool {
        let mut alive = true;
        loop {
            let mut meta = [RecvMeta::default(); BATCH];
            let mut filled = 0;
            {
                let Some(all) = buffers.0.first_chunk_mut::<BATCH>() else { return alive };
                let mut slices = all.each_mut().map(|buffer| IoSliceMut::new(buffer));
                match self.state.recv((&self.socket).into(), &mut slices, &mut meta) {
                    Ok(count) => filled = count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return alive,
                    // An ICMP report, such as of a server that is gone; others may wait behind it.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(_) => counts.strange += 1,
                }
            }
            for (buffer, meta) in buffers.0.iter().zip(&meta).take(filled) {
                let at_ns = meta.timestamp.map_or(0, |at| at.as_nanos() as u64);
                for datagram in buffer.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
                    counts.datagrams_in += 1;
                    match datagram.first() {
                        Some(first) if MEDIA.contains(first) => each(self, datagram, at_ns, counts),
                        Some(_) => alive &= self.feed(meta.addr, datagram, now, counts),
                        None => {}
                    }
                }
            }
            // A batch that is not full has emptied the socket; what comes later is a new event.
            if filled < BATCH {
                return alive;
            }
        }
    }

    /// The socket watches no more.
    pub fn close(&mut self, registry: &Registry) {
        // It goes with the socket anyway.
        let _ = registry.deregister(&mut self.socket);
    }
}

/// The m-lines: what is published first, as the server numbers the default sources; then the slots.
fn offer(rtc: &mut Rtc, wishes: Wishes) -> Option<(String, SdpPendingOffer)> {
    let mut api = rtc.sdp_api();
    if wishes.microphone {
        api.add_media(RtcKind::Audio, Direction::SendOnly, None, None, None);
    }
    if wishes.camera {
        let layers = RIDS.iter().map(|rid| SimulcastLayer::new(rid)).collect();
        let simulcast = wishes.simulcast.then(|| Simulcast { send: layers, recv: Vec::new() });
        api.add_media(RtcKind::Video, Direction::SendOnly, None, None, simulcast);
    }
    let slots = [(RtcKind::Audio, wishes.audio_slots), (RtcKind::Video, wishes.video_slots)];
    for (kind, count) in slots {
        for _ in 0..count {
            api.add_media(kind, Direction::RecvOnly, None, None, None);
        }
    }
    if wishes.channel {
        let config = ChannelConfig {
            label: "stube".to_owned(),
            ordered: true,
            reliability: Reliability::Reliable,
            negotiated: None,
            protocol: "stube.v1".to_owned(),
        };
        api.add_channel_with_config(config);
    }
    let (offer, pending) = api.apply()?;
    Some((offer.to_sdp_string(), pending))
}

/// The RTP clock of a kind of media.
pub fn clock_rate(kind: MediaKind) -> u32 {
    match kind {
        MediaKind::Audio => 48_000,
        MediaKind::Video => 90_000,
    }
}
