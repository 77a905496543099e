//! The joins of the last minute, by tenant and address.
//!
//! Each is remembered with its time, so that no 60 seconds ever hold more than the limit; a token bucket would let
//! nearly twice as many pass.

use std::collections::{BTreeMap, VecDeque};

use super::{AddressKey, MINUTE_MS};
use crate::ids::Tenant;

/// Most joins that are remembered, about 20 MiB of memory; beyond, the oldest are forgotten early. So many come only if
/// 2,000 join in each second of a minute.
const JOINS_MAX: usize = 1 << 17;

type Key = (Tenant, AddressKey);

#[derive(Default)]
pub struct Joins {
    /// When, in milliseconds of the monotonic clock, oldest first; never empty.
    times_ms: BTreeMap<Key, VecDeque<u64>>,
    /// Whose, oldest first: one entry for each time.
    order: VecDeque<Key>,
}

impl Joins {
    /// Forgets what is older than a minute. `now_ms` never falls, here and in [`Self::note`].
    pub fn expire(&mut self, now_ms: u64) {
        while let Some(oldest) = self.order.front().and_then(|key| self.times_ms.get(key)?.front())
            && (now_ms.saturating_sub(*oldest) >= MINUTE_MS || self.order.len() >= JOINS_MAX)
        {
            self.forget_oldest();
        }
    }

    /// Remembers a join.
    pub fn note(&mut self, tenant: &Tenant, address: AddressKey, now_ms: u64) {
        let key = (tenant.clone(), address);
        self.times_ms.entry(key.clone()).or_default().push_back(now_ms);
        self.order.push_back(key);
    }

    /// Joins of the last minute.
    pub fn count(&self, tenant: &Tenant, address: AddressKey) -> u64 {
        self.times_ms.get(&(tenant.clone(), address)).map_or(0, |times| times.len() as u64)
    }

    /// In how many milliseconds fewer than `limit` joins will have been in the last minute.
    pub fn free_after_ms(&self, tenant: &Tenant, address: AddressKey, limit: u64, now_ms: u64) -> u64 {
        let Some(times) = self.times_ms.get(&(tenant.clone(), address)) else { return 0 };
        // The last join that has to leave. There are more than `limit` if it was lowered.
        let last = usize::try_from(limit).ok().and_then(|limit| times.len().checked_sub(limit));
        let last = last.and_then(|at| times.get(at));
        last.map_or(0, |joined| (joined + MINUTE_MS).saturating_sub(now_ms))
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.order.pop_front() else { return };
        let Some(times) = self.times_ms.get_mut(&key) else { return };
        times.pop_front();
        if times.is_empty() {
            self.times_ms.remove(&key);
        }
    }
}

#[cfg(test)]
impl Joins {
    /// Every address with joins, and how many.
    pub fn counts(&self) -> BTreeMap<Key, u64> {
        self.times_ms.iter().map(|(key, times)| (key.clone(), times.len() as u64)).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.times_ms.is_empty() && self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_remembered_for_a_minute() {
        let (mut joins, tenant, address) = (Joins::default(), Tenant::from("a"), AddressKey::from_bits(1));
        for at_ms in [1_000, 2_000, 2_000, 30_000] {
            joins.expire(at_ms);
            joins.note(&tenant, address, at_ms);
        }
        for (limit, now_ms, expected) in
            [(4, 30_000, 31_000), (3, 30_000, 32_000), (1, 30_000, 60_000), (5, 30_000, 0), (4, 99_000, 0)]
        {
            assert_eq!(joins.free_after_ms(&tenant, address, limit, now_ms), expected, "{limit} {now_ms}");
        }
        for (now_ms, expected) in [(60_999, 4), (61_000, 3), (62_000, 1), (89_999, 1), (90_000, 0)] {
            joins.expire(now_ms);
            assert_eq!(joins.count(&tenant, address), expected, "{now_ms}");
        }
        assert!(joins.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut joins, tenant) = (Joins::default(), Tenant::from("a"));
        for bits in 0..JOINS_MAX as u64 + 1_000 {
            joins.expire(0);
            joins.note(&tenant, AddressKey::from_bits(bits), 0);
        }
        assert_eq!((joins.order.len(), joins.times_ms.len()), (JOINS_MAX, JOINS_MAX));
        assert_eq!(joins.count(&tenant, AddressKey::from_bits(0)), 0);
    }
}
