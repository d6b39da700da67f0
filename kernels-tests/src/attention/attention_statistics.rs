//! Reference and cases of `attention::attention_statistics`.

use patchfield::attention::*;
use patchfield::{Context, Kernel, Recording, Result};

use super::flash_attention::{Inputs, Place, Term, bias_index, sees};
use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random, Views};

/// What comes out of all kernels together.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// P, `[batch, heads, queries, keys]`.
    pub weights: Vec<Term>,
    pub entropy: Vec<Term>,
    pub best: Vec<u32>,
    pub best_weight: Vec<Term>,
    pub distance: Vec<Term>,
    pub mass: Vec<Term>,
    pub mean: Vec<Term>,
    pub next: Vec<Term>,
    pub hops: Vec<Term>,
}

/// What else a case is made of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    attention: AttentionConfig,
    grid: Option<PatchGrid>,
    /// Columns have weights, which are also the row of the rollout.
    weights: bool,
    share: f32,
    /// Of the block of P.
    rows: [u32; 2],
    columns: [u32; 2],
}

impl Setup {
    fn new(attention: AttentionConfig, grid: Option<PatchGrid>) -> Self {
        let (rows, columns) = ([0, attention.queries], [0, attention.keys]);
        Self { attention, grid, weights: true, share: 0.5, rows, columns }
    }

    fn has_rollout(&self) -> bool {
        self.attention.queries == self.attention.keys
    }
}

fn add(sum: &mut Term, value: f64, size: f64) {
    *sum = (sum.0 + value, sum.1 + size.abs());
}

fn places(c: &AttentionConfig) -> [Place; 2] {
    [
        Place::new(c.q_layout, [c.batch, c.queries, c.heads, c.head_dim]),
        Place::new(c.k_layout, [c.batch, c.keys, c.kv_heads(), c.head_dim]),
    ]
}

/// A row's scores and the magnitudes that their errors scale with; nothing for what it does not see.
fn scores(c: &AttentionConfig, inputs: &Inputs, [b, h, i]: [usize; 3]) -> Vec<Option<Term>> {
    let [q_at, k_at] = places(c);
    let d = c.head_dim as usize;
    let scale = f64::from(c.scale()) / if c.temperature { f64::from(inputs.temperature) } else { 1.0 };
    let kv = h / (c.heads / c.kv_heads()) as usize;
    let q = &inputs.q[q_at.at(b, h, i)..][..d];
    let score = |j: usize| {
        let k = &inputs.k[k_at.at(b, kv, j)..][..d];
        let mut s = (0.0, 0.0);
        for (&q, &k) in q.iter().zip(k) {
            let product = scale * f64::from(q) * f64::from(k);
            add(&mut s, product, product);
        }
        if let Some(at) = bias_index(c, b, h, i, j) {
            add(&mut s, inputs.bias[at].into(), inputs.bias[at].into());
        }
        s
    };
    (0..c.keys as usize).map(|j| sees(c, inputs, b, h, i, j).then(|| score(j))).collect()
}

/// The log-sum-exp of each row, rounded: what the kernels are given.
pub fn log_sums(c: &AttentionConfig, inputs: &Inputs) -> Vec<f32> {
    let mut all = Vec::new();
    for row in 0..c.lse_count() as usize {
        let [h, n] = [c.heads as usize, c.queries as usize];
        let seen: Vec<f64> = scores(c, inputs, [row / n / h, row / n % h, row % n])
            .into_iter()
            .flatten()
            .map(|s| s.0)
            .collect();
        let m = seen.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let l = m + seen.iter().map(|s| (s - m).exp()).sum::<f64>().ln();
        all.push(if seen.is_empty() { -1e30 } else { l as f32 });
    }
    all
}

/// All statistics in f64, from the log-sum-exps that the kernels have too. A weight's error is relative: that of
/// its score and of the difference.
pub fn reference(setup: &Setup, inputs: &Inputs, lse: &[f32], weights: &[f32]) -> Outputs {
    let c = &setup.attention;
    let [batch, heads, queries, keys] = [c.batch, c.heads, c.queries, c.keys].map(|n| n as usize);
    let rows = batch * heads * queries;
    let zeros = |n: usize| vec![(0.0, 0.0); n];
    let hops = setup.grid.map_or(0, |grid| grid.hops() as usize);
    let mut out = Outputs {
        weights: zeros(rows * keys),
        entropy: zeros(rows),
        best: vec![u32::MAX; rows],
        best_weight: zeros(rows),
        distance: zeros(rows),
        mass: zeros(batch * heads * keys),
        mean: zeros(batch * keys),
        next: zeros(batch * keys),
        hops: zeros(batch * heads * hops),
    };
    let place = |token: usize| {
        let grid = setup.grid?;
        let at = token.checked_sub(grid.prefix as usize)? as u32;
        Some([i64::from(at / grid.width), i64::from(at % grid.width)])
    };
    let share = f64::from(setup.share);
    for b in 0..batch {
        for (h, i) in (0..heads).flat_map(|h| (0..queries).map(move |i| (h, i))) {
            let row = (b * heads + h) * queries + i;
            let l = f64::from(lse[row]);
            let factor = f64::from(if setup.weights { weights[b * queries + i] } else { 1.0 });
            let mut best: Option<(f64, usize)> = None;
            let all = scores(c, inputs, [b, h, i]);
            for (j, (s, size)) in all.iter().enumerate().filter_map(|(j, s)| Some((j, (*s)?))) {
                let d = s - l;
                let d_size = size + d.abs() + l.abs();
                let p = (d.exp(), d.exp() * (1.0 + d_size));
                out.weights[row * keys + j] = p;
                // A weight that rounds to 0 has no surprise left.
                let surprise = if p.0 == 0.0 { 0.0 } else { -p.0 * d };
                add(&mut out.entropy[row], surprise, p.1 * d.abs() + p.0 * d_size);
                add(&mut out.mass[(b * heads + h) * keys + j], factor * p.0, factor * p.1);
                let share_of_head = factor / heads as f64;
                add(&mut out.mean[b * keys + j], share_of_head * p.0, share_of_head * p.1);
                let share_of_head = share * f64::from(weights[b * queries + i]) / heads as f64;
                add(&mut out.next[b * keys + j], share_of_head * p.0, share_of_head * p.1);
                if let (Some(from), Some(to)) = (place(i), place(j)) {
                    let [dy, dx] = [from[0] - to[0], from[1] - to[1]];
                    let length = ((dy * dy + dx * dx) as f64).sqrt();
                    // The root may be off by three units, of half a rounding twice each.
                    add(&mut out.distance[row], length * p.0, length * (p.1 + 6.0 * p.0));
                    let ring = dy.abs().max(dx.abs()) as usize;
                    add(&mut out.hops[(b * heads + h) * hops + ring], p.0, p.1);
                }
                if best.is_none_or(|best| s > best.0) {
                    best = Some((s, j));
                    out.best_weight[row] = p;
                }
            }
            if let Some((highest, j)) = best {
                out.best[row] = j as u32;
                // No other score may be mistaken for it; an equal one comes later.
                let margin = 1e-6 * all.iter().flatten().map(|s| s.1).fold(0.0, f64::max);
                let near = |s: &Term| s.0 != highest && highest - s.0 < margin;
                assert!(!all.iter().flatten().any(near), "a row with two keys alike: another seed, please");
            }
            if l.is_nan() {
                (out.best[row], out.best_weight[row]) = (u32::MAX, (f64::NAN, f64::NAN));
            }
        }
        if setup.has_rollout() {
            for j in 0..keys {
                let stays = (1.0 - share) * f64::from(weights[b * keys + j]);
                add(&mut out.next[b * keys + j], stays, stays);
            }
        }
    }
    out
}

fn inputs(c: &AttentionConfig, size: f32, random: &mut Random) -> Inputs {
    let [q, k] = places(c).map(|place| place.len);
    let masked = if c.key_mask { (c.batch * c.keys) as usize } else { 0 };
    let inputs = Inputs {
        q: random.vec(q, -size, size),
        k: random.vec(k, -size, size),
        key_mask: (0..masked).map(|_| u32::from(random.below(4) > 0)).collect(),
        bias: random.vec(c.bias_count() as usize, -2.0, 2.0),
        temperature: 0.7,
        ..Inputs::default()
    };
    if !c.half {
        return inputs;
    }
    let round = |values: Vec<f32>| values.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect();
    Inputs { q: round(inputs.q), k: round(inputs.k), ..inputs }
}

fn record(context: &Context, setup: &Setup, b: &Views<'_>) -> Result<Recording> {
    let attention = setup.attention;
    // The values are not looked at.
    let inputs = AttentionInputs {
        key_mask: attention.key_mask.then(|| b["key_mask"]),
        bias: (attention.bias != AttentionBias::None).then(|| b["bias"]),
        temperature: attention.temperature.then(|| b["temperature"]),
        ..AttentionInputs::new(b["q"], b["k"], b["k"])
    };
    let lse = b["lse"];
    let grid = setup.grid;
    let rows = AttentionRowStatistics::new(context, AttentionRowStatisticsConfig { attention, grid })?;
    let mut recording = rows.prepare(&AttentionRowStatisticsArgs {
        inputs,
        lse,
        entropy: b["entropy"],
        best: b["best"],
        best_weight: b["best_weight"],
        distance: grid.map(|_| b["distance"]),
        scratch: &b.scratch(&rows)?,
    })?;
    let config = AttentionColumnMassConfig { attention, weights: setup.weights };
    let columns = AttentionColumnMass::new(context, config)?;
    recording.append(columns.prepare(&AttentionColumnMassArgs {
        inputs,
        lse,
        weights: setup.weights.then(|| b["weights"]),
        mass: b["mass"],
        mean: b["mean"],
        scratch: &b.scratch(&columns)?,
    })?);
    let (rows, columns) = (setup.rows, setup.columns);
    let tile = AttentionTile::new(context, AttentionTileConfig { attention, rows, columns })?;
    recording.append(tile.prepare(&AttentionTileArgs {
        inputs,
        lse,
        weights: b["block"],
        scratch: &b.scratch(&tile)?,
    })?);
    if setup.has_rollout() {
        let config = AttentionRolloutConfig { attention, share: setup.share };
        let rollout = AttentionRollout::new(context, config)?;
        recording.append(rollout.prepare(&AttentionRolloutArgs {
            inputs,
            lse,
            row: b["weights"],
            next: b["next"],
            scratch: &b.scratch(&rollout)?,
        })?);
    }
    if let Some(grid) = grid {
        let hops = AttentionHops::new(context, AttentionHopsConfig { attention, grid })?;
        recording.append(hops.prepare(&AttentionHopsArgs {
            inputs,
            lse,
            mass: b["hops"],
            scratch: &b.scratch(&hops)?,
        })?);
    }
    Ok(recording)
}

const PLAIN: AttentionVariant = AttentionVariant::Plain;
const TILED: AttentionVariant = AttentionVariant::Tiled;
const SUBGROUP: AttentionVariant = AttentionVariant::Subgroup;

struct Table {
    random: Random,
    cases: Vec<Case>,
}

/// Weights that are no normal f32 may be 0: some hundred of them.
const TINY: f64 = 1e-35;

impl Table {
    fn add(
        &mut self,
        name: &str,
        setup: Setup,
        size: f32,
        variants: &[AttentionVariant],
        change: impl Fn(&mut Inputs),
    ) {
        let c = setup.attention;
        let mut inputs = inputs(&c, size, &mut self.random);
        change(&mut inputs);
        let lse = log_sums(&c, &inputs);
        let weights = self.random.vec((c.batch * c.queries) as usize, 0.0, 1.0);
        let want = reference(&setup, &inputs, &lse, &weights);
        // Of the block, the rows of all heads.
        let [rows, columns] = [setup.rows, setup.columns].map(|[a, b]| a as usize..b as usize);
        let (n, m) = (c.queries as usize, c.keys as usize);
        let block: Vec<Term> = (0..(c.batch * c.heads) as usize)
            .flat_map(|matrix| rows.clone().map(move |i| matrix * n + i))
            .flat_map(|row| want.weights[row * m..][..m][columns.clone()].to_vec())
            .collect();
        // A product's chain, a few roundings of exp2 and of log2(e) L, and of a sum the number of its terms.
        let score = f64::from(c.head_dim) / 4.0 + 12.0;
        let [of_keys, of_queries] = [c.keys, c.queries].map(|n| score + f64::from(n));
        let of_heads = of_queries + f64::from(c.heads);
        for &variant in variants {
            let attention = AttentionConfig { variant: Some(variant), ..c };
            let setup = Setup { attention, ..setup };
            let run = move |context: &Context, b: &Views<'_>| record(context, &setup, b);
            let tensor = |values: &[f32]| {
                if c.half { Data::f16(values) } else { Data::F32(values.to_vec()) }
            };
            let title = format!("{name}: {setup:?}");
            let mut case = Case::new("attention/attention_statistics", title, run)
                .read("q", tensor(&inputs.q))
                .read("k", tensor(&inputs.k))
                .input("lse", &lse)
                .input("weights", &weights)
                .output("entropy", Expected::near(&want.entropy, of_keys, TINY))
                .output("best", Expected::Exact(want.best.clone()))
                .output("best_weight", Expected::near(&want.best_weight, score, TINY))
                .output("mass", Expected::near(&want.mass, of_queries, TINY))
                .output("mean", Expected::near(&want.mean, of_heads, TINY))
                .output("block", Expected::near(&block, score, TINY));
            if c.key_mask {
                case = case.read("key_mask", Data::U32(inputs.key_mask.clone()));
            }
            if c.bias != AttentionBias::None {
                case = case.input("bias", &inputs.bias);
            }
            if c.temperature {
                case = case.input("temperature", &[inputs.temperature]);
            }
            if setup.has_rollout() {
                case = case.output("next", Expected::near(&want.next, of_heads, TINY));
            }
            if setup.grid.is_some() {
                case = case
                    .output("distance", Expected::near(&want.distance, of_keys, TINY))
                    // Sums of a query's ring, of 64 queries, and of all these.
                    .output("hops", Expected::near(&want.hops, of_keys + of_queries, TINY));
            }
            self.cases.push(case);
        }
    }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the largest weight's key from the wrong invocation's columns",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics_tiled::rows",
        find: "if s > highest || (s == highest && part.w < highest_at) {",
        replace: "if s >= highest {",
    },
    Canary {
        bug: "corners of a ring counted twice",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics::hops",
        find: "first = max(own.x - k + 1, 0);",
        replace: "first = max(own.x - k, 0);",
    },
    Canary {
        bug: "a masked key that receives",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics_tiled::columns",
        find: "select(sum, 0.0, is_masked(p.batch, key))",
        replace: "sum",
    },
    Canary {
        bug: "a masked key that receives, for subgroups",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics_subgroup::columns",
        find: "select(below, vec4<f32>(), masks(p.batch, lower))",
        replace: "below",
    },
    Canary {
        bug: "the second query's log-sum-exp for the first",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics_subgroup::columns",
        find: "let l0 = subgroupShuffle(l, 0u);",
        replace: "let l0 = subgroupShuffle(l, 1u);",
    },
    Canary {
        bug: "the lower rows' second key counted as the first",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics_subgroup::rows",
        find: "lower_rows, row_of(j + 1u), is_there.yyyy), j + 1u);",
        replace: "lower_rows, row_of(j + 1u), is_there.yyyy), j);",
    },
    Canary {
        bug: "slices that overlap",
        kernel: "attention/attention_statistics",
        shader: "attention/attention_statistics_merge::columns",
        find: "slice * params.count * params.heads + at",
        replace: "slice * params.count + at",
    },
];

pub fn cases() -> Vec<Case> {
    let mut table = Table { random: Random::new(80), cases: Vec::new() };
    let base = AttentionConfig::default();
    let square = |n: u32, d: u32| AttentionConfig { queries: n, keys: n, head_dim: d, ..base };
    let grid = |prefix, height, width| Some(PatchGrid { prefix, height, width });
    let all = &[PLAIN, TILED, SUBGROUP];
    let same = |_: &mut Inputs| {};
    table.add("one token", Setup::new(square(1, 1), grid(0, 1, 1)), 2.0, all, same);
    let patches = AttentionConfig { batch: 2, heads: 3, ..square(36, 16) };
    table.add("patches", Setup::new(patches, grid(1, 5, 7)), 2.0, all, same);
    // Heads that share keys, a learned table, and a block across two tiles; all queries count 1.
    let bias = AttentionBias::Table { prefix: 1, height: 8, width: 8 };
    let shared = AttentionConfig { heads: 2, kv_heads: Some(1), bias, ..square(65, 12) };
    let setup =
        Setup { weights: false, rows: [60, 65], columns: [7, 9], ..Setup::new(shared, grid(1, 8, 8)) };
    table.add("table", setup, 2.0, all, same);
    // Rows that see nothing, masked keys, rows of no whole vec4s.
    let few = AttentionConfig {
        batch: 2,
        heads: 2,
        queries: 71,
        keys: 9,
        head_dim: 5,
        causal: true,
        key_mask: true,
        temperature: true,
        bias: AttentionBias::Dense { share_batch: true, share_heads: false },
        ..base
    };
    table.add("more queries than keys", Setup::new(few, None), 2.0, all, |inputs| {
        inputs.bias.iter_mut().step_by(11).for_each(|b| *b = -1e30);
        for (key, _) in inputs.key_mask.iter().enumerate().filter(|(_, kept)| **kept == 0) {
            inputs.k[key * 10..][..10].fill(f32::NAN);
        }
    });
    let masked = AttentionConfig { key_mask: true, ..square(70, 40) };
    table.add("masked keys", Setup::new(masked, None), 2.0, all, same);
    for head_dim in [68, 72] {
        let wide = AttentionConfig { heads: 4, kv_heads: Some(2), key_mask: true, ..square(37, head_dim) };
        table.add("wide rows", Setup::new(wide, None), 2.0, &[SUBGROUP], same);
    }
    let sliced = AttentionConfig { heads: 2, slices: Some(3), ..square(197, 24) };
    table.add("slices", Setup { share: 0.9, ..Setup::new(sliced, grid(1, 14, 14)) }, 1.0, all, same);
    let line = AttentionConfig { window: Some(10), ..square(66, 8) };
    table.add("a line of patches", Setup::new(line, grid(0, 1, 66)), 2.0, all, same);
    table.add("scores of 1e4", Setup::new(square(65, 16), grid(1, 8, 8)), 1e2, all, same);
    // Keys that are the same: the first has it.
    let twins = AttentionConfig { heads: 2, ..square(130, 4) };
    table.add("equal keys", Setup::new(twins, None), 2.0, all, |inputs| {
        let half = inputs.k.len() / 2;
        let (first, second) = inputs.k.split_at_mut(half);
        second.copy_from_slice(first);
    });
    let causal = AttentionConfig { heads: 2, causal: true, window: Some(40), ..square(70, 16) };
    table.add("NaN", Setup::new(causal, grid(0, 7, 10)), 2.0, all, |inputs| {
        inputs.q[9 * 32 + 3] = f32::NAN;
        inputs.k[61 * 32 + 16] = f32::NAN;
    });
    let half = AttentionConfig { half: true, ..square(33, 16) };
    table.add("f16", Setup::new(half, None), 2.0, all, same);
    table.cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` x `columns` times a vector from the left.
    fn times(row: &[f64], matrix: &[Vec<f64>]) -> Vec<f64> {
        let n = matrix[0].len();
        (0..n).map(|j| row.iter().zip(matrix).map(|(r, m)| r * m[j]).sum()).collect()
    }

    #[test]
    fn mass_is_kept_and_rollout_is_the_product_of_all_layers() {
        let c = AttentionConfig { heads: 3, queries: 13, keys: 13, head_dim: 4, ..Default::default() };
        let grid = Some(PatchGrid { prefix: 1, height: 3, width: 4 });
        let mut random = Random::new(81);
        let setup = Setup { weights: false, share: 0.3, ..Setup::new(c, grid) };
        let mut row = vec![0.0; 13];
        row[0] = 1.0;
        let mut layers = Vec::new();
        for _ in 0..3 {
            let inputs = inputs(&c, 2.0, &mut random);
            let lse = log_sums(&c, &inputs);
            let weights: Vec<f32> = row.iter().map(|&r| r as f32).collect();
            let out = reference(&setup, &inputs, &lse, &weights);
            for h in 0..3 {
                let mass: f64 = out.mass[h * 13..][..13].iter().map(|m| m.0).sum();
                assert!((mass - 13.0).abs() < 1e-5, "{mass}");
                let patches: f64 = (1..13)
                    .flat_map(|i| (1..13).map(move |j| (h * 13 + i) * 13 + j))
                    .map(|at| out.weights[at].0)
                    .sum();
                let hops: f64 = out.hops[h * 4..][..4].iter().map(|m| m.0).sum();
                assert!((hops - patches).abs() < 1e-9, "{hops} {patches}");
                let own: f64 = (1..13).map(|i| out.weights[(h * 13 + i) * 13 + i].0).sum();
                assert!((out.hops[h * 4].0 - own).abs() < 1e-9);
            }
            for (entropy, best) in out.entropy.iter().zip(&out.best_weight) {
                // The least likely row is all in one key; the most, evenly in all.
                assert!((0.0..=13.0_f64.ln() + 1e-5).contains(&entropy.0), "{entropy:?}");
                assert!(best.0 >= 1.0 / 13.0 - 1e-6 && entropy.0 >= -best.0.ln() - 1e-6);
            }
            row = out.next.iter().map(|r| r.0).collect();
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5);
            let mean = |i: usize, j: usize| -> f64 {
                (0..3).map(|h| out.weights[(h * 13 + i) * 13 + j].0 / 3.0).sum()
            };
            let layer: Vec<Vec<f64>> = (0..13)
                .map(|i| (0..13).map(|j| 0.3 * mean(i, j) + if i == j { 0.7 } else { 0.0 }).collect())
                .collect();
            layers.push(layer);
        }
        let mut product = vec![0.0; 13];
        product[0] = 1.0;
        for layer in &layers {
            product = times(&product, layer);
        }
        for (a, b) in product.iter().zip(&row) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
