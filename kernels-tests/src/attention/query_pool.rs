//! Reference and cases of `attention::query_pool`.

use patchfield::Kernel;
use patchfield::attention::query_pool::*;

use crate::canaries::Canary;
use crate::dense::softmax::softmax;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "attention/query_pool";

type Term = (f64, f64);

/// The inputs, in f64.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub x: Vec<f64>,
    pub keys: Vec<f64>,
    pub queries: Vec<f64>,
    pub weight: Vec<f64>,
    pub mask: Vec<f64>,
    pub dy: Vec<f64>,
}

/// What the kernels give, each with the magnitude of its terms.
#[derive(Debug, Default)]
pub struct Outputs {
    pub attention: Vec<Term>,
    pub pooled: Vec<Term>,
    pub y: Vec<Term>,
    pub dqueries: Vec<Term>,
    pub dweight: Vec<Term>,
    pub dx: Vec<Term>,
    pub dkeys: Vec<Term>,
}

fn add(sum: &mut Term, value: f64, size: f64) {
    *sum = (sum.0 + value, sum.1 + size.abs());
}

/// Plain loops, an image and a query at a time.
pub fn reference(config: &QueryPoolConfig, inputs: &Inputs) -> Outputs {
    let QueryPoolConfig { batch, patches, channels, queries, keys, projections, outputs, scale, mask } =
        *config;
    let [batch, n, c, q, d, p, o] =
        [batch, patches, channels, queries, keys.unwrap_or(channels), projections, outputs]
            .map(|v| v as usize);
    let scale = f64::from(scale);
    let Inputs { x, queries: u, weight: w, dy, .. } = inputs;
    let k = if keys.is_some() { &inputs.keys } else { x };
    let mut out = Outputs {
        dqueries: vec![(0.0, 0.0); q * d],
        dweight: vec![(0.0, 0.0); p * o * c],
        dx: vec![(0.0, 0.0); batch * n * c],
        dkeys: vec![(0.0, 0.0); batch * n * d],
        ..Outputs::default()
    };
    for b in 0..batch {
        for q0 in 0..q {
            let (mut scores, mut largest) = (Vec::new(), 0.0f64);
            for i in 0..n {
                let mut s = (0.0, 0.0);
                for j in 0..d {
                    let term = scale * u[q0 * d + j] * k[(b * n + i) * d + j];
                    add(&mut s, term, term);
                }
                let bias = if mask { inputs.mask[b * n + i] } else { 0.0 };
                let open = bias > -1e30;
                if open {
                    largest = largest.max(s.1 + bias.abs());
                }
                scores.push(open.then_some(s.0 + bias));
            }
            let a = softmax(&scores, false);
            // An error of the scores is one relative to a; it enters by the term, the maximum and the sum.
            let error = 2.0 * (1.0 + 2.0 * largest);
            out.attention.extend(a.iter().map(|&a| (a, error * a)));
            let mut z = vec![(0.0, 0.0); c];
            for i in 0..n {
                for (j, z) in z.iter_mut().enumerate() {
                    let term = a[i] * x[(b * n + i) * c + j];
                    add(z, term, error * term);
                }
            }
            out.pooled.extend(&z);
            // The gradient of z.
            let mut dz = vec![(0.0, 0.0); c];
            if p == 0 {
                dz = dy[(b * q + q0) * c..][..c].iter().map(|&d| (d, d.abs())).collect();
            }
            for row in 0..if p == 0 { 0 } else { o } {
                let at = ((q0 % p) * o + row) * c;
                let dy = dy[(b * q + q0) * o + row];
                let mut y = (0.0, 0.0);
                for j in 0..c {
                    add(&mut y, w[at + j] * z[j].0, w[at + j] * z[j].1);
                    add(&mut dz[j], w[at + j] * dy, w[at + j] * dy);
                    add(&mut out.dweight[at + j], dy * z[j].0, dy * z[j].1);
                }
                out.y.push(y);
            }
            let mut da = vec![(0.0, 0.0); n];
            for (i, da) in da.iter_mut().enumerate() {
                for (j, dz) in dz.iter().enumerate() {
                    let x = x[(b * n + i) * c + j];
                    add(da, dz.0 * x, dz.1 * x);
                    add(&mut out.dx[(b * n + i) * c + j], a[i] * dz.0, error * a[i] * dz.1);
                }
            }
            let dot: Term =
                a.iter().zip(&da).fold((0.0, 0.0), |s, (a, d)| (s.0 + a * d.0, s.1 + error * a * d.1));
            for i in 0..n {
                let ds = scale * a[i] * (da[i].0 - dot.0);
                let size = scale.abs() * error * a[i] * (da[i].1 + dot.1);
                for j in 0..d {
                    let (u, k) = (u[q0 * d + j], k[(b * n + i) * d + j]);
                    add(&mut out.dqueries[q0 * d + j], ds * k, size * k);
                    let dk = if keys.is_some() { &mut out.dkeys } else { &mut out.dx };
                    add(&mut dk[(b * n + i) * d + j], ds * u, size * u);
                }
            }
        }
    }
    out
}

/// `y` in the published order: every patch is projected, then averaged. As `reference`'s, `[B, Q, O]`.
pub fn projected_first(config: &QueryPoolConfig, inputs: &Inputs, attention: &[f64]) -> Vec<f64> {
    let QueryPoolConfig { batch, patches, channels, queries, projections, outputs, .. } = *config;
    let [batch, n, c, q, p, o] =
        [batch, patches, channels, queries, projections, outputs].map(|v| v as usize);
    let mut y = vec![0.0; batch * q * o];
    for b in 0..batch {
        for i in 0..n {
            let x = &inputs.x[(b * n + i) * c..][..c];
            let values: Vec<f64> =
                inputs.weight.chunks(c).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
            for q0 in 0..q {
                for row in 0..o {
                    y[(b * q + q0) * o + row] += attention[(b * q + q0) * n + i] * values[(q0 % p) * o + row];
                }
            }
        }
    }
    y
}

fn inputs(config: &QueryPoolConfig, random: &mut Random) -> [Vec<f32>; 6] {
    let [b, n, c, q, p] = [config.batch, config.patches, config.channels, config.queries, config.projections]
        .map(|v| v as usize);
    let d = config.keys.map_or(c, |d| d as usize);
    let o = if p > 0 { config.outputs as usize } else { c };
    let mut mask = random.vec(if config.mask { b * n } else { 0 }, -1.0, 1.0);
    for (i, mask) in mask.iter_mut().enumerate() {
        // The second image is masked throughout.
        if i % 3 == 1 || i / n == 1 {
            *mask = -1e30;
        }
    }
    [
        random.vec(b * n * c, -1.0, 1.0),
        random.vec(if config.keys.is_some() { b * n * d } else { 0 }, -1.0, 1.0),
        random.vec(q * d, -2.0, 2.0),
        random.vec(p * o * c, -1.0, 1.0),
        mask,
        random.vec(b * q * o, -1.0, 1.0),
    ]
}

fn wide(inputs: &[Vec<f32>; 6]) -> Inputs {
    let [x, keys, queries, weight, mask, dy] =
        inputs.each_ref().map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    Inputs { x, keys, queries, weight, mask, dy }
}

fn case(config: QueryPoolConfig, frozen: bool, random: &mut Random) -> Case {
    let data = inputs(&config, random);
    let out = reference(&config, &wide(&data));
    let projected = config.projections > 0;
    let given = config.keys.is_some();
    let name = format!("{config:?} frozen {frozen}");
    // Roundings scatter: the root of all that go into the longest chain of sums, and those of the softmax.
    let terms = config.patches * 2 + config.channels * 3 + config.batch * config.queries + config.outputs;
    let ulps = 12.0 + 4.0 * f64::from(terms).sqrt();
    let near = |terms: &[Term]| Expected::near(terms, ulps, 1e-30);
    let case = Case::new(KERNEL, name, move |context, b| {
        let forward = QueryPoolForward::new(context, config)?;
        let mut recording = forward.prepare(&QueryPoolForwardArgs {
            x: b["x"],
            keys: given.then(|| b["keys"]),
            queries: b["queries"],
            weight: projected.then(|| b["weight"]),
            mask: config.mask.then(|| b["mask"]),
            attention: b["attention"],
            pooled: b["pooled"],
            y: projected.then(|| b["y"]),
            scratch: &b.scratch(&forward)?,
        })?;
        let backward = QueryPoolBackward::new(context, config)?;
        recording.append(backward.prepare(&QueryPoolBackwardArgs {
            x: b["x"],
            keys: given.then(|| b["keys"]),
            queries: b["queries"],
            weight: projected.then(|| b["weight"]),
            attention: b["attention"],
            pooled: b["pooled"],
            dy: b["dy"],
            dqueries: b["dqueries"],
            dweight: projected.then(|| b["dweight"]),
            dx: (!frozen).then(|| b["dx"]),
            dkeys: (!frozen && given).then(|| b["dkeys"]),
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    });
    let [x, keys, queries, weight, mask, dy] = &data;
    let mut case = case
        .input("x", x)
        .input("queries", queries)
        .input("dy", dy)
        .output("attention", near(&out.attention))
        .output("pooled", near(&out.pooled))
        .output("dqueries", near(&out.dqueries));
    if given {
        case = case.input("keys", keys);
    }
    if config.mask {
        case = case.input("mask", mask);
    }
    if projected {
        case = case.input("weight", weight).output("y", near(&out.y)).output("dweight", near(&out.dweight));
    }
    if !frozen {
        case = case.output("dx", near(&out.dx));
        if given {
            case = case.output("dkeys", near(&out.dkeys));
        }
    }
    case
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the groups of the projection taken for the rows",
        kernel: KERNEL,
        shader: "dense/swap_axes::swap",
        find: "let j = row / params.a;",
        replace: "let j = row / params.b;",
    },
    Canary {
        bug: "the scale left out of the gradient",
        kernel: KERNEL,
        shader: "dense/softmax::rows_backward",
        find: "return params.scale * (v * (d - dot));",
        replace: "return v * (d - dot);",
    },
    Canary {
        bug: "a mask of one image for its neighbour",
        kernel: KERNEL,
        shader: "dense/softmax::rows",
        find: "return row / params.bias_repeat % params.bias_rows;",
        replace: "return (row / params.bias_repeat + 1u) % params.bias_rows;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(71);
    // Images, patches, channels, queries, width of keys, projections, outputs, mask, frozen.
    let rows = [
        (1, 1, 1, 1, None, 1, 1, false, false),
        (3, 13, 8, 4, None, 4, 2, false, false),
        (2, 65, 12, 6, None, 6, 3, true, false),
        (5, 7, 5, 3, None, 3, 1, false, true),
        // Two queries of three heads, and queries that share one projection.
        (2, 33, 16, 6, None, 3, 5, false, false),
        (3, 20, 7, 4, Some(9), 1, 4, true, false),
        // Averages alone.
        (2, 50, 24, 5, Some(8), 0, 0, true, false),
        (1, 196, 64, 8, None, 8, 8, false, true),
        (2, 1370, 16, 1, None, 0, 0, false, false),
    ];
    rows.into_iter()
        .map(|(batch, patches, channels, queries, keys, projections, outputs, mask, frozen)| {
            let scale = 1.0 / (keys.unwrap_or(channels) as f32).sqrt();
            let config = QueryPoolConfig {
                batch,
                patches,
                channels,
                queries,
                keys,
                projections,
                outputs,
                scale,
                mask,
            };
            case(config, frozen, &mut random)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probing(batch: u32, patches: u32, channels: u32, queries: u32) -> QueryPoolConfig {
        QueryPoolConfig::efficient_probing(batch, patches, channels, queries, 1).unwrap()
    }

    #[test]
    fn averaging_first_equals_projecting_first() {
        let mut random = Random::new(72);
        for config in [probing(2, 49, 48, 8), QueryPoolConfig { projections: 2, ..probing(1, 20, 12, 4) }] {
            let inputs = wide(&inputs(&config, &mut random));
            let out = reference(&config, &inputs);
            let attention: Vec<f64> = out.attention.iter().map(|a| a.0).collect();
            let published = projected_first(&config, &inputs, &attention);
            let scale = published.iter().fold(0.0f64, |m, y| m.max(y.abs()));
            assert_eq!(out.y.len(), published.len());
            for (y, p) in out.y.iter().zip(&published) {
                assert!((y.0 - p).abs() <= 1e-12 * scale, "{} {p}", y.0);
            }
        }
    }

    #[test]
    fn counts_are_the_published_ones() {
        let config = probing(1, 196, 768, 32);
        assert_eq!(config, QueryPoolConfig::default());
        assert_eq!(config.parameters(), 614_400);
        assert_eq!(config.parameters_with_head(1000), 1_383_400);
        let (first, last) = (config.multiply_adds(), config.multiply_adds_projected_first());
        assert_eq!((first, last), (10_223_616, 120_572_928));
        assert!(last >= 10 * first);
        assert!(QueryPoolConfig::efficient_probing(1, 196, 768, 5, 1).is_err());
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(73);
        let base = QueryPoolConfig { scale: 0.6, ..probing(2, 5, 4, 2) };
        let configs = [
            base,
            QueryPoolConfig { mask: true, batch: 3, ..base },
            QueryPoolConfig { keys: Some(3), projections: 1, ..base },
            QueryPoolConfig { keys: Some(3), projections: 0, ..base },
        ];
        for config in configs {
            let inputs = wide(&inputs(&config, &mut random));
            let out = reference(&config, &inputs);
            let loss = |inputs: &Inputs| -> f64 {
                let out = reference(&config, inputs);
                let y = if config.projections > 0 { out.y } else { out.pooled };
                y.iter().zip(&inputs.dy).map(|(y, d)| y.0 * d).sum()
            };
            type Field = fn(&mut Inputs) -> &mut Vec<f64>;
            let fields: [(Field, &[Term]); 4] = [
                (|i| &mut i.x, &out.dx),
                (|i| &mut i.keys, &out.dkeys),
                (|i| &mut i.queries, &out.dqueries),
                (|i| &mut i.weight, &out.dweight),
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
                    assert!((slope - want.0).abs() < 1e-8, "{slope} {want:?}");
                }
            }
        }
    }
}
