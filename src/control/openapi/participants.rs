//! `/v1/rooms/{name}/participants` and `…/stats`.

use serde_json::json;

use super::examples;
use super::operation::Operation;
use crate::control::code::Code;
use crate::control::participants::{Change, Mute, ParticipantView, ParticipantsView};
use crate::control::quality::RoomQuality;
use crate::control::relocation::Move;

const TAG: &str = "Participants";
const ADMIN: &str = "`roomAdmin` for the room";
const PARTICIPANT: &str = "/v1/rooms/{name}/participants/{identity}";
const MUTED: &str = "/v1/rooms/{name}/participants/{identity}/tracks/{track}/muted";
const MOVE: &str = "/v1/rooms/{name}/participants/{identity}/move";

/// The operations.
pub fn operations() -> Vec<Operation> {
    vec![list(), read(), change(), remove(), mute(), relocate(), quality()]
}

fn list() -> Operation {
    let page = json!({"participants": [examples::participant()], "next_cursor": null});
    Operation::new(TAG, "get", "/v1/rooms/{name}/participants", "listParticipants", "List who is in a room")
        .about("In order of joining, hidden ones too.")
        .for_servers(ADMIN)
        .with(&["room", "limit", "cursor"])
        .answers::<ParticipantsView<'static>>(200, "A page of participants.", page)
        .fails(&[Code::InvalidRequest, Code::RoomNotFound, Code::Unavailable])
}

/// What names one participant, and may not be there.
fn of_one(operation: Operation) -> Operation {
    operation.for_servers(ADMIN).with(&["room", "identity"]).fails(&[
        Code::RoomNotFound,
        Code::ParticipantNotFound,
        Code::Unavailable,
    ])
}

fn read() -> Operation {
    of_one(Operation::new(TAG, "get", PARTICIPANT, "readParticipant", "Read a participant"))
        .answers::<ParticipantView<'static>>(200, "The participant.", examples::participant())
}

fn change() -> Operation {
    of_one(Operation::new(TAG, "patch", PARTICIPANT, "changeParticipant", "Change a participant, live"))
        .takes::<Change>(json!({"grants": {"canPublish": false}, "attributes": {"hat": ""}}))
        .answers::<ParticipantView<'static>>(200, "The participant as they are now.", examples::participant())
}

fn remove() -> Operation {
    of_one(Operation::new(TAG, "delete", PARTICIPANT, "removeParticipant", "Remove a participant"))
        .about("They get `leave` with reason `participant_removed`. Their token still works: let it expire.")
        .answers_nothing(204, "They are out.")
}

fn mute() -> Operation {
    of_one(Operation::new(TAG, "put", MUTED, "muteTrack", "Mute someone's track"))
        .about("Unmuting someone needs `rooms.allow_remote_unmute` in the server's configuration.")
        .with(&["track"])
        .takes::<Mute>(json!({"muted": true}))
        .answers::<ParticipantView<'static>>(200, "The participant.", examples::participant())
        .fails(&[Code::TrackNotFound, Code::UnmuteForbidden])
}

fn relocate() -> Operation {
    of_one(Operation::new(TAG, "post", MOVE, "moveParticipant", "Move a participant to another room"))
        .about(
            "With the same session: no new ICE, DTLS or offer. The client gets `moved`, and the participant another \
             `sid`. Both rooms must be the tenant's, and administered by the token.",
        )
        .takes::<Move>(json!({"room": "kitchen"}))
        .answers::<ParticipantView<'static>>(200, "The participant in the other room.", examples::participant())
        .fails(&[Code::RoomFull, Code::QuotaExceeded])
}

fn quality() -> Operation {
    Operation::new(TAG, "get", "/v1/rooms/{name}/stats", "readStats", "See how well it goes in a room")
        .about("For operators: no names, metadata or addresses. What is unknown is left out.")
        .for_servers(ADMIN)
        .with(&["room"])
        .answers::<RoomQuality<'static>>(
            200,
            "The quality of each participant, encoding and slot.",
            examples::quality(),
        )
        .fails(&[Code::RoomNotFound, Code::Unavailable])
}
