//! Tests of [`super`].

use super::script::{Natural, Random};
use super::*;

type Script<'a> = Box<dyn FnMut(u64) -> u8 + 'a>;
/// When, in milliseconds, and which seats, first to last.
type Told = Vec<(u64, Vec<u16>)>;

fn script<'a>(level: impl FnMut(u64) -> u8 + 'a) -> Script<'a> {
    Box::new(level)
}

fn natural<'a>(seed: u64, around: u8) -> Script<'a> {
    let mut voice = Natural::new(seed, around);
    script(move |_| voice.level())
}

/// Seats 0 and up say what is in the scripts, a packet every 20 ms, and are judged every tick.
fn run(ms: u64, mut scripts: Vec<Script<'_>>) -> Told {
    let (t0, mut detector, mut told) = (Instant::now(), SpeakerDetector::default(), Told::new());
    for at in (0..ms).step_by(20) {
        let now = t0 + Duration::from_millis(at);
        for (seat, level) in scripts.iter_mut().enumerate() {
            detector.heard(Seat(seat as u16), level(at), now);
        }
        if at % 100 == 60
            && let Some(speakers) = detector.judge(now)
        {
            assert!(speakers.iter().all(|(_, level)| (0.0..=1.0).contains(level)));
            assert!(told.last().is_none_or(|(last, _)| at - last >= 300), "too often");
            told.push((at, speakers.into_iter().map(|(seat, _)| seat.0).collect()));
        }
    }
    told
}

/// How often the list of seats changed, whatever their order, and how often the first.
fn changes(told: &Told) -> (usize, usize) {
    let sets: Vec<Vec<u16>> = told
        .iter()
        .map(|(_, seats)| {
            let mut s = seats.clone();
            s.sort();
            s
        })
        .collect();
    let firsts: Vec<_> = told.iter().map(|(_, seats)| seats.first()).collect();
    (sets.windows(2).filter(|w| w[0] != w[1]).count(), firsts.windows(2).filter(|w| w[0] != w[1]).count())
}

#[test]
fn a_talker_is_told_within_half_a_second() {
    for level in [15, 25, 30, 38] {
        let told = run(5000, vec![script(|at| if at < 1000 { 70 } else { level })]);
        assert!(told.len() == 1 && told[0].0 < 1500 && told[0].1 == [0], "{level}: {told:?}");
    }
    // Speech begins with 300 ms of sound in the first 500; "well …" and a pause is told with the next word.
    let (mut fluent, mut halting) = (Vec::new(), Vec::new());
    for seed in 1..=200 {
        let (mut voice, mut said) = (Natural::new(seed, 30), 0);
        let told = run(
            6000,
            vec![script(|at| {
                let level = if at < 1000 { 70 } else { voice.level() };
                said += u64::from(at < 1500 && level < 50);
                level
            })],
        );
        let after = told[0].0 - 1000;
        if said >= 15 { fluent.push(after) } else { halting.push(after) }
    }
    fluent.sort();
    halting.sort();
    println!("fluent {} of {:?}, halting {} of {:?}", fluent.len(), fluent.last(), halting.len(), halting.last());
    assert!(fluent.len() > 120 && fluent.iter().all(|after| *after <= 500), "{fluent:?}");
    assert!(halting.iter().all(|after| *after <= 3000), "{halting:?}");
}

#[test]
fn coughs_clicks_and_noise_are_not_speech() {
    let mut random = Random(3);
    let scripts: Vec<(&str, Script<'_>)> = vec![
        ("cough of 100 ms", script(|at| if at % 3000 < 100 { 12 } else { 65 })),
        ("cough of 200 ms", script(|at| if at % 3000 < 200 { 0 } else { 65 })),
        ("two coughs", script(|at| if at % 3000 < 200 || (500..700).contains(&(at % 3000)) { 8 } else { 65 })),
        ("clicks", script(|at| if at % 200 < 20 { 20 } else { 60 })),
        ("fast clicks of 40 ms", script(|at| if at % 120 < 40 { 25 } else { 60 })),
        ("random clicks", script(move |_| if random.below(8) == 0 { 20 } else { 60 })),
        ("a quiet room", script(|at| 60 + (at / 20 % 5) as u8)),
        ("just too quiet", script(|_| 50)),
        ("off", script(|_| 127)),
    ];
    for (name, script) in scripts {
        assert_eq!(run(20_000, vec![script]), [], "{name}");
    }
}

#[test]
fn pauses_keep_a_speaker_and_silence_ends_them() {
    for pause in [200, 500, 800, 1000] {
        let told = run(20_000, vec![script(|at| if at % (600 + pause) < 600 { 30 } else { 70 })]);
        assert_eq!(told.len(), 1, "{pause}: {told:?}");
    }
    let told = run(5000, vec![script(|at| if at < 1000 { 30 } else { 70 })]);
    assert!(told.len() == 2 && told[1].1.is_empty() && (2100..2400).contains(&told[1].0), "{told:?}");
}

#[test]
fn crosstalk_flaps_neither_the_list_nor_the_first_place() {
    for seed in 1..=20 {
        for quieter in [12, 16, 20] {
            let mut voices = [Natural::new(seed, 25), Natural::new(seed, 25 + quieter)];
            let [near, far] = &mut voices;
            let told = run(30_000, vec![script(|_| far.level()), script(|_| near.level())]);
            let (lists, firsts) = changes(&told);
            assert!(firsts == 0 && lists <= 1, "{seed} {quieter}: {told:?}");
        }
    }
    for word in [200, 300, 400] {
        let word_of = |own: u64| script(move |at| if at / word % 2 == own { 30 } else { 60 });
        let told = run(30_000, vec![word_of(0), word_of(1)]);
        let (lists, firsts) = changes(&told);
        assert!(firsts == 0 && lists <= 1 && told.len() <= 2, "{word}: {told:?}");
    }
}

#[test]
fn two_natural_talkers_do_not_flap() {
    let mut most = 0;
    for seed in 1..=20 {
        let told = run(60_000, vec![natural(seed, 28), natural(seed + 50, 31), natural(seed + 90, 29)]);
        most = most.max(told.len());
        assert!(changes(&told).1 <= 2, "{seed}: {told:?}");
    }
    println!("three natural talkers, 60 s: {most} messages at most");
}

#[test]
fn the_first_place_goes_to_the_clearly_louder_after_a_second_or_to_the_next_after_silence() {
    let breath = |at: u64, level| if at % 500 < 40 { 65 } else { level };
    let louder = |at: u64| if at < 3000 { 65 } else { breath(at, 18) };
    let told = run(8000, vec![script(|at| breath(at, 34)), script(louder)]);
    let seats: Vec<_> = told.iter().map(|(_, seats)| seats.as_slice()).collect();
    assert_eq!(seats, [&[0][..], &[0, 1], &[1, 0]]);
    assert!((4000..5000).contains(&told[2].0), "{told:?}");
    let told = run(8000, vec![script(|at| breath(at, 34)), script(|at| if at < 3000 { 65 } else { breath(at, 31) })]);
    assert_eq!(told.len(), 2);
    let told = run(8000, vec![script(|at| if at < 3000 { breath(at, 20) } else { 65 }), script(|at| breath(at, 34))]);
    assert_eq!(told.last().map(|(_, seats)| seats.as_slice()), Some(&[1][..]));
}

#[test]
fn liars_starve_nobody_and_are_found_out() {
    let late_talker = || {
        let mut voice = Natural::new(4, 30);
        script(move |at| if at < 1000 { 70 } else { voice.level() })
    };
    let mut scripts: Vec<Script<'_>> = (0..5).map(|_| script(|_| 0)).collect();
    scripts.push(late_talker());
    let (told, alone) = (run(60_000, scripts), run(60_000, vec![late_talker()]));
    let first_seen = told.iter().find(|(_, seats)| seats.contains(&5)).map(|(at, _)| *at);
    assert_eq!(first_seen, Some(alone[0].0), "as soon as alone");
    let (last, seats) = told.last().unwrap();
    println!("five liars gone after {last} ms");
    assert!(*seats == [5] && *last < 22_000, "{told:?}");
    assert!(told.iter().all(|(at, seats)| Some(*at) < first_seen || seats.contains(&5)));
}

#[test]
fn the_silenced_leave_the_list_and_judging_ends() {
    let (mut now, mut detector) = (Instant::now(), SpeakerDetector::default());
    assert!(!detector.is_active());
    for _ in 0..20 {
        detector.heard(Seat(3), 30, now);
        now += Duration::from_millis(20);
    }
    assert!(detector.judge(now).is_some() && detector.is_active() && detector.last_spoke(Seat(3)).is_some());
    assert!(detector.last_spoke(Seat(2)).is_none() && detector.last_spoke(Seat(9)).is_none());
    detector.silence(Seat(3));
    assert_eq!(detector.judge(now + MESSAGE_INTERVAL), Some(vec![]));
    assert!(!detector.is_active() && detector.last_spoke(Seat(3)).is_none());
}

#[test]
fn loud_beeps_in_a_row_are_someone_and_two_coughs_are_nobody() {
    let t0 = Instant::now();
    let run = |level: u8, bursts: u64, packets: u64| {
        let mut detector = SpeakerDetector::default();
        let mut named = false;
        for ms in (0..4000).step_by(20) {
            let now = t0 + Duration::from_millis(ms);
            let loud = ms / 500 < bursts && ms % 500 < packets * 20;
            detector.heard(Seat(1), if loud { level } else { 127 }, now);
            if ms % 100 == 0 {
                named |= detector.judge(now).is_some_and(|speakers| !speakers.is_empty());
            }
        }
        named
    };
    assert!(run(4, 8, 2), "the fake microphone of Chromium");
    assert!(!run(4, 2, 8), "two coughs");
    assert!(!run(25, 8, 2), "a keyboard");
}
