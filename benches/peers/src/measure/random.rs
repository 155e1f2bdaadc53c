//! Numbers that are the same for every contender and every run.

/// A xorshift generator: fast enough not to be measured.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % end as u64) as usize
    }

    /// Removes elements at random until so many are left.
    pub fn thin_out<T>(&mut self, list: &mut Vec<T>, left: usize) {
        while list.len() > left {
            list.swap_remove(self.below(list.len()));
        }
    }
}
