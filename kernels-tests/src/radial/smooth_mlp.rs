//! Reference and cases of `radial::smooth_mlp`.

use patchfield::Kernel;
use patchfield::dense::Activation;
use patchfield::dispatch::Scratch;
use patchfield::radial::smooth_mlp::*;

use crate::canaries::Canary;
use crate::dense::activation::reference as activation;
use crate::dense::activation_jet::second_derivative;
use crate::harness::{Case, Data, Expected, Random};

type Term = (f64, f64);

/// The largest first, second and third derivative of an activation.
fn largest_derivatives(activation: Activation) -> [f64; 3] {
    match activation {
        Activation::Identity => [1.0, 0.0, 0.0],
        Activation::Sine { frequency } => [1, 2, 3].map(|n| f64::from(frequency).powi(n)),
        _ => [1.13, 1.0, 2.0],
    }
}

/// What a network gives, and the gradients of `sum dy y`.
pub struct Reference {
    /// Values and tangents, `[1 + T, N, outputs]`.
    pub y: Vec<Term>,
    pub dx: Vec<Term>,
    /// Of each layer.
    pub dweights: Vec<Vec<Term>>,
    pub dbiases: Vec<Vec<Term>>,
}

/// One network. Each term carries the magnitude of what rounding could make of it.
pub fn reference(
    config: &SmoothMlpConfig,
    x: &[f32],
    weights: &[Vec<f32>],
    biases: &[Vec<f32>],
    dy: &[f32],
) -> Reference {
    let sizes = config.layer_sizes();
    let (points, planes) = (config.points as usize, 1 + config.tangents as usize);
    let function = |l: usize| {
        if l + 1 == sizes.len() { config.output_activation } else { config.activation }
    };
    let term = |v: f32| (f64::from(v), f64::from(v.abs()));
    let mut out = Reference {
        y: vec![(0.0, 0.0); planes * points * config.outputs as usize],
        dx: vec![(0.0, 0.0); x.len()],
        dweights: weights.iter().map(|w| vec![(0.0, 0.0); w.len()]).collect(),
        dbiases: biases.iter().map(|b| vec![(0.0, 0.0); b.len()]).collect(),
    };
    for n in 0..points {
        let row = |all: &[f32], width: usize| -> Vec<Vec<Term>> {
            (0..planes)
                .map(|p| all[(p * points + n) * width..][..width].iter().map(|&v| term(v)).collect())
                .collect()
        };
        // Per layer: what comes in, and what goes into the activation; each by plane.
        let mut inputs = vec![row(x, config.inputs as usize)];
        let mut sums: Vec<Vec<Vec<Term>>> = Vec::new();
        for (l, &(fan_in, fan_out)) in sizes.iter().enumerate() {
            let z: Vec<Vec<Term>> = (0..planes)
                .map(|p| {
                    (0..fan_out as usize)
                        .map(|o| {
                            let bias = if p == 0 { term(biases[l][o]) } else { (0.0, 0.0) };
                            (0..fan_in as usize).fold(bias, |sum, i| {
                                let w = f64::from(weights[l][o * fan_in as usize + i]);
                                let x = inputs[l][p][i];
                                (sum.0 + w * x.0, sum.1 + w.abs() * x.1)
                            })
                        })
                        .collect()
                })
                .collect();
            let [most1, most2, _] = largest_derivatives(function(l));
            let y = (0..planes)
                .map(|p| {
                    (0..fan_out as usize)
                        .map(|o| {
                            let (value, slope) = activation(function(l), z[0][o].0);
                            let s = z[p][o];
                            if p == 0 {
                                (value, value.abs() + most1 * s.1)
                            } else {
                                (slope * s.0, most1 * s.1 + most2 * z[0][o].1 * s.0.abs())
                            }
                        })
                        .collect()
                })
                .collect();
            sums.push(z);
            inputs.push(y);
        }
        for (p, plane) in inputs[sizes.len()].iter().enumerate() {
            let width = config.outputs as usize;
            out.y[(p * points + n) * width..][..width].copy_from_slice(plane);
        }
        let mut g = row(dy, config.outputs as usize);
        for (l, &(fan_in, fan_out)) in sizes.iter().enumerate().rev() {
            let [most1, most2, most3] = largest_derivatives(function(l));
            let mut dz = g.clone();
            for o in 0..fan_out as usize {
                let s = sums[l][0][o];
                let slope = activation(function(l), s.0).1;
                let curvature = second_derivative(function(l), s.0);
                for p in 0..planes {
                    let g = g[p][o];
                    dz[p][o] = (slope * g.0, most1 * g.1 + most2 * s.1 * g.0.abs());
                }
                for p in 1..planes {
                    let (g, t) = (g[p][o], sums[l][p][o]);
                    let size = most2 * (g.1 * t.0.abs() + g.0.abs() * t.1);
                    dz[0][o].0 += curvature * g.0 * t.0;
                    dz[0][o].1 += size + most3 * s.1 * (g.0 * t.0).abs();
                }
                let bias = &mut out.dbiases[l][o];
                *bias = (bias.0 + dz[0][o].0, bias.1 + dz[0][o].1);
            }
            g = vec![vec![(0.0, 0.0); fan_in as usize]; planes];
            for p in 0..planes {
                for o in 0..fan_out as usize {
                    let d = dz[p][o];
                    for i in 0..fan_in as usize {
                        let x = inputs[l][p][i];
                        let w = &mut out.dweights[l][o * fan_in as usize + i];
                        *w = (w.0 + d.0 * x.0, w.1 + d.1 * x.0.abs() + d.0.abs() * x.1);
                        let w = f64::from(weights[l][o * fan_in as usize + i]);
                        g[p][i] = (g[p][i].0 + d.0 * w, g[p][i].1 + d.1 * w.abs());
                    }
                }
            }
        }
        for (p, plane) in g.iter().enumerate() {
            let width = config.inputs as usize;
            out.dx[(p * points + n) * width..][..width].copy_from_slice(plane);
        }
    }
    out
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the tangents' part of the gradient of the values forgotten",
        kernel: "radial/smooth_mlp",
        shader: "dense/activation_jet::backward",
        find: "if params.tangents > 0u { total +=",
        replace: "if params.tangents > 9u { total +=",
    },
    Canary {
        bug: "a tangent by the slope of the value instead of that of what went in",
        kernel: "radial/smooth_mlp",
        shader: "dense/activation_jet::forward",
        find: "let slope = derivative_each(s, params.parameter);
    for",
        replace: "let slope = derivative_each(y[value], params.parameter);
    for",
    },
    Canary {
        bug: "the tangents' gradient without the slope",
        kernel: "radial/smooth_mlp",
        shader: "dense/activation_jet::backward",
        find: "dz[at] = slope * dy[at];",
        replace: "dz[at] = dy[at];",
    },
    Canary {
        bug: "the first network's bias for all",
        kernel: "radial/smooth_mlp",
        shader: "dense/activation_jet::forward",
        find: "bias[item / params.plane * params.features + item % params.features]",
        replace: "bias[item % params.features]",
    },
    Canary {
        bug: "one tangent too few",
        kernel: "radial/smooth_mlp",
        shader: "dense/activation_jet::forward",
        find: "t <= params.tangents; t++) {
        let at = value + t * params.plane;
        y[at]",
        replace: "t < params.tangents; t++) {
        let at = value + t * params.plane;
        y[at]",
    },
];

const NAMES: [[&str; 4]; 4] = [
    ["w0", "b0", "dw0", "db0"],
    ["w1", "b1", "dw1", "db1"],
    ["w2", "b2", "dw2", "db2"],
    ["w3", "b3", "dw3", "db3"],
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(64);
    let base = SmoothMlpConfig { inputs: 3, width: 8, layers: 2, outputs: 2, ..Default::default() };
    let soft = SmoothMlpConfig { activation: Activation::Softplus, tangents: 3, ..base };
    [
        SmoothMlpConfig { points: 1, ..soft },
        SmoothMlpConfig { points: 37, width: 13, outputs: 1, ..soft },
        SmoothMlpConfig { points: 64, width: 32, inputs: 16, layers: 1, ..soft },
        SmoothMlpConfig { points: 33, activation: Activation::Silu, tangents: 2, ..base },
        SmoothMlpConfig { points: 20, activation: Activation::Tanh, tangents: 1, layers: 3, ..base },
        SmoothMlpConfig {
            points: 33,
            activation: Activation::Gelu,
            tangents: 2,
            output_activation: Activation::Sigmoid,
            ..base
        },
        SmoothMlpConfig { points: 29, activation: Activation::Sine { frequency: 3.0 }, tangents: 3, ..base },
        SmoothMlpConfig { points: 65, activation: Activation::Sine { frequency: 3.0 }, ..base },
        // Many small networks at once.
        SmoothMlpConfig { batch: 7, points: 19, activation: Activation::Sine { frequency: 3.0 }, ..base },
        SmoothMlpConfig { batch: 3, points: 64, width: 16, activation: Activation::Silu, ..base },
    ]
    .into_iter()
    .map(|config| case(config, &mut random))
    .collect()
}

fn case(config: SmoothMlpConfig, random: &mut Random) -> Case {
    let sizes = config.layer_sizes();
    let (batch, rows) = (config.batch as usize, (config.points * (1 + config.tangents)) as usize);
    let x = random.vec(batch * rows * config.inputs as usize, -1.0, 1.0);
    let dy = random.vec(batch * rows * config.outputs as usize, -1.0, 1.0);
    // By layer, then by network.
    let mut parameters = Vec::new();
    for &(fan_in, fan_out) in &sizes {
        let size = 1.0 / (fan_in as f32).sqrt();
        let w = random.vec(batch * (fan_in * fan_out) as usize, -size, size);
        parameters.push((w, random.vec(batch * fan_out as usize, -size, size)));
    }
    let part = |all: &[f32], b: usize| {
        let n = all.len() / batch;
        all[b * n..(b + 1) * n].to_vec()
    };
    let mut whole: Option<Reference> = None;
    for b in 0..batch {
        let weights: Vec<_> = parameters.iter().map(|(w, _)| part(w, b)).collect();
        let biases: Vec<_> = parameters.iter().map(|(_, bias)| part(bias, b)).collect();
        let one = reference(&config, &part(&x, b), &weights, &biases, &part(&dy, b));
        match &mut whole {
            None => whole = Some(one),
            Some(whole) => {
                whole.y.extend(one.y);
                whole.dx.extend(one.dx);
                for (all, one) in whole.dweights.iter_mut().zip(one.dweights) {
                    all.extend(one);
                }
                for (all, one) in whole.dbiases.iter_mut().zip(one.dbiases) {
                    all.extend(one);
                }
            }
        }
    }
    let whole = whole.expect("at least one network");
    // Roundings of each layer: a sum, and about 10 for an activation (its magnitude counts the bends
    // once). Backward the same again, and one for each row of the sums.
    let width = f64::from(config.width.max(config.inputs));
    let layers = f64::from(config.layers + 1);
    let forward = layers * (width + 12.0);
    let backward = 2.0 * forward;
    let summed = backward + rows as f64;
    let count = sizes.len();
    let mut case = Case::new("radial/smooth_mlp", format!("{config:?}"), move |context, b| {
        let kept = config.create_kept(context)?;
        let forward = SmoothMlpForward::new(context, config)?;
        let backward = SmoothMlpBackward::new(context, config)?;
        let layer = |weight: &str, bias: &str| SmoothLayer { weight: b[weight], bias: b[bias] };
        let layers: Vec<_> = NAMES[..count].iter().map(|[w, bias, ..]| layer(w, bias)).collect();
        let gradients: Vec<_> = NAMES[..count].iter().map(|[.., w, bias]| layer(w, bias)).collect();
        let poison = |scratch: Scratch| -> Scratch {
            for buffer in &scratch.0 {
                context.write(buffer, 0, &vec![0xff; buffer.size() as usize]).unwrap();
            }
            scratch
        };
        let kept = poison(kept);
        let mut recording = forward.prepare(&SmoothMlpForwardArgs {
            x: b["x"],
            layers: &layers,
            y: b["y"],
            kept: &kept,
            scratch: &b.scratch(&forward)?,
        })?;
        recording.append(backward.prepare(&SmoothMlpBackwardArgs {
            x: b["x"],
            layers: &layers,
            kept: &kept,
            dy: b["dy"],
            dx: Some(b["dx"]),
            gradients: &gradients,
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("x", &x)
    .read("dy", Data::F32(dy))
    .output("y", Expected::near(&whole.y, forward, 0.0))
    .output("dx", Expected::near(&whole.dx, backward, 0.0));
    for (l, (w, bias)) in parameters.iter().enumerate() {
        let [weight, of_bias, dweight, dbias] = NAMES[l];
        case = case
            .input(weight, w)
            .input(of_bias, bias)
            .output(dweight, Expected::near(&whole.dweights[l], summed, 0.0))
            .output(dbias, Expected::near(&whole.dbiases[l], summed, 0.0));
    }
    case
}

#[cfg(test)]
mod tests {
    use patchfield::Planned;

    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};

    /// The gradient of a layer's weights is written before those of the layer below are computed.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let config = SmoothMlpConfig { points: 4, width: 8, layers: 1, ..Default::default() };
        let kernel = SmoothMlpBackward::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let kept = config.create_kept(&context).unwrap();
        let all = buffers(&context);
        let [x, dy, dx, w0, b0, w1, b1, dw0, db0, dw1, db1] = views(&all);
        let layer = |weight, bias| SmoothLayer { weight, bias };
        let layers = [layer(w0, b0), layer(w1, b1)];
        let prepare = |gradients: &[SmoothLayer<'_>], dx| {
            let scratch = &scratch;
            let args = SmoothMlpBackwardArgs {
                x,
                layers: &layers,
                kept: &kept,
                dy,
                dx: Some(dx),
                gradients,
                scratch,
            };
            kernel.prepare(&args)
        };
        let gradients = [layer(dw0, db0), layer(dw1, db1)];
        assert!(prepare(&gradients, dx).is_ok());
        assert_refused(prepare(&gradients, x), "dx", "x");
        let own = [layer(dw0, db0), layer(w1, db1)];
        assert_refused(prepare(&own, dx), "gradients.weight", "layers.weight");
        let shared = [layer(dw0, db0), layer(dw1, db0)];
        assert_refused(prepare(&shared, dx), "gradients.bias", "gradients.bias");
    }

    fn network(random: &mut Random) -> (SmoothMlpConfig, Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let config = SmoothMlpConfig {
            points: 2,
            tangents: 2,
            inputs: 2,
            width: 5,
            layers: 2,
            outputs: 2,
            activation: Activation::Silu,
            ..Default::default()
        };
        let sizes = config.layer_sizes();
        let weights = sizes.iter().map(|&(i, o)| random.vec((i * o) as usize, -1.0, 1.0)).collect();
        let biases = sizes.iter().map(|&(_, o)| random.vec(o as usize, -1.0, 1.0)).collect();
        (config, weights, biases)
    }

    #[test]
    fn tangents_are_the_derivatives_of_values() {
        let mut random = Random::new(65);
        let (config, weights, biases) = network(&mut random);
        // [1 + 2, 2 points, 2]: the tangents of the input are the axes.
        let at = |x: [f32; 4]| [&x[..], &[1.0, 0.0, 1.0, 0.0], &[0.0, 1.0, 0.0, 1.0]].concat();
        let x = [0.3f32, -0.7, 0.9, 0.1];
        let y = |x: [f32; 4]| reference(&config, &at(x), &weights, &biases, &[0.0; 12]).y;
        let here = y(x);
        let h = 1.0 / 1024.0;
        for axis in 0..2 {
            let (mut up, mut down) = (x, x);
            for n in 0..2 {
                up[2 * n + axis] += h;
                down[2 * n + axis] -= h;
            }
            for ((above, below), tangent) in y(up).iter().zip(&y(down)).zip(&here[4 + 4 * axis..]).take(4) {
                let slope = (above.0 - below.0) / (2.0 * f64::from(h));
                assert!((slope - tangent.0).abs() < 1e-5, "{slope} {}", tangent.0);
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(66);
        let (config, mut weights, mut biases) = network(&mut random);
        let mut x = random.vec(12, -1.0, 1.0);
        let dy = random.vec(12, -1.0, 1.0);
        let whole = reference(&config, &x, &weights, &biases, &dy);
        let loss = |x: &[f32], weights: &[Vec<f32>], biases: &[Vec<f32>]| -> f64 {
            let y = reference(&config, x, weights, biases, &dy).y;
            y.iter().zip(&dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
        };
        let h = 1.0 / 512.0;
        for i in 0..x.len() {
            let here = x[i];
            x[i] = here + h;
            let above = loss(&x, &weights, &biases);
            x[i] = here - h;
            let slope = (above - loss(&x, &weights, &biases)) / f64::from(here + h - (here - h));
            x[i] = here;
            assert!((slope - whole.dx[i].0).abs() < 1e-4, "x {i}: {slope} {}", whole.dx[i].0);
        }
        for l in 0..weights.len() {
            for i in 0..weights[l].len() {
                let here = weights[l][i];
                weights[l][i] = here + h;
                let above = loss(&x, &weights, &biases);
                weights[l][i] = here - h;
                let slope = (above - loss(&x, &weights, &biases)) / f64::from(here + h - (here - h));
                weights[l][i] = here;
                assert!((slope - whole.dweights[l][i].0).abs() < 1e-4, "weight {l} {i}");
            }
            for i in 0..biases[l].len() {
                let here = biases[l][i];
                biases[l][i] = here + h;
                let above = loss(&x, &weights, &biases);
                biases[l][i] = here - h;
                let slope = (above - loss(&x, &weights, &biases)) / f64::from(here + h - (here - h));
                biases[l][i] = here;
                assert!((slope - whole.dbiases[l][i].0).abs() < 1e-4, "bias {l} {i}");
            }
        }
    }
}
