//! Reference and cases of `dense::linear`.

use patchfield::Kernel;
use patchfield::dense::activation::Activation;
use patchfield::dense::linear::*;

use super::activation;
use crate::harness::{Case, Expected, Random};

type Term = (f64, f64);

/// Output, gradient of input, weights and bias; each with its magnitude.
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
            // |a'| <= 1.13 and |a''| <= 1 for the activations of the cases.
            y[r * outputs + o] = (value, 1.13 * z.1);
            let g = f64::from(dy[r * outputs + o]);
            let (dz, size) = (g * slope, g.abs() * (1.13 + z.1));
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

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(32);
    let mut cases = Vec::new();
    for (rows, inputs, outputs, bias, activation) in [
        (1, 1, 1, true, Activation::Identity),
        (33, 12, 20, true, Activation::Silu),
        (65, 7, 5, false, Activation::Gelu),
        (1000, 16, 8, true, Activation::Tanh),
    ] {
        let config = LinearConfig { rows, inputs, outputs, bias, activation, keep: true, variant: None };
        let x = random.vec((rows * inputs) as usize, -1.0, 1.0);
        let w = random.vec((outputs * inputs) as usize, -1.0, 1.0);
        let b = random.vec(outputs as usize, -1.0, 1.0);
        let dy = random.vec((rows * outputs) as usize, -1.0, 1.0);
        let [y, dx, dw, db] = reference(&config, &x, &w, &b, &dy);
        // Roundings: one a term, and 8 for the activation.
        let forward = f64::from(inputs) + 10.0;
        let case = Case::new("dense/linear", format!("{config:?}"), move |context, buffers| {
            let forward = LinearForward::new(context, config)?;
            let backward = LinearBackward::new(context, config)?;
            let kept = context.create_storage("kept", u64::from(rows * outputs) * 4)?;
            let mut recording = forward.prepare(&LinearForwardArgs {
                x: buffers["x"],
                weight: buffers["w"],
                bias: bias.then(|| buffers["b"]),
                y: buffers["y"],
                kept: Some((&kept).into()),
                scratch: &buffers.scratch(&forward)?,
            })?;
            recording.append(backward.prepare(&LinearBackwardArgs {
                x: buffers["x"],
                weight: buffers["w"],
                kept: Some((&kept).into()),
                dy: buffers["dy"],
                dx: Some(buffers["dx"]),
                dweight: buffers["dw"],
                dbias: bias.then(|| buffers["db"]),
                scratch: &buffers.scratch(&backward)?,
            })?);
            Ok(recording)
        })
        .input("x", &x)
        .input("w", &w)
        .input("b", &b)
        .input("dy", &dy)
        .output("y", Expected::near(&y, forward, 0.0))
        .output("dx", Expected::near(&dx, forward + f64::from(outputs), 0.0))
        .output("dw", Expected::near(&dw, forward + f64::from(rows), 0.0));
        cases.push(if bias {
            case.output("db", Expected::near(&db, forward + f64::from(rows), 0.0))
        } else {
            case
        });
    }
    cases
}
