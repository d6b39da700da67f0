//! Reference and cases of `radial::grid_encoding`.

use patchfield::Kernel;
use patchfield::radial::grid_encoding::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

type Term = (f64, f64);

/// One corner of the cell of a point: entry, weight, and the weight's derivatives along the axes.
pub struct Corner {
    pub entry: usize,
    pub weight: f64,
    pub slope: Vec<f64>,
    pub bend: Vec<Vec<f64>>,
}

/// The corners of a point on a level. `p` is formed in f32 as the shader forms it: where a point
/// lies within a cell is part of the definition, and f64 would put some into the neighbour.
pub fn corners(config: &GridEncodingConfig, level: &GridLevel, x: &[f32]) -> Vec<Corner> {
    let dims = config.dims as usize;
    let offset = if config.align_corners { 0.0 } else { 0.5 };
    let p: Vec<f32> = x.iter().map(|&x| level.scale * x.clamp(0.0, 1.0) + offset).collect();
    let cell: Vec<u32> = p.iter().map(|p| p.floor() as u32).collect();
    let f: Vec<f64> = p.iter().map(|p| f64::from(p - p.floor())).collect();
    let inside = |d: usize| f64::from(u8::from((0.0..=1.0).contains(&x[d])));
    let scales: Vec<f64> = (0..dims).map(|d| f64::from(level.scale) * inside(d)).collect();
    cell_corners(config, level, &cell, &f, &scales)
}

/// The corners of a cell, seen from `f` in it; `scales`: cells a unit of the position, along each axis.
pub fn cell_corners(
    config: &GridEncodingConfig,
    level: &GridLevel,
    cell: &[u32],
    f: &[f64],
    scales: &[f64],
) -> Vec<Corner> {
    let dims = cell.len();
    let smooth = config.interpolation == Interpolation::Smoothstep;
    let ease = |f: f64| if smooth { f * f * (3.0 - 2.0 * f) } else { f };
    let d_ease = |f: f64| if smooth { 6.0 * f * (1.0 - f) } else { 1.0 };
    (0..1u32 << dims)
        .map(|k| {
            let bit = |d: usize| k >> d & 1;
            let at: Vec<u32> = (0..dims).map(|d| cell[d] + bit(d)).collect();
            let index = if level.hashed {
                let primes = [1, 2_654_435_761, 805_459_861];
                at.iter().zip(primes).fold(0u32, |h, (a, p)| h ^ a.wrapping_mul(p))
            } else {
                at.iter().rev().fold(0, |sum, a| sum * level.resolution + a)
            };
            let side = |d: usize| if bit(d) == 1 { ease(f[d]) } else { 1.0 - ease(f[d]) };
            let sign = |d: usize| if bit(d) == 1 { 1.0 } else { -1.0 };
            Corner {
                entry: (level.first + index % level.entries) as usize,
                weight: (0..dims).map(side).product(),
                slope: (0..dims)
                    .map(|d| {
                        let others: f64 = (0..dims).filter(|&o| o != d).map(side).product();
                        sign(d) * others * d_ease(f[d]) * scales[d]
                    })
                    .collect(),
                bend: (0..dims)
                    .map(|d| {
                        (0..dims)
                            .map(|e| {
                                let factor = |o: usize| match usize::from(o == d) + usize::from(o == e) {
                                    0 => side(o),
                                    1 => sign(o) * d_ease(f[o]),
                                    _ => sign(o) * if smooth { 6.0 - 12.0 * f[o] } else { 0.0 },
                                };
                                (0..dims).map(factor).product::<f64>() * scales[d] * scales[e]
                            })
                            .collect()
                    })
                    .collect(),
            }
        })
        .collect()
}

/// Output, gradient of the table, gradient of the positions.
pub fn reference(config: &GridEncodingConfig, x: &[f32], table: &[f32], dy: &[f32]) -> [Vec<Term>; 3] {
    let levels = config.level_table().expect("a good configuration");
    let (features, dims) = (config.features as usize, config.dims as usize);
    let mut y = Vec::new();
    let mut dtable = vec![(0.0, 0.0); table.len()];
    let mut dx = vec![(0.0, 0.0); x.len()];
    for n in 0..config.points as usize {
        let point = &x[n * dims..][..dims];
        for (l, level) in levels.iter().enumerate() {
            let corners = corners(config, level, point);
            for c in 0..features {
                let g = f64::from(dy[(n * levels.len() + l) * features + c]);
                let mut sum = (0.0, 0.0);
                for corner in &corners {
                    let t = f64::from(table[corner.entry * features + c]);
                    // A weight is 1 - t for some t up to 1: its rounding is relative to 1.
                    sum = (sum.0 + corner.weight * t, sum.1 + t.abs());
                    let d = &mut dtable[corner.entry * features + c];
                    *d = (d.0 + corner.weight * g, d.1 + g.abs());
                    for (axis, slope) in corner.slope.iter().enumerate() {
                        let dx = &mut dx[n * dims + axis];
                        let scale = 1.5 * f64::from(level.scale);
                        *dx = (dx.0 + slope * t * g, dx.1 + (t * g).abs() * scale);
                    }
                }
                y.push(sum);
            }
        }
    }
    [y, dtable, dx]
}

const VARIANTS: [GridEncodingVariant; 4] = [
    GridEncodingVariant::FixedPoint,
    GridEncodingVariant::Sorted { levels_at_once: 1 },
    GridEncodingVariant::Sorted { levels_at_once: 3 },
    GridEncodingVariant::Sorted { levels_at_once: 32 },
];

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "two axes swapped",
        kernel: "radial/grid_encoding",
        shader: "radial/grid_encoding::forward",
        find: "let w = corner_weight(t, corner);",
        replace: "let w = corner_weight(t.yxz, corner);",
    },
    Canary {
        bug: "every level in the table of the first",
        kernel: "radial/grid_encoding",
        shader: "radial/grid_encoding::forward",
        find: "return level.first + index % level.entries;",
        replace: "return index % level.entries;",
    },
    Canary {
        bug: "the high word of a negative term forgotten",
        kernel: "radial/grid_encoding",
        shader: "radial/grid_encoding::backward_table",
        find: "if high != 0u { atomicAdd(&sums[2u * (at + c) + 1u], high); }",
        replace: "",
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(5);
    let base = GridEncodingConfig { levels: 4, log2_table_size: 8, base_resolution: 5, ..Default::default() };
    let smooth = Interpolation::Smoothstep;
    let rows = [
        base,
        GridEncodingConfig { points: 63, features: 1, ..base },
        GridEncodingConfig { points: 64, features: 4, interpolation: smooth, ..base },
        GridEncodingConfig { points: 65, features: 8, align_corners: true, ..base },
        GridEncodingConfig { points: 257, kind: GridKind::Dense, growth: 1.3, ..base },
        GridEncodingConfig { points: 127, dims: 3, ..base },
        GridEncodingConfig {
            points: 300,
            dims: 3,
            interpolation: smooth,
            kind: GridKind::Dense,
            levels: 2,
            ..base
        },
        GridEncodingConfig { points: 1000, levels: 16, log2_table_size: 10, base_resolution: 16, ..base },
        GridEncodingConfig { points: 100, levels: 1, base_resolution: 1, growth: 1.0, ..base },
        GridEncodingConfig {
            points: 501,
            levels: 7,
            log2_table_size: 3,
            dims: 3,
            align_corners: true,
            ..base
        },
    ];
    for config in rows {
        cases.extend(all(config, 1.0, &mut random));
    }
    // Runs of more than SPAN^2 contributions, and levels sorted two and three at once.
    let long = GridEncodingConfig { points: 1500, levels: 1, base_resolution: 1, growth: 1.0, ..base };
    cases.extend(backward_table(long, 1.0, &mut random));
    let long = GridEncodingConfig { points: 2100, levels: 5, log2_table_size: 4, ..base };
    cases.extend(backward_table(long, 1.0, &mut random));
    // Gradients of any size keep their digits: the fixed point follows the largest.
    cases.extend(all(GridEncodingConfig { points: 200, ..base }, 1e-20, &mut random));
    cases.extend(all(GridEncodingConfig { points: 200, ..base }, 1e20, &mut random));
    for variant in VARIANTS {
        cases.push(not_finite(GridEncodingConfig { variant: Some(variant), ..base }));
    }
    cases
}

/// Inputs of one row of the table, what must come out, and its bound.
struct Row {
    name: String,
    x: Vec<f32>,
    table: Vec<f32>,
    dy: Vec<f32>,
    /// Output, gradient of the table, gradient of the positions.
    expected: [Vec<Term>; 3],
    ulps: f64,
}

impl Row {
    fn new(config: &GridEncodingConfig, size: f32, random: &mut Random) -> Self {
        let n = config.points as usize;
        let mut x = random.vec(n * config.dims as usize, 0.0, 1.0);
        for (x, special) in x.iter_mut().step_by(5).zip([0.0, 1.0, 0.5, -0.25, 1.5, 0.999_999_94]) {
            *x = special;
        }
        let table = random.vec(config.parameter_count().expect("fits") as usize, -1.0, 1.0);
        let dy = random.vec(n * config.outputs() as usize, -size, size);
        let expected = reference(config, &x, &table, &dy);
        // p is scale x + 0.5 with or without a fused multiply-add: f is off by 2^-24 times the scale,
        // and so is each weight; the slopes along the other axes are off by as much.
        let levels = config.level_table().expect("fits");
        let finest = levels.iter().map(|l| f64::from(l.scale)).fold(1.0, f64::max);
        Self { name: format!("{config:?}, dy {size:e}"), x, table, dy, expected, ulps: 2.0 * finest + 16.0 }
    }
}

fn all(config: GridEncodingConfig, size: f32, random: &mut Random) -> Vec<Case> {
    let row = Row::new(&config, size, random);
    let name = &row.name;
    let forward = Case::new("radial/grid_encoding", format!("forward {name}"), move |context, b| {
        let args =
            GridEncodingForwardArgs { positions: b["positions"], table: b["table"], encoded: b["encoded"] };
        GridEncodingForward::new(context, config)?.prepare(&args)
    })
    .input("positions", &row.x)
    .input("table", &row.table)
    .output("encoded", Expected::near(&row.expected[0], row.ulps, 0.0));
    let to_input = Case::new("radial/grid_encoding", format!("backward_input {name}"), move |context, b| {
        let args = GridEncodingBackwardInputArgs {
            positions: b["positions"],
            table: b["table"],
            dy: b["dy"],
            dx: b["dx"],
        };
        GridEncodingBackwardInput::new(context, config)?.prepare(&args)
    })
    .input("positions", &row.x)
    .input("table", &row.table)
    .input("dy", &row.dy)
    .output("dx", Expected::near(&row.expected[2], row.ulps, 0.0));
    let mut cases = vec![forward, to_input];
    cases.extend(VARIANTS.map(|variant| to_table(config, variant, size, &row)));
    cases
}

fn backward_table(config: GridEncodingConfig, size: f32, random: &mut Random) -> [Case; 4] {
    let row = Row::new(&config, size, random);
    VARIANTS.map(|variant| to_table(config, variant, size, &row))
}

fn to_table(config: GridEncodingConfig, variant: GridEncodingVariant, size: f32, row: &Row) -> Case {
    let Row { name, x, dy, expected, ulps, .. } = row;
    let n = f64::from(config.points);
    let config = GridEncodingConfig { variant: Some(variant), ..config };
    let (ulps, absolute) = match variant {
        // Each term is rounded to max|dy| 2^-30 besides: below a unit of its magnitude in the mean,
        // and at most 2^-30 max|dy| for each of the points.
        GridEncodingVariant::FixedPoint => (*ulps, f64::from(size) * n / 2f64.powi(29)),
        // A term takes part in at most 32 additions in its block, 32 in its span, and in the walk
        // along the row in 31 single ones and 31 blocks at either end and one for each 1,024
        // contributions; each is off by half a unit of a sum that is at most the magnitude.
        GridEncodingVariant::Sorted { .. } => (*ulps + 96.0 + n * 8.0 / 1024.0, 0.0),
    };
    Case::new("radial/grid_encoding", format!("backward_table {variant:?} {name}"), move |context, b| {
        let kernel = GridEncodingBackwardTable::new(context, config)?;
        kernel.prepare(&GridEncodingBackwardTableArgs {
            positions: b["positions"],
            dy: b["dy"],
            dtable: b["dtable"],
            scratch: &b.scratch(&kernel)?,
        })
    })
    .input("positions", x)
    .input("dy", dy)
    .output("dtable", Expected::near(&expected[1], ulps, absolute))
}

/// One NaN in dy: the gradient of the table is NaN, not something that looks like a number; sorted,
/// only where it belongs.
fn not_finite(config: GridEncodingConfig) -> Case {
    let table = config.parameter_count().expect("fits") as usize;
    let mut dy = vec![1.0; config.outputs() as usize];
    dy[3] = f32::NAN;
    let x = [0.3, 0.6];
    let expected = match config.variant {
        Some(GridEncodingVariant::Sorted { .. }) => {
            let [_, dtable, _] = reference(&config, &x, &vec![0.0; table], &dy);
            dtable
        }
        _ => vec![(f64::NAN, 0.0); table],
    };
    let name = format!("backward_table of NaN {:?}", config.variant);
    // The weights are off by a unit of the finest level's scale, 17.
    let ulps = 64.0;
    Case::new("radial/grid_encoding", name, move |context, b| {
        let kernel = GridEncodingBackwardTable::new(context, config)?;
        kernel.prepare(&GridEncodingBackwardTableArgs {
            positions: b["positions"],
            dy: b["dy"],
            dtable: b["dtable"],
            scratch: &b.scratch(&kernel)?,
        })
    })
    .input("positions", &x)
    .input("dy", &dy)
    .output("dtable", Expected::near(&expected, ulps, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(6);
        for interpolation in [Interpolation::Linear, Interpolation::Smoothstep] {
            let config = GridEncodingConfig {
                dims: 3,
                levels: 2,
                log2_table_size: 6,
                base_resolution: 4,
                points: 1,
                interpolation,
                ..Default::default()
            };
            // Inside of one cell on both levels.
            let x = [0.4, 0.55, 0.61];
            let table = random.vec(config.parameter_count().unwrap() as usize, -1.0, 1.0);
            let dy = random.vec(4, -1.0, 1.0);
            let [_, dtable, dx] = reference(&config, &x, &table, &dy);
            let loss = |x: &[f32], table: &[f32]| -> f64 {
                let [y, ..] = reference(&config, x, table, &dy);
                y.iter().zip(&dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
            };
            let h = 1.0 / 256.0;
            for d in 0..3 {
                let (mut up, mut down) = (x, x);
                up[d] += h;
                down[d] -= h;
                let slope = (loss(&up, &table) - loss(&down, &table)) / f64::from(up[d] - down[d]);
                assert!((slope - dx[d].0).abs() < 2e-3, "{interpolation:?} {d}: {slope} {}", dx[d].0);
            }
            for at in (0..table.len()).filter(|&at| dtable[at].1 > 0.0) {
                let (mut up, mut down) = (table.clone(), table.clone());
                up[at] += 0.5;
                down[at] -= 0.5;
                let slope = (loss(&x, &up) - loss(&x, &down)) / f64::from(up[at] - down[at]);
                assert!((slope - dtable[at].0).abs() < 1e-9);
            }
        }
    }
}
