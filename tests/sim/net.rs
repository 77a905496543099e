//! A virtual network: hosts with two one-way paths each, behind NATs, in virtual time. Sans-IO: `send`, `poll`.
//!
//! A packet crosses its sender's uplink, is renamed by the sender's NAT, is routed by destination address, crosses the
//! receiver's downlink and is renamed back. Whatever is random comes from one seed, and ties are broken by order of
//! sending, so that one seed gives one course of events.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::shaper::{Carried, Link, Shaper};

/// What one direction of a link does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    pub delay: Duration,
    /// Added to the delay, drawn anew for each packet: more than the gap between two packets reorders them.
    pub jitter: Duration,
    pub loss_per_mille: u64,
    pub burst: Option<Burst>,
    pub duplicate_per_mille: u64,
    pub rate: Option<Rate>,
}

/// Loss that comes in bursts: everything is lost between entering and leaving the bad state (Gilbert).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    pub enter_per_mille: u64,
    pub leave_per_mille: u64,
}

/// A bottleneck with a tail-drop queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub bits_per_second: u64,
    pub queue: Duration,
}

impl Conditions {
    /// Nothing but 5 ms of delay.
    pub const CLEAN: Self = Self {
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
        loss_per_mille: 0,
        burst: None,
        duplicate_per_mille: 0,
        rate: None,
    };
    /// No network at all, for the server's own side.
    pub const NONE: Self = Self { delay: Duration::ZERO, ..Self::CLEAN };

    /// Some trouble, as bad as phones on trains.
    pub fn troubled(rng: &mut Rng) -> Self {
        Self {
            delay: rng.millis(2..120),
            jitter: rng.millis(0..30),
            loss_per_mille: if rng.percent(70) { rng.within(0..60) } else { 0 },
            burst: rng
                .percent(25)
                .then(|| Burst { enter_per_mille: rng.within(1..6), leave_per_mille: rng.within(100..400) }),
            duplicate_per_mille: if rng.percent(30) { rng.within(1..20) } else { 0 },
            rate: rng
                .percent(25)
                .then(|| Rate { bits_per_second: rng.within(1_500_000..6_000_000), queue: rng.millis(50..300) }),
        }
    }
}

/// One direction of a link.
#[derive(Debug)]
struct Path {
    conditions: Conditions,
    cut: bool,
    /// Inside a loss burst.
    bad: bool,
    /// When the bottleneck has sent all that is queued.
    free_at: Instant,
    /// Stands for the conditions, once set.
    shaper: Option<Shaper>,
}

impl Path {
    fn new(conditions: Conditions, now: Instant) -> Self {
        Self { conditions, cut: false, bad: false, free_at: now, shaper: None }
    }

    /// How often the path carries the next packet.
    fn copies(&mut self, rng: &mut Rng) -> usize {
        match &mut self.shaper {
            Some(shaper) => shaper.copies(),
            None => {
                let chance = self.conditions.duplicate_per_mille;
                if chance > 0 && rng.per_mille(chance) { 2 } else { 1 }
            }
        }
    }

    /// When a packet comes out; `None` if it does not.
    fn crossing(&mut self, now: Instant, contents: &[u8], rng: &mut Rng) -> Option<Instant> {
        let Conditions { delay, jitter, loss_per_mille, burst, rate, .. } = self.conditions;
        if self.cut {
            return None;
        }
        if let Some(shaper) = &mut self.shaper {
            return shaper.crossing(now, contents);
        }
        if let Some(burst) = burst {
            let turn = if self.bad { burst.leave_per_mille } else { burst.enter_per_mille };
            self.bad ^= rng.per_mille(turn);
        } else {
            self.bad = false;
        }
        if self.bad || (loss_per_mille > 0 && rng.per_mille(loss_per_mille)) {
            return None;
        }
        let mut leaves = now;
        if let Some(rate) = rate {
            let starts = self.free_at.max(now);
            if starts - now > rate.queue {
                return None;
            }
            leaves = starts + Duration::from_nanos(contents.len() as u64 * 8_000_000_000 / rate.bits_per_second);
            self.free_at = leaves;
        }
        let wobble = if jitter.is_zero() { Duration::ZERO } else { rng.micros(0..jitter.as_micros() as u64) };
        Some(leaves + delay + wobble)
    }
}

/// A datagram underway.
#[derive(Debug, Clone)]
pub struct Packet {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
    pub sent_at: Instant,
    /// The network made a second one of it.
    pub copy: bool,
}

/// Names a host of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub usize);

#[derive(Debug)]
struct Attachment {
    /// The host's own addresses and what the world sees instead of them.
    addresses: Vec<(SocketAddr, SocketAddr)>,
    up: Path,
    down: Path,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    seed: u64,
    rng: Rng,
    hosts: Vec<Attachment>,
    /// Public address → host.
    routes: BTreeMap<SocketAddr, Host>,
    /// By time, then by order of sending.
    underway: BTreeMap<(Instant, u64), Underway>,
    sent: u64,
    pub lost: u64,
}

#[derive(Debug)]
enum Underway {
    Routed(Packet),
    Arriving(Host, Packet),
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: Rng::new(seed, "net"),
            hosts: Vec::new(),
            routes: BTreeMap::new(),
            underway: BTreeMap::new(),
            sent: 0,
            lost: 0,
        }
    }

    /// Attaches a host. Each address is its own and the one the world sees.
    pub fn attach(
        &mut self,
        addresses: &[(SocketAddr, SocketAddr)],
        up: Conditions,
        down: Conditions,
        now: Instant,
    ) -> Host {
        let host = Host(self.hosts.len());
        for (_, public) in addresses {
            let before = self.routes.insert(*public, host);
            assert!(before.is_none(), "two hosts at one public address");
        }
        self.hosts.push(Attachment {
            addresses: addresses.to_vec(),
            up: Path::new(up, now),
            down: Path::new(down, now),
        });
        host
    }

    /// Changes both directions of a host's link.
    pub fn set_conditions(&mut self, host: Host, up: Conditions, down: Conditions) {
        let attachment = &mut self.hosts[host.0];
        attachment.up.conditions = up;
        attachment.down.conditions = down;
    }

    pub fn conditions(&self, host: Host) -> (Conditions, Conditions) {
        let attachment = &self.hosts[host.0];
        (attachment.up.conditions, attachment.down.conditions)
    }

    /// Gives a host's link two shapes in place of its conditions. `start` is when their seconds begin.
    pub fn shape(&mut self, host: Host, up: Link, down: Link, start: Instant) {
        let seed = self.seed;
        let attachment = &mut self.hosts[host.0];
        for (path, link, name) in [(&mut attachment.up, up, "up"), (&mut attachment.down, down, "down")] {
            match &mut path.shaper {
                Some(shaper) => shaper.change(link),
                None => {
                    let rng = Rng::new(seed, &format!("shaper {name} {}", host.0));
                    path.shaper = Some(Shaper::new(link, rng, start));
                }
            }
        }
    }

    /// What the shaped downlink of a host has carried.
    pub fn carried_down(&self, host: Host) -> Carried {
        self.hosts[host.0].down.shaper.as_ref().map(|shaper| shaper.carried).unwrap_or_default()
    }

    /// What the shaped downlink of a host carries then; `None` is no limit.
    pub fn capacity_down(&self, host: Host, now: Instant) -> Option<f64> {
        self.hosts[host.0].down.shaper.as_ref()?.capacity(now)
    }

    /// Cuts a host off, or ends that. What is underway still arrives.
    pub fn set_partitioned(&mut self, host: Host, cut: bool) {
        let attachment = &mut self.hosts[host.0];
        attachment.up.cut = cut;
        attachment.down.cut = cut;
    }

    /// The host's NAT forgets its mappings: from now on the world sees other ports, and the old ones lead nowhere.
    pub fn rebind(&mut self, host: Host) {
        for (_, public) in &mut self.hosts[host.0].addresses {
            self.routes.remove(public);
            let mut port = public.port();
            loop {
                port = port.checked_add(1).unwrap_or(1024);
                public.set_port(port);
                if !self.routes.contains_key(public) {
                    break;
                }
            }
            self.routes.insert(*public, host);
        }
    }

    /// The host goes over to another network: from now on the world sees another address. What is underway to the old
    /// one is lost.
    pub fn move_to(&mut self, host: Host, ip: IpAddr) {
        for (_, public) in &mut self.hosts[host.0].addresses {
            self.routes.remove(public);
            public.set_ip(ip);
            let before = self.routes.insert(*public, host);
            assert!(before.is_none(), "two hosts at one public address");
        }
    }

    /// Takes a datagram from a host.
    pub fn send(&mut self, from: Host, source: SocketAddr, destination: SocketAddr, contents: Vec<u8>, now: Instant) {
        let attachment = &mut self.hosts[from.0];
        // An address the host does not have: the real network would not carry it either.
        let Some((_, public)) = attachment.addresses.iter().find(|(own, _)| *own == source) else {
            self.lost += 1;
            return;
        };
        let packet = Packet { source: *public, destination, contents, sent_at: now, copy: false };
        self.cross(from, packet, now, true);
    }

    /// Puts a packet, and maybe a copy of it, on one of a host's two paths.
    fn cross(&mut self, host: Host, packet: Packet, now: Instant, up: bool) {
        let attachment = &mut self.hosts[host.0];
        let path = if up { &mut attachment.up } else { &mut attachment.down };
        for time in 0..path.copies(&mut self.rng) {
            let Some(due) = path.crossing(now, &packet.contents, &mut self.rng) else {
                self.lost += 1;
                continue;
            };
            let packet = Packet { copy: packet.copy || time > 0, ..packet.clone() };
            let underway = if up { Underway::Routed(packet) } else { Underway::Arriving(host, packet) };
            self.underway.insert((due, self.sent), underway);
            self.sent += 1;
        }
    }

    /// The next datagram that has arrived by `now`, as its receiver sees it.
    pub fn poll(&mut self, now: Instant) -> Option<(Host, Packet)> {
        loop {
            let entry = self.underway.first_entry()?;
            let due = entry.key().0;
            if due > now {
                return None;
            }
            match entry.remove() {
                Underway::Routed(packet) => match self.routes.get(&packet.destination) {
                    Some(host) => self.cross(*host, packet, due, false),
                    None => self.lost += 1,
                },
                Underway::Arriving(host, mut packet) => {
                    let addresses = &self.hosts[host.0].addresses;
                    // The NAT may have forgotten the address while the packet was on the downlink.
                    let Some((own, _)) = addresses.iter().find(|(_, public)| *public == packet.destination) else {
                        self.lost += 1;
                        continue;
                    };
                    packet.destination = *own;
                    return Some((host, packet));
                }
            }
        }
    }

    /// When the next datagram moves.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.underway.first_key_value().map(|((due, _), _)| *due)
    }
}
