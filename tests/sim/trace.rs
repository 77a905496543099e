//! One number that stands for everything that happened: equal seeds must give equal traces.

use std::time::Duration;

/// An FNV-1a hash over every datagram and event, with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    pub datagrams: u64,
    pub events: u64,
    /// Tells every event on standard error as well.
    loud: bool,
}

impl Trace {
    pub fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, datagrams: 0, events: 0, loud: std::env::var_os("SIM_LOG").is_some() }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// A datagram left `from`.
    pub fn datagram(&mut self, elapsed: Duration, from: usize, contents: &[u8]) {
        self.datagrams += 1;
        self.bytes(&elapsed.as_nanos().to_le_bytes());
        self.bytes(&from.to_le_bytes());
        self.bytes(contents);
    }

    /// Something else happened to `whom`.
    pub fn event(&mut self, elapsed: Duration, whom: usize, what: &str) {
        self.events += 1;
        if self.loud {
            eprintln!("{elapsed:?} {whom}: {what}");
        }
        self.bytes(&elapsed.as_nanos().to_le_bytes());
        self.bytes(&whom.to_le_bytes());
        self.bytes(what.as_bytes());
    }
}
