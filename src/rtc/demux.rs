//! Which peer a datagram belongs to, in O(1): first by address, for STUN requests by the local ufrag in USERNAME.
//!
//! Only a STUN request that passed its integrity check may bind an address (RFC 8445 §7.3); whatever else comes from
//! an unknown address is dropped without a reply, so the port neither reflects nor amplifies.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;
use str0m::ice::StunMessage;

use super::Datagram;
use super::away::AwayTable;
use crate::command::Transport;
use crate::ids::SessionId;
use crate::media::PeerKey;
use crate::media::meter::DropReason;
use crate::rtp::header::is_rtcp;

/// Smallest datagram that can be anything: an RTCP header.
const MIN_BYTES: usize = 4;
/// STUN header (RFC 8489 §5).
const STUN_HEADER_BYTES: usize = 20;
/// STUN message types: Binding request and success response.
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
/// STUN attribute (RFC 8445 §16.1).
const USE_CANDIDATE: [u8; 2] = [0x00, 0x25];
/// Addresses kept for one peer; a browser uses a handful of candidates per interface.
pub const MAX_ADDRESSES_PER_PEER: usize = 32;

/// The tables of one engine.
#[derive(Default)]
pub struct Demux {
    // Keys are bound by authenticated peers alone, so a cheap hash cannot be flooded.
    by_address: FxHashMap<(Transport, SocketAddr), PeerKey>,
    by_ufrag: FxHashMap<Box<str>, PeerKey>,
    /// Looked at where these lead nowhere.
    pub away: AwayTable,
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Peer {
        key: PeerKey,
        /// A STUN request whose success response, if the peer sends one, binds its source address.
        binding: bool,
    },
    /// A session that is on another engine now.
    Away(SessionId),
    Drop(DropReason),
}

/// What a datagram is, by RFC 7983.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Stun,
    Dtls,
    Rtp,
}

fn classify(contents: &[u8]) -> Option<Class> {
    if contents.len() < MIN_BYTES {
        return None;
    }
    match contents[0] {
        0..=3 if contents.len() >= STUN_HEADER_BYTES => Some(Class::Stun),
        20..=63 => Some(Class::Dtls),
        128..=191 => Some(Class::Rtp),
        _ => None,
    }
}

/// Media by RFC 7983, and which by RFC 5761.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Rtp,
    Rtcp,
}

/// Whether a datagram is media.
pub fn media(contents: &[u8]) -> Option<Media> {
    let is_media = classify(contents) == Some(Class::Rtp);
    is_media.then(|| if is_rtcp(contents[1]) { Media::Rtcp } else { Media::Rtp })
}

/// Whether a STUN request nominates its path: it has the attribute USE-CANDIDATE (RFC 8445 §7.1.2).
pub fn nominates(request: &[u8]) -> bool {
    let mut rest = request.get(STUN_HEADER_BYTES..).unwrap_or(&[]);
    while let [type_high, type_low, length_high, length_low, value @ ..] = rest {
        if [*type_high, *type_low] == USE_CANDIDATE {
            return true;
        }
        // Values are padded to four bytes (RFC 8489 §14).
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low])).next_multiple_of(4);
        rest = value.get(length..).unwrap_or(&[]);
    }
    false
}

/// Whether this outgoing datagram tells that a STUN request passed its integrity check.
pub fn is_binding_success(contents: &[u8]) -> bool {
    contents.starts_with(&BINDING_SUCCESS)
}

/// Whether a datagram is a STUN request, whose success response would bind its source.
pub fn is_binding_request(contents: &[u8]) -> bool {
    is_stun(contents) && contents.starts_with(&BINDING_REQUEST)
}

/// Whether a datagram is STUN (RFC 7983).
pub fn is_stun(contents: &[u8]) -> bool {
    classify(contents) == Some(Class::Stun)
}

impl Demux {
    /// Finds the peer.
    pub fn route(&self, datagram: &Datagram<'_>) -> Route {
        let Some(class) = classify(datagram.contents) else {
            return Route::Drop(DropReason::Malformed);
        };
        if class == Class::Stun && datagram.contents.starts_with(&BINDING_REQUEST) {
            return self.route_by_ufrag(datagram);
        }
        match self.by_address.get(&(datagram.transport, datagram.source)) {
            Some(key) => Route::Peer { key: *key, binding: false },
            None => self.route_away(datagram.transport, self.away.at(datagram.source), DropReason::UnknownSource),
        }
    }

    /// Over TCP nothing is passed on: the connection itself goes to where the session is.
    fn route_away(&self, transport: Transport, session: Option<SessionId>, otherwise: DropReason) -> Route {
        session.filter(|_| transport == Transport::Udp).map_or(Route::Drop(otherwise), Route::Away)
    }

    // The USERNAME decides even from a known address: the address may belong to somebody else by now.
    fn route_by_ufrag(&self, datagram: &Datagram<'_>) -> Route {
        let Ok(message) = StunMessage::parse(datagram.contents) else {
            return Route::Drop(DropReason::Malformed);
        };
        let Some((local, _)) = message.split_username() else { return Route::Drop(DropReason::UnknownUfrag) };
        match self.by_ufrag.get(local) {
            Some(key) => Route::Peer { key: *key, binding: true },
            None => self.route_away(datagram.transport, self.away.of_ufrag(local), DropReason::UnknownUfrag),
        }
    }

    /// A peer answers to this local ufrag.
    pub fn add_ufrag(&mut self, ufrag: &str, key: PeerKey) {
        self.by_ufrag.insert(ufrag.into(), key);
    }

    /// It no longer does.
    pub fn remove_ufrag(&mut self, ufrag: &str) {
        self.by_ufrag.remove(ufrag);
    }

    /// An address has been authenticated for a peer. Whether that is news.
    pub fn bind(&mut self, transport: Transport, source: SocketAddr, key: PeerKey) -> bool {
        if transport == Transport::Udp {
            self.away.yield_address(source);
        }
        self.by_address.insert((transport, source), key) != Some(key)
    }

    /// An address has been authenticated for a session that is away: it is nobody's here.
    pub fn bind_away(&mut self, session: SessionId, source: SocketAddr) {
        if self.away.shard_of(session).is_some() {
            self.by_address.remove(&(Transport::Udp, source));
            self.away.bind(session, source);
        }
    }

    /// Forgets an address, if it still is this peer's.
    pub fn unbind(&mut self, transport: Transport, source: SocketAddr, key: PeerKey) {
        if self.by_address.get(&(transport, source)) == Some(&key) {
            self.by_address.remove(&(transport, source));
        }
    }

    /// The peer of an address.
    pub fn peer_at(&self, transport: Transport, source: SocketAddr) -> Option<PeerKey> {
        self.by_address.get(&(transport, source)).copied()
    }

    /// Whether nothing is left; tests ask after everyone has gone.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty() && self.by_ufrag.is_empty() && self.away.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::command::ShardIndex;

    fn at(contents: &[u8], port: u16) -> Datagram<'_> {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        Datagram { transport: Transport::Udp, source: address, destination: address, contents }
    }

    #[test]
    fn every_first_byte_and_length_is_classified_without_a_panic() {
        let demux = Demux::default();
        for first in 0..=255u8 {
            for length in 0..64 {
                let mut contents = vec![0u8; length];
                contents.first_mut().into_iter().for_each(|byte| *byte = first);
                assert!(matches!(demux.route(&at(&contents, 1)), Route::Drop(_)));
            }
        }
        assert_eq!(classify(&[128, 0, 0, 0]), Some(Class::Rtp));
        assert_eq!(classify(&[22, 0xfe, 0xfd, 0]), Some(Class::Dtls));
        assert_eq!(classify(&[64; 40]), None, "TURN channel data");
        assert_eq!(classify(&[192; 40]), None, "QUIC");
    }

    #[test]
    fn an_address_leads_to_the_peer_that_bound_it_last() {
        let mut demux = Demux::default();
        let (one, two) = (PeerKey(1), PeerKey(2));
        let source = at(&[], 7).source;
        assert!(demux.bind(Transport::Udp, source, one));
        assert!(!demux.bind(Transport::Udp, source, one));
        assert!(demux.bind(Transport::Udp, source, two));
        assert_eq!(demux.route(&at(&[128; 20], 7)), Route::Peer { key: two, binding: false });
        demux.unbind(Transport::Udp, source, one);
        assert_eq!(demux.peer_at(Transport::Udp, source), Some(two), "not the first one's to take away");
        demux.unbind(Transport::Udp, source, two);
        assert_eq!(demux.route(&at(&[128; 20], 7)), Route::Drop(DropReason::UnknownSource));
        assert!(demux.is_empty());
    }

    #[test]
    fn what_belongs_to_nobody_here_may_belong_to_one_who_is_away() {
        let (source, session) = (at(&[], 7).source, SessionId::from_bits(1));
        let mut demux = Demux::default();
        demux.away.depart(session, ShardIndex(1), &[], vec![source], Instant::now());
        assert_eq!(demux.route(&at(&[128; 20], 7)), Route::Away(session));
        let tcp = Datagram { transport: Transport::Tcp, ..at(&[128; 20], 7) };
        assert_eq!(demux.route(&tcp), Route::Drop(DropReason::UnknownSource), "TCP connections go along");
        // Whoever is authenticated last has the address.
        demux.bind(Transport::Udp, source, PeerKey(3));
        assert_eq!(demux.route(&at(&[128; 20], 7)), Route::Peer { key: PeerKey(3), binding: false });
        demux.bind_away(session, source);
        assert_eq!(demux.route(&at(&[128; 20], 7)), Route::Away(session));
        demux.bind_away(SessionId::from_bits(9), source);
        assert_eq!(demux.route(&at(&[128; 20], 7)), Route::Away(session), "of one who is not away it says nothing");
        demux.away.forget(session);
        assert!(demux.is_empty());
    }

    #[test]
    fn a_binding_request_is_routed_by_its_ufrag() {
        let mut demux = Demux::default();
        demux.add_ufrag("srvu", PeerKey(5));
        let mut stun = vec![0, 1, 0, 48, 0x21, 0x12, 0xa4, 0x42];
        stun.extend([9; 12]);
        stun.extend([0, 6, 0, 9]);
        stun.extend(b"srvu:peer\0\0\0");
        stun.extend([0, 0x24, 0, 4, 1, 2, 3, 4]);
        stun.extend([0, 8, 0, 20]);
        stun.extend([7; 20]);
        assert_eq!(demux.route(&at(&stun, 1)), Route::Peer { key: PeerKey(5), binding: true });
        demux.remove_ufrag("srvu");
        assert_eq!(demux.route(&at(&stun, 1)), Route::Drop(DropReason::UnknownUfrag));
        let session = SessionId::from_bits(1);
        demux.away.depart(session, ShardIndex(1), &["srvu".to_owned()], Vec::new(), Instant::now());
        assert_eq!(demux.route(&at(&stun, 1)), Route::Away(session));
        stun[3] = 200;
        assert_eq!(demux.route(&at(&stun, 1)), Route::Drop(DropReason::Malformed));
    }
}
