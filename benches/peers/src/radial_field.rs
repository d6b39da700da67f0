//! Training steps of the published radial field of a 256 x 256 picture, beside the same network in burn.
//!
//! Both cache what frozen centres leave constant: neighbours, bases and cells of the grid. burn also keeps
//! the sinusoids of the bases, `[points, neighbours, features]`, so that its step begins with a product.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::optim::{Adam, AdamConfig, AdamState, Optimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use patchfield::Context;
use patchfield::models::{FitConfig, Picture, RadialField, RadialFieldConfig};
use patchfield::train::Schedule;
use serde_json::json;

use crate::{Result, median, noise};

const SIDE: usize = 256;
const POINTS: usize = SIDE * SIDE;
/// Turns of each side, and the steps of a turn.
const ROUNDS: usize = 5;
const STEPS: u64 = 10;
const BETAS: [f32; 2] = [0.9, 0.99];

/// Steps a second of both, and the ratio.
pub fn race(context: &Context, burn: &Device) -> Result<serde_json::Value> {
    let config = RadialFieldConfig::hybrid_for_picture(SIDE as u32, SIDE as u32, 3, 15)?;
    let parameters = config.parameter_count()?;
    let values: Vec<f32> = noise(POINTS as u32 * 3, 7).iter().map(|v| 0.5 + 0.5 * v).collect();
    let picture = Picture::new(SIDE as u32, SIDE as u32, 3, values.clone())?;
    let mut ours = RadialField::for_picture(context, config.clone(), &picture, 0)?;
    let mut theirs = Burn::new(burn, &config, values)?;
    if theirs.parameter_count() as u64 != parameters {
        return Err(format!("burn trains {} parameters, not {parameters}", theirs.parameter_count()).into());
    }
    // The first turns compile, and burn tunes itself.
    let (first, theirs_first) = (turn(&mut ours, &picture)?.1, theirs.turn(2)?.1);
    let (mut our_seconds, mut their_seconds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut losses = [first, theirs_first];
    for _ in 0..ROUNDS {
        let ((x, our_loss), (y, their_loss)) = (turn(&mut ours, &picture)?, theirs.turn(STEPS)?);
        our_seconds.push(x);
        their_seconds.push(y);
        ratios.push(y / x);
        losses = [our_loss, their_loss];
    }
    // Noise cannot be fitted in so few steps, but both must have found its mean: a variance of 1/12.
    for (loss, side) in losses.iter().zip(["patchfield", "burn"]) {
        if !(0.0..0.1).contains(loss) {
            return Err(format!("{side}'s loss is {loss} after {} steps", ROUNDS as u64 * STEPS).into());
        }
    }
    let (ours, theirs) = (1.0 / median(&mut our_seconds), 1.0 / median(&mut their_seconds));
    let ratio = median(&mut ratios);
    let shape = format!("{SIDE} x {SIDE}, {parameters} parameters");
    println!("models/radial_field training, {shape}: {ours:.2} steps/s, burn {theirs:.2}, ratio {ratio:.2}");
    Ok(json!({
        "kernel": "models/radial_field",
        "variant": "training step",
        "shape": shape,
        "adapter": context.capabilities().adapter,
        "steps_per_s": ours,
        "peer": "burn 0.22",
        "peer_steps_per_s": theirs,
        "ratio": ratio,
    }))
}

/// Seconds a step and the last loss. The steps before the first report pay for binding the buffers.
fn turn(field: &mut RadialField, picture: &Picture) -> Result<(f64, f64)> {
    let fit = FitConfig {
        steps: STEPS + 1,
        batch: POINTS as u32,
        learning_rate: 0.01,
        schedule: Schedule::Constant,
        seed: 0,
        report_every: 1,
        checkpoint: None,
        resume: false,
    };
    let (mut start, mut seconds, mut loss) = (Instant::now(), 0.0, 0.0);
    field.fit(picture, &fit, &mut |progress| {
        if progress.step == 1 {
            start = Instant::now();
        }
        seconds = start.elapsed().as_secs_f64() / STEPS as f64;
        loss = progress.loss;
        ControlFlow::Continue(())
    })?;
    Ok((seconds, loss))
}

/// A parameter with Adam's state.
struct Trained<const D: usize> {
    value: Tensor<D>,
    state: Option<AdamState<D>>,
    rate: f64,
}

impl<const D: usize> Trained<D> {
    /// Uniform in `+-size`.
    fn new(device: &Device, shape: [usize; D], size: f32, rate: f64) -> Self {
        let values: Vec<f32> =
            noise(shape.iter().product::<usize>() as u32, 5).iter().map(|v| v * size).collect();
        let value = Tensor::from_data(TensorData::new(values, shape), device).require_grad();
        Self { value, state: None, rate }
    }

    fn get(&self) -> Tensor<D> {
        self.value.clone()
    }

    fn count(&self) -> usize {
        self.value.dims().iter().product()
    }

    fn update(&mut self, adam: &Adam, gradients: &mut burn::tensor::Gradients) -> Result {
        let gradient = self.value.grad_remove(gradients).ok_or("burn gave no gradient")?;
        let (value, state) = adam.step(self.rate, self.get().inner(), gradient, self.state.take());
        self.state = state;
        self.value = value.autodiff().require_grad();
        Ok(())
    }
}

/// The same network in burn.
struct Burn {
    adam: Adam,
    target: Tensor<2>,
    /// Of each level: the four corners of every point's cell, and their weights.
    cells: Vec<(Tensor<1, Int>, Tensor<3>)>,
    tables: Vec<Trained<2>>,
    neighbours: Tensor<1, Int>,
    /// `sin(m phi)`, `[points, neighbours, features]`.
    sinusoids: Tensor<3>,
    weights: Trained<2>,
    joined_bias: Trained<2>,
    layers: [(Trained<2>, Trained<2>); 3],
    hidden_frequencies: Tensor<2>,
}

impl Burn {
    fn new(device: &Device, config: &RadialFieldConfig, target: Vec<f32>) -> Result<Self> {
        let device = &device.clone().autodiff();
        let radial = config.radial.as_ref().ok_or("not a hybrid")?;
        let (centres, k) = (radial.centres as usize, radial.neighbours as usize);
        let (features, width) = (radial.features as usize, config.width as usize);
        let matrix = |values: Vec<f32>, shape: [usize; 2]| -> Tensor<2> {
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        let (mut cells, mut tables) = (Vec::new(), Vec::new());
        for level in config.grid.level_table()? {
            let (mut corners, mut shares) = (Vec::new(), Vec::new());
            for i in 0..POINTS {
                let at = [i % SIDE, i / SIDE].map(|p| (p as f32 + 0.5) / SIDE as f32 * level.scale);
                for corner in 0..4u32 {
                    let (x, y) = (at[0] as u32 + (corner & 1), at[1] as u32 + (corner >> 1));
                    let share = |t: f32, upper: u32| if upper == 1 { t.fract() } else { 1.0 - t.fract() };
                    corners.push(((x + y * level.resolution) % level.entries) as i32);
                    shares.push(share(at[0], corner & 1) * share(at[1], corner >> 1));
                }
            }
            let corners = Tensor::from_data(TensorData::new(corners, [POINTS * 4]), device);
            let shares = Tensor::from_data(TensorData::new(shares, [POINTS, 4, 1]), device);
            cells.push((corners, shares));
            let shape = [level.entries as usize, config.grid.features as usize];
            tables.push(Trained::new(device, shape, 1e-4, 0.005));
        }
        // Any neighbours and bases cost the same; these lie as near to each other in memory as real ones.
        let neighbours: Vec<i32> =
            (0..POINTS * k).map(|i| ((i / k * centres / POINTS + i % k) % centres) as i32).collect();
        let frequencies = spread(radial.frequencies.ok_or("no sinusoids")?, features);
        let sinusoids: Vec<f32> = noise((POINTS * k) as u32, 3)
            .iter()
            .flat_map(|phi| frequencies.iter().map(move |m| (m * (0.5 + 0.5 * phi)).sin()))
            .collect();
        let joined = config.grid.levels as usize * config.grid.features as usize + features;
        let layer = |inputs: usize, outputs: usize| {
            let size = 1.0 / (inputs as f32).sqrt();
            (
                Trained::new(device, [inputs, outputs], size, 0.01),
                Trained::new(device, [1, outputs], size, 0.01),
            )
        };
        Ok(Self {
            adam: AdamConfig::new().with_beta_1(BETAS[0]).with_beta_2(BETAS[1]).with_epsilon(1e-15).build(),
            target: matrix(target, [POINTS, 3]),
            cells,
            tables,
            neighbours: Tensor::from_data(TensorData::new(neighbours, [POINTS * k]), device),
            sinusoids: Tensor::from_data(TensorData::new(sinusoids, [POINTS, k, features]), device),
            weights: Trained::new(device, [centres, features], 1e-4, 0.005),
            joined_bias: Trained::new(device, [1, joined], 1e-4, 0.005),
            layers: [layer(joined, width), layer(width, width), layer(width, 3)],
            hidden_frequencies: matrix(spread(radial.hidden_frequencies.ok_or("no sinusoids")?, width), [1, width]),
        })
    }

    fn parameter_count(&self) -> usize {
        let layers: usize = self.layers.iter().map(|(weight, bias)| weight.count() + bias.count()).sum();
        let tables: usize = self.tables.iter().map(Trained::count).sum();
        tables + self.weights.count() + self.joined_bias.count() + layers
    }

    fn loss(&self) -> Tensor<1> {
        let mut parts: Vec<Tensor<2>> = Vec::new();
        for ((corners, shares), table) in self.cells.iter().zip(&self.tables) {
            let values = table.get().select(0, corners.clone()).reshape([POINTS as i32, 4, -1]);
            parts.push((values * shares.clone()).sum_dim(1).squeeze_dim(1));
        }
        let [points, k, features] = self.sinusoids.dims();
        let weights = self.weights.get().select(0, self.neighbours.clone()).reshape([points, k, features]);
        parts.push((weights * self.sinusoids.clone()).sum_dim(1).squeeze_dim(1));
        let x = Tensor::cat(parts, 1) + self.joined_bias.get();
        let [first, second, last] = &self.layers;
        let z = x.matmul(first.0.get()) + first.1.get();
        let x = z.clone() + (z * self.hidden_frequencies.clone()).sin();
        let x = activation::relu(x.matmul(second.0.get()) + second.1.get());
        let y = x.matmul(last.0.get()) + last.1.get();
        (y - self.target.clone()).powi_scalar(2).mean()
    }

    /// Seconds a step and the last loss.
    fn turn(&mut self, steps: u64) -> Result<(f64, f64)> {
        let (start, mut last) = (Instant::now(), f64::NAN);
        for _ in 0..steps {
            let loss = self.loss();
            let mut gradients = loss.backward();
            for table in &mut self.tables {
                table.update(&self.adam, &mut gradients)?;
            }
            self.weights.update(&self.adam, &mut gradients)?;
            self.joined_bias.update(&self.adam, &mut gradients)?;
            for (weight, bias) in &mut self.layers {
                weight.update(&self.adam, &mut gradients)?;
                bias.update(&self.adam, &mut gradients)?;
            }
            // Ours reads its loss at each step too.
            last = f64::from(loss.into_scalar::<f32>());
        }
        Ok((start.elapsed().as_secs_f64() / steps as f64, last))
    }
}

/// `count` numbers from the first to the last, their logarithms evenly spaced.
fn spread([low, high]: [f64; 2], count: usize) -> Vec<f32> {
    let step = (high / low).ln() / (count - 1) as f64;
    (0..count).map(|i| (low * (step * i as f64).exp()) as f32).collect()
}
