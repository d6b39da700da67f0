//! Reference and cases of `attention::reversed_attention`, and of the passes that it is made of.

use patchfield::attention::*;
use patchfield::{Context, Kernel, Recording, Result};

use super::flash_attention::{Inputs, Place, Term, bias_index, sees};
use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random, Views};

/// Gradients, and before them the output.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub o: Vec<Term>,
    pub lse: Vec<Term>,
    pub dq: Vec<Term>,
    pub dk: Vec<Term>,
    pub dv: Vec<Term>,
    pub d_weights: Vec<Term>,
    pub bias: Vec<Term>,
    pub temperature: Vec<Term>,
}

/// The places of q, k, v (of the queries) and o (of the keys).
fn places(c: &AttentionConfig) -> [Place; 4] {
    let dv = c.value_dim();
    [
        Place::new(c.q_layout, [c.batch, c.queries, c.heads, c.head_dim]),
        Place::new(c.k_layout, [c.batch, c.keys, c.heads, c.head_dim]),
        Place::new(c.v_layout, [c.batch, c.queries, c.heads, dv]),
        Place::new(c.o_layout, [c.batch, c.keys, c.heads, dv]),
    ]
}

fn add(sum: &mut Term, value: f64, size: f64) {
    *sum = (sum.0 + value, sum.1 + size.abs());
}

fn dot(a: &[f32], b: &[f32]) -> Term {
    a.iter().zip(b).fold((0.0, 0.0), |s, (&a, &b)| {
        let t = f64::from(a) * f64::from(b);
        (s.0 + t, s.1 + t.abs())
    })
}

/// `O_j = sum_i P_ij w_i v_i` and its gradients in f64; errors as in `flash_attention::reference`.
pub fn reference(c: &AttentionConfig, inputs: &Inputs, weights: &[f32]) -> Outputs {
    let [batch, heads, queries, keys] = [c.batch, c.heads, c.queries, c.keys].map(|n| n as usize);
    let [d, dv] = [c.head_dim, c.value_dim()].map(|n| n as usize);
    let [q_at, k_at, v_at, o_at] = places(c);
    let zeros = |n: usize| vec![(0.0, 0.0); n];
    let rows = batch * heads * queries;
    let mut out = Outputs {
        o: zeros(o_at.len),
        lse: zeros(rows),
        dq: zeros(q_at.len),
        dk: zeros(k_at.len),
        dv: zeros(v_at.len),
        d_weights: zeros(rows),
        bias: zeros(inputs.bias.len()),
        temperature: zeros(usize::from(c.temperature)),
    };
    let t = if c.temperature { f64::from(inputs.temperature) } else { 1.0 };
    let scale = f64::from(c.scale()) / t;
    for b in 0..batch {
        for h in 0..heads {
            for i in 0..queries {
                let row = (b * heads + h) * queries + i;
                let w = f64::from(weights[row]);
                let q = &inputs.q[q_at.at(b, h, i)..][..d];
                let v = &inputs.v[v_at.at(b, h, i)..][..dv];
                let mut seen = Vec::new();
                for j in (0..keys).filter(|&j| sees(c, inputs, b, h, i, j)) {
                    let product = dot(q, &inputs.k[k_at.at(b, h, j)..][..d]);
                    let bias = bias_index(c, b, h, i, j).map_or(0.0, |at| f64::from(inputs.bias[at]));
                    seen.push((j, scale * product.0 + bias, scale * product.1 + bias.abs(), product));
                }
                let m = seen.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
                let l: f64 = seen.iter().map(|s| (s.1 - m).exp()).sum();
                let lse = m + l.ln();
                let e: f64 = seen.iter().map(|s| (s.1 - lse).exp() * s.2).sum();
                out.lse[row] = if seen.is_empty() { (-1e30, 1e30) } else { (lse, 1.0 + e + lse.abs()) };
                let p: Vec<Term> = seen
                    .iter()
                    .map(|s| {
                        let p = (s.1 - lse).exp();
                        (p, p * (1.0 + s.2 + e + (s.1 - lse).abs() + lse.abs()))
                    })
                    .collect();
                let mut delta = (0.0, 0.0);
                for (p, s) in p.iter().zip(&seen) {
                    let at = o_at.at(b, h, s.0);
                    let x = &inputs.d_o[at..][..dv];
                    for (c, (&v, &x)) in v.iter().zip(x).enumerate() {
                        add(&mut out.o[at + c], p.0 * w * f64::from(v), p.1 * w * f64::from(v));
                        let dv = &mut out.dv[v_at.at(b, h, i) + c];
                        add(dv, w * p.0 * f64::from(x), w * p.1 * f64::from(x));
                    }
                    let dp = dot(v, x);
                    add(&mut out.d_weights[row], p.0 * dp.0, p.1 * dp.1);
                    add(&mut delta, w * p.0 * dp.0, w * p.1 * dp.1);
                }
                for (p, s) in p.iter().zip(&seen) {
                    let j = s.0;
                    let dp = dot(v, &inputs.d_o[o_at.at(b, h, j)..][..dv]);
                    let ds = (p.0 * (w * dp.0 - delta.0), p.1 * (w.abs() * dp.1 + delta.1));
                    let k = &inputs.k[k_at.at(b, h, j)..][..d];
                    for c in 0..d {
                        let (q, k) = (scale * f64::from(q[c]), scale * f64::from(k[c]));
                        add(&mut out.dq[q_at.at(b, h, i) + c], ds.0 * k, ds.1 * k);
                        add(&mut out.dk[k_at.at(b, h, j) + c], ds.0 * q, ds.1 * q);
                    }
                    if let Some(at) = bias_index(c, b, h, i, j) {
                        add(&mut out.bias[at], ds.0, ds.1);
                    }
                    if c.temperature {
                        let factor = -scale / t;
                        add(&mut out.temperature[0], factor * ds.0 * s.3.0, factor * ds.1 * s.3.1);
                    }
                }
            }
        }
    }
    out
}

fn inputs(c: &AttentionConfig, random: &mut Random) -> (Inputs, Vec<f32>) {
    let [q, k, v, o] = places(c).map(|place| place.len);
    let masked = if c.key_mask { (c.batch * c.keys) as usize } else { 0 };
    let inputs = Inputs {
        q: random.vec(q, -2.0, 2.0),
        k: random.vec(k, -2.0, 2.0),
        v: random.vec(v, -1.0, 1.0),
        key_mask: (0..masked).map(|_| u32::from(random.below(4) > 0)).collect(),
        bias: random.vec(c.bias_count() as usize, -2.0, 2.0),
        temperature: 0.7,
        d_o: random.vec(o, -1.0, 1.0),
        ..Inputs::default()
    };
    let mut weights = random.vec(c.lse_count() as usize, -1.0, 1.0);
    // A token that sends nothing has a gradient too.
    weights[0] = 0.0;
    (inputs, weights)
}

fn views<'a>(c: &AttentionConfig, b: &Views<'a>) -> AttentionInputs<'a> {
    AttentionInputs {
        key_mask: c.key_mask.then(|| b["key_mask"]),
        bias: (c.bias != AttentionBias::None).then(|| b["bias"]),
        temperature: c.temperature.then(|| b["temperature"]),
        ..AttentionInputs::new(b["q"], b["k"], b["v"])
    }
}

fn forward(context: &Context, c: AttentionConfig, b: &Views<'_>) -> Result<Recording> {
    let kernel = ReversedAttentionForward::new(context, c)?;
    kernel.prepare(&ReversedAttentionForwardArgs {
        inputs: views(&c, b),
        weights: b["weights"],
        o: b["o"],
        lse: b["lse"],
        scratch: &b.scratch(&kernel)?,
    })
}

fn both(context: &Context, c: AttentionConfig, b: &Views<'_>) -> Result<Recording> {
    let mut recording = forward(context, c, b)?;
    let kernel = ReversedAttentionBackward::new(context, c)?;
    let mut gradients = AttentionGradients::new(b["dq"], b["dk"], b["dv"]);
    gradients.bias = c.bias_gradient.then(|| b["d_bias"]);
    gradients.temperature = c.temperature.then(|| b["d_temperature"]);
    recording.append(kernel.prepare(&ReversedAttentionBackwardArgs {
        inputs: views(&c, b),
        weights: b["weights"],
        lse: b["lse"],
        d_o: b["d_o"],
        gradients,
        d_weights: b["d_weights"],
        scratch: &b.scratch(&kernel)?,
    })?);
    Ok(recording)
}

/// The same output from the passes one by one: the log-sum-exp, then the transposed weights; and the
/// gradient of unweighted values by the known weights.
fn blocks(context: &Context, c: AttentionConfig, b: &Views<'_>) -> Result<Recording> {
    // The values of the queries are laid out as `o_layout` says, the result as `v_layout`.
    let inner = AttentionConfig { v_layout: c.o_layout, o_layout: c.v_layout, ..c };
    let inputs = views(&c, b);
    let lse = AttentionLse::new(context, inner)?;
    let scratch = b.scratch(&lse)?;
    let mut recording = lse.prepare(&AttentionLseArgs { inputs, lse: b["lse"], scratch: &scratch })?;
    let config = AttentionTransposedConfig { attention: inner, weights: true };
    let transposed = AttentionTransposed::new(context, config)?;
    recording.append(transposed.prepare(&AttentionTransposedArgs {
        inputs,
        lse: b["lse"],
        weights: Some(b["weights"]),
        y: b["o"],
        scratch: &b.scratch(&transposed)?,
    })?);
    let known = AttentionWithLse::new(context, inner)?;
    recording.append(known.prepare(&AttentionWithLseArgs {
        inputs: AttentionInputs { v: b["d_o"], ..inputs },
        lse: b["lse"],
        o: b["u"],
        scratch: &b.scratch(&known)?,
    })?);
    Ok(recording)
}

fn cases_of(name: &str, c: AttentionConfig, variants: &[AttentionVariant], random: &mut Random) -> Vec<Case> {
    let (inputs, weights) = inputs(&c, random);
    let expected = reference(&c, &inputs, &weights);
    let ones = vec![1.0; weights.len()];
    let unweighted = reference(&c, &inputs, &ones);
    // As in attention: chains of products, of tokens, and twice both on the way back.
    let ulps = |n: u32| f64::from(c.head_dim.max(c.value_dim())) / 4.0 + 12.0 + f64::from(n).min(64.0);
    let most = ulps(c.keys.max(c.queries));
    let mut cases = Vec::new();
    for &variant in variants {
        let c = AttentionConfig { variant: Some(variant), ..c };
        let start = |title: &str, run: fn(&Context, AttentionConfig, &Views<'_>) -> Result<Recording>| {
            let title = format!("{title} {name}: {c:?}");
            let mut case =
                Case::new("attention/reversed_attention", title, move |context, b| run(context, c, b))
                    .input("q", &inputs.q)
                    .input("k", &inputs.k)
                    .input("v", &inputs.v)
                    .input("weights", &weights);
            if c.key_mask {
                case = case.read("key_mask", Data::U32(inputs.key_mask.clone()));
            }
            if c.bias != AttentionBias::None {
                case = case.input("bias", &inputs.bias);
            }
            if c.temperature {
                case = case.input("temperature", &[inputs.temperature]);
            }
            case.output("o", Expected::near(&expected.o, most, 0.0))
                .output("lse", Expected::near(&expected.lse, most, 0.0))
        };
        cases.push(
            start("blocks", blocks)
                .input("d_o", &inputs.d_o)
                .output("u", Expected::near(&unweighted.dv, 2.0 * most, 0.0)),
        );
        let mut case = start("backward", both)
            .input("d_o", &inputs.d_o)
            .output("dq", Expected::near(&expected.dq, 2.0 * most, 0.0))
            .output("dk", Expected::near(&expected.dk, 2.0 * most, 0.0))
            .output("dv", Expected::near(&expected.dv, 2.0 * most, 0.0))
            .output("d_weights", Expected::near(&expected.d_weights, 2.0 * most, 0.0));
        if c.bias_gradient {
            case = case.output("d_bias", Expected::near(&expected.bias, 2.0 * most, 0.0));
        }
        if c.temperature {
            case = case.output("d_temperature", Expected::near(&expected.temperature, 2.0 * most, 0.0));
        }
        cases.push(case);
    }
    cases
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the weights of the query rows left out",
        kernel: "attention/reversed_attention",
        shader: "attention/flash_attention::backward_keys",
        find: "vec4<f32>(factor * e)",
        replace: "vec4<f32>(e)",
    },
    Canary {
        bug: "the gradient of the weights from the other sum",
        kernel: "attention/reversed_attention",
        shader: "attention/flash_terms::weight_gradients",
        find: "2u * (slice * rows + row) + 1u]",
        replace: "2u * (slice * rows + row)]",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(75);
    let base = AttentionConfig::default();
    let all = [AttentionVariant::Plain, AttentionVariant::Tiled, AttentionVariant::Subgroup];
    let mut cases = Vec::new();
    let children = AttentionConfig {
        batch: 2,
        heads: 2,
        queries: 37,
        keys: 37,
        head_dim: 16,
        value_dim: Some(12),
        temperature: true,
        ..base
    };
    cases.extend(cases_of("tokens", children, &all, &mut random));
    let other = AttentionConfig {
        heads: 2,
        queries: 70,
        keys: 9,
        head_dim: 5,
        key_mask: true,
        bias: AttentionBias::Dense { share_batch: true, share_heads: true },
        bias_gradient: true,
        slices: Some(2),
        v_layout: AttentionLayout::HeadsTokens,
        ..base
    };
    cases.extend(cases_of("few keys", other, &all[1..], &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences_and_mass_is_kept() {
        let c = AttentionConfig {
            heads: 2,
            queries: 4,
            keys: 3,
            head_dim: 3,
            value_dim: Some(2),
            bias: AttentionBias::Dense { share_batch: true, share_heads: true },
            bias_gradient: true,
            temperature: true,
            ..AttentionConfig::default()
        };
        let mut random = Random::new(76);
        let (start, weights) = inputs(&c, &mut random);
        let exact = reference(&c, &start, &weights);
        let loss = |inputs: &Inputs, weights: &[f32]| -> f64 {
            let out = reference(&c, inputs, weights);
            out.o.iter().zip(&inputs.d_o).map(|(o, &g)| o.0 * f64::from(g)).sum()
        };
        type Field = fn(&mut (Inputs, Vec<f32>)) -> Vec<&mut f32>;
        let fields: [(&str, Field, &[Term]); 6] = [
            ("q", |i| i.0.q.iter_mut().collect(), &exact.dq),
            ("k", |i| i.0.k.iter_mut().collect(), &exact.dk),
            ("v", |i| i.0.v.iter_mut().collect(), &exact.dv),
            ("weights", |i| i.1.iter_mut().collect(), &exact.d_weights),
            ("bias", |i| i.0.bias.iter_mut().collect(), &exact.bias),
            ("temperature", |i| vec![&mut i.0.temperature], &exact.temperature),
        ];
        let h = 1.0 / 4096.0;
        for (name, field, gradient) in fields {
            for (at, exact) in gradient.iter().enumerate() {
                let mut up = (start.clone(), weights.clone());
                let mut down = up.clone();
                *field(&mut up)[at] += h;
                *field(&mut down)[at] -= h;
                let step = f64::from(*field(&mut up)[at]) - f64::from(*field(&mut down)[at]);
                let slope = (loss(&up.0, &up.1) - loss(&down.0, &down.1)) / step;
                assert!((slope - exact.0).abs() < 1e-5, "{name}[{at}] {slope} {}", exact.0);
            }
        }
        // What is received is what is sent: with values of 1, the outputs of a head add up to its weights.
        let mut ones = start.clone();
        ones.v.fill(1.0);
        let received: f64 = reference(&c, &ones, &weights).o.iter().step_by(2).map(|o| o.0).sum();
        let sent: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        assert!((received - sent).abs() < 1e-9);
    }
}
