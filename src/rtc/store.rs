//! What publishers sent lately, decrypted once and shared by all who get a copy: for sending now, when the pacer allows,
//! and again when a NACK asks.
//!
//! One ring a received stream, indexed by sequence number. A subscription keeps numbers only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::Codec;
use crate::rtp::extensions::Values;

/// A packet younger than this is not overwritten while the ring can grow: a NACK comes a round trip and a retry later
/// (libwebrtc gives up after a second), and the pacer may hold a packet for half a second.
const KEEP: Duration = Duration::from_millis(1000);
/// Entries of a new ring, a second of which is more than audio has; and the most, a second of 10 Mbit/s. Powers of two.
const MIN_ENTRIES: usize = 64;
const MAX_ENTRIES: usize = 1024;

/// Padding comes in these sizes, bytes: what its last byte can tell at most, and what little probes want.
const PADDING_BYTES: [u8; 4] = [32, 96, 160, 255];
/// Packets freed when one is kept.
const LET_GO_MAX: usize = 4;
/// A stream of which nothing is kept for this long has fallen silent, and all that is left of it is freed. A shared
/// screen of one frame a second has not: the next frame shows that the end of the last is missing.
const SILENCE: Duration = Duration::from_secs(3);
/// How often silent streams are looked for, while there is anything to free.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A received stream's ring. The generation tells a new ring from an older one in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingKey {
    index: u32,
    generation: u32,
}

/// One stored packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRef {
    pub ring: RingKey,
    /// Its extended sequence number as received.
    pub seq: u64,
}

/// A received packet as receivers may get it.
#[derive(Clone)]
pub struct Stored {
    pub timestamp: u32,
    pub codec: Codec,
    pub marker: bool,
    pub values: Values,
    /// A Dependency Descriptor, if the packet has one, and how many decode targets it speaks of; 0 if it is not
    /// understood.
    pub descriptor: Option<Arc<[u8]>>,
    pub targets: u8,
    /// The payload is padding (RFC 3550 §5.1, P).
    pub is_padding: bool,
    pub payload: Arc<[u8]>,
    /// Where the primary block of RED (RFC 2198) begins in the payload; 0 if it is no RED.
    pub primary_at: u16,
}

impl Stored {
    /// The payload, or of RED what it would be without.
    pub fn primary(&self) -> &[u8] {
        self.payload.get(usize::from(self.primary_at)..).unwrap_or_default()
    }
}

struct Entry {
    seq: u64,
    at: Instant,
    packet: Stored,
}

#[derive(Default)]
struct Ring {
    generation: u32,
    in_use: bool,
    entries: Vec<Option<Entry>>,
    /// When the last packet was kept.
    kept_at: Option<Instant>,
    /// Nothing older than this number is kept.
    oldest: u64,
}

/// The rings of one engine.
pub struct PacketStore {
    rings: Vec<Ring>,
    /// A packet of nothing, for whoever has none to send.
    padding: [Stored; PADDING_BYTES.len()],
    free: Vec<u32>,
    /// When to look for silent streams; none while nothing is kept.
    sweep_due: Option<Instant>,
}

impl Default for PacketStore {
    fn default() -> Self {
        let padding = PADDING_BYTES.map(|bytes| {
            let mut payload = vec![0; usize::from(bytes)];
            payload[usize::from(bytes) - 1] = bytes;
            Stored {
                timestamp: 0,
                codec: Codec::Vp8,
                marker: false,
                values: Values::default(),
                descriptor: None,
                targets: 0,
                is_padding: true,
                payload: Arc::from(payload),
                primary_at: 0,
            }
        });
        Self { rings: Vec::new(), padding, free: Vec::new(), sweep_due: None }
    }
}

impl PacketStore {
    const PADDING: RingKey = RingKey { index: u32::MAX, generation: 0 };

    /// What stands for [padding](Stored::is_padding), always there: the smallest of at least so many bytes, or the
    /// largest.
    pub fn padding(bytes: usize) -> PacketRef {
        let size = PADDING_BYTES.iter().position(|size| usize::from(*size) >= bytes);
        PacketRef { ring: Self::PADDING, seq: size.unwrap_or(PADDING_BYTES.len() - 1) as u64 }
    }

    /// A ring for a new stream.
    pub fn open(&mut self) -> RingKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rings.push(Ring::default());
            (self.rings.len() - 1) as u32
        });
        let ring = &mut self.rings[index as usize];
        ring.in_use = true;
        RingKey { index, generation: ring.generation }
    }

    /// Forgets a stream and all its packets.
    pub fn close(&mut self, key: RingKey) {
        let Some(ring) = self.rings.get_mut(key.index as usize) else { return };
        if ring.in_use && ring.generation == key.generation {
            *ring = Ring { generation: ring.generation.wrapping_add(1), ..Ring::default() };
            self.free.push(key.index);
        }
    }

    /// Keeps a packet.
    pub fn put(&mut self, key: RingKey, seq: u64, packet: Stored, now: Instant) -> PacketRef {
        if let Some(ring) = self.rings.get_mut(key.index as usize).filter(|ring| ring.generation == key.generation) {
            ring.put(Entry { seq, at: now, packet }, now);
            self.sweep_due.get_or_insert(now + SWEEP_INTERVAL);
        }
        PacketRef { ring: key, seq }
    }

    /// The packet, unless it has been overwritten or its stream has gone.
    pub fn get(&self, reference: PacketRef) -> Option<&Stored> {
        if reference.ring == Self::PADDING {
            return self.padding.get(reference.seq as usize);
        }
        let ring = self.rings.get(reference.ring.index as usize)?;
        let entry = ring.entries.get(ring.place(reference.seq)?)?.as_ref()?;
        let same = ring.generation == reference.ring.generation && entry.seq == reference.seq;
        same.then_some(&entry.packet)
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_due
    }

    /// Frees what silent streams have left, if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.sweep_due.is_none_or(|due| now < due) {
            return;
        }
        for ring in &mut self.rings {
            if ring.kept_at.is_some_and(|at| now.saturating_duration_since(at) >= SILENCE) {
                (ring.entries, ring.kept_at) = (Vec::new(), None);
            }
        }
        let keeps = self.rings.iter().any(|ring| ring.kept_at.is_some());
        self.sweep_due = keeps.then_some(now + SWEEP_INTERVAL);
    }

    /// How many rings there are in use; zero after everyone has gone.
    pub fn len(&self) -> usize {
        self.rings.len() - self.free.len()
    }
}

impl Ring {
    fn place(&self, seq: u64) -> Option<usize> {
        Some(seq as usize & self.entries.len().checked_sub(1)?)
    }

    fn put(&mut self, entry: Entry, now: Instant) {
        self.kept_at = Some(now);
        if self.entries.is_empty() {
            self.entries.resize_with(MIN_ENTRIES, || None);
            self.oldest = entry.seq;
        }
        self.let_go(entry.seq, now);
        loop {
            let place = entry.seq as usize & (self.entries.len() - 1);
            match &self.entries[place] {
                // The same packet again: what has been sent of it stays what it was.
                Some(old) if old.seq == entry.seq => return,
                // Older than what is there: it comes too late to be of use.
                Some(old) if old.seq > entry.seq => return,
                Some(old) if now.saturating_duration_since(old.at) < KEEP && self.entries.len() < MAX_ENTRIES => {
                    self.grow();
                }
                _ => {
                    self.entries[place] = Some(entry);
                    return;
                }
            }
        }
    }

    /// Frees what is too old, a few packets at a time: in a second that is more than come.
    fn let_go(&mut self, newest: u64, now: Instant) {
        self.oldest = self.oldest.max(newest.saturating_sub(self.entries.len() as u64));
        for _ in 0..LET_GO_MAX {
            let place = self.oldest as usize & (self.entries.len() - 1);
            let entry = self.entries[place].as_ref().filter(|entry| entry.seq == self.oldest);
            if self.oldest >= newest || entry.is_some_and(|entry| now.saturating_duration_since(entry.at) < KEEP) {
                return;
            }
            if entry.is_some() {
                self.entries[place] = None;
            }
            self.oldest += 1;
        }
    }

    fn grow(&mut self) {
        let entries = self.entries.len() * 2;
        let old = std::mem::take(&mut self.entries);
        self.entries.resize_with(entries, || None);
        for entry in old.into_iter().flatten() {
            let place = entry.seq as usize & (entries - 1);
            self.entries[place] = Some(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(byte: u8) -> Stored {
        Stored {
            timestamp: 0,
            codec: Codec::Vp8,
            marker: false,
            values: Values::default(),
            descriptor: None,
            targets: 0,
            is_padding: false,
            payload: Arc::from(&[byte; 4][..]),
            primary_at: 0,
        }
    }

    fn byte(store: &PacketStore, ring: RingKey, seq: u64) -> Option<u8> {
        store.get(PacketRef { ring, seq }).map(|stored| stored.payload[0])
    }

    #[test]
    fn padding_comes_in_sizes_and_says_how_much_it_is() {
        let store = PacketStore::default();
        for (wanted, bytes) in [(0, 32), (32, 32), (33, 96), (200, 255), (5000, 255)] {
            let stored = store.get(PacketStore::padding(wanted)).unwrap();
            assert!(stored.is_padding);
            assert_eq!((stored.payload.len(), stored.payload.last().copied()), (bytes, Some(bytes as u8)), "{wanted}");
        }
    }

    #[test]
    fn a_second_of_packets_is_kept_and_no_more_than_the_ring_holds() {
        let t0 = Instant::now();
        let mut store = PacketStore::default();
        let ring = store.open();
        for seq in 0..300 {
            store.put(ring, seq, packet(seq as u8), t0 + Duration::from_millis(seq));
        }
        assert_eq!(byte(&store, ring, 0), Some(0), "the ring has grown");
        for seq in 300..3000 {
            store.put(ring, seq, packet(seq as u8), t0 + Duration::from_millis(300));
        }
        assert_eq!(byte(&store, ring, 3000 - MAX_ENTRIES as u64 - 1), None);
        assert_eq!(byte(&store, ring, 3000 - MAX_ENTRIES as u64), Some((3000 - MAX_ENTRIES) as u8));
        assert_eq!(byte(&store, ring, 2999), Some(2999u64 as u8));
        assert_eq!(store.rings[0].entries.len(), MAX_ENTRIES);
    }

    #[test]
    fn slow_streams_stay_small() {
        let t0 = Instant::now();
        let mut store = PacketStore::default();
        let ring = store.open();
        for seq in 0..500 {
            store.put(ring, seq, packet(1), t0 + Duration::from_millis(20 * seq));
        }
        assert_eq!(store.rings[0].entries.len(), MIN_ENTRIES);
        let kept = store.rings[0].entries.iter().flatten().count();
        assert!((50..=52).contains(&kept), "{kept} packets of 20 ms are a second");
    }

    #[test]
    fn what_silent_streams_have_left_is_freed() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut store = PacketStore::default();
        let (silent, slow) = (store.open(), store.open());
        assert_eq!(store.poll_timeout(), None);
        for seq in 0..300 {
            store.put(silent, seq, packet(1), t0);
        }
        let mut sweeps = 0;
        for ms in 0..5000 {
            if ms % 1000 == 0 {
                store.put(slow, ms, packet(2), at(ms));
            }
            if store.poll_timeout().is_some_and(|due| due <= at(ms)) {
                store.handle_timeout(at(ms));
                sweeps += 1;
            }
            assert_eq!(byte(&store, silent, 299), (ms < 3000).then_some(1), "{ms}");
            assert_eq!(byte(&store, slow, ms / 1000 * 1000), Some(2), "a slow stream keeps its last: {ms}");
        }
        assert_eq!((sweeps, store.rings[0].entries.capacity()), (4, 0));
        store.put(silent, 300, packet(3), at(5000));
        assert_eq!(byte(&store, silent, 300), Some(3), "it may go on");
        store.handle_timeout(at(8000));
        assert_eq!((store.poll_timeout(), store.len()), (None, 2), "nothing is kept, nothing is due");
    }

    #[test]
    fn a_number_never_names_two_packets() {
        let t0 = Instant::now();
        let mut store = PacketStore::default();
        let first = store.open();
        store.put(first, 7, packet(1), t0);
        store.put(first, 7, packet(2), t0);
        assert_eq!(byte(&store, first, 7), Some(1), "a duplicate does not replace what was sent");
        store.close(first);
        let second = store.open();
        store.put(second, 7, packet(3), t0);
        assert_eq!((byte(&store, first, 7), byte(&store, second, 7)), (None, Some(3)));
        store.close(first);
        assert_eq!(store.len(), 1, "closing twice closes once");
    }
}
