//! What bodies look like. A test holds each against its schema.

use serde_json::{Value, json};

/// A request's id.
pub const REQUEST: &str = "RQ_0tCkV8yEn2RhXw5MbJq9Lz";

/// Where a page ended: such as a record, by its start.
pub const CURSOR: &str = "MTc5NTMzOTgwMDAwMC1SRV85Z1BzTDV4VW8xS2NUYjdSeU12NEpk";

/// A small offer, of one microphone; a browser's has some 100 lines.
pub const OFFER: &str = "v=0\r
o=- 4611731400430051336 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=audio 9 UDP/TLS/RTP/SAVPF 111\r
c=IN IP4 0.0.0.0\r
a=mid:0\r
a=sendonly\r
a=rtcp-mux\r
a=ice-ufrag:mEvP\r
a=ice-pwd:wrQ3PJBBaChe1fHJzpYFGFd3\r
a=fingerprint:sha-256 6B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08\r
a=setup:actpass\r
a=rtpmap:111 opus/48000/2\r
";

/// The beginning of an answer.
pub const ANSWER: &str = "v=0\r
o=- 6102937451129 1 IN IP4 0.0.0.0\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
a=ice-lite\r
";

/// New credentials: an ICE restart.
pub const FRAGMENT: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";

/// An event's id.
pub const EVENT: &str = "EV_6jUoS3zRn9AdWy1MlXq4Kb";

/// One event of a stream.
pub const EVENTS: &str = "id: EV_6jUoS3zRn9AdWy1MlXq4Kb\nevent: room_started\n\
data: {\"id\":\"EV_6jUoS3zRn9AdWy1MlXq4Kb\",\"event\":\"room_started\",\"seq\":1,\"created_at\":1795347000,\
\"room\":{\"sid\":\"RM_4zKq0dGVt1bX9yLr2WmN8s\",\"name\":\"lobby\"}}\n\n";

pub const ROOM: &str = "RM_4zKq0dGVt1bX9yLr2WmN8s";
pub const CALL: &str = "CA_1dYpQ7sFm3WvNz9KtLh5Xe";
pub const PARTICIPANT: &str = "PA_3kWmT6vJb8CzQx0NrYf2Hd";
pub const TRACK: &str = "TR_2bVfWm0XaqLr8KzPn4TsYc";
const JOINED: &str = "2026-11-22T09:30:00.000Z";
const ENDED: &str = "2026-11-22T09:31:00.250Z";

/// A room, empty or in use.
pub fn room(in_use: bool) -> Value {
    let call = json!({"sid": CALL, "started_at": JOINED, "duration_ms": 61_500});
    json!({
        "sid": ROOM, "name": "lobby", "created_at": "2026-11-22T09:29:30.125Z", "max_participants": 25,
        "empty_timeout_s": 300, "departure_timeout_s": 20, "max_duration_s": null, "metadata": "{\"floor\":2}",
        "num_participants": if in_use { 2 } else { 0 }, "num_publishers": if in_use { 1 } else { 0 },
        "call": if in_use { call } else { Value::Null },
        "session_url": "https://sfu.example.org/v1/sessions", "whip_url": "https://sfu.example.org/whip",
        "whep_url": "https://sfu.example.org/whep",
        "ice_servers": [{
            "urls": ["turn:turn.example.org:3478?transport=udp"], "username": "1795390170:IC_0sXvP2nQeT7rLk5HyWc9Uo",
            "credential": "m0v1yq8hCwzE6T9aXbn3JkRs2Lo=",
        }],
    })
}

/// A token; its signature is cut off.
pub fn token() -> Value {
    json!({"token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwLTdmM2EifQ.…", "expires_at": "2026-11-22T09:35:00.000Z"})
}

/// What the demo page gets.
pub fn demo_token() -> Value {
    json!({
        "token": token()["token"], "room": "lobby", "identity": PARTICIPANT,
        "session_url": "http://127.0.0.1:7880/v1/sessions",
    })
}

/// A participant with a camera.
pub fn participant() -> Value {
    json!({
        "sid": PARTICIPANT, "identity": "p-7f3a", "name": "Ada", "metadata": "", "attributes": {"hat": "red"},
        "state": "active", "joined_at": JOINED,
        "grants": {"canPublish": true, "canSubscribe": true, "canPublishData": true, "hidden": false},
        "tracks": [{
            "sid": TRACK, "kind": "video", "source": "camera", "muted": false, "codec": "vp8",
            "layers": [{"rid": "q"}, {"rid": "h"}, {"rid": "f", "width": 1280, "height": 720}],
        }],
    })
}

/// How well it goes.
pub fn quality() -> Value {
    let encoding = json!({
        "rid": "h", "active": true, "bitrate_bps": 640_000, "width": 640, "height": 360, "frames": 1800, "lost": 3,
        "jitter_ms": 2.1, "keyframe_requests": 4, "packets": 5400, "bytes": 4_800_000,
    });
    let slot = json!({
        "mid": "2", "kind": "video", "track": TRACK, "participant": PARTICIPANT, "state": "live", "layer": {"rid": "h"},
        "switches_up": 2, "switches_down": 1, "packets": 5100, "bytes": 4_500_000, "retransmitted": 16,
        "keyframe_requests": 1,
    });
    json!({
        "name": "lobby", "sid": ROOM, "at": ENDED,
        "participants": [{
            "identity": "p-7f3a", "sid": PARTICIPANT, "session": "SE_5hTnR2yQm8ZcVx0LkWp3Ja", "state": "active",
            "transport": "udp", "round_trip_ms": 42.5, "estimate_bps": 2_350_000, "loss_ratio": 0.0125, "nacks": 17,
            "demand_bps": 3_100_000, "spent_bps": 1_900_000, "limited": true,
            "published": [{
                "track": TRACK, "kind": "video", "source": "camera", "codec": "vp8", "muted": false,
                "encodings": [encoding],
            }],
            "received": [slot],
        }],
    })
}

/// A call that is over.
pub fn call() -> Value {
    json!({
        "call": CALL, "room": "lobby", "started_at": JOINED, "ended_at": ENDED, "duration_ms": 60_250,
        "participants": 3, "peak_participants": 2, "rx_bytes": 12_345_678, "tx_bytes": 23_456_789,
        "end_reason": "room_empty", "final": true,
    })
}

/// A record that is final.
pub fn record() -> Value {
    json!({
        "record_id": "RE_9gPsL5xUo1KcTb7RyMv4Jd", "call": CALL, "room": "lobby", "identity": "p-7f3a",
        "joined_at": JOINED, "ended_at": ENDED, "duration_ms": 60_250, "rx_bytes": 6_172_839, "tx_bytes": 11_728_394,
        "audio_published_ms": 60_100, "video_published_ms": 42_000,
        "ip": {"mode": "prefix", "value": "198.51.100.0/24"}, "os": "windows", "client": "chromium",
        "transport": "udp", "end_reason": "client_left", "final": true,
    })
}

/// One day.
pub fn usage() -> Value {
    let sums = json!({
        "participant_ms": 180_750, "rounded_up_minutes": 6, "peak_participants": 2, "calls": 1,
        "egress_bytes": 23_456_789, "ingress_bytes": 12_345_678, "distinct_addresses": 2,
    });
    let mut day = sums.clone();
    day["day"] = "2026-11-22".into();
    json!({"usage": [day], "total": sums})
}

/// Everything about a person.
pub fn export() -> Value {
    let event = json!({
        "id": "EV_6jUoS3zRn9AdWy1MlXq4Kb", "event": "participant_joined", "seq": 2, "created_at": 1_795_347_000,
        "room": {"sid": ROOM, "name": "lobby"}, "participant": {"sid": PARTICIPANT, "identity": "p-7f3a"},
        "call": {"sid": CALL, "started_at": JOINED},
    });
    json!({
        "fields": {"identity": "the pseudonym that the service gave the person"},
        "records": [record()], "events": [event],
    })
}
