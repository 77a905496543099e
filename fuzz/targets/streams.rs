//! What is kept of a received stream stays bounded, whatever sequence numbers come: replays, losses, reports.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stube_fuzz::input::Input;
use stube_fuzz::rtp::nack::NackGenerator;
use stube_fuzz::rtp::reception::Reception;
use stube_fuzz::rtp::srtp::RolloverTracker;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (mut tracker, mut nack, mut reception) =
        (RolloverTracker::new(), NackGenerator::default(), Reception::new(90_000));
    let (mut sequence, mut now_us) = (input.u16().unwrap_or(0), 0);
    let mut due = Vec::new();
    while let Some(step) = input.u8() {
        match step {
            0 => sequence = input.u16().unwrap_or(0),
            1 => now_us += u64::from(input.u32().unwrap_or(0)),
            2 => reception.sender_report(u64::from(input.u32().unwrap_or(0)) << 20, now_us),
            3 => {
                let block = reception.report(1, now_us);
                assert!((-0x80_0000..=0x7f_ffff).contains(&block.cumulative_lost));
            }
            4 => nack.keyframe(tracker.guess(sequence)),
            5..=9 => now_us += u64::from(step) * 5_000,
            _ => sequence = sequence.wrapping_add(u16::from(step & 0x3f)).wrapping_sub(16),
        }
        let number = tracker.guess(sequence);
        assert_eq!(number as u16, sequence);
        if number < 1 << 48 && !tracker.is_replay(number) {
            let highest = tracker.highest();
            tracker.accept(number);
            assert!(tracker.is_replay(number));
            assert!(highest <= tracker.highest() && tracker.highest().is_some());
            let hopeless = nack.received(number, now_us);
            assert!(!hopeless || nack.missing() == 0);
            reception.received(number, u32::from(sequence) * 3000, now_us);
        }
        assert!(nack.missing() <= 500 && nack.next_due().is_some() == (nack.missing() > 0));
        due.clear();
        nack.due(now_us, u64::from(step) * 1000, &mut due);
        assert!(due.len() <= 500 && nack.next_due().is_none_or(|at| at > now_us), "asked for once at a time");
    }
});
