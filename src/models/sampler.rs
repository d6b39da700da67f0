//! The order in which pixels are visited: a new permutation each epoch, found by index alone.
//!
//! Sample `i` of a training run is `order(i)`, a pure function of the seed: a run that is resumed
//! at step `s` goes on with sample `s * batch` and needs no other state.

/// Pixels `0..count` in a random order, again and again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampler {
    count: u64,
    seed: u64,
    half_bits: u32,
}

pub(super) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Sampler {
    /// `count` is at least 1.
    pub fn new(count: u64, seed: u64) -> Self {
        let bits = u64::BITS - (count - 1).leading_zeros();
        Self { count, seed, half_bits: bits.div_ceil(2).max(1) }
    }

    /// The pixel of sample `index`: a Feistel network over the next power of four, walked until it
    /// falls below `count` (at most four rounds of it on average).
    pub fn order(&self, index: u64) -> u64 {
        let (epoch, mut value) = (index / self.count, index % self.count);
        let key = mix(self.seed ^ mix(epoch));
        let mask = (1u64 << self.half_bits) - 1;
        loop {
            let (mut left, mut right) = (value >> self.half_bits, value & mask);
            for round in 0..4 {
                let next = left ^ (mix(right ^ key.rotate_left(round * 16)) & mask);
                (left, right) = (right, next);
            }
            value = left << self.half_bits | right;
            if value < self.count {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_visits_every_pixel_once() {
        for count in [1u64, 2, 3, 17, 256, 1000] {
            let sampler = Sampler::new(count, 7);
            for epoch in 0..3 {
                let mut seen: Vec<u64> = (0..count).map(|i| sampler.order(epoch * count + i)).collect();
                seen.sort_unstable();
                assert!(seen.iter().copied().eq(0..count), "{count} in epoch {epoch}");
            }
        }
        let sampler = Sampler::new(1000, 7);
        assert!((0..1000).filter(|&i| sampler.order(i) == sampler.order(1000 + i)).count() < 20);
    }
}
