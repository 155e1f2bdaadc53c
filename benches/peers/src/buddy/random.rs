//! Lengths and victims, the same for every contender and every run.

/// Xorshift: fast enough not to be measured.
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

    /// Any length from 256 B to 64 KiB: most are large.
    #[inline]
    pub fn length(&mut self) -> usize {
        256 + self.below(65536 - 255)
    }

    /// Any length from 256 B to 16 KiB.
    #[inline]
    pub fn short(&mut self) -> usize {
        256 + self.below(16384 - 255)
    }

    /// A power of two from 256 B to 64 KiB, each as often: most are small.
    #[inline]
    pub fn size(&mut self) -> usize {
        256 << self.below(9)
    }
}

/// Victims and lengths, drawn beforehand: drawing costs as much as a claim.
pub struct Steps {
    list: Vec<(u32, u32)>,
    next: usize,
}

impl Steps {
    const COUNT: usize = 1 << 14;

    /// Victims among so many.
    pub fn draw(random: &mut Random, live: usize, length: fn(&mut Random) -> usize) -> Self {
        let draw = |_| (random.below(live) as u32, length(random) as u32);
        Self { list: (0..Self::COUNT).map(draw).collect(), next: 0 }
    }

    /// The next one, and again from the start.
    #[inline]
    pub fn next(&mut self) -> (usize, usize) {
        let (victim, bytes) = self.list[self.next % Self::COUNT];
        self.next += 1;
        (victim as usize, bytes as usize)
    }
}
