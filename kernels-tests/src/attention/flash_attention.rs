//! Reference and cases of `attention::flash_attention`.

use patchfield::attention::*;
use patchfield::{Context, Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// A value and the magnitude that its rounding error scales with.
pub type Term = (f64, f64);

/// What goes in, as f32 (rounded to f16 where the configuration says so).
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub key_mask: Vec<u32>,
    pub bias: Vec<f32>,
    pub temperature: f32,
    pub head_scale: Vec<f32>,
    pub gate: Vec<f32>,
    /// Gradients of the output and of the log-sum-exp.
    pub d_o: Vec<f32>,
    pub d_lse: Vec<f32>,
}

/// What comes out.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub o: Vec<Term>,
    pub lse: Vec<Term>,
    pub dq: Vec<Term>,
    pub dk: Vec<Term>,
    pub dv: Vec<Term>,
    pub bias: Vec<Term>,
    pub temperature: Vec<Term>,
    pub head_scale: Vec<Term>,
    pub gate: Vec<Term>,
}

/// Where the rows of a tensor `[batch, tokens, heads, width]` begin.
pub struct Place {
    strides: [usize; 4],
    pub len: usize,
}

impl Place {
    pub fn new(layout: AttentionLayout, [b, n, h, d]: [u32; 4]) -> Self {
        let [b, n, h, d] = [b, n, h, d].map(|v| v as usize);
        let strides = match layout {
            AttentionLayout::TokensHeads => [0, n * h * d, d, h * d],
            AttentionLayout::HeadsTokens => [0, h * n * d, n * d, d],
            AttentionLayout::Strides { first, batch, head, token } => {
                [first, batch, head, token].map(|v| v as usize)
            }
        };
        let mut place = Self { strides, len: 0 };
        place.len = place.at(b - 1, h - 1, n - 1) + d;
        place
    }

    pub fn at(&self, batch: usize, head: usize, token: usize) -> usize {
        let [first, b, h, n] = self.strides;
        first + batch * b + head * h + token * n
    }
}

/// The places of q, k, v and o.
pub fn places(c: &AttentionConfig) -> [Place; 4] {
    let (kv, dv) = (c.kv_heads(), c.value_dim());
    [
        Place::new(c.q_layout, [c.batch, c.queries, c.heads, c.head_dim]),
        Place::new(c.k_layout, [c.batch, c.keys, kv, c.head_dim]),
        Place::new(c.v_layout, [c.batch, c.keys, kv, dv]),
        Place::new(c.o_layout, [c.batch, c.queries, c.heads, dv]),
    ]
}

/// Index into the bias, if the pair has one.
pub fn bias_index(c: &AttentionConfig, b: usize, h: usize, i: usize, j: usize) -> Option<usize> {
    let [heads, queries, keys] = [c.heads, c.queries, c.keys].map(|n| n as usize);
    match c.bias {
        AttentionBias::None => None,
        AttentionBias::Dense { share_batch, share_heads } => {
            let (b, h) = (if share_batch { 0 } else { b }, if share_heads { 0 } else { h });
            let all = if share_heads { 1 } else { heads };
            Some(((b * all + h) * queries + i) * keys + j)
        }
        AttentionBias::Table { prefix, height, width } => {
            let [prefix, height, width] = [prefix, height, width].map(|n| n as usize);
            if i < prefix || j < prefix {
                return None;
            }
            let (i, j) = (i - prefix, j - prefix);
            let down = i / width + height - 1 - j / width;
            let right = i % width + width - 1 - j % width;
            Some((down * (2 * width - 1) + right) * heads + h)
        }
    }
}

/// Whether a query sees a key.
pub fn sees(c: &AttentionConfig, inputs: &Inputs, b: usize, h: usize, i: usize, j: usize) -> bool {
    let distance = j as i64 - (i as i64 + i64::from(c.keys) - i64::from(c.queries));
    let reach = c.window.map_or(i64::MAX, i64::from);
    let near = distance.abs() <= reach && !(c.causal && distance > 0);
    let kept = !c.key_mask || inputs.key_mask[b * c.keys as usize + j] != 0;
    near && kept && !bias_index(c, b, h, i, j).is_some_and(|at| inputs.bias[at] <= -1e30)
}

fn dot(a: &[f32], b: &[f32]) -> Term {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .fold((0.0, 0.0), |s, t| (s.0 + t, s.1 + t.abs()))
}

fn add(sum: &mut Term, value: f64, size: f64) {
    sum.0 += value;
    sum.1 += size;
}

/// Attention and its gradients in f64, for the query rows `rows`.
///
/// Errors: a score S has one of units of E = sum of its terms' magnitudes, and the weight P = exp(S - L) a
/// relative one of as many units of 1 + E_ij + (the mean of E_ij over the row, which is that of L).
pub fn reference(c: &AttentionConfig, inputs: &Inputs) -> Outputs {
    let [batch, heads, queries, keys] = [c.batch, c.heads, c.queries, c.keys].map(|n| n as usize);
    let [d, dv] = [c.head_dim, c.value_dim()].map(|n| n as usize);
    let sharing = (c.heads / c.kv_heads()) as usize;
    let [q_at, k_at, v_at, o_at] = places(c);
    let zeros = |n: usize| vec![(0.0, 0.0); n];
    let mut out = Outputs {
        o: vec![(f64::NAN, 0.0); o_at.len],
        lse: zeros(batch * heads * queries),
        dq: vec![(f64::NAN, 0.0); q_at.len],
        dk: vec![(f64::NAN, 0.0); k_at.len],
        dv: vec![(f64::NAN, 0.0); v_at.len],
        bias: zeros(inputs.bias.len()),
        temperature: zeros(usize::from(c.temperature)),
        head_scale: zeros(inputs.head_scale.len()),
        gate: zeros(inputs.gate.len()),
    };
    for b in 0..batch {
        for g in 0..heads / sharing {
            for j in 0..keys {
                out.dk[k_at.at(b, g, j)..][..d].fill((0.0, 0.0));
                out.dv[v_at.at(b, g, j)..][..dv].fill((0.0, 0.0));
            }
        }
        for h in 0..heads {
            let t = if c.temperature { f64::from(inputs.temperature) } else { 1.0 };
            let beta = if c.head_scale { f64::from(inputs.head_scale[h]) } else { 1.0 };
            let gate = if c.gate { f64::from(inputs.gate[h]) } else { 1.0 };
            let scale = f64::from(c.scale()) * beta / t;
            for i in 0..queries {
                let q = &inputs.q[q_at.at(b, h, i)..][..d];
                let x = &inputs.d_o[o_at.at(b, h, i)..][..dv];
                let row = (b * heads + h) * queries + i;
                // (key, score, its magnitude, <q, k>).
                let mut seen = Vec::new();
                for j in (0..keys).filter(|&j| sees(c, inputs, b, h, i, j)) {
                    let product = dot(q, &inputs.k[k_at.at(b, h / sharing, j)..][..d]);
                    let bias = bias_index(c, b, h, i, j).map_or(0.0, |at| f64::from(inputs.bias[at]));
                    let size = scale.abs() * product.1 + bias.abs();
                    seen.push((j, scale * product.0 + bias, size, product));
                }
                let m = seen.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
                let l: f64 = seen.iter().map(|s| (s.1 - m).exp()).sum();
                let p: Vec<f64> = seen.iter().map(|s| (s.1 - m).exp() / l).collect();
                // Of the log-sum-exp; the scores enter with their distance to it, too.
                let e: f64 = p.iter().zip(&seen).map(|(p, s)| p * s.2).sum();
                let lse = m + l.ln();
                out.lse[row] = if seen.is_empty() { (-1e30, 1e30) } else { (lse, 1.0 + e + lse.abs()) };
                let p: Vec<Term> = p
                    .iter()
                    .zip(&seen)
                    .map(|(&p, s)| (p, p * (1.0 + s.2 + e + (s.1 - lse).abs() + lse.abs())))
                    .collect();
                let mut o = zeros(dv);
                for (p, s) in p.iter().zip(&seen) {
                    let v = &inputs.v[v_at.at(b, h / sharing, s.0)..][..dv];
                    for (o, &v) in o.iter_mut().zip(v) {
                        add(o, gate * p.0 * f64::from(v), (gate * p.1 * f64::from(v)).abs());
                    }
                }
                out.o[o_at.at(b, h, i)..][..dv].copy_from_slice(&o);
                let mut delta = (0.0, 0.0);
                for (o, &x) in o.iter().zip(x) {
                    add(&mut delta, o.0 * f64::from(x), (o.1 * f64::from(x)).abs());
                }
                if c.lse_gradient {
                    add(&mut delta, -f64::from(inputs.d_lse[row]), f64::from(inputs.d_lse[row]).abs());
                }
                let mut dq = zeros(d);
                for (p, s) in p.iter().zip(&seen) {
                    let j = s.0;
                    let k = &inputs.k[k_at.at(b, h / sharing, j)..][..d];
                    let dp = dot(x, &inputs.v[v_at.at(b, h / sharing, j)..][..dv]);
                    let ds = (p.0 * (gate * dp.0 - delta.0), p.1 * (gate.abs() * dp.1 + delta.1));
                    for ((dq, &k), (dk, &q)) in
                        dq.iter_mut().zip(k).zip(out.dk[k_at.at(b, h / sharing, j)..][..d].iter_mut().zip(q))
                    {
                        add(dq, scale * ds.0 * f64::from(k), (scale * ds.1 * f64::from(k)).abs());
                        add(dk, scale * ds.0 * f64::from(q), (scale * ds.1 * f64::from(q)).abs());
                    }
                    for (sum, &x) in out.dv[v_at.at(b, h / sharing, j)..][..dv].iter_mut().zip(x) {
                        add(sum, gate * p.0 * f64::from(x), (gate * p.1 * f64::from(x)).abs());
                    }
                    if let Some(at) = bias_index(c, b, h, i, j) {
                        add(&mut out.bias[at], ds.0, ds.1);
                    }
                    let factor = f64::from(c.scale()) / t;
                    let (value, size) = (factor * ds.0 * s.3.0, (factor * ds.1 * s.3.1).abs());
                    if c.head_scale {
                        add(&mut out.head_scale[h], value, size);
                    }
                    if c.temperature {
                        add(&mut out.temperature[0], -beta / t * value, (beta / t * size).abs());
                    }
                    if c.gate {
                        add(&mut out.gate[h], p.0 * dp.0, p.1 * dp.1);
                    }
                }
                out.dq[q_at.at(b, h, i)..][..d].copy_from_slice(&dq);
            }
        }
    }
    out
}

/// Random inputs; `size` is that of queries and keys.
pub fn inputs(c: &AttentionConfig, size: f32, random: &mut Random) -> Inputs {
    let [q, k, v, o] = places(c).map(|place| place.len);
    let mut tensor = |n: usize, size: f32| -> Vec<f32> {
        let values = random.vec(n, -size, size);
        if c.half { values.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect() } else { values }
    };
    let (q, k, v) = (tensor(q, size), tensor(k, size), tensor(v, 1.0));
    let heads = c.heads as usize;
    let masked = if c.key_mask { (c.batch * c.keys) as usize } else { 0 };
    Inputs {
        q,
        k,
        v,
        key_mask: (0..masked).map(|_| u32::from(random.below(4) > 0)).collect(),
        bias: random.vec(c.bias_count() as usize, -2.0, 2.0),
        temperature: 0.7,
        head_scale: if c.head_scale { random.vec(heads, -1.5, 1.5) } else { vec![] },
        gate: if c.gate { random.vec(heads, -1.5, 1.5) } else { vec![] },
        d_o: random.vec(o, -1.0, 1.0),
        d_lse: random.vec(c.lse_count() as usize, -1.0, 1.0),
    }
}

fn read_inputs(mut case: Case, c: &AttentionConfig, inputs: &Inputs) -> Case {
    let data = |v: &[f32]| if c.half { Data::f16(v) } else { Data::F32(v.to_vec()) };
    case = case.read("q", data(&inputs.q)).read("k", data(&inputs.k)).read("v", data(&inputs.v));
    if c.key_mask {
        case = case.read("key_mask", Data::U32(inputs.key_mask.clone()));
    }
    if c.bias != AttentionBias::None {
        case = case.input("bias", &inputs.bias);
    }
    if c.temperature {
        case = case.input("temperature", &[inputs.temperature]);
    }
    if c.head_scale {
        case = case.input("head_scale", &inputs.head_scale);
    }
    if c.gate {
        case = case.input("gate", &inputs.gate);
    }
    case
}

fn views<'a>(c: &AttentionConfig, b: &crate::harness::Views<'a>) -> AttentionInputs<'a> {
    AttentionInputs {
        q: b["q"],
        k: b["k"],
        v: b["v"],
        key_mask: c.key_mask.then(|| b["key_mask"]),
        bias: (c.bias != AttentionBias::None).then(|| b["bias"]),
        temperature: c.temperature.then(|| b["temperature"]),
        head_scale: c.head_scale.then(|| b["head_scale"]),
        gate: c.gate.then(|| b["gate"]),
    }
}

/// The longest chain of roundings of an output: a score is a chain of four sums of `d / 4` products, joined,
/// scaled and biased; a sum over `n` tokens rounds once a token, of errors that mostly cancel.
fn ulps(c: &AttentionConfig, n: u32) -> f64 {
    let d = f64::from(c.head_dim.max(c.value_dim()));
    d / 4.0 + 12.0 + f64::from(n).min(64.0)
}

/// Elements between the rows are nobody's: what they hold is kept.
fn masked(terms: &[Term]) -> (Data, Expected) {
    let keep = 3.25;
    let terms: Vec<Term> =
        terms.iter().map(|t| if t.0.is_nan() && t.1 == 0.0 { (keep, keep) } else { *t }).collect();
    (Data::F32(vec![keep as f32; terms.len()]), Expected::near(&terms, 0.0, 0.0))
}

/// WGSL lets an implementation take numbers below 2^-126 for 0: of up to 4,096 terms, whose factors are at most 1,
/// each may lose that much.
const FLUSHED: f64 = 4096.0 * f32::MIN_POSITIVE as f64;

fn output(case: Case, name: &'static str, terms: &[Term], ulps: f64) -> Case {
    if terms.iter().any(|t| t.0.is_nan() && t.1 == 0.0) {
        let (data, expected) = masked(terms);
        let Expected::Near { value, magnitude, absolute, .. } = expected else { return case };
        return case.update(name, data, Expected::Near { value, magnitude, ulps, absolute });
    }
    case.output(name, Expected::near(terms, ulps, FLUSHED))
}

/// Forward, and backward after a forward of the same variant.
pub fn pair(name: &str, c: AttentionConfig, inputs: &Inputs) -> [Case; 2] {
    let expected = reference(&c, inputs);
    pair_with(name, c, inputs, &expected)
}

pub fn pair_with(name: &str, c: AttentionConfig, inputs: &Inputs, expected: &Outputs) -> [Case; 2] {
    let title = format!("{name}: {c:?}");
    let forward = Case::new("attention/flash_attention", format!("forward {title}"), move |context, b| {
        let kernel = FlashAttentionForward::new(context, c)?;
        kernel.prepare(&FlashAttentionForwardArgs {
            inputs: views(&c, b),
            o: b["o"],
            lse: b["lse"],
            scratch: &b.scratch(&kernel)?,
        })
    });
    let forward = read_inputs(forward, &c, inputs);
    let forward = output(forward, "o", &expected.o, ulps(&c, c.keys));
    let forward = forward.output("lse", Expected::near(&expected.lse, ulps(&c, c.keys), 0.0));
    let backward = Case::new("attention/flash_attention", format!("backward {title}"), move |context, b| {
        backward(context, c, b)
    });
    let mut backward = read_inputs(backward, &c, inputs).input("d_o", &inputs.d_o);
    if c.lse_gradient {
        backward = backward.input("d_lse", &inputs.d_lse);
    }
    // Twice the roundings of a forward pass: of P and of D.
    let (over_keys, over_queries) = (2.0 * ulps(&c, c.keys), 2.0 * ulps(&c, c.queries));
    backward = output(backward, "dq", &expected.dq, over_keys);
    backward = output(backward, "dk", &expected.dk, over_queries);
    backward = output(backward, "dv", &expected.dv, over_queries);
    if c.bias_gradient {
        backward = backward.output("d_bias", Expected::near(&expected.bias, over_keys, 0.0));
    }
    for (name, wanted, terms) in [
        ("d_temperature", c.temperature, &expected.temperature),
        ("d_head_scale", c.head_scale, &expected.head_scale),
        ("d_gate", c.gate, &expected.gate),
    ] {
        if wanted {
            backward = backward.output(name, Expected::near(terms, over_keys, 0.0));
        }
    }
    [forward, backward]
}

fn backward(
    context: &Context,
    c: AttentionConfig,
    b: &crate::harness::Views<'_>,
) -> Result<patchfield::Recording> {
    let forward = FlashAttentionForward::new(context, c)?;
    let backward = FlashAttentionBackward::new(context, c)?;
    let o = context.create_storage("o", places(&c)[3].len as u64 * 4)?;
    let lse = context.create_storage("lse", c.lse_count() * 4)?;
    let (o, lse) = ((&o).into(), (&lse).into());
    let inputs = views(&c, b);
    let scratch = b.scratch(&forward)?;
    let mut recording = forward.prepare(&FlashAttentionForwardArgs { inputs, o, lse, scratch: &scratch })?;
    let gradients = AttentionGradients {
        dq: b["dq"],
        dk: b["dk"],
        dv: b["dv"],
        bias: c.bias_gradient.then(|| b["d_bias"]),
        temperature: c.temperature.then(|| b["d_temperature"]),
        head_scale: c.head_scale.then(|| b["d_head_scale"]),
        gate: c.gate.then(|| b["d_gate"]),
    };
    recording.append(backward.prepare(&FlashAttentionBackwardArgs {
        inputs,
        o,
        lse,
        d_o: b["d_o"],
        d_lse: c.lse_gradient.then(|| b["d_lse"]),
        gradients,
        scratch: &b.scratch(&backward)?,
    })?);
    Ok(recording)
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "D forgotten in the gradient of the scores",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention::backward_queries",
        find: "e * (factor * dp - terms.y)",
        replace: "e * (factor * dp)",
    },
    Canary {
        bug: "the bias of head 0 for all heads",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention::forward",
        find: "p.batch, p.head, i, j, query_place",
        replace: "p.batch, 0u, i, j, query_place",
    },
    Canary {
        bug: "a tile's key beyond the last one counts",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::forward",
        find: "compute_scores(b, p.row, j, range.y, number, local);",
        replace: "compute_scores(b, p.row, j, range.y + 1u, number, local);",
    },
    Canary {
        bug: "the sum of weights not scaled down when a higher score comes",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::forward",
        find: "Running(highest, shrink * r.l, shrink)",
        replace: "Running(highest, r.l, shrink)",
    },
    Canary {
        bug: "a missed barrier between the weights of a tile and their use",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::forward",
        find: "workgroupBarrier();
        for (var k = 0u; k < span; k++) {",
        replace: "for (var k = 0u; k < span; k++) {",
    },
    Canary {
        bug: "one query head only for keys that several share",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::backward_keys",
        find: "head < (p.head + 1u) * params.sharing",
        replace: "head < p.head * params.sharing + 1u",
    },
    Canary {
        bug: "hidden pairs in the sums",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::backward_keys",
        find: "return select(fma(vec4<f32>(w), v, sum), sum, w == HIDDEN);",
        replace: "return fma(vec4<f32>(select(w, 0.0, w == HIDDEN)), v, sum);",
    },
    Canary {
        bug: "the lower rows of keys take the weights of the upper ones",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::backward_keys",
        find: "add_row(tile[w], tile[w + LOWER]",
        replace: "add_row(tile[w], tile[w]",
    },
    Canary {
        bug: "the weights that waited for the values' products come back from another block",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::backward_queries",
        find: "let at = tile_slot(first_column(local), 8u * r4 + local / 8u);
    return",
        replace: "let at = tile_slot(first_column(local), local / 8u);
    return",
    },
    Canary {
        bug: "a query's factor not in the gradient of the values",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_tiled::backward_keys",
        find: "if TRANSPOSED && (HEADS || WEIGHTS) {",
        replace: "if !TRANSPOSED && (HEADS || WEIGHTS) {",
    },
    Canary {
        bug: "a higher score raises the maximum, but the sums stay as they are",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_subgroup_forward::forward",
        find: "if VALUES { scale(shrink); }",
        replace: "",
    },
    Canary {
        bug: "the lower queries never raise their maximum",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_subgroup_forward::forward",
        find: "|| any(highest[1] > m[1] + HEADROOM)",
        replace: "",
    },
    Canary {
        bug: "the second of four rows has the first one's gradient",
        kernel: "attention/flash_attention",
        shader: "attention/flash_attention_subgroup_backward::backward_queries",
        find: "score_gradients(s[1], w[1], dp[1], factor, d)",
        replace: "score_gradients(s[1], w[1], dp[0], factor, d)",
    },
    Canary {
        bug: "slices merged as if they had the same log-sum-exp",
        kernel: "attention/flash_attention",
        shader: "attention/flash_terms::merge",
        find: "exponential(LOG2_E * l - LOG2_E * m)",
        replace: "1.0",
    },
    Canary {
        bug: "displacements with the wrong sign",
        kernel: "attention/flash_attention",
        shader: "attention/flash_terms::table_gradient",
        find: "+ height - 1u - down;",
        replace: "+ down - (height - 1u);",
    },
];

const PLAIN: AttentionVariant = AttentionVariant::Plain;
const TILED: AttentionVariant = AttentionVariant::Tiled;
const SUBGROUP: AttentionVariant = AttentionVariant::Subgroup;
const ALL: &[AttentionVariant] = &[PLAIN, TILED, SUBGROUP];

/// Cases of one configuration and one set of inputs, for several variants.
struct Table {
    random: Random,
    cases: Vec<Case>,
}

impl Table {
    fn add(
        &mut self,
        name: &str,
        config: AttentionConfig,
        size: f32,
        variants: &[AttentionVariant],
        change: impl Fn(&mut Inputs),
    ) {
        let mut inputs = inputs(&config, size, &mut self.random);
        change(&mut inputs);
        let expected = reference(&config, &inputs);
        for &variant in variants {
            let config = AttentionConfig { variant: Some(variant), ..config };
            self.cases.extend(pair_with(name, config, &inputs, &expected));
        }
    }
}

/// With values of 1 every output is 1, whatever the scores are.
fn ones(name: &str, config: AttentionConfig, random: &mut Random) -> Case {
    let mut inputs = inputs(&config, 1.0, random);
    inputs.v.fill(1.0);
    let title = format!("{name}: {config:?}");
    let case = Case::new("attention/flash_attention", title, move |context, b| {
        let kernel = FlashAttentionForward::new(context, config)?;
        kernel.prepare(&FlashAttentionForwardArgs {
            inputs: views(&config, b),
            o: b["o"],
            lse: b["lse"],
            scratch: &b.scratch(&kernel)?,
        })
    });
    // Numerator and denominator add the same weights, in another order.
    let expected = vec![(1.0, 1.0); places(&config)[3].len];
    let lse = Data::F32(vec![0.0; config.lse_count() as usize]);
    read_inputs(case, &config, &inputs).output("o", Expected::near(&expected, 64.0, 0.0)).update(
        "lse",
        lse,
        Expected::Any,
    )
}

/// A bias that images and heads share, whose gradient takes more than one stretch of query rows where
/// `STRETCH_BYTES` can be bound: a row of dS has 960 bytes, and the sums of the rows have 2,400.
fn in_stretches() -> AttentionConfig {
    AttentionConfig {
        batch: 2,
        heads: 3,
        queries: 50,
        keys: 40,
        head_dim: 8,
        bias: AttentionBias::Dense { share_batch: true, share_heads: true },
        bias_gradient: true,
        temperature: true,
        ..AttentionConfig::default()
    }
}

const STRETCH_BYTES: u64 = 1 << 14;

/// The backward pass on a device of low limits.
fn stretches(variant: AttentionVariant, random: &mut Random) -> Case {
    let config = AttentionConfig { variant: Some(variant), ..in_stretches() };
    let inputs = inputs(&config, 2.0, random);
    let [_, mut case] = pair("the gradient of a bias in stretches", config, &inputs);
    case.run = Box::new(move |context: &Context, b: &crate::harness::Views<'_>| {
        let mut caps = context.capabilities().clone();
        caps.limits.max_storage_buffer_binding_size = STRETCH_BYTES;
        backward(&Context::with_capabilities(context.device(), context.queue(), caps), config, b)
    });
    case
}

pub fn cases() -> Vec<Case> {
    let mut table = Table { random: Random::new(71), cases: Vec::new() };
    let base = AttentionConfig::default();
    let same = |_: &mut Inputs| {};
    let square = |n: u32, d: u32| AttentionConfig { queries: n, keys: n, head_dim: d, ..base };
    let dense = |share_batch, share_heads| AttentionBias::Dense { share_batch, share_heads };

    // Everything at once: a bias for each head that the batch shares, and rows of no whole vec4s.
    let all = AttentionConfig {
        batch: 2,
        heads: 4,
        kv_heads: Some(2),
        queries: 7,
        keys: 70,
        head_dim: 24,
        value_dim: Some(7),
        key_mask: true,
        bias: dense(true, false),
        bias_gradient: true,
        temperature: true,
        head_scale: true,
        gate: true,
        lse_gradient: true,
        ..base
    };
    table.add("all", all, 2.0, ALL, |inputs| {
        // A gate and a scale of 0 have gradients too; a bias hides; a hidden key may hold anything.
        inputs.gate[1] = 0.0;
        inputs.head_scale[2] = 0.0;
        inputs.bias.iter_mut().step_by(11).for_each(|b| *b = -1e30);
        inputs.bias.iter_mut().step_by(17).for_each(|b| *b = f32::NEG_INFINITY);
        for (key, _) in inputs.key_mask.iter().enumerate().filter(|(_, kept)| **kept == 0) {
            inputs.k[key * 48..][..48].fill(f32::NAN);
            inputs.v[key * 14..][..14].fill(f32::NAN);
        }
    });
    // Masks and biases beyond head 0 (burn #4484, #4778), in other layouts.
    let broadcast = AttentionConfig {
        batch: 2,
        heads: 3,
        queries: 65,
        keys: 33,
        head_dim: 8,
        key_mask: true,
        bias: dense(false, true),
        bias_gradient: true,
        q_layout: AttentionLayout::HeadsTokens,
        k_layout: AttentionLayout::Strides { first: 24, batch: 33 * 72, head: 8, token: 72 },
        v_layout: AttentionLayout::Strides { first: 48, batch: 33 * 72, head: 8, token: 72 },
        ..base
    };
    table.add("a mask and a bias that heads share", broadcast, 2.0, &[TILED, SUBGROUP], same);
    let grid = AttentionConfig {
        batch: 2,
        heads: 3,
        bias: AttentionBias::Table { prefix: 1, height: 5, width: 6 },
        bias_gradient: true,
        ..square(31, 12)
    };
    table.add("table", grid, 2.0, ALL, same);

    table.add("one", square(1, 1), 2.0, ALL, same);
    let two = |n: u32| AttentionConfig { heads: 2, ..square(n, 16) };
    for n in [7, 64, 65] {
        table.add("plain", two(n), 2.0, ALL, same);
    }
    // Workgroups enough for the taller tiles of a GPU.
    let many = AttentionConfig { batch: 32, heads: 16, ..square(66, 8) };
    table.add("many heads", many, 2.0, &[TILED], same);
    let sliced = AttentionConfig { queries: 150, keys: 140, slices: Some(2), ..two(1) };
    table.add("slices", sliced, 2.0, ALL, same);
    // Scores near 1e4 and 1e30: finite, and as right as their rounding allows.
    table.add("scores of 1e4", two(65), 1e2, ALL, same);
    table.add("scores of 1e30", two(65), 1e15, ALL, same);

    // Rows that see nothing, and NaN where it is seen alone: in a query, a key and a value.
    let causal = AttentionConfig { heads: 2, causal: true, window: Some(40), ..square(70, 16) };
    table.add("more queries than keys", AttentionConfig { queries: 71, keys: 5, ..causal }, 2.0, ALL, same);
    table.add("NaN", causal, 2.0, ALL, |inputs| {
        inputs.q[9 * 32 + 3] = f32::NAN;
        inputs.k[61 * 32 + 16] = f32::NAN;
        inputs.v[66 * 32 + 31] = f32::NAN;
    });
    table.add("window", AttentionConfig { causal: false, window: Some(3), ..causal }, 2.0, ALL, same);

    // Scores that overflow f16 (ONNX Runtime #24723).
    let half = AttentionConfig { half: true, ..square(33, 16) };
    table.add("f16", half, 2.0, ALL, same);
    table.add("f16, scores beyond 65,504", half, 3e2, ALL, same);

    table.add(
        "tokens of a picture",
        AttentionConfig { causal: true, ..square(197, 32) },
        2.0,
        &[TILED],
        same,
    );
    table.add("more of them", square(785, 32), 2.0, &[TILED], same);
    // Head dimensions that are no multiple of 16 (llama.cpp #23020), and wide ones.
    table.add("40 columns", square(64, 40), 2.0, &[TILED, SUBGROUP], same);
    table.add("72 columns", square(65, 72), 2.0, &[TILED, SUBGROUP], same);
    table.add("128 columns", square(33, 128), 2.0, &[TILED, SUBGROUP], same);
    // Rows of whole vectors of eight floats beside such of four, and places between them.
    let widths = AttentionConfig {
        batch: 2,
        heads: 4,
        kv_heads: Some(2),
        queries: 71,
        keys: 37,
        key_mask: true,
        gate: true,
        ..base
    };
    for (head_dim, value_dim) in [(40, 72), (68, 24)] {
        let c = AttentionConfig { head_dim, value_dim: Some(value_dim), ..widths };
        table.add("values of another width", c, 2.0, &[SUBGROUP], |inputs| {
            let (k, v) = (2 * head_dim as usize, 2 * value_dim as usize);
            for (key, _) in inputs.key_mask.iter().enumerate().filter(|(_, kept)| **kept == 0) {
                inputs.k[key * k..][..k].fill(f32::NAN);
                inputs.v[key * v..][..v].fill(f32::NAN);
            }
        });
    }
    for step in [4, 8] {
        let token = 24 + step;
        let at = AttentionLayout::Strides { first: step, batch: 9 * token, head: 8, token };
        let c = AttentionConfig { batch: 2, heads: 3, ..square(9, 8) };
        table.add("keys with gaps", AttentionConfig { k_layout: at, ..c }, 2.0, &[SUBGROUP], same);
        table.add("outputs with gaps", AttentionConfig { o_layout: at, ..c }, 2.0, &[SUBGROUP], same);
    }
    table.add(
        "wide values",
        AttentionConfig { value_dim: Some(132), ..square(33, 4) },
        2.0,
        &[PLAIN, TILED],
        same,
    );
    let widest = AttentionConfig {
        value_dim: Some(132),
        causal: true,
        key_mask: true,
        temperature: true,
        ..square(45, 256)
    };
    table.add("widest rows", widest, 2.0, &[TILED], same);
    // Nothing comes of rows that see nothing, whatever their output's gradient is, nor of masked keys.
    let image = AttentionConfig { batch: 2, key_mask: true, temperature: true, gate: true, ..square(8, 16) };
    table.add("a masked image", image, 2.0, ALL, |inputs| {
        inputs.key_mask[..8].fill(1);
        inputs.key_mask[8..].fill(0);
        inputs.d_o[8 * 16..].fill(f32::NAN);
        inputs.k[8 * 16..].fill(f32::NAN);
        inputs.v[8 * 16..].fill(f32::NAN);
    });

    // More rounds of an invocation's loops than Mesa's llvmpipe allows, were the sums not cut: over long
    // rows, over their columns too, over the heads that share a key, and over the images that share a table.
    let long = AttentionConfig { slices: Some(1), ..square(1, 1) };
    table.add("long rows", AttentionConfig { keys: 66_000, ..long }, 2.0, &[PLAIN, TILED], same);
    table.add("long rows", AttentionConfig { keys: 66_000, head_dim: 8, ..long }, 2.0, &[SUBGROUP], same);
    let wide = AttentionConfig { head_dim: 256, ..long };
    table.add("wide rows", AttentionConfig { keys: 600, ..wide }, 2.0, &[PLAIN], same);
    table.add("wide rows", AttentionConfig { queries: 600, keys: 3, ..wide }, 2.0, &[PLAIN], same);
    let sharing = AttentionConfig { heads: 64, kv_heads: Some(1), queries: 4200, keys: 1, ..long };
    table.add("a key for 64 heads", sharing, 2.0, &[PLAIN, SUBGROUP], same);
    let images = AttentionConfig {
        batch: 4200,
        bias: AttentionBias::Table { prefix: 0, height: 4, width: 4 },
        bias_gradient: true,
        ..square(16, 1)
    };
    table.add("a table for many images", images, 2.0, ALL, same);

    let Table { mut random, mut cases } = table;
    // burn #4530: 40 KiB wanted where there are 32.
    for variant in [TILED, SUBGROUP] {
        let config = AttentionConfig { variant: Some(variant), ..square(1370, 64) };
        cases.push(ones("1,370 tokens in 32 KiB of workgroup memory", config, &mut random));
    }
    for &variant in ALL {
        cases.push(stretches(variant, &mut random));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let c = AttentionConfig {
            batch: 2,
            heads: 2,
            kv_heads: Some(1),
            queries: 3,
            keys: 4,
            head_dim: 3,
            value_dim: Some(2),
            causal: true,
            key_mask: true,
            bias: AttentionBias::Dense { share_batch: true, share_heads: false },
            bias_gradient: true,
            temperature: true,
            head_scale: true,
            gate: true,
            lse_gradient: true,
            ..AttentionConfig::default()
        };
        let mut random = Random::new(72);
        let start = inputs(&c, 1.0, &mut random);
        let exact = reference(&c, &start);
        let loss = |inputs: &Inputs| -> f64 {
            let out = reference(&c, inputs);
            let o: f64 = out.o.iter().zip(&inputs.d_o).map(|(o, &g)| o.0 * f64::from(g)).sum();
            let finite = out.lse.iter().zip(&inputs.d_lse).filter(|(l, _)| l.0 > -1e29);
            o + finite.map(|(l, &g)| l.0 * f64::from(g)).sum::<f64>()
        };
        type Field = fn(&mut Inputs) -> Vec<&mut f32>;
        let fields: [(&str, Field, &[Term]); 7] = [
            ("q", |i| i.q.iter_mut().collect(), &exact.dq),
            ("k", |i| i.k.iter_mut().collect(), &exact.dk),
            ("v", |i| i.v.iter_mut().collect(), &exact.dv),
            ("bias", |i| i.bias.iter_mut().collect(), &exact.bias),
            ("temperature", |i| vec![&mut i.temperature], &exact.temperature),
            ("head_scale", |i| i.head_scale.iter_mut().collect(), &exact.head_scale),
            ("gate", |i| i.gate.iter_mut().collect(), &exact.gate),
        ];
        let h = 1.0 / 4096.0;
        for (name, field, gradient) in fields {
            for (at, exact) in gradient.iter().enumerate() {
                let (mut up, mut down) = (start.clone(), start.clone());
                *field(&mut up)[at] += h;
                *field(&mut down)[at] -= h;
                let step = f64::from(*field(&mut up)[at]) - f64::from(*field(&mut down)[at]);
                let slope = (loss(&up) - loss(&down)) / step;
                assert!((slope - exact.0).abs() < 1e-5, "{name}[{at}] {slope} {}", exact.0);
            }
        }
    }

    #[test]
    fn identities() {
        let c = AttentionConfig {
            heads: 2,
            queries: 6,
            keys: 9,
            head_dim: 4,
            bias: AttentionBias::Dense { share_batch: true, share_heads: false },
            bias_gradient: true,
            ..AttentionConfig::default()
        };
        let mut random = Random::new(73);
        let start = inputs(&c, 1.0, &mut random);
        let out = reference(&c, &start);
        // Rows of dS sum to 0.
        for row in out.bias.chunks(9) {
            assert!(row.iter().map(|t| t.0).sum::<f64>().abs() < 1e-12);
        }
        // The keys' order says nothing to the output, and their gradients move with them.
        let turn = |rows: &[f32], width: usize| [&rows[width..], &rows[..width]].concat();
        let mut turned = start.clone();
        turned.k = turn(&start.k, 8);
        turned.v = turn(&start.v, 8);
        turned.bias = start.bias.chunks(9).flat_map(|row| turn(row, 1)).collect();
        let moved = reference(&c, &turned);
        for (a, b) in out.o.iter().zip(&moved.o) {
            assert!((a.0 - b.0).abs() < 1e-12);
        }
        for (a, b) in out.dk[8..].iter().zip(&moved.dk) {
            assert!((a.0 - b.0).abs() < 1e-12);
        }
    }

    #[test]
    fn variants_fall_back_where_limits_are_low() {
        use patchfield::dispatch::Capabilities;
        let config = AttentionConfig { queries: 1370, keys: 1370, ..AttentionConfig::default() };
        let plan = |bytes: u32, config: &AttentionConfig| {
            let mut caps = Capabilities::baseline();
            caps.limits.max_compute_workgroup_storage_size = bytes;
            FlashAttentionForward::plan(config, &caps)
        };
        assert_eq!(plan(49_152, &config).unwrap().variant, "tiled");
        assert_eq!(plan(16_384, &config).unwrap().variant, "tiled");
        assert_eq!(plan(8_192, &config).unwrap().variant, "plain");
        let tiled = AttentionConfig { variant: Some(AttentionVariant::Tiled), ..config };
        assert!(matches!(plan(8_192, &tiled), Err(patchfield::Error::LimitExceeded { .. })));
        // Larger tiles, so fewer workgroups, where there is room for them.
        let config = AttentionConfig { heads: 64, ..config };
        let groups = |bytes| plan(bytes, &config).unwrap().launches[0].groups().end;
        assert_eq!(groups(49_152), groups(16_384));
        assert!(groups(12_000) > groups(16_384));
    }

    #[test]
    fn the_gradient_of_a_bias_takes_what_a_binding_holds() {
        use patchfield::dispatch::Capabilities;
        let plan = |bytes: u64| {
            let mut caps = Capabilities::baseline();
            caps.limits.max_storage_buffer_binding_size = bytes;
            FlashAttentionBackward::plan(&in_stretches(), &caps).unwrap()
        };
        // 12 rows at a time of 50, with two launches for each stretch.
        let (whole, cut) = (plan(1 << 20), plan(STRETCH_BYTES));
        assert_eq!(cut.launches.len(), whole.launches.len() + 2 * 4);
        assert_eq!(cut.scratch[1], 2400 + 12 * 960);
        // Four rows in any case, which then cannot be bound.
        assert_eq!(plan(4096).scratch[1], 2400 + 4 * 960);
    }

    #[test]
    fn wrong_configurations_are_refused_by_name() {
        use patchfield::dispatch::Capabilities;
        let good = AttentionConfig { heads: 4, queries: 5, keys: 5, ..AttentionConfig::default() };
        let overlap = AttentionLayout::Strides { first: 0, batch: 0, head: 32, token: 128 };
        let table = AttentionBias::Table { prefix: 0, height: 2, width: 2 };
        let rows = [
            (AttentionConfig { queries: 0, ..good }, "`queries`"),
            (AttentionConfig { keys: 0, ..good }, "`keys`"),
            (AttentionConfig { head_dim: 0, ..good }, "`head_dim`"),
            (AttentionConfig { value_dim: Some(257), ..good }, "`value_dim`"),
            (AttentionConfig { kv_heads: Some(3), ..good }, "`kv_heads`"),
            (AttentionConfig { kv_heads: Some(0), ..good }, "`kv_heads`"),
            (AttentionConfig { scale: Some(f32::NAN), ..good }, "`scale`"),
            (AttentionConfig { slices: Some(0), ..good }, "`slices`"),
            (AttentionConfig { q_layout: overlap, ..good }, "`q`"),
            (AttentionConfig { bias_gradient: true, ..good }, "`bias_gradient`"),
            (AttentionConfig { bias: table, ..good }, "`bias`"),
            (AttentionConfig { queries: 1 << 20, heads: 1 << 10, ..good }, "elements"),
        ];
        for (config, says) in rows {
            for plan in [FlashAttentionForward::plan, FlashAttentionBackward::plan, AttentionLse::plan] {
                let error = plan(&config, &Capabilities::baseline()).expect_err(says).to_string();
                assert!(error.contains(says), "{error}");
            }
        }
    }
}
