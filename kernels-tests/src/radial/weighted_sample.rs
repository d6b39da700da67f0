//! Reference and cases of `radial::weighted_sample`.

use patchfield::dense::random::RandomState;
use patchfield::radial::weighted_sample::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::dense::random::philox4x32;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "radial/weighted_sample";

fn usable(w: f32) -> f32 {
    if (0.0..=1e27).contains(&w) { w } else { 0.0 }
}

/// The points drawn. Sums are f32 in the order of the shader's, so that the draws are the same.
pub fn reference(config: &WeightedSampleConfig, weights: &[f32], state: &RandomState) -> Vec<u32> {
    let mut levels = vec![weights.iter().map(|&w| usable(w)).collect::<Vec<f32>>()];
    while levels.len() == 1 || levels[levels.len() - 1].len() > 1 {
        let sums = |children: &[f32]| children.iter().fold(0.0, |sum, w| sum + w);
        levels.push(levels[levels.len() - 1].chunks(64).map(sums).collect());
    }
    let draw = |i: u32| {
        let words = |block: u32| philox4x32([block, config.stream, state.step[0], state.step[1]], state.seed);
        let words = [words(2 * i), words(2 * i + 1)].concat();
        let mut total = levels[levels.len() - 1][0];
        if total == 0.0 {
            return ((u64::from(words[0]) * u64::from(config.points)) >> 32) as u32;
        }
        let mut at = 0;
        for below in (0..levels.len() - 1).rev() {
            let target = (words[below] >> 8) as f32 / 16_777_216.0 * total;
            let (mut sum, first) = (0.0, at * 64);
            for (k, &value) in levels[below].iter().enumerate().skip(first).take(64) {
                if value > 0.0 {
                    sum += value;
                    (at, total) = (k, value);
                    if sum > target {
                        break;
                    }
                }
            }
        }
        at as u32
    };
    (0..config.draws).map(draw).collect()
}

fn case(config: WeightedSampleConfig, what: &str, weights: Vec<f32>, random: &mut Random) -> Case {
    let WeightedSampleConfig { dims, points, draws, .. } = config;
    let state = RandomState::new(random.bits(), random.bits());
    let positions = random.vec((points * dims) as usize, -1.0, 1.0);
    let d = dims as usize;
    let drawn = reference(&config, &weights, &state);
    let samples = drawn.iter().flat_map(|&i| &positions[i as usize * d..][..d]).map(|x| x.to_bits());
    let samples = Expected::Exact(samples.collect());
    Case::new(KERNEL, format!("{what}, {points} points, {dims}-D, {draws} draws"), move |context, b| {
        let kernel = WeightedSample::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&WeightedSampleArgs {
            weights: b["weights"],
            positions: b["positions"],
            state: b["state"],
            samples: b["samples"],
            scratch: &scratch,
        })
    })
    .input("weights", &weights)
    .input("positions", &positions)
    .read("state", Data::U32([state.seed, state.step].concat()))
    .output("samples", samples)
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the node's sum kept for its child",
        kernel: KERNEL,
        shader: "radial/weighted_sample::draw",
        find: "total = value;",
        replace: "",
    },
    Canary {
        bug: "the same random word on two levels",
        kernel: KERNEL,
        shader: "radial/weighted_sample::draw",
        find: "select(low.x, low.y, below == 1u)",
        replace: "low.x",
    },
    Canary {
        bug: "a level's last node left out",
        kernel: KERNEL,
        shader: "radial/weighted_sample::sum_level",
        find: "min(CHILDREN, params.children - first)",
        replace: "min(CHILDREN, params.children - first - 1u)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(43);
    let mut cases = Vec::new();
    for (dims, points, draws) in
        [(1, 1, 3), (2, 63, 64), (3, 64, 65), (4, 65, 130), (2, 4096, 63), (2, 4097, 257), (3, 9001, 500)]
    {
        let config = WeightedSampleConfig { dims, points, draws, stream: random.below(9) };
        let n = points as usize;
        cases.push(case(config, "uniform", random.vec(n, 0.0, 1.0), &mut random));
        cases.push(case(config, "all zero", vec![0.0; n], &mut random));
        let mut weights: Vec<f32> = (0..n).map(|_| 10f32.powf(random.uniform(-9.0, 9.0))).collect();
        for i in 0..n * 2 / 3 {
            let bad = [0.0, f32::NAN, -1.0, f32::INFINITY, 1e28, -0.0];
            weights[(i * 7) % n] = bad[i % 6];
        }
        cases.push(case(config, "wide and bad", weights, &mut random));
    }
    // Four levels; only a few weigh anything, the last point among them.
    let config = WeightedSampleConfig { dims: 1, points: 262_145, draws: 70, stream: 1 };
    let mut weights = vec![0.0; 262_145];
    for i in [0, 5, 64, 4096, 100_000, 262_143, 262_144] {
        weights[i] = random.uniform(0.5, 2.0);
    }
    cases.push(case(config, "sparse", weights, &mut random));
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> Vec<Result<()>> {
    let good = WeightedSampleConfig { dims: 2, points: 4, draws: 4, stream: 0 };
    [
        WeightedSampleConfig { dims: 0, ..good },
        WeightedSampleConfig { points: 0, ..good },
        WeightedSampleConfig { draws: 0, ..good },
        WeightedSampleConfig { dims: 4, draws: 1 << 31, ..good },
    ]
    .map(|config| WeightedSample::new(context, config).map(drop))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frequencies follow the weights within five standard deviations, over six orders of magnitude.
    #[test]
    fn frequencies_follow_weights() {
        let mut random = Random::new(44);
        let weights: Vec<f32> = (0..5000).map(|_| 10f32.powf(random.uniform(-3.0, 3.0))).collect();
        let config = WeightedSampleConfig { dims: 1, points: 5000, draws: 200_000, stream: 0 };
        let mut counts = vec![0.0; 5000];
        for i in reference(&config, &weights, &RandomState::new(7, 0)) {
            counts[i as usize] += 1.0;
        }
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let mut chi_squared = 0.0;
        for (w, n) in weights.iter().zip(&counts) {
            let expected = f64::from(*w) / total * 200_000.0;
            assert!((n - expected).abs() < 5.5 * (expected + 1.0).sqrt() + 1.0, "{n} instead of {expected}");
            chi_squared += (n - expected).powi(2) / expected;
        }
        // 5,000 degrees of freedom; rare points widen the distribution.
        assert!((chi_squared - 5000.0).abs() < 2500.0, "{chi_squared}");
    }
}
