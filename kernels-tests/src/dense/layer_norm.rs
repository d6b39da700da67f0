//! Reference and cases of `dense::layer_norm`.

use patchfield::Kernel;
use patchfield::dense::layer_norm::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "dense/layer_norm";

/// What a normalisation gives: each value with the sum of the magnitudes of its terms.
#[derive(Default)]
pub struct Reference {
    pub y: Vec<(f64, f64)>,
    pub statistics: Vec<(f64, f64)>,
    pub dh: Vec<(f64, f64)>,
    pub dweight: Vec<(f64, f64)>,
    pub dbias: Vec<(f64, f64)>,
}

/// Both passes over the rows of `h`; `weight` and `bias` hold ones and zeros where there are none.
pub fn reference(
    config: &LayerNormConfig,
    h: &[f64],
    weight: &[f64],
    bias: &[f64],
    dy: &[f64],
    dhidden: &[f64],
) -> Reference {
    let n = config.width as usize;
    let wide = f64::from(config.width);
    let rms = config.normalisation == Normalisation::RootMeanSquare;
    let mut out =
        Reference { dweight: vec![(0.0, 0.0); n], dbias: vec![(0.0, 0.0); n], ..Default::default() };
    let mean = |terms: &mut dyn Iterator<Item = f64>| terms.sum::<f64>() / wide;
    for (row, h) in h.chunks(n).enumerate() {
        let dy = &dy[row * n..][..n];
        let (m, m_size) = if rms {
            (0.0, 0.0)
        } else {
            (mean(&mut h.iter().copied()), mean(&mut h.iter().map(|v| v.abs())))
        };
        let variance = mean(&mut h.iter().map(|v| (v - m).powi(2)));
        // The squares are summed in f32.
        let s = if variance * wide > f64::from(f32::MAX) {
            f64::NAN
        } else {
            1.0 / (variance + f64::from(config.epsilon)).sqrt()
        };
        out.statistics.extend([(m, m_size), (s, s)]);
        let z: Vec<_> = h.iter().map(|v| ((v - m) * s, (v.abs() + m_size + (v - m).abs()) * s)).collect();
        let g: Vec<_> = dy.iter().zip(weight).map(|(d, w)| d * w).collect();
        let mean_g = if rms { 0.0 } else { mean(&mut g.iter().copied()) };
        let g_size = if rms { 0.0 } else { mean(&mut g.iter().map(|v| v.abs())) };
        let mean_gz = mean(&mut g.iter().zip(&z).map(|(g, z)| g * z.0));
        let gz_size = mean(&mut g.iter().zip(&z).map(|(g, z)| g.abs() * z.1));
        for i in 0..n {
            out.y.push((z[i].0 * weight[i] + bias[i], z[i].1 * weight[i].abs() + bias[i].abs()));
            let size = g[i].abs() + g_size + z[i].0.abs() * gz_size + z[i].1 * mean_gz.abs();
            let skip = dhidden[row * n + i];
            out.dh.push((s * (g[i] - mean_g - z[i].0 * mean_gz) + skip, s * size + skip.abs()));
            let sum = &mut out.dweight[i];
            *sum = (sum.0 + dy[i] * z[i].0, sum.1 + dy[i].abs() * z[i].1);
            let sum = &mut out.dbias[i];
            *sum = (sum.0 + dy[i], sum.1 + dy[i].abs());
        }
    }
    out
}

/// A value in the middle of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rows {
    /// About as large as their mean.
    Plain,
    /// A mean 100 times the deviation, and every fourth row constant.
    Shifted,
    /// One row holds this value.
    With(f32),
}

fn case(config: LayerNormConfig, rows: Rows, random: &mut Random) -> Case {
    let (n, count) = (config.width as usize, (config.rows * config.width) as usize);
    let mut x = random.vec(count, -2.0, 3.0);
    match rows {
        Rows::Plain => {}
        Rows::Shifted => {
            for (row, x) in x.chunks_mut(n).enumerate() {
                x.iter_mut().for_each(|x| *x = if row % 4 == 3 { 7.7 } else { *x + 100.0 });
            }
        }
        Rows::With(value) => x[config.rows as usize / 2 * n + n / 2] = value,
    }
    let residual = if config.residual { random.vec(count, -1.0, 1.0) } else { vec![0.0; count] };
    let h: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
    let (dy, dhidden) = (random.vec(count, -1.0, 2.0), random.vec(count, -1.0, 1.0));
    let weight = random.vec(n, 0.5, 2.0);
    let bias = random.vec(n, -1.0, 1.0);
    let (has_weight, has_bias) = (config.affine != Affine::None, config.affine == Affine::WeightAndBias);
    let wide = |v: &[f32], there: bool, other: f64| -> Vec<f64> {
        v.iter().map(|&v| if there { v.into() } else { other }).collect()
    };
    let expected = reference(
        &config,
        &wide(&h, true, 0.0),
        &wide(&weight, has_weight, 1.0),
        &wide(&bias, has_bias, 0.0),
        &wide(&dy, true, 0.0),
        &wide(&dhidden, config.residual, 0.0),
    );
    // Additions to a mean: those of a lane, 2 of its four lanes' sum, 8 of the tree at the most, and
    // the factor. z: a mean, half of that for the deviation (the root halves), 6 of its own; y: 2.
    let lanes = if config.variant == Some(LayerNormVariant::Workgroup) { 2.0 } else { 1.0 };
    let mean = f64::from(config.width) / lanes + 11.0;
    let z = 1.5 * mean + 8.0;
    // A sum over rows: 256 of a block, and all blocks.
    let rows_sum = f64::from(config.rows).min(256.0) + f64::from(config.rows) / 256.0 + 1.0;
    let name = format!("{config:?}, {rows:?}");
    let residual_wanted = config.residual;
    let mut case = Case::new(KERNEL, name, move |context, b| {
        let forward = LayerNormForward::new(context, config)?;
        let mut recording = forward.prepare(&LayerNormForwardArgs {
            x: b["x"],
            residual: residual_wanted.then(|| b["residual"]),
            weight: has_weight.then(|| b["weight"]),
            bias: has_bias.then(|| b["bias"]),
            hidden: residual_wanted.then(|| b["hidden"]),
            y: b["y"],
            statistics: b["statistics"],
        })?;
        let backward = LayerNormBackward::new(context, config)?;
        recording.append(backward.prepare(&LayerNormBackwardArgs {
            h: if residual_wanted { b["hidden"] } else { b["x"] },
            statistics: b["statistics"],
            weight: has_weight.then(|| b["weight"]),
            dy: b["dy"],
            dhidden: residual_wanted.then(|| b["dhidden"]),
            dh: b["dh"],
            dweight: has_weight.then(|| b["dweight"]),
            dbias: has_bias.then(|| b["dbias"]),
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("x", &x)
    .input("dy", &dy)
    .output("y", Expected::near(&expected.y, z + 2.0, 0.0))
    .output("statistics", Expected::near(&expected.statistics, mean + 4.0, 0.0))
    .output("dh", Expected::near(&expected.dh, z + mean + 8.0, 0.0));
    if residual_wanted {
        case = case
            .input("residual", &residual)
            .input("dhidden", &dhidden)
            .output("hidden", Expected::Exact(h.iter().map(|v| v.to_bits()).collect()));
    }
    if has_weight {
        let dweight = Expected::near(&expected.dweight, z + rows_sum, 0.0);
        case = case.input("weight", &weight).output("dweight", dweight);
    }
    if has_bias {
        let dbias = Expected::near(&expected.dbias, rows_sum, 0.0);
        case = case.input("bias", &bias).output("dbias", dbias);
    }
    case
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the variance of the mean square less the squared mean",
        kernel: KERNEL,
        shader: "dense/layer_norm::forward",
        find: "let d = x[base + i] - mean;
        squares += d * d;
    }
    let s = inverse_deviation(row_sum(vec2<f32>(lanes_sum(squares), 0.0), local).x);",
        replace: "let d = x[base + i];
        squares += d * d;
    }
    let s = inverse_deviation(row_sum(vec2<f32>(lanes_sum(squares), 0.0), local).x
                              - mean * mean / params.inverse_width);",
    },
    Canary {
        bug: "a gradient that skips the mean's",
        kernel: KERNEL,
        shader: "dense/layer_norm::backward",
        find: "let mean_g = select(means.x, 0.0, RMS);",
        replace: "let mean_g = 0.0;",
    },
    Canary {
        bug: "the statistics of the workgroup's first row for all of its rows",
        kernel: KERNEL,
        shader: "dense/layer_norm::backward",
        find: "let at_row = min(row, params.rows - 1u);",
        replace: "let at_row = min(group * (WORKGROUP / LANES), params.rows - 1u);",
    },
    Canary {
        bug: "the last rows of a short block",
        kernel: KERNEL,
        shader: "dense/layer_norm::columns",
        find: "min((block + 1u) * params.block, params.rows)",
        replace: "min((block + 1u) * params.block, params.rows - params.rows % 2u)",
    },
];

pub fn cases() -> Vec<Case> {
    use LayerNormVariant::{Invocation, Workgroup};
    let mut random = Random::new(51);
    let mut cases = Vec::new();
    let shapes =
        [(1, 1), (3, 2), (65, 3), (5, 63), (7, 64), (6, 65), (257, 8), (33, 197), (9, 768), (1031, 12)];
    for (i, (rows, width)) in shapes.into_iter().enumerate() {
        for variant in [Invocation, Workgroup] {
            for residual in [false, true] {
                // Few combinations of what is compiled in, each with several widths.
                let rms = i % 3 == 2;
                let config = LayerNormConfig {
                    rows,
                    width,
                    normalisation: if rms { Normalisation::RootMeanSquare } else { Normalisation::Layer },
                    affine: if rms { Affine::Weight } else { Affine::WeightAndBias },
                    residual,
                    epsilon: 1e-5,
                    variant: Some(variant),
                };
                let kind = if i % 2 == 1 { Rows::Shifted } else { Rows::Plain };
                cases.push(case(config, kind, &mut random));
            }
        }
    }
    for variant in [Invocation, Workgroup] {
        let config = LayerNormConfig { rows: 67, width: 20, variant: Some(variant), ..Default::default() };
        for value in [f32::NAN, f32::INFINITY, -1e30] {
            cases.push(case(config, Rows::With(value), &mut random));
        }
        for value in [1e15, 1e-30] {
            cases.push(case(config, Rows::With(value), &mut random));
        }
        cases.push(case(LayerNormConfig { affine: Affine::None, ..config }, Rows::Plain, &mut random));
    }
    let wide = LayerNormConfig { rows: 2, width: 4100, variant: Some(Workgroup), ..Default::default() };
    cases.push(case(wide, Rows::Plain, &mut random));
    // More workgroups than one row of the grid holds.
    let long = LayerNormConfig { rows: 262_149, width: 1, variant: Some(Workgroup), ..Default::default() };
    cases.push(case(LayerNormConfig { variant: Some(Invocation), ..long }, Rows::Plain, &mut random));
    // Rows that an invocation by itself would take more rounds for than Mesa's llvmpipe lets it have.
    let wide = LayerNormConfig { width: 32_771, variant: None, ..wide };
    cases.push(case(wide, Rows::Plain, &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let mut random = Random::new(52);
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
        for normalisation in [Normalisation::Layer, Normalisation::RootMeanSquare] {
            let config = LayerNormConfig { rows: 3, width: 5, normalisation, ..Default::default() };
            let h = wide(random.vec(15, -2.0, 3.0));
            let (weight, bias) = (wide(random.vec(5, 0.5, 2.0)), wide(random.vec(5, -1.0, 1.0)));
            let (dy, dhidden) = (wide(random.vec(15, -1.0, 1.0)), wide(random.vec(15, -1.0, 1.0)));
            let loss = |h: &[f64], weight: &[f64], bias: &[f64]| -> f64 {
                let y = reference(&config, h, weight, bias, &dy, &dhidden).y;
                let skip: f64 = h.iter().zip(&dhidden).map(|(h, d)| h * d).sum();
                y.iter().zip(&dy).map(|(y, d)| y.0 * d).sum::<f64>() + skip
            };
            let gradient = reference(&config, &h, &weight, &bias, &dy, &dhidden);
            let step = 1e-6;
            let check = |which: usize, i: usize, got: f64| {
                let at = |by: f64| {
                    let mut all = [h.clone(), weight.clone(), bias.clone()];
                    all[which][i] += by;
                    loss(&all[0], &all[1], &all[2])
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - got).abs() < 1e-7, "{normalisation:?} {which} {i}: {slope} {got}");
            };
            for i in 0..15 {
                check(0, i, gradient.dh[i].0);
            }
            for i in 0..5 {
                check(1, i, gradient.dweight[i].0);
                check(2, i, gradient.dbias[i].0);
            }
        }
    }
}
