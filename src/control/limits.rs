//! How long texts may be that tenants and participants choose, and which characters they may have.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// The longest room name and identity, in characters: they stand in URLs and in every message about a participant.
const NAME_MAX_CHARS: usize = 128;

/// Digits of a phone number with a country or area code (E.164 has at most 15).
const PHONE_DIGITS_MIN: usize = 7;
const PHONE_DIGITS_MAX: usize = 15;

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

/// Checks that an identity is a pseudonym, as far as its looks tell: no e-mail address and no phone number.
pub fn pseudonym(identity: &str) -> Result<(), String> {
    let local = |(local, domain): (&str, &str)| !local.is_empty() && domain.contains('.') && !domain.contains(' ');
    if identity.split_once('@').is_some_and(local) {
        return Err("it looks like an e-mail address".to_owned());
    }
    let is_phone = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | ' ' | '(' | ')' | '/' | '.');
    let digits = identity.chars().filter(char::is_ascii_digit).count();
    let begins = identity.starts_with('+') || identity.starts_with("00") || identity.contains([' ', '/', '(']);
    if begins && (PHONE_DIGITS_MIN..=PHONE_DIGITS_MAX).contains(&digits) && identity.chars().all(is_phone) {
        return Err("it looks like a phone number".to_owned());
    }
    Ok(())
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

/// No control characters (Unicode's category Cc), as in [`line()`].
const LINE_PATTERN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// What the API's document says of a text: the same limits as a schema.
macro_rules! documented {
    ($($(#[$doc:meta])* $name:ident $schema:tt)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

documented! {
    /// [`room_name`]
    RoomNameText {
        "type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS, "pattern": LINE_PATTERN,
        "not": {"enum": [".", ".."]},
    }
    /// [`identity`]
    IdentityText {"type": "string", "minLength": 1, "maxLength": NAME_MAX_CHARS, "pattern": LINE_PATTERN}
    /// [`display_name`]
    DisplayNameText {"type": "string", "maxLength": DISPLAY_NAME_MAX_CHARS, "pattern": LINE_PATTERN}
    /// [`metadata`]; a schema counts characters, of which there are no more than bytes.
    MetadataText {
        "type": "string", "maxLength": METADATA_MAX_BYTES,
        "description": format!("At most {METADATA_MAX_BYTES} bytes in UTF-8."),
    }
    /// [`attributes`]
    AttributesText {
        "type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"minLength": 1},
        "description": format!("At most {ATTRIBUTES_MAX_BYTES} bytes in UTF-8 over all keys and values."),
    }
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
    fn what_looks_like_an_address_is_no_pseudonym() {
        for (identity, is_pseudonym) in [
            ("p-7f3a", true),
            ("ada", true),
            ("550e8400-e29b-41d4-a716-446655440000", true),
            ("1234567890", true),
            ("2026-11-22", true),
            ("@ada:matrix", true),
            ("ada@room", true),
            ("ada@example.org", false),
            ("+49 170 1234567", false),
            ("0049-170-1234567", false),
            ("030/1234567", false),
            ("(030) 123 45 67", false),
        ] {
            assert_eq!(pseudonym(identity).is_ok(), is_pseudonym, "{identity}");
        }
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
