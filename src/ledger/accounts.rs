//! What runs now, counted: the book, the quotas, and which addresses are there. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use super::address::{AddressKey, ClientAddress, DayKeys, DistinctAddresses, PresentAddresses};
use super::book::{Admission, Book, Entry, Moment};
use super::client;
use super::event::EventKind;
use super::quota::{Counters, Crossing, CrossingKind, Exceeded, Moment as QuotaMoment, Tally};
use super::record::{Batch, Person, RoomRow, UnixMs};
use crate::command::{Notice, RoomSettings, SessionUsage};
use crate::config::{IpMode, LimitTable};
use crate::ids::{Identity, ParticipantId, RoomId, SessionId, Tenant};

/// Who wants to join.
pub struct Applicant<'a> {
    pub tenant: Tenant,
    pub room: RoomId,
    pub session: SessionId,
    pub participant: ParticipantId,
    pub identity: Identity,
    pub address: ClientAddress,
    /// Reduced to a family, and not kept.
    pub user_agent: Option<&'a str>,
}

/// Everything that is counted while it runs.
pub struct Accounts {
    book: Book,
    quotas: Counters,
    keys: DayKeys,
    distinct: DistinctAddresses,
    present: PresentAddresses,
    ip_mode: IpMode,
    held: BTreeMap<SessionId, Held>,
    sessions_of: BTreeMap<(Tenant, Identity), Vec<SessionId>>,
    rooms: BTreeMap<RoomId, Tenant>,
    started: Instant,
}

/// What a session has taken of its tenant's quotas.
struct Held {
    tenant: Tenant,
    room: RoomId,
    identity: Identity,
    address: ClientAddress,
    key: AddressKey,
}

/// What the accounts begin with.
pub struct Beginnings {
    pub book: Book,
    pub quotas: Counters,
    pub keys: DayKeys,
    pub distinct: DistinctAddresses,
    pub present: PresentAddresses,
    pub ip_mode: IpMode,
    /// Where monotonic milliseconds count from.
    pub started: Instant,
}

impl Accounts {
    /// Accounts of a server that has just started.
    pub fn new(beginnings: Beginnings) -> Self {
        let Beginnings { book, quotas, keys, distinct, present, ip_mode, started } = beginnings;
        Self {
            book,
            quotas,
            keys,
            distinct,
            present,
            ip_mode,
            held: BTreeMap::new(),
            sessions_of: BTreeMap::new(),
            rooms: BTreeMap::new(),
            started,
        }
    }

    /// Takes a room of a tenant's quota; [`Self::give_back_room`] or [`Notice::RoomFinished`] gives it back.
    pub fn take_room(&mut self, tenant: &Tenant, room: RoomId, now: Moment) -> Result<(), Exceeded> {
        let taken = self.quotas.take_room(tenant, self.quota_moment(now));
        self.tell_crossings(now);
        taken?;
        self.rooms.insert(room, tenant.clone());
        Ok(())
    }

    /// The shard has opened a room that was taken.
    pub fn open_room(&mut self, row: RoomRow, now: Moment) {
        self.book.enter(Entry::RoomOpened { row, now });
    }

    /// A room of an earlier run is there again, whatever the quotas have become since.
    pub fn restore_room(&mut self, row: RoomRow) {
        self.quotas.hold_room(&row.tenant);
        self.rooms.insert(row.room, row.tenant.clone());
        self.book.enter(Entry::RoomRestored { row });
    }

    /// A room's settings are other ones now.
    pub fn change_room(&mut self, room: RoomId, settings: RoomSettings) {
        self.book.enter(Entry::RoomChanged { room, settings });
    }

    /// Gives a room back to its tenant's quota, once.
    pub fn give_back_room(&mut self, room: RoomId) {
        if let Some(tenant) = self.rooms.remove(&room) {
            self.quotas.release_room(&tenant);
        }
    }

    /// Takes a participant of the quotas, and notes who it is. What the shard then refuses is given back by
    /// [`Self::refuse`].
    pub fn admit(&mut self, applicant: Applicant<'_>, now: Moment) -> Result<(), Exceeded> {
        let Applicant { tenant, room, session, participant, identity, address, user_agent } = applicant;
        let key = self.present.key(&address);
        let at = self.quota_moment(now);
        let taken = match self.rooms_of(&tenant, &identity).contains(&room) {
            true => self.quotas.replace_participant(&tenant, room, key, at),
            false => self.quotas.take_participant(&tenant, room, key, at),
        };
        self.tell_crossings(now);
        taken?;
        let day = now.wall.day();
        let distinct = self.distinct.note(&tenant, &address, day.0);
        self.book.enter(Entry::Addresses { tenant: tenant.clone(), distinct, now });
        self.present.arrive(&address);
        let (os, client) = client::reduce(user_agent);
        let ip = self.keys.project(&address, self.ip_mode, day.0);
        let person = Person { identity: identity.clone(), ip, os, client };
        let admission = Admission { tenant: tenant.clone(), room, participant, person };
        self.book.enter(Entry::Admitted { session, admission });
        self.sessions_of.entry((tenant.clone(), identity.clone())).or_default().push(session);
        self.held.insert(session, Held { tenant, room, identity, address, key });
        Ok(())
    }

    /// The shard did not take them.
    pub fn refuse(&mut self, session: SessionId) {
        self.release(session);
        self.book.enter(Entry::Refused { session });
    }

    /// Takes a participant of another room's quota; [`Self::heed`] hears whether they came.
    pub fn may_move(&mut self, session: SessionId, to: RoomId, now: Moment) -> Result<(), Exceeded> {
        let at = self.quota_moment(now);
        let Some(held) = self.held.get_mut(&session) else { return Ok(()) };
        let moved = self.quotas.move_participant(&held.tenant, held.room, to, at);
        if moved.is_ok() {
            held.room = to;
        }
        self.tell_crossings(now);
        moved
    }

    /// Takes in what a shard tells. `now` is when it happened.
    pub fn heed(&mut self, notice: &Notice, now: Moment) {
        let entry = match notice {
            Notice::CallStarted { room, call, .. } => Entry::CallStarted { room: *room, call: *call, now },
            Notice::CallEnded { room, call, reason, .. } => {
                Entry::CallEnded { room: *room, call: *call, reason: *reason, now }
            }
            Notice::RoomFinished { room, reason, .. } => {
                self.give_back_room(*room);
                Entry::RoomFinished { room: *room, reason: *reason, now }
            }
            Notice::ParticipantJoined { room, participant, session, transport, .. } => {
                Entry::Joined { room: *room, participant: *participant, session: *session, transport: *transport, now }
            }
            Notice::SessionEnded { session, reason, usage, .. } => {
                self.release(*session);
                Entry::Ended { session: *session, reason: *reason, usage: *usage, now }
            }
            Notice::SessionMoved { session, usage, .. } => {
                Entry::Ended { session: *session, reason: crate::command::EndReason::Moved, usage: *usage, now }
            }
            Notice::TrackPublished { room, participant, track, .. } => {
                Entry::Published { room: *room, participant: *participant, track: track.clone(), now }
            }
            Notice::TrackUnpublished { room, participant, track, .. } => {
                Entry::Unpublished { room: *room, participant: *participant, track: *track, now }
            }
        };
        self.book.enter(entry);
        self.bill(now);
    }

    /// What the shards say of all who are there. `asked`: when they were; `complete`: all have answered.
    pub fn checkpoint(
        &mut self,
        usages: Vec<(ParticipantId, SessionUsage)>,
        asked: Instant,
        complete: bool,
        now: Moment,
    ) {
        let day = now.wall.day().0;
        self.keys.turn(day);
        self.distinct.turn(day);
        self.book.enter(Entry::Checkpoint { usages, asked, complete, now });
        self.bill(now);
    }

    /// Other quotas from now on; what is in use stays.
    pub fn set_limits(&mut self, limits: LimitTable) {
        self.quotas.set_limits(limits);
    }

    /// Other webhooks for the events to come.
    pub fn set_webhooks(&mut self, webhooks: BTreeMap<Tenant, Vec<String>>) {
        self.book.set_webhooks(webhooks);
    }

    /// Takes these people out of what is kept here.
    pub fn forget(&mut self, tenant: &Tenant, identities: &[Identity]) {
        self.book.forget(tenant, identities);
    }

    /// See [`Book::batch`].
    pub fn batch(&mut self) -> Option<Batch> {
        self.book.batch()
    }

    /// See [`Book::written`].
    pub fn written(&mut self) {
        self.book.written();
    }

    /// See [`Book::is_urgent`].
    pub fn is_urgent(&self) -> bool {
        self.book.is_urgent()
    }

    /// Rows and events that wait to be written, and those given up.
    pub fn backlog(&self) -> (usize, u64) {
        (self.book.waiting(), self.book.lost())
    }

    /// What a tenant has in use of its quotas.
    pub fn in_use(&self, tenant: &Tenant) -> Vec<Tally> {
        self.quotas.tally(tenant)
    }

    /// Distinct client addresses of sessions that exist: IPv4, IPv6.
    pub fn addresses(&self) -> (u64, u64) {
        self.present.count()
    }

    /// Where an identity's sessions are.
    pub fn rooms_of(&self, tenant: &Tenant, identity: &Identity) -> Vec<RoomId> {
        let theirs = self.sessions_of.get(&(tenant.clone(), identity.clone())).into_iter().flatten();
        let mut rooms: Vec<_> = theirs.filter_map(|session| Some(self.held.get(session)?.room)).collect();
        rooms.sort();
        rooms.dedup();
        rooms
    }

    fn release(&mut self, session: SessionId) {
        let Some(held) = self.held.remove(&session) else { return };
        let person = (held.tenant.clone(), held.identity.clone());
        if let Some(sessions) = self.sessions_of.get_mut(&person) {
            sessions.retain(|other| *other != session);
            if sessions.is_empty() {
                self.sessions_of.remove(&person);
            }
        }
        self.quotas.release_participant(&held.tenant, held.room, held.key);
        self.present.leave(&held.address);
    }

    /// Charges the quotas with what the book has counted.
    fn bill(&mut self, now: Moment) {
        let at = self.quota_moment(now);
        for used in self.book.consumed() {
            self.quotas.use_up(&used.tenant, used.participant_ms, used.egress_bytes, at);
        }
        self.tell_crossings(now);
    }

    fn tell_crossings(&mut self, now: Moment) {
        for Crossing { tenant, quota, kind, limit, used } in self.quotas.crossings() {
            let kind = match kind {
                CrossingKind::Threshold => EventKind::QuotaThreshold,
                CrossingKind::Exceeded => EventKind::QuotaExceeded,
            };
            self.book.enter(Entry::Quota { tenant, kind, quota: quota.as_str(), limit, used, now });
        }
    }

    fn quota_moment(&self, now: Moment) -> QuotaMoment {
        let monotonic_ms = now.at.saturating_duration_since(self.started).as_millis() as u64;
        let UnixMs(unix_ms) = now.wall;
        QuotaMoment { monotonic_ms, unix_ms }
    }
}
