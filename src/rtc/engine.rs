//! The rooms and peers of one shard.

use std::time::Instant;

use super::{Datagram, EngineConfig, Input, Output, Stats, Timer};

/// The rooms and peers of one shard; see the [ring's contract](super).
pub struct Engine {}

impl Engine {
    /// An engine without rooms.
    pub fn new(_config: EngineConfig, _now: Instant) -> Self {
        Self {}
    }

    /// Takes one input. Cannot fail or block.
    pub fn handle(&mut self, _input: Input<'_>, _now: Instant) {}

    /// Does what is due. Late and early calls are harmless.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next thing to do; drain to `None` after every batch of input.
    pub fn poll_output(&mut self, _now: Instant) -> Option<Output> {
        None
    }

    /// When to call [`Engine::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        None
    }

    /// Whether a session here owns this datagram; a shard that does not know a TCP connection's first frame hands
    /// the connection on.
    pub fn knows(&self, _datagram: &Datagram<'_>) -> bool {
        false
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
