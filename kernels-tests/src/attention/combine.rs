//! Reference and cases of `attention::combine`.

use patchfield::Kernel;
use patchfield::attention::combine::*;

use crate::canaries::Canary;
use crate::dense::gather::{gather, scatter_add};
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "attention/combine";

type Term = (f64, f64);

/// `y`, `dx` and `dweight`; `token` of `tokens` or more is none.
pub fn reference(
    config: &CombineConfig,
    x: &[f64],
    weight: &[f64],
    token: &[u32],
    dy: &[f64],
) -> [Vec<Term>; 3] {
    let width = config.width as usize;
    let weighed: Vec<f64> = x.iter().enumerate().map(|(i, x)| weight[i / width] * x).collect();
    let y = scatter_add(&weighed, token, &vec![0.0; config.tokens as usize * width], width);
    let dy = gather(dy, token, width);
    let dx = dy.iter().enumerate().map(|(i, d)| (weight[i / width] * d, (weight[i / width] * d).abs()));
    let dot = |(x, d): (&[f64], &[f64])| {
        x.iter().zip(d).fold((0.0, 0.0), |s: Term, (x, d)| (s.0 + x * d, s.1 + (x * d).abs()))
    };
    [y, dx.collect(), x.chunks(width).zip(dy.chunks(width)).map(dot).collect()]
}

fn case(config: CombineConfig, random: &mut Random) -> Case {
    let [tokens, slots, width] = [config.tokens, config.slots, config.width].map(|v| v as usize);
    let x = random.vec(slots * width, -1.0, 1.0);
    let weight = random.vec(slots, 0.0, 1.0);
    let token: Vec<u32> = (0..slots)
        .map(|_| if random.below(5) == 0 { u32::MAX } else { random.below(tokens as u32) })
        .collect();
    let dy = random.vec(tokens * width, -1.0, 1.0);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let [y, dx, dweight] = reference(&config, &wide(&x), &wide(&weight), &token, &wide(&dy));
    // A product, and one addition a slot or an element at the most.
    let ulps = |n: usize| n as f64 + 2.0;
    Case::new(KERNEL, format!("{config:?}"), move |context, b| {
        let forward = CombineForward::new(context, config)?;
        let backward = CombineBackward::new(context, config)?;
        let (x, weight, token) = (b["x"], b["weight"], b["token"]);
        let scratch = b.scratch(&forward)?;
        let mut recording =
            forward.prepare(&CombineForwardArgs { x, weight, token, y: b["y"], scratch: &scratch })?;
        recording.append(backward.prepare(&CombineBackwardArgs {
            x,
            weight,
            token,
            dy: b["dy"],
            dx: b["dx"],
            dweight: b["dweight"],
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("x", &x)
    .input("weight", &weight)
    .read("token", Data::U32(token))
    .input("dy", &dy)
    .output("y", Expected::near(&y, ulps(slots), 1e-37))
    .output("dx", Expected::near(&dx, 1.0, 1e-37))
    .output("dweight", Expected::near(&dweight, ulps(width), 1e-37))
}

/// The products alone.
fn weigh(config: WeighConfig, random: &mut Random) -> Case {
    let [rows, width] = [config.rows, config.width].map(|v| v as usize);
    let (x, weight) = (random.vec(rows * width, -1.0, 1.0), random.vec(rows, -1.0, 1.0));
    let dy = random.vec(rows * width, -1.0, 1.0);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    // A token a row.
    let token: Vec<u32> = (0..config.rows).collect();
    let whole = CombineConfig { tokens: config.rows, slots: config.rows, width: config.width };
    let [y, dx, dweight] = reference(&whole, &wide(&x), &wide(&weight), &token, &wide(&dy));
    Case::new(KERNEL, format!("{config:?}"), move |context, b| {
        let (x, weight) = (b["x"], b["weight"]);
        let mut recording =
            WeighForward::new(context, config)?.prepare(&WeighForwardArgs { x, weight, y: b["y"] })?;
        let args = WeighBackwardArgs { x, weight, dy: b["dy"], dx: b["dx"], dweight: b["dweight"] };
        recording.append(WeighBackward::new(context, config)?.prepare(&args)?);
        Ok(recording)
    })
    .input("x", &x)
    .input("weight", &weight)
    .input("dy", &dy)
    .output("y", Expected::near(&y, 1.0, 1e-37))
    .output("dx", Expected::near(&dx, 1.0, 1e-37))
    .output("dweight", Expected::near(&dweight, width as f64 + 2.0, 1e-37))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the weight of the row before",
        kernel: KERNEL,
        shader: "attention/combine::weigh",
        find: "weight[i / params.width]",
        replace: "weight[max(i / params.width, 1u) - 1u]",
    },
    Canary {
        bug: "the weight's gradient from what was weighed",
        kernel: KERNEL,
        shader: "attention/combine::weigh_backward",
        find: "sum += x[i] * d;",
        replace: "sum += w * x[i] * d;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(97);
    let shapes = [(1, 1, 1), (7, 9, 3), (30, 64, 8), (5, 257, 12), (64, 33, 5)];
    let mut cases: Vec<Case> =
        shapes.map(|(tokens, slots, width)| case(CombineConfig { tokens, slots, width }, &mut random)).into();
    for (rows, width) in [(1, 1), (9, 7), (65, 8), (13, 100)] {
        cases.push(weigh(WeighConfig { rows, width }, &mut random));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_those_of_a_bilinear_map() {
        let mut random = Random::new(98);
        let config = CombineConfig { tokens: 4, slots: 9, width: 3 };
        let mut draw = |n| random.vec(n, -1.0, 1.0).iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, weight, dy) = (draw(27), draw(9), draw(12));
        let token = [0, 3, 1, 9, 2, 2, 0, u32::MAX, 1];
        let [y, dx, dweight] = reference(&config, &x, &weight, &token, &dy);
        let dot = |a: &[Term], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.0 * b).sum::<f64>();
        // Euler: each factor's gradient times the factor is the value.
        assert!((dot(&y, &dy) - dot(&dx, &x)).abs() < 1e-12);
        assert!((dot(&y, &dy) - dot(&dweight, &weight)).abs() < 1e-12);
    }
}
