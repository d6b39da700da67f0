//! A picture from its gradients alone: the field over a fixed ring of windowed bases is found, the
//! field over the k nearest centres, whose pieces do not meet, is not. Both have the same centres,
//! features, network, points and schedule, and both can hold the picture when shown its values.

use kernels_tests::harness::adapter::best_context;
use patchfield::dense::{
    Activation, Add, AddArgs, AddConfig, ElementwiseLoss, ElementwiseLossArgs, InvertedIndex,
    InvertedIndexArgs, InvertedIndexConfig, Loss, LossConfig, Method, Optimizer, OptimizerArgs,
    OptimizerConfig, StepValues,
};
use patchfield::dispatch::{Planned, Recording};
use patchfield::radial::*;
use patchfield::train::{CompactBasisOperands, Input, Tape, Tensor, Variable, compact_basis, smooth_mlp};
use patchfield::{BufferView, Context, Kernel};

const SIDE: u32 = 64;
const POINTS: u32 = SIDE * SIDE;
const CELLS: u32 = 16;
const FEATURES: u32 = 16;
const STEPS: u64 = 150;
const PLANES: u32 = 3;

/// Waves, a soft-edged disc and a slope, with its gradient.
fn picture(x: f64, y: f64) -> [f64; 3] {
    let wave = 9.0 * x + 5.0 * (6.0 * y).sin();
    let (dx, dy) = (x - 0.6, y - 0.45);
    let r = dx.hypot(dy).max(1e-9);
    let edge = (30.0 * (0.25 - r)).tanh();
    let slope = -30.0 * (1.0 - edge * edge) / r;
    [
        0.5 + 0.15 * wave.sin() + 0.2 * edge + 0.1 * y,
        0.15 * 9.0 * wave.cos() + 0.2 * slope * dx,
        0.15 * 30.0 * (6.0 * y).cos() * wave.cos() + 0.2 * slope * dy + 0.1,
    ]
}

/// Positions of the pixels, and value and gradient there, `[3, N]`.
fn target() -> (Vec<f32>, Vec<f32>) {
    let at = |i: u32| (f64::from(i) + 0.5) / f64::from(SIDE);
    let places: Vec<[f64; 2]> = (0..POINTS).map(|i| [at(i % SIDE), at(i / SIDE)]).collect();
    let planes = (0..3).flat_map(|p| places.iter().map(move |&[x, y]| picture(x, y)[p] as f32)).collect();
    (places.iter().flatten().map(|&x| x as f32).collect(), planes)
}

/// A fixed sequence in [-1, 1).
fn noise(n: u32, size: f32, seed: u64) -> Vec<f32> {
    let mut random = kernels_tests::harness::Random::new(seed);
    random.vec(n as usize, -size, size)
}

struct Fit<'a> {
    context: &'a Context,
    tape: Tape,
    parameters: Vec<Variable>,
}

impl<'a> Fit<'a> {
    fn new(context: &'a Context) -> Self {
        Self { context, tape: Tape::new(context), parameters: Vec::new() }
    }

    fn parameter(&mut self, shape: &[u32], size: f32) -> Variable {
        let seed = 90 + self.parameters.len() as u64;
        let values = noise(shape.iter().product(), size, seed);
        let tensor = Tensor::from_slice(self.context, "parameter", shape, &values).unwrap();
        let variable = self.tape.variable(&tensor);
        self.parameters.push(variable.clone());
        variable
    }

    /// The network on jets of features, and the training; the error of the picture in dB, its mean
    /// aligned, since gradients say nothing about it.
    fn psnr(mut self, features: &Variable, by_gradient: bool) -> f64 {
        let context = self.context;
        let network = SmoothMlpConfig {
            tangents: 2,
            points: POINTS,
            inputs: FEATURES,
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
                (self.parameter(&[1, o, i], size), self.parameter(&[1, o], 0.1))
            })
            .collect();
        let y = smooth_mlp(&mut self.tape, network, Input::Variable(features), &layers).unwrap();
        let (_, target) = target();
        let target = Tensor::from_slice(context, "target", &[PLANES, POINTS], &target).unwrap();
        let zeros = vec![0.0; (PLANES * POINTS) as usize];
        let d_y = Tensor::from_slice(context, "d y", &[PLANES, POINTS], &zeros).unwrap();
        let loss = Tensor::new(context, "loss", &[1]).unwrap();
        // The planes that are looked at: the derivatives, or the value.
        let (first, planes) = if by_gradient { (1, 2) } else { (0, 1) };
        let part = |tensor: &Tensor| -> BufferView<'_> {
            // The buffers outlive the test.
            let bytes = u64::from(POINTS) * 4;
            BufferView::range(Box::leak(Box::new(tensor.buffer().clone())), first * bytes, planes * bytes)
        };
        let config = LossConfig::new(Loss::Squared, planes as u32 * POINTS);
        let error = ElementwiseLoss::new(context, config).unwrap();
        let recording = error
            .prepare(&ElementwiseLossArgs {
                prediction: part(y.tensor()),
                target: part(&target),
                loss: loss.view(),
                gradient: Some(part(&d_y)),
                scratch: &error.create_scratch().unwrap(),
            })
            .unwrap();
        self.tape.constant(recording);
        let gradients = self.tape.backward(&y, &d_y).unwrap();
        let method = Method::default();
        let step = context.create_storage("step", StepValues::WORDS * 4).unwrap();
        let mut recording = gradients.recording.clone();
        for variable in &self.parameters {
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
            recording.append(optimizer.prepare(&args).unwrap());
        }
        for i in 0..STEPS {
            let rate = 2e-2 * 0.5 * (1.0 + (std::f64::consts::PI * i as f64 / STEPS as f64).cos());
            context.write(&step, 0, StepValues::new(i + 1, rate as f32, method.betas()).bytes()).unwrap();
            context.run_blocking(&recording).unwrap();
        }
        let got = y.tensor().read(context).unwrap();
        let want = target.read(context).unwrap();
        let n = POINTS as usize;
        let off: Vec<f64> =
            got[..n].iter().zip(&want[..n]).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let mean = if by_gradient { off.iter().sum::<f64>() / n as f64 } else { 0.0 };
        let squared = off.iter().map(|o| (o - mean).powi(2)).sum::<f64>() / n as f64;
        -10.0 * squared.log10()
    }
}

/// A fixed ring of windowed bases on the lattice.
fn compact(context: &Context, by_gradient: bool) -> f64 {
    let mut fit = Fit::new(context);
    let config = CompactBasisConfig {
        base_resolution: CELLS,
        features: FEATURES,
        normalized: true,
        differential: Differential::Jet,
        points: POINTS,
        ..Default::default()
    };
    let positions = Tensor::from_slice(context, "positions", &[POINTS, 2], &target().0).unwrap();
    let weights = fit.parameter(&[config.node_count().unwrap(), FEATURES], 0.1);
    let operands = CompactBasisOperands {
        positions: Input::Constant(&positions),
        weights: &weights,
        frequencies: None,
        shapes: None,
        direction: None,
    };
    let features = compact_basis(&mut fit.tape, config, operands).unwrap();
    fit.psnr(&features, by_gradient)
}

/// The k nearest of the same lattice's nodes: `phi` of each neighbour and its derivatives are fixed
/// while the centres are, so features and their derivatives are sums of weights.
fn nearest(context: &Context, k: u32, by_gradient: bool) -> f64 {
    let mut fit = Fit::new(context);
    let along = CELLS + 3;
    let at = |i: u32| (i as f32 - 1.0) / CELLS as f32;
    let centres: Vec<f32> = (0..along * along).flat_map(|i| [at(i % along), at(i / along)]).collect();
    let n_centres = along * along;
    let tensor = |what, shape: &[u32], data: &[f32]| Tensor::from_slice(context, what, shape, data).unwrap();
    let empty = |what, shape: &[u32]| Tensor::new(context, what, shape).unwrap();
    let positions = tensor("positions", &[POINTS, 2], &target().0);
    let centres = tensor("centres", &[n_centres, 2], &centres);
    // r^2 in cells.
    let shapes = tensor("shapes", &[n_centres], &vec![(CELLS * CELLS) as f32; n_centres as usize]);
    let neighbours = empty("neighbours", &[POINTS, k]);
    let search = NearestNeighbours::new(
        context,
        NearestConfig { dims: 2, points: POINTS, centres: n_centres, k, distances: false, variant: None },
    )
    .unwrap();
    let mut setup = search
        .prepare(&NearestArgs {
            points: positions.view(),
            centres: centres.view(),
            indices: neighbours.view(),
            distances: None,
            scratch: &search.create_scratch().unwrap(),
        })
        .unwrap();
    let config = RadialBasisConfig {
        function: RadialFunction::InverseQuadratic,
        shape: RadialShape::Scalar,
        normalisation: RadialNormalisation::Full,
        dims: 2,
        centres: n_centres,
        neighbours: k,
        points: POINTS,
        ..Default::default()
    };
    let phi = empty("phi", &[POINTS, k]);
    let basis = RadialBasisForward::new(context, config).unwrap();
    let args = RadialBasisForwardArgs {
        positions: positions.view(),
        centres: centres.view(),
        shapes: shapes.view(),
        neighbours: neighbours.view(),
        phi: phi.view(),
    };
    setup.append(basis.prepare(&args).unwrap());
    let lists = InvertedIndexConfig { rows: n_centres, n: POINTS * k };
    let (order, starts) = (empty("order", &[POINTS * k]), empty("starts", &[n_centres + 1]));
    let index = InvertedIndex::new(context, lists).unwrap();
    let args = InvertedIndexArgs {
        index: neighbours.view(),
        order: order.view(),
        starts: starts.view(),
        scratch: &index.create_scratch().unwrap(),
    };
    setup.append(index.prepare(&args).unwrap());
    context.run_blocking(&setup).unwrap();
    // The derivatives of the j-th basis of each point, one after the other.
    let mut slopes = vec![vec![0.0; (POINTS * k) as usize]; 2];
    let backward = RadialBasisBackward::new(context, config).unwrap();
    let (dkernel, dpositions) = (empty("dkernel", &[POINTS, k]), empty("dx", &[POINTS, 2]));
    for j in 0..k as usize {
        let one: Vec<f32> =
            (0..(POINTS * k) as usize).map(|i| f32::from(u8::from(i % k as usize == j))).collect();
        let dphi = tensor("dphi", &[POINTS, k], &one);
        let args = RadialBasisBackwardArgs {
            positions: positions.view(),
            centres: centres.view(),
            shapes: shapes.view(),
            neighbours: neighbours.view(),
            dphi: dphi.view(),
            dkernel: dkernel.view(),
            dpositions: dpositions.view(),
            centre_gradients: None,
        };
        context.run_blocking(&backward.prepare(&args).unwrap()).unwrap();
        for (n, slope) in dpositions.read(context).unwrap().chunks(2).enumerate() {
            slopes[0][n * k as usize + j] = slope[0];
            slopes[1][n * k as usize + j] = slope[1];
        }
    }
    let bases = [phi, tensor("x", &[POINTS, k], &slopes[0]), tensor("y", &[POINTS, k], &slopes[1])];
    let sums = SinusoidCompositionConfig {
        points: POINTS,
        centres: n_centres,
        neighbours: k,
        features: FEATURES,
        sinusoid: false,
        ..Default::default()
    };
    let weights = fit.parameter(&[n_centres, FEATURES], 0.1);
    let features = empty("features", &[PLANES, POINTS, FEATURES]);
    let bytes = u64::from(POINTS * FEATURES) * 4;
    let mut forward = Recording::new();
    let kernel = SinusoidCompositionForward::new(context, sums).unwrap();
    for (plane, basis) in (0..).zip(&bases) {
        let args = SinusoidCompositionForwardArgs {
            phi: basis.view(),
            neighbours: neighbours.view(),
            weights: weights.tensor().view(),
            frequencies: None,
            y: BufferView::range(features.buffer(), plane * bytes, bytes),
        };
        forward.append(kernel.prepare(&args).unwrap());
    }
    let w = weights.tensor().clone();
    let features = fit.tape.operation(forward, &[&weights], features, move |context, dy| {
        let config = SinusoidCompositionBackwardConfig {
            forward: sums,
            phi: false,
            weights: true,
            frequencies: false,
        };
        let kernel = SinusoidCompositionBackward::new(context, config)?;
        let total = Tensor::new(context, "dweights", w.shape())?;
        let mut recording = Recording::new();
        for (plane, basis) in (0..).zip(&bases) {
            let part = Tensor::new(context, "part", w.shape())?;
            recording.append(kernel.prepare(&SinusoidCompositionBackwardArgs {
                phi: basis.view(),
                neighbours: neighbours.view(),
                weights: w.view(),
                frequencies: None,
                order: order.view(),
                starts: starts.view(),
                dy: BufferView::range(dy.buffer(), plane * bytes, bytes),
                dphi: None,
                dweights: Some(part.view()),
                dfrequencies: None,
                scratch: &kernel.create_scratch()?,
            })?);
            let b = if plane == 0 { 0.0 } else { 1.0 };
            let add = Add::new(context, AddConfig { count: w.len(), a: 1.0, b, variant: None })?;
            recording.append(add.prepare(&AddArgs { x: part.view(), y: total.view() })?);
        }
        Ok((recording, vec![Some(total)]))
    });
    fit.psnr(&features, by_gradient)
}

#[test]
fn gradients_alone_give_the_picture_with_compact_bases_and_not_with_the_nearest() {
    let Some(context) = best_context() else { return };
    let (by_value, from_gradients) = (compact(&context, false), compact(&context, true));
    let (k_by_value, k_from_gradients) = (nearest(&context, 4, false), nearest(&context, 4, true));
    println!("compact: {by_value:.2} dB from values, {from_gradients:.2} dB from gradients");
    println!("4 nearest: {k_by_value:.2} dB from values, {k_from_gradients:.2} dB from gradients");
    assert!(k_by_value > 30.0, "the nearest centres cannot hold the picture: {k_by_value} dB");
    assert!(from_gradients > k_from_gradients + 10.0, "{from_gradients} and {k_from_gradients} dB");
}
