//! The way from one shard to another: sessions and all that follows them, and TCP connections in search of theirs. Control
//! sends those along it that it has accepted.
//!
//! What one shard puts in comes out in order, and nothing is lost but datagrams of sessions that were moved and
//! connections nobody knows yet: of these only so many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use super::Answer;
use super::tcp::{Arrival, Handover};
use crate::rtc::Transfer;

/// Relayed datagrams waiting for one shard: a second of a dozen cameras.
const DATAGRAMS_MAX: usize = 4096;
/// TCP connections waiting for one shard; more are closed.
const CONNECTIONS_MAX: usize = 64;

/// What one shard sends another.
pub(crate) enum Parcel {
    /// A TCP connection whose session the sender does not know.
    Connection(Handover),
    /// One that control has accepted.
    Arrival(Arrival),
    Transfer {
        transfer: Transfer,
        /// Who waits for the answer to the order that comes with it.
        answer: Option<oneshot::Sender<Answer>>,
        /// The session's own.
        connections: Vec<Handover>,
    },
}

/// Why a parcel did not go.
pub(crate) enum Undelivered {
    /// Too many of its kind wait; it is dropped.
    Full,
    /// The shard has ended.
    Gone(Box<Parcel>),
}

/// A shard's way to another one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    parcels: Sender<Parcel>,
    waiting: Arc<Waiting>,
    waker: Arc<mio::Waker>,
}

/// A shard's end of the ways to it.
pub(crate) struct Inbox {
    parcels: Receiver<Parcel>,
    waiting: Arc<Waiting>,
}

/// How many there are of what is bounded.
#[derive(Default)]
struct Waiting {
    datagrams: AtomicUsize,
    connections: AtomicUsize,
}

impl Waiting {
    fn of(&self, parcel: &Parcel) -> Option<(&AtomicUsize, usize)> {
        match parcel {
            Parcel::Connection(_) | Parcel::Arrival(_) => Some((&self.connections, CONNECTIONS_MAX)),
            Parcel::Transfer { transfer: Transfer::Datagram(_), .. } => Some((&self.datagrams, DATAGRAMS_MAX)),
            Parcel::Transfer { .. } => None,
        }
    }
}

/// A shard's inbox, and the way to it.
pub(crate) fn link(waker: Arc<mio::Waker>) -> (Link, Inbox) {
    let (sender, receiver) = channel();
    let waiting = Arc::new(Waiting::default());
    (Link { parcels: sender, waiting: Arc::clone(&waiting), waker }, Inbox { parcels: receiver, waiting })
}

impl Link {
    /// Sends a parcel; [`Link::wake`] makes the shard look.
    pub(crate) fn send(&self, parcel: Parcel) -> Result<(), Undelivered> {
        if let Some((waiting, max)) = self.waiting.of(&parcel)
            && waiting.fetch_add(1, Ordering::Relaxed) >= max
        {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Undelivered::Full);
        }
        self.parcels.send(parcel).map_err(|unsent| Undelivered::Gone(Box::new(unsent.0)))
    }

    /// Should waking fail, the loop looks within a second by itself.
    pub(crate) fn wake(&self) {
        let _ = self.waker.wake();
    }
}

impl Inbox {
    /// The next parcel.
    pub(crate) fn take(&self) -> Option<Parcel> {
        let parcel = self.parcels.try_recv().ok()?;
        if let Some((waiting, _)) = self.waiting.of(&parcel) {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Some(parcel)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::ids::SessionId;
    use crate::rtc::relayed_for_tests;

    fn parcel(transfer: Transfer) -> Parcel {
        Parcel::Transfer { transfer, answer: None, connections: Vec::new() }
    }

    #[test]
    fn datagrams_are_bounded_and_what_must_arrive_is_not() -> io::Result<()> {
        let poll = mio::Poll::new()?;
        let (link, inbox) = link(Arc::new(mio::Waker::new(poll.registry(), mio::Token(0))?));
        let datagram = || parcel(relayed_for_tests());
        let sent = (0..2 * DATAGRAMS_MAX).filter(|_| link.send(datagram()).is_ok()).count();
        assert_eq!(sent, DATAGRAMS_MAX);
        assert!(link.send(parcel(Transfer::Ended(SessionId::from_bits(1)))).is_ok(), "a full way stops no news");
        for _ in 0..DATAGRAMS_MAX {
            assert!(matches!(inbox.take(), Some(Parcel::Transfer { transfer: Transfer::Datagram(_), .. })));
        }
        assert!(link.send(datagram()).is_ok(), "there is room again");
        assert!(matches!(inbox.take(), Some(Parcel::Transfer { transfer: Transfer::Ended(_), .. })), "in order");
        drop(inbox);
        assert!(matches!(link.send(datagram()), Err(Undelivered::Gone(_))));
        Ok(())
    }
}
