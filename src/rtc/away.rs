//! Sessions that were moved to other engines, while their clients go on sending here: where each is, and by what its
//! datagrams are known. Looked at only for what belongs to no session here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::policer::{self, Policer};
use crate::command::ShardIndex;
use crate::ids::SessionId;
use crate::media::meter::DropReason;

/// The sessions that are away. Each engine a session was on keeps an entry until the session ends.
#[derive(Default)]
pub struct AwayTable {
    sessions: BTreeMap<SessionId, Away>,
    // Keys are bound by authenticated peers alone, so a cheap hash cannot be flooded.
    by_address: FxHashMap<SocketAddr, SessionId>,
    by_ufrag: FxHashMap<Box<str>, SessionId>,
}

/// One session that is away. What it is known by is bounded where the session is.
struct Away {
    to: ShardIndex,
    ufrags: Vec<Box<str>>,
    /// Of UDP; a TCP connection goes with its session.
    addresses: Vec<SocketAddr>,
    /// A flood ends here, before it fills the way to the other engine.
    policer: Policer,
}

impl AwayTable {
    /// A session leaves for another engine.
    pub fn depart<'a>(
        &mut self,
        session: SessionId,
        to: ShardIndex,
        ufrags: impl IntoIterator<Item = &'a String>,
        addresses: Vec<SocketAddr>,
        now: Instant,
    ) {
        let ufrags: Vec<Box<str>> = ufrags.into_iter().map(|ufrag| ufrag.as_str().into()).collect();
        self.by_ufrag.extend(ufrags.iter().map(|ufrag| (ufrag.clone(), session)));
        self.by_address.extend(addresses.iter().map(|source| (*source, session)));
        self.sessions.insert(session, Away { to, ufrags, addresses, policer: Policer::new(now) });
    }

    /// A session is back, or has ended. The addresses that are its own still.
    pub fn forget(&mut self, session: SessionId) -> Vec<SocketAddr> {
        let Some(Away { ufrags, mut addresses, .. }) = self.sessions.remove(&session) else { return Vec::new() };
        for ufrag in &ufrags {
            self.by_ufrag.remove(ufrag);
        }
        addresses.retain(|source| self.release(*source, session));
        addresses
    }

    /// A session that is away has gone on to yet another engine.
    pub fn redirect(&mut self, session: SessionId, to: ShardIndex) {
        if let Some(away) = self.sessions.get_mut(&session) {
            away.to = to;
        }
    }

    /// The engine that a session is on, if it has left this one.
    pub fn shard_of(&self, session: SessionId) -> Option<ShardIndex> {
        Some(self.sessions.get(&session)?.to)
    }

    /// Where to pass a datagram on to, if there are no more of them than the session's client may send.
    pub fn admit(&mut self, session: SessionId, now: Instant) -> Result<ShardIndex, DropReason> {
        let away = self.sessions.get_mut(&session).ok_or(DropReason::UnknownSource)?;
        if away.policer.admits(&policer::MEDIA, now) { Ok(away.to) } else { Err(DropReason::Policed) }
    }

    /// Whose address it is.
    pub fn at(&self, source: SocketAddr) -> Option<SessionId> {
        self.by_address.get(&source).copied()
    }

    /// Who answers to this local ufrag.
    pub fn of_ufrag(&self, ufrag: &str) -> Option<SessionId> {
        self.by_ufrag.get(ufrag).copied()
    }

    /// An address has been authenticated for a session, where that is.
    pub fn bind(&mut self, session: SessionId, source: SocketAddr) {
        let Some(away) = self.sessions.get_mut(&session) else { return };
        if !away.addresses.contains(&source) {
            away.addresses.push(source);
        }
        self.by_address.insert(source, session);
    }

    /// It has too many others.
    pub fn unbind(&mut self, session: SessionId, source: SocketAddr) {
        if let Some(away) = self.sessions.get_mut(&session) {
            away.addresses.retain(|other| *other != source);
            self.release(source, session);
        }
    }

    /// The address is somebody's here from now on.
    pub fn yield_address(&mut self, source: SocketAddr) {
        self.by_address.remove(&source);
    }

    /// A session answers to this local ufrag as well, or no longer does.
    pub fn set_ufrag(&mut self, session: SessionId, ufrag: &str, valid: bool) {
        let Some(away) = self.sessions.get_mut(&session) else { return };
        away.ufrags.retain(|other| **other != *ufrag);
        if valid {
            away.ufrags.push(ufrag.into());
            self.by_ufrag.insert(ufrag.into(), session);
        } else {
            self.by_ufrag.remove(ufrag);
        }
    }

    /// Whether nothing is left; tests ask after everyone has gone.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.by_address.is_empty() && self.by_ufrag.is_empty()
    }

    /// Takes an address away from this session, if it is its own.
    fn release(&mut self, source: SocketAddr, session: SessionId) -> bool {
        let own = self.by_address.get(&source) == Some(&session);
        if own {
            self.by_address.remove(&source);
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: ShardIndex = ShardIndex(1);
    const C: ShardIndex = ShardIndex(2);

    fn id(bits: u128) -> SessionId {
        SessionId::from_bits(bits)
    }

    fn source(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn with_one(now: Instant) -> AwayTable {
        let mut table = AwayTable::default();
        table.depart(id(1), B, &["one".to_owned()], vec![source(1), source(2)], now);
        table
    }

    #[test]
    fn a_session_is_found_by_all_it_is_known_by_and_follows_its_moves() {
        let now = Instant::now();
        let mut table = with_one(now);
        assert_eq!((table.at(source(2)), table.of_ufrag("one")), (Some(id(1)), Some(id(1))));
        assert_eq!(table.admit(id(1), now), Ok(B));
        table.redirect(id(1), C);
        table.redirect(id(9), C);
        assert_eq!((table.shard_of(id(1)), table.shard_of(id(9))), (Some(C), None));
        table.bind(id(1), source(3));
        table.unbind(id(1), source(1));
        table.set_ufrag(id(1), "two", true);
        table.set_ufrag(id(1), "two", true);
        table.set_ufrag(id(1), "one", false);
        assert_eq!([1, 2, 3].map(|port| table.at(source(port)).is_some()), [false, true, true]);
        assert_eq!(["one", "two"].map(|ufrag| table.of_ufrag(ufrag).is_some()), [false, true]);
        assert_eq!(table.forget(id(1)), [source(2), source(3)]);
        assert!(table.is_empty() && table.forget(id(1)).is_empty());
    }

    #[test]
    fn nothing_stays_of_what_comes_after_the_end() {
        let now = Instant::now();
        let mut table = with_one(now);
        table.forget(id(1));
        table.bind(id(1), source(3));
        table.set_ufrag(id(1), "three", true);
        table.redirect(id(1), C);
        assert!(table.is_empty());
        assert_eq!(table.admit(id(1), now), Err(DropReason::UnknownSource));
    }

    #[test]
    fn an_address_is_whose_that_was_authenticated_last() {
        let now = Instant::now();
        let mut table = with_one(now);
        table.depart(id(2), C, &["two".to_owned()], vec![source(2)], now);
        assert_eq!(table.at(source(2)), Some(id(2)));
        assert_eq!(table.forget(id(1)), [source(1)], "not the first one's to take along");
        table.yield_address(source(2));
        assert_eq!((table.at(source(2)), table.forget(id(2))), (None, Vec::new()));
        assert!(table.is_empty());
    }

    #[test]
    fn a_flood_is_not_passed_on() {
        let now = Instant::now();
        let mut table = with_one(now);
        let passed = (0..10_000).filter(|_| table.admit(id(1), now).is_ok()).count();
        assert_eq!((passed, table.admit(id(1), now)), (2_500, Err(DropReason::Policed)));
    }
}
