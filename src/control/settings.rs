//! What a room is like: what its allocation asks for, what a PATCH changes, and whether two allocations ask for the same.

use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer};

use super::body::Fields;
use super::directory::MadeAs;
use super::limits::{self, MetadataText, RoomNameText};
use crate::command::RoomSettings;
use crate::config::Config;
use crate::ids::RoomName;

/// The most participants a room can be allocated for; a shard's streams end earlier.
const PARTICIPANTS_MAX: u64 = 10_000;

/// The longest `empty_timeout_s` and `departure_timeout_s`: a week.
const TIMEOUT_MAX_S: u64 = 7 * 86_400;

/// The longest `max_duration_s`: a month.
const DURATION_MAX_S: u64 = 31 * 86_400;

/// A room to be. What is left out is as the server's configuration says.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// The room's id unless given. Percent-encode it in URLs.
    #[schemars(with = "Option<RoomNameText>")]
    pub name: Option<String>,
    #[schemars(range(min = 1, max = PARTICIPANTS_MAX))]
    pub max_participants: Option<u64>,
    /// How long the room waits for its first participant.
    #[schemars(range(min = 1, max = TIMEOUT_MAX_S))]
    pub empty_timeout_s: Option<u64>,
    /// How long it stays after its last participant left.
    #[schemars(range(min = 0, max = TIMEOUT_MAX_S))]
    pub departure_timeout_s: Option<u64>,
    /// How long one call may last; no limit unless given.
    #[schemars(range(min = 1, max = DURATION_MAX_S))]
    pub max_duration_s: Option<u64>,
    #[schemars(with = "Option<MetadataText>")]
    pub metadata: Option<String>,
}

/// What is to be other than it is; what is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RoomChange")]
pub struct Change {
    #[schemars(range(min = 1, max = PARTICIPANTS_MAX))]
    pub max_participants: Option<u64>,
    #[schemars(range(min = 1, max = TIMEOUT_MAX_S))]
    pub empty_timeout_s: Option<u64>,
    #[schemars(range(min = 0, max = TIMEOUT_MAX_S))]
    pub departure_timeout_s: Option<u64>,
    /// `null` takes the limit away.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<u64>", range(min = 1, max = DURATION_MAX_S), transform = without_default)]
    pub max_duration_s: Option<Option<u64>>,
    #[schemars(with = "Option<MetadataText>")]
    pub metadata: Option<String>,
}

impl Change {
    /// Notes each that is beyond its limits.
    pub fn check(&self, fields: &mut Fields) {
        fields.check_range("/max_participants", self.max_participants, 1..=PARTICIPANTS_MAX);
        fields.check_range("/empty_timeout_s", self.empty_timeout_s, 1..=TIMEOUT_MAX_S);
        fields.check_range("/departure_timeout_s", self.departure_timeout_s, 0..=TIMEOUT_MAX_S);
        fields.check_range("/max_duration_s", self.max_duration_s.flatten(), 1..=DURATION_MAX_S);
        fields.check("/metadata", limits::metadata(self.metadata.as_deref().unwrap_or_default()));
    }

    /// The settings with what is to be other.
    pub fn applied_to(&self, settings: RoomSettings) -> RoomSettings {
        RoomSettings {
            name: settings.name,
            metadata: self.metadata.as_deref().map_or(settings.metadata, Into::into),
            max_participants: self.max_participants.map_or(settings.max_participants, |max| max as u32),
            empty_timeout: self.empty_timeout_s.map_or(settings.empty_timeout, Duration::from_secs),
            departure_timeout: self.departure_timeout_s.map_or(settings.departure_timeout, Duration::from_secs),
            max_duration: self.max_duration_s.map_or(settings.max_duration, |seconds| seconds.map(Duration::from_secs)),
        }
    }
}

/// What is left out is not null here, which is what serde's attribute says.
fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

/// A field that is there, even if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The settings of a room of this name that nobody chose anything for.
pub fn default_settings(config: &Config, name: &RoomName) -> RoomSettings {
    RoomSettings {
        name: name.as_str().into(),
        metadata: "".into(),
        max_participants: config.rooms.max_participants,
        empty_timeout: config.rooms.empty_timeout,
        departure_timeout: config.rooms.departure_timeout,
        max_duration: None,
    }
}

/// Whether a further allocation asks for a room as it is. What it leaves out may be as the defaults are, or as they were when
/// the room was made, whatever a PATCH has made of it since: services allocate at each join, and neither a reload with
/// other defaults nor a PATCH may keep people out.
pub fn fits(asked: &Change, settings: &RoomSettings, made_as: &MadeAs, defaults: RoomSettings) -> bool {
    let as_when_made = asked.applied_to(made_as.defaults.clone()) == made_as.settings;
    asked.applied_to(defaults) == *settings || (as_when_made && asked.applied_to(settings.clone()) == *settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Change = Change {
        max_participants: None,
        empty_timeout_s: None,
        departure_timeout_s: None,
        max_duration_s: None,
        metadata: None,
    };

    fn max(participants: u64) -> Change {
        Change { max_participants: Some(participants), ..NOTHING }
    }

    #[test]
    fn an_allocation_fits_what_it_would_have_made_unless_it_names_what_is_other_now() {
        let old = default_settings(&Config::default(), &"hall".into());
        let new = max(50).applied_to(old.clone());
        // How it was made, what a PATCH changed, what is asked for, with the old defaults and with others.
        let cases = [
            (NOTHING, NOTHING, NOTHING, [true, true]),
            (NOTHING, max(6), NOTHING, [true, true]),
            (NOTHING, max(6), max(6), [true, true]),
            (NOTHING, NOTHING, max(5), [false, false]),
            (max(5), NOTHING, max(5), [true, true]),
            (max(5), NOTHING, NOTHING, [false, false]),
            (max(5), max(6), max(5), [false, false]),
            (max(5), Change { metadata: Some("new".into()), ..NOTHING }, max(5), [true, true]),
            (max(50), NOTHING, NOTHING, [false, true]),
        ];
        for (number, (made, patch, asked, expected)) in cases.into_iter().enumerate() {
            let made_as = MadeAs { settings: made.applied_to(old.clone()), defaults: old.clone() };
            let settings = patch.applied_to(made_as.settings.clone());
            let seen = [&old, &new].map(|defaults| fits(&asked, &settings, &made_as, defaults.clone()));
            assert_eq!(seen, expected, "case {number}");
            assert!(fits(&NOTHING, &settings, &MadeAs::known(&settings), new.clone()), "after a restart");
        }
    }
}
