//! What was sent to one subscriber, by transport-wide sequence number, until its fate is known.
//!
//! Bounded by time, not by count: feedback is of use for as long as a network may take to deliver it, however many
//! packets went out meanwhile. It starts small, for a server has thousands of these.

/// Feedback about a packet older than this says nothing about the network as it is now.
const RETENTION_US: u64 = 2_000_000;
/// Slots at the start: an audio session, or video for a round trip of 200 ms. Slots are powers of two.
const MIN_SLOTS: usize = 64;
/// Slots at most: two seconds of 80 Mbit/s. Half the number space at most, else an old number would look new.
const MAX_SLOTS: usize = 16_384;

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
    Retransmission,
    Padding,
}

/// One sent packet.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Microseconds on the owner's timeline.
    pub at_us: u64,
    /// Including UDP and IP.
    pub wire_bytes: u16,
    /// The probe it was part of; 0 for none.
    pub cluster: u16,
    pub kind: Kind,
    fate: Fate,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    /// Packets after it have been reported, or it is old: no longer in flight, but its report may still come.
    Passed,
    Lost,
    Received,
}

const VACANT: Sent = Sent { at_us: 0, wire_bytes: 0, cluster: 0, kind: Kind::Padding, fate: Fate::Received };

/// The ring of sent packets.
#[derive(Debug)]
pub struct SendRegister {
    /// The last `slots.len()` packets; the packet with number `n` is at `n & (len - 1)`.
    slots: Box<[Sent]>,
    /// The next packet's number; what goes over the wire are its low 16 bits.
    next: u64,
    /// Packets before this one are not in flight.
    settled: u64,
    in_flight_bytes: u64,
}

impl SendRegister {
    /// An empty register.
    pub fn new() -> Self {
        Self { slots: vec![VACANT; MIN_SLOTS].into_boxed_slice(), next: 1, settled: 1, in_flight_bytes: 0 }
    }

    /// Bytes sent whose fate is unknown.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// The number the next packet will get, as the wire has it.
    pub fn next_wire(&self) -> u16 {
        // Truncated on purpose: the wire has the low 16 bits.
        self.next as u16
    }

    /// Notes a packet and gives it its number.
    pub fn push(&mut self, kind: Kind, wire_bytes: u16, cluster: u16, at_us: u64) -> u64 {
        let seq = self.next;
        let evicted = self.slots[self.index(seq)];
        if evicted.fate == Fate::InFlight {
            if at_us.saturating_sub(evicted.at_us) < RETENTION_US && self.slots.len() < MAX_SLOTS {
                self.grow();
            } else {
                self.settle_before(seq - self.slots.len() as u64 + 1);
            }
        }
        let index = self.index(seq);
        self.slots[index] = Sent { at_us, wire_bytes, cluster, kind, fate: Fate::InFlight };
        self.in_flight_bytes += u64::from(wire_bytes);
        self.next += 1;
        seq
    }

    /// A report about a packet. Its entry with its full number, unless the report is old news or not about anything we
    /// know. A packet reported lost may still be reported received.
    pub fn acknowledge(&mut self, wire_seq: u16, received: bool) -> Option<(u64, Sent)> {
        let last = self.next - 1;
        let back = u64::from((last as u16).wrapping_sub(wire_seq));
        if back >= self.slots.len() as u64 || back >= last {
            return None;
        }
        let seq = last - back;
        let index = self.index(seq);
        let sent = &mut self.slots[index];
        let news = match sent.fate {
            Fate::InFlight | Fate::Passed => true,
            Fate::Lost => received,
            Fate::Received => false,
        };
        if !news {
            return None;
        }
        if sent.fate == Fate::InFlight {
            self.in_flight_bytes -= u64::from(sent.wire_bytes);
        }
        sent.fate = if received { Fate::Received } else { Fate::Lost };
        let sent = *sent;
        self.settle_before(seq);
        Some((seq, sent))
    }

    /// Gives up on packets too old to be still on their way.
    pub fn expire(&mut self, now_us: u64) {
        while self.settled < self.next {
            let sent = &self.slots[self.index(self.settled)];
            if sent.fate == Fate::InFlight && now_us.saturating_sub(sent.at_us) < RETENTION_US {
                return;
            }
            self.settle_before(self.settled + 1);
        }
    }

    /// Nothing before this number is in flight any more.
    fn settle_before(&mut self, seq: u64) {
        while self.settled < seq {
            let index = self.index(self.settled);
            let sent = &mut self.slots[index];
            if sent.fate == Fate::InFlight {
                sent.fate = Fate::Passed;
                self.in_flight_bytes -= u64::from(sent.wire_bytes);
            }
            self.settled += 1;
        }
    }

    fn index(&self, seq: u64) -> usize {
        seq as usize & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![VACANT; old.len() * 2].into_boxed_slice();
        for seq in self.next.saturating_sub(old.len() as u64)..self.next {
            let index = self.index(seq);
            self.slots[index] = old[seq as usize & (old.len() - 1)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(register: &mut SendRegister, at_ms: u64) -> u16 {
        register.push(Kind::Video, 1000, 0, at_ms * 1000) as u16
    }

    #[test]
    fn each_packet_is_reported_once() {
        assert!(size_of::<Sent>() <= 24);
        let mut register = SendRegister::new();
        let first = push(&mut register, 0);
        let second = push(&mut register, 1);
        assert_eq!((first, register.in_flight_bytes()), (1, 2000));
        let (seq, sent) = register.acknowledge(second, false).unwrap();
        assert_eq!((seq, sent.at_us, sent.wire_bytes), (2, 1000, 1000));
        assert_eq!(register.in_flight_bytes(), 0, "one before a reported one is not in flight");
        assert!(register.acknowledge(first, true).is_some(), "but its report may come late");
        assert!(register.acknowledge(first, true).is_none() && register.acknowledge(first, false).is_none());
        assert!(register.acknowledge(second, false).is_none());
        assert!(register.acknowledge(second, true).is_some(), "lost, then found");
        assert!(register.acknowledge(second, true).is_none());
        assert!([0, 3, 4, 1000, 40_000, 65_535].iter().all(|seq| register.acknowledge(*seq, true).is_none()));
        assert_eq!(register.in_flight_bytes(), 0);
    }

    #[test]
    fn it_grows_with_what_is_young_and_in_flight_only() {
        // Gap between packets in ms, whether they are acknowledged, slots needed.
        for (gap_ms, acknowledged, slots) in
            [(20, true, 64), (20, false, 128), (1, true, 64), (1, false, 2048), (0, false, MAX_SLOTS)]
        {
            let mut register = SendRegister::new();
            for index in 0..100_000 {
                let seq = push(&mut register, index * gap_ms);
                if acknowledged {
                    assert!(register.acknowledge(seq, true).is_some());
                }
            }
            assert_eq!(register.slots.len(), slots, "{gap_ms} ms, {acknowledged}");
            assert!(register.in_flight_bytes() <= slots as u64 * 1000);
        }
    }

    #[test]
    fn growing_loses_nothing_and_numbers_wrap() {
        let mut register = SendRegister::new();
        register.next = 65_500;
        register.settled = 65_500;
        let seqs: Vec<u16> = (0..1000).map(|ms| push(&mut register, ms)).collect();
        assert_eq!((seqs[0], seqs[999]), (65_500, 963));
        assert_eq!(register.in_flight_bytes(), 1_000_000);
        for (ms, seq) in seqs.iter().enumerate() {
            let (full, sent) = register.acknowledge(*seq, true).unwrap();
            assert_eq!((full, sent.at_us), (65_500 + ms as u64, ms as u64 * 1000));
        }
        assert_eq!(register.in_flight_bytes(), 0);
    }

    #[test]
    fn what_is_never_reported_is_given_up() {
        let mut register = SendRegister::new();
        push(&mut register, 0);
        push(&mut register, 1000);
        register.expire(1_999_999);
        assert_eq!(register.in_flight_bytes(), 2000);
        register.expire(2_000_000);
        assert_eq!(register.in_flight_bytes(), 1000);
        register.expire(9_000_000);
        assert_eq!(register.in_flight_bytes(), 0);
    }
}
