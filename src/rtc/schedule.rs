//! When which peer or room wants to be woken: one deadline each, kept in order.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Timer;
use crate::media::PeerKey;

/// Who is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    Peer(PeerKey),
    Room(usize),
}

/// All deadlines of an engine.
#[derive(Default)]
pub struct Schedule {
    queue: BTreeSet<(Instant, Wake)>,
    peers: Vec<Option<(Instant, Timer)>>,
    rooms: Vec<Option<(Instant, Timer)>>,
}

impl Schedule {
    /// Sets, moves or (`None`) cancels a deadline.
    pub fn set(&mut self, wake: Wake, at: Option<(Instant, Timer)>) {
        let (table, index) = match wake {
            Wake::Peer(key) => (&mut self.peers, key.0 as usize),
            Wake::Room(index) => (&mut self.rooms, index),
        };
        if table.len() <= index {
            table.resize(index + 1, None);
        }
        let before = std::mem::replace(&mut table[index], at);
        if before.map(|(at, _)| at) == at.map(|(at, _)| at) {
            return;
        }
        if let Some((before, _)) = before {
            self.queue.remove(&(before, wake));
        }
        if let Some((at, _)) = at {
            self.queue.insert((at, wake));
        }
    }

    /// The next deadline and its reason.
    pub fn next(&self) -> Option<(Instant, Timer)> {
        let (_, wake) = self.queue.first()?;
        match wake {
            Wake::Peer(key) => *self.peers.get(key.0 as usize)?,
            Wake::Room(index) => *self.rooms.get(*index)?,
        }
    }

    /// Takes one deadline that has passed.
    pub fn take_expired(&mut self, now: Instant) -> Option<Wake> {
        let (at, wake) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.set(wake, None);
        Some(wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_come_in_order_and_move() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let (peer, room) = (Wake::Peer(PeerKey(3)), Wake::Room(1));
        let mut schedule = Schedule::default();
        schedule.set(peer, Some((at(20), Timer::Peer)));
        schedule.set(room, Some((at(10), Timer::Room)));
        assert_eq!(schedule.next(), Some((at(10), Timer::Room)));
        schedule.set(room, Some((at(30), Timer::Room)));
        assert_eq!(schedule.take_expired(at(25)), Some(peer));
        assert_eq!(schedule.take_expired(at(25)), None);
        schedule.set(room, None);
        assert_eq!(schedule.next(), None);
    }
}
