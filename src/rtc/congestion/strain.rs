//! Sees plainly what GoogCC's trend line overlooks at high rates.
//!
//! GoogCC takes packets that arrive within 5 ms of each other for one burst, up to 100 ms: behind a busy bottleneck
//! all of them, from some 2 Mbit/s. Its window of 20 bursts then spans 2 s, while the estimate grows by 8 % a second.
//! And when a queue is full, delay no longer grows. So here is the crude question: over the last second, did delay
//! grow by much, and over the last half, did much less arrive than was sent?

use crate::units::Bitrate;

/// One slot of the history.
const SLOT_US: i64 = 100_000;
const SLOTS: usize = 11;
/// The throughput is measured over so many slots.
const RATE_SLOTS: usize = 5;
/// Delay that grows by this over the history: the queue grows at 5 % of what it is fed.
const MAX_GROWTH_US: i64 = 50_000;
/// A smaller share than this of what is sent arrives: the queue overflows, or grows beyond all doubt.
const MIN_DELIVERED: f64 = 0.7;
/// What to send then, as a share of what arrived: little less, so that the queue drains within a second or two.
const YIELD: f64 = 0.92;
/// The same if the queue is full.
const YIELD_FULL: f64 = 0.85;
/// Packets that all take this much longer than they did at best stand in a queue. Jitter and a frame's own packets stay
/// below.
pub const QUEUE_US: i64 = 30_000;
/// A queue so long says at once what the network carries, if that is less than this share of what was sent in half a
/// second; a keyframe does not make it that.
const LONG_QUEUE_US: i64 = 60_000;
const OVERRUN: f64 = 0.5;
/// Fewer packets than this in half a second say nothing.
const MIN_PACKETS: u32 = 20;

/// A tenth of a second, by arrival.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// When its last packet was sent, and when it arrived.
    sent_us: i64,
    arrived_us: i64,
    sent_bytes: u64,
    arrived_bytes: u64,
    packets: u32,
    /// The least arrival time less sending time.
    delay_us: i64,
}

/// The network is strained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strained {
    /// What was sent, and what arrived.
    pub sent: Bitrate,
    pub arrived: Bitrate,
    /// What to send instead.
    pub instead: Bitrate,
    /// A long queue stands and much less arrives than was sent: that is not chance.
    pub overflows: bool,
}

impl Strained {
    fn new(sent_bps: f64, arrived_bps: f64, share: f64) -> Self {
        let [sent, arrived, instead] =
            [sent_bps, arrived_bps, arrived_bps * share].map(|bps| Bitrate::from_bps(bps as u64));
        Self { sent, arrived, instead, overflows: false }
    }
}

/// The last second of what was sent and what arrived.
#[derive(Debug, Default)]
pub struct Strain {
    /// Newest first; those with packets.
    slots: [Slot; SLOTS],
    filled: usize,
    growing: Slot,
}

impl Strain {
    /// Feedback about one packet.
    pub fn add(&mut self, wire_bytes: u16, sent_us: u64, arrived_us: Option<i64>) {
        let slot = &mut self.growing;
        slot.sent_bytes += u64::from(wire_bytes);
        let Some(arrived_us) = arrived_us else { return };
        let sent_us = sent_us.cast_signed();
        let delay_us = arrived_us - sent_us;
        slot.delay_us = if slot.packets == 0 { delay_us } else { slot.delay_us.min(delay_us) };
        slot.sent_us = slot.sent_us.max(sent_us);
        slot.arrived_us = slot.arrived_us.max(arrived_us);
        slot.arrived_bytes += u64::from(wire_bytes);
        slot.packets += 1;
    }

    /// Call after each feedback: what to fall back to, if the network is strained.
    pub fn verdict(&mut self) -> Option<Strained> {
        let newest = self.slots[0];
        if self.growing.packets == 0 || self.growing.arrived_us < newest.arrived_us + SLOT_US {
            return None;
        }
        if self.filled > 0 && self.growing.arrived_us > newest.arrived_us + 5 * SLOT_US {
            // A silence, a pause of the network or lost feedback: what was before does not compare.
            self.filled = 0;
            self.slots[0].arrived_us = std::mem::take(&mut self.growing).arrived_us;
            return None;
        }
        self.slots.rotate_right(1);
        self.slots[0] = std::mem::take(&mut self.growing);
        self.filled = (self.filled + 1).min(SLOTS);
        let queued = self.queue_us() >= LONG_QUEUE_US;
        let overflows = |strained: &Strained| queued && strained.arrived < strained.sent * MIN_DELIVERED;
        let verdict = self.judge().map(|strained| Strained { overflows: overflows(&strained), ..strained });
        if verdict.is_some() {
            self.filled = 0;
        }
        verdict
    }

    /// What arrived lately, if that is known.
    pub fn arrived(&self) -> Option<Bitrate> {
        let slots = self.filled.checked_sub(1)?.min(RATE_SLOTS);
        let bytes = self.slots[..slots].iter().map(|slot| slot.arrived_bytes).sum();
        let bps = rate(bytes, self.slots[0].arrived_us - self.slots[slots].arrived_us)?;
        Some(Bitrate::from_bps(bps as u64))
    }

    /// How much longer packets take than they did at best in the last second, in microseconds.
    pub fn queue_us(&self) -> i64 {
        let slots = self.slots.get(..self.filled).unwrap_or_default();
        let best = slots.iter().map(|slot| slot.delay_us).min();
        slots.first().zip(best).map_or(0, |(newest, best)| newest.delay_us - best)
    }

    /// What the narrowest link carries: what came out of a queue while one stood, in the last half second.
    pub fn drained(&self) -> Option<Bitrate> {
        let slots = self.slots.get(..self.filled).unwrap_or_default();
        let best = slots.iter().map(|slot| slot.delay_us).min()?;
        let queued = slots.windows(2).take(RATE_SLOTS).filter(|pair| pair[0].delay_us - best >= QUEUE_US);
        let (bytes, span_us) = queued.fold((0, 0), |(bytes, span_us), pair| {
            (bytes + pair[0].arrived_bytes, span_us + pair[0].arrived_us - pair[1].arrived_us)
        });
        let bps = rate(bytes, span_us).filter(|_| span_us >= SLOT_US)?;
        Some(Bitrate::from_bps(bps as u64))
    }

    /// What was sent over so much of the history, in bit/s.
    fn sent(&self, slots: usize) -> Option<f64> {
        let before = self.slots.get(slots).filter(|_| self.filled > slots)?;
        rate(self.slots[..slots].iter().map(|slot| slot.sent_bytes).sum(), self.slots[0].sent_us - before.sent_us)
    }

    fn judge(&self) -> Option<Strained> {
        // A queue that is long already: what comes out of it is known before half a second has passed.
        if self.queue_us() >= LONG_QUEUE_US
            && let Some((drained, sent)) = self.drained().zip(self.sent(self.filled.saturating_sub(1).min(RATE_SLOTS)))
            && drained < Bitrate::from_bps(sent as u64) * OVERRUN
        {
            return Some(Strained::new(sent, drained.as_bps() as f64, YIELD_FULL));
        }
        if self.filled <= RATE_SLOTS {
            return None;
        }
        let recent = &self.slots[..RATE_SLOTS];
        let (newest, before) = (self.slots[0], self.slots[RATE_SLOTS]);
        let packets: u32 = recent.iter().map(|slot| slot.packets).sum();
        if packets < MIN_PACKETS {
            return None;
        }
        let arrived = rate(recent.iter().map(|slot| slot.arrived_bytes).sum(), newest.arrived_us - before.arrived_us)?;
        let sent = self.sent(RATE_SLOTS)?;
        if arrived < sent * MIN_DELIVERED {
            return Some(Strained::new(sent, arrived, YIELD_FULL));
        }
        let delay = |slots: &[Slot]| slots.iter().map(|slot| slot.delay_us).min();
        let full = self.filled == SLOTS;
        let growth_us = delay(&self.slots[..2])? - delay(&self.slots[SLOTS - 2..])?;
        (full && growth_us > MAX_GROWTH_US).then(|| Strained::new(sent, arrived, YIELD))
    }
}

fn rate(bytes: u64, span_us: i64) -> Option<f64> {
    (span_us > 0).then(|| bytes as f64 * 8e6 / span_us as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds 1250-byte packets 10 ms apart, 1 Mbit/s; the delay of each in ms, or its loss, is given by its number.
    fn verdicts(packets: u64, delay_ms: impl Fn(u64) -> Option<i64>) -> Vec<(u64, u64)> {
        let mut strain = Strain::default();
        let mut verdicts = Vec::new();
        for index in 0..packets {
            let sent_us = 1_000_000 + index * 10_000;
            strain.add(1250, sent_us, delay_ms(index).map(|ms| sent_us.cast_signed() + ms * 1000));
            if index % 5 == 4
                && let Some(strained) = strain.verdict()
            {
                verdicts.push((index / 10, strained.instead.as_bps() / 10_000));
            }
        }
        verdicts
    }

    #[test]
    fn a_calm_or_merely_lossy_network_is_not_strained() {
        assert_eq!(verdicts(1000, |_| Some(20)), []);
        assert_eq!(verdicts(1000, |index| Some(-500_000 + (index % 7).cast_signed() * 3)), []);
        assert_eq!(verdicts(1000, |index| (index % 6 != 0).then_some(20)), []);
        assert_eq!(verdicts(1000, |index| Some(20 + index.cast_signed() / 4)), [], "25 ms a second");
        assert_eq!(verdicts(1000, |index| Some(if index < 500 { 20 } else { 1020 })), [], "a pause, not a queue");
    }

    #[test]
    fn a_growing_queue_and_a_full_one_are_seen() {
        // 100 ms a second: 91 % of a megabit arrive, and after 1.1 s it is told to send 92 % of that.
        assert_eq!(verdicts(150, |index| Some(20 + index.cast_signed())), [(10, 83)]);
        // Two of five arrive.
        let full = verdicts(100, |index| (index % 5 < 2).then_some(250));
        assert_eq!(full.len(), 1);
        assert!((30..40).contains(&full[0].1), "{full:?}");
    }

    #[test]
    fn what_comes_out_of_a_queue_is_what_the_link_carries() {
        let mut strain = Strain::default();
        let mut verdict = None;
        // 2 Mbit/s in packets of 1,250 bytes every 5 ms. After a second the link takes 250 kbit/s: 40 ms for each.
        let mut free_us = 0;
        for index in 0..300 {
            let sent_us = 1_000_000 + index * 5_000;
            let service_us = if index < 200 { 5_000 } else { 40_000 };
            free_us = free_us.max(sent_us) + service_us;
            strain.add(1250, sent_us, Some(free_us.cast_signed()));
            verdict = verdict.or(strain.verdict().map(|strained| (index, strained)));
            if index == 199 {
                assert_eq!((strain.drained(), verdict), (None, None));
            }
            if verdict.is_some() {
                break;
            }
        }
        let (index, strained) = verdict.unwrap();
        // By arrival, which is what feedback goes by: a tenth of a second, or two.
        assert!(index <= 210 && free_us < 2_400_000, "{index}: {strained:?}");
        assert!((200_000..=260_000).contains(&strained.arrived.as_bps()), "{strained:?}");
        assert!(strained.instead < strained.arrived);
    }

    #[test]
    fn nonsense_does_no_harm() {
        assert_eq!(verdicts(1000, |_| None), []);
        verdicts(1000, |index| Some(if index % 2 == 0 { 1_000_000_000 } else { -1_000_000_000 }));
        verdicts(1000, |index| Some(-(index.cast_signed()) * 10));
    }
}
