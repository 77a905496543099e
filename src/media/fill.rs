//! Which track goes into which slot: a pure function, stable under change.

use super::TrackKey;
use super::packet::{Codec, CodecSet};

/// A slot as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub current: Option<TrackKey>,
    pub codecs: CodecSet,
}

/// A wanted track.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub track: TrackKey,
    pub codec: Codec,
    /// How high it will be shown, in pixels; 0 if nobody said.
    pub height: u16,
    /// Who is paid first: the lowest.
    pub rank: u16,
}

/// Puts the first of `wanted` (best first) that fit into `places`.
///
/// What is shown and still wanted stays where it is: tiles must not jump. A track gets one slot at most, and only
/// one whose receiver has its codec.
pub fn fill(places: &[Place], wanted: &[Wanted]) -> Vec<Option<TrackKey>> {
    let accepts = |place: &Place, want: &Wanted| place.codecs.contains(want.codec);
    let mut chosen: Vec<Wanted> = Vec::with_capacity(places.len());
    for want in wanted {
        let new = chosen.iter().all(|other| other.track != want.track);
        if chosen.len() < places.len() && new && places.iter().any(|place| accepts(place, want)) {
            chosen.push(*want);
        }
    }
    let stays = |place: &Place| {
        place.current.filter(|track| chosen.iter().any(|want| want.track == *track && accepts(place, want)))
    };
    let mut filled: Vec<Option<TrackKey>> = places.iter().map(stays).collect();
    for want in &chosen {
        if filled.contains(&Some(want.track)) {
            continue;
        }
        let free = (0..places.len()).find(|&i| filled[i].is_none() && accepts(&places[i], want));
        if let Some(i) = free {
            filled[i] = Some(want.track);
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(places: &[(Option<u32>, &[Codec])], wanted: &[(u32, Codec)]) -> Vec<Option<u32>> {
        let places: Vec<_> = places
            .iter()
            .map(|(current, codecs)| Place { current: current.map(TrackKey), codecs: codecs.iter().copied().collect() })
            .collect();
        let wanted: Vec<_> =
            wanted.iter().map(|(t, codec)| Wanted { track: TrackKey(*t), codec: *codec, height: 0, rank: 0 }).collect();
        fill(&places, &wanted).into_iter().map(|t| t.map(|t| t.0)).collect()
    }

    #[test]
    fn table() {
        use Codec::*;
        let all: &[Codec] = &[Vp8, Vp9];
        // Empty slots are filled in order of the wish.
        assert_eq!(run(&[(None, all), (None, all)], &[(1, Vp8), (2, Vp8), (3, Vp8)]), [Some(1), Some(2)]);
        // What is shown stays in its place, whatever its rank among the chosen.
        assert_eq!(run(&[(Some(2), all), (Some(1), all)], &[(1, Vp8), (2, Vp8)]), [Some(2), Some(1)]);
        // A newcomer takes the place of what is no longer among the first.
        assert_eq!(run(&[(Some(1), all), (Some(2), all)], &[(3, Vp8), (1, Vp8), (2, Vp8)]), [Some(1), Some(3)]);
        // What is no longer wanted goes.
        assert_eq!(run(&[(Some(1), all), (Some(2), all)], &[(2, Vp8)]), [None, Some(2)]);
        // A track in a codec no slot takes is passed over; one that some slot takes gets that one.
        assert_eq!(run(&[(None, &[Vp8]), (None, all)], &[(1, Av1), (2, Vp9), (3, Vp8)]), [Some(3), Some(2)]);
        // One slot a track.
        assert_eq!(run(&[(None, all), (None, all)], &[(1, Vp8), (1, Vp8)]), [Some(1), None]);
        assert_eq!(run(&[], &[(1, Vp8)]), []);
    }

    #[test]
    fn filling_again_changes_nothing() {
        use Codec::*;
        let wanted = [(4, Vp8), (7, Vp8), (1, Vp8), (2, Vp8)];
        let first = run(&[(Some(2), &[Vp8]), (None, &[Vp8]), (Some(9), &[Vp8])], &wanted);
        let places: Vec<_> = first.iter().map(|t| (*t, &[Vp8][..])).collect();
        assert_eq!(run(&places, &wanted), first);
    }
}
