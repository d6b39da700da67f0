//! A distance field from points on a surface alone, with a few signs: the equation `|grad f| = 1` does the rest
//! (Gropp et al. 2020). The loss is one of derivatives, so its gradient needs second ones: jets of a smoothstep
//! grid and of a smooth network, in one reverse pass.

use std::f64::consts::TAU;

use kernels_tests::harness::Random;
use kernels_tests::harness::adapter::best_context;
use patchfield::dense::{Activation, Method, Optimizer, OptimizerArgs, OptimizerConfig, StepValues};
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::train::{Input, Tape, Tensor, Variable, smooth_mlp};
use patchfield::{BufferView, Context, Kernel};

const SURFACE: usize = 512;
const POINTS: usize = 768;
const STEPS: u64 = 200;

/// A torus in the unit cube.
fn torus(p: &[f32]) -> f32 {
    ((p[0] - 0.5).hypot(p[1] - 0.5) - 0.26).hypot(p[2] - 0.5) - 0.13
}

fn places(random: &mut Random) -> Vec<f32> {
    let mut out = Vec::new();
    for i in 0..POINTS {
        let [u, v, w] = [0; 3].map(|_| f64::from(random.uniform(0.0, 1.0)));
        let radius = 0.26 + 0.13 * (TAU * v).cos();
        out.extend(match i < SURFACE {
            true => [radius * (TAU * u).cos(), radius * (TAU * u).sin(), 0.13 * (TAU * v).sin()]
                .map(|x| (0.5 + x) as f32),
            false => [u, v, w].map(|x| x as f32),
        });
    }
    out
}

/// The gradient of `100 mean f^2` over the surface, of `100 mean max(0, 0.02 - s f)^2` over the other points, whose
/// signs s are told where they are clear, and of `weight mean (|grad f| - 1)^2` over all, with respect to f and its
/// derivatives: `[4, N]`.
fn loss_gradient(y: &[f32], places: &[f32], weight: f32) -> Vec<f32> {
    let mut out = vec![0.0; 4 * POINTS];
    for i in 0..POINTS {
        let exact = torus(&places[3 * i..]);
        out[i] = match i < SURFACE {
            true => 200.0 * y[i] / SURFACE as f32,
            false if exact.abs() < 0.05 => 0.0,
            false => {
                let short = (0.02 - exact.signum() * y[i]).max(0.0);
                -200.0 * exact.signum() * short / (POINTS - SURFACE) as f32
            }
        };
        let slope: [f32; 3] = std::array::from_fn(|d| y[(d + 1) * POINTS + i]);
        let length = slope.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        for d in 0..3 {
            out[(d + 1) * POINTS + i] = 2.0 * weight * (length - 1.0) * slope[d] / length / POINTS as f32;
        }
    }
    out
}

/// What is off at points that were not seen: the mean error of the distance where it is below 0.15, and that of the
/// slope's length.
fn errors(context: &Context, weight: f32) -> [f64; 2] {
    let mut random = Random::new(31);
    let mut tape = Tape::new(context);
    let mut parameters = Vec::new();
    let mut parameter = |tape: &mut Tape, shape: &[u32], size: f32| -> Variable {
        let values = random.vec(shape.iter().product::<u32>() as usize, -size, size);
        let tensor = Tensor::from_slice(context, "parameter", shape, &values).unwrap();
        let variable = tape.variable(&tensor);
        parameters.push(variable.clone());
        variable
    };
    let grid = GridEncodingConfig {
        dims: 3,
        levels: 3,
        features: 2,
        log2_table_size: 12,
        base_resolution: 4,
        growth: 2.0,
        interpolation: Interpolation::Smoothstep,
        points: POINTS as u32,
        ..GridEncodingConfig::default()
    };
    let jets = GridEncodingJetConfig { grid, differential: Differential::Jet };
    let table = parameter(&mut tape, &[grid.parameter_count().unwrap()], 0.1);
    let positions = Tensor::new(context, "positions", &[POINTS as u32, 3]).unwrap();
    let shape = [1, 4, POINTS as u32, grid.outputs()];
    let encoded = Tensor::new(context, "encoded", &shape).unwrap();
    let forward = GridEncodingJetForward::new(context, jets)
        .unwrap()
        .prepare(&GridEncodingJetForwardArgs {
            positions: positions.view(),
            table: table.tensor().view(),
            direction: None,
            encoded: encoded.view(),
        })
        .unwrap();
    let at = positions.clone();
    let encoded = tape.operation(forward, &[&table], encoded, move |context, dy| {
        let kernel = GridEncodingJetBackwardTable::new(context, jets)?;
        let dtable = Tensor::new(context, "d table", &[jets.grid.parameter_count()?])?;
        let recording = kernel.prepare(&GridEncodingJetBackwardTableArgs {
            positions: at.view(),
            direction: None,
            dy: dy.view(),
            dtable: dtable.view(),
            scratch: &kernel.create_scratch()?,
        })?;
        Ok((recording, vec![Some(dtable)]))
    });
    let network = SmoothMlpConfig {
        tangents: 3,
        points: POINTS as u32,
        inputs: grid.outputs(),
        width: 32,
        layers: 1,
        outputs: 1,
        activation: Activation::Silu,
        ..Default::default()
    };
    let layers: Vec<_> = network
        .layer_sizes()
        .into_iter()
        .map(|(i, o)| {
            let size = (3.0 / i as f32).sqrt();
            (parameter(&mut tape, &[1, o, i], size), parameter(&mut tape, &[1, o], 0.1))
        })
        .collect();
    let y = smooth_mlp(&mut tape, network, Input::Variable(&encoded), &layers).unwrap();
    let d_y = Tensor::new(context, "d y", &[4, POINTS as u32]).unwrap();
    let gradients = tape.backward(&y, &d_y).unwrap();

    let method = Method::default();
    let step = context.create_storage("step", StepValues::WORDS * 4).unwrap();
    let mut update = patchfield::dispatch::Recording::new();
    for variable in &parameters {
        let tensor = variable.tensor();
        let zeros = vec![0.0; tensor.len() as usize];
        let moment = || Tensor::from_slice(context, "moment", tensor.shape(), &zeros).unwrap();
        let (moment1, moment2) = (moment(), moment());
        let optimizer = Optimizer::new(context, OptimizerConfig::new(tensor.len(), method)).unwrap();
        let args = OptimizerArgs {
            step: BufferView::new(&step),
            gradient: gradients.of(variable).unwrap().view(),
            parameter: tensor.view(),
            moment1: Some(moment1.view()),
            moment2: Some(moment2.view()),
        };
        update.append(optimizer.prepare(&args).unwrap());
    }
    let mut random = Random::new(32);
    for i in 0..STEPS {
        let now = places(&mut random);
        positions.write(context, &now).unwrap();
        // Once for the values, from which the loss's gradient is computed here, and once for its way back.
        context.run_blocking(&gradients.recording).unwrap();
        let values = y.tensor().read(context).unwrap();
        d_y.write(context, &loss_gradient(&values, &now, weight)).unwrap();
        let rate = 1e-2 * 0.5 * (1.0 + (std::f64::consts::PI * i as f64 / STEPS as f64).cos());
        context.write(&step, 0, StepValues::new(i + 1, rate as f32, method.betas()).bytes()).unwrap();
        context.run_blocking(&gradients.recording).unwrap();
        context.run_blocking(&update).unwrap();
    }
    let unseen: Vec<f32> = (0..3 * POINTS).map(|_| random.uniform(0.05, 0.95)).collect();
    positions.write(context, &unseen).unwrap();
    context.run_blocking(&gradients.recording).unwrap();
    let y = y.tensor().read(context).unwrap();
    let near: Vec<usize> = (0..POINTS).filter(|&i| torus(&unseen[3 * i..]).abs() < 0.15).collect();
    let mean = |f: &dyn Fn(usize) -> f32| {
        near.iter().map(|&i| f64::from(f(i).abs())).sum::<f64>() / near.len() as f64
    };
    let slope = |i: usize| (1..4).map(|d| y[d * POINTS + i].powi(2)).sum::<f32>().sqrt();
    [mean(&|i| y[i] - torus(&unseen[3 * i..])), mean(&|i| slope(i) - 1.0)]
}

#[test]
fn the_eikonal_equation_makes_distances_of_a_surface() {
    let Some(context) = best_context() else { return };
    let with = errors(&context, 0.1);
    let without = errors(&context, 0.0);
    println!("distance and slope off by {with:?}, without the equation by {without:?}");
    // A torus has a ring and an axis where no smooth field can have a slope of 1.
    assert!(with[0] < 0.03 && with[1] < 0.3, "{with:?}");
    assert!(with[0] < 0.75 * without[0] && with[1] < 0.5 * without[1], "{with:?} and {without:?}");
}
