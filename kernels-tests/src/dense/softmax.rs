//! Reference and cases of `dense::softmax`.

use patchfield::Kernel;
use patchfield::dense::softmax::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "dense/softmax";

type Term = (f64, f64);

/// Softmax of logits, or its logarithm; `None` is masked. Masked throughout: zeros.
pub fn softmax(z: &[Option<f64>], log: bool) -> Vec<f64> {
    let maximum = z.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().flatten().map(|z| (z - maximum).exp()).sum();
    z.iter()
        .map(|z| match (z, log) {
            (Some(z), true) => z - maximum - sum.ln(),
            (Some(z), false) => (z - maximum).exp() / sum,
            (None, true) => f64::from(MASKED),
            (None, false) => 0.0,
        })
        .collect()
}

/// The gradient of the logits, before the scale; `None` is masked.
pub fn backward(z: &[Option<f64>], log: bool, dy: &[f64]) -> Vec<f64> {
    let p = softmax(z, false);
    let open = z.iter().map(|z| f64::from(z.is_some()));
    let dot: f64 = if log {
        open.clone().zip(dy).map(|(open, d)| open * d).sum()
    } else {
        p.iter().zip(dy).map(|(p, d)| p * d).sum()
    };
    let slope = |((p, d), open): ((&f64, &f64), f64)| if log { open * d - p * dot } else { p * (d - dot) };
    p.iter().zip(dy).zip(open).map(slope).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// A bias with one row for three, a fourth of it masked, its first row throughout.
    Masked,
    /// Logits up to 1e30.
    Large,
    /// A NaN in one row, an infinity in another, and a NaN that is masked.
    Poisoned,
}

fn bias_row(config: &SoftmaxConfig, row: usize) -> Option<usize> {
    config.bias.map(|b| row / b.repeat as usize % b.rows as usize)
}

fn case(
    rows: u32,
    n: u32,
    log: bool,
    kind: Kind,
    variant: impl Into<Option<SoftmaxVariant>>,
    random: &mut Random,
) -> Case {
    let variant = variant.into();
    let biased = matches!(kind, Kind::Masked | Kind::Poisoned);
    let bias = biased.then_some(SoftmaxBias { rows: rows.div_ceil(3).max(2), repeat: 3 });
    let scale = if kind == Kind::Large { 1.0 } else { 0.7 };
    let config = SoftmaxConfig { rows, n, scale, log, bias, variant };
    let (width, length) = (n as usize, (rows * n) as usize);
    let mut x = random.vec(length, -6.0, 6.0);
    let mut b = random.vec(bias.map_or(1, |b| b.rows as usize) * width, -2.0, 2.0);
    match kind {
        Kind::Plain => {}
        Kind::Large => {
            for (i, x) in x.iter_mut().enumerate() {
                *x *= [1e4, 1e30, 1.0, 1e10][i / width % 4];
            }
        }
        Kind::Masked | Kind::Poisoned => {
            for (i, b) in b.iter_mut().enumerate() {
                let all = kind == Kind::Masked && i < width;
                if all || random.below(4) == 0 {
                    *b = if random.below(2) == 0 { MASKED } else { -3e38 };
                }
            }
        }
    }
    if kind == Kind::Poisoned {
        let second = width + width / 2;
        b[0] = MASKED;
        (x[0], x[second]) = (f32::NAN, f32::INFINITY);
        b[width / 2] = 0.0;
        let last = length - 1;
        let of_last = bias_row(&config, rows as usize - 1).unwrap_or(0) * width + width - 1;
        (x[last], b[of_last]) = (f32::NAN, 0.5);
    }
    let dy = random.vec(length, -1.0, 1.0);
    let (mut y, mut dx): (Vec<Term>, Vec<Term>) = (Vec::new(), Vec::new());
    for (r, (x, dy)) in x.chunks(width).zip(dy.chunks(width)).enumerate() {
        let open = |k: usize| bias_row(&config, r).is_none_or(|row| b[row * width + k] > MASKED);
        let added = |k: usize| bias_row(&config, r).map_or(0.0, |row| f64::from(b[row * width + k]));
        let z: Vec<Option<f64>> =
            (0..width).map(|k| open(k).then(|| f64::from(scale) * f64::from(x[k]) + added(k))).collect();
        if z.iter().flatten().any(|z| !z.is_finite()) {
            y.extend(x.iter().map(|_| (f64::NAN, 0.0)));
            // The masked elements of such a row have no gradient of their own to speak of.
            dx.extend(x.iter().map(|_| (f64::NAN, 0.0)));
            continue;
        }
        // A logit's error: two roundings of its terms, of which the maximum has as many.
        let size = |k: usize| {
            if open(k) { (f64::from(scale) * f64::from(x[k])).abs() + added(k).abs() } else { 0.0 }
        };
        let top = (0..width).filter(|&k| open(k)).max_by(|&i, &j| z[i].partial_cmp(&z[j]).unwrap());
        let top = top.map_or(0.0, size);
        let dy: Vec<f64> = dy.iter().map(|&d| d.into()).collect();
        let (value, slope) = (softmax(&z, log), backward(&z, log, &dy));
        let p = softmax(&z, false);
        // exp(z - max): its relative error is the absolute one of its argument.
        let error = |k: usize| p[k] * (1.0 + size(k) + top);
        let dots: f64 = if log {
            dy.iter().map(|d| d.abs()).sum()
        } else {
            (0..width).map(|k| error(k) * dy[k].abs()).sum()
        };
        // What the sum of the terms, and with it every element, is off by.
        let mean: f64 = (0..width).map(error).sum();
        for k in 0..width {
            if log {
                y.push((value[k], value[k].abs() + size(k) + top + mean));
                let masked = z[k].is_none();
                let g = dy[k].abs() + p[k] * (1.0 + size(k) + top + mean) * dots;
                dx.push((f64::from(scale) * slope[k], if masked { 0.0 } else { f64::from(scale) * g }));
            } else {
                y.push((value[k], error(k) + p[k] * mean));
                let g = (error(k) + p[k] * mean) * dy[k].abs() + (error(k) + p[k]) * (dots + p[k] * mean);
                let g = g + p[k] * mean * dots;
                dx.push((f64::from(scale) * slope[k], f64::from(scale) * g));
            }
        }
    }
    // exp is off by 3 + 2 |z| units, which `error` scales; a sum of n adds at most one a term of each
    // lane and then those of the tree, in random directions; the division and the factor 4 more.
    let ulps = 12.0 + 3.0 * f64::from(n).sqrt();
    let name = format!("[{rows}, {n}] log {log} {kind:?} {variant:?}");
    let case = Case::new(KERNEL, name, move |context, buffers| {
        let forward = SoftmaxForward::new(context, config)?;
        let backward = SoftmaxBackward::new(context, config)?;
        let mut recording = forward.prepare(&SoftmaxForwardArgs {
            x: buffers["x"],
            bias: bias.map(|_| buffers["bias"]),
            y: buffers["y"],
            scratch: &buffers.scratch(&forward)?,
        })?;
        recording.append(backward.prepare(&SoftmaxBackwardArgs {
            y: buffers["y"],
            dy: buffers["dy"],
            dx: buffers["dx"],
            scratch: &buffers.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("x", &x)
    .input("dy", &dy)
    // Exponentials below 2^-126 may be flushed to zero.
    .output("y", Expected::near(&y, ulps, 1e-36))
    .output("dx", Expected::near(&dx, 2.0 * ulps, 1e-36));
    if bias.is_some() { case.input("bias", &b) } else { case }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the maximum not taken off in one place",
        kernel: KERNEL,
        shader: "dense/softmax::merge",
        find: "sum += bitcast<f32>(part.y) * exp(max(bitcast<f32>(part.x) - maximum, -200.0));",
        replace: "sum += bitcast<f32>(part.y);",
    },
    Canary {
        bug: "a row of the bias for the wrong rows",
        kernel: KERNEL,
        shader: "dense/softmax::row",
        find: "return row / params.bias_repeat % params.bias_rows;",
        replace: "return row % params.bias_rows;",
    },
    Canary {
        bug: "elements beyond the end of a row count in its sum",
        kernel: KERNEL,
        shader: "dense/softmax::row",
        find: "select(Floats(LOWEST), logit(p.row, b, min(k, p.end - 1u)), k < p.end)",
        replace: "logit(p.row, b, min(k, p.end - 1u))",
    },
    Canary {
        bug: "a barrier missed between two uses of one array",
        kernel: KERNEL,
        shader: "dense/softmax::row_backward",
        find: "    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_value[local] +=",
        replace: "    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half { shared_value[local] +=",
    },
];

pub fn cases() -> Vec<Case> {
    use SoftmaxVariant::{Invocation, Workgroup};
    let mut random = Random::new(61);
    let mut cases = Vec::new();
    for log in [false, true] {
        for variant in [Invocation, Workgroup] {
            let shapes = [(1, 1), (65, 3), (3, 64), (5, 63), (2, 257), (70, 16), (4, 1028), (3, 1031)];
            for (rows, n) in shapes {
                cases.push(case(rows, n, log, Kind::Plain, variant, &mut random));
            }
            for (rows, n) in [(13, 29), (7, 260), (6, 2053)] {
                cases.push(case(rows, n, log, Kind::Masked, variant, &mut random));
                cases.push(case(rows, n, log, Kind::Poisoned, variant, &mut random));
            }
        }
    }
    for variant in [Invocation, Workgroup] {
        cases.push(case(8, 52, false, Kind::Large, variant, &mut random));
        cases.push(case(4, 1301, false, Kind::Large, variant, &mut random));
    }
    // Ten parts a row.
    cases.push(case(2, 40_000, false, Kind::Plain, Workgroup, &mut random));
    // Rows that an invocation by itself would take more rounds for than Mesa's llvmpipe lets it have.
    cases.push(case(64, 32_771, false, Kind::Plain, None, &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(62);
        for log in [false, true] {
            let mut z: Vec<Option<f64>> =
                (0..7).map(|_| Some(f64::from(random.uniform(-2.0, 2.0)))).collect();
            z[3] = None;
            let dy: Vec<f64> = (0..7).map(|_| f64::from(random.uniform(-1.0, 1.0))).collect();
            let value = |z: &[Option<f64>]| -> f64 {
                let y = softmax(z, log);
                y.iter().zip(z).zip(&dy).filter(|((_, z), _)| z.is_some()).map(|((y, _), d)| y * d).sum()
            };
            let slope = backward(&z, log, &dy);
            for k in 0..7 {
                let at = |h: f64| {
                    let mut z = z.clone();
                    z[k] = z[k].map(|z| z + h);
                    value(&z)
                };
                assert!(((at(1e-6) - at(-1e-6)) / 2e-6 - slope[k]).abs() < 1e-8, "{log} {k}");
            }
        }
        assert!(softmax(&[None, None], false).iter().all(|&y| y == 0.0));
    }
}
