//! The harness's own test: two clients, no server, a bad network between them.

use std::time::{Duration, Instant};

use serde_json::json;
use str0m::media::MediaKind;

use crate::check::Faults;
use crate::client::{ANSWERER, Client, ClientConfig};
use crate::net::{Conditions, Host, Net};
use crate::rng::Rng;
use crate::seal;
use crate::toy_dtls;
use crate::trace::Trace;

struct Pair {
    start: Instant,
    now: Instant,
    net: Net,
    clients: [Client; 2],
    trace: Trace,
    faults: Faults,
}

fn config(index: usize, identity: &str, sends: bool) -> ClientConfig {
    ClientConfig {
        index,
        identity: identity.to_owned(),
        address: format!("192.168.{index}.2:5000").parse().expect("an address"),
        microphone: sends,
        camera: sends,
        simulcast: false,
        adaptive: None,
        audio_slots: 0,
        video_slots: 0,
    }
}

impl Pair {
    fn new(seed: u64, conditions: Conditions, start: Instant) -> Self {
        let mut net = Net::new(seed);
        let crypto = toy_dtls::provider();
        let mut client = |index, identity, sends| {
            let config = config(index, identity, sends);
            // Only the offering side is behind a NAT: the other plays the server.
            let mut public = config.address;
            if sends {
                public = "203.0.113.7:40000".parse().expect("an address");
            }
            net.attach(&[(config.address, public)], conditions, conditions, start);
            Client::new(config, crypto.clone(), seed, start)
        };
        let clients = [client(0, "ada", true), client(1, ANSWERER, false)];
        Self { start, now: start, net, clients, trace: Trace::new(), faults: Faults::default() }
    }

    fn negotiate(&mut self) {
        let [ada, bob] = &mut self.clients;
        let offer = ada.first_offer();
        let answer = bob.answer(&offer, self.now, &mut self.faults);
        ada.handle_answer(&answer, self.now, &mut self.faults);
    }

    fn run_until(&mut self, elapsed: Duration) {
        let end = self.start + elapsed;
        loop {
            let clients = self.clients.iter().map(Client::poll_timeout).min().expect("two clients");
            let next = self.net.poll_timeout().map_or(clients, |net| net.min(clients));
            self.now = next.max(self.now).min(end);
            seal::set_elapsed(self.now - self.start);
            while let Some((host, packet)) = self.net.poll(self.now) {
                self.clients[host.0].receive(&packet, self.now, &mut self.faults);
            }
            for (index, client) in self.clients.iter_mut().enumerate() {
                if client.poll_timeout() <= self.now {
                    client.handle_timeout(self.now, &mut self.faults);
                }
                for outgoing in client.outbox.drain(..) {
                    self.trace.datagram(self.now - self.start, index, &outgoing.contents);
                    let (source, destination) = (outgoing.source, outgoing.destination);
                    self.net.send(Host(index), source, destination, outgoing.contents, self.now);
                }
            }
            if self.now >= end {
                break;
            }
        }
    }
}

/// Lets two clients talk for some seconds and rebinds the NAT in between.
fn talk(seed: u64) -> Trace {
    seal::sealed(seed, move |start| {
        let conditions = Conditions { loss_per_mille: 20, ..Conditions::troubled(&mut Rng::new(seed, "harness")) };
        let mut pair = Pair::new(seed, conditions, start);
        pair.negotiate();
        pair.run_until(Duration::from_secs(10));
        let said = pair.clients[0].say(&json!({"type": "ping", "at": 1}), pair.now, &mut pair.faults);
        assert!(said, "seed {seed}: the data channel is not open after 10 s");
        pair.run_until(Duration::from_secs(13));
        let before: Vec<usize> = pair.clients[1].slots.iter().map(|slot| slot.log.len()).collect();
        assert_eq!(pair.clients[1].frames, [br#"{"at":1,"type":"ping"}"#], "seed {seed}");
        pair.net.rebind(Host(0));
        pair.run_until(Duration::from_secs(18));
        assert!(pair.faults.is_empty(), "seed {seed}: {}", pair.faults.report());
        for (slot, before) in pair.clients[1].slots.iter().zip(before) {
            // Packets go on arriving. That the answers find the way back is the server's art, not str0m's.
            assert!(before > 200 && slot.log.len() > before + 50, "seed {seed}: {before} then {}", slot.log.len());
            assert!(slot.kind == MediaKind::Audio || slot.decoded > 20, "seed {seed}: {} frames", slot.decoded);
        }
        pair.trace
    })
}

#[test]
fn harness_two_clients_talk() {
    for seed in 0..4 {
        let trace = talk(seed);
        assert!(trace.datagrams > 500, "seed {seed}: {trace:?}");
        assert_eq!(talk(seed), trace, "seed {seed} gives two traces");
        assert_ne!(talk(seed + 100), trace);
    }
}

#[test]
fn scenarios_side_by_side_do_not_disturb_each_other() {
    let alone = talk(7);
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(|| talk(7))).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("a trace"), alone);
    }
}
