//! Which rooms and sessions there are, whose they are, and which shard holds them.
//!
//! Fed by what control does and by the shards' notices. Notices can be lost under load, so an entry may outlive its
//! room; whoever then asks the shard is refused, and removes the entry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::{Notice, RoomSettings};
use crate::ids::{Identity, RoomId, RoomName, SessionId, Tenant};
use crate::ledger::record::UnixMs;
use crate::shard::ShardIndex;

/// A room that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEntry {
    pub room: RoomId,
    pub name: RoomName,
    pub shard: ShardIndex,
    pub settings: RoomSettings,
    pub created_at: UnixMs,
    pub made_as: Arc<MadeAs>,
}

/// How a room came to be: the defaults of that time, and the settings it was allocated with.
#[derive(Debug, PartialEq, Eq)]
pub struct MadeAs {
    pub defaults: RoomSettings,
    pub settings: RoomSettings,
}

impl MadeAs {
    /// Of a room of an earlier run nothing more is known than how it is.
    pub fn known(settings: &RoomSettings) -> Self {
        Self { defaults: settings.clone(), settings: settings.clone() }
    }
}

/// A session that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    pub tenant: Tenant,
    pub room: RoomId,
    pub room_name: RoomName,
    /// The room it was opened in: the one that its participant's token names, wherever they were moved since.
    pub joined_room: RoomName,
    pub identity: Identity,
    pub shard: ShardIndex,
}

/// All rooms and sessions.
#[derive(Debug, Default)]
pub struct Directory(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    rooms: BTreeMap<(Tenant, RoomName), RoomEntry>,
    names: BTreeMap<RoomId, (Tenant, RoomName)>,
    sessions: BTreeMap<SessionId, SessionEntry>,
    sessions_of: BTreeMap<RoomId, BTreeSet<SessionId>>,
}

/// How much a shard has to do, as far as control knows at once; its snapshot is up to a second old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    saturated: bool,
    sessions: usize,
    rooms: usize,
}

impl Directory {
    /// The tenant's room of this name.
    pub fn room(&self, tenant: &Tenant, name: &RoomName) -> Option<RoomEntry> {
        self.entries().rooms.get(&(tenant.clone(), name.clone())).cloned()
    }

    /// Up to `limit` of the tenant's rooms by name, from the one after `after` on.
    pub fn page(&self, tenant: &Tenant, after: Option<&RoomName>, limit: usize) -> Vec<RoomEntry> {
        let from = match after {
            Some(name) => Bound::Excluded((tenant.clone(), name.clone())),
            None => Bound::Included((tenant.clone(), RoomName::default())),
        };
        let entries = self.entries();
        let rooms = entries.rooms.range((from, Bound::Unbounded)).take_while(|((owner, _), _)| owner == tenant);
        rooms.take(limit).map(|(_, entry)| entry.clone()).collect()
    }

    /// The room of this id, and whose it is.
    pub fn room_of_id(&self, room: RoomId) -> Option<(Tenant, RoomEntry)> {
        let entries = self.entries();
        let key = entries.names.get(&room)?;
        Some((key.0.clone(), entries.rooms.get(key)?.clone()))
    }

    /// How many rooms of all tenants have `search` in their name or API key, and the `limit` of them with the most
    /// sessions, by name.
    pub fn largest(&self, search: &str, limit: usize) -> (usize, Vec<(Tenant, RoomEntry)>) {
        let entries = self.entries();
        let holds = |text: &str| text.contains(search) || text.to_lowercase().contains(search);
        let fits = |tenant: &Tenant, name: &RoomName| holds(name.as_str()) || holds(tenant.key());
        let mut found: Vec<_> = entries.rooms.iter().filter(|((tenant, name), _)| fits(tenant, name)).collect();
        let sessions = |room: RoomId| entries.sessions_of.get(&room).map_or(0, BTreeSet::len);
        // Stable: rooms of one size stay in the order of their names.
        found.sort_by_key(|(_, entry)| Reverse(sessions(entry.room)));
        let largest = found.iter().take(limit).map(|((tenant, _), entry)| (tenant.clone(), (*entry).clone())).collect();
        (found.len(), largest)
    }

    /// Adds a room, in place of one of the same name.
    pub fn insert_room(&self, tenant: &Tenant, entry: RoomEntry) {
        let mut entries = self.entries();
        let key = (tenant.clone(), entry.name.clone());
        entries.names.insert(entry.room, key.clone());
        if let Some(replaced) = entries.rooms.insert(key, entry) {
            entries.names.remove(&replaced.room);
            entries.forget_sessions(replaced.room);
        }
    }

    /// Replaces a room's settings.
    pub fn change_room(&self, room: RoomId, settings: RoomSettings) {
        let mut entries = self.entries();
        let Some(key) = entries.names.get(&room).cloned() else { return };
        if let Some(entry) = entries.rooms.get_mut(&key) {
            entry.settings = settings;
        }
    }

    /// Forgets a room and its sessions.
    pub fn remove_room(&self, room: RoomId) {
        self.entries().remove_room(room);
    }

    /// Which shard a room is on.
    pub fn shard_of(&self, room: RoomId) -> Option<ShardIndex> {
        let entries = self.entries();
        Some(entries.rooms.get(entries.names.get(&room)?)?.shard)
    }

    /// A session goes to another room. Orders still go to its shard, which knows where it is.
    pub fn move_session(&self, session: SessionId, room: &RoomEntry) {
        let mut entries = self.entries();
        let Some(mut entry) = entries.sessions.get(&session).cloned() else { return };
        entries.remove_session(session);
        entry.room = room.room;
        entry.room_name = room.name.clone();
        entries.sessions_of.entry(room.room).or_default().insert(session);
        entries.sessions.insert(session, entry);
    }

    /// A session is on this shard now.
    pub fn set_shard(&self, session: SessionId, shard: ShardIndex) {
        if let Some(entry) = self.entries().sessions.get_mut(&session) {
            entry.shard = shard;
        }
    }

    /// The session of an identity in a room.
    pub fn session_of(&self, room: RoomId, identity: &Identity) -> Option<SessionId> {
        let entries = self.entries();
        let mut sessions = entries.sessions_of.get(&room)?.iter().copied();
        // The latest to join is the one that is left of several.
        sessions.rfind(|session| entries.sessions.get(session).is_some_and(|entry| entry.identity == *identity))
    }

    /// How many sessions there are.
    pub fn num_sessions(&self) -> usize {
        self.entries().sessions.len()
    }

    /// Whether anybody is in a room, or about to be.
    pub fn is_in_use(&self, room: RoomId) -> bool {
        self.entries().sessions_of.contains_key(&room)
    }

    /// The session of this id.
    pub fn session(&self, session: SessionId) -> Option<SessionEntry> {
        self.entries().sessions.get(&session).cloned()
    }

    /// Adds a session.
    pub fn insert_session(&self, session: SessionId, entry: SessionEntry) {
        let mut entries = self.entries();
        entries.sessions_of.entry(entry.room).or_default().insert(session);
        entries.sessions.insert(session, entry);
    }

    /// Forgets a session.
    pub fn remove_session(&self, session: SessionId) {
        self.entries().remove_session(session);
    }

    /// Takes in what a shard tells.
    pub fn apply(&self, notice: &Notice) {
        match notice {
            Notice::RoomFinished { room, .. } => self.remove_room(*room),
            Notice::SessionEnded { session, .. } => self.remove_session(*session),
            Notice::CallStarted { .. }
            | Notice::CallEnded { .. }
            | Notice::ParticipantJoined { .. }
            | Notice::SessionMoved { .. }
            | Notice::TrackPublished { .. }
            | Notice::TrackUnpublished { .. } => {}
        }
    }

    /// The shard with the least to do, of those that are not saturated if there are any: the place for a new room.
    pub fn least_loaded(&self, saturated: &[bool]) -> ShardIndex {
        let entries = self.entries();
        let load = |saturated: &bool| Load { saturated: *saturated, ..Load::default() };
        let mut loads: Vec<_> = saturated.iter().map(load).collect();
        for entry in entries.rooms.values() {
            if let Some(load) = loads.get_mut(entry.shard.0) {
                load.rooms += 1;
                load.sessions += entries.sessions_of.get(&entry.room).map_or(0, BTreeSet::len);
            }
        }
        lightest(&loads)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every change below leaves the maps usable, so a panic elsewhere is no reason to stop.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first of the shards that are not saturated with the fewest sessions, and of those with the fewest rooms.
fn lightest(loads: &[Load]) -> ShardIndex {
    let lightest = loads.iter().enumerate().min_by_key(|(_, load)| **load);
    ShardIndex(lightest.map_or(0, |(index, _)| index))
}

impl Entries {
    fn remove_room(&mut self, room: RoomId) {
        if let Some(key) = self.names.remove(&room) {
            self.rooms.remove(&key);
        }
        self.forget_sessions(room);
    }

    fn forget_sessions(&mut self, room: RoomId) {
        for session in self.sessions_of.remove(&room).unwrap_or_default() {
            self.sessions.remove(&session);
        }
    }

    fn remove_session(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.remove(&session) else { return };
        if let Some(sessions) = self.sessions_of.get_mut(&entry.room) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.sessions_of.remove(&entry.room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::EndReason;
    use crate::control::clock::Clock;

    fn entry(bits: u128, name: &str, shard: usize) -> RoomEntry {
        let settings = RoomSettings {
            name: name.into(),
            metadata: "".into(),
            max_participants: 1,
            empty_timeout: Duration::ZERO,
            departure_timeout: Duration::ZERO,
            max_duration: None,
        };
        let made_as = Arc::new(MadeAs::known(&settings));
        let (room, created_at) = (RoomId::from_bits(bits), UnixMs(0));
        RoomEntry { room, name: name.into(), shard: ShardIndex(shard), settings, created_at, made_as }
    }

    fn session(room: u128, shard: usize) -> SessionEntry {
        SessionEntry {
            tenant: "a".into(),
            room: RoomId::from_bits(room),
            room_name: "x".into(),
            joined_room: "x".into(),
            identity: "ada".into(),
            shard: ShardIndex(shard),
        }
    }

    #[test]
    fn tenants_see_their_own_rooms_in_order_and_page_by_page() {
        let directory = Directory::default();
        for (bits, tenant, name) in [(1, "a", "z"), (2, "b", "m"), (3, "a", "k"), (4, "a", "p")] {
            directory.insert_room(&tenant.into(), entry(bits, name, 0));
        }
        let names = |after: Option<&str>, limit| {
            let page = directory.page(&"a".into(), after.map(RoomName::from).as_ref(), limit);
            page.into_iter().map(|room| room.name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(None, 9), ["k", "p", "z"]);
        assert_eq!(names(Some("k"), 1), ["p"]);
        assert_eq!(names(Some("l"), 9), ["p", "z"]);
        assert!(directory.room(&"b".into(), &"z".into()).is_none());
    }

    #[test]
    fn the_largest_rooms_of_all_tenants_come_first() {
        let directory = Directory::default();
        for (bits, tenant, name) in [(1, "a", "Hall"), (2, "b", "hall-2"), (3, "halls", "x"), (4, "a", "attic")] {
            directory.insert_room(&tenant.into(), entry(bits, name, 0));
        }
        directory.insert_session(SessionId::from_bits(1), session(2, 0));
        let names = |search: &str, limit: usize| {
            let (total, rooms) = directory.largest(search, limit);
            (total, rooms.iter().map(|(_, room)| room.name.as_str().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(names("hall", 9), (3, vec!["hall-2".to_owned(), "Hall".to_owned(), "x".to_owned()]));
        assert_eq!(names("", 1), (4, vec!["hall-2".to_owned()]));
        assert_eq!(names("cellar", 9).0, 0);
        let found = directory.room_of_id(RoomId::from_bits(4)).map(|(tenant, room)| (tenant, room.name));
        assert_eq!(found, Some(("a".into(), "attic".into())));
        assert!(directory.room_of_id(RoomId::from_bits(9)).is_none());
    }

    #[test]
    fn a_room_goes_with_its_sessions_and_nothing_else() {
        let directory = Directory::default();
        directory.insert_room(&"a".into(), entry(1, "x", 0));
        directory.insert_session(SessionId::from_bits(1), session(1, 0));
        directory.insert_session(SessionId::from_bits(2), session(2, 0));
        let at = Clock::start().now();
        directory.apply(&Notice::RoomFinished { room: RoomId::from_bits(1), reason: EndReason::RoomEmpty, at });
        assert!(directory.room(&"a".into(), &"x".into()).is_none());
        assert!(directory.session(SessionId::from_bits(1)).is_none());
        assert!(directory.session(SessionId::from_bits(2)).is_some());
        directory.remove_session(SessionId::from_bits(2));
        let entries = directory.entries();
        assert!(entries.sessions.is_empty() && entries.sessions_of.is_empty() && entries.names.is_empty());
    }

    #[test]
    fn an_old_rooms_end_does_not_touch_its_successor() {
        let directory = Directory::default();
        directory.insert_room(&"a".into(), entry(1, "x", 0));
        directory.insert_room(&"a".into(), entry(2, "x", 0));
        directory.remove_room(RoomId::from_bits(1));
        assert_eq!(directory.room(&"a".into(), &"x".into()).map(|room| room.room), Some(RoomId::from_bits(2)));
    }

    #[test]
    fn a_session_that_moves_belongs_to_the_new_room_at_once_and_to_its_shard_when_it_is_there() {
        let directory = Directory::default();
        let (old, new, ada) = (entry(1, "x", 0), entry(2, "y", 1), SessionId::from_bits(1));
        for room in [&old, &new] {
            directory.insert_room(&"a".into(), room.clone());
        }
        directory.insert_session(ada, session(1, 0));
        directory.move_session(ada, &new);
        // Nobody else was there, and it need not wait for anybody.
        directory.remove_room(old.room);
        let found = directory.session(ada).map(|entry| (entry.room_name, entry.joined_room, entry.shard));
        assert_eq!(found, Some(("y".into(), "x".into(), ShardIndex(0))));
        directory.set_shard(ada, ShardIndex(1));
        assert_eq!(directory.session(ada).map(|entry| entry.shard), Some(ShardIndex(1)));
        assert_eq!(directory.session_of(new.room, &"ada".into()), Some(ada));
        directory.remove_session(ada);
        directory.set_shard(ada, ShardIndex(0));
        assert!(directory.entries().sessions_of.is_empty() && directory.session(ada).is_none(), "what ended is gone");
    }

    #[test]
    fn new_rooms_go_to_the_lightest_shard() {
        let load = |sessions, rooms| Load { saturated: false, sessions, rooms };
        let full = |sessions, rooms| Load { saturated: true, sessions, rooms };
        for (loads, expected) in [
            (vec![load(0, 0), load(0, 0)], 0),
            (vec![load(0, 1), load(0, 0)], 1),
            (vec![load(2, 1), load(1, 9)], 1),
            (vec![full(1, 1), load(9, 9), load(9, 8)], 2),
            (vec![full(2, 1), full(1, 1)], 1),
            (vec![], 0),
        ] {
            assert_eq!(lightest(&loads), ShardIndex(expected));
        }
        let directory = Directory::default();
        directory.insert_room(&"a".into(), entry(1, "x", 0));
        directory.insert_session(SessionId::from_bits(1), session(1, 0));
        assert_eq!(directory.least_loaded(&[false, false]), ShardIndex(1));
        assert_eq!(directory.least_loaded(&[false, true]), ShardIndex(0));
    }
}
