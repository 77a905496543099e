//! Loss on a link: each packet for itself, or in bursts.

use crate::rng::Rng;

/// How packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    #[default]
    None,
    /// Each with the same chance.
    Uniform { per_mille: u64 },
    /// Gilbert-Elliott: a good and a bad state with a loss each. A turn is drawn for every packet.
    Bursts { enter_per_mille: u64, leave_per_mille: u64, good_per_mille: u64, bad_per_mille: u64 },
}

/// A link's loss and the state it is in.
#[derive(Debug)]
pub struct Losses {
    kind: Loss,
    bad: bool,
}

impl Losses {
    pub fn new(kind: Loss) -> Self {
        Self { kind, bad: false }
    }

    /// Whether the next packet is lost.
    pub fn takes(&mut self, rng: &mut Rng) -> bool {
        match self.kind {
            Loss::None => false,
            Loss::Uniform { per_mille } => rng.per_mille(per_mille),
            Loss::Bursts { enter_per_mille, leave_per_mille, good_per_mille, bad_per_mille } => {
                self.bad ^= rng.per_mille(if self.bad { leave_per_mille } else { enter_per_mille });
                rng.per_mille(if self.bad { bad_per_mille } else { good_per_mille })
            }
        }
    }
}

#[test]
fn losses_come_as_often_as_said_and_bursts_together() {
    let mut rng = Rng::new(1, "loss");
    let mut run = |kind| {
        let mut losses = Losses::new(kind);
        let lost: Vec<bool> = (0..100_000).map(|_| losses.takes(&mut rng)).collect();
        let pairs = lost.windows(2).filter(|pair| pair[0] && pair[1]).count();
        (lost.iter().filter(|lost| **lost).count(), pairs)
    };
    assert_eq!(run(Loss::None).0, 0);
    let (lost, pairs) = run(Loss::Uniform { per_mille: 20 });
    assert!((1_800..2_200).contains(&lost) && pairs < 80, "{lost} lost, {pairs} in pairs");
    let bursts = Loss::Bursts { enter_per_mille: 5, leave_per_mille: 245, good_per_mille: 0, bad_per_mille: 1000 };
    let (lost, pairs) = run(bursts);
    assert!((1_600..2_400).contains(&lost) && pairs > lost / 2, "{lost} lost, {pairs} in pairs");
}
