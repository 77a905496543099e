//! Whether a shard has more to do than its core can. Pure.

/// Busier than this, in thousandths of a second, is saturated: queues grow without bound from 1,000 on, and a measured
/// second is never quite even.
const HIGH_PERMILLE: u64 = 900;
/// It is over below this.
const LOW_PERMILLE: u64 = 800;
/// Seconds above the one or below the other before anything is said: a crowd that joins is busy for one or two.
const SECONDS: u32 = 3;

/// Looks at one shard, second by second.
#[derive(Debug, Default)]
pub(crate) struct Saturation {
    saturated: bool,
    /// Seconds that spoke against what is said now.
    contrary: u32,
}

impl Saturation {
    /// Takes in the busy share of one more second. Whether the shard is saturated.
    pub(crate) fn note(&mut self, busy_permille: u64) -> bool {
        let contrary = if self.saturated { busy_permille < LOW_PERMILLE } else { busy_permille >= HIGH_PERMILLE };
        self.contrary = if contrary { self.contrary + 1 } else { 0 };
        if self.contrary == SECONDS {
            (self.saturated, self.contrary) = (!self.saturated, 0);
        }
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (seconds, expected) in [
            (&[1000, 1000][..], false),
            (&[1000, 1000, 899, 1000, 1000], false),
            (&[900, 900, 900], true),
            (&[950, 950, 950, 700, 700], true),
            (&[950, 950, 950, 700, 700, 850, 700, 700], true),
            (&[950, 950, 950, 799, 0, 0], false),
            (&[950, 950, 950, 0, 0, 0, 950, 950, 950], true),
        ] {
            let mut saturation = Saturation::default();
            let last = seconds.iter().map(|permille| saturation.note(*permille)).last();
            assert_eq!(last, Some(expected), "{seconds:?}");
        }
    }
}
