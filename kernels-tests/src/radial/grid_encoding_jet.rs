//! Reference and cases of `radial::grid_encoding_jet`.

use patchfield::Kernel;
use patchfield::radial::Differential::{Along, Jet};
use patchfield::radial::grid_encoding::*;
use patchfield::radial::grid_encoding_jet::*;

use super::grid_encoding::corners;
use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

type Term = (f64, f64);

/// Inputs of a case.
#[derive(Clone)]
pub struct Inputs {
    pub x: Vec<f32>,
    pub table: Vec<f32>,
    pub direction: Vec<f32>,
    pub dy: Vec<f32>,
}

/// Output, gradient of the table, gradient of the positions.
///
/// Magnitudes: a weight is at most 1, its first derivative 1.5 times the scale, its second 6 times
/// the square. Where a point lies in its cell is off by 2^-24 of the scale, and then the first
/// derivative by up to 10.5 times as much (6 of its own, 1.5 x 1.5 through each other axis), the second
/// by up to 30 (12, and 6 x 1.5 through each other axis): a tenth to a half of what stands below.
pub fn reference(config: &GridEncodingJetConfig, inputs: &Inputs) -> [Vec<Term>; 3] {
    let grid = &config.grid;
    let levels = grid.level_table().expect("a good configuration");
    let (features, dims) = (grid.features as usize, grid.dims as usize);
    let plane = (grid.points * grid.outputs()) as usize;
    let mut y = vec![(0.0, 0.0); config.output_count().expect("fits") as usize];
    let mut dtable = vec![(0.0, 0.0); inputs.table.len()];
    let mut dx = vec![(0.0, 0.0); inputs.x.len()];
    let add = |sum: &mut Term, value: f64, size: f64| *sum = (sum.0 + value, sum.1 + size);
    for n in 0..grid.points as usize {
        for (l, level) in levels.iter().enumerate() {
            let scale = f64::from(level.scale);
            let (slope_size, bend_size) = (6.0 * scale, 16.0 * scale * scale);
            for corner in corners(grid, level, &inputs.x[n * dims..][..dims]) {
                for c in 0..features {
                    let at = (n * levels.len() + l) * features + c;
                    let entry = corner.entry * features + c;
                    let table = f64::from(inputs.table[entry]);
                    let v = |t: usize| f64::from(inputs.direction[n * dims + t]);
                    // G_0, and G_t by axis.
                    let (value, tangents): (f64, Vec<f64>) = if config.differential == Along {
                        (0.0, (0..dims).map(|t| f64::from(inputs.dy[at]) * v(t)).collect())
                    } else {
                        let g = |p: usize| f64::from(inputs.dy[p * plane + at]);
                        (g(0), (0..dims).map(|t| g(1 + t)).collect())
                    };
                    if config.differential == Jet {
                        add(&mut y[at], table * corner.weight, table.abs());
                    }
                    add(&mut dtable[entry], value * corner.weight, value.abs());
                    for t in 0..dims {
                        let slope = corner.slope[t];
                        if config.differential == Along {
                            add(&mut y[at], table * slope * v(t), (table * v(t)).abs() * slope_size);
                        } else {
                            add(&mut y[(1 + t) * plane + at], table * slope, table.abs() * slope_size);
                        }
                        add(&mut dtable[entry], tangents[t] * slope, tangents[t].abs() * slope_size);
                        let to_x = &mut dx[n * dims + t];
                        add(to_x, table * value * slope, (table * value).abs() * slope_size);
                        for (e, g) in tangents.iter().enumerate() {
                            add(to_x, table * g * corner.bend[t][e], (table * g).abs() * bend_size);
                        }
                    }
                }
            }
        }
    }
    [y, dtable, dx]
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the mixed second derivatives forgotten",
        kernel: "radial/grid_encoding_jet",
        shader: "radial/grid_encoding::jet_backward_input",
        find: "s.second.x * v.y * v.z * u.x + d.x * (d.y * v.z * u.y + v.y * d.z * u.z),",
        replace: "s.second.x * v.y * v.z * u.x,",
    },
    Canary {
        bug: "the range of the values alone",
        kernel: "radial/grid_encoding_jet",
        shader: "radial/grid_encoding::jet_largest",
        find: "top = max(max(top, bound), max(max(bits.x, bits.y), max(bits.z, bits.w)));",
        replace: "top = max(top, bits.w);",
    },
    Canary {
        bug: "a derivative by the cell instead of by the position",
        kernel: "radial/grid_encoding_jet",
        shader: "radial/grid_encoding::jet_forward",
        find: "let slope = sum[c].xyz * rates;",
        replace: "let slope = sum[c].xyz;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(81);
    let smooth = GridEncodingConfig {
        levels: 3,
        log2_table_size: 7,
        base_resolution: 4,
        interpolation: Interpolation::Smoothstep,
        ..Default::default()
    };
    for (differential, grid) in [
        (Jet, smooth),
        (Jet, GridEncodingConfig { points: 63, features: 1, ..smooth }),
        (Jet, GridEncodingConfig { points: 65, features: 4, align_corners: true, ..smooth }),
        (Jet, GridEncodingConfig { points: 200, interpolation: Interpolation::Linear, ..smooth }),
        (Jet, GridEncodingConfig { points: 130, dims: 3, features: 8, levels: 2, ..smooth }),
        (Jet, GridEncodingConfig { points: 64, dims: 3, interpolation: Interpolation::Linear, ..smooth }),
        (Jet, GridEncodingConfig { points: 300, kind: GridKind::Dense, levels: 5, growth: 1.4, ..smooth }),
        (Along, GridEncodingConfig { points: 127, ..smooth }),
        (Along, GridEncodingConfig { points: 70, dims: 3, features: 1, ..smooth }),
        (Along, GridEncodingConfig { points: 33, interpolation: Interpolation::Linear, ..smooth }),
    ] {
        cases.extend(all(GridEncodingJetConfig { grid, differential }, 1.0, &mut random));
    }
    // Gradients of any size keep their digits: the fixed point follows the largest.
    let grid = GridEncodingConfig { points: 100, ..smooth };
    cases.extend(all(GridEncodingJetConfig { grid, differential: Jet }, 1e-20, &mut random));
    cases.extend(all(GridEncodingJetConfig { grid, differential: Jet }, 1e20, &mut random));
    cases.push(not_finite(GridEncodingJetConfig { grid: smooth, differential: Jet }));
    cases
}

fn inputs(config: &GridEncodingJetConfig, size: f32, random: &mut Random) -> Inputs {
    let n = (config.grid.points * config.grid.dims) as usize;
    let mut x = random.vec(n, 0.0, 1.0);
    for (x, special) in x.iter_mut().skip(2).step_by(5).zip([0.0, 1.0, 0.5, -0.25, 1.5, 0.999_999_94]) {
        *x = special;
    }
    Inputs {
        x,
        table: random.vec(config.grid.parameter_count().expect("fits") as usize, -1.0, 1.0),
        direction: random.vec(n, -1.0, 1.0),
        dy: random.vec(config.output_count().expect("fits") as usize, -size, size),
    }
}

fn all(config: GridEncodingJetConfig, size: f32, random: &mut Random) -> [Case; 3] {
    let inputs = inputs(&config, size, random);
    let [y, dtable, dx] = reference(&config, &inputs);
    let levels = config.grid.level_table().expect("fits");
    let finest = levels.iter().map(|l| f64::from(l.scale)).fold(1.0, f64::max);
    // As for the plain encoding.
    let ulps = 2.0 * finest + 16.0;
    // Each term is rounded to 2^-29 of the bound of all, besides.
    let bound = f64::from(size) * (1.0 + 1.5 * finest * f64::from(config.grid.dims));
    let absolute = bound * f64::from(config.grid.points) / 2f64.powi(29);
    let along = config.differential == Along;
    let name = format!("{config:?}, dy {size:e}");
    let forward = Case::new("radial/grid_encoding_jet", format!("forward {name}"), move |context, b| {
        let args = GridEncodingJetForwardArgs {
            positions: b["x"],
            table: b["table"],
            direction: along.then(|| b["direction"]),
            encoded: b["y"],
        };
        GridEncodingJetForward::new(context, config)?.prepare(&args)
    })
    .input("table", &inputs.table)
    .output("y", Expected::near(&y, ulps, 0.0));
    let to_input =
        Case::new("radial/grid_encoding_jet", format!("to the input {name}"), move |context, b| {
            let args = GridEncodingJetBackwardInputArgs {
                positions: b["x"],
                table: b["table"],
                direction: along.then(|| b["direction"]),
                dy: b["dy"],
                dx: b["dx"],
            };
            GridEncodingJetBackwardInput::new(context, config)?.prepare(&args)
        })
        .input("table", &inputs.table)
        .input("dy", &inputs.dy)
        .output("dx", Expected::near(&dx, ulps, 0.0));
    let to_table = to_table(config, format!("to the table {name}"))
        .input("dy", &inputs.dy)
        .output("dtable", Expected::near(&dtable, ulps, absolute));
    [forward, to_input, to_table].map(|case| case.input("x", &inputs.x).input("direction", &inputs.direction))
}

fn to_table(config: GridEncodingJetConfig, name: String) -> Case {
    let along = config.differential == Along;
    Case::new("radial/grid_encoding_jet", name, move |context, b| {
        let kernel = GridEncodingJetBackwardTable::new(context, config)?;
        kernel.prepare(&GridEncodingJetBackwardTableArgs {
            positions: b["x"],
            direction: along.then(|| b["direction"]),
            dy: b["dy"],
            dtable: b["dtable"],
            scratch: &b.scratch(&kernel)?,
        })
    })
}

/// One NaN in dy: the gradient of the table is NaN, not something that looks like a number.
fn not_finite(config: GridEncodingJetConfig) -> Case {
    let table = config.grid.parameter_count().expect("fits") as usize;
    let mut dy = vec![1.0; config.output_count().expect("fits") as usize];
    dy[3] = f32::NAN;
    to_table(config, "to the table, of NaN".into())
        .input("x", &[0.3, 0.6])
        .input("dy", &dy)
        .output("dtable", Expected::near(&vec![(f64::NAN, 0.0); table], 0.0, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(82);
        for (interpolation, dims) in [(Interpolation::Linear, 3), (Interpolation::Smoothstep, 2)] {
            for differential in [Jet, Along] {
                let grid = GridEncodingConfig {
                    dims,
                    levels: 2,
                    log2_table_size: 6,
                    base_resolution: 4,
                    growth: 2.0,
                    interpolation,
                    ..Default::default()
                };
                let config = GridEncodingJetConfig { grid, differential };
                let mut inputs = inputs(&config, 1.0, &mut random);
                // Inside of one cell on both levels (scales 3 and 7), exact in f32 with the step.
                inputs.x = vec![0.390_625, 0.546_875, 0.609_375][..dims as usize].to_vec();
                let [y, dtable, dx] = reference(&config, &inputs);
                let loss = |inputs: &Inputs| -> f64 {
                    let [y, ..] = reference(&config, inputs);
                    y.iter().zip(&inputs.dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
                };
                let h = 1.0 / 8192.0;
                for d in 0..dims as usize {
                    let moved = |h: f32| {
                        let mut moved = inputs.clone();
                        moved.x[d] += h;
                        moved
                    };
                    let slope = (loss(&moved(h)) - loss(&moved(-h))) / (2.0 * f64::from(h));
                    assert!((slope - dx[d].0).abs() < 2e-4, "{config:?} {d}: {slope} {}", dx[d].0);
                    if differential == Jet {
                        let plane = grid.outputs() as usize;
                        let value = |h: f32| reference(&config, &moved(h))[0][0].0;
                        let slope = (value(h) - value(-h)) / (2.0 * f64::from(h));
                        assert!((slope - y[(1 + d) * plane].0).abs() < 1e-5, "{slope}");
                    }
                }
                for at in (0..inputs.table.len()).filter(|&at| dtable[at].1 > 0.0) {
                    let (mut up, mut down) = (inputs.clone(), inputs.clone());
                    up.table[at] += 0.5;
                    down.table[at] -= 0.5;
                    let slope = (loss(&up) - loss(&down)) / f64::from(up.table[at] - down.table[at]);
                    assert!((slope - dtable[at].0).abs() < 1e-6);
                }
            }
        }
    }
}
