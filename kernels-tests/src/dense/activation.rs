//! Reference and cases of `dense::activation`.

use patchfield::Kernel;
use patchfield::dense::activation::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// `(a(x), a'(x))` in f64.
pub fn reference(activation: Activation, x: f64) -> (f64, f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Identity => (x, 1.0),
        Activation::Relu => (x.max(0.0), f64::from(x > 0.0)),
        Activation::LeakyRelu { slope } if x <= 0.0 => (f64::from(slope) * x, slope.into()),
        Activation::LeakyRelu { .. } => (x, 1.0),
        Activation::Gelu => {
            let phi = 0.5 * libm::erfc(-x / 2f64.sqrt());
            (x * phi, phi + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt())
        }
        Activation::Silu => (x * sigmoid(x), sigmoid(x) * (1.0 + x * sigmoid(-x))),
        Activation::Sigmoid => (sigmoid(x), sigmoid(x) * sigmoid(-x)),
        Activation::Softplus => (x.max(0.0) + (-x.abs()).exp().ln_1p(), sigmoid(x)),
        Activation::Tanh => (x.tanh(), 1.0 / x.cosh().powi(2)),
        Activation::Sine { frequency } => {
            let (sine, cosine) = (f64::from(frequency) * x).sin_cos();
            (sine, f64::from(frequency) * cosine)
        }
        Activation::Exp => (x.exp(), x.exp()),
    }
}

/// The scale of the rounding error of `(a(x), a'(x))`: the magnitude of the largest intermediate
/// term, with the relative error of `exp` (3 + 2|x| units in the last place in WGSL) as a factor.
pub fn magnitude(activation: Activation, x: f64) -> (f64, f64) {
    let (y, d) = reference(activation, x);
    let exp = 1.0 + x.abs();
    match activation {
        // sin(f x): the product is rounded before the sine sees it.
        Activation::Sine { frequency } => {
            let f = f64::from(frequency);
            (1.0 + (f * x).abs(), f.abs() * (1.0 + (f * x).abs()))
        }
        Activation::Gelu => {
            let tail = 1.0 + x * x;
            (y.abs() * tail, (0.5 * libm::erfc(-x / 2f64.sqrt()) + x.abs() * (-0.5 * x * x).exp()) * tail)
        }
        Activation::Silu => (y.abs() * exp, (1.0 + x.abs()) * exp / (1.0 + x.abs().exp()) + d.abs()),
        Activation::Tanh => (1.0, 4.0),
        Activation::Sigmoid | Activation::Softplus | Activation::Exp => (y.abs() * exp, d.abs() * exp),
        _ => (y.abs(), d.abs()),
    }
}

pub const ALL: [Activation; 11] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.01 },
    Activation::Gelu,
    Activation::Silu,
    Activation::Sigmoid,
    Activation::Softplus,
    Activation::Tanh,
    Activation::Sine { frequency: 30.0 },
    Activation::Sine { frequency: 4096.0 },
    Activation::Exp,
];

/// Values across the range of each function, with the special points among them.
pub fn inputs(activation: Activation, n: usize, random: &mut Random) -> Vec<f32> {
    let range = match activation {
        Activation::Exp => 80.0,
        Activation::Sine { frequency: 4096.0 } => 10.0,
        _ => 20.0,
    };
    let special = [0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e-5, -1e-5, range, -range, 0.5, -3.0];
    let mut x = random.vec(n, -range, range);
    for (x, s) in x.iter_mut().skip(3).step_by(2).zip(special) {
        *x = s;
    }
    x
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the neighbour's element",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "activate(x[i],",
        replace: "activate(x[min(i + 1u, params.count - 1u)],",
    },
    Canary {
        bug: "one NaN",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "y[i] = activate(x[i], params.parameter);",
        replace: "y[i] = select(activate(x[i], params.parameter), bitcast<f32>(0x7fc00000u + params.first_group), i == 50u);",
    },
    Canary {
        bug: "one element never written",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "if i < params.count {",
        replace: "if i < params.count && i != 40u {",
    },
    Canary {
        bug: "the last element left out",
        kernel: "dense/activation",
        shader: "dense/activation::backward_vec4",
        find: "if i < params.count {",
        replace: "if i + 1u < params.count {",
    },
    Canary {
        bug: "2^x for e^x",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "activate(x[i],",
        replace: "activate(0.6931472 * x[i],",
    },
    Canary {
        bug: "a dropped gradient",
        kernel: "dense/activation",
        shader: "dense/activation::backward",
        find: "dx[i] = dy[i] * activate",
        replace: "dx[i] = activate",
    },
    Canary {
        bug: "two inputs swapped",
        kernel: "dense/activation",
        shader: "dense/activation::backward",
        find: "dx[i] = dy[i] * activate_derivative(x[i],",
        replace: "dx[i] = x[i] * activate_derivative(dy[i],",
    },
    Canary {
        bug: "two lanes swapped",
        kernel: "dense/activation",
        shader: "dense/activation::forward_vec4",
        find: "activate(v.z, p), activate(v.w, p)",
        replace: "activate(v.w, p), activate(v.z, p)",
    },
    Canary {
        bug: "the second row of the grid forgotten",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "linear_group(params.first_group, id, n)",
        replace: "(params.first_group + id.x)",
    },
    Canary {
        bug: "added to what was there",
        kernel: "dense/activation",
        shader: "dense/activation::backward",
        find: "dx[i] = dy[i]",
        replace: "dx[i] += dy[i]",
    },
    Canary {
        bug: "twelve bits of precision lost",
        kernel: "dense/activation",
        shader: "dense/activation::forward",
        find: "activate(x[i], params.parameter)",
        replace: "bitcast<f32>(bitcast<u32>(activate(x[i], params.parameter)) & 0xfffff000u)",
    },
    Canary {
        bug: "a wrong sign",
        kernel: "dense/activation",
        shader: "dense/activation::backward_vec4",
        find: "activate_derivative(v.w, p)",
        replace: "activate_derivative(-v.w, p)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(1);
    // 65,535 workgroups of 64 scalars is 4,194,240: the last size needs a second row of the grid.
    let sizes = [1, 63, 64, 65, 257, 1000, 1020, 1024, 1028, 4096];
    for activation in ALL {
        for n in sizes {
            cases.extend(pair(activation, n, None, &mut random));
        }
        cases.extend(pair(activation, 1028, Some(ActivationVariant::Scalar), &mut random));
    }
    cases.extend(pair(Activation::Relu, 4_194_307, Some(ActivationVariant::Scalar), &mut random));
    cases
}

/// The forward and the backward case of one row.
fn pair(
    activation: Activation,
    n: u32,
    variant: Option<ActivationVariant>,
    random: &mut Random,
) -> [Case; 2] {
    let config = ActivationConfig { activation, count: n, variant };
    let x = inputs(activation, n as usize, random);
    let dy = random.vec(n as usize, -2.0, 2.0);
    let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
    let y: Vec<_> = wide.iter().map(|&x| (reference(activation, x).0, magnitude(activation, x).0)).collect();
    let dx: Vec<_> = wide
        .iter()
        .zip(&dy)
        .map(|(&x, &g)| {
            let g = f64::from(g);
            (g * reference(activation, x).1, g.abs() * magnitude(activation, x).1)
        })
        .collect();
    let name = format!("{activation:?}, {n}, {variant:?}");
    // 8 units: four operations around an `exp` that WGSL allows 3 + 2|x| units itself.
    // Absolute: `exp` may be flushed to zero below 1.2e-38, and is multiplied by |x| <= 20 and |dy| <= 2.
    let forward = Case::new("dense/activation", format!("forward {name}"), move |context, b| {
        ActivationForward::new(context, config)?.prepare(&ActivationForwardArgs { x: b["x"], y: b["y"] })
    })
    .input("x", &x)
    .output("y", Expected::near(&y, 8.0, 20.0 * 1.2e-38));
    let backward = Case::new("dense/activation", format!("backward {name}"), move |context, b| {
        let args = ActivationBackwardArgs { x: b["x"], dy: b["dy"], dx: b["dx"] };
        ActivationBackward::new(context, config)?.prepare(&args)
    })
    .input("x", &x)
    .read("dy", Data::F32(dy))
    .output("dx", Expected::near(&dx, 8.0, 40.0 * 1.2e-38));
    [forward, backward]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let mut random = Random::new(2);
        for activation in ALL {
            for _ in 0..200 {
                let x = f64::from(random.uniform(-4.0, 4.0));
                let h = 1e-6;
                let slope = (reference(activation, x + h).0 - reference(activation, x - h).0) / (2.0 * h);
                let d = reference(activation, x).1;
                let curvature = activation_frequency(activation).powi(3);
                assert!(
                    (slope - d).abs() < 1e-8 * (1.0 + d.abs()) * (1.0 + curvature * 1e-4) + 1e-8,
                    "{activation:?} at {x}: {slope} {d}"
                );
            }
        }
    }

    fn activation_frequency(activation: Activation) -> f64 {
        if let Activation::Sine { frequency } = activation { frequency.into() } else { 1.0 }
    }
}
