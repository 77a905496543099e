//! Quotas: what each tenant, and each client address of a tenant, has in use, and whether it may have more.
//!
//! Pure: times come in, nothing is stored. A take is all or nothing and costs the caller one lock, so as many are
//! admitted as the limit says, however many ask at once. Quotas are asked at allocations and joins only; what runs is
//! never cut. Whatever is counted now vanishes when it is given back, so the memory in use follows from who is there.

use std::collections::{BTreeMap, BTreeSet};

use super::address::AddressKey;
use crate::ids::{RoomId, Tenant};

mod joins;
mod month;

pub use crate::config::{LimitTable, Limits, Quota};
pub use month::Month;

use joins::Joins;

/// At which share of a limit a tenant is told, in percent.
const THRESHOLD_PERCENT: u128 = 80;

/// When to try again if rooms, participants or sessions have to end first, in seconds: nobody knows when they do.
const RETRY_AFTER_S: u64 = 5;

/// The longest time to try again after, in seconds: a day. A month's quota may be raised before the month ends.
const RETRY_AFTER_MAX_S: u64 = 86_400;

/// Milliseconds in a UTC day.
const DAY_MS: u64 = 86_400_000;
/// Milliseconds in a minute.
const MINUTE_MS: u64 = 60_000;

/// When something is asked, by both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds of the monotonic clock, for what happens within a minute.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z, for days and months.
    pub unix_ms: u64,
}

/// A tenant or an address may not have more of something: answered with 429 `quota_exceeded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} is used up: {used} of {limit}; try again in {retry_after_s} s", quota.as_str())]
pub struct Exceeded {
    pub quota: Quota,
    pub limit: u64,
    /// In use, without what was refused; above `limit` if the limit was lowered.
    pub used: u64,
    pub retry_after_s: u64,
}

/// What a tenant is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrossingKind {
    /// 80 % of the limit are in use: event `quota_threshold`.
    Threshold,
    /// Something was refused, or a month's sum has reached its limit: event `quota_exceeded`.
    Exceeded,
}

/// A tenant came near a limit or reached it. Told once each a UTC day, of monthly quotas once a month, and anew when
/// the limit is changed. Quotas of rooms and addresses are told for the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    pub tenant: Tenant,
    pub quota: Quota,
    pub kind: CrossingKind,
    pub limit: u64,
    pub used: u64,
}

/// What a tenant has used since the month began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MonthToDate {
    pub participant_ms: u64,
    pub egress_bytes: u64,
}

/// How much of something is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub quota: Quota,
    pub used: u64,
    /// None: as much as one likes.
    pub limit: Option<u64>,
}

/// What is in use, and the limits to it.
pub struct Counters {
    limits: LimitTable,
    /// The latest monotonic time seen; callers may have read their clocks before they waited for the lock.
    now_ms: u64,
    /// Days since 1970-01-01.
    day: u64,
    month: Month,
    tenants: BTreeMap<Tenant, InUse>,
    joins: Joins,
    crossings: Vec<Crossing>,
}

/// What one tenant has in use. Entries of the maps are never zero.
#[derive(Default)]
struct InUse {
    rooms: u64,
    participants: u64,
    by_room: BTreeMap<RoomId, u64>,
    by_address: BTreeMap<AddressKey, u64>,
    month: MonthToDate,
    told: BTreeSet<(Quota, CrossingKind)>,
}

/// One more of something is asked for.
struct Claim {
    quota: Quota,
    used: u64,
    /// How far beyond the limit it may go.
    allowance: u64,
}

impl Counters {
    /// Nothing in use. A month that has begun is told by [`Self::begin_month`].
    pub fn new(limits: LimitTable, at: Moment) -> Self {
        Self {
            limits,
            now_ms: at.monotonic_ms,
            day: at.unix_ms / DAY_MS,
            month: Month::of(at.unix_ms),
            tenants: BTreeMap::new(),
            joins: Joins::default(),
            crossings: Vec::new(),
        }
    }

    /// Replaces the limits; what is in use stays. A tenant is told anew of the quotas whose limit has changed.
    pub fn set_limits(&mut self, limits: LimitTable) {
        for (tenant, in_use) in &mut self.tenants {
            let (old, new) = (self.limits.of(tenant), limits.of(tenant));
            in_use.told.retain(|(quota, _)| old.of(*quota) == new.of(*quota));
        }
        self.limits = limits;
    }

    /// Sets what was used in `month` so far, for the start of the server; tenants left out have used nothing. What was
    /// reached already is not told again, for it was told before the restart.
    pub fn begin_month(&mut self, month: Month, used: impl IntoIterator<Item = (Tenant, MonthToDate)>) {
        self.start_month(month);
        let untold = self.crossings.len();
        for (tenant, month_to_date) in used {
            self.in_use(&tenant).month = month_to_date;
            self.tell_of_month(&tenant);
        }
        self.crossings.truncate(untold);
    }

    /// Takes a room, at its allocation.
    pub fn take_room(&mut self, tenant: &Tenant, at: Moment) -> Result<(), Exceeded> {
        self.turn(at);
        let used = self.in_use(tenant).rooms;
        self.admit(tenant, at, [Claim { quota: Quota::MaxRooms, used, allowance: 0 }])?;
        self.in_use(tenant).rooms += 1;
        Ok(())
    }

    /// Counts a room that exists already.
    pub fn hold_room(&mut self, tenant: &Tenant) {
        self.in_use(tenant).rooms += 1;
    }

    /// Gives a room back; its participants give themselves back.
    pub fn release_room(&mut self, tenant: &Tenant) {
        if let Some(in_use) = self.tenants.get_mut(tenant) {
            in_use.rooms = in_use.rooms.saturating_sub(1);
        }
    }

    /// Takes a participant, at its join from `address`.
    ///
    /// Addresses are counted for each tenant by itself, so that no tenant learns of another one's clients. A join that
    /// another quota refuses counts towards `joins_per_ip_per_minute`, because it was work; one that this very quota
    /// refuses does not, for else `retry_after_s` would be untrue and an impatient client would never get in.
    pub fn take_participant(
        &mut self,
        tenant: &Tenant,
        room: RoomId,
        address: AddressKey,
        at: Moment,
    ) -> Result<(), Exceeded> {
        self.join(tenant, room, address, 0, at)
    }

    /// As [`Self::take_participant`], for a join that replaces an older session of the same participant: that one's
    /// place is not held against it. Each of the two is released when it ends.
    pub fn replace_participant(
        &mut self,
        tenant: &Tenant,
        room: RoomId,
        address: AddressKey,
        at: Moment,
    ) -> Result<(), Exceeded> {
        self.join(tenant, room, address, 1, at)
    }

    /// Gives a participant back. One that is not counted in this room and from this address changes nothing.
    pub fn release_participant(&mut self, tenant: &Tenant, room: RoomId, address: AddressKey) {
        let Some(in_use) = self.tenants.get_mut(tenant) else { return };
        if in_use.by_room.contains_key(&room) && in_use.by_address.contains_key(&address) {
            take_one(&mut in_use.by_room, room);
            take_one(&mut in_use.by_address, address);
            in_use.participants = in_use.participants.saturating_sub(1);
        }
    }

    /// Counts a participant in another room from now on. Only that room's limit is asked, for nobody joins. If none is
    /// counted in `from`, nothing changes.
    pub fn move_participant(&mut self, tenant: &Tenant, from: RoomId, to: RoomId, at: Moment) -> Result<(), Exceeded> {
        self.turn(at);
        let in_use = self.in_use(tenant);
        if from == to || !in_use.by_room.contains_key(&from) {
            return Ok(());
        }
        let quota = Quota::MaxParticipantsPerRoom;
        let used = in_use.by_room.get(&to).copied().unwrap_or(0);
        self.claim(tenant, at, &Claim { quota, used, allowance: 0 })?;
        self.tell_if_near(tenant, quota, used + 1);
        let in_use = self.in_use(tenant);
        take_one(&mut in_use.by_room, from);
        *in_use.by_room.entry(to).or_default() += 1;
        Ok(())
    }

    /// Adds what was used since it was last asked: time of participants and bytes sent.
    pub fn use_up(&mut self, tenant: &Tenant, participant_ms: u64, egress_bytes: u64, at: Moment) {
        self.turn(at);
        let month = &mut self.in_use(tenant).month;
        month.participant_ms = month.participant_ms.saturating_add(participant_ms);
        month.egress_bytes = month.egress_bytes.saturating_add(egress_bytes);
        self.tell_of_month(tenant);
    }

    /// What tenants are to be told since this was last asked, in the order it happened.
    pub fn crossings(&mut self) -> Vec<Crossing> {
        std::mem::take(&mut self.crossings)
    }

    /// What a tenant has in use of all that is counted for it as a whole, with the limits.
    pub fn tally(&self, tenant: &Tenant) -> Vec<Tally> {
        let nothing = InUse::default();
        let in_use = self.tenants.get(tenant).unwrap_or(&nothing);
        let now = [(Quota::MaxRooms, in_use.rooms), (Quota::MaxParticipants, in_use.participants)];
        let limits = self.limits.of(tenant);
        let all = now.into_iter().chain(in_use.month.used());
        all.map(|(quota, used)| Tally { quota, used, limit: limits.of(quota) }).collect()
    }

    fn join(
        &mut self,
        tenant: &Tenant,
        room: RoomId,
        address: AddressKey,
        replaced: u64,
        at: Moment,
    ) -> Result<(), Exceeded> {
        self.turn(at);
        self.count_join(tenant, address)?;
        let in_use = self.in_use(tenant);
        let from_address = in_use.by_address.get(&address).copied().unwrap_or(0);
        let in_room = in_use.by_room.get(&room).copied().unwrap_or(0);
        let claims = [
            (Quota::SessionsPerIp, from_address),
            (Quota::MaxParticipants, in_use.participants),
            (Quota::MaxParticipantsPerRoom, in_room),
        ];
        self.admit(tenant, at, claims.map(|(quota, used)| Claim { quota, used, allowance: replaced }))?;
        let in_use = self.in_use(tenant);
        in_use.participants += 1;
        *in_use.by_room.entry(room).or_default() += 1;
        *in_use.by_address.entry(address).or_default() += 1;
        Ok(())
    }

    fn count_join(&mut self, tenant: &Tenant, address: AddressKey) -> Result<(), Exceeded> {
        let quota = Quota::JoinsPerIpPerMinute;
        // Without a limit, joins need not be remembered.
        let Some(limit) = self.limits.of(tenant).of(quota) else { return Ok(()) };
        let used = self.joins.count(tenant, address);
        if used >= limit {
            let retry_after_s = self.joins.free_after_ms(tenant, address, limit, self.now_ms).div_ceil(1000).max(1);
            self.tell(tenant, quota, CrossingKind::Exceeded, limit, used);
            return Err(Exceeded { quota, limit, used, retry_after_s });
        }
        self.joins.note(tenant, address, self.now_ms);
        self.tell_if_near(tenant, quota, used + 1);
        Ok(())
    }

    /// Whether the month's quotas last and all claims fit; then tells of those that come near their limits.
    fn admit<const N: usize>(&mut self, tenant: &Tenant, at: Moment, claims: [Claim; N]) -> Result<(), Exceeded> {
        for (quota, used) in self.in_use(tenant).month.used() {
            self.claim(tenant, at, &Claim { quota, used, allowance: 0 })?;
        }
        for claim in &claims {
            self.claim(tenant, at, claim)?;
        }
        for claim in &claims {
            self.tell_if_near(tenant, claim.quota, claim.used + 1);
        }
        Ok(())
    }

    fn claim(&mut self, tenant: &Tenant, at: Moment, claim: &Claim) -> Result<(), Exceeded> {
        let Claim { quota, used, allowance } = *claim;
        match self.limits.of(tenant).of(quota) {
            Some(limit) if used >= limit.saturating_add(allowance) => {
                self.tell(tenant, quota, CrossingKind::Exceeded, limit, used);
                Err(Exceeded { quota, limit, used, retry_after_s: self.retry_after_s(quota, at) })
            }
            _ => Ok(()),
        }
    }

    fn retry_after_s(&self, quota: Quota, at: Moment) -> u64 {
        if !quota.is_monthly() {
            return RETRY_AFTER_S;
        }
        let rest_ms = self.month.next().start_unix_ms().saturating_sub(at.unix_ms);
        rest_ms.div_ceil(1000).clamp(1, RETRY_AFTER_MAX_S)
    }

    fn tell_of_month(&mut self, tenant: &Tenant) {
        for (quota, used) in self.in_use(tenant).month.used() {
            self.tell_if_near(tenant, quota, used);
            if let Some(limit) = self.limits.of(tenant).of(quota).filter(|limit| used >= *limit) {
                self.tell(tenant, quota, CrossingKind::Exceeded, limit, used);
            }
        }
    }

    fn tell_if_near(&mut self, tenant: &Tenant, quota: Quota, used: u64) {
        let Some(limit) = self.limits.of(tenant).of(quota) else { return };
        if u128::from(used) * 100 >= u128::from(limit) * THRESHOLD_PERCENT {
            self.tell(tenant, quota, CrossingKind::Threshold, limit, used);
        }
    }

    fn tell(&mut self, tenant: &Tenant, quota: Quota, kind: CrossingKind, limit: u64, used: u64) {
        let told = &mut self.in_use(tenant).told;
        if kind == CrossingKind::Exceeded {
            // Nobody needs to hear of 80 % after 100 %.
            told.insert((quota, CrossingKind::Threshold));
        }
        if told.insert((quota, kind)) {
            self.crossings.push(Crossing { tenant: tenant.clone(), quota, kind, limit, used });
        }
    }

    /// Notes that time goes on.
    fn turn(&mut self, at: Moment) {
        self.now_ms = self.now_ms.max(at.monotonic_ms);
        self.joins.expire(self.now_ms);
        let (day, month) = (at.unix_ms / DAY_MS, Month::of(at.unix_ms));
        // A clock that is set back a little, over midnight, does not bring yesterday or the old month back.
        if day != self.day && day + 1 != self.day {
            self.day = day;
            self.tenants.values_mut().for_each(|in_use| in_use.told.retain(|(quota, _)| quota.is_monthly()));
        }
        if month != self.month && month.next() != self.month {
            self.start_month(month);
        }
    }

    fn start_month(&mut self, month: Month) {
        self.month = month;
        for in_use in self.tenants.values_mut() {
            in_use.month = MonthToDate::default();
            in_use.told.retain(|(quota, _)| !quota.is_monthly());
        }
    }

    fn in_use(&mut self, tenant: &Tenant) -> &mut InUse {
        self.tenants.entry(tenant.clone()).or_default()
    }
}

impl MonthToDate {
    /// In the units of the limits. Minutes are the sum's, rounded down once, not each participant's.
    fn used(&self) -> [(Quota, u64); 2] {
        [
            (Quota::ParticipantMinutesPerMonth, self.participant_ms / MINUTE_MS),
            (Quota::EgressBytesPerMonth, self.egress_bytes),
        ]
    }
}

/// Lowers a count that is there, and removes it at zero.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let Some(count) = counts.get_mut(&key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
    }
}

#[cfg(test)]
mod tests;
