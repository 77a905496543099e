//! Groups consecutive datagrams into runs that leave in one GSO send. Pure.
//!
//! A run is one source, one destination and equal lengths; the last datagram may be shorter and ends the run. A run of
//! five costs the kernel 40 % of five single sends.

use std::net::SocketAddr;

use crate::rtc::Transmit;

/// The most bytes in one run: what fits an IP packet beside its headers, which is what the kernel first builds.
const RUN_BYTES_MAX: usize = 65_000;

/// Datagrams that leave in one send, back to back.
pub(crate) struct Run<'a> {
    /// The candidate they leave from.
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) contents: &'a [u8],
    /// The length of each datagram but the last, which may be shorter.
    pub(crate) segment: usize,
}

impl<'a> Run<'a> {
    /// The datagrams one by one. An empty datagram is a run of its own.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        split(self.contents, self.segment)
    }

    /// How many datagrams there are.
    pub(crate) fn len(&self) -> usize {
        self.contents.len().div_ceil(self.segment.max(1)).max(1)
    }
}

/// Cuts what GRO joined, or GSO will: datagrams of `stride` bytes, the last maybe shorter.
pub(crate) fn split(contents: &[u8], stride: usize) -> impl Iterator<Item = &[u8]> {
    let alone = contents.is_empty().then_some(contents);
    alone.into_iter().chain(contents.chunks(stride.max(1)))
}

/// Collects the run under way. Buffers are kept: nothing is allocated once the longest run has been seen.
#[derive(Default)]
pub(crate) struct RunBuilder {
    ends: Option<(SocketAddr, SocketAddr)>,
    /// A datagram that is alone so far is sent from where it lies.
    alone: Vec<u8>,
    /// All datagrams, once there are two.
    joined: Vec<u8>,
    segment: usize,
    count: usize,
    /// A shorter datagram came: it was the last.
    ended: bool,
}

impl RunBuilder {
    /// Whether `transmit` may join the run under way, of at most `max_segments`.
    pub(crate) fn accepts(&self, transmit: &Transmit, max_segments: usize) -> bool {
        let Some(ends) = self.ends else { return true };
        let length = transmit.contents.len();
        let bytes = self.segment * self.count + length;
        !self.ended
            && ends == (transmit.source, transmit.destination)
            && (1..=self.segment).contains(&length)
            && self.count < max_segments
            && bytes <= RUN_BYTES_MAX
    }

    /// Adds a datagram that [`RunBuilder::accepts`] took.
    pub(crate) fn push(&mut self, transmit: Transmit) {
        let length = transmit.contents.len();
        match self.count {
            0 => {
                self.ends = Some((transmit.source, transmit.destination));
                self.segment = length;
                self.alone = transmit.contents;
            }
            1 => {
                self.joined.clear();
                self.joined.extend_from_slice(&self.alone);
                self.joined.extend_from_slice(&transmit.contents);
            }
            _ => self.joined.extend_from_slice(&transmit.contents),
        }
        self.ended = length < self.segment;
        self.count += 1;
    }

    /// The run under way, if there is one.
    pub(crate) fn run(&self) -> Option<Run<'_>> {
        let (source, destination) = self.ends?;
        let contents = if self.count == 1 { &self.alone } else { &self.joined };
        Some(Run { source, destination, contents, segment: self.segment })
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.ends = None;
        self.alone = Vec::new();
        self.count = 0;
        self.segment = 0;
        self.ended = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Transport;

    /// Destination port and length.
    type Sent = (u16, usize);
    /// What is sent, and each run wanted: destination port and lengths.
    type Case<'a> = (&'a [Sent], &'a [(u16, &'a [usize])]);

    const A: u16 = 1;
    const B: u16 = 2;

    fn transmit(port: u16, length: usize, fill: u8) -> Transmit {
        Transmit {
            transport: Transport::Udp,
            source: SocketAddr::from(([192, 0, 2, 1], 7882)),
            destination: SocketAddr::from(([192, 0, 2, 2], port)),
            contents: vec![fill; length],
        }
    }

    /// Each run as (destination port, lengths of its datagrams).
    fn grouped(input: &[Sent], max_segments: usize) -> Vec<(u16, Vec<usize>)> {
        let mut builder = RunBuilder::default();
        let mut runs = Vec::new();
        let mut sent = Vec::new();
        let mut flush = |builder: &mut RunBuilder| {
            if let Some(run) = builder.run() {
                let lengths: Vec<usize> = run.datagrams().map(<[u8]>::len).collect();
                assert_eq!(lengths.len(), run.len());
                sent.extend_from_slice(run.contents);
                runs.push((run.destination.port(), lengths));
            }
            builder.clear();
        };
        let mut wanted = Vec::new();
        for (fill, (port, length)) in (0..).zip(input) {
            let transmit = transmit(*port, *length, fill);
            wanted.extend_from_slice(&transmit.contents);
            if !builder.accepts(&transmit, max_segments) {
                flush(&mut builder);
            }
            builder.push(transmit);
        }
        flush(&mut builder);
        assert_eq!(sent, wanted, "nothing lost, nothing out of order");
        runs
    }

    #[test]
    fn equal_lengths_to_one_destination_leave_together() {
        let table: [Case<'_>; 8] = [
            (&[], &[]),
            (&[(A, 100)], &[(A, &[100])]),
            (&[(A, 100), (A, 100), (A, 100)], &[(A, &[100, 100, 100])]),
            // The last may be shorter and ends the run.
            (&[(A, 100), (A, 60), (A, 60)], &[(A, &[100, 60]), (A, &[60])]),
            // A longer one begins a new run.
            (&[(A, 1042), (A, 1042), (A, 1043), (A, 1043)], &[(A, &[1042, 1042]), (A, &[1043, 1043])]),
            (&[(A, 100), (B, 100), (A, 100)], &[(A, &[100]), (B, &[100]), (A, &[100])]),
            (&[(A, 0), (A, 5), (A, 0), (A, 5)], &[(A, &[0]), (A, &[5]), (A, &[0]), (A, &[5])]),
            (&[(A, 5), (A, 5), (B, 7), (B, 7)], &[(A, &[5, 5]), (B, &[7, 7])]),
        ];
        for (input, wanted) in table {
            let wanted: Vec<(u16, Vec<usize>)> = wanted.iter().map(|(port, l)| (*port, l.to_vec())).collect();
            assert_eq!(grouped(input, 64), wanted, "{input:?}");
        }
    }

    #[test]
    fn runs_are_bounded() {
        let lengths = |runs: Vec<(u16, Vec<usize>)>| runs.iter().map(|(_, l)| l.len()).collect::<Vec<_>>();
        assert_eq!(lengths(grouped(&[(A, 10); 130], 64)), [64, 64, 2]);
        assert_eq!(lengths(grouped(&[(A, 10); 3], 1)), [1, 1, 1]);
        assert_eq!(lengths(grouped(&[(A, 1200); 60], 64)), [54, 6], "64 KiB hold 54 of them");
    }

    #[test]
    fn joined_datagrams_are_cut_again() {
        let cut = |length: usize, stride: usize| split(&vec![0; length], stride).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(cut(0, 0), [0]);
        assert_eq!(cut(5, 5), [5]);
        assert_eq!(cut(12, 5), [5, 5, 2]);
        assert_eq!(cut(3, 0), [1, 1, 1]);
    }
}
