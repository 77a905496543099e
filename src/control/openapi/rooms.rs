//! `/v1/rooms`: the rooms themselves, tokens and messages.

use serde_json::json;

use super::examples;
use super::operation::Operation;
use crate::control::code::Code;
use crate::control::rooms::{MessageRequest, RoomView, RoomsView};
use crate::control::settings::{Allocation, Change};
use crate::control::tokens::{TokenRequest, TokenView};

const TAG: &str = "Rooms";
const ROOMS: &str = "/v1/rooms";
const ROOM: &str = "/v1/rooms/{name}";

/// The operations.
pub fn operations() -> Vec<Operation> {
    vec![allocate(), list(), read(), change(), end(), mint_token(), send_message()]
}

fn allocate() -> Operation {
    Operation::new(TAG, "post", ROOMS, "allocateRoom", "Allocate a room")
        .for_servers("`roomCreate`")
        .with(&["Idempotency-Key"])
        .takes::<Allocation>(json!({"name": "lobby", "max_participants": 25, "metadata": "{\"floor\":2}"}))
        .answers::<RoomView<'static>>(201, "The room, new.", examples::room(false))
        .answers::<RoomView<'static>>(200, "The room; it existed with the same settings.", examples::room(true))
        .fails(&[Code::RoomExists, Code::InvalidIdempotencyKey, Code::IdempotencyKeyInUse, Code::IdempotencyKeyReused])
        .fails(&[Code::QuotaExceeded, Code::Unavailable])
}

fn list() -> Operation {
    Operation::new(TAG, "get", ROOMS, "listRooms", "List the rooms, by name")
        .for_servers("`roomList`")
        .with(&["limit", "cursor"])
        .answers::<RoomsView<'static>>(
            200,
            "A page of rooms.",
            json!({"rooms": [examples::room(true)], "next_cursor": null}),
        )
        .fails(&[Code::InvalidRequest, Code::Unavailable])
}

fn read() -> Operation {
    Operation::new(TAG, "get", ROOM, "readRoom", "Read a room")
        .for_servers("`roomCreate`, `roomList`, or `roomAdmin` for the room")
        .with(&["room"])
        .answers::<RoomView<'static>>(200, "The room.", examples::room(true))
        .fails(&[Code::RoomNotFound, Code::Unavailable])
}

fn change() -> Operation {
    Operation::new(TAG, "patch", ROOM, "changeRoom", "Change a room's settings or metadata, live")
        .for_servers("`roomCreate`, or `roomAdmin` for the room")
        .with(&["room"])
        .takes::<Change>(json!({"max_participants": 50, "max_duration_s": null}))
        .answers::<RoomView<'static>>(200, "The room as it is now.", examples::room(true))
        .fails(&[Code::RoomNotFound, Code::Unavailable])
}

fn end() -> Operation {
    Operation::new(TAG, "delete", ROOM, "endRoom", "End a room")
        .about("Participants get `leave` with reason `room_deleted`.")
        .for_servers("`roomCreate`, or `roomAdmin` for the room")
        .with(&["room"])
        .answers_nothing(204, "The room has ended.")
        .fails(&[Code::RoomNotFound, Code::Unavailable])
}

fn mint_token() -> Operation {
    Operation::new(TAG, "post", "/v1/rooms/{name}/tokens", "mintToken", "Make a token with which someone can join")
        .about(
            "The token is for joining alone: a session outlives it. Any LiveKit server SDK makes such tokens as well.",
        )
        .for_servers("`roomAdmin` for the room")
        .with(&["room"])
        .takes::<TokenRequest>(json!({
            "identity": "p-7f3a", "name": "Ada", "attributes": {"hat": "red"},
            "grants": {"canPublishSources": ["microphone"]}, "ttl_s": 300,
        }))
        .answers::<TokenView>(201, "The token.", examples::token())
        .fails(&[Code::RoomNotFound])
}

fn send_message() -> Operation {
    Operation::new(TAG, "post", "/v1/rooms/{name}/messages", "sendMessage", "Send a message to participants")
        .about("They get a `message` with `from: null` on the data channel.")
        .for_servers("`roomAdmin` for the room")
        .with(&["room"])
        .takes::<MessageRequest>(json!({"topic": "notice", "data": {"text": "The bar closes."}, "to": ["p-7f3a"]}))
        .answers_nothing(204, "The message was sent to those who are there.")
        .fails(&[Code::RoomNotFound, Code::Unavailable])
}
