//! The accounts of what runs now, and what is still to be written of what ended. Pure: entries in, batches out.
//!
//! A row is absolute and a sum is a difference, so both go into one [`Batch`], and a batch is kept until it is known to
//! be written: a failing disk delays, and neither loses nor doubles.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use self::rooms::RoomAccount;
use super::event::{EventKind, Subject};
use super::record::{Batch, CallRow, Day, Person, RoomRow, SessionRow, SumDelta, UnixMs, Usage};
use crate::command::{EndReason, RoomSettings, SessionUsage, TrackInfo, Transport};
use crate::ids::{CallId, IdSource, ParticipantId, RoomId, SessionId, Tenant, TrackId};

mod rooms;
mod telling;
mod usage;

/// Rows of ended sessions and calls, and events, that wait while the store fails: at some 500 bytes each 50 MiB.
/// Beyond, the oldest are lost and counted; sums never are.
const WAITING_MAX: usize = 100_000;

/// One instant by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub at: Instant,
    pub wall: UnixMs,
}

/// Who was admitted.
pub struct Admission {
    pub tenant: Tenant,
    pub room: RoomId,
    pub participant: ParticipantId,
    pub person: Person,
}

/// What happened.
pub enum Entry {
    RoomOpened {
        row: RoomRow,
        now: Moment,
    },
    /// A room of an earlier run is open again.
    RoomRestored {
        row: RoomRow,
    },
    RoomChanged {
        room: RoomId,
        settings: RoomSettings,
    },
    RoomFinished {
        room: RoomId,
        reason: EndReason,
        now: Moment,
    },
    Admitted {
        session: SessionId,
        admission: Admission,
    },
    /// The shard did not take them after all.
    Refused {
        session: SessionId,
    },
    CallStarted {
        room: RoomId,
        call: CallId,
        now: Moment,
    },
    CallEnded {
        room: RoomId,
        call: CallId,
        reason: Option<EndReason>,
        now: Moment,
    },
    Joined {
        room: RoomId,
        participant: ParticipantId,
        session: SessionId,
        transport: Transport,
        now: Moment,
    },
    Ended {
        session: SessionId,
        reason: EndReason,
        usage: SessionUsage,
        now: Moment,
    },
    Published {
        room: RoomId,
        participant: ParticipantId,
        track: TrackInfo,
        now: Moment,
    },
    Unpublished {
        room: RoomId,
        participant: ParticipantId,
        track: TrackId,
        now: Moment,
    },
    /// What the shards say of those who are there. `asked`: who joined later need not be among them.
    /// `complete`: every shard has answered.
    Checkpoint {
        usages: Vec<(ParticipantId, SessionUsage)>,
        asked: Instant,
        complete: bool,
        now: Moment,
    },
    /// A tenant's quota is nearly or wholly used up.
    Quota {
        tenant: Tenant,
        kind: EventKind,
        quota: &'static str,
        limit: u64,
        used: u64,
        now: Moment,
    },
    /// So many addresses of a tenant have been seen today.
    Addresses {
        tenant: Tenant,
        distinct: u64,
        now: Moment,
    },
}

/// What a tenant has used since this was last asked; for quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumption {
    pub tenant: Tenant,
    pub participant_ms: u64,
    pub egress_bytes: u64,
}

/// The open accounts and what waits to be written.
pub struct Book {
    ids: IdSource,
    /// Which webhooks a tenant's events go to.
    webhooks: BTreeMap<Tenant, Vec<String>>,
    rooms: BTreeMap<RoomId, RoomAccount>,
    /// Rooms whose row is another than the one that was written.
    stale_rooms: BTreeSet<RoomId>,
    calls: BTreeMap<CallId, CallAccount>,
    sessions: BTreeMap<SessionId, SessionAccount>,
    by_participant: BTreeMap<ParticipantId, SessionId>,
    tenants: BTreeMap<Tenant, TenantAccount>,
    waiting: Batch,
    sums: BTreeMap<(Tenant, Day), SumDelta>,
    consumed: BTreeMap<Tenant, Consumption>,
    in_flight: Option<Batch>,
    number: u64,
    lost: u64,
}

struct CallAccount {
    row: CallRow,
    started: Instant,
    open: u32,
    /// The shard has said that it is over; its last session may still be open here.
    over: bool,
    stale: bool,
}

struct SessionAccount {
    admission: Admission,
    /// None until its media connects.
    row: Option<SessionRow>,
    joined: Option<Instant>,
    tracks: Vec<TrackInfo>,
    missed: u8,
    stale: bool,
    /// The person was erased meanwhile: nothing about them may be told any more.
    erased: bool,
}

#[derive(Default)]
struct TenantAccount {
    connected: u64,
    /// Events about the tenant as a whole.
    seq: u64,
}

impl Book {
    /// Empty accounts. `seed` draws the ids of records and events; `told`: the number of each tenant's own last event.
    pub fn new(seed: [u8; 32], webhooks: BTreeMap<Tenant, Vec<String>>, told: BTreeMap<Tenant, u64>) -> Self {
        let tenant = |(tenant, seq)| (tenant, TenantAccount { connected: 0, seq });
        Self {
            ids: IdSource::from_seed(seed),
            webhooks,
            rooms: BTreeMap::new(),
            stale_rooms: BTreeSet::new(),
            calls: BTreeMap::new(),
            sessions: BTreeMap::new(),
            by_participant: BTreeMap::new(),
            tenants: told.into_iter().map(tenant).collect(),
            waiting: Batch::default(),
            sums: BTreeMap::new(),
            consumed: BTreeMap::new(),
            in_flight: None,
            number: 0,
            lost: 0,
        }
    }

    /// Takes note of what happened.
    pub fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::RoomOpened { row, now } => self.open_room(row, now),
            Entry::RoomRestored { row } => self.restore_room(row),
            Entry::RoomChanged { room, settings } => self.change_room(room, settings),
            Entry::RoomFinished { room, reason, now } => self.finish_room(room, reason, now),
            Entry::Admitted { session, admission } => self.admit(session, admission),
            Entry::Refused { session } => {
                self.remove(session);
            }
            Entry::CallStarted { room, call, now } => self.start_call(room, call, now),
            Entry::CallEnded { room, call, reason, now } => self.end_call(room, call, reason, now),
            Entry::Joined { room, participant, session, transport, now } => {
                self.join(room, participant, session, transport, now);
            }
            Entry::Ended { session, reason, usage, now } => self.end(session, reason, &usage, now),
            Entry::Published { room, participant, track, now } => self.publish(room, participant, track, now),
            Entry::Unpublished { room, participant, track, now } => self.unpublish(room, participant, track, now),
            Entry::Checkpoint { usages, asked, complete, now } => self.checkpoint(&usages, asked, complete, now),
            Entry::Quota { tenant, kind, quota, limit, used, now } => {
                let seq = &mut self.tenants.entry(tenant.clone()).or_default().seq;
                *seq += 1;
                let seq = *seq;
                let body = Subject::Quota { quota, limit, used };
                self.push_event(tenant, None, seq, kind, &body, None, now);
            }
            Entry::Addresses { tenant, distinct, now } => {
                let sum = self.sum(&tenant, now.wall.day());
                sum.distinct_addresses = sum.distinct_addresses.max(distinct);
            }
        }
    }

    fn admit(&mut self, session: SessionId, admission: Admission) {
        let account = SessionAccount {
            admission,
            row: None,
            joined: None,
            tracks: Vec::new(),
            missed: 0,
            stale: false,
            erased: false,
        };
        self.by_participant.insert(account.admission.participant, session);
        self.sessions.insert(session, account);
    }

    fn remove(&mut self, session: SessionId) -> Option<SessionAccount> {
        let account = self.sessions.remove(&session)?;
        self.by_participant.remove(&account.admission.participant);
        Some(account)
    }

    // === calls ===

    fn start_call(&mut self, room: RoomId, call: CallId, now: Moment) {
        let Some(account) = self.rooms.get_mut(&room) else { return };
        account.call = Some(call);
        let row = CallRow {
            call,
            tenant: account.row.tenant.clone(),
            room,
            room_name: account.name.clone(),
            started_at: now.wall,
            ended_at: None,
            duration_ms: 0,
            participants: 0,
            peak_participants: 0,
            rx_bytes: 0,
            tx_bytes: 0,
            end_reason: None,
        };
        let tenant = row.tenant.clone();
        self.calls.insert(call, CallAccount { row, started: now.at, open: 0, over: false, stale: true });
        self.sum(&tenant, now.wall.day()).calls += 1;
    }

    fn end_call(&mut self, room: RoomId, call: CallId, reason: Option<EndReason>, now: Moment) {
        if let Some(room) = self.rooms.get_mut(&room).filter(|room| room.call == Some(call)) {
            room.call = None;
        }
        let Some(account) = self.calls.get_mut(&call) else { return };
        account.over = true;
        account.row.ended_at = Some(now.wall);
        account.row.duration_ms = millis(now.at.saturating_duration_since(account.started));
        // A call whose last participant left of themselves ended because nobody was left.
        account.row.end_reason = Some(reason.unwrap_or(EndReason::RoomEmpty).as_str().to_owned());
        self.close_call_if_done(call);
    }

    fn close_call_if_done(&mut self, call: CallId) {
        if self.calls.get(&call).is_some_and(|account| account.over && account.open == 0)
            && let Some(account) = self.calls.remove(&call)
        {
            self.waiting.calls.push(account.row);
            self.bound();
        }
    }

    // === sessions ===

    fn join(
        &mut self,
        room: RoomId,
        participant: ParticipantId,
        session: SessionId,
        transport: Transport,
        now: Moment,
    ) {
        let Some((tenant, room_name, Some(call))) =
            self.rooms.get(&room).map(|room| (room.row.tenant.clone(), room.name.clone(), room.call))
        else {
            return;
        };
        let record = self.ids.id();
        let Some(account) = self.sessions.get_mut(&session) else { return };
        account.admission.room = room;
        self.by_participant.remove(&account.admission.participant);
        self.by_participant.insert(participant, session);
        account.admission.participant = participant;
        account.joined = Some(now.at);
        account.tracks.clear();
        account.stale = true;
        account.missed = 0;
        account.row = Some(SessionRow {
            record,
            participant: Some(participant),
            tenant: tenant.clone(),
            call,
            room,
            room_name,
            person: (!account.erased).then(|| account.admission.person.clone()),
            joined_at: now.wall,
            ended_at: None,
            usage: Usage::default(),
            transport,
            end_reason: None,
        });
        if let Some(call) = self.calls.get_mut(&call) {
            call.open += 1;
            call.row.participants += 1;
            call.row.peak_participants = call.row.peak_participants.max(call.open);
            call.stale = true;
        }
        self.tenants.entry(tenant.clone()).or_default().connected += 1;
        self.note_peak(&tenant, now.wall.day());
        self.tell_of(session, EventKind::ParticipantJoined, None, now);
    }

    fn end(&mut self, session: SessionId, reason: EndReason, usage: &SessionUsage, now: Moment) {
        self.use_up(session, usage, now);
        let moved = reason == EndReason::Moved;
        let kind = match self.sessions.get(&session) {
            Some(SessionAccount { row: Some(_), .. }) => EventKind::ParticipantLeft,
            Some(_) if moved => return,
            Some(_) => EventKind::ParticipantConnectionAborted,
            None => return,
        };
        self.tell_of(session, kind, Some((reason, usage)), now);
        let row = match moved {
            true => self.sessions.get_mut(&session).and_then(|account| {
                account.joined = None;
                account.row.take()
            }),
            false => self.remove(session).and_then(|account| account.row),
        };
        let Some(mut row) = row else { return };
        row.ended_at = Some(now.wall);
        row.end_reason = Some(reason.as_str().to_owned());
        if let Some(tenant) = self.tenants.get_mut(&row.tenant) {
            tenant.connected = tenant.connected.saturating_sub(1);
        }
        let call = row.call;
        if let Some(call) = self.calls.get_mut(&call) {
            call.open = call.open.saturating_sub(1);
            call.stale = true;
            if !call.over {
                // After a crash no call ends before one of its records.
                call.row.duration_ms = millis(now.at.saturating_duration_since(call.started));
            }
        }
        self.waiting.sessions.push(row);
        self.bound();
        self.close_call_if_done(call);
    }

    fn note_peak(&mut self, tenant: &Tenant, day: Day) {
        let connected = self.tenants.get(tenant).map_or(0, |tenant| tenant.connected);
        let sum = self.sum(tenant, day);
        sum.peak_participants = sum.peak_participants.max(connected);
    }

    fn sum(&mut self, tenant: &Tenant, day: Day) -> &mut SumDelta {
        let nothing = || SumDelta::nothing(tenant.clone(), day);
        self.sums.entry((tenant.clone(), day)).or_insert_with(nothing)
    }

    // === writing ===

    /// Whether something waits that should not wait for the next checkpoint: an event, or the end of something.
    pub fn is_urgent(&self) -> bool {
        self.in_flight.is_some() || !self.waiting.is_empty() || !self.stale_rooms.is_empty()
    }

    /// What to write now: the same until [`Self::written`]. None if there is nothing.
    pub fn batch(&mut self) -> Option<Batch> {
        if self.in_flight.is_none() {
            let mut batch = std::mem::take(&mut self.waiting);
            let stale = std::mem::take(&mut self.stale_rooms);
            batch.rooms.extend(stale.iter().filter_map(|room| Some(self.rooms.get(room)?.row.clone())));
            for account in self.sessions.values_mut().filter(|account| account.stale) {
                account.stale = false;
                batch.sessions.extend(account.row.clone());
            }
            for call in self.calls.values_mut().filter(|call| call.stale) {
                call.stale = false;
                batch.calls.push(call.row.clone());
            }
            batch.sums = std::mem::take(&mut self.sums).into_values().collect();
            if !batch.is_empty() {
                self.number += 1;
                batch.number = self.number;
                self.in_flight = Some(batch);
            }
        }
        self.in_flight.clone()
    }

    /// The batch is in the store.
    pub fn written(&mut self) {
        self.in_flight = None;
    }

    /// What tenants have used since the last call.
    pub fn consumed(&mut self) -> Vec<Consumption> {
        std::mem::take(&mut self.consumed).into_values().collect()
    }

    /// Rows and events that were given up because the store failed for too long.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Rows and events that wait to be written.
    pub fn waiting(&self) -> usize {
        let count = |batch: &Batch| batch.sessions.len() + batch.calls.len() + batch.events.len();
        count(&self.waiting) + self.in_flight.as_ref().map_or(0, count)
    }

    /// Sessions that are admitted or connected.
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    fn bound(&mut self) {
        let Batch { sessions, calls, events, .. } = &mut self.waiting;
        self.lost += shed(sessions) + shed(calls) + shed(events);
    }
}

/// Lets the oldest go, a tenth at a time, so that it is not done for each new one. How many went.
fn shed<T>(rows: &mut Vec<T>) -> u64 {
    if rows.len() <= WAITING_MAX {
        return 0;
    }
    rows.drain(..WAITING_MAX / 10).len() as u64
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests;
