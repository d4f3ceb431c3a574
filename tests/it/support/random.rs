//! Random numbers from a seed, the same in every run; a failing test prints it, so that its history can be had again.

/// A small generator (splitmix64): good enough to mix a history, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// The seed of every run that is not told another: what `make test` finds, it finds each time.
const FIXED: u64 = 1_795_843_868_304_234_718;

/// The seed of a run: PARTYWALL_TEST_SEED, or the same as ever; printed, and so shown when the test fails.
pub fn seed() -> u64 {
    let given = std::env::var("PARTYWALL_TEST_SEED").ok();
    let seed = given.map_or(FIXED, |text| text.parse().expect("PARTYWALL_TEST_SEED is a number"));
    println!("seed: PARTYWALL_TEST_SEED={seed}");
    seed
}

impl Random {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `all`.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
