//! Reference and cases of `attention::small_attention`; the reference serves windows too.

use patchfield::Kernel;
use patchfield::attention::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// Value and error scale of one number.
pub type Term = (f64, f64);

/// One instance and head as matrices: queries, keys and values row by row, the addend of each score, and
/// which queries and keys there are.
pub struct Dense<'a> {
    pub tokens: usize,
    pub dim: usize,
    pub scale: f64,
    pub q: Vec<Vec<f64>>,
    pub k: Vec<Vec<f64>>,
    pub v: Vec<Vec<f64>>,
    pub dout: Vec<Vec<f64>>,
    /// Added to the score of query i and key j: its terms one by one.
    pub addends: &'a dyn Fn(usize, usize) -> Vec<f64>,
    pub keys: Vec<bool>,
}

/// What comes out of one instance and head.
pub struct Results {
    pub o: Vec<Vec<Term>>,
    pub lse: Vec<Term>,
    pub dq: Vec<Vec<Term>>,
    pub dk: Vec<Vec<Term>>,
    pub dv: Vec<Vec<Term>>,
    /// dS, query by key.
    pub ds: Vec<Vec<Term>>,
}

fn dot(a: &[f64], b: &[f64]) -> Term {
    a.iter().zip(b).fold((0.0, 0.0), |sum, (a, b)| (sum.0 + a * b, sum.1 + (a * b).abs()))
}

fn add(rows: &mut [Term], factor: Term, row: &[f64]) {
    for (sum, x) in rows.iter_mut().zip(row) {
        *sum = (sum.0 + factor.0 * x, sum.1 + factor.1 * x.abs());
    }
}

/// Plain loops. An error of a score is a relative error of its probability: the magnitude of P_ij is
/// P_ij (1 + e_ij + sum_k P_ik e_ik), with e the magnitude of a score.
pub fn reference(x: &Dense<'_>) -> Results {
    let n = x.tokens;
    let mut r = Results {
        o: vec![vec![(0.0, 0.0); x.dim]; n],
        lse: vec![(-1e30, 1e30); n],
        dq: vec![vec![(0.0, 0.0); x.dim]; n],
        dk: vec![vec![(0.0, 0.0); x.dim]; n],
        dv: vec![vec![(0.0, 0.0); x.dim]; n],
        ds: vec![vec![(0.0, 0.0); n]; n],
    };
    for i in 0..n {
        let keys: Vec<usize> = (0..n).filter(|&j| x.keys[j]).collect();
        if keys.is_empty() {
            continue;
        }
        let score = |j: usize| {
            let (s, e) = dot(&x.q[i], &x.k[j]);
            let more = (x.addends)(i, j);
            let scale = x.scale;
            (
                s * scale + more.iter().sum::<f64>(),
                e * scale.abs() + more.iter().map(|a| a.abs()).sum::<f64>(),
            )
        };
        let s: Vec<Term> = keys.iter().map(|&j| score(j)).collect();
        let maximum = s.iter().fold(f64::MIN, |m, s| m.max(s.0));
        let sum: f64 = s.iter().map(|s| (s.0 - maximum).exp()).sum();
        let lse = maximum + sum.ln();
        let p: Vec<f64> = s.iter().map(|s| (s.0 - lse).exp()).collect();
        let mean: f64 = p.iter().zip(&s).map(|(p, s)| if *p > 0.0 { p * s.1 } else { 0.0 }).sum();
        r.lse[i] = (lse, lse.abs() + mean + 1.0);
        // The exponent's own rounding: the score and L are numbers of this size.
        let p: Vec<Term> =
            p.iter().zip(&s).map(|(p, s)| (*p, p * (1.0 + s.1 + s.0.abs() + mean + lse.abs()))).collect();
        for (p, &j) in p.iter().zip(&keys) {
            add(&mut r.o[i], *p, &x.v[j]);
            add(&mut r.dv[j], *p, &x.dout[i]);
        }
        let row_sum = r.o[i]
            .iter()
            .zip(&x.dout[i])
            .fold((0.0, 0.0), |sum: Term, (o, d)| (sum.0 + o.0 * d, sum.1 + o.1 * d.abs()));
        for (p, &j) in p.iter().zip(&keys) {
            let dp = dot(&x.dout[i], &x.v[j]);
            let difference = dp.0 - row_sum.0;
            let ds = (p.0 * difference, p.1 * difference.abs() + p.0 * (dp.1 + row_sum.1));
            r.ds[i][j] = ds;
            let scaled = (ds.0 * x.scale, ds.1 * x.scale.abs());
            add(&mut r.dq[i], scaled, &x.k[j]);
            add(&mut r.dk[j], scaled, &x.q[i]);
        }
    }
    r
}

/// The `i`th row of a head in `[rows, heads, dim]`.
pub fn row(data: &[f32], heads: usize, dim: usize, i: usize, head: usize) -> Vec<f64> {
    data[(i * heads + head) * dim..][..dim].iter().map(|&x| x.into()).collect()
}

/// Writes a row of a head.
pub fn put(data: &mut [Term], heads: usize, dim: usize, i: usize, head: usize, row: &[Term]) {
    data[(i * heads + head) * dim..][..dim].copy_from_slice(row);
}

/// Adds to a row of a head.
pub fn accumulate(data: &mut [Term], heads: usize, dim: usize, i: usize, head: usize, row: &[Term]) {
    for (sum, x) in data[(i * heads + head) * dim..][..dim].iter_mut().zip(row) {
        *sum = (sum.0 + x.0, sum.1 + x.1);
    }
}

/// The roundings that an error scale is multiplied by: each sum rounds once a term at the worst, and exp2
/// and log2 add a few units.
pub fn roundings(dim: u32, tokens: u32) -> f64 {
    f64::from(dim.max(tokens)) + 16.0
}

/// What a case is about besides its sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// A mask over the keys, one instance without any.
    Masked,
    /// Scores up to 1e4.
    Large,
    /// NaN in one token of the first instance.
    NotANumber,
}

fn case(config: SmallAttentionConfig, kind: Kind, random: &mut Random) -> [Case; 2] {
    let [instances, tokens, heads, dim] =
        [config.instances, config.tokens, config.heads, config.head_dim].map(|n| n as usize);
    let config = SmallAttentionConfig { mask: kind == Kind::Masked, ..config };
    let count = instances * tokens * heads * dim;
    let size = if kind == Kind::Large { 60.0 } else { 1.5 };
    let round = |v: Vec<f32>| -> Vec<f32> {
        if !config.half {
            return v;
        }
        v.into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect()
    };
    let mut q = round(random.vec(count, -size, size));
    let k = round(random.vec(count, -size, size));
    let v = round(random.vec(count, -1.0, 1.0));
    let dout = round(random.vec(count, -1.0, 1.0));
    if kind == Kind::NotANumber {
        q[dim * heads * (tokens / 2)] = f32::NAN;
    }
    let mut mask: Vec<u32> = (0..instances * tokens).map(|_| random.below(3)).collect();
    mask[..tokens].fill(0);
    let scale = config.scale.map_or_else(|| 1.0 / f64::from(config.head_dim).sqrt(), f64::from);
    let (mut o, mut lse) = (vec![(0.0, 0.0); count], vec![(0.0, 0.0); instances * tokens * heads]);
    let (mut dq, mut dk, mut dv) = (o.clone(), o.clone(), o.clone());
    for instance in 0..instances {
        for head in 0..heads {
            let rows = |data: &[f32]| -> Vec<Vec<f64>> {
                (0..tokens).map(|i| row(data, heads, dim, instance * tokens + i, head)).collect()
            };
            let keys = |j: usize| kind != Kind::Masked || mask[instance * tokens + j] != 0;
            let results = reference(&Dense {
                tokens,
                dim,
                scale,
                q: rows(&q),
                k: rows(&k),
                v: rows(&v),
                dout: rows(&dout),
                addends: &|_, _| Vec::new(),
                keys: (0..tokens).map(keys).collect(),
            });
            for i in 0..tokens {
                let at = instance * tokens + i;
                lse[at * heads + head] = results.lse[i];
                put(&mut o, heads, dim, at, head, &results.o[i]);
                put(&mut dq, heads, dim, at, head, &results.dq[i]);
                put(&mut dk, heads, dim, at, head, &results.dk[i]);
                put(&mut dv, heads, dim, at, head, &results.dv[i]);
            }
        }
    }
    let ulps = roundings(config.head_dim, config.tokens);
    let name = format!("{kind:?} {config:?}");
    let data = |v: &[f32]| if config.half { Data::f16(v) } else { Data::F32(v.to_vec()) };
    let with = |case: Case, name, expected| {
        if config.half { case.output_f16(name, expected) } else { case.output(name, expected) }
    };
    let masked = kind == Kind::Masked;
    let forward = Case::new("attention/small_attention", format!("forward {name}"), move |context, b| {
        SmallAttentionForward::new(context, config)?.prepare(&SmallAttentionForwardArgs {
            q: b["q"],
            k: b["k"],
            v: b["v"],
            mask: masked.then(|| b["mask"]),
            o: b["o"],
            lse: b["lse"],
        })
    })
    .read("q", data(&q))
    .read("k", data(&k))
    .read("v", data(&v))
    .read("mask", Data::U32(mask.clone()))
    .output("lse", Expected::near(&lse, ulps, 0.0));
    let forward = with(forward, "o", Expected::near(&o, ulps, 1e-37));
    let backward = Case::new("attention/small_attention", format!("backward {name}"), move |context, b| {
        let forward = SmallAttentionForward::new(context, config)?;
        let backward = SmallAttentionBackward::new(context, config)?;
        let o = context.create_storage("o", b["q"].size)?;
        let lse = context.create_storage("lse", (instances * tokens * heads * 4) as u64)?;
        let (o, lse) = ((&o).into(), (&lse).into());
        let (q, k, v) = (b["q"], b["k"], b["v"]);
        let mask = masked.then(|| b["mask"]);
        let mut recording = forward.prepare(&SmallAttentionForwardArgs { q, k, v, mask, o, lse })?;
        recording.append(backward.prepare(&SmallAttentionBackwardArgs {
            q,
            k,
            v,
            mask,
            o,
            lse,
            dout: b["dout"],
            dq: b["dq"],
            dk: b["dk"],
            dv: b["dv"],
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .read("q", data(&q))
    .read("k", data(&k))
    .read("v", data(&v))
    .read("mask", Data::U32(mask))
    .read("dout", data(&dout));
    // Sums over the tokens of sums over a head's elements. With f16 D comes from the rounded output,
    // and is off by 2^-12 of its terms: 4,096 units.
    let ulps = 2.0 * ulps + if config.half { 4096.0 } else { 0.0 };
    let backward = with(backward, "dq", Expected::near(&dq, ulps, 1e-37));
    let backward = with(backward, "dk", Expected::near(&dk, ulps, 1e-37));
    [forward, with(backward, "dv", Expected::near(&dv, ulps, 1e-37))]
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the row's sum D forgotten",
        kernel: "attention/small_attention",
        shader: "attention/small_attention::backward_keys",
        find: "- transpose(rows)[1]);",
        replace: ");",
    },
    Canary {
        bug: "the masked keys left in the denominator",
        kernel: "attention/small_attention",
        shader: "attention/small_attention::forward",
        find: "let p = select(vec4<f32>(), exponentials(s - maximum), exist(t));",
        replace: "let p = exponentials(s - maximum);",
    },
];

/// The variants that every case runs with.
pub const VARIANTS: [SmallAttentionVariant; 3] =
    [SmallAttentionVariant::Plain, SmallAttentionVariant::Tiled, SmallAttentionVariant::Subgroup];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(41);
    let mut cases = Vec::new();
    let base = SmallAttentionConfig::default();
    for variant in VARIANTS {
        for (instances, tokens, heads, head_dim, kind) in [
            (1, 1, 1, 1, Kind::Plain),
            (7, 6, 3, 10, Kind::Masked),
            (3, 49, 2, 32, Kind::Plain),
            (2, 64, 1, 32, Kind::Large),
            (5, 22, 2, 24, Kind::Masked),
            (2, 86, 2, 64, Kind::Plain),
            (2, 128, 1, 8, Kind::NotANumber),
            (2, 97, 1, 72, Kind::Masked),
            (3, 33, 2, 40, Kind::Masked),
        ] {
            // Unrolled, it compiles slowly: three shapes, of which one has more than 32 elements a head.
            if variant == SmallAttentionVariant::Subgroup && !matches!(head_dim, 8 | 10 | 40) {
                continue;
            }
            let config =
                SmallAttentionConfig { instances, tokens, heads, head_dim, variant: Some(variant), ..base };
            cases.extend(case(config, kind, &mut random));
        }
        let half = SmallAttentionConfig {
            instances: 3,
            tokens: 49,
            heads: 2,
            head_dim: 8,
            half: true,
            variant: Some(variant),
            ..base
        };
        cases.extend(case(half, Kind::Plain, &mut random));
        if variant == SmallAttentionVariant::Subgroup {
            continue;
        }
        let odd = SmallAttentionConfig { head_dim: 12, tokens: 9, scale: Some(0.5), ..half };
        cases.extend(case(odd, Kind::Masked, &mut random));
    }
    for variant in VARIANTS {
        // More than 128 tokens: Tiled has one block of rows a workgroup. 8 elements are a permutation that
        // Subgroup has anyway.
        let large = SmallAttentionConfig {
            instances: 1,
            tokens: 333,
            heads: 2,
            head_dim: 8,
            variant: Some(variant),
            ..base
        };
        cases.extend(case(large, Kind::Plain, &mut random));
    }
    // The most that there may be; Tiled then needs more than 16 KiB.
    let most = SmallAttentionConfig { instances: 1, tokens: 512, heads: 1, head_dim: 8, ..base };
    cases.extend(case(most, Kind::Plain, &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (n, dim) = (5, 3);
        let mut random = Random::new(43);
        let mut matrix = || -> Vec<Vec<f64>> {
            (0..n).map(|_| (0..dim).map(|_| random.uniform(-1.0, 1.0).into()).collect()).collect()
        };
        let inputs = [matrix(), matrix(), matrix(), matrix()];
        let keys = vec![true, true, false, true, true];
        let run = |x: &[Vec<Vec<f64>>; 4], bias: &[f64]| {
            reference(&Dense {
                tokens: n,
                dim,
                scale: 0.7,
                q: x[0].clone(),
                k: x[1].clone(),
                v: x[2].clone(),
                dout: x[3].clone(),
                addends: &|i, j| vec![bias[i * n + j]],
                keys: keys.clone(),
            })
        };
        let bias: Vec<f64> = (0..n * n).map(|at| (at as f64 * 0.37).sin()).collect();
        let exact = run(&inputs, &bias);
        let loss = |x: &[Vec<Vec<f64>>; 4], bias: &[f64]| -> f64 {
            let r = run(x, bias);
            r.o.iter().zip(&x[3]).map(|(o, d)| o.iter().zip(d).map(|(o, d)| o.0 * d).sum::<f64>()).sum()
        };
        let h = 1e-5;
        for (which, gradient) in [&exact.dq, &exact.dk, &exact.dv].into_iter().enumerate() {
            for i in 0..n {
                for c in 0..dim {
                    let at = |h: f64| {
                        let mut x = inputs.clone();
                        x[which][i][c] += h;
                        loss(&x, &bias)
                    };
                    assert!(((at(h) - at(-h)) / (2.0 * h) - gradient[i][c].0).abs() < 1e-8);
                }
            }
        }
        for at in 0..n * n {
            let slope = |h: f64| {
                let mut bias = bias.clone();
                bias[at] += h;
                loss(&inputs, &bias)
            };
            assert!(((slope(h) - slope(-h)) / (2.0 * h) - exact.ds[at / n][at % n].0).abs() < 1e-8);
        }
        // Free identities: a row of dS sums to 0; V = 1 gives O = 1.
        for row in &exact.ds {
            assert!(row.iter().map(|s| s.0).sum::<f64>().abs() < 1e-12);
        }
        let ones = [inputs[0].clone(), inputs[1].clone(), vec![vec![1.0; dim]; n], inputs[3].clone()];
        assert!(run(&ones, &bias).o.iter().flatten().all(|o| (o.0 - 1.0).abs() < 1e-12));
    }
}
