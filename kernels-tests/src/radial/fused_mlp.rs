//! Reference and cases of `radial::fused_mlp`.

use patchfield::Kernel;
use patchfield::dense::Activation;
use patchfield::radial::fused_mlp::*;

use crate::canaries::Canary;
use crate::dense::activation::reference as activation;
use crate::harness::{Case, Expected, Random};

/// Value and error scale of one number.
type Term = (f64, f64);

/// What the reference gives: output, dx, dweights.
pub struct Gradients {
    pub y: Vec<Term>,
    pub dx: Vec<Term>,
    pub dweights: Vec<Term>,
}

/// Plain loops. A magnitude is carried along with each value: the sum of |w| times the magnitude of
/// each input, so that an error made in one layer is carried to the output by the weights behind it.
pub fn reference(config: &FusedMlpConfig, weights: &[f32], x: &[f32], dy: &[f32]) -> Gradients {
    let layers = config.layer_table();
    let w = |layer: &MlpLayer, o: u32, i: u32| {
        f64::from(weights[(layer.first + o * layer.stride() + i) as usize])
    };
    let mut out = Gradients { y: Vec::new(), dx: Vec::new(), dweights: vec![(0.0, 0.0); weights.len()] };
    for n in 0..config.points as usize {
        let point = &x[n * config.inputs as usize..][..config.inputs as usize];
        let mut inputs: Vec<Vec<Term>> =
            vec![point.iter().map(|&v| (v.into(), f64::from(v.abs()))).collect()];
        let mut z: Vec<Vec<Term>> = Vec::new();
        for (l, layer) in layers.iter().enumerate() {
            let sums: Vec<Term> = (0..layer.outputs)
                .map(|o| {
                    let bias = w(layer, o, layer.bias);
                    inputs[l].iter().zip(0..).fold((bias, bias.abs()), |sum, (a, i)| {
                        (sum.0 + w(layer, o, i) * a.0, sum.1 + w(layer, o, i).abs() * a.1)
                    })
                })
                .collect();
            // |a(z + e) - a(z)| <= 1.13 |e| for all activations but exp and fast sines, which the cases avoid.
            inputs.push(sums.iter().map(|s| (activation(config.activation, s.0).0, 1.13 * s.1)).collect());
            z.push(sums);
        }
        out.y.extend(&z[config.layers as usize]);
        let dy = &dy[n * config.outputs as usize..][..config.outputs as usize];
        let mut d: Vec<Term> = dy.iter().map(|&v| (v.into(), f64::from(v.abs()))).collect();
        for (l, layer) in layers.iter().enumerate().rev() {
            for (o, d) in d.iter().enumerate() {
                let row = (layer.first + o as u32 * layer.stride()) as usize;
                for (i, a) in inputs[l].iter().enumerate() {
                    let sum = &mut out.dweights[row + i];
                    *sum = (sum.0 + d.0 * a.0, sum.1 + d.1 * a.1);
                }
                let sum = &mut out.dweights[row + layer.bias as usize];
                *sum = (sum.0 + d.0, sum.1 + d.1);
            }
            let back: Vec<Term> = (0..layer.inputs)
                .map(|i| {
                    d.iter().zip(0..).fold((0.0, 0.0), |sum, (d, o)| {
                        (sum.0 + w(layer, o, i) * d.0, sum.1 + w(layer, o, i).abs() * d.1)
                    })
                })
                .collect();
            d = if l == 0 {
                back
            } else {
                // The error of z enters through the second derivative, at most 1 for smooth ones.
                let slope = |z: &Term| activation(config.activation, z.0).1;
                let smooth = if config.activation == Activation::Relu { 0.0 } else { 1.0 };
                back.iter()
                    .zip(&z[l - 1])
                    .map(|(b, z)| (b.0 * slope(z), b.1 * (1.13 + smooth * z.1)))
                    .collect()
            };
        }
        out.dx.extend(d);
    }
    out
}

/// Weights of the usual size, with zeros in the padding.
fn weights(config: &FusedMlpConfig, random: &mut Random) -> Vec<f32> {
    let mut out = vec![0.0; config.weight_count() as usize];
    for layer in config.layer_table() {
        let size = 1.0 / (layer.inputs as f32).sqrt();
        for o in 0..layer.outputs {
            for i in (0..layer.inputs).chain([layer.bias]) {
                out[(layer.first + o * layer.stride() + i) as usize] = random.uniform(-size, size);
            }
        }
    }
    out
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "a swapped stride",
        kernel: "radial/fused_mlp",
        shader: "radial/fused_mlp::forward",
        find: "let row = inputs + 1u;",
        replace: "let row = outputs + 1u;",
    },
    Canary {
        bug: "a missed barrier between the reads of one chunk of weights and the writes of the next",
        kernel: "radial/fused_mlp",
        shader: "radial/fused_mlp_staged::forward",
        find: "workgroupBarrier();
        for (var i = local; i < CHUNK; i += WORKGROUP) {",
        replace: "for (var i = local; i < CHUNK; i += WORKGROUP) {",
    },
    Canary {
        bug: "a queue of 32 neurons that never fills",
        kernel: "radial/fused_mlp",
        shader: "radial/fused_mlp_narrow::forward",
        find: "if WIDTH4 == 8u { next.v7 = v; }",
        replace: "",
    },
    Canary {
        bug: "the bias of another row",
        kernel: "radial/fused_mlp",
        shader: "radial/fused_mlp_narrow::forward",
        find: "subgroupShuffle(own, 1u),",
        replace: "subgroupShuffle(own, 2u),",
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(3);
    let rows = [
        (2, 16, 1, 1, Activation::Relu, 1),
        (32, 64, 2, 3, Activation::Relu, 257),
        (3, 32, 2, 4, Activation::Silu, 63),
        (5, 32, 3, 7, Activation::Tanh, 65),
        (64, 128, 1, 128, Activation::Gelu, 64),
        (64, 64, 1, 8, Activation::Relu, 37),
        (128, 16, 8, 2, Activation::Relu, 33),
        (31, 64, 2, 16, Activation::Softplus, 256),
        (1, 128, 2, 1, Activation::Sigmoid, 31),
        (36, 64, 4, 3, Activation::LeakyRelu { slope: 0.01 }, 129),
        (32, 64, 2, 3, Activation::Sine { frequency: 1.0 }, 97),
    ];
    for (index, (inputs, width, layers, outputs, activation, points)) in rows.into_iter().enumerate() {
        // The plain variant shares its arithmetic with no other, and compiles slowly: every other row.
        let plain = (index % 2 == 0).then_some(FusedMlpVariant::Plain);
        for variant in [FusedMlpVariant::Subgroup, FusedMlpVariant::Staged].into_iter().chain(plain) {
            let config = FusedMlpConfig {
                inputs,
                width,
                layers,
                outputs,
                activation,
                points,
                keep: true,
                input_gradient: points % 2 == 1,
                variant: Some(variant),
            };
            cases.extend(pair(config, &mut random));
        }
    }
    cases
}

fn pair(config: FusedMlpConfig, random: &mut Random) -> [Case; 2] {
    let points = config.points as usize;
    let weights = weights(&config, random);
    let x = random.vec(points * config.inputs as usize, -1.0, 1.0);
    let dy = random.vec(points * config.outputs as usize, -1.0, 1.0);
    let expected = reference(&config, &weights, &x, &dy);
    let name = format!("{config:?}");
    // Each layer rounds its sums once a term at the worst, and the activation adds 8 units:
    // (inputs + bias + 8) a layer, and as much for the outputs on the way back.
    let layer = f64::from(config.width.max(config.inputs).max(config.outputs)) + 9.0;
    let ulps = layer * f64::from(config.layers + 1);
    let forward = Case::new("radial/fused_mlp", format!("forward {name}"), move |context, b| {
        let config = FusedMlpConfig { keep: false, ..config };
        let args = FusedMlpForwardArgs { weights: b["weights"], x: b["x"], y: b["y"], kept: b["kept"] };
        FusedMlpForward::new(context, config)?.prepare(&args)
    })
    .input("weights", &weights)
    .input("x", &x)
    .input("kept", &[0.0; 4])
    .output("y", Expected::near(&expected.y, ulps, 0.0));
    let both = Case::new("radial/fused_mlp", format!("backward {name}"), move |context, b| {
        let forward = FusedMlpForward::new(context, config)?;
        let backward = FusedMlpBackward::new(context, config)?;
        let kept = context.create_storage("kept", config.kept_count() * 4)?;
        let y = context.create_storage("y", u64::from(config.points * config.outputs) * 4)?;
        let (kept, y) = ((&kept).into(), (&y).into());
        let mut recording =
            forward.prepare(&FusedMlpForwardArgs { weights: b["weights"], x: b["x"], y, kept })?;
        recording.append(backward.prepare(&FusedMlpBackwardArgs {
            weights: b["weights"],
            x: b["x"],
            kept,
            dy: b["dy"],
            dweights: b["dweights"],
            dx: b["dx"],
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    })
    .input("weights", &weights)
    .input("x", &x)
    .input("dy", &dy)
    // The weights' sums run over the points, 256 in a chain, then over the blocks.
    .output(
        "dweights",
        Expected::near(&expected.dweights, 2.0 * ulps + f64::from(config.points.min(256)), 0.0),
    );
    let both = if config.input_gradient {
        both.output("dx", Expected::near(&expected.dx, 2.0 * ulps, 0.0))
    } else {
        both.input("dx", &[7.0; 4])
    };
    [forward, both]
}

#[cfg(test)]
mod tests {
    use patchfield::Planned;

    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};

    /// The gradient of the input is written before the input is read for that of the weights.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let config = FusedMlpConfig { points: 16, input_gradient: true, ..Default::default() };
        let kernel = FusedMlpBackward::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let all = buffers(&context);
        let [weights, x, kept, dy, dweights, dx] = views(&all);
        let good = FusedMlpBackwardArgs { weights, x, kept, dy, dweights, dx, scratch: &scratch };
        assert!(kernel.prepare(&good).is_ok());
        assert_refused(kernel.prepare(&FusedMlpBackwardArgs { dx: x, ..good }), "dx", "x");
        let args = FusedMlpBackwardArgs { dweights: weights, ..good };
        assert_refused(kernel.prepare(&args), "dweights", "weights");
        let args = FusedMlpBackwardArgs { dx: dweights, ..good };
        assert_refused(kernel.prepare(&args), "dx", "dweights");
        // Nothing is written to it.
        let config = FusedMlpConfig { input_gradient: false, ..config };
        let kernel = FusedMlpBackward::new(&context, config).unwrap();
        assert!(kernel.prepare(&FusedMlpBackwardArgs { dx: x, ..good }).is_ok());
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let config = FusedMlpConfig {
            inputs: 3,
            width: 16,
            layers: 2,
            outputs: 2,
            activation: Activation::Silu,
            points: 3,
            ..FusedMlpConfig::default()
        };
        let mut random = Random::new(4);
        let w = weights(&config, &mut random);
        let x = random.vec(9, -1.0, 1.0);
        let dy = random.vec(6, -1.0, 1.0);
        let exact = reference(&config, &w, &x, &dy);
        let loss = |w: &[f32], x: &[f32]| -> f64 {
            reference(&config, w, x, &dy).y.iter().zip(&dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
        };
        let h = 1.0 / 1024.0;
        let layers = config.layer_table();
        let is_weight = |at: usize| {
            layers.iter().any(|l| {
                let at = at as u32;
                at >= l.first && at < l.first + l.outputs * l.stride() && {
                    let column = (at - l.first) % l.stride();
                    column < l.inputs || column == l.bias
                }
            })
        };
        for at in (0..w.len()).filter(|&at| is_weight(at)).step_by(7) {
            let (mut up, mut down) = (w.clone(), w.clone());
            up[at] += h;
            down[at] -= h;
            let slope = (loss(&up, &x) - loss(&down, &x)) / f64::from(up[at] - down[at]);
            assert!((slope - exact.dweights[at].0).abs() < 1e-5, "[{at}] {slope} {}", exact.dweights[at].0);
        }
        for at in 0..x.len() {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[at] += h;
            down[at] -= h;
            let slope = (loss(&w, &up) - loss(&w, &down)) / f64::from(up[at] - down[at]);
            assert!((slope - exact.dx[at].0).abs() < 1e-5, "[{at}] {slope} {}", exact.dx[at].0);
        }
    }
}
