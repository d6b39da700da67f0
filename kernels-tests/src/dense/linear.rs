//! Reference and cases of `dense::linear`.

use patchfield::Kernel;
use patchfield::dense::activation::Activation;
use patchfield::dense::linear::*;
use patchfield::dense::matmul::MatmulVariant;

use super::activation;
use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

type Term = (f64, f64);

/// Bounds of `|a'|` and `|a''|` near `z`, where `a` is the activation.
fn slopes(activation: Activation, z: f64) -> (f64, f64) {
    match activation {
        Activation::Identity => (1.0, 0.0),
        // The slope jumps where a rounding turns the sign of z.
        Activation::Relu | Activation::LeakyRelu { .. } => (1.0, if z.abs() < 1e-5 { 1e7 } else { 0.0 }),
        Activation::Gelu => (1.13, 0.8),
        Activation::Silu => (1.1, 0.5),
        Activation::Sigmoid => (0.25, 0.1),
        Activation::Softplus => (1.0, 0.25),
        Activation::Tanh => (1.0, 0.77),
        Activation::Sine { frequency } => (frequency.abs().into(), f64::from(frequency).powi(2)),
        Activation::Exp => (1.01 * z.exp(), 1.01 * z.exp()),
    }
}

/// Output, gradient of input, weights and bias, each with the magnitude that its rounding error scales
/// with: z has a relative error of its sum's magnitude, and the activation one of its own.
pub fn reference(config: &LinearConfig, x: &[f32], w: &[f32], bias: &[f32], dy: &[f32]) -> [Vec<Term>; 4] {
    let [rows, inputs, outputs] = [config.rows, config.inputs, config.outputs].map(|v| v as usize);
    let mut y = vec![(0.0, 0.0); rows * outputs];
    let mut dx = vec![(0.0, 0.0); rows * inputs];
    let mut dw = vec![(0.0, 0.0); outputs * inputs];
    let mut db = vec![(0.0, 0.0); outputs];
    let add = |sum: &mut Term, v: f64, size: f64| *sum = (sum.0 + v, sum.1 + size);
    for r in 0..rows {
        for o in 0..outputs {
            let mut z = if config.bias { (f64::from(bias[o]), f64::from(bias[o]).abs()) } else { (0.0, 0.0) };
            for i in 0..inputs {
                let term = f64::from(x[r * inputs + i]) * f64::from(w[o * inputs + i]);
                add(&mut z, term, term.abs());
            }
            let (value, slope) = activation::reference(config.activation, z.0);
            let own = activation::magnitude(config.activation, z.0);
            let (first, second) = slopes(config.activation, z.0);
            y[r * outputs + o] = (value, own.0 + first * z.1);
            let g = f64::from(dy[r * outputs + o]);
            // A straight line's slope does not depend on z, which may be NaN.
            let bend = if second == 0.0 { 0.0 } else { second * z.1 };
            let (dz, size) = (g * slope, g.abs() * (own.1 + bend));
            for i in 0..inputs {
                let (x, w) = (f64::from(x[r * inputs + i]), f64::from(w[o * inputs + i]));
                add(&mut dx[r * inputs + i], dz * w, size * w.abs());
                add(&mut dw[o * inputs + i], dz * x, size * x.abs());
            }
            add(&mut db[o], dz, size);
        }
    }
    [y, dx, dw, db]
}

/// A layer's inputs.
struct Inputs {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    dy: Vec<f32>,
}

fn inputs(config: &LinearConfig, random: &mut Random) -> Inputs {
    let LinearConfig { rows, inputs, outputs, .. } = *config;
    Inputs {
        x: random.vec((rows * inputs) as usize, -1.0, 1.0),
        w: random.vec((outputs * inputs) as usize, -1.0, 1.0),
        b: random.vec(outputs as usize, -1.0, 1.0),
        dy: random.vec((rows * outputs) as usize, -1.0, 1.0),
    }
}

/// Forward, then backward; without `dx` where it is not wanted.
fn case(name: &str, config: LinearConfig, data: &Inputs, wants_dx: bool) -> Case {
    let Inputs { x, w, b, dy } = data;
    let [y, dx, dw, db] = reference(&config, x, w, b, dy);
    let LinearConfig { rows, inputs, outputs, bias, keep, .. } = config;
    // Roundings: one a term, two of the bias, and 8 units of the activation.
    let forward = f64::from(inputs) + 10.0;
    // Terms flushed to zero below the least normal number.
    let flushed = 40.0 * 1.2e-38;
    let case = Case::new("dense/linear", format!("{name}: {config:?}"), move |context, buffers| {
        let forward = LinearForward::new(context, config)?;
        let backward = LinearBackward::new(context, config)?;
        let kept = context.create_storage("kept", u64::from(rows * outputs) * 4)?;
        let kept = keep.then(|| (&kept).into());
        let mut recording = forward.prepare(&LinearForwardArgs {
            x: buffers["x"],
            weight: buffers["w"],
            bias: bias.then(|| buffers["b"]),
            y: buffers["y"],
            kept,
            scratch: &buffers.scratch(&forward)?,
        })?;
        recording.append(backward.prepare(&LinearBackwardArgs {
            x: buffers["x"],
            weight: buffers["w"],
            kept,
            dy: buffers["dy"],
            dx: wants_dx.then(|| buffers["dx"]),
            dweight: buffers["dw"],
            dbias: bias.then(|| buffers["db"]),
            scratch: &buffers.scratch(&backward)?,
        })?);
        Ok(recording)
    });
    let mut case = case
        .input("x", x)
        .input("w", w)
        .input("b", b)
        .input("dy", dy)
        .output("y", Expected::near(&y, forward, flushed))
        .output("dw", Expected::near(&dw, forward + f64::from(rows), flushed));
    if wants_dx {
        case = case.output("dx", Expected::near(&dx, forward + f64::from(outputs), flushed));
    }
    if bias {
        case = case.output("db", Expected::near(&db, forward + f64::from(rows), flushed));
    }
    case
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the last input left out",
        kernel: "dense/linear",
        shader: "dense/matmul::naive",
        find: "k < min(params.k, (p.slice + 1u) * params.slice_k)",
        replace: "k + 1u < min(params.k, (p.slice + 1u) * params.slice_k)",
    },
    Canary {
        bug: "the derivative at the output instead of what went into the activation",
        kernel: "dense/linear",
        shader: "dense/activation::backward",
        find: "activate_derivative(x[i],",
        replace: "activate_derivative(activate(x[i], params.parameter),",
    },
    Canary {
        bug: "the last row left out of the gradient of the bias",
        kernel: "dense/linear",
        shader: "dense/reduce::sum_columns",
        find: "m + j < length);",
        replace: "m + j + 1u < length || length == 1u);",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(32);
    let mut cases = Vec::new();
    let base = LinearConfig {
        rows: 1,
        inputs: 1,
        outputs: 1,
        bias: true,
        activation: Activation::Identity,
        keep: true,
        variant: None,
    };
    let plain = |config: LinearConfig, random: &mut Random| case("", config, &inputs(&config, random), true);
    // Every activation, with a bias and without, of the variant that compiles soonest.
    let naive = LinearConfig { variant: Some(MatmulVariant::Naive), ..base };
    for (i, activation) in activation::ALL.into_iter().enumerate() {
        // A thousand radians and their square would drown a sum's error bound.
        let activation = match activation {
            Activation::Sine { frequency } => Activation::Sine { frequency: frequency / 64.0 },
            other => other,
        };
        let config =
            LinearConfig { rows: 17, inputs: 12, outputs: 15, bias: i % 2 == 0, activation, ..naive };
        cases.push(plain(config, &mut random));
    }
    // Every variant: around the edges of the tiles (16, 32, 64), primes, one row, one column, one term.
    for variant in [MatmulVariant::Naive, MatmulVariant::Tiled, MatmulVariant::Subgroup] {
        let base = LinearConfig { variant: Some(variant), activation: Activation::Silu, ..base };
        for (i, (rows, inputs, outputs)) in [
            (1, 1, 1),
            (16, 32, 64),
            (15, 31, 63),
            (17, 33, 65),
            (64, 16, 32),
            (67, 3, 61),
            (1, 97, 5),
            (131, 1, 2),
            (4, 68, 20),
        ]
        .into_iter()
        .enumerate()
        {
            let config = LinearConfig { rows, inputs, outputs, bias: i % 2 == 0, ..base };
            cases.push(plain(config, &mut random));
        }
        // Sums over rows in slices and parts.
        cases.push(plain(LinearConfig { rows: 1000, inputs: 16, outputs: 8, ..base }, &mut random));
    }
    // Nothing is kept where the identity needs nothing, and no gradient of the input.
    let config = LinearConfig { rows: 33, inputs: 20, outputs: 7, keep: false, ..base };
    cases.push(case("without dx", config, &inputs(&config, &mut random), false));

    // Magnitudes from 1e-30 to 1e30; saturated and vanishing activations.
    let config = LinearConfig { rows: 19, inputs: 8, outputs: 12, ..naive };
    for (name, x_size, w_size) in [("large", 1e15, 1e15), ("small", 1e-20, 1e-10)] {
        for activation in [Activation::Identity, Activation::Relu, Activation::LeakyRelu { slope: 0.01 }] {
            let config = LinearConfig { activation, bias: false, ..config };
            let mut data = inputs(&config, &mut random);
            data.x.iter_mut().for_each(|v| *v *= x_size);
            data.w.iter_mut().for_each(|v| *v *= w_size);
            data.dy.iter_mut().for_each(|v| *v *= 1e-3);
            cases.push(case(name, config, &data, true));
        }
    }
    for activation in [Activation::Tanh, Activation::Sigmoid, Activation::Softplus, Activation::Relu] {
        let config = LinearConfig { activation, ..config };
        let mut data = inputs(&config, &mut random);
        data.x.iter_mut().for_each(|v| *v *= 1e4);
        cases.push(case("saturated", config, &data, true));
    }

    // A NaN shows where it enters, and nowhere else.
    for activation in [Activation::Identity, Activation::Silu] {
        for variant in [MatmulVariant::Naive, MatmulVariant::Tiled, MatmulVariant::Subgroup] {
            let config = LinearConfig { activation, variant: Some(variant), ..config };
            let clean = inputs(&config, &mut random);
            let spoil = |what: fn(&mut Inputs) -> &mut f32| {
                let Inputs { x, w, b, dy } = &clean;
                let mut data = Inputs { x: x.clone(), w: w.clone(), b: b.clone(), dy: dy.clone() };
                *what(&mut data) = f32::NAN;
                data
            };
            cases.push(case("NaN in x", config, &spoil(|data| &mut data.x[3 * 8 + 5]), true));
            cases.push(case("NaN in dy", config, &spoil(|data| &mut data.dy[18 * 12 + 11]), true));
            if variant == MatmulVariant::Naive {
                cases.push(case("NaN in the weights", config, &spoil(|data| &mut data.w[7 * 8]), true));
                cases.push(case("NaN in the bias", config, &spoil(|data| &mut data.b[2]), true));
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};
    use patchfield::Planned;
    use patchfield::dispatch::Capabilities;

    /// The gradient of the input is written before the input is read for that of the weights.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let config = LinearConfig {
            rows: 8,
            inputs: 8,
            outputs: 8,
            bias: true,
            activation: Activation::Identity,
            keep: false,
            variant: None,
        };
        let kernel = LinearBackward::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let all = buffers(&context);
        let [x, weight, dy, dx, dweight, dbias] = views(&all);
        let good = LinearBackwardArgs {
            x,
            weight,
            kept: None,
            dy,
            dx: Some(dx),
            dweight,
            dbias: Some(dbias),
            scratch: &scratch,
        };
        assert!(kernel.prepare(&good).is_ok());
        assert_refused(kernel.prepare(&LinearBackwardArgs { dx: Some(x), ..good }), "dx", "x");
        let args = LinearBackwardArgs { dbias: Some(dx), ..good };
        assert_refused(kernel.prepare(&args), "dbias", "dx");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(33);
        let config = LinearConfig {
            rows: 3,
            inputs: 4,
            outputs: 5,
            bias: true,
            activation: Activation::Gelu,
            keep: true,
            variant: None,
        };
        let start = inputs(&config, &mut random);
        let value = |data: &Inputs| -> f64 {
            let [y, ..] = reference(&config, &data.x, &data.w, &data.b, &data.dy);
            y.iter().zip(&data.dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
        };
        let [_, dx, dw, db] = reference(&config, &start.x, &start.w, &start.b, &start.dy);
        type Field = fn(&mut Inputs) -> &mut Vec<f32>;
        let fields: [(Field, Vec<Term>); 3] = [(|d| &mut d.x, dx), (|d| &mut d.w, dw), (|d| &mut d.b, db)];
        let h = 1.0 / 1024.0;
        for (field, gradient) in fields {
            for (at, exact) in gradient.iter().enumerate() {
                let moved = |h: f32| {
                    let Inputs { x, w, b, dy } = &start;
                    let mut data = Inputs { x: x.clone(), w: w.clone(), b: b.clone(), dy: dy.clone() };
                    field(&mut data)[at] += h;
                    let at_value = f64::from(field(&mut data)[at]);
                    (value(&data), at_value)
                };
                let ((up, above), (down, below)) = (moved(h), moved(-h));
                let slope = (up - down) / (above - below);
                assert!((slope - exact.0).abs() < 1e-5, "[{at}] {slope} {}", exact.0);
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused_by_name() {
        let good = LinearConfig {
            rows: 4,
            inputs: 4,
            outputs: 4,
            bias: true,
            activation: Activation::Identity,
            keep: false,
            variant: None,
        };
        let caps = Capabilities::baseline();
        for (config, says) in [
            (LinearConfig { rows: 0, ..good }, "`m` = 0"),
            (LinearConfig { inputs: 0, ..good }, "`k` = 0"),
            (LinearConfig { outputs: 0, ..good }, "`n` = 0"),
            (LinearConfig { rows: 1 << 20, inputs: 1 << 20, ..good }, "1099511627776"),
            (LinearConfig { activation: Activation::Sine { frequency: f32::NAN }, ..good }, "activation"),
        ] {
            let error = LinearForward::plan(&config, &caps).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
            assert!(LinearBackward::plan(&config, &caps).is_err(), "{says}");
        }
    }
}
