//! What several of the tests beside the code begin with.

use std::time::{Duration, Instant};

use super::{Codec, Input, Join, NewSlot, NewTrack, PeerKey, Room, Seat};
use crate::command::{Grants, MediaKind, Profile, Purpose, RoomSettings, Transport};
use crate::ids::{CallId, ParticipantId, RoomId, SessionId, TrackId};

/// A room in which seat 0 publishes a camera, with encodings of these RIDs, and seat 1 has one slot for it.
pub fn room_of_two(codec: Codec, rids: &[&str], now: Instant) -> Room {
    let settings = RoomSettings {
        name: "stage".into(),
        metadata: "".into(),
        max_participants: 10,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: None,
    };
    let mut room = Room::new(RoomId::from_bits(1), settings, 4, now);
    for number in [0, 1] {
        let profile = Profile {
            identity: format!("p{number}").into(),
            name: "a name".into(),
            metadata: "some metadata".into(),
            attributes: std::collections::BTreeMap::new(),
            grants: Grants::default(),
        };
        let join = Join {
            peer: PeerKey(number),
            participant: ParticipantId::from_bits(number.into()),
            session: SessionId::from_bits(number.into()),
            profile,
            purpose: Purpose::Call,
            call: CallId::from_bits(1),
        };
        room.handle(Input::Join(Box::new(join)), now);
        let seat = Seat(number as u16);
        room.handle(Input::Connected { seat, took: Duration::ZERO, transport: Transport::Udp }, now);
    }
    let codecs = [codec].into_iter().collect();
    let slot = NewSlot { mid: "5".into(), kind: MediaKind::Video, codecs, first_seq: 1 };
    room.handle(Input::Slots { seat: Seat(1), slots: vec![slot] }, now);
    let track = NewTrack {
        sid: TrackId::from_bits(9),
        mid: "0".into(),
        kind: MediaKind::Video,
        position: 0,
        codec,
        rids: rids.iter().map(|rid| (*rid).into()).collect(),
    };
    room.handle(Input::Publish { seat: Seat(0), track }, now);
    room
}
