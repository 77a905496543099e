//! What tenants are told, and whom nobody may be told of any more.

use std::collections::BTreeMap;

use super::{Book, Moment, SessionAccount, millis};
use crate::command::{EndReason, SessionUsage, TrackInfo};
use crate::ids::{Identity, ParticipantId, RoomId, SessionId, Tenant, TrackId};
use crate::ledger::event::{self, EventKind, Subject};
use crate::ledger::record::{EventRow, Person};

impl Book {
    pub(super) fn publish(&mut self, room: RoomId, participant: ParticipantId, track: TrackInfo, now: Moment) {
        let Some(account) = self.account_of(participant) else { return };
        account.tracks.push(track.clone());
        let (sid, identity) = (participant, account.told_identity());
        self.tell(room, EventKind::TrackPublished, Subject::Track { sid, track: &track }, identity, now);
    }

    pub(super) fn unpublish(&mut self, room: RoomId, participant: ParticipantId, track: TrackId, now: Moment) {
        let Some(account) = self.account_of(participant) else { return };
        let Some(place) = account.tracks.iter().position(|known| known.sid == track) else { return };
        let track = account.tracks.swap_remove(place);
        let (sid, identity) = (participant, account.told_identity());
        self.tell(room, EventKind::TrackUnpublished, Subject::Track { sid, track: &track }, identity, now);
    }

    fn account_of(&mut self, participant: ParticipantId) -> Option<&mut SessionAccount> {
        self.sessions.get_mut(self.by_participant.get(&participant)?)
    }

    /// Other webhooks for the events to come.
    pub fn set_webhooks(&mut self, webhooks: BTreeMap<Tenant, Vec<String>>) {
        self.webhooks = webhooks;
    }

    /// An event about a session.
    pub(super) fn tell_of(
        &mut self,
        session: SessionId,
        kind: EventKind,
        end: Option<(EndReason, &SessionUsage)>,
        now: Moment,
    ) {
        let Some(account) = self.sessions.get(&session) else { return };
        let (room, sid) = (account.admission.room, account.admission.participant);
        let identity = account.told_identity();
        let end = end.map(|(reason, usage)| (reason, millis(usage.duration)));
        self.tell(room, kind, Subject::Participant { sid, end }, identity, now);
    }

    /// An event of a room.
    pub(super) fn tell(
        &mut self,
        room: RoomId,
        kind: EventKind,
        subject: Subject<'_>,
        identity: Option<Identity>,
        now: Moment,
    ) {
        let Some(account) = self.rooms.get_mut(&room) else { return };
        account.row.seq += 1;
        let (tenant, seq) = (account.row.tenant.clone(), account.row.seq);
        self.stale_rooms.insert(room);
        self.push_event(tenant, Some(room), seq, kind, &subject, identity, now);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event, gathered once")]
    pub(super) fn push_event(
        &mut self,
        tenant: Tenant,
        room: Option<RoomId>,
        seq: u64,
        kind: EventKind,
        subject: &Subject<'_>,
        identity: Option<Identity>,
        now: Moment,
    ) {
        let event = self.ids.id();
        let account = room.and_then(|room| Some((room, self.rooms.get(&room)?)));
        let call = account.and_then(|(_, account)| self.calls.get(&account.call?));
        let call = call.map(|call| (call.row.call, call.row.started_at));
        let head = event::Head { event, kind, seq, created_at: now.wall, call };
        let body = event::body(&head, account.map(|(room, account)| (room, &account.name)), subject, identity.as_ref());
        let urls = self.webhooks.get(&tenant).cloned().unwrap_or_default();
        self.waiting.events.push(EventRow { event, tenant, room, seq, created_at: now.wall, identity, body, urls });
        self.bound();
    }

    /// Takes every trace of these people out of what is kept here; what they used stays.
    pub fn forget(&mut self, tenant: &Tenant, identities: &[Identity]) {
        let open = self.sessions.values_mut().filter(|account| account.admission.tenant == *tenant);
        for account in open.filter(|account| identities.contains(&account.admission.person.identity)) {
            account.admission.person = Person::nobody();
            account.erased = true;
            account.stale = true;
            if let Some(row) = account.row.as_mut() {
                row.person = None;
            }
        }
        for batch in [Some(&mut self.waiting), self.in_flight.as_mut()].into_iter().flatten() {
            for row in batch.sessions.iter_mut().filter(|row| row.tenant == *tenant) {
                if row.person.as_ref().is_some_and(|person| identities.contains(&person.identity)) {
                    row.person = None;
                }
            }
            for row in batch.events.iter_mut().filter(|row| row.tenant == *tenant) {
                if row.identity.as_ref().is_some_and(|identity| identities.contains(identity)) {
                    row.identity = None;
                    row.body = event::without_person(&row.body);
                }
            }
        }
    }
}

impl SessionAccount {
    /// Whom an event may name.
    fn told_identity(&self) -> Option<Identity> {
        (!self.erased).then(|| self.admission.person.identity.clone())
    }
}
