//! The event loop of one shard: commands, sockets and timers in; datagrams, replies and notices out.
//!
//! One turn: wait → commands → sockets, a bounded batch → timer if due → drain the engine → send. The clock is read
//! after waiting and after sending, not per packet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use tokio::sync::oneshot;

use super::addresses::Addresses;
use super::link::{Inbox, Link, Parcel, Undelivered};
use super::runs::Run;
use super::saturation::Saturation;
use super::tcp::Tcp;
use super::udp::Udp;
use super::{Answer, MediaEngine, NoticeSender, Order, ShardIndex, Status, clock};
use crate::command::{Refusal, Transport};
use crate::metrics::{LATENCY_BOUNDS_SECONDS, ShardSnapshot};
use crate::rtc::{Input, Output, Transfer, Transmit};

/// Wakes the loop for commands, connections from other shards, and the end.
pub(crate) const WAKER: Token = Token(0);
/// The UDP sockets, all shards'; then TCP listeners, then connections.
pub(crate) const UDP_FIRST: usize = 1;

/// Kernel events taken at once.
const EVENTS_MAX: usize = 256;
/// Commands carried out in one turn, and what is taken of other shards: mostly datagrams.
const ORDERS_PER_TURN: usize = 64;
const PARCELS_PER_TURN: usize = 256;
/// Commands waiting for the engine's answer; more are refused.
const REQUESTS_MAX: usize = 4096;
/// The loop turns at least this often, publishes its counters and tidies up.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The shortest sleep after an engine has asked to be called at once again and again.
const SPIN_GUARD: Duration = Duration::from_millis(1);
/// A frame's packets come back to back: its first wakes the loop before the last is there. So long after one of them the
/// next is waited for, spinning; handing on a frame in two halves costs each subscriber another send, 3 µs and more.
const FRAME_PATIENCE: Duration = Duration::from_micros(10);
/// How long a stopping shard waits for its clients to take what is queued and acknowledge their `leave`; an engine gives
/// each 800 ms.
const LINGER: Duration = Duration::from_millis(900);

/// What connects a worker to the rest of the process.
pub(crate) struct Wiring {
    pub(crate) index: ShardIndex,
    pub(crate) poll: Poll,
    pub(crate) udp: Udp,
    pub(crate) tcp: Tcp,
    pub(crate) addresses: Addresses,
    pub(crate) orders: Receiver<Order>,
    pub(crate) inbox: Inbox,
    /// The ways to all shards, by their numbers.
    pub(crate) links: Vec<Link>,
    pub(crate) notices: NoticeSender,
    pub(crate) status: Arc<Status>,
}

/// One shard's thread.
pub(crate) struct Worker<E> {
    wiring: Wiring,
    engine: E,
    events: Events,
    /// Who waits for the answer to which request.
    requests: BTreeMap<u64, oneshot::Sender<Answer>>,
    next_request: u64,
    /// What other shards have sent.
    parcels: VecDeque<Parcel>,
    /// Shards that something was sent to and that have yet to be woken.
    addressed: BTreeSet<ShardIndex>,
    counters: ShardSnapshot,
    /// Input is left from the last turn.
    more: bool,
    /// RTP sent in this turn.
    forwarded: u64,
    /// When the last turn began and ended.
    turned: (Instant, Instant),
    tidied_at: Instant,
    busy_ns_when_tidied: u64,
    saturation: Saturation,
    stopping_since: Option<Instant>,
}

impl<E: MediaEngine> Worker<E> {
    /// A worker that has yet to [run](Worker::run).
    pub(crate) fn new(wiring: Wiring, engine: E, now: Instant) -> Self {
        Self {
            wiring,
            engine,
            events: Events::with_capacity(EVENTS_MAX),
            requests: BTreeMap::new(),
            next_request: 0,
            parcels: VecDeque::new(),
            addressed: BTreeSet::new(),
            counters: ShardSnapshot::default(),
            more: true,
            forwarded: 0,
            turned: (now, now),
            tidied_at: now,
            busy_ns_when_tidied: 0,
            saturation: Saturation::default(),
            stopping_since: None,
        }
    }

    /// Turns until told to stop.
    pub(crate) fn run(mut self) {
        while !self.is_finished() {
            if let Err(error) = self.turn() {
                tracing::error!(shard = self.wiring.index.0, %error, "the event queue failed; the shard stops");
                break;
            }
        }
        self.publish();
    }

    fn turn(&mut self) -> io::Result<()> {
        let sleep = self.sleep();
        match self.wiring.poll.poll(&mut self.events, Some(sleep)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        // Taken before the clock is read: what comes with a session must not lie in the future.
        let more_parcels = self.collect_parcels();
        let now = clock();
        self.wiring.status.beat(now);
        let received_before = self.counters.datagrams_in;
        self.forwarded = 0;
        self.note_events();
        self.open_parcels(now);
        self.more = self.take_orders(now) || more_parcels;
        self.more |= self.receive(now);
        if self.engine.poll_timeout().is_some_and(|(deadline, _)| deadline <= now) {
            self.engine.handle_timeout(now);
        }
        if now.saturating_duration_since(self.tidied_at) >= HOUSEKEEPING {
            self.tidy(now);
        }
        self.drain(now);
        if self.wiring.status.stop.load(Ordering::Acquire) && self.stopping_since.is_none() {
            // Orders given before the stop are still taken.
            self.stopping_since = Some(now);
            self.more = true;
        }
        self.account(now, self.counters.datagrams_in > received_before);
        Ok(())
    }

    /// How long to wait for events.
    fn sleep(&self) -> Duration {
        if self.more {
            return Duration::ZERO;
        }
        let (began, ended) = self.turned;
        let tidy = (self.tidied_at + HOUSEKEEPING).saturating_duration_since(ended);
        let timer = match self.engine.poll_timeout() {
            Some((deadline, _)) if deadline <= began => SPIN_GUARD,
            Some((deadline, _)) => deadline.saturating_duration_since(ended),
            None => HOUSEKEEPING,
        };
        let linger = if self.stopping_since.is_some() { SPIN_GUARD } else { HOUSEKEEPING };
        tidy.min(timer).min(linger)
    }

    fn note_events(&mut self) {
        let Wiring { udp, tcp, addresses, .. } = &mut self.wiring;
        for event in &self.events {
            let (token, writable) = (event.token(), event.is_writable());
            if token != WAKER && !udp.note(token, writable, addresses, &mut self.counters) {
                tcp.note(token, event.is_readable() || event.is_error() || event.is_read_closed(), writable);
            }
        }
    }

    /// Carries out commands. Returns whether more may wait.
    fn take_orders(&mut self, now: Instant) -> bool {
        for taken in 0.. {
            if taken == ORDERS_PER_TURN {
                return true;
            }
            let Ok(order) = self.wiring.orders.try_recv() else { break };
            if self.requests.len() >= REQUESTS_MAX {
                // Dropping the order refuses it.
                continue;
            }
            // Who asked has given up, and taken it for undone.
            if order.answer.is_closed() {
                continue;
            }
            let request = self.expect_answer(Some(order.answer));
            self.engine.handle(Input::Command { request, command: order.command }, now);
        }
        false
    }

    /// A number of this shard's own for an order.
    fn expect_answer(&mut self, answer: Option<oneshot::Sender<Answer>>) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        self.requests.extend(answer.map(|answer| (request, answer)));
        request
    }

    // === other shards ===

    /// Takes what other shards have sent. Returns whether more may wait.
    fn collect_parcels(&mut self) -> bool {
        let inbox = &self.wiring.inbox;
        self.parcels.extend(std::iter::from_fn(|| inbox.take()).take(PARCELS_PER_TURN));
        self.parcels.len() == PARCELS_PER_TURN
    }

    fn open_parcels(&mut self, now: Instant) {
        while let Some(parcel) = self.parcels.pop_front() {
            self.open(parcel, now);
        }
    }

    fn open(&mut self, parcel: Parcel, now: Instant) {
        let (mut transfer, answer, connections) = match parcel {
            Parcel::Connection(handover) => return self.wiring.tcp.adopt(handover, now),
            Parcel::Arrival(arrival) => return self.wiring.tcp.admit(arrival, &self.wiring.addresses, now),
            Parcel::Transfer { transfer, answer, connections } => (transfer, answer, connections),
        };
        for connection in connections {
            self.wiring.tcp.adopt(connection, now);
        }
        if transfer.request().is_some() {
            // Each shard numbers for itself: the sender's number may be another order's here, also where nobody waits for
            // the answer any more.
            transfer.set_request(self.expect_answer(answer));
        }
        self.engine.handle(Input::Transfer(transfer), now);
    }

    /// Sends another shard what its engine is to hear, with all that goes along.
    fn send(&mut self, to: ShardIndex, transfer: Transfer, now: Instant) {
        let answer = transfer.request().and_then(|request| self.requests.remove(&request));
        let connections = match &transfer {
            Transfer::Session(migrant) => {
                migrant.connections().filter_map(|peer| self.wiring.tcp.release(peer)).collect()
            }
            _ => Vec::new(),
        };
        let parcel = Parcel::Transfer { transfer, answer, connections };
        let sent = match self.wiring.links.get(to.0) {
            Some(link) => link.send(parcel),
            None => Err(Undelivered::Gone(Box::new(parcel))),
        };
        match sent {
            Ok(()) => {
                self.addressed.insert(to);
            }
            Err(Undelivered::Full) => self.counters.relay_overflows += 1,
            Err(Undelivered::Gone(mut parcel)) => {
                // A session stays where it was. Whatever else was for that shard is for nobody now.
                if let Parcel::Transfer { transfer: Transfer::Session(migrant), .. } = &mut *parcel {
                    migrant.turn_back(Refusal::Unavailable);
                    self.open(*parcel, now);
                }
            }
        }
    }

    /// Wakes the shards that something was sent to, each once.
    fn wake_addressed(&mut self) {
        for shard in std::mem::take(&mut self.addressed) {
            if let Some(link) = self.wiring.links.get(shard.0) {
                link.wake();
            }
        }
    }

    // === sockets ===

    /// Feeds the engine what the sockets hold. Returns whether more may wait.
    fn receive(&mut self, now: Instant) -> bool {
        let Wiring { udp, tcp, addresses, .. } = &mut self.wiring;
        let engine = &mut self.engine;
        let mut take = |udp: &mut Udp, counters: &mut _| {
            udp.receive(addresses, counters, |datagram| engine.handle(Input::Datagram(datagram), now));
            engine.expects_more()
        };
        let mut unfinished = take(udp, &mut self.counters);
        let mut heard_at = now;
        while unfinished && !udp.has_more() && clock().saturating_duration_since(heard_at) < FRAME_PATIENCE {
            let before = self.counters.datagrams_in;
            udp.look_again();
            unfinished = take(udp, &mut self.counters);
            if self.counters.datagrams_in > before {
                heard_at = clock();
            }
        }
        let more = udp.has_more();
        tcp.serve(engine, addresses, &mut self.counters, now) || more
    }

    /// Does everything the engine wants done.
    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.engine.poll_output(now) {
            match output {
                Output::Transmit(transmit) => self.transmit(transmit),
                Output::Reply { request, result } => {
                    if let Some(answer) = self.requests.remove(&request) {
                        // Who asked may have gone.
                        let _ = answer.send(result);
                    }
                }
                Output::Notice(notice) => {
                    if self.wiring.notices.try_send((self.wiring.index, notice)).is_err() {
                        self.counters.notices_lost += 1;
                    }
                }
                Output::Transfer { to, transfer } => self.send(to, transfer, now),
            }
        }
        self.wake_addressed();
        self.more |= self.wiring.tcp.flush();
    }

    fn transmit(&mut self, transmit: Transmit) {
        if is_rtp(&transmit.contents) {
            self.forwarded += transmit.contents.len().div_ceil(transmit.segment.max(1)) as u64;
        }
        let Wiring { udp, tcp, addresses, .. } = &mut self.wiring;
        match transmit.transport {
            Transport::Tcp => transmit.datagrams().for_each(|datagram| {
                tcp.send(transmit.destination, datagram, &mut self.counters);
            }),
            Transport::Udp => {
                let Transmit { source, destination, segment, .. } = transmit;
                let run = Run { source, destination, contents: &transmit.contents, segment };
                udp.send(&run, addresses, &mut self.counters);
            }
        }
        self.engine.recycle(transmit.contents);
    }

    /// Once a second.
    fn tidy(&mut self, now: Instant) {
        self.wiring.udp.look_again();
        self.wiring.tcp.tidy(&mut self.engine, now);
        self.more = true;
        // Nobody waits any more for what the engine did not answer.
        self.requests.retain(|_, answer| !answer.is_closed());
        let busy = u128::from(self.counters.busy_ns - self.busy_ns_when_tidied);
        let span = now.saturating_duration_since(self.tidied_at).as_nanos().max(1);
        self.counters.busy_permille = (busy * 1000 / span).min(1000) as u64;
        self.busy_ns_when_tidied = self.counters.busy_ns;
        let saturated = self.saturation.note(self.counters.busy_permille);
        if std::mem::replace(&mut self.counters.saturated, saturated) != saturated {
            let shard = self.wiring.index.0;
            match saturated {
                true => tracing::warn!(shard, "a shard is saturated: calls on it will suffer; new rooms go elsewhere"),
                false => tracing::info!(shard, "the shard is no longer saturated"),
            }
        }
        self.tidied_at = now;
        self.publish();
    }

    fn publish(&mut self) {
        self.counters.engine = self.engine.stats();
        self.wiring.status.publish(&self.counters);
    }

    /// Ends a turn: its length is the work done and, if it brought media, the latency of each packet it forwarded.
    fn account(&mut self, began: Instant, received: bool) {
        let ended = clock();
        let span = ended.saturating_duration_since(began);
        self.turned = (began, ended);
        let nanoseconds = span.as_nanos() as u64;
        self.counters.busy_ns += nanoseconds;
        if received && self.forwarded > 0 {
            let seconds = span.as_secs_f64();
            let bucket = LATENCY_BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
            self.counters.latency_buckets[bucket] += self.forwarded;
            self.counters.latency_sum_ns += nanoseconds * self.forwarded;
        }
    }

    fn is_finished(&self) -> bool {
        let Some(since) = self.stopping_since else { return false };
        let flushed =
            !self.more && self.engine.is_vacant() && self.wiring.udp.is_flushed() && self.wiring.tcp.is_flushed();
        flushed || self.turned.1.saturating_duration_since(since) > LINGER
    }
}

/// RTP by its first two bytes (RFC 7983, RFC 5761).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..96).contains(&(second & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_is_told_from_the_rest() {
        assert!(is_rtp(&[0x80, 96, 0]) && is_rtp(&[0x90, 0x80 | 111]) && is_rtp(&[0xbf, 0]));
        for other in [&[][..], &[0x80], &[0x80, 200], &[0x81, 205], &[0, 1, 0], &[22, 96], &[192, 96]] {
            assert!(!is_rtp(other), "{other:?}");
        }
    }
}
