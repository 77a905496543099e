//! How long texts may be that tenants and participants choose, and which characters they may have.

use std::collections::BTreeMap;

/// The longest room name and identity, in characters: they stand in URLs and in every message about a participant.
const NAME_MAX_CHARS: usize = 128;

/// The longest display name, in characters.
const DISPLAY_NAME_MAX_CHARS: usize = 256;

/// The largest metadata of a room or participant, in bytes: with its room's and a few participants' it has to fit
/// into data channel messages of 16 KiB.
pub const METADATA_MAX_BYTES: usize = 4096;

/// The largest attributes of a participant, in bytes over all keys and values; for the same reason.
pub const ATTRIBUTES_MAX_BYTES: usize = 2048;

/// Checks a room's name.
pub fn room_name(name: &str) -> Result<(), String> {
    // "." and ".." vanish when a client normalises the URL /v1/rooms/{name}.
    if matches!(name, "." | "..") {
        return Err("a name is not \".\" or \"..\"".to_owned());
    }
    identity(name)
}

/// Checks a participant's identity.
pub fn identity(identity: &str) -> Result<(), String> {
    if identity.is_empty() {
        return Err("expected at least one character".to_owned());
    }
    line(identity, NAME_MAX_CHARS)
}

/// Checks a participant's display name, which may be empty.
pub fn display_name(name: &str) -> Result<(), String> {
    line(name, DISPLAY_NAME_MAX_CHARS)
}

fn line(text: &str, max_chars: usize) -> Result<(), String> {
    if text.chars().count() > max_chars {
        return Err(format!("expected at most {max_chars} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("expected no control characters".to_owned());
    }
    Ok(())
}

/// Checks the metadata of a room or participant.
pub fn metadata(metadata: &str) -> Result<(), String> {
    if metadata.len() > METADATA_MAX_BYTES {
        return Err(format!("expected at most {METADATA_MAX_BYTES} bytes"));
    }
    Ok(())
}

/// Checks a participant's attributes.
pub fn attributes(attributes: &BTreeMap<String, String>) -> Result<(), String> {
    let bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ATTRIBUTES_MAX_BYTES {
        return Err(format!("expected at most {ATTRIBUTES_MAX_BYTES} bytes in all keys and values"));
    }
    if attributes.contains_key("") {
        return Err("expected keys of at least one character".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_characters_not_bytes() {
        for (name, valid) in [
            ("a", true),
            ("Küche / unten", true),
            (&*"ü".repeat(128), true),
            (&*"a".repeat(129), false),
            ("", false),
            ("a\nb", false),
            ("\u{7f}", false),
            ("..", false),
        ] {
            assert_eq!(room_name(name).is_ok(), valid, "{name}");
        }
        assert!(display_name("").is_ok());
    }

    #[test]
    fn texts_have_limits_in_bytes() {
        assert!(metadata(&"a".repeat(METADATA_MAX_BYTES)).is_ok());
        assert!(metadata(&"a".repeat(METADATA_MAX_BYTES + 1)).is_err());
        let one = |key: &str, bytes| attributes(&[(key.to_owned(), "a".repeat(bytes))].into());
        assert!(one("k", ATTRIBUTES_MAX_BYTES - 1).is_ok());
        assert!(one("k", ATTRIBUTES_MAX_BYTES).is_err());
        assert!(one("", 1).is_err());
    }
}
