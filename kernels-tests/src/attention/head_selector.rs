//! Reference and cases of `attention::head_selector`.

use patchfield::Kernel;
use patchfield::attention::head_selector::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "attention/head_selector";

/// A value with the scale of its error.
type Term = (f64, f64);

#[derive(Debug, Default)]
pub struct Reference {
    pub p: Vec<Term>,
    pub m: Vec<Term>,
    pub w: Vec<Term>,
    pub ds: Vec<Term>,
    pub dz: Vec<Term>,
    pub dbefore: Vec<Term>,
}

/// Both passes; one row of `s` and `dw` for each of `z`, `before` and `dm`.
pub fn reference(
    config: &HeadSelectorConfig,
    s: &[f64],
    [z, before, dm]: [&[f64]; 3],
    dw: &[f64],
) -> Reference {
    let (heads, t) = (config.heads as usize, f64::from(config.temperature));
    let mut out = Reference::default();
    for row in 0..z.len() {
        let (s, dw) = (&s[row * heads..][..heads], &dw[row * heads..][..heads]);
        let largest = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let nan = s.iter().any(|v| !v.is_finite());
        let e: Vec<f64> = s.iter().map(|v| if nan { f64::NAN } else { ((v - largest) / t).exp() }).collect();
        let sum: f64 = e.iter().sum();
        // exp has a relative error of its argument's absolute one, and so has the sum.
        let exponent = |v: f64| 1.0 + (v - largest).abs() / t;
        let spread: f64 = e.iter().zip(s).map(|(e, s)| e / sum * exponent(*s)).sum();
        let p: Vec<Term> =
            e.iter().zip(s).map(|(e, s)| (e / sum, e / sum * (exponent(*s) + spread))).collect();
        let gate = 1.0 / (1.0 + (-z[row]).exp());
        let gate_size = gate * (1.0 + z[row].abs());
        let m = (before[row] * gate, before[row].abs() * gate_size);
        out.m.push(m);
        out.w.extend(p.iter().map(|p| (p.0 * m.0, p.1 * m.1.abs() + p.0 * m.1)));
        let mean: Term =
            dw.iter().zip(&p).fold((0.0, 0.0), |sum, (d, p)| (sum.0 + d * p.0, sum.1 + d.abs() * p.1));
        let d: Term = (mean.0 + dm[row], mean.1 + dm[row].abs());
        out.dbefore.push((d.0 * gate, d.1 * gate_size));
        let slope = gate * (1.0 - gate);
        let slope_size = slope * (1.0 + 2.0 * z[row].abs());
        out.dz.push((d.0 * before[row] * slope, d.1 * before[row].abs() * slope_size));
        out.ds.extend(p.iter().zip(dw).map(|(p, dw)| {
            let size = p.1 * (dw.abs() + mean.1) * m.1 / t;
            (p.0 * (dw - mean.0) * m.0 / t, size)
        }));
        out.p.extend(p);
    }
    out
}

fn case(config: HeadSelectorConfig, bad: Option<f32>, random: &mut Random) -> Case {
    let (rows, heads) = (config.rows as usize, config.heads as usize);
    let mut s = random.vec(rows * heads, -2.0, 2.0);
    if let Some(bad) = bad {
        s[rows / 2 * heads + heads / 2] = bad;
    }
    let mut z = random.vec(rows, -4.0, 4.0);
    z[0] = -60.0;
    let before = random.vec(rows, 0.1, 1.0);
    let (dw, dm) = (random.vec(rows * heads, -1.0, 1.0), random.vec(rows, -1.0, 1.0));
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let r = reference(&config, &wide(&s), [&wide(&z), &wide(&before), &wide(&dm)], &wide(&dw));
    // Roundings: an argument 2 and its exp 3, the sum one a head, a division 3; then a sigmoid 6 and
    // three products.
    let (share, gate) = (f64::from(config.heads) + 8.0, 9.0);
    let all = share + gate + 3.0;
    Case::new(KERNEL, format!("{config:?}, {bad:?}"), move |context, b| {
        let (z, before) = (b["z"], b["before"]);
        let forward = HeadSelectorForward::new(context, config)?;
        let args = HeadSelectorForwardArgs { s: b["s"], z, before, p: b["p"], m: b["m"], w: b["w"] };
        let mut recording = forward.prepare(&args)?;
        let backward = HeadSelectorBackward::new(context, config)?;
        recording.append(backward.prepare(&HeadSelectorBackwardArgs {
            p: b["p"],
            z,
            before,
            dw: b["dw"],
            dm: b["dm"],
            ds: b["ds"],
            dz: b["dz"],
            dbefore: b["dbefore"],
        })?);
        Ok(recording)
    })
    .input("s", &s)
    .input("z", &z)
    .input("before", &before)
    .input("dw", &dw)
    .input("dm", &dm)
    // Products of what is nearly 0 may vanish.
    .output("p", Expected::near(&r.p, share, 1e-37))
    .output("m", Expected::near(&r.m, gate, 1e-37))
    .output("w", Expected::near(&r.w, all, 1e-37))
    .output("ds", Expected::near(&r.ds, all + f64::from(config.heads), 1e-36))
    .output("dz", Expected::near(&r.dz, all + f64::from(config.heads), 1e-36))
    .output("dbefore", Expected::near(&r.dbefore, all + f64::from(config.heads), 1e-36))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the temperature multiplied",
        kernel: KERNEL,
        shader: "attention/head_selector::forward",
        find: "exp((s[base + h] - largest) * params.inverse_temperature) / sum",
        replace: "exp((s[base + h] - largest) / params.inverse_temperature) / sum",
    },
    Canary {
        bug: "the message's gradient by the weights alone",
        kernel: KERNEL,
        shader: "attention/head_selector::backward",
        find: "let d = mean + dm[row];",
        replace: "let d = mean;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(111);
    let mut cases = Vec::new();
    for (rows, heads, temperature) in
        [(1, 1, 1.0), (63, 3, 0.1), (64, 12, 0.1), (65, 7, 2.5), (1031, 6, 0.5), (3, 64, 0.1)]
    {
        let config = HeadSelectorConfig { rows, heads, temperature };
        cases.push(case(config, None, &mut random));
    }
    let config = HeadSelectorConfig { rows: 9, heads: 5, temperature: 0.1 };
    for bad in [f32::NAN, f32::NEG_INFINITY, 1e30, -1e30] {
        cases.push(case(config, Some(bad), &mut random));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let mut random = Random::new(112);
        let mut draw = |n| -> Vec<f64> { random.vec(n, -1.0, 1.0).into_iter().map(f64::from).collect() };
        let config = HeadSelectorConfig { rows: 3, heads: 4, temperature: 0.5 };
        let inputs = [draw(12), draw(3), draw(3)];
        let (dm, dw) = (draw(3), draw(12));
        let loss = |all: &[Vec<f64>; 3]| -> f64 {
            let r = reference(&config, &all[0], [&all[1], &all[2], &dm], &dw);
            let dot = |a: &[Term], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.0 * b).sum::<f64>();
            dot(&r.w, &dw) + dot(&r.m, &dm)
        };
        let r = reference(&config, &inputs[0], [&inputs[1], &inputs[2], &dm], &dw);
        for (which, gradient) in [&r.ds, &r.dz, &r.dbefore].into_iter().enumerate() {
            for (i, g) in gradient.iter().enumerate() {
                let at = |by: f64| {
                    let mut all = inputs.clone();
                    all[which][i] += by;
                    loss(&all)
                };
                assert!(((at(1e-6) - at(-1e-6)) / 2e-6 - g.0).abs() < 1e-8, "{which} {i}");
            }
        }
        // The shares of a token's heads add up to 1, and so the weights to the message.
        for (w, m) in r.w.chunks(4).zip(&r.m) {
            assert!((w.iter().map(|w| w.0).sum::<f64>() - m.0).abs() < 1e-12);
        }
    }
}
