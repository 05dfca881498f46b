//! A small seeded generator (splitmix64, Steele, Lea and Flood 2014), so that a random test prints one number
//! that repeats it. Not for anything that an attacker must not guess.

use std::ops::RangeInclusive;

/// The environment variable that chooses the seed of [`Rng::from_env`].
pub const SEED_VARIABLE: &str = "VSWITCH_SEED";

/// A stream of numbers that depends on the seed alone.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The stream of the seed in [`SEED_VARIABLE`], or of `default` without one.
    ///
    /// # Panics
    /// When the variable does not hold a number.
    #[must_use]
    pub fn from_env(default: u64) -> Self {
        let seed = std::env::var(SEED_VARIABLE).map_or(default, |text| {
            text.parse().expect("the seed in the environment must be a decimal number below 2^64")
        });
        Self::new(seed)
    }

    /// What to print when a test fails.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Sixty-four random bits.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias is below 2⁻³² for bounds below 2³².
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number of `range`.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[7]).collect()
    }

    /// A generator of its own for one part of a test: drawing more there changes nothing here.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self { seed: self.seed, state: self.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_stream_and_the_stream_is_splitmix64() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next(), 3_203_168_211_198_807_973);
        assert_eq!(Rng::new(5).bytes(9), Rng::new(5).bytes(9));
        assert_ne!(Rng::new(5).bytes(9), Rng::new(6).bytes(9));
    }

    #[test]
    fn every_number_below_the_bound_comes_and_no_other() {
        let mut rng = Rng::new(1);
        let mut seen = [0; 7];
        (0..7000).for_each(|_| seen[rng.below(7)] += 1);
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert!((0..100).all(|_| (3..=4).contains(&rng.within(3..=4))));
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut items: Vec<_> = (0..100).collect();
        Rng::new(3).shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
