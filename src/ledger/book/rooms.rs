//! Rooms: their events, and their rows, by which they outlive a restart.

use super::{Book, Moment};
use crate::command::{EndReason, RoomSettings};
use crate::ids::{CallId, RoomId, RoomName};
use crate::ledger::event::{EventKind, Subject};
use crate::ledger::record::RoomRow;

pub(super) struct RoomAccount {
    pub row: RoomRow,
    pub name: RoomName,
    pub call: Option<CallId>,
}

impl Book {
    pub(super) fn open_room(&mut self, row: RoomRow, now: Moment) {
        let room = row.room;
        self.restore_room(row);
        self.tell(room, EventKind::RoomStarted, Subject::Room { reason: None }, None, now);
    }

    /// Its row is as it was written, and it has been told of.
    pub(super) fn restore_room(&mut self, row: RoomRow) {
        let name = row.name();
        self.rooms.insert(row.room, RoomAccount { row, name, call: None });
    }

    pub(super) fn change_room(&mut self, room: RoomId, settings: RoomSettings) {
        let Some(account) = self.rooms.get_mut(&room) else { return };
        account.row.settings = settings;
        self.stale_rooms.insert(room);
    }

    /// A room that ends with the server is there again when that is: nobody is told of an end, and its row stays.
    pub(super) fn finish_room(&mut self, room: RoomId, reason: EndReason, now: Moment) {
        let survives = reason == EndReason::ServerShutdown;
        if !survives {
            self.tell(room, EventKind::RoomFinished, Subject::Room { reason: Some(reason) }, None, now);
        }
        let was_stale = self.stale_rooms.remove(&room);
        let Some(account) = self.rooms.remove(&room) else { return };
        match survives {
            true if was_stale => self.waiting.rooms.push(account.row),
            true => {}
            false => self.waiting.ended_rooms.push(room),
        }
    }
}
