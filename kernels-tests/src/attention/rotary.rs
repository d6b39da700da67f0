//! Reference and cases of `attention::rotary`.

use patchfield::Kernel;
use patchfield::attention::rotary::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "attention/rotary";

/// Turns the pairs of each head by the angles, as complex numbers: values and magnitudes.
pub fn reference(config: &RotaryConfig, x: &[f64], angles: &[f64]) -> Vec<(f64, f64)> {
    let [tokens, heads, dim] = [config.tokens, config.heads, config.dim].map(|n| n as usize);
    let half = config.rotary as usize / 2;
    let mut out: Vec<_> = x.iter().map(|v| (*v, v.abs())).collect();
    for (vector, (x, out)) in x.chunks(dim).zip(out.chunks_mut(dim)).enumerate() {
        let (token, head) = match config.layout {
            HeadLayout::TokensFirst => (vector / heads % tokens, vector % heads),
            HeadLayout::HeadsFirst => (vector % tokens, vector / tokens % heads),
        };
        if head >= config.rotated as usize {
            continue;
        }
        for k in 0..half {
            let (i, j) = match config.pairs {
                RotaryPairs::Interleaved => (2 * k, 2 * k + 1),
                RotaryPairs::Halves => (k, k + half),
            };
            let angle = angles[token * half + k] * if config.inverse { -1.0 } else { 1.0 };
            let (s, c) = angle.sin_cos();
            out[i] = (x[i] * c - x[j] * s, (x[i] * c).abs() + (x[j] * s).abs());
            out[j] = (x[j] * c + x[i] * s, (x[j] * c).abs() + (x[i] * s).abs());
        }
    }
    out
}

fn case(config: RotaryConfig, angles: &[f64], bad: bool, random: &mut Random) -> Case {
    let RotaryConfig { batch, tokens, heads, dim, rotary, pairs, .. } = config;
    let mut x = random.vec((batch * tokens * heads * dim) as usize, -2.0, 2.0);
    if bad {
        let at = x.len() / 2;
        x[at] = f32::NAN;
    }
    let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let table = rotary_table(angles, rotary, pairs);
    let y = reference(&config, &wide, angles);
    Case::new(KERNEL, format!("{config:?}, NaN {bad}"), move |context, b| {
        Rotary::new(context, config)?.prepare(&RotaryArgs { x: b["x"], table: b["table"], y: b["y"] })
    })
    .input("x", &x)
    .input("table", &table)
    // The table, two products and a sum are rounded. A NaN stays within its pair.
    .output("y", Expected::near(&y, 3.0, 1e-37))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the gradient turned on instead of back",
        kernel: KERNEL,
        shader: "attention/rotary::rotate",
        find: "(params.sign * table[at + params.rotary])",
        replace: "(abs(params.sign) * table[at + params.rotary])",
    },
    Canary {
        bug: "the wrong half of a pair",
        kernel: KERNEL,
        shader: "attention/rotary::rotate",
        find: "e < params.half)",
        replace: "e <= params.half)",
    },
    Canary {
        bug: "values turned with the keys",
        kernel: KERNEL,
        shader: "attention/rotary::rotate",
        find: "|| head >= params.rotated {",
        replace: "|| head > params.rotated {",
    },
];

pub fn cases() -> Vec<Case> {
    use HeadLayout::{HeadsFirst, TokensFirst};
    let mut random = Random::new(71);
    let mut cases = Vec::new();
    let rows = [
        // batch, tokens, heads, rotated, dim, rotary
        [1, 1, 1, 1, 2, 2],
        [2, 7, 3, 3, 5, 4],
        [1, 16, 6, 4, 16, 16],
        [2, 65, 2, 2, 24, 16],
        [3, 9, 3, 2, 64, 32],
        [1, 63, 1, 1, 40, 20],
    ];
    for [batch, tokens, heads, rotated, dim, rotary] in rows {
        for (pairs, layout, inverse) in [
            (RotaryPairs::Interleaved, TokensFirst, false),
            (RotaryPairs::Interleaved, HeadsFirst, true),
            (RotaryPairs::Halves, TokensFirst, true),
            (RotaryPairs::Halves, HeadsFirst, false),
        ] {
            let config = RotaryConfig { batch, tokens, heads, rotated, dim, rotary, pairs, layout, inverse };
            let angles = rotary_angles(tokens, rotary / 2, 10_000.0);
            cases.push(case(config, &angles, tokens == 9, &mut random));
        }
    }
    // A grid of 3 x 5 after a class token, and the far end of one of 50,176 tokens.
    let config = RotaryConfig {
        batch: 2,
        tokens: 16,
        heads: 2,
        rotated: 2,
        dim: 8,
        rotary: 8,
        pairs: RotaryPairs::Interleaved,
        layout: TokensFirst,
        inverse: false,
    };
    if let Ok(angles) = rotary_angles_2d([3, 5], 1, 4, 100.0) {
        cases.push(case(config, &angles, false, &mut random));
    }
    let far = rotary_angles(50_176, 4, 10_000.0);
    cases.push(case(config, &far[far.len() - 64..], false, &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_is_the_transpose_and_products_depend_on_distance_alone() {
        let mut random = Random::new(72);
        let mut draw = |n| -> Vec<f64> { random.vec(n, -1.0, 1.0).into_iter().map(f64::from).collect() };
        for pairs in [RotaryPairs::Interleaved, RotaryPairs::Halves] {
            let config = RotaryConfig {
                batch: 1,
                tokens: 12,
                heads: 1,
                rotated: 1,
                dim: 10,
                rotary: 8,
                pairs,
                layout: HeadLayout::TokensFirst,
                inverse: false,
            };
            let angles = rotary_angles(12, 4, 100.0);
            let dot = |a: &[(f64, f64)], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.0 * b).sum::<f64>();
            let (x, dy) = (draw(120), draw(120));
            let forward = dot(&reference(&config, &x, &angles), &dy);
            let backward = dot(&reference(&config.backward(), &dy, &angles), &x);
            assert!((forward - backward).abs() < 1e-12);
            let (q, k) = (draw(10).repeat(12), draw(10).repeat(12));
            let (q, k) = (reference(&config, &q, &angles), reference(&config, &k, &angles));
            let score = |i: usize, j: usize| (0..10).map(|e| q[i * 10 + e].0 * k[j * 10 + e].0).sum::<f64>();
            for i in 0..9 {
                assert!((score(i, i + 3) - score(0, 3)).abs() < 1e-12, "{pairs:?}");
            }
        }
    }
}
