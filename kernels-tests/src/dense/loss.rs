//! Reference and cases of `dense::loss`.

use patchfield::dense::loss::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// `(loss, derivative)` of one element in f64, before the mean.
pub fn reference(loss: Loss, p: f64, t: f64) -> (f64, f64) {
    let d = p - t;
    let sign = if d == 0.0 { 0.0 } else { d.signum() };
    match loss {
        Loss::Squared => (d * d, 2.0 * d),
        Loss::Absolute => (d.abs(), sign),
        Loss::Huber { delta } => {
            let delta = f64::from(delta);
            let far = d.abs() > delta;
            (
                if far { delta * (d.abs() - 0.5 * delta) } else { 0.5 * d * d },
                if far { delta * sign } else { d },
            )
        }
        Loss::Relative { epsilon } => {
            let scale = t.abs() + f64::from(epsilon);
            (d.abs() / scale, sign / scale)
        }
        Loss::RelativeSquared { epsilon } => {
            let scale = p * p + f64::from(epsilon);
            (d * d / scale, 2.0 * d / scale)
        }
        Loss::BinaryCrossEntropy => {
            (p.max(0.0) - p * t + (-p.abs()).exp().ln_1p(), 1.0 / (1.0 + (-p).exp()) - t)
        }
    }
}

/// `(loss, gradient)` of one row of logits in f64 against a weight for each class.
pub fn weighted_cross_entropy(z: &[f64], weights: &[f64], smoothing: f64) -> (f64, Vec<f64>) {
    let maximum = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z - maximum).exp()).sum();
    let total: f64 = weights.iter().sum();
    let even = smoothing * total / z.len() as f64;
    let smoothed = weights.iter().map(|t| (1.0 - smoothing) * t + even);
    let (mut loss, mut gradient) = (0.0, Vec::new());
    for (z, t) in z.iter().zip(smoothed) {
        loss += t * (sum.ln() + maximum - z);
        gradient.push(total * (z - maximum).exp() / sum - t);
    }
    (loss, gradient)
}

/// The same against one class; a target that is no class gives zeros.
pub fn cross_entropy(z: &[f64], target: usize) -> (f64, Vec<f64>) {
    let weights: Vec<f64> = (0..z.len()).map(|c| f64::from(c == target)).collect();
    weighted_cross_entropy(z, &weights, 0.0)
}

const ALL: [Loss; 6] = [
    Loss::Squared,
    Loss::Absolute,
    Loss::Huber { delta: 0.75 },
    Loss::Relative { epsilon: 0.01 },
    Loss::RelativeSquared { epsilon: 0.01 },
    Loss::BinaryCrossEntropy,
];

// Rounding of a mean: at most 8 + 2 additions on the way to a partial sum (8 items of four), 4 + 2
// and 8 of the tree in each of two reductions, and the factor: 39; plus 8 of a term itself.
const MEAN: f64 = 47.0;

fn elementwise(config: LossConfig, poison: Option<f32>, random: &mut Random) -> Case {
    let LossConfig { loss, count: n, scale, gradient, pairs } = config;
    let mut p = random.vec(n as usize, -3.0, 3.0);
    let mut t = random.vec(n as usize, -3.0, 3.0);
    for i in (2..n as usize).step_by(7) {
        t[i] = p[i];
        // Some of a pair both.
        if pairs > 0.0 && i % 3 == 0 {
            t[i ^ 1] = p[i ^ 1];
        }
    }
    let entropy = loss == Loss::BinaryCrossEntropy;
    if entropy {
        // Sure and unsure logits; targets of 0, of 1 and between.
        p.iter_mut().step_by(3).for_each(|p| *p *= 40.0);
        t.iter_mut().for_each(|t| *t = (0.3 * *t + 0.5).clamp(0.0, 1.0));
    }
    let at = n as usize / 2;
    if let Some(bad) = poison {
        if n.is_multiple_of(2) { p[at] = bad } else { t[at] = bad }
    }
    let (mut mean, mut dp) = ((0.0, 0.0), Vec::new());
    let (all_p, all_t) = (p.clone(), t.clone());
    for (i, (&p, &t)) in p.iter().zip(&t).enumerate() {
        // What is not finite in one of a pair is so in the difference.
        let beside = pairs > 0.0 && i ^ 1 == at;
        if poison.is_some() && (i == at || beside) {
            mean.0 = f64::NAN;
            dp.push((f64::NAN, 0.0));
            continue;
        }
        let (p, t) = (f64::from(p), f64::from(t));
        let (mut l, mut d) = reference(loss, p, t);
        // The difference has an error of 2^-24 |d|; near d = 0 it is exact. The derivative of Huber
        // is continuous, so that a branch taken the other way changes nothing beyond rounding.
        // The three terms of an entropy cancel; a logarithm near 1 may be 2^-21 off.
        let (mut l_scale, mut d_scale) =
            if entropy { (p.abs() + (p * t).abs() + 1.0, 1.0 + t) } else { (l, d.abs()) };
        if pairs > 0.0 {
            let [other_p, other_t] = [&all_p, &all_t].map(|v| f64::from(v[i ^ 1]));
            let weight = f64::from(pairs);
            let e = (p - t) - (other_p - other_t);
            l += 0.5 * weight * e.abs();
            // A difference of two that have errors of their own.
            l_scale += 0.5 * weight * (p.abs() + t.abs() + other_p.abs() + other_t.abs());
            d += weight * if e == 0.0 { 0.0 } else { e.signum() };
            d_scale += weight;
        }
        mean.0 += l / f64::from(n);
        mean.1 += l_scale / f64::from(n);
        let factor = f64::from(scale) / f64::from(n);
        dp.push((d * factor, d_scale * factor));
    }
    let name = format!("{loss:?}, {n}, pairs {pairs}, gradient {gradient}, poison {poison:?}");
    let case = Case::new("dense/loss", name, move |context, b| {
        let kernel = ElementwiseLoss::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&ElementwiseLossArgs {
            prediction: b["prediction"],
            target: b["target"],
            loss: b["loss"],
            gradient: gradient.then(|| b["gradient"]),
            scratch: &scratch,
        })
    })
    .input("prediction", &p)
    .input("target", &t)
    .output("loss", Expected::near(&[mean], MEAN, 0.0));
    if gradient { case.output("gradient", Expected::near(&dp, 10.0, 0.0)) } else { case }
}

/// What is not finite, if anything is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Poison {
    Nothing,
    Logit,
    Weight,
}

fn entropy(config: CrossEntropyConfig, poison: Poison, random: &mut Random) -> Case {
    let CrossEntropyConfig { rows, classes, scale, gradient, target, smoothing, variant } = config;
    let width = classes as usize;
    // The second row lies near +200: exp without the maximum taken off would overflow.
    let mut z = random.vec((rows * classes) as usize, -9.0, 9.0);
    z.iter_mut().skip(width).take(width).for_each(|z| *z += 200.0);
    // Every fifth row has no class of its own, and no weights.
    let own: Vec<u32> =
        (0..rows).map(|r| if r % 5 == 3 { classes + r - 3 } else { random.below(classes) }).collect();
    // Some weights are 0; the others are of any sum.
    let mut weights: Vec<f32> = match target {
        CrossEntropyTarget::Classes => {
            own.iter().flat_map(|&t| (0..classes).map(move |c| f32::from(c == t))).collect()
        }
        CrossEntropyTarget::Weights => {
            let mut weight = |t: u32| if t < classes { random.uniform(-0.5, 1.0).max(0.0) } else { 0.0 };
            own.iter().flat_map(|&t| (0..classes).map(|_| weight(t)).collect::<Vec<_>>()).collect()
        }
    };
    let bad = (rows / 2) as usize;
    let at = bad * width + width / 2;
    match poison {
        Poison::Nothing => {}
        Poison::Logit => z[at] = f32::NAN,
        Poison::Weight => weights[at] = f32::INFINITY,
    }
    let epsilon = f64::from(smoothing);
    let (mut mean, mut dz) = ((0.0, 0.0), Vec::new());
    for (r, (row, given)) in z.chunks(width).zip(weights.chunks(width)).enumerate() {
        if poison != Poison::Nothing && r == bad {
            mean.0 = f64::NAN;
            dz.extend(row.iter().map(|_| (f64::NAN, 0.0)));
            continue;
        }
        let [row, given] = [row, given].map(|v| v.iter().map(|&v| v.into()).collect::<Vec<f64>>());
        let (loss, gradient) = weighted_cross_entropy(&row, &given, epsilon);
        let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = given.iter().sum();
        mean.0 += loss / f64::from(rows);
        // log(sum) has the sum's relative error as its absolute one: 1 beside the terms, each of which
        // holds the distance of its logit from the largest.
        let far =
            row.iter().zip(&given).map(|(z, t)| (t + epsilon * total / f64::from(classes)) * (maximum - z));
        mean.1 += (loss + far.sum::<f64>() + total) / f64::from(rows);
        let factor = f64::from(scale) / f64::from(rows);
        for (c, g) in gradient.iter().enumerate() {
            let exponent = 1.0 + (row[c] - maximum).abs();
            let weight = (1.0 - epsilon) * given[c] + epsilon * total / f64::from(classes);
            dz.push((g * factor, factor * ((g + weight) * exponent + weight + g.abs())));
        }
    }
    // A row's sums: one addition a class, at the most, and 3 + 2|z| units each exp; 5 of a smoothed weight.
    let sum = f64::from(classes).sqrt() * 4.0 + 16.0 + 5.0;
    let name = format!(
        "cross-entropy, {rows}x{classes}, gradient {gradient}, {variant:?}, {target:?}, smoothing {smoothing}, {poison:?}"
    );
    let case = Case::new("dense/loss", name, move |context, b| {
        let kernel = CrossEntropy::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&CrossEntropyArgs {
            logits: b["logits"],
            target: b["target"],
            loss: b["loss"],
            gradient: gradient.then(|| b["gradient"]),
            scratch: &scratch,
        })
    })
    .input("logits", &z)
    .output("loss", Expected::near(&[mean], MEAN + sum, 0.0));
    let case = match target {
        CrossEntropyTarget::Classes => case.read("target", Data::U32(own)),
        CrossEntropyTarget::Weights => case.input("target", &weights),
    };
    if gradient { case.output("gradient", Expected::near(&dz, sum, 1e-37)) } else { case }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "a missed barrier",
        kernel: "dense/loss",
        shader: "dense/loss::rows_gradient",
        find: "let total = block_sum(loss, local);",
        replace: "block_bits[local] = loss;
    for (var s = BLOCK / 2u; s > 0u; s = s >> 1u) {
        if local < s { block_bits[local] = add_bits(block_bits[local], block_bits[local + s]); }
    }
    let total = block_bits[0];",
    },
    Canary {
        bug: "a block's edge off by one",
        kernel: "dense/loss",
        shader: "dense/loss::elements",
        find: "* WORKGROUP + local;
        let at",
        replace: "* (WORKGROUP - 1u) + local;
        let at",
    },
    Canary {
        bug: "the mean's factor forgotten in the gradient",
        kernel: "dense/loss",
        shader: "dense/loss::elements_gradient",
        find: "bitcast<Words>(params.factor * e.slope)",
        replace: "bitcast<Words>(e.slope)",
    },
    Canary {
        bug: "a pair's second element pulled the way of the first",
        kernel: "dense/loss",
        shader: "dense/loss::elements_gradient",
        find: "params.pairs * sign(e)",
        replace: "params.pairs * abs(sign(e))",
    },
    Canary {
        bug: "a pair without a difference pulled apart",
        kernel: "dense/loss",
        shader: "dense/loss::elements_gradient",
        find: "params.pairs * sign(e)",
        replace: "params.pairs * select(Floats(-1.0), Floats(1.0), e >= Floats())",
    },
    Canary {
        bug: "weights taken to have the sum 1",
        kernel: "dense/loss",
        shader: "dense/loss::row_gradient",
        find: "r.total * share - class_weight",
        replace: "share - class_weight",
    },
    Canary {
        bug: "a row's weights read from the row before",
        kernel: "dense/loss",
        shader: "dense/loss::rows_gradient",
        find: "target_bits[row * params.classes + c]",
        replace: "target_bits[(max(row, 1u) - 1u) * params.classes + c]",
    },
    Canary {
        bug: "the target left out of the slope of the binary cross-entropy",
        kernel: "dense/loss",
        shader: "dense/loss::elements_gradient",
        find: "log(1.0 + e), s - t)",
        replace: "log(1.0 + e), s)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(11);
    let mut cases = Vec::new();
    for loss in ALL {
        let of = |count, gradient| LossConfig { scale: 128.0, gradient, ..LossConfig::new(loss, count) };
        for n in [1, 255, 256, 257, 1024, 1025, 4099, 8192, 8196] {
            cases.push(elementwise(of(n, true), None, &mut random));
        }
        for n in [997, 4099] {
            cases.push(elementwise(of(n, false), None, &mut random));
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            cases.push(elementwise(of(1030, true), Some(bad), &mut random));
            cases.push(elementwise(of(1033, false), Some(bad), &mut random));
        }
        let paired = |n, gradient| LossConfig { pairs: 3.5, ..of(n, gradient) };
        for (n, gradient) in [(4, true), (4100, true), (516, false)] {
            cases.push(elementwise(paired(n, gradient), None, &mut random));
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            cases.push(elementwise(paired(1032, true), Some(bad), &mut random));
            cases.push(elementwise(paired(1036, false), Some(bad), &mut random));
        }
    }
    let with = |rows, classes, gradient, variant, target, smoothing| {
        let config = CrossEntropyConfig::new(rows, classes);
        CrossEntropyConfig { scale: 2.0, gradient, variant: Some(variant), target, smoothing, ..config }
    };
    use {CrossEntropyTarget::*, CrossEntropyVariant::*};
    for variant in [Invocation, Workgroup] {
        for (rows, classes) in [(1, 1), (1, 10), (7, 255), (5, 256), (4, 257), (257, 10), (3, 1009)] {
            for target in [Classes, Weights] {
                let config = with(rows, classes, true, variant, target, 0.0);
                cases.push(entropy(config, Poison::Nothing, &mut random));
            }
        }
        for (target, smoothing) in [(Classes, 0.1), (Weights, 0.1), (Classes, 1.0), (Weights, 1.0)] {
            let config = with(11, 263, true, variant, target, smoothing);
            cases.push(entropy(config, Poison::Nothing, &mut random));
        }
        for poison in [Poison::Nothing, Poison::Logit] {
            cases.push(entropy(
                with(9, 300, poison != Poison::Nothing, variant, Classes, 0.0),
                poison,
                &mut random,
            ));
            cases.push(entropy(with(6, 7, false, variant, Classes, 0.0), poison, &mut random));
        }
        cases.push(entropy(with(6, 300, true, variant, Classes, 0.25), Poison::Logit, &mut random));
        for poison in [Poison::Logit, Poison::Weight] {
            cases.push(entropy(with(6, 300, true, variant, Weights, 0.0), poison, &mut random));
            cases.push(entropy(with(6, 7, false, variant, Weights, 0.1), poison, &mut random));
        }
    }
    // 1,031 partial sums: two reductions.
    cases.push(entropy(with(1031, 3, true, Workgroup, Classes, 0.0), Poison::Nothing, &mut random));
    // A vocabulary that an invocation by itself would take more rounds for than Mesa's llvmpipe lets it have.
    let config = CrossEntropyConfig { scale: 2.0, gradient: true, ..CrossEntropyConfig::new(2, 32_771) };
    cases.push(entropy(config, Poison::Nothing, &mut random));
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> [Result<()>; 7] {
    let good = LossConfig { gradient: false, ..LossConfig::new(Loss::Squared, 4) };
    let entropy = CrossEntropyConfig::new(4, 4);
    [
        ElementwiseLoss::new(context, LossConfig { count: 0, ..good }).map(drop),
        ElementwiseLoss::new(context, LossConfig { loss: Loss::Huber { delta: 0.0 }, ..good }).map(drop),
        ElementwiseLoss::new(context, LossConfig { scale: f32::NAN, ..good }).map(drop),
        ElementwiseLoss::new(context, LossConfig { pairs: -1.0, ..good }).map(drop),
        ElementwiseLoss::new(context, LossConfig { count: 6, pairs: 1.0, ..good }).map(drop),
        CrossEntropy::new(context, CrossEntropyConfig { classes: 0, ..entropy }).map(drop),
        CrossEntropy::new(context, CrossEntropyConfig { smoothing: 1.5, ..entropy }).map(drop),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let mut random = Random::new(12);
        let h = 1e-6;
        for _ in 0..300 {
            let (p, t) = (f64::from(random.uniform(-3.0, 3.0)), f64::from(random.uniform(-3.0, 3.0)));
            if (p - t).abs() < 1e-3 || ((p - t).abs() - 0.75).abs() < 1e-3 {
                continue;
            }
            for loss in ALL {
                // The last one's denominator is constant by definition.
                if matches!(loss, Loss::RelativeSquared { .. }) {
                    continue;
                }
                let slope = (reference(loss, p + h, t).0 - reference(loss, p - h, t).0) / (2.0 * h);
                let d = reference(loss, p, t).1;
                assert!((slope - d).abs() < 1e-6 * (1.0 + d.abs()), "{loss:?} at {p}, {t}: {slope} {d}");
            }
        }
        let z: Vec<f64> = (0..9).map(|_| f64::from(random.uniform(-3.0, 3.0))).collect();
        let one: Vec<f64> = (0..9).map(|c| f64::from(c == 4)).collect();
        let many: Vec<f64> = (0..9).map(|_| f64::from(random.uniform(0.0, 1.0))).collect();
        for (weights, smoothing) in [(&one, 0.0), (&one, 0.1), (&many, 0.0), (&many, 0.3)] {
            let (_, gradient) = weighted_cross_entropy(&z, weights, smoothing);
            for c in 0..9 {
                let at = |h: f64| {
                    let mut z = z.clone();
                    z[c] += h;
                    weighted_cross_entropy(&z, weights, smoothing).0
                };
                assert!(((at(h) - at(-h)) / (2.0 * h) - gradient[c]).abs() < 1e-8);
            }
        }
    }
}
