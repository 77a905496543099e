//! Random operations: the counters against lists that are counted anew each time.

use super::*;

const OPERATIONS: usize = 20_000;
const SEEDS: std::ops::Range<u64> = 1..2;
const TENANTS: [&str; 3] = ["a", "b", "c"];
const ROOMS: u64 = 4;
const ADDRESSES: u64 = 5;

const LIMITS: [&str; 3] = [
    "[default]\nmax_rooms = 3\nmax_participants = 9\nmax_participants_per_room = 4\nsessions_per_ip = 3\n\
     joins_per_ip_per_minute = 6\nparticipant_minutes_per_month = 40\negress_bytes_per_month = 4_000\n\
     [b]\nmax_participants = 5\njoins_per_ip_per_minute = 0",
    "[default]\nmax_rooms = 1\nsessions_per_ip = 2\njoins_per_ip_per_minute = 3\n[c]\nsessions_per_ip = 0",
    "",
];

/// A small generator (Knuth's MMIX constants), so that one seed is one run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Everything that is counted, of every tenant that has something.
#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    rooms: BTreeMap<Tenant, u64>,
    participants: BTreeMap<Tenant, u64>,
    by_room: BTreeMap<(Tenant, RoomId), u64>,
    by_address: BTreeMap<(Tenant, u64), u64>,
    month: BTreeMap<Tenant, (u64, u64)>,
    joins: BTreeMap<(Tenant, u64), u64>,
}

fn address_numbers(counts: BTreeMap<(Tenant, AddressKey), u64>) -> BTreeMap<(Tenant, u64), u64> {
    let number = |key| (0..ADDRESSES).find(|n| address(*n) == key).expect("an address of this test");
    counts.into_iter().map(|((tenant, key), count)| ((tenant, number(key)), count)).collect()
}

fn view(counters: &Counters) -> View {
    let mut view = View { joins: address_numbers(counters.joins.counts()), ..View::default() };
    let mut by_address = BTreeMap::new();
    for (tenant, in_use) in &counters.tenants {
        let month = (in_use.month.participant_ms, in_use.month.egress_bytes);
        view.rooms.extend((in_use.rooms > 0).then(|| (tenant.clone(), in_use.rooms)));
        view.participants.extend((in_use.participants > 0).then(|| (tenant.clone(), in_use.participants)));
        view.month.extend((month != (0, 0)).then(|| (tenant.clone(), month)));
        view.by_room.extend(in_use.by_room.iter().map(|(room, count)| ((tenant.clone(), *room), *count)));
        by_address.extend(in_use.by_address.iter().map(|(key, count)| ((tenant.clone(), *key), *count)));
    }
    view.by_address = address_numbers(by_address);
    view
}

/// What a tenant has used this month, in the units of the limits.
fn monthly(view: &View, tenant: &Tenant) -> [(Quota, u64); 2] {
    let (ms, bytes) = view.month.get(tenant).copied().unwrap_or_default();
    [(Quota::ParticipantMinutesPerMonth, ms / 60_000), (Quota::EgressBytesPerMonth, bytes)]
}

#[derive(Default)]
struct Model {
    limits: LimitTable,
    rooms: Vec<Tenant>,
    participants: Vec<(Tenant, RoomId, u64)>,
    /// When, whose, whence; also the old ones.
    joins: Vec<(u64, Tenant, u64)>,
    /// In which month, who, milliseconds, bytes; also the old ones.
    used: Vec<(Month, Tenant, u64, u64)>,
    now: Moment,
}

impl Model {
    fn view(&self) -> View {
        fn count<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, u64> {
            let mut counts = BTreeMap::new();
            keys.for_each(|key| *counts.entry(key).or_default() += 1);
            counts
        }
        let mut month: BTreeMap<Tenant, (u64, u64)> = BTreeMap::new();
        for (_, tenant, ms, bytes) in self.used.iter().filter(|used| used.0 == Month::of(self.now.unix_ms)) {
            let sums = month.entry(tenant.clone()).or_default();
            *sums = (sums.0 + ms, sums.1 + bytes);
        }
        month.retain(|_, sums| *sums != (0, 0));
        let recent = self.joins.iter().filter(|(ms, ..)| ms + 60_000 > self.now.monotonic_ms);
        View {
            rooms: count(self.rooms.iter().cloned()),
            participants: count(self.participants.iter().map(|(tenant, ..)| tenant.clone())),
            by_room: count(self.participants.iter().map(|(tenant, room, _)| (tenant.clone(), *room))),
            by_address: count(self.participants.iter().map(|(tenant, _, from)| (tenant.clone(), *from))),
            month,
            joins: count(recent.map(|(_, tenant, from)| (tenant.clone(), *from))),
        }
    }

    /// The first of these quotas that has no room for one more: with its limit and what is used.
    fn first_exceeded(&self, tenant: &Tenant, asked: &[(Quota, u64)]) -> Option<(Quota, u64, u64)> {
        let limits = self.limits.of(tenant);
        asked.iter().find_map(|(quota, used)| {
            let limit = limits.of(*quota).filter(|limit| used + 1 > *limit)?;
            Some((*quota, limit, *used))
        })
    }

    fn take_room(&mut self, view: &View, tenant: &Tenant) -> Option<(Quota, u64, u64)> {
        let [minutes, bytes] = monthly(view, tenant);
        let rooms = (Quota::MaxRooms, view.rooms.get(tenant).copied().unwrap_or(0));
        let refused = self.first_exceeded(tenant, &[minutes, bytes, rooms]);
        if refused.is_none() {
            self.rooms.push(tenant.clone());
        }
        refused
    }

    fn take_participant(&mut self, view: &View, tenant: &Tenant, room: RoomId, from: u64) -> Option<(Quota, u64, u64)> {
        let by_address = (tenant.clone(), from);
        let joins = (Quota::JoinsPerIpPerMinute, view.joins.get(&by_address).copied().unwrap_or(0));
        if let Some(refused) = self.first_exceeded(tenant, &[joins]) {
            return Some(refused);
        }
        if self.limits.of(tenant).joins_per_ip_per_minute > 0 {
            self.joins.push((self.now.monotonic_ms, tenant.clone(), from));
        }
        let [minutes, bytes] = monthly(view, tenant);
        let sessions = (Quota::SessionsPerIp, view.by_address.get(&by_address).copied().unwrap_or(0));
        let all = (Quota::MaxParticipants, view.participants.get(tenant).copied().unwrap_or(0));
        let in_room = view.by_room.get(&(tenant.clone(), room)).copied().unwrap_or(0);
        let asked = [minutes, bytes, sessions, all, (Quota::MaxParticipantsPerRoom, in_room)];
        let refused = self.first_exceeded(tenant, &asked);
        if refused.is_none() {
            self.participants.push((tenant.clone(), room, from));
        }
        refused
    }

    fn move_participant(&mut self, index: usize, to: RoomId) -> Option<(Quota, u64, u64)> {
        let (tenant, from, _) = self.participants[index].clone();
        if from == to {
            return None;
        }
        let there = self.participants.iter().filter(|(owner, room, _)| *owner == tenant && *room == to).count();
        let refused = self.first_exceeded(&tenant, &[(Quota::MaxParticipantsPerRoom, there as u64)]);
        if refused.is_none() {
            self.participants[index].1 = to;
        }
        refused
    }
}

/// The counters, the model, and what happened to both.
struct Run {
    random: Random,
    counters: Counters,
    model: Model,
    admitted: u64,
    refused: BTreeMap<Quota, u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let model = Model { limits: limits(LIMITS[0]), now: after_ms(0), ..Model::default() };
        let counters = Counters::new(model.limits.clone(), model.now);
        Self { random: Random(seed), counters, model, admitted: 0, refused: BTreeMap::new() }
    }

    fn pass_time(&mut self) {
        let ms = match self.random.below(2_000) {
            0 => 20 * DAY_MS,
            1..400 => 0,
            _ => self.random.below(1_500),
        };
        self.model.now.monotonic_ms += ms;
        self.model.now.unix_ms += ms;
        let now = self.model.now;
        self.model.joins.retain(|(at_ms, ..)| at_ms + 60_000 > now.monotonic_ms);
        self.model.used.retain(|(month, ..)| *month == Month::of(now.unix_ms));
    }

    /// One operation on both. A refusal must be the model's, and leave all but the joins as it was.
    fn step(&mut self) {
        self.pass_time();
        let tenant = Tenant::from(TENANTS[self.random.below(3) as usize]);
        let (to, from) = (room(self.random.below(ROOMS).into()), self.random.below(ADDRESSES));
        let (now, mut before) = (self.model.now, self.model.view());
        let mut taken = None;
        match self.random.below(100) {
            0..10 => taken = Some((self.counters.take_room(&tenant, now), self.model.take_room(&before, &tenant))),
            10..20 => {
                self.counters.release_room(&tenant);
                let place = self.model.rooms.iter().position(|owner| *owner == tenant);
                place.map(|at| self.model.rooms.swap_remove(at));
            }
            20..55 => {
                let result = self.counters.take_participant(&tenant, to, address(from), now);
                taken = Some((result, self.model.take_participant(&before, &tenant, to, from)));
            }
            55..80 if !self.model.participants.is_empty() => {
                let count = self.model.participants.len() as u64;
                let left = self.model.participants.swap_remove(self.random.below(count) as usize);
                self.counters.release_participant(&left.0, left.1, address(left.2));
            }
            80..90 if !self.model.participants.is_empty() => {
                let index = self.random.below(self.model.participants.len() as u64) as usize;
                let (owner, left, _) = self.model.participants[index].clone();
                let result = self.counters.move_participant(&owner, left, to, now);
                taken = Some((result, self.model.move_participant(index, to)));
            }
            90..99 => {
                let (ms, bytes) = (self.random.below(60_000), self.random.below(100));
                self.counters.use_up(&tenant, ms, bytes, now);
                self.model.used.push((Month::of(now.unix_ms), tenant, ms, bytes));
            }
            _ if self.random.below(5) == 0 => {
                self.model.limits = limits(LIMITS[self.random.below(3) as usize]);
                self.counters.set_limits(self.model.limits.clone());
            }
            _ => {}
        }
        // Operations without a time leave it to the next one to forget.
        self.counters.turn(now);
        let after = view(&self.counters);
        if let Some((result, expected)) = taken {
            assert_eq!(result.map_err(|e| (e.quota, e.limit, e.used)).err(), expected);
            match result {
                Ok(()) => self.admitted += 1,
                Err(exceeded) => {
                    *self.refused.entry(exceeded.quota).or_default() += 1;
                    before.joins.clone_from(&after.joins);
                    assert_eq!(after, before, "a refused take changed something");
                }
            }
        }
        assert_eq!(after, self.model.view());
    }
}

#[test]
fn random_operations_agree_with_naive_counting() {
    let mut refused: BTreeMap<Quota, u64> = BTreeMap::new();
    for seed in SEEDS {
        let mut run = Run::new(seed);
        (0..OPERATIONS).for_each(|_| run.step());
        assert!(run.admitted > OPERATIONS as u64 / 10, "seed {seed}: {} admitted", run.admitted);
        run.refused.iter().for_each(|(quota, times)| *refused.entry(*quota).or_default() += times);
        for (tenant, room, from) in std::mem::take(&mut run.model.participants) {
            run.counters.release_participant(&tenant, room, address(from));
        }
        run.model.rooms.iter().for_each(|tenant| run.counters.release_room(tenant));
        assert_nobody_is_there(&run.counters);
        run.model.now.monotonic_ms += 60_000;
        run.counters.turn(run.model.now);
        assert!(run.counters.joins.is_empty());
    }
    println!("refused: {refused:?}");
    assert_eq!(refused.len(), Quota::ALL.len(), "every quota has refused: {refused:?}");
}
