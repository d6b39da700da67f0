//! Reference and cases of `dense::random`: an integer twin that must agree bit by bit, known answers
//! of Philox, and the distributions that come out.

use patchfield::Kernel;
use patchfield::dense::random::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

fn high(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

/// Philox4x32-10 (Salmon et al. 2011).
pub fn philox4x32(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = 0xd251_1f53u64 * u64::from(c[0]);
        let p1 = 0xcd9e_8d57u64 * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9e37_79b9), k[1].wrapping_add(0xbb67_ae85)];
    }
    c
}

/// The radius of Box and Muller with 28 bits after the point.
pub fn normal_radius(bits: u32) -> u32 {
    let x = bits.max(1);
    let zeros = x.leading_zeros();
    let f = (x << zeros) << 1;
    let terms = [
        60_545_955,
        174_654_698,
        326_658_758,
        473_079_330,
        609_200_486,
        773_041_995,
        1_032_609_095,
        1_549_078_679,
        3_098_163_993,
    ];
    let log2 = high(f, terms.iter().fold(9_839_946, |sum, &term: &u32| term - high(f, sum)));
    let square = high(((zeros + 1) << 26) - (log2 >> 5), 2_977_044_472) << 1;
    if square == 0 {
        return 0;
    }
    let shift = square.leading_zeros() & 30;
    let t = square << shift;
    let mut y = (176_405_649 - high(t, 210_317_221 - high(t, 102_219_160))) << 4;
    for _ in 0..3 {
        y = high(y, ((3 << 28) - high(t, high(y, y))) << 2) << 1;
    }
    (high(t, y) << 1) >> (shift / 2)
}

/// `sin(pi / 2 x)`: 32 bits in, 31 out.
pub fn quarter_sine(x: u32) -> u32 {
    let s = high(x, x);
    let terms = [344_144, 10_053_783, 171_138_563, 1_387_197_332, 3_373_259_426];
    high(x, terms.iter().fold(7370, |sum, &term: &u32| term - high(s, sum)))
}

/// Two normal numbers in units of 2^-21.
pub fn normal_pair(a: u32, b: u32) -> [i32; 2] {
    let radius = normal_radius(a);
    let x = b << 2;
    let sine = ((high(radius, quarter_sine(x)) + 32) >> 6) as i32;
    let cosine = ((high(radius, quarter_sine(!x)) + 32) >> 6) as i32;
    match b >> 30 {
        0 => [cosine, sine],
        1 => [-sine, cosine],
        2 => [-cosine, -sine],
        _ => [sine, -cosine],
    }
}

/// The bits that [`RandomFill`] writes.
pub fn reference(config: &RandomConfig, state: &RandomState) -> Vec<u32> {
    let blocks = config.count.div_ceil(4);
    let mut out = Vec::new();
    for block in 0..blocks {
        let counter = [config.first_block.wrapping_add(block), config.stream, state.step[0], state.step[1]];
        let w = philox4x32(counter, state.seed);
        let scaled = |x: f32| (config.scale * x).to_bits();
        out.extend(match config.distribution {
            Distribution::Bits => w,
            Distribution::Uniform => w.map(|w| scaled((w >> 8) as f32 / 16_777_216.0)),
            Distribution::Symmetric => w.map(|w| scaled(((w >> 8) as i32 - 8_388_608) as f32 / 8_388_608.0)),
            Distribution::Normal => {
                let [a, b] = normal_pair(w[0], w[1]);
                let [c, d] = normal_pair(w[2], w[3]);
                [a, b, c, d].map(|z| scaled(z as f32 / 2_097_152.0))
            }
        });
    }
    out.truncate(config.count as usize);
    out
}

fn scramble(mut h: u32) -> u32 {
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The permutations that [`RandomPermutation`] writes.
pub fn permutations(config: &PermutationConfig, state: &RandomState) -> Vec<u32> {
    let n = u64::from(config.n);
    let side = (1..).find(|s| s * s >= n).unwrap_or(1);
    let mut out = Vec::new();
    for row in 0..config.rows {
        let words = |block: u32| philox4x32([block, config.stream, state.step[0], state.step[1]], state.seed);
        let keys = [words(0x8000_0000 + 2 * row), words(0x8000_0001 + 2 * row)];
        for i in 0..n {
            let mut place = i;
            loop {
                let (mut left, mut right) = (place / side, place % side);
                #[allow(clippy::needless_range_loop)]
                for round in 0..4 {
                    let hash = |x: u64, key: u32| u64::from(scramble((x as u32).wrapping_add(key)));
                    left = (left + hash(right, keys[0][round]) % side) % side;
                    right = (right + hash(left, keys[1][round]) % side) % side;
                }
                place = left * side + right;
                if place < n {
                    break;
                }
            }
            out.push(place as u32);
        }
    }
    out
}

fn fill(config: RandomConfig, state: RandomState, answers: Option<[u32; 4]>) -> Case {
    let expected = answers.map_or_else(|| reference(&config, &state), Vec::from);
    Case::new("dense/random", format!("{config:?}, {state:?}"), move |context, b| {
        RandomFill::new(context, config)?.prepare(&RandomArgs { state: b["state"], y: b["y"] })
    })
    .read("state", Data::U32(bytemuck::pod_collect_to_vec(state.bytes())))
    .output("y", Expected::Exact(expected))
}

fn permutation(config: PermutationConfig, state: RandomState) -> Case {
    let expected = permutations(&config, &state);
    Case::new("dense/random", format!("{config:?}, {state:?}"), move |context, b| {
        RandomPermutation::new(context, config)?.prepare(&RandomArgs { state: b["state"], y: b["y"] })
    })
    .read("state", Data::U32(bytemuck::pod_collect_to_vec(state.bytes())))
    .output("y", Expected::Exact(expected))
}

/// `(counter, key, words)` of the authors' test vectors.
const KNOWN: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
    ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
    ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
    (
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        [0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    ),
];

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "pairs made of the wrong words",
        kernel: "dense/random",
        shader: "dense/random::fill",
        find: "normal_pair(w.x, w.y), normal_pair(w.z, w.w)",
        replace: "normal_pair(w.x, w.z), normal_pair(w.y, w.w)",
    },
    Canary {
        bug: "keys shared by neighbouring rows",
        kernel: "dense/random",
        shader: "dense/random::permutation",
        find: "let block = 0x80000000u + 2u * row;",
        replace: "let block = 0x80000000u + row;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(41);
    let mut cases = Vec::new();
    let plain =
        |count, distribution| RandomConfig { count, distribution, scale: 1.0, stream: 5, first_block: 0 };
    for (counter, seed, words) in KNOWN {
        let config =
            RandomConfig { stream: counter[1], first_block: counter[0], ..plain(4, Distribution::Bits) };
        cases.push(fill(config, RandomState { seed, step: [counter[2], counter[3]] }, Some(words)));
    }
    use Distribution::{Bits, Normal, Symmetric, Uniform};
    for distribution in [Bits, Uniform, Symmetric, Normal] {
        for count in [1, 2, 3, 1023, 1024, 1025, 4099, 20_000] {
            let state = RandomState::new(random.bits(), random.bits());
            cases.push(fill(plain(count, distribution), state, None));
        }
    }
    let state = RandomState::new(3, 4);
    cases.push(fill(RandomConfig { scale: 0.02, ..plain(999, Normal) }, state, None));
    cases.push(fill(
        RandomConfig { scale: -0.3, first_block: u32::MAX - 7, ..plain(999, Symmetric) },
        state,
        None,
    ));
    for (rows, n) in
        [(1, 1), (9, 2), (9, 3), (7, 4), (3, 5), (65, 196), (1, 256), (1, 257), (2, 1009), (1, 30_000)]
    {
        let state = RandomState::new(random.bits(), 17);
        cases.push(permutation(PermutationConfig { rows, n, stream: 2 }, state));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(distribution: Distribution, count: u32) -> Vec<f64> {
        let config = RandomConfig { count, distribution, scale: 1.0, stream: 0, first_block: 0 };
        let bits = reference(&config, &RandomState::new(2026, 1));
        bits.into_iter().map(|b| f32::from_bits(b).into()).collect()
    }

    /// The largest distance between the empirical distribution function and `cdf`, times sqrt(n).
    fn kolmogorov(mut x: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
        x.sort_by(f64::total_cmp);
        let n = x.len() as f64;
        let off =
            |(i, &x): (usize, &f64)| (cdf(x) - i as f64 / n).abs().max((cdf(x) - (i + 1) as f64 / n).abs());
        x.iter().enumerate().map(off).fold(0.0, f64::max) * n.sqrt()
    }

    fn moments(x: &[f64]) -> [f64; 4] {
        [1, 2, 3, 4].map(|k| x.iter().map(|x| x.powi(k)).sum::<f64>() / x.len() as f64)
    }

    #[test]
    fn known_answers() {
        for (counter, key, words) in KNOWN {
            assert_eq!(philox4x32(counter, key), words);
        }
    }

    /// 1.95 is passed once in a thousand by the right distribution; the moments are given six
    /// standard errors.
    #[test]
    fn distributions() {
        let n = 1_000_000;
        let error = 6.0 / f64::from(n).sqrt();
        let uniform = numbers(Distribution::Uniform, n);
        assert!(uniform.iter().all(|&x| (0.0..1.0).contains(&x)));
        for (got, want) in moments(&uniform).into_iter().zip([0.5, 1.0 / 3.0, 0.25, 0.2]) {
            assert!((got - want).abs() < 0.3 * error, "{got} {want}");
        }
        assert!(kolmogorov(uniform, |x| x) < 1.95);
        let normal = numbers(Distribution::Normal, n);
        // The standard deviations of x, x^2, x^3, x^4 are 1, sqrt 2, sqrt 15, sqrt 96.
        let wants = [(0.0, 1.0f64), (1.0, 2.0), (0.0, 15.0), (3.0, 96.0)];
        for (got, (want, variance)) in moments(&normal).into_iter().zip(wants) {
            assert!((got - want).abs() < error * variance.sqrt(), "{got} {want}");
        }
        for lag in 1..=4 {
            let product: f64 = normal.windows(lag + 1).map(|w| w[0] * w[lag]).sum();
            assert!((product / f64::from(n)).abs() < error, "lag {lag}");
        }
        assert!(kolmogorov(normal, |x| 0.5 * libm::erfc(-x / 2f64.sqrt())) < 1.95);
    }

    /// The integer functions against f64.
    #[test]
    fn integer_functions() {
        let mut random = Random::new(42);
        let mut inputs = vec![0, 1, 2, 3, u32::MAX, u32::MAX - 1, 1 << 31, (1 << 31) - 1, (1 << 31) + 1];
        inputs.extend((0..32).map(|s| 1 << s));
        inputs.extend((0..32).map(|s| u32::MAX >> s));
        inputs.extend((0..200_000).map(|i| random.u32() >> (i % 32)));
        for x in inputs {
            let square = -2.0 * (f64::from(x.max(1)) / 4_294_967_296.0).ln();
            let got = f64::from(normal_radius(x)) / f64::from(1 << 28);
            // The squared radius is in steps of 2^-25.
            assert!((got * got - square).abs() < 1.5e-7 + 1e-8 * square, "{x}: {got}");
            let sine = f64::from(quarter_sine(x)) / 2_147_483_648.0;
            let want = (f64::from(x) / 4_294_967_296.0 * std::f64::consts::FRAC_PI_2).sin();
            assert!((sine - want).abs() < 3e-9, "{x}: {sine} {want}");
        }
    }

    #[test]
    fn permutations_are_permutations_and_spread() {
        for n in [1, 2, 3, 7, 64, 196, 1000, 4097] {
            let config = PermutationConfig { rows: 20, n, stream: 1 };
            for row in permutations(&config, &RandomState::new(9, 9)).chunks(n as usize) {
                let mut sorted = row.to_vec();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..n));
            }
        }
        // All 24 permutations of 4, and where 0 and 5 of 7 go: chi-square below its 1e-4 quantile.
        let chi = |counts: &[u32]| {
            let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
            counts.iter().map(|&c| (f64::from(c) - mean).powi(2) / mean).sum::<f64>()
        };
        let state = RandomState::new(77, 0);
        let mut orders = std::collections::HashMap::new();
        for row in permutations(&PermutationConfig { rows: 48_000, n: 4, stream: 0 }, &state).chunks(4) {
            *orders.entry(row.to_vec()).or_insert(0) += 1;
        }
        let counts: Vec<u32> = orders.into_values().collect();
        assert_eq!(counts.len(), 24);
        assert!(chi(&counts) < 58.0, "{}", chi(&counts));
        let mut pairs = vec![0; 49];
        for row in permutations(&PermutationConfig { rows: 42_000, n: 7, stream: 0 }, &state).chunks(7) {
            pairs[(row[0] * 7 + row[5]) as usize] += 1;
        }
        let pairs: Vec<u32> =
            pairs.into_iter().enumerate().filter(|(i, _)| i % 8 != 0).map(|p| p.1).collect();
        assert!(chi(&pairs) < 85.0, "{}", chi(&pairs));
    }
}
