//! Which quotas there are, and the limits that the configuration sets: `[quota.default]` and `[quota.NAME]`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::ids::Tenant;

/// The section of the limits that hold for every tenant.
pub(super) const DEFAULT: &str = "default";

macro_rules! quotas {
    ($($(#[$doc:meta])* $key:ident $quota:ident,)*) => {
        /// Something of which a tenant, or an address, may have only so much.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Quota {
            $($(#[$doc])* $quota,)*
        }

        impl Quota {
            /// All of them.
            pub const ALL: [Self; 7] = [$(Self::$quota,)*];

            /// The key of the configuration, and the metric's label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$quota => stringify!($key),)*
                }
            }
        }

        /// A tenant's limits. 0 is no limit, as is a key left out.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $($(#[$doc])* pub $key: u64,)*
        }

        impl Limits {
            /// The limit to a quota; none if there is no limit.
            pub fn of(&self, quota: Quota) -> Option<u64> {
                let limit = match quota {
                    $(Quota::$quota => self.$key,)*
                };
                Some(limit).filter(|limit| *limit > 0)
            }

            /// These limits, except where the patch has others.
            pub fn with(self, patch: &LimitsPatch) -> Self {
                Self { $($key: patch.$key.unwrap_or(self.$key),)* }
            }
        }

        /// Single limits that override others; 0 lifts one.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default, expecting = "a section, such as [quota.default]")]
        pub struct LimitsPatch {
            $($(#[$doc])* pub $key: Option<u64>,)*
        }
    };
}

quotas! {
    /// Rooms that exist.
    max_rooms MaxRooms,
    /// Participants in all rooms.
    max_participants MaxParticipants,
    /// Participants in any one room.
    max_participants_per_room MaxParticipantsPerRoom,
    /// Minutes of all participants in a UTC month.
    participant_minutes_per_month ParticipantMinutesPerMonth,
    /// Bytes sent in a UTC month.
    egress_bytes_per_month EgressBytesPerMonth,
    /// Sessions from one address.
    sessions_per_ip SessionsPerIp,
    /// Joins from one address in any 60 seconds.
    joins_per_ip_per_minute JoinsPerIpPerMinute,
}

impl Quota {
    /// Whether it is a sum over a month, which nobody can give back.
    pub fn is_monthly(self) -> bool {
        matches!(self, Self::ParticipantMinutesPerMonth | Self::EgressBytesPerMonth)
    }
}

/// The configuration's section `[quota]`: limits by API key, and `default`. It has no `Debug`, for it names tenants.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct LimitTable(BTreeMap<String, LimitsPatch>);

impl LimitTable {
    /// A tenant's limits: the default's, overridden key by key by its own.
    pub fn of(&self, tenant: &Tenant) -> Limits {
        let patches = [DEFAULT, tenant.key()].into_iter().filter_map(|name| self.0.get(name));
        patches.fold(Limits::default(), Limits::with)
    }

    /// The API keys that have limits of their own, so that a misspelt one can be found.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| *name != DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> LimitTable {
        toml::from_str(text).expect(text)
    }

    #[test]
    fn a_tenant_overrides_single_limits() {
        let table = table("[default]\nmax_rooms = 3\nmax_participants = 50\n[a]\nmax_rooms = 9\n[b]\nmax_rooms = 0");
        for (tenant, rooms, participants) in
            [("a", Some(9), Some(50)), ("b", None, Some(50)), ("c", Some(3), Some(50)), ("default", Some(3), Some(50))]
        {
            let limits = table.of(&tenant.into());
            assert_eq!(limits.of(Quota::MaxRooms), rooms, "{tenant}");
            assert_eq!(limits.of(Quota::MaxParticipants), participants, "{tenant}");
            assert_eq!(limits.of(Quota::SessionsPerIp), None, "{tenant}");
        }
        assert_eq!(table.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(LimitTable::default().of(&"a".into()), Limits::default());
    }

    #[test]
    fn every_quota_has_its_own_key() {
        for quota in Quota::ALL {
            let text = format!("{} = 7", quota.as_str());
            let limits: Limits = toml::from_str(&text).expect(&text);
            let patch: LimitsPatch = toml::from_str(&text).expect(&text);
            assert_eq!(limits, Limits::default().with(&patch));
            for other in Quota::ALL {
                assert_eq!(limits.of(other), (other == quota).then_some(7), "{text}");
            }
        }
    }

    #[test]
    fn wrong_limits_are_refused() {
        for text in ["max_room = 1", "max_rooms = -1", "max_rooms = 1.5", "max_rooms = \"1\"", "max_rooms = true"] {
            assert!(toml::from_str::<Limits>(text).is_err() && toml::from_str::<LimitsPatch>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<LimitTable>("max_rooms = 1").is_err(), "a limit stands in a section");
    }
}
