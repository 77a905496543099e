//! Opaque identifiers and the private strings that people choose.
//!
//! Ids are 128 random bits, written as a prefix and 22 base62 characters (`RM_…`, `PA_…`). Session ids are
//! capabilities, so every id is drawn wide enough to be one. `Debug` never shows more than four characters.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

/// Base62 digits of a 128-bit number: ⌈128 / log2 62⌉.
const ID_DIGITS: usize = 22;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What an [`Id`] names; gives its two-letter prefix.
pub trait Kind {
    /// The prefix before the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($marker:ident $alias:ident $prefix:literal $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $marker {}
        impl Kind for $marker { const PREFIX: &'static str = $prefix; }
        #[doc = $doc]
        pub type $alias = Id<$marker>;
    )*};
}

kinds! {
    RoomKind RoomId "RM" "A room, allocated by a map service.";
    CallKind CallId "CA" "One room from its first participant's join to its last one's leave.";
    ParticipantKind ParticipantId "PA" "One identity in one room.";
    SessionKind SessionId "SE" "One participant's one PeerConnection; knowing it allows to change and end it.";
    TrackKind TrackId "TR" "One published source.";
    RecordKind RecordId "RE" "One participant's session in one room, as the ledger keeps it.";
    EventKind EventId "EV" "One event of a webhook.";
}

/// A random 128-bit identifier of one [`Kind`].
pub struct Id<K>(u128, PhantomData<fn() -> K>);

impl<K> Id<K> {
    /// An id of these bits.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits, PhantomData)
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K> Id<K> {
    fn digits(self) -> [u8; ID_DIGITS] {
        let mut out = [b'0'; ID_DIGITS];
        let mut rest = self.0;
        for digit in out.iter_mut().rev() {
            *digit = ALPHABET[(rest % 62) as usize];
            rest /= 62;
        }
        out
    }
}

impl<K: Kind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(K::PREFIX)?;
        f.write_str("_")?;
        let digits = self.digits();
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl<K: Kind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.digits();
        let tail = std::str::from_utf8(&digits[ID_DIGITS - 4..]).unwrap_or_default();
        write!(f, "{}_…{tail}", K::PREFIX)
    }
}

impl<K: Kind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form PREFIX_ and 22 base62 characters")]
pub struct ParseIdError;

impl<K: Kind> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = text
            .strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .filter(|digits| digits.len() == ID_DIGITS)
            .ok_or(ParseIdError)?;
        let mut bits: u128 = 0;
        for byte in digits.bytes() {
            let value = ALPHABET.iter().position(|c| *c == byte).ok_or(ParseIdError)?;
            bits = bits.checked_mul(62).and_then(|b| b.checked_add(value as u128)).ok_or(ParseIdError)?;
        }
        Ok(Self::from_bits(bits))
    }
}

impl<'de, K: Kind> Deserialize<'de> for Id<K> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// As the contract has it: at least twelve characters, of which this server draws more.
impl<K: Kind> JsonSchema for Id<K> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        K::PREFIX.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": format!("^{}_[0-9A-Za-z]{{12,}}$", K::PREFIX)})
    }
}

/// Draws ids and small random numbers from a seed, so that inner rings need no entropy of their own.
///
/// The generator is ChaCha-based (`StdRng`): its output stays unguessable while the seed is secret.
pub struct IdSource(StdRng);

impl IdSource {
    /// A source whose draws follow from `seed` alone.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// The next id.
    pub fn id<K>(&mut self) -> Id<K> {
        let high = u128::from(self.0.next_u64());
        Id::from_bits((high << 64) | u128::from(self.0.next_u64()))
    }

    /// The next 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }
}

macro_rules! private_text {
    ($name:ident $doc:literal) => {
        #[doc = $doc]
        ///
        /// Personal: it has no `Display`, and `Debug` hides it, so it cannot slip into a log.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself, for the wire and for comparing.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self("".into())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("<private>")
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                String::json_schema(generator)
            }
        }
    };
}

/// An API key: whose rooms these are. The key's name is not secret, but it is nobody's business either.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The API key.
    pub fn key(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Tenant {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<tenant>")
    }
}

private_text!(Identity "Who a participant is to its tenant: the token's `sub`.");
private_text!(RoomName "What the tenant calls a room.");
private_text!(Text "A display name, metadata or an attribute.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_they_were_written() {
        let mut source = IdSource::from_seed([7; 32]);
        for _ in 0..1000 {
            let id: SessionId = source.id();
            let text = id.to_string();
            assert_eq!(text.len(), 3 + ID_DIGITS);
            assert_eq!(text.parse(), Ok(id));
        }
        let largest = RoomId::from_bits(u128::MAX);
        assert_eq!(largest.to_string().parse(), Ok(largest));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in
            ["", "SE_", "SE_0", "RM_0000000000000000000000", "SE_000000000000000000000-", "SE_zzzzzzzzzzzzzzzzzzzzzz"]
        {
            assert_eq!(text.parse::<SessionId>(), Err(ParseIdError), "{text}");
        }
    }

    #[test]
    fn debug_tells_little() {
        let id: SessionId = IdSource::from_seed([1; 32]).id();
        assert!(format!("{id:?}").len() < 12);
        assert_eq!(format!("{:?} {:?}", Identity::from("ada"), Text::from("x")), "<private> <private>");
    }
}
