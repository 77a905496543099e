//! The data channel `stube`: JSON on the wire, [`Signal`]s and [`Request`]s inside.

use serde::Serialize;
use serde_json::Value;

use crate::media::signal::{Request, Signal};

/// The label and protocol a client opens the channel with.
pub const LABEL: &str = "stube";
pub const PROTOCOL: &str = "stube.v1";
/// Largest message a client may send, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// A message that cannot be used, as an [`Signal::Error`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub code: &'static str,
    pub message: &'static str,
    pub re: &'static str,
}

impl From<Fault> for Signal {
    fn from(Fault { code, message, re }: Fault) -> Self {
        Self::Error { code, message, re }
    }
}

/// Writes a message with its sequence number.
pub fn encode(seq: u64, signal: &Signal) -> Vec<u8> {
    #[derive(Serialize)]
    struct Numbered<'a> {
        seq: u64,
        #[serde(flatten)]
        signal: &'a Signal,
    }
    // Signals hold only strings, numbers and maps with string keys: serialising them cannot fail.
    serde_json::to_vec(&Numbered { seq, signal }).unwrap_or_default()
}

/// The types a client may send; anything else is ignored, so that newer clients can talk to older servers.
const KNOWN: [&str; 5] = ["want", "mute", "tracks", "message", "ping"];

/// Reads a message; `None` for a type this server does not know.
pub fn decode(data: &[u8]) -> Result<Option<Request>, Fault> {
    if data.len() > MAX_REQUEST_BYTES {
        return Err(Fault { code: "message_too_large", message: "a message is at most 16 KiB", re: "unknown" });
    }
    let not_json = Fault { code: "invalid_message", message: "not a JSON object with a type", re: "unknown" };
    let value: Value = serde_json::from_slice(data).map_err(|_| not_json)?;
    let kind = value.get("type").and_then(Value::as_str).ok_or(not_json)?;
    let Some(known) = KNOWN.into_iter().find(|known| *known == kind) else {
        return Ok(None);
    };
    let wrong = |_| Fault { code: "invalid_message", message: "a field is missing or of the wrong type", re: known };
    serde_json::from_value(value).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::EndReason;
    use crate::ids::TrackId;
    use crate::media::signal::WantedAudio;

    fn read(text: &str) -> Result<Option<Request>, Fault> {
        decode(text.as_bytes())
    }

    #[test]
    fn messages_are_written_as_the_contract_says() {
        let text = String::from_utf8(encode(7, &Signal::leave(EndReason::RoomDeleted))).unwrap();
        assert_eq!(text, r#"{"seq":7,"type":"leave","reason":"room_deleted","action":"disconnect"}"#);
        let text = String::from_utf8(encode(1, &Signal::leave(EndReason::ServerShutdown))).unwrap();
        assert!(text.ends_with(r#""reason":"server_shutdown","action":"reconnect"}"#), "{text}");
    }

    #[test]
    fn wishes_are_read() {
        let track = TrackId::from_bits(5);
        let text = format!(r#"{{"type":"want","video":[{{"track":"{track}","height":360}}],"audio":"auto","new":1}}"#);
        let Ok(Some(Request::Want { video, audio })) = read(&text) else { panic!("not read") };
        assert!(video[0].track == track && video[0].height == 360 && video[0].priority == 0);
        assert!(matches!(audio, WantedAudio::Word(_)));
        let Ok(Some(Request::Want { audio, .. })) = read(r#"{"type":"want","video":[]}"#) else { panic!("not read") };
        assert!(matches!(audio, WantedAudio::Auto));
        let text = format!(r#"{{"type":"want","audio":["{track}"]}}"#);
        let Ok(Some(Request::Want { audio, .. })) = read(&text) else { panic!("not read") };
        assert!(matches!(audio, WantedAudio::Tracks(tracks) if tracks == [track]));
    }

    #[test]
    fn the_unknown_is_ignored_and_the_wrong_is_told() {
        assert!(matches!(read(r#"{"type":"dance"}"#), Ok(None)));
        for text in ["", "[]", "{}", "hello", r#"{"type":5}"#, "\u{0}"] {
            assert_eq!(read(text).map(|_| ()).map_err(|fault| fault.code), Err("invalid_message"), "{text}");
        }
        let fault = read(r#"{"type":"mute","muted":"yes"}"#).unwrap_err();
        assert_eq!((fault.code, fault.re), ("invalid_message", "mute"));
        let long = format!(r#"{{"type":"ping","at":"{}"}}"#, "x".repeat(MAX_REQUEST_BYTES));
        assert_eq!(read(&long).map(|_| ()).map_err(|fault| fault.code), Err("message_too_large"));
    }
}
