//! The layers of a track as a ladder: what there is to choose from, and what each rung costs.
//!
//! Temporal layers are dropped before an encoding is, so from rung to rung first the frame rate rises, then the size.

use super::EncodingIndex;
use super::layers::Layer;
use super::rates::LayerRates;
use crate::units::Bitrate;

/// A price that moved by less than this share, in per cent, is the same: encoders swing.
const PRICE_STEP_PERCENT: u64 = 15;
/// What is assumed of the lowest encoding until it is measured, and by how much the next costs more.
const FIRST_PRICE: Bitrate = Bitrate::from_bps(200_000);
const FACTOR: f64 = 3.0;
/// Without better knowledge the highest of several layers has this height, in pixels, and each below half of it.
const ASSUMED_HEIGHT: u16 = 720;

/// One layer of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    pub layer: Layer,
    /// In pixels, if a keyframe told.
    pub height: Option<u16>,
}

/// All layers of a track that can be had, lowest first.
#[derive(Debug, Default)]
pub struct Ladder {
    rungs: Vec<Rung>,
    /// What each costs in all.
    prices: Vec<Bitrate>,
}

impl Ladder {
    /// The ladder of encodings that can be had, lowest first.
    pub fn of<'a>(encodings: impl Iterator<Item = (EncodingIndex, &'a LayerRates)>) -> Self {
        let mut ladder = Self::default();
        let mut guess = FIRST_PRICE;
        for (encoding, rates) in encodings {
            if !rates.is_measured() {
                let height = rates.size(0).map(|(_, height)| height);
                ladder.push(Rung { layer: Layer::whole(encoding), height }, guess);
                guess = guess * FACTOR;
                continue;
            }
            let (top_spatial, top_temporal) = (rates.top_spatial(), rates.top_temporal());
            for spatial in 0..=top_spatial {
                let height = rates.size(spatial).map(|(_, height)| height);
                // Of the larger pictures a frame rate of a quarter is no use: the next smaller one at all of its frames
                // looks better and costs less.
                let is_lowest = ladder.rungs.is_empty();
                let lowest_temporal = if is_lowest { 0 } else { top_temporal.saturating_sub(1) };
                for temporal in lowest_temporal..=top_temporal {
                    let rung = Rung { layer: Layer { encoding, spatial, temporal }, height };
                    ladder.push(rung, rates.price(spatial, temporal));
                }
            }
            guess = rates.price(top_spatial, top_temporal) * FACTOR;
        }
        ladder
    }

    fn push(&mut self, rung: Rung, price: Bitrate) {
        self.rungs.push(rung);
        self.prices.push(price);
    }

    /// The prices of the rungs that are of use to someone who shows the track at this height; 0: at any.
    pub fn prices(&self, height: u16) -> &[Bitrate] {
        self.prices.get(..self.useful(height)).unwrap_or(&self.prices)
    }

    /// The layer of a rung.
    pub fn layer(&self, rung: usize) -> Option<Layer> {
        Some(self.rungs.get(rung)?.layer)
    }

    /// The rung that a layer is now: the highest that is not above it.
    pub fn rung_of(&self, layer: Layer) -> Option<usize> {
        let key = |layer: Layer| (layer.encoding, layer.spatial, layer.temporal);
        let place = self.rungs.partition_point(|rung| key(rung.layer) <= key(layer));
        // What is below the ladder's lowest counts as that.
        (!self.rungs.is_empty()).then(|| place.saturating_sub(1))
    }

    /// Whether the choice or what it costs is another.
    pub fn differs(&self, other: &Self) -> bool {
        let near = |(a, b): (&Bitrate, &Bitrate)| {
            a.as_bps().abs_diff(b.as_bps()) * 100 <= a.as_bps().max(b.as_bps()) * PRICE_STEP_PERCENT
        };
        self.rungs != other.rungs || !self.prices.iter().zip(&other.prices).all(near)
    }

    /// How many rungs from the lowest on are of use at a height: up to the first that is as high, at its full rate.
    fn useful(&self, height: u16) -> usize {
        if height == 0 {
            return self.rungs.len();
        }
        let picture = |rung: &Rung| (rung.layer.encoding, rung.layer.spatial);
        let mut pictures: Vec<_> = self.rungs.iter().map(picture).collect();
        pictures.dedup();
        let high_enough = |(index, wanted): (usize, &(EncodingIndex, u8))| {
            let told = self.rungs.iter().find(|rung| picture(rung) == *wanted).and_then(|rung| rung.height);
            let above = (pictures.len() - 1 - index).min(15);
            told.unwrap_or(ASSUMED_HEIGHT >> above) >= height
        };
        let enough = pictures.iter().enumerate().find(|(index, wanted)| high_enough((*index, wanted)));
        match enough {
            Some((_, wanted)) => self.rungs.iter().rposition(|rung| picture(rung) == *wanted).map_or(0, |at| at + 1),
            None => self.rungs.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(encoding: u8, temporal: u8, height: Option<u16>) -> Rung {
        Rung { layer: Layer { encoding: EncodingIndex(encoding), spatial: 0, temporal }, height }
    }

    fn ladder(heights: [Option<u16>; 3]) -> Ladder {
        let mut ladder = Ladder::default();
        for (encoding, height) in heights.into_iter().enumerate() {
            for temporal in 0..2 {
                let price = Bitrate::from_bps(100_000 * (1 + 2 * encoding as u64 + u64::from(temporal)));
                ladder.push(rung(encoding as u8, temporal, height), price);
            }
        }
        ladder
    }

    #[test]
    fn the_smallest_picture_that_is_high_enough_is_the_best_of_use() {
        let told = ladder([Some(120), Some(240), Some(480)]);
        let guessed = ladder([None, None, None]);
        for (height, expected) in [(0, 6), (1, 2), (120, 2), (121, 4), (240, 4), (241, 6), (480, 6), (1080, 6)] {
            assert_eq!(told.prices(height).len(), expected, "{height}");
        }
        for (height, expected) in [(180, 2), (181, 4), (360, 4), (720, 6), (2160, 6)] {
            assert_eq!(guessed.prices(height).len(), expected, "{height}");
        }
        assert!(Ladder::default().prices(100).is_empty());
    }

    #[test]
    fn a_layer_finds_its_rung_again() {
        let ladder = ladder([Some(120), Some(240), Some(480)]);
        let layer = |encoding, temporal| Layer { encoding: EncodingIndex(encoding), spatial: 0, temporal };
        assert_eq!(ladder.rung_of(layer(1, 1)), Some(3));
        assert_eq!(ladder.rung_of(layer(1, 7)), Some(3), "one that has lost its highest frame rate");
        assert_eq!(ladder.rung_of(Layer::whole(EncodingIndex(2))), Some(5));
        assert_eq!(Ladder::default().rung_of(layer(0, 0)), None);
    }

    #[test]
    fn small_swings_of_a_price_are_no_news() {
        let (a, mut b) = (ladder([None; 3]), ladder([None; 3]));
        assert!(!a.differs(&b));
        b.prices[5] = b.prices[5] * 1.1;
        assert!(!a.differs(&b));
        b.prices[5] = b.prices[5] * 1.2;
        assert!(a.differs(&b));
        b = ladder([Some(90), None, None]);
        assert!(a.differs(&b));
    }
}
