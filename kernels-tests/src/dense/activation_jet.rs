//! Reference and cases of `dense::activation_jet`.

use patchfield::Kernel;
use patchfield::dense::activation::Activation;
use patchfield::dense::activation_jet::*;

use super::activation;
use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

type Term = (f64, f64);

/// `a''(x)` in f64.
pub fn second_derivative(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let product = sigmoid(x) * sigmoid(-x);
    match activation {
        Activation::Identity | Activation::Relu | Activation::LeakyRelu { .. } => 0.0,
        Activation::Gelu => (-0.5 * x * x).exp() * (2.0 - x * x) / (2.0 * std::f64::consts::PI).sqrt(),
        Activation::Silu => product * (2.0 - x * (0.5 * x).tanh()),
        Activation::Sigmoid => -product * (0.5 * x).tanh(),
        Activation::Softplus => product,
        Activation::Tanh => -2.0 * x.tanh() / x.cosh().powi(2),
        Activation::Sine { frequency } => {
            let f = f64::from(frequency);
            -f * f * (f * x).sin()
        }
        Activation::Exp => x.exp(),
    }
}

/// The scale of the rounding error of `a''(x)`, as of `activation::magnitude`: the magnitudes of
/// its terms times the error of `exp` (or of the product in front of the sine).
fn second_magnitude(activation: Activation, x: f64) -> f64 {
    let exp = 1.0 + x.abs();
    let bell = exp / (2.0 + 2.0 * x.abs().cosh());
    match activation {
        Activation::Identity | Activation::Relu | Activation::LeakyRelu { .. } => 0.0,
        Activation::Gelu => (-0.5 * x * x).exp() * (2.0 + x * x) * (1.0 + x * x),
        Activation::Silu => bell * (2.0 + x.abs()),
        Activation::Sigmoid | Activation::Softplus => bell,
        // The error of tanh is absolute.
        Activation::Tanh => 8.0,
        Activation::Sine { frequency } => {
            let f = f64::from(frequency);
            f * f * (1.0 + (f * x).abs())
        }
        Activation::Exp => x.exp() * exp,
    }
}

/// Output and gradient of the input.
pub fn reference(config: &ActivationJetConfig, z: &[f32], bias: &[f32], dy: &[f32]) -> [Vec<Term>; 2] {
    let plane = (config.rows * config.features) as usize;
    let jet = plane * (1 + config.tangents as usize);
    let [mut y, mut dz] = [vec![(0.0, 0.0); z.len()], vec![(0.0, 0.0); z.len()]];
    for b in 0..config.batch as usize {
        for i in 0..plane {
            let value = b * jet + i;
            let features = config.features as usize;
            let added = if config.bias { f64::from(bias[b * features + i % features]) } else { 0.0 };
            // The sum as the shader has it: its rounding is that of the input.
            let s = f64::from(z[value] + added as f32);
            let (a, slope) = activation::reference(config.activation, s);
            let (size, slope_size) = activation::magnitude(config.activation, s);
            y[value] = (a, size);
            let g = f64::from(dy[value]);
            let mut total = (g * slope, g.abs() * slope_size);
            for t in 1..=config.tangents as usize {
                let at = value + t * plane;
                let (z, g) = (f64::from(z[at]), f64::from(dy[at]));
                y[at] = (slope * z, slope_size * z.abs());
                dz[at] = (slope * g, slope_size * g.abs());
                total.0 += second_derivative(config.activation, s) * g * z;
                total.1 += second_magnitude(config.activation, s) * (g * z).abs();
            }
            dz[value] = total;
        }
    }
    [y, dz]
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the curvature dropped",
        kernel: "dense/activation_jet",
        shader: "dense/activation_jet::backward",
        find: "total += second_derivative_each(s, params.parameter) * along;",
        replace: "total += 0.0 * along;",
    },
    Canary {
        bug: "the first derivative for the second",
        kernel: "dense/activation_jet",
        shader: "dense/activation_jet::backward",
        find: "second_derivative_each(s,",
        replace: "derivative_each(s,",
    },
    Canary {
        bug: "the bias of the first of the batch for all",
        kernel: "dense/activation_jet",
        shader: "dense/activation_jet::forward",
        find: "bias[item / params.plane * params.features + item % params.features]",
        replace: "bias[item % params.features]",
    },
    Canary {
        bug: "the bias added to the tangents",
        kernel: "dense/activation_jet",
        shader: "dense/activation_jet::forward",
        find: "y[at] = slope * z[at];",
        replace: "y[at] = slope * (z[at] + s - z[value]);",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(61);
    let mut cases = Vec::new();
    for activation in activation::ALL {
        let base =
            ActivationJetConfig { activation, batch: 1, tangents: 3, rows: 33, features: 8, bias: true };
        cases.extend(pair(base, 1.0, &mut random));
        cases.extend(pair(ActivationJetConfig { tangents: 2, features: 7, ..base }, 1.0, &mut random));
    }
    let base = ActivationJetConfig {
        activation: Activation::Softplus,
        batch: 1,
        tangents: 0,
        rows: 1,
        features: 1,
        bias: false,
    };
    for config in [
        base,
        ActivationJetConfig { rows: 63, ..base },
        ActivationJetConfig { rows: 64, tangents: 1, bias: true, ..base },
        ActivationJetConfig { rows: 13, features: 5, tangents: 3, batch: 3, bias: true, ..base },
        ActivationJetConfig { rows: 257, features: 4, tangents: 2, batch: 2, bias: true, ..base },
        ActivationJetConfig { rows: 64, features: 16, ..base },
        ActivationJetConfig { rows: 2, features: 12, tangents: 9, batch: 5, bias: true, ..base },
    ] {
        cases.extend(pair(config, 1.0, &mut random));
    }
    // Gradients of any size keep their digits.
    let config = ActivationJetConfig { rows: 65, tangents: 2, bias: true, ..base };
    cases.extend(pair(config, 1e-18, &mut random));
    cases.extend(pair(config, 1e18, &mut random));
    cases
}

/// The forward and the backward case of one row.
fn pair(config: ActivationJetConfig, size: f32, random: &mut Random) -> [Case; 2] {
    let n = config.count().expect("fits") as usize;
    let z = activation::inputs(config.activation, n, random);
    let bias = random.vec((config.batch * config.features) as usize, -0.5, 0.5);
    let dy = random.vec(n, -size, size);
    let [y, dz] = reference(&config, &z, &bias, &dy);
    let name = format!("{config:?}, dy {size:e}");
    // 8 units, and what `exp` may flush to zero, as for the plain activation; a sum of one product
    // a tangent, each with two roundings more.
    let ulps = 10.0 + f64::from(config.tangents);
    let flushed = 20.0 * (20.0 * 20.0) * f64::from(size.max(1.0)) * 1.2e-38 * f64::from(1 + config.tangents);
    let forward = Case::new("dense/activation_jet", format!("forward {name}"), move |context, b| {
        ActivationJetForward::new(context, config)?.prepare(&ActivationJetForwardArgs {
            z: b["z"],
            bias: config.bias.then(|| b["bias"]),
            y: b["y"],
        })
    })
    .input("z", &z)
    .input("bias", &bias)
    .output("y", Expected::near(&y, ulps, flushed));
    let backward = Case::new("dense/activation_jet", format!("backward {name}"), move |context, b| {
        ActivationJetBackward::new(context, config)?.prepare(&ActivationJetBackwardArgs {
            z: b["z"],
            bias: config.bias.then(|| b["bias"]),
            dy: b["dy"],
            dz: b["dz"],
        })
    })
    .input("z", &z)
    .input("bias", &bias)
    .input("dy", &dy)
    .output("dz", Expected::near(&dz, ulps, flushed));
    [forward, backward]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_derivatives_agree_with_finite_differences_of_the_first() {
        let mut random = Random::new(62);
        for activation in activation::ALL {
            let frequency = if let Activation::Sine { frequency } = activation { frequency } else { 1.0 };
            let frequency = f64::from(frequency);
            for _ in 0..200 {
                let x = f64::from(random.uniform(-4.0, 4.0));
                let h = 1e-5 / frequency;
                let first = |x: f64| activation::reference(activation, x).1;
                // The slope of a kink is none.
                let steps = matches!(activation, Activation::Relu | Activation::LeakyRelu { .. });
                if steps && x.abs() <= h {
                    continue;
                }
                let slope = (first(x + h) - first(x - h)) / (2.0 * h);
                let second = second_derivative(activation, x);
                // The argument of the sine is rounded to 2^-53 of itself, against a step of 1e-5.
                let bound = 1e-8 + 1e-10 * (frequency * x).abs();
                assert!(
                    (slope - second).abs() < bound * (frequency * frequency + second.abs()),
                    "{activation:?} at {x}: {slope} {second}"
                );
                assert!(second_magnitude(activation, x) >= second.abs() * 0.999, "{activation:?} at {x}");
            }
        }
    }

    #[test]
    fn gradients_of_jets_agree_with_finite_differences() {
        let mut random = Random::new(63);
        let config = ActivationJetConfig {
            activation: Activation::Silu,
            batch: 2,
            tangents: 2,
            rows: 2,
            features: 3,
            bias: true,
        };
        let n = config.count().unwrap() as usize;
        let [mut z, bias, dy] = [n, 6, n].map(|n| random.vec(n, -1.0, 1.0));
        let [_, dz] = reference(&config, &z, &bias, &dy);
        let loss = |z: &[f32]| -> f64 {
            reference(&config, z, &bias, &dy)[0].iter().zip(&dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
        };
        for i in 0..n {
            let (here, h) = (z[i], 1.0 / 256.0);
            z[i] = here + h;
            let above = loss(&z);
            z[i] = here - h;
            let slope = (above - loss(&z)) / (2.0 * f64::from(h));
            z[i] = here;
            assert!((slope - dz[i].0).abs() < 1e-4, "{i}: {slope} {}", dz[i].0);
        }
    }
}
