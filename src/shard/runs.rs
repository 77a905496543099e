//! Runs of datagrams that leave in one GSO send. Pure.
//!
//! A run is one source, one destination and equal lengths; the last datagram may be shorter. A run of five costs the
//! kernel 40 % of five single sends.

use std::net::SocketAddr;

/// Datagrams that leave in one send, back to back.
#[derive(Clone, Copy)]
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

    /// The same in runs of at most so many datagrams.
    pub(crate) fn pieces(&self, max_datagrams: usize) -> impl Iterator<Item = Run<'a>> + use<'a> {
        let run = *self;
        let alone = run.contents.is_empty().then_some(run.contents);
        let pieces = run.contents.chunks(run.segment.max(1) * max_datagrams.max(1));
        alone.into_iter().chain(pieces).map(move |contents| Run { contents, ..run })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(contents: &[u8], segment: usize) -> Run<'_> {
        let ends = SocketAddr::from(([192, 0, 2, 1], 7882));
        Run { source: ends, destination: ends, contents, segment }
    }

    #[test]
    fn a_run_is_cut_into_its_datagrams() {
        for (bytes, segment, lengths) in [
            (250, 100, &[100, 100, 50][..]),
            (100, 100, &[100]),
            (99, 100, &[99]),
            (200, 100, &[100, 100]),
            (0, 0, &[0]),
        ] {
            let contents = vec![7; bytes];
            let run = run(&contents, segment);
            assert_eq!(run.datagrams().map(<[u8]>::len).collect::<Vec<_>>(), lengths);
            assert_eq!(run.len(), lengths.len());
        }
    }

    #[test]
    fn a_long_run_is_cut_into_shorter_ones() {
        let contents = vec![7; 1050];
        let pieces: Vec<_> = run(&contents, 100).pieces(4).map(|piece| piece.len()).collect();
        assert_eq!(pieces, [4, 4, 3]);
        assert_eq!(run(&[], 0).pieces(4).count(), 1);
    }
}
