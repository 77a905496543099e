//! Tests of [`super`].

use super::*;
use crate::media::speakers::script::{Natural, Random};

const PACKET: Duration = Duration::from_millis(20);

/// One room; track n is seat n's.
struct Room {
    selector: AudioSelector,
    now: Instant,
    size: u16,
}

impl Room {
    fn new(limit: usize, size: u16) -> Self {
        Self { selector: AudioSelector::new(limit), now: Instant::now(), size }
    }

    /// Packets of everyone with the levels given, for so long.
    fn run(&mut self, ms: u64, mut level: impl FnMut(u16) -> u8) {
        for _ in 0..ms / 20 {
            for seat in 0..self.size {
                self.say(seat, level(seat));
            }
            self.now += PACKET;
        }
    }

    fn say(&mut self, seat: u16, level: u8) -> Heard {
        self.selector.heard(TrackKey(seat.into()), Seat(seat), Some(level), self.now)
    }

    fn heard_by(&self, listener: u16) -> Vec<u16> {
        (0..self.size).filter(|seat| self.selector.chosen(TrackKey((*seat).into()), Seat(listener))).collect()
    }

    fn heard(&self) -> Vec<u16> {
        self.heard_by(u16::MAX)
    }
}

#[test]
fn in_a_small_bubble_everything_flows() {
    let mut room = Room::new(4, 5);
    room.run(1000, |_| 70);
    for seat in 0..5 {
        assert_eq!(room.heard_by(seat), (0..5).filter(|other| *other != seat).collect::<Vec<_>>());
    }
}

#[test]
fn a_talker_is_heard_from_the_first_loud_packet_while_there_is_room() {
    let mut room = Room::new(4, 30);
    room.run(1000, |_| 70);
    for talkers in 1..=4 {
        room.run(1000, |seat| if seat > 30 - talkers { 30 } else { 70 });
        assert!(!room.heard().contains(&(30 - talkers)));
        room.say(30 - talkers, 30);
        assert!(room.heard().contains(&(30 - talkers)), "talker {talkers}");
    }
    // All four speak: each hears the three others and one more, and who begins to speak is that one.
    for seat in 26..30 {
        assert_eq!(room.heard_by(seat).len(), 4);
    }
    room.say(20, 30);
    assert!(room.heard_by(27).contains(&20) && !room.heard().contains(&20));
}

#[test]
fn nothing_changes_while_nobody_speaks_and_pauses_lose_no_place() {
    let mut room = Room::new(4, 10);
    room.run(1000, |seat| if seat >= 6 { 30 } else { 70 });
    assert_eq!(room.heard(), [6, 7, 8, 9]);
    room.run(60_000, |_| 60);
    assert_eq!(room.heard(), [6, 7, 8, 9]);
    // All pause for 700 ms; a click takes no place.
    room.run(1000, |seat| if seat >= 6 { 30 } else { 70 });
    room.run(700, |_| 70);
    room.say(0, 20);
    assert_eq!(room.heard(), [6, 7, 8, 9]);
}

#[test]
fn a_click_keeps_its_place_for_a_moment_only() {
    let mut room = Room::new(1, 3);
    room.run(1000, |_| 70);
    room.say(1, 20);
    assert_eq!(room.heard(), [1]);
    room.run(200, |_| 70);
    room.say(2, 30);
    assert_eq!(room.heard(), [2]);
}

#[test]
fn only_the_clearly_louder_take_a_place_from_those_who_speak() {
    for (level, taken) in [(36, false), (31, false), (22, true)] {
        let mut room = Room::new(4, 6);
        // Voices that breathe once a second, lest they drone.
        for packet in 0..150 {
            room.run(20, |seat| if seat == 5 || packet % 50 < 2 { 70 } else { 34 - seat as u8 });
        }
        let before = room.heard();
        room.run(180, |seat| if seat == 5 { level } else { 34 - seat as u8 });
        assert_eq!(room.heard(), before, "{level}");
        room.run(40, |seat| if seat == 5 { level } else { 34 - seat as u8 });
        assert_eq!(room.heard().contains(&5), taken, "{level}");
    }
}

#[test]
fn digital_silence_stops_after_a_while_and_ends_at_once() {
    let mut room = Room::new(4, 1);
    for packet in 0..100 {
        let expected = if packet < 25 { Heard::Sound } else { Heard::Silence };
        assert_eq!(room.say(0, 127), expected, "{packet}");
        room.now += PACKET;
    }
    assert_eq!(room.say(0, 126), Heard::Sound);
    assert_eq!(room.say(0, 127), Heard::Sound);
    assert_eq!(room.selector.heard(TrackKey(9), Seat(9), None, room.now), Heard::Sound);
}

#[test]
fn tracks_without_levels_always_flow_and_take_no_place() {
    let mut room = Room::new(2, 6);
    for seat in 0..3 {
        room.selector.heard(TrackKey(seat.into()), Seat(seat), None, room.now);
    }
    for seat in 3..6 {
        room.say(seat, 30);
    }
    assert_eq!(room.heard(), [0, 1, 2, 3, 4]);
    assert_eq!(room.heard_by(1), [0, 2, 3, 4]);
}

#[test]
fn a_forgotten_track_leaves_its_place_to_the_next_and_its_key_to_another() {
    let mut room = Room::new(2, 5);
    room.run(100, |_| 70);
    room.selector.forget(TrackKey(0));
    room.selector.forget(TrackKey(0));
    assert!(room.selector.chosen(TrackKey(2), Seat(9)) && !room.selector.chosen(TrackKey(3), Seat(9)));
    room.selector.heard(TrackKey(1), Seat(3), Some(70), room.now);
    assert!(!room.selector.chosen(TrackKey(1), Seat(9)), "another owner's: it begins at the end");
    assert!(!room.selector.chosen(TrackKey(1), Seat(3)), "never oneself");
}

/// For how long nobody heard the honest talker while they spoke, and at most in one go, in milliseconds.
fn kept_out(seconds: u64, mut lie: impl FnMut(u64) -> u8) -> (u64, u64) {
    let (mut room, mut honest, mut out, mut run, mut longest) = (Room::new(4, 11), Natural::new(5, 30), 0, 0, 0);
    room.run(2000, |_| 70);
    for at in 0..seconds * 50 {
        let level = honest.level();
        room.run(20, |seat| if seat == 10 { level } else { lie(at + u64::from(seat)) });
        run = if room.heard().contains(&10) { 0 } else { run + 20 };
        out += if run > 0 && level < 50 { 20 } else { 0 };
        longest = longest.max(run);
    }
    (out, longest)
}

#[test]
fn liars_cannot_keep_an_honest_talker_out() {
    let (out, longest) = kept_out(60, |_| 0);
    println!("constant 0: out {out} ms, at most {longest} in one go");
    assert!(out < 4000 && longest < 4000);
    // Lies that breathe are like speech; they get no more than their share.
    for breath in [50, 125] {
        let mut random = Random(7);
        let (out, longest) = kept_out(120, |at| if at % breath == 0 { 127 } else { random.below(9) as u8 });
        println!("a breath each {breath} packets: out {out} ms of 120 s, at most {longest} in one go");
        assert!(out < 60_000 && longest < 12_000);
    }
}

#[test]
fn random_levels_break_no_invariant() {
    for seed in 1..=30 {
        let mut random = Random(seed);
        let (limit, tracks, seats) = (random.below(5) as usize, 1 + random.below(24), 1 + random.below(16));
        let mut voices: Vec<_> = (0..tracks).map(|n| Natural::new(seed * 99 + n, 20 + n as u8)).collect();
        let (mut one, mut two) = (AudioSelector::new(limit), AudioSelector::new(limit));
        let (mut now, mut alive) = (Instant::now(), vec![false; tracks as usize]);
        let owner = |track: usize| Seat((track as u64 % seats) as u16);
        for _ in 0..1500 {
            let (track, listeners) = (random.below(tracks) as usize, (0..=seats as u16).map(Seat));
            let key = TrackKey(track as u32);
            let sets = |of: &AudioSelector| -> Vec<Vec<bool>> {
                let flows = |listener| (0..tracks as u32).map(|t| of.chosen(TrackKey(t), listener)).collect();
                listeners.clone().map(flows).collect()
            };
            let (before, new) = (sets(&one), !alive[track]);
            let ends = random.below(100) == 0;
            let level = voices[track].level();
            for selector in [&mut one, &mut two] {
                if ends { selector.forget(key) } else { _ = selector.heard(key, owner(track), Some(level), now) }
            }
            alive[track] = !ends;
            let others = one.ranked(0..99).filter(|(rank, t)| one.order[*rank].0 != key && t.speaks(now));
            let spoke = one.track(key).is_some_and(|t| t.voice.spoke_within(Duration::from_nanos(1), now));
            assert!(!spoke || others.count() >= limit || one.chosen(key, Seat(u16::MAX)), "there was room");
            now += Duration::from_micros(random.below(40_000 / tracks));
            let after = sets(&one);
            assert_eq!(after, sets(&two), "not deterministic");
            for (seat, (before, after)) in before.iter().zip(&after).enumerate() {
                let known = |t: &usize| alive[*t] && owner(*t) != Seat(seat as u16);
                let hears = (0..tracks as usize).filter(known).filter(|t| after[*t]).count();
                assert_eq!(hears, limit.min((0..tracks as usize).filter(known).count()));
                let begun = (0..tracks as usize).filter(|t| after[*t] && !before[*t]).count();
                assert!(begun <= 1 && (new || ends || begun == 0 || level < 50), "changed without reason");
            }
        }
    }
}
