//! Chance that is the same on every machine: whole numbers, and no function that a mathematical library computes.

/// A sequence of random numbers: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence that belongs to these numbers, and to no others.
    pub fn of(numbers: [u64; 3]) -> Self {
        Self(numbers.into_iter().fold(0, |state, number| Self(state ^ number).next()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of the numbers below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of a product is as even as the numbers are many.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// Whether something happens that does so `share` times of a hundred.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// A place in a list of weights.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        weights.iter().position(|weight| at.checked_sub(*weight).map(|rest| at = rest).is_none()).unwrap_or(0)
    }

    /// A size with a long tail: `least` doubled as often as the weights say, and anything up to twice that.
    pub fn size(&mut self, least: u32, weights: &[u64]) -> u32 {
        let size = u64::from(least) << self.weighted(weights);
        (size + self.below(size)) as u32
    }
}
