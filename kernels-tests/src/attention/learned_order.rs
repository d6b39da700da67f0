//! Reference and cases of `attention::learned_order`.

use patchfield::Kernel;
use patchfield::attention::{gilbert_ranks, learned_order::*};

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "attention/learned_order";

/// `e`, `dshift` and `dW`, with magnitudes; `places` are the `X`, one a row.
pub fn reference(places: &[f64], frequency: &[f64], de: &[f64]) -> [Vec<(f64, f64)>; 3] {
    let k = frequency.len();
    let mut e = Vec::new();
    let mut dshift = vec![(0.0, 0.0); places.len()];
    let mut dw = vec![(0.0, 0.0); k];
    let add = |sum: &mut (f64, f64), v: f64, size: f64| *sum = (sum.0 + v, sum.1 + size);
    for (row, &x) in places.iter().enumerate() {
        // The rounding of a place and of the product move the argument by |X W| 2^-24 each.
        e.extend(frequency.iter().map(|w| ((x * w).sin(), 2.0 + (x * w).abs())));
        e.extend(frequency.iter().map(|w| ((x * w).cos(), 2.0 + (x * w).abs())));
        for (i, w) in frequency.iter().enumerate() {
            let (s, c) = (x * w).sin_cos();
            let (ds, dc) = (de[2 * k * row + i], de[2 * k * row + k + i]);
            let slope = ds * c - dc * s;
            let size = (ds.abs() + dc.abs()) * (2.0 + (x * w).abs());
            add(&mut dshift[row], slope * w, size * w.abs());
            add(&mut dw[i], slope * x, size * x.abs());
        }
    }
    [e, dshift, dw]
}

fn case(config: LearnedOrderConfig, order: Vec<f32>, random: &mut Random) -> Case {
    let LearnedOrderConfig { batch, tokens, frequencies, .. } = config;
    let rows = (batch * tokens) as usize;
    let shift = random.vec(rows, -3.0, 3.0);
    let frequency: Vec<f32> = (0..frequencies)
        .map(|k| 10_000f32.powf(-(k as f32) / frequencies as f32) * random.uniform(0.9, 1.0))
        .collect();
    let de = random.vec(rows * 2 * frequencies as usize, -1.0, 1.0);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let places: Vec<f64> =
        (0..rows).map(|r| f64::from(order[r % tokens as usize]) + f64::from(shift[r])).collect();
    let [e, dshift, dw] = reference(&places, &wide(&frequency), &wide(&de));
    // An element: 2 roundings of the argument, 2 of sine and cosine. Sums: 4 more, and one for each
    // term; over rows 256 of a block and the blocks.
    let rows_sum = f64::from(batch * tokens).min(256.0) + f64::from(batch * tokens) / 256.0;
    Case::new(KERNEL, format!("{config:?}"), move |context, b| {
        let (order, shift, frequency) = (b["order"], b["shift"], b["frequency"]);
        let forward = LearnedOrderForwardArgs { order, shift, frequency, e: b["e"] };
        let mut recording = LearnedOrderForward::new(context, config)?.prepare(&forward)?;
        let backward = LearnedOrderBackward::new(context, config)?;
        recording.append(backward.prepare(&LearnedOrderBackwardArgs {
            order,
            shift,
            frequency,
            de: b["de"],
            dshift: b["dshift"],
            dfrequency: b["dfrequency"],
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("order", &order)
    .input("shift", &shift)
    .input("frequency", &frequency)
    .input("de", &de)
    .output("e", Expected::near(&e, 2.0, 0.0))
    .output("dshift", Expected::near(&dshift, 8.0 + f64::from(frequencies), 0.0))
    .output("dfrequency", Expected::near(&dw, 8.0 + rows_sum, 0.0))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the shift of the first image for all",
        kernel: KERNEL,
        shader: "attention/learned_order::forward",
        find: "order[row % params.tokens] + shift[row]",
        replace: "order[row % params.tokens] + shift[row % params.tokens]",
    },
    Canary {
        bug: "a sign of the derivative of the cosine",
        kernel: KERNEL,
        shader: "attention/learned_order::rows",
        find: "* wave.y - de",
        replace: "* wave.y + de",
    },
    Canary {
        bug: "rows of the last block left out",
        kernel: KERNEL,
        shader: "attention/learned_order::columns",
        find: "min((block + 1u) * params.block, params.rows)",
        replace: "min((block + 1u) * params.block, params.rows / params.block * params.block)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(81);
    let mut cases = Vec::new();
    for (batch, height, width, frequencies) in
        [(1, 1, 1, 1), (2, 3, 5, 7), (3, 8, 8, 16), (1, 14, 14, 65), (2, 5, 13, 64), (9, 17, 16, 5)]
    {
        for lanes in [None, Some(16)] {
            let config = LearnedOrderConfig { batch, tokens: height * width, frequencies, lanes };
            let ranks = gilbert_ranks(height, width).unwrap_or_default();
            cases.push(case(config, ranks.into_iter().map(|r| r as f32).collect(), &mut random));
        }
    }
    // The far end of a curve over 50,000 cells.
    let config = LearnedOrderConfig { batch: 2, tokens: 31, frequencies: 8, lanes: None };
    cases.push(case(config, (0..31).map(|n| (49_960 + n) as f32).collect(), &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let mut random = Random::new(82);
        let mut draw = |n| -> Vec<f64> { random.vec(n, -2.0, 2.0).into_iter().map(f64::from).collect() };
        let (places, frequency, de) = (draw(5), draw(3), draw(30));
        let loss = |places: &[f64], frequency: &[f64]| -> f64 {
            reference(places, frequency, &de)[0].iter().zip(&de).map(|(e, d)| e.0 * d).sum()
        };
        let [_, dshift, dw] = reference(&places, &frequency, &de);
        let step = 1e-6;
        for i in 0..5 {
            let at = |by: f64| {
                let mut places = places.clone();
                places[i] += by;
                loss(&places, &frequency)
            };
            assert!(((at(step) - at(-step)) / (2.0 * step) - dshift[i].0).abs() < 1e-7);
        }
        for i in 0..3 {
            let at = |by: f64| {
                let mut frequency = frequency.clone();
                frequency[i] += by;
                loss(&places, &frequency)
            };
            assert!(((at(step) - at(-step)) / (2.0 * step) - dw[i].0).abs() < 1e-7);
        }
    }
}
