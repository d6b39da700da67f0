//! Reference and cases of `attention::hopfield`.

use patchfield::Kernel;
use patchfield::attention::hopfield::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "attention/hopfield";

/// A value, and a bound of its error in units: what came in with its terms, and their own rounding.
type Term = (f64, f64);

/// The inputs, in f64; the layouts are those of the mode.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub state: Vec<f64>,
    pub stored: Vec<f64>,
    pub values: Vec<f64>,
    pub beta: Vec<f64>,
    pub mask: Vec<f64>,
    pub dout: Vec<f64>,
}

/// What the kernels give.
#[derive(Debug, Default)]
pub struct Outputs {
    pub out: Vec<Term>,
    pub active: Vec<u32>,
    pub dstate: Vec<Term>,
    pub dstored: Vec<Term>,
    pub dvalues: Vec<Term>,
    pub dbeta: Vec<Term>,
    /// `[steps + 1][instance]`, each `[Nq, D]`: the states.
    pub states: Vec<Vec<Vec<f64>>>,
    /// How far the changes that decided are from epsilon: the smallest ratio, at least 1.
    pub margin: f64,
}

fn exact(v: &[f64]) -> Vec<Term> {
    v.iter().map(|&v| (v, v.abs())).collect()
}

fn add(sum: &mut Term, a: Term, b: Term) {
    *sum = (sum.0 + a.0 * b.0, sum.1 + a.1 * b.0.abs() + a.0.abs() * b.1);
}

/// `a b^T` of row-major matrices with rows of `k`.
fn times_transpose(a: &[Term], b: &[Term], k: usize) -> Vec<Term> {
    let dot = |a: &[Term], b: &[Term]| {
        a.iter().zip(b).fold((0.0, 0.0), |mut sum, (&a, &b)| {
            add(&mut sum, a, b);
            sum
        })
    };
    a.chunks(k).flat_map(|a| b.chunks(k).map(move |b| dot(a, b))).collect()
}

fn transpose(a: &[Term], columns: usize) -> Vec<Term> {
    (0..columns).flat_map(|c| a.iter().skip(c).step_by(columns).copied()).collect()
}

/// `a b`, with `n` columns of b.
fn times(a: &[Term], b: &[Term], n: usize) -> Vec<Term> {
    times_transpose(a, &transpose(b, n), b.len() / n)
}

/// Softmax of rows with a bias; errors by the derivative, and of the exponentials.
fn softmax(scores: &[Term], bias: Option<&[f64]>, n: usize) -> Vec<Term> {
    let mut out = Vec::new();
    for row in scores.chunks(n) {
        let row: Vec<Option<Term>> = (0..n)
            .map(|k| {
                let bias = bias.map_or(0.0, |bias| bias[k]);
                (bias > -1e30).then_some((row[k].0 + bias, row[k].1 + bias.abs()))
            })
            .collect();
        let z: Vec<Option<f64>> = row.iter().map(|z| z.map(|z| z.0)).collect();
        let maximum = z.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let p = crate::dense::softmax::softmax(&z, false);
        let off: Vec<f64> = row.iter().map(|z| z.map_or(0.0, |z| z.1 + (z.0 - maximum).abs())).collect();
        let mean: f64 = p.iter().zip(&off).map(|(p, off)| p * off).sum();
        out.extend((0..n).map(|k| (p[k], p[k] * ((1.0 - 2.0 * p[k]) * off[k] + mean + 1.0))));
    }
    out
}

/// `P (dP - <P, dP>)` of rows.
fn softmax_backward(p: &[Term], dp: &[Term], n: usize) -> Vec<Term> {
    let mut out = Vec::new();
    for (p, dp) in p.chunks(n).zip(dp.chunks(n)) {
        let mut dot = (0.0, 0.0);
        p.iter().zip(dp).for_each(|(&p, &d)| add(&mut dot, p, d));
        for (p, d) in p.iter().zip(dp) {
            let inner = (d.0 - dot.0, d.1 + dot.1);
            out.push((p.0 * inner.0, p.1 * inner.0.abs() + p.0 * inner.1));
        }
    }
    out
}

fn accumulate(sum: &mut [Term], v: &[Term]) {
    sum.iter_mut().zip(v).for_each(|(s, v)| *s = (s.0 + v.0, s.1 + v.1));
}

fn scaled(v: &[Term], factor: f64) -> Vec<Term> {
    v.iter().map(|v| (factor * v.0, (factor * v.1).abs())).collect()
}

/// Plain loops over images and heads; every instance has its own copy of what is shared.
pub fn reference(config: &HopfieldConfig, inputs: &Inputs) -> Outputs {
    let HopfieldConfig { mode, batch, heads, states, patterns, width, values, .. } = *config;
    let [batch, heads, nq, nk, d] = [batch, heads, states, patterns, width].map(|v| v as usize);
    let e = values.map_or(d, |e| e as usize);
    let steps = config.steps() as usize;
    let lookup = mode == HopfieldMode::Lookup;
    // (image, head) of an instance, and where its state and its store lie.
    let places: Vec<(usize, usize)> = (0..batch * heads)
        .map(|i| if lookup { (i % batch, i / batch) } else { (i / heads, i % heads) })
        .collect();
    let state_of = |i: usize| if mode == HopfieldMode::Pooling { places[i].1 } else { i };
    let store_of = |i: usize| if lookup { places[i].1 } else { i };
    let part = |v: &[f64], i: usize, n: usize| exact(&v[i * n..(i + 1) * n]);
    let beta = |i: usize| inputs.beta[places[i].1];
    let bias = |i: usize| config.mask.then(|| &inputs.mask[places[i].0 * nk..][..nk]);
    let store: Vec<Vec<Term>> =
        (0..batch * heads).map(|i| part(&inputs.stored, store_of(i), nk * d)).collect();
    let value: Vec<Vec<Term>> = (0..batch * heads)
        .map(|i| if values.is_some() { part(&inputs.values, store_of(i), nk * e) } else { store[i].clone() })
        .collect();
    let associate = |i: usize, q: &[Term]| softmax(&times_transpose(q, &store[i], d), bias(i), nk);
    let mut q: Vec<Vec<Vec<Term>>> = Vec::new();
    let mut p: Vec<Vec<Vec<Term>>> = Vec::new();
    q.push((0..places.len()).map(|i| scaled(&part(&inputs.state, state_of(i), nq * d), beta(i))).collect());
    p.push((0..places.len()).map(|i| associate(i, &q[0][i])).collect());
    let mut out = Outputs { active: vec![1; heads], margin: f64::INFINITY, ..Outputs::default() };
    for step in 1..=steps {
        let on = out.active[(step - 1) * heads..][..heads].to_vec();
        let (mut next_q, mut next_p) = (Vec::new(), Vec::new());
        let mut largest = vec![0.0f64; heads];
        for (i, &(_, h)) in places.iter().enumerate() {
            let before = (&q[step - 1][i], &p[step - 1][i]);
            let now =
                if on[h] == 1 { scaled(&times(before.1, &store[i], d), beta(i)) } else { before.0.clone() };
            let p_now = associate(i, &now);
            let norm = |a: &[Term], b: &[Term]| -> f64 {
                a.iter().zip(b).map(|(a, b)| (a.0 - b.0).powi(2)).sum::<f64>().sqrt()
            };
            let change = match config.stop {
                HopfieldStop::Association => norm(&p_now, before.1),
                HopfieldStop::State => norm(&now, before.0) / beta(i),
            };
            largest[h] = largest[h].max(change);
            next_q.push(now);
            next_p.push(p_now);
        }
        let epsilon = f64::from(config.epsilon);
        for h in 0..heads {
            let goes_on = on[h] == 1 && largest[h] > epsilon;
            if on[h] == 1 && epsilon > 0.0 {
                let ratio = largest[h] / epsilon;
                out.margin = out.margin.min(ratio.max(1.0 / ratio));
            }
            out.active.push(goes_on.into());
        }
        q.push(next_q);
        p.push(next_p);
    }
    out.dstate = vec![(0.0, 0.0); inputs.state.len()];
    out.dstored = vec![(0.0, 0.0); inputs.stored.len()];
    out.dvalues = vec![(0.0, 0.0); inputs.values.len()];
    out.dbeta = vec![(0.0, 0.0); heads];
    out.states = q
        .iter()
        .map(|q| q.iter().enumerate().map(|(i, q)| q.iter().map(|q| q.0 / beta(i)).collect()).collect())
        .collect();
    for (i, &(_, h)) in places.iter().enumerate() {
        out.out.extend(times(&p[steps][i], &value[i], e));
        let dout = part(&inputs.dout, i, nq * e);
        let mut dp = times_transpose(&dout, &value[i], e);
        let mut dstore = vec![(0.0, 0.0); nk * d];
        let to_value = times(&transpose(&p[steps][i], nk), &dout, e);
        if values.is_some() {
            accumulate(&mut out.dvalues[store_of(i) * nk * e..][..nk * e], &to_value);
        } else {
            accumulate(&mut dstore, &to_value);
        }
        let mut past = vec![(0.0, 0.0); nq * d];
        for step in (0..=steps).rev() {
            let ds = softmax_backward(&p[step][i], &dp, nk);
            let mut dq = times(&ds, &store[i], d);
            accumulate(&mut dq, &past);
            accumulate(&mut dstore, &times(&transpose(&ds, nk), &q[step][i], d));
            let on = step == 0 || out.active[(step - 1) * heads + h] == 1;
            if on {
                for (q, dq) in q[step][i].iter().zip(&dq) {
                    let mut dot = (0.0, 0.0);
                    add(&mut dot, *q, *dq);
                    accumulate(&mut out.dbeta[h..=h], &scaled(&[dot], 1.0 / beta(i)));
                }
            }
            let dr = scaled(&dq, if on { beta(i) } else { 0.0 });
            past = scaled(&dq, if on { 0.0 } else { 1.0 });
            if step == 0 {
                accumulate(&mut out.dstate[state_of(i) * nq * d..][..nq * d], &dr);
            } else {
                dp = times_transpose(&dr, &store[i], d);
                accumulate(&mut dstore, &times(&transpose(&p[step - 1][i], nk), &dr, d));
            }
        }
        accumulate(&mut out.dstored[store_of(i) * nk * d..][..nk * d], &dstore);
    }
    out
}

fn inputs(config: &HopfieldConfig, spread: f32, random: &mut Random) -> [Vec<f32>; 6] {
    let HopfieldConfig { mode, batch, heads, states, patterns, width, values, .. } = *config;
    let [b, h, nq, nk, d] = [batch, heads, states, patterns, width].map(|v| v as usize);
    let e = values.map_or(d, |e| e as usize);
    let images_of_state = if mode == HopfieldMode::Pooling { 1 } else { b };
    let images_of_store = if mode == HopfieldMode::Lookup { 1 } else { b };
    let mut mask = random.vec(if config.mask { b * nk } else { 0 }, -1.0, 1.0);
    for (i, mask) in mask.iter_mut().enumerate() {
        if i % 4 == 2 || i / nk == 1 {
            *mask = -1e30;
        }
    }
    [
        random.vec(images_of_state * h * nq * d, -1.0, 1.0),
        random.vec(images_of_store * h * nk * d, -1.0, 1.0),
        random.vec(if values.is_some() { images_of_store * h * nk * e } else { 0 }, -1.0, 1.0),
        // Each head has one of its own: the first heads stop early, the last ones late.
        (0..h).map(|h| spread * (0.3 + h as f32)).collect(),
        mask,
        random.vec(b * h * nq * e, -1.0, 1.0),
    ]
}

fn wide(inputs: &[Vec<f32>; 6]) -> Inputs {
    let [state, stored, values, beta, mask, dout] =
        inputs.each_ref().map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    Inputs { state, stored, values, beta, mask, dout }
}

fn case(config: HopfieldConfig, spread: f32, random: &mut Random) -> Case {
    let data = inputs(&config, spread, random);
    let out = reference(&config, &wide(&data));
    // A decision that rounding could turn would make the comparison meaningless.
    assert!(out.margin > 1.02, "{config:?}: a change within 2 % of epsilon");
    let given = config.values.is_some();
    let name = format!("{config:?} spread {spread}");
    // Each step's rounding is in the terms: beside it the root of a sum's length, and those of exp.
    let terms = config.patterns + config.width + config.states * config.batch;
    let ulps = 12.0 + 4.0 * f64::from(terms).sqrt();
    let near = |terms: &[Term]| Expected::near(terms, ulps, 1e-30);
    let mut case = Case::new(KERNEL, name, move |context, b| {
        let forward = HopfieldForward::new(context, config)?;
        let kept = b.scratch(&forward)?;
        let mut recording = forward.prepare(&HopfieldForwardArgs {
            state: b["state"],
            stored: b["stored"],
            values: given.then(|| b["values"]),
            beta: b["beta"],
            mask: config.mask.then(|| b["mask"]),
            out: b["out"],
            active: b["active"],
            scratch: &kept,
        })?;
        if !config.keep {
            return Ok(recording);
        }
        let backward = HopfieldBackward::new(context, config)?;
        recording.append(backward.prepare(&HopfieldBackwardArgs {
            stored: b["stored"],
            values: given.then(|| b["values"]),
            beta: b["beta"],
            active: b["active"],
            forward: &kept,
            dout: b["dout"],
            dstate: b["dstate"],
            dstored: Some(b["dstored"]),
            dvalues: given.then(|| b["dvalues"]),
            dbeta: Some(b["dbeta"]),
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    });
    let [state, stored, values, beta, mask, dout] = &data;
    case = case
        .input("state", state)
        .input("stored", stored)
        .input("beta", beta)
        .output("out", near(&out.out))
        .output("active", Expected::Exact(out.active.clone()));
    if config.mask {
        case = case.input("mask", mask);
    }
    if given {
        case = case.input("values", values);
    }
    if config.keep {
        case = case
            .input("dout", dout)
            .output("dstate", near(&out.dstate))
            .output("dstored", near(&out.dstored))
            .output("dbeta", near(&out.dbeta));
        if given {
            case = case.output("dvalues", near(&out.dvalues));
        }
    }
    case
}

/// A NaN in one state: the states of its image and head are NaN, and nothing else notices.
fn poisoned(random: &mut Random) -> Case {
    let config = HopfieldConfig {
        batch: 2,
        heads: 2,
        states: 1,
        patterns: 5,
        width: 4,
        update_steps_max: Some(2),
        ..HopfieldConfig::default()
    };
    let mut data = inputs(&config, 1.0, random);
    let out = reference(&config, &wide(&data));
    data[0][4] = f32::NAN;
    let mut terms = out.out.clone();
    terms[4..8].iter_mut().for_each(|t| *t = (f64::NAN, 0.0));
    let [state, stored, _, beta, ..] = &data;
    Case::new(KERNEL, "a NaN in one state", move |context, b| {
        let forward = HopfieldForward::new(context, config)?;
        forward.prepare(&HopfieldForwardArgs {
            state: b["state"],
            stored: b["stored"],
            values: None,
            beta: b["beta"],
            mask: None,
            out: b["out"],
            active: b["active"],
            scratch: &b.scratch(&forward)?,
        })
    })
    .input("state", state)
    .input("stored", stored)
    .input("beta", beta)
    .output("out", Expected::near(&terms, 24.0, 0.0))
    // The other image of that head decides for both.
    .output("active", Expected::Exact(out.active))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the first head's beta for all heads",
        kernel: KERNEL,
        shader: "attention/hopfield::update",
        find: "q_out[i] = beta[head] * r[i];",
        replace: "q_out[i] = beta[0] * r[i];",
    },
    Canary {
        bug: "beta in the first step alone, as in published code for a tensor",
        kernel: KERNEL,
        shader: "attention/hopfield::update",
        find: "q_out[i] = beta[head] * r[i];",
        replace: "q_out[i] = r[i];",
    },
    Canary {
        bug: "the last image decides for all",
        kernel: KERNEL,
        shader: "attention/hopfield::decide",
        find: "goes_on = goes_on || (",
        replace: "goes_on = (",
    },
    Canary {
        bug: "the gradient of a stopped head lost",
        kernel: KERNEL,
        shader: "attention/hopfield::route",
        find: "dq_before[i] = select(d, Floats(), on);",
        replace: "dq_before[i] = Floats();",
    },
];

pub fn cases() -> Vec<Case> {
    use HopfieldMode::{Association, Lookup, Pooling};
    let mut random = Random::new(81);
    let base = HopfieldConfig { keep: true, ..HopfieldConfig::default() };
    let mut cases = Vec::new();
    // Mode, [B, H, Nq, Nk, D], values, steps, by state, epsilon, mask.
    let rows = [
        (Association, [1, 1, 1, 1, 1], None, Some(0), false, 1e-4, false),
        (Association, [2, 3, 5, 7, 4], Some(6), Some(0), false, 1e-4, true),
        (Association, [2, 3, 5, 7, 4], None, Some(3), false, 0.02, false),
        (Association, [3, 2, 4, 9, 5], Some(3), Some(2), true, 0.05, true),
        (Pooling, [3, 2, 2, 11, 8], Some(8), Some(2), false, 0.05, false),
        (Pooling, [1, 4, 3, 6, 3], None, Some(3), true, 0.02, false),
        (Lookup, [4, 2, 3, 13, 4], Some(5), Some(2), false, 0.05, false),
        (Lookup, [3, 3, 1, 66, 7], None, Some(3), true, 0.02, false),
    ];
    for (mode, [batch, heads, states, patterns, width], values, steps, by_state, epsilon, mask) in rows {
        let stop = if by_state { HopfieldStop::State } else { HopfieldStop::Association };
        let config = HopfieldConfig {
            mode,
            batch,
            heads,
            states,
            patterns,
            width,
            values,
            update_steps_max: steps,
            stop,
            epsilon,
            mask,
            ..base
        };
        cases.push(case(config, 0.7, &mut random));
        if mode == Association && steps == Some(3) {
            // Nothing kept, and until convergence.
            cases.push(case(HopfieldConfig { keep: false, ..config }, 0.7, &mut random));
            let endless = HopfieldConfig { update_steps_max: None, recorded_steps: 12, ..config };
            cases.push(case(endless, 0.5, &mut random));
        }
    }
    cases.push(poisoned(&mut random));
    // States of an image that are long enough for a large workgroup.
    let long = HopfieldConfig {
        states: 1031,
        patterns: 1,
        width: 65,
        update_steps_max: Some(1),
        stop: HopfieldStop::State,
        ..base
    };
    cases.push(case(long, 0.7, &mut random));
    // An epsilon of -0.0 is one of 0: heads go on.
    let negative_zero = HopfieldConfig {
        heads: 2,
        states: 3,
        patterns: 5,
        width: 4,
        update_steps_max: Some(2),
        epsilon: -0.0,
        ..base
    };
    cases.push(case(negative_zero, 0.7, &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(82);
        for mode in [HopfieldMode::Association, HopfieldMode::Pooling, HopfieldMode::Lookup] {
            for (values, steps, mask) in [(None, 0, true), (Some(2), 2, false), (None, 3, false)] {
                let config = HopfieldConfig {
                    mode,
                    batch: 2,
                    heads: 2,
                    states: 2,
                    patterns: 4,
                    width: 3,
                    values,
                    update_steps_max: Some(steps),
                    // Between the changes of the first and the second head.
                    epsilon: 0.07,
                    mask,
                    ..HopfieldConfig::default()
                };
                let inputs = wide(&inputs(&config, 0.9, &mut random));
                let out = reference(&config, &inputs);
                assert!(out.margin > 1.001);
                let loss = |inputs: &Inputs| -> f64 {
                    reference(&config, inputs).out.iter().zip(&inputs.dout).map(|(y, d)| y.0 * d).sum()
                };
                type Field = fn(&mut Inputs) -> &mut Vec<f64>;
                let fields: [(Field, &[Term]); 4] = [
                    (|i| &mut i.state, &out.dstate),
                    (|i| &mut i.stored, &out.dstored),
                    (|i| &mut i.values, &out.dvalues),
                    (|i| &mut i.beta, &out.dbeta),
                ];
                for (field, gradient) in fields {
                    let mut moved = inputs.clone();
                    let count = field(&mut moved).len();
                    for (i, want) in gradient.iter().enumerate().take(count) {
                        let mut at = |h: f64| {
                            let value = field(&mut moved)[i];
                            field(&mut moved)[i] = value + h;
                            let loss = loss(&moved);
                            field(&mut moved)[i] = value;
                            loss
                        };
                        let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                        assert!((slope - want.0).abs() < 1e-8, "{mode:?} {slope} {want:?}");
                    }
                }
            }
        }
    }

    /// One head, one state and `n` random unit patterns; the state is the first one, disturbed.
    fn retrieval(beta: f64, n: usize, steps: u32) -> (Inputs, Outputs) {
        let mut random = Random::new(83);
        let config = HopfieldConfig {
            states: 1,
            patterns: n as u32,
            width: 32,
            update_steps_max: Some(steps),
            epsilon: 0.0,
            ..HopfieldConfig::default()
        };
        let mut stored: Vec<f64> = random.vec(n * 32, -1.0, 1.0).iter().map(|&v| v.into()).collect();
        for y in stored.chunks_mut(32) {
            let size = y.iter().map(|y| y * y).sum::<f64>().sqrt();
            y.iter_mut().for_each(|y| *y /= size);
        }
        let state: Vec<f64> =
            stored[..32].iter().map(|y| y + f64::from(random.uniform(-0.05, 0.05))).collect();
        let inputs =
            Inputs { state, stored, values: vec![], beta: vec![beta], mask: vec![], dout: vec![0.0; 32] };
        let out = reference(&config, &inputs);
        (inputs, out)
    }

    fn energy(xi: &[f64], stored: &[f64], beta: f64) -> f64 {
        let scores: Vec<f64> = stored
            .chunks(xi.len())
            .map(|y| beta * y.iter().zip(xi).map(|(y, x)| y * x).sum::<f64>())
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln();
        0.5 * xi.iter().map(|x| x * x).sum::<f64>() - lse / beta
    }

    #[test]
    fn the_energy_never_increases() {
        for beta in [0.1, 1.0, 4.0, 8.0, 16.0, 50.0] {
            let (inputs, out) = retrieval(beta, 24, 20);
            let energies: Vec<f64> = out.states.iter().map(|s| energy(&s[0], &inputs.stored, beta)).collect();
            assert!(energies.windows(2).all(|e| e[1] <= e[0] + 1e-12), "{beta}: {energies:?}");
        }
    }

    fn distance(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn small_beta_gives_the_mean_large_beta_one_pattern_in_one_step() {
        let (inputs, out) = retrieval(0.1, 24, 30);
        let mean: Vec<f64> =
            (0..32).map(|j| inputs.stored.iter().skip(j).step_by(32).sum::<f64>() / 24.0).collect();
        let last = &out.states[30][0];
        assert!(distance(last, &mean) < 0.02, "{}", distance(last, &mean));
        let (inputs, out) = retrieval(100.0, 24, 1);
        assert!(distance(&out.states[1][0], &inputs.stored[..32]) < 1e-6);
        // In between: two patterns that lie close together share a fixed point, far from both the mean
        // and the rest.
        let mut random = Random::new(84);
        let (mut inputs, _) = retrieval(12.0, 24, 0);
        for j in 0..32 {
            inputs.stored[32 + j] = inputs.stored[j] + f64::from(random.uniform(-0.05, 0.05));
        }
        let config = HopfieldConfig {
            states: 1,
            patterns: 24,
            width: 32,
            update_steps_max: Some(40),
            ..HopfieldConfig::default()
        };
        let out = reference(
            &HopfieldConfig { epsilon: 0.0, ..config },
            &Inputs { beta: vec![12.0], ..inputs.clone() },
        );
        let last = &out.states[40][0];
        let both: Vec<f64> = (0..32).map(|j| 0.5 * (inputs.stored[j] + inputs.stored[32 + j])).collect();
        assert!(distance(last, &both) < 0.05, "{}", distance(last, &both));
        assert!(distance(last, &out.states[39][0]) < 1e-9);
        assert!(distance(last, &inputs.stored[..32]) > 0.05);
    }
}
