//! Who gets which layer: turns what the network of a subscriber takes into a layer for each of its slots.
//!
//! The choice itself is [`allocator::allocate`]; this gathers what it decides by, carries
//! the decision out, and says when to decide again.

use std::time::{Duration, Instant};

use super::allocator::{self, Budget, Claim};
use super::budget::Purse;
use super::layers::Layer;
use super::participant::Participant;
use super::timers::Timer;
use super::{EncodingIndex, Output, Room, Seat, SlotIndex};
use crate::command::MediaKind;
use crate::units::Bitrate;

/// A subscriber's first estimates rise from a guess to what the network takes, and each is paid from at once: there is
/// nothing yet that could flap.
const START_UP: Duration = Duration::from_secs(4);
/// A demand that grew by this factor is a wish for more: a larger tile, another camera.
const MORE_WISHED: f64 = 1.25;
/// A demand that moved by less than this share, in per cent, is not told anew.
const DEMAND_STEP_PERCENT: u64 = 5;
/// What an audio track is counted with until it is measured: Opus at 40 kbit/s and its headers.
const AUDIO_PRICE: Bitrate = Bitrate::from_bps(60_000);

/// What one participant can be sent, and is.
#[derive(Debug)]
pub struct Means {
    purse: Purse,
    /// What to count with before feedback tells.
    guess: Option<Bitrate>,
    /// When feedback first told.
    measured_since: Option<Instant>,
    /// Something was taken away for lack of means.
    has_fallen: bool,
    /// What is granted costs.
    spent: Bitrate,
    /// Something that is wished for is not granted.
    limited: bool,
    demand: Bitrate,
}

impl Means {
    /// Without limits until something is known.
    pub fn new(now: Instant) -> Self {
        Self {
            purse: Purse::new(now),
            guess: None,
            measured_since: None,
            has_fallen: false,
            spent: Bitrate::ZERO,
            limited: false,
            demand: Bitrate::ZERO,
        }
    }

    /// An estimate came.
    fn note(&mut self, estimate: Bitrate, measured: bool, now: Instant) {
        if !measured {
            self.guess = Some(estimate);
            return;
        }
        let since = *self.measured_since.get_or_insert(now);
        if !self.has_fallen && now.saturating_duration_since(since) < START_UP {
            self.purse = Purse::new(now);
        }
        self.purse.note(estimate, now);
    }

    /// What video may cost, if that is limited.
    fn budget(&self, audio: Bitrate, now: Instant) -> Option<Budget> {
        let guess = || self.guess.map(|guess| Budget { held: guess, new: guess });
        let all = self.purse.budget(now).or_else(guess)?;
        let less = |rate: Bitrate| Bitrate::from_bps(rate.as_bps().saturating_sub(audio.as_bps()));
        Some(Budget { held: less(all.held), new: less(all.new) })
    }

    /// What is granted costs, what all that is wished for would cost, and whether that is more.
    pub fn balance(&self) -> (Bitrate, Bitrate, bool) {
        (self.spent, self.demand, self.limited)
    }
}

const UNLIMITED: Budget = Budget { held: Bitrate::from_bps(u64::MAX), new: Bitrate::from_bps(u64::MAX) };

/// A slot's part in an allocation.
struct Stake {
    slot: usize,
    useful: usize,
    granted: Option<usize>,
}

impl Room {
    /// A subscriber's network takes so much.
    pub(super) fn estimate(&mut self, seat: Seat, estimate: Bitrate, measured: bool, now: Instant) {
        let Some(participant) = self.participant_mut(seat) else { return };
        let means = &mut participant.means;
        let first = measured && means.measured_since.is_none();
        means.note(estimate, measured, now);
        if first || means.limited || estimate < means.spent {
            self.allocate(seat, now);
            self.tell_changed_slots(seat);
        }
    }

    /// Looks at all who have less than they wish for.
    pub(super) fn allocate_limited(&mut self, now: Instant) {
        for index in 0..self.seats.len() {
            let seat = Seat(index as u16);
            if self.participant(seat).is_some_and(|participant| participant.means.limited) {
                self.allocate(seat, now);
            }
        }
    }

    /// Chooses the layers of a participant's slots.
    pub(super) fn allocate(&mut self, seat: Seat, now: Instant) {
        let Some(participant) = self.participant(seat) else { return };
        let audio = self.audio_rate(participant);
        let budget = participant.means.budget(audio, now).unwrap_or(UNLIMITED);
        let stakes = self.stakes(participant);
        let prices = |stake: &Stake| {
            let binding = participant.slots.get(stake.slot).and_then(|slot| slot.binding);
            let ladder = binding.and_then(|binding| self.track(binding.track)).map(|track| &track.ladder);
            ladder.and_then(|ladder| ladder.prices(0).get(..stake.useful)).unwrap_or_default()
        };
        let claims: Vec<Claim<'_>> =
            stakes.iter().map(|stake| Claim { rungs: prices(stake), granted: stake.granted }).collect();
        let mut grants = Vec::with_capacity(claims.len());
        let fell = allocator::allocate(&budget, &claims, &mut grants);
        let cost = |claim: &Claim<'_>, rung: Option<usize>| rung.map_or(0, |rung| claim.rungs[rung].as_bps());
        let (mut spent, mut demand, mut limited) = (audio.as_bps(), audio.as_bps(), false);
        for (claim, grant) in claims.iter().zip(&grants) {
            let top = claim.rungs.len().checked_sub(1);
            spent += cost(claim, *grant);
            demand += cost(claim, top);
            limited |= *grant < top;
        }
        for (stake, grant) in stakes.iter().zip(grants) {
            self.grant(seat, stake, grant, now);
        }
        self.note_allocation(seat, (Bitrate::from_bps(spent), Bitrate::from_bps(demand)), (limited, fell), now);
    }

    /// Video slots with something to show, the most important first.
    fn stakes(&self, participant: &Participant) -> Vec<Stake> {
        let mut ranked: Vec<(u16, Stake)> = Vec::with_capacity(participant.slots.len());
        for (index, slot) in participant.slots.iter().enumerate() {
            let Some(binding) = slot.binding.filter(|_| slot.kind == MediaKind::Video) else { continue };
            let Some(track) = self.track(binding.track).filter(|track| !track.muted) else { continue };
            let useful = track.ladder.prices(slot.height).len();
            let granted = binding.target.and_then(|layer| track.ladder.rung_of(layer));
            let granted = granted.map(|rung| rung.min(useful.saturating_sub(1)));
            ranked.push((slot.rank, Stake { slot: index, useful, granted }));
        }
        ranked.sort_by_key(|(rank, stake)| (*rank, stake.slot));
        ranked.into_iter().map(|(_, stake)| stake).collect()
    }

    /// What the sound costs that a participant gets.
    fn audio_rate(&self, participant: &Participant) -> Bitrate {
        let slots = participant.slots.iter().filter(|slot| slot.kind == MediaKind::Audio);
        let tracks = slots.filter_map(|slot| self.track(slot.binding?.track)).filter(|track| !track.muted);
        let rate = |rate: Bitrate| if rate == Bitrate::ZERO { AUDIO_PRICE } else { rate };
        let mut rates: Vec<u64> = tracks.map(|track| rate(track.rate()).as_bps()).collect();
        rates.sort_unstable_by_key(|rate| std::cmp::Reverse(*rate));
        Bitrate::from_bps(rates.into_iter().take(self.audio.limit()).sum())
    }

    /// Carries out what was decided about one slot.
    fn grant(&mut self, seat: Seat, stake: &Stake, grant: Option<usize>, now: Instant) {
        let index = SlotIndex(stake.slot as u16);
        let slot = self.participant(seat).and_then(|participant| participant.slots.get(stake.slot));
        let Some(key) = slot.and_then(|slot| slot.binding).map(|binding| binding.track) else { return };
        let Some(track) = self.track(key) else { return };
        let target = match grant {
            Some(rung) => track.ladder.layer(rung),
            // Nothing is known of its layers, for nothing has come of it.
            None if stake.useful == 0 => Some(Layer::whole(EncodingIndex(0))),
            None => None,
        };
        let silent = target.is_some_and(|layer| !track.comes(layer.encoding, now));
        let Some(slot) = self.slot_mut(seat, index) else { return };
        let was_sent = slot.binding.is_some_and(|binding| binding.target.is_some());
        let keyframe_of = slot.aim(target, silent);
        if target.is_none() && was_sent {
            self.discard(seat, index);
        }
        if let Some(layer) = target {
            self.revive(key, layer.encoding, now);
        }
        if let Some(encoding) = keyframe_of {
            self.want_keyframe(key, encoding, now);
        }
    }

    fn note_allocation(
        &mut self,
        seat: Seat,
        (spent, demand): (Bitrate, Bitrate),
        (limited, fell): (bool, bool),
        now: Instant,
    ) {
        let Some(participant) = self.participant_mut(seat) else { return };
        let (peer, means) = (participant.peer, &mut participant.means);
        let before = means.spent;
        if limited && !means.limited && !fell && demand > means.demand * MORE_WISHED && !means.purse.is_waiting(now) {
            // What was estimated while nothing more was wished for is no measure.
            (means.measured_since, means.has_fallen) = (means.measured_since.map(|_| now), false);
        }
        (means.spent, means.limited) = (spent, limited);
        if fell {
            means.has_fallen = true;
            means.purse.fell(before, now);
        }
        let retry_at = means.purse.retry_at(now).filter(|_| limited);
        let step = means.demand.as_bps() * DEMAND_STEP_PERCENT / 100;
        let is_news = means.demand.as_bps().abs_diff(demand.as_bps()) > step;
        if is_news {
            means.demand = demand;
            self.outputs.push_back(Output::Demand { peer, demand });
        }
        if let Some(at) = retry_at {
            self.timers.set_earlier(Timer::Budget, at);
        }
    }
}
