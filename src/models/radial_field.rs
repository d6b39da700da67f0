//! Neural fields over the plane: a multiresolution grid and a small network.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::picture::Picture;
use super::sampler::Sampler;
use crate::dense::{
    ElementwiseLoss, ElementwiseLossArgs, Loss, LossConfig, Method, Optimizer, OptimizerArgs,
    OptimizerConfig, StepValues,
};
use crate::dispatch::{
    BufferView, Context, Error, Kernel, Planned, Recording, Result, Scratch, check_config,
};
use crate::radial::{
    FusedMlpBackward, FusedMlpBackwardArgs, FusedMlpConfig, FusedMlpForward, FusedMlpForwardArgs,
    GridEncodingBackwardTable, GridEncodingBackwardTableArgs, GridEncodingConfig, GridEncodingForward,
    GridEncodingForwardArgs,
};
use crate::train::{Checkpoint, Parameters, Schedule, Tensor};

/// What a field is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RadialFieldConfig {
    /// The grid; `dims` must be 2, `points` is not looked at.
    pub grid: GridEncodingConfig,
    /// Neurons of a hidden layer: 16, 32, 64 or 128.
    pub width: u32,
    /// Hidden layers, 1 to 8.
    pub layers: u32,
    /// Values of a pixel, 1 to 4.
    pub channels: u32,
}

impl RadialFieldConfig {
    /// For a picture of this size: 16 levels of 2 features from 16 cells to half the longer side,
    /// tables of `2^15` entries, and two hidden layers of 64.
    #[must_use]
    pub fn for_picture(width: u32, height: u32, channels: u32) -> Self {
        let config = Self { grid: GridEncodingConfig::default(), width: 64, layers: 2, channels };
        config.with_finest(width.max(height) / 2)
    }

    /// Other numbers of levels and of entries, with the same finest resolution.
    #[must_use]
    pub fn with_table(mut self, levels: u32, log2_table_size: u32) -> Self {
        let last = f64::from(self.grid.levels.max(2) - 1);
        let finest = f64::from(self.grid.base_resolution) * self.grid.growth.powf(last);
        self.grid.levels = levels;
        self.grid.log2_table_size = log2_table_size;
        self.with_finest(finest.round() as u32)
    }

    fn with_finest(mut self, finest: u32) -> Self {
        let ratio = f64::from(finest) / f64::from(self.grid.base_resolution);
        self.grid.growth = ratio.max(1.0).powf(1.0 / f64::from(self.grid.levels.max(2) - 1));
        self
    }

    fn grid(&self, points: u32) -> GridEncodingConfig {
        GridEncodingConfig { points, ..self.grid }
    }

    fn network(&self, points: u32, keep: bool) -> FusedMlpConfig {
        FusedMlpConfig {
            inputs: self.grid.outputs(),
            width: self.width,
            layers: self.layers,
            outputs: self.channels,
            points,
            keep,
            ..FusedMlpConfig::default()
        }
    }

    fn check(&self) -> Result<()> {
        check_config(self.grid.dims == 2, "dims", "2 for a picture", self.grid.dims)?;
        check_config((1..=4).contains(&self.channels), "channels", "1 to 4", self.channels)
    }
}

/// A part of the plane; the whole picture is `[0, 1] x [0, 1]`, with row 0 at `y = 0`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Left and top edge.
    pub low: [f64; 2],
    /// Right and bottom edge.
    pub high: [f64; 2],
}

impl Region {
    /// Everything.
    pub const WHOLE: Self = Self { low: [0.0; 2], high: [1.0; 2] };

    /// The pixels from `corner` on, `size` of them, of a picture of `whole` pixels.
    #[must_use]
    pub fn of_pixels(corner: (u32, u32), size: (u32, u32), whole: (u32, u32)) -> Self {
        let (w, h) = (f64::from(whole.0), f64::from(whole.1));
        let low = [f64::from(corner.0) / w, f64::from(corner.1) / h];
        Self { low, high: [low[0] + f64::from(size.0) / w, low[1] + f64::from(size.1) / h] }
    }
}

/// How a field is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct FitConfig {
    /// Training steps in all, those before a resume included.
    pub steps: u64,
    /// Pixels of a step.
    pub batch: u32,
    /// Learning rate of Adam (betas 0.9 and 0.99, epsilon 1e-15).
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Seed of the order of pixels.
    pub seed: u64,
    /// Steps between two calls of the callback; at each the loss is read and must be finite.
    pub report_every: u64,
    /// Where checkpoints go, and the steps between two of them.
    pub checkpoint: Option<(PathBuf, u64)>,
    /// Go on from the checkpoint instead of from the field's present parameters.
    pub resume: bool,
}

/// What the callback of a fit is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Mean squared error of the last batch.
    pub loss: f64,
    /// The same in dB.
    pub psnr: f64,
    /// Mean speed since the fit began.
    pub steps_per_second: f64,
}

/// A neural field: colour as a function of position.
#[derive(Debug, Clone)]
pub struct RadialField {
    context: Context,
    config: RadialFieldConfig,
    table: Tensor,
    weights: Tensor,
}

/// Everything that a training step touches, bound once.
struct Trainer {
    step: wgpu::Buffer,
    positions: Tensor,
    target: Tensor,
    loss: Tensor,
    moments: [Tensor; 4],
    recording: Recording,
    _scratch: Vec<Scratch>,
}

impl RadialField {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    pub fn new(context: &Context, config: RadialFieldConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut state = seed;
        let mut uniform = move |size: f32| {
            state = super::sampler::mix(state);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
        };
        let entries = config.grid.parameter_count()?;
        let table: Vec<f32> = (0..entries).map(|_| uniform(1e-4)).collect();
        let network = config.network(1, false);
        FusedMlpForward::plan(&network, context.capabilities())?;
        let mut weights = vec![0.0; network.weight_count() as usize];
        for layer in network.layer_table() {
            let size = (6.0 / layer.inputs as f32).sqrt();
            for o in 0..layer.outputs {
                let row = (layer.first + o * layer.stride()) as usize;
                weights[row..row + layer.inputs as usize].fill_with(|| uniform(size));
            }
        }
        Ok(Self {
            context: context.clone(),
            config,
            table: Tensor::from_slice(context, "grid.table", &[entries], &table)?,
            weights: Tensor::from_slice(context, "network.weights", &[weights.len() as u32], &weights)?,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RadialFieldConfig {
        &self.config
    }

    /// Trainable numbers: table entries, weights and biases, without padding of the weights.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        u64::from(self.table.len()) + u64::from(self.config.network(1, false).parameter_count())
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::new();
        parameters.insert("grid.table", &self.table)?;
        parameters.insert("network.weights", &self.weights)?;
        Ok(parameters)
    }

    /// Forward pass for positions that are already on the device.
    fn forward(
        &self,
        positions: &Tensor,
        output: &Tensor,
        encoded: &Tensor,
        kept: &Tensor,
        keep: bool,
    ) -> Result<Recording> {
        let points = positions.len() / 2;
        let mut recording = GridEncodingForward::new(&self.context, self.config.grid(points))?.prepare(
            &GridEncodingForwardArgs {
                positions: positions.view(),
                table: self.table.view(),
                encoded: encoded.view(),
            },
        )?;
        let network = FusedMlpForward::new(&self.context, self.config.network(points, keep))?;
        recording.append(network.prepare(&FusedMlpForwardArgs {
            weights: self.weights.view(),
            x: encoded.view(),
            y: output.view(),
            kept: kept.view(),
        })?);
        Ok(recording)
    }

    fn trainer(&self, batch: u32) -> Result<Trainer> {
        let context = &self.context;
        let channels = self.config.channels;
        let features = self.config.grid.outputs();
        let tensor = |what, shape: &[u32]| Tensor::new(context, what, shape);
        let positions = tensor("positions", &[batch, 2])?;
        let target = tensor("target", &[batch, channels])?;
        let encoded = tensor("encoded", &[batch, features])?;
        let d_encoded = tensor("d encoded", &[batch, features])?;
        let output = tensor("output", &[batch, channels])?;
        let d_output = tensor("d output", &[batch, channels])?;
        let loss = tensor("loss", &[1])?;
        let d_table = tensor("d table", self.table.shape())?;
        let d_weights = tensor("d weights", self.weights.shape())?;
        let network = self.config.network(batch, true);
        // `kept_count` was checked to fit by the plan.
        let backward = FusedMlpBackward::new(context, network)?;
        let kept = tensor("kept", &[network.kept_count() as u32])?;

        let mut recording = self.forward(&positions, &output, &encoded, &kept, true)?;
        let config = LossConfig { loss: Loss::Squared, count: batch * channels, scale: 1.0, gradient: true };
        let error = ElementwiseLoss::new(context, config)?;
        let error_scratch = error.create_scratch()?;
        recording.append(error.prepare(&ElementwiseLossArgs {
            prediction: output.view(),
            target: target.view(),
            loss: loss.view(),
            gradient: Some(d_output.view()),
            scratch: &error_scratch,
        })?);
        let backward_scratch = backward.create_scratch()?;
        recording.append(backward.prepare(&FusedMlpBackwardArgs {
            weights: self.weights.view(),
            x: encoded.view(),
            kept: kept.view(),
            dy: d_output.view(),
            dweights: d_weights.view(),
            dx: d_encoded.view(),
            scratch: &backward_scratch,
        })?);
        let to_table = GridEncodingBackwardTable::new(context, self.config.grid(batch))?;
        let table_scratch = to_table.create_scratch()?;
        recording.append(to_table.prepare(&GridEncodingBackwardTableArgs {
            positions: positions.view(),
            dy: d_encoded.view(),
            dtable: d_table.view(),
            scratch: &table_scratch,
        })?);

        let step = context.create_storage("step", StepValues::WORDS * 4)?;
        let zeros = |like: &Tensor| {
            Tensor::from_slice(context, "moment", like.shape(), &vec![0.0; like.len() as usize])
        };
        let moments =
            [zeros(&self.table)?, zeros(&self.table)?, zeros(&self.weights)?, zeros(&self.weights)?];
        for (parameter, gradient, at) in [(&self.table, &d_table, 0), (&self.weights, &d_weights, 2)] {
            let config = OptimizerConfig {
                // Entries that no pixel of the batch touches keep their moments.
                skip_zero_gradient: at == 0,
                ..OptimizerConfig::new(parameter.len(), METHOD)
            };
            recording.append(Optimizer::new(context, config)?.prepare(&OptimizerArgs {
                step: BufferView::new(&step),
                gradient: gradient.view(),
                parameter: parameter.view(),
                moment1: Some(moments[at].view()),
                moment2: Some(moments[at + 1].view()),
            })?);
        }
        let _scratch = vec![error_scratch, backward_scratch, table_scratch];
        Ok(Trainer { step, positions, target, loss, moments, recording, _scratch })
    }

    /// Fits the field to a picture. The same field, picture and configuration give the same bits
    /// on the same adapter, whether or not the run is stopped and resumed in between.
    ///
    /// `report` is called every `report_every` steps and after the last; `Break` ends the fit with
    /// [`Error::Cancelled`] after a checkpoint. A loss that is not finite ends it with
    /// [`Error::NonFinite`]; the last checkpoint is kept.
    #[cfg(feature = "blocking")]
    pub fn fit(
        &mut self,
        picture: &Picture,
        fit: &FitConfig,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let (batch, channels) = (fit.batch, self.config.channels);
        check_config(batch > 0, "batch", "at least 1", batch)?;
        check_config(fit.report_every > 0, "report_every", "at least 1", fit.report_every)?;
        check_config(fit.learning_rate.is_finite(), "learning_rate", "finite", fit.learning_rate)?;
        check_config(picture.channels == channels, "channels", "those of the field", picture.channels)?;
        crate::dispatch::count("batch", &[batch, channels.max(2)])?;
        let trainer = self.trainer(batch)?;
        let mut step = match &fit.checkpoint {
            Some((path, _)) if fit.resume => self.restore(path, fit, &trainer)?,
            _ => 0,
        };
        let count = u64::from(picture.width) * u64::from(picture.height);
        let sampler = Sampler::new(count, fit.seed);
        let mut positions = vec![0.0f32; 2 * batch as usize];
        let mut target = vec![0.0f32; (batch * channels) as usize];
        let (started, first) = (std::time::Instant::now(), step);
        while step < fit.steps {
            for i in 0..batch as usize {
                let pixel = sampler.order(step * u64::from(batch) + i as u64) as usize;
                let (x, y) = (pixel % picture.width as usize, pixel / picture.width as usize);
                positions[2 * i] = (x as f32 + 0.5) / picture.width as f32;
                positions[2 * i + 1] = (y as f32 + 0.5) / picture.height as f32;
                let channels = channels as usize;
                target[i * channels..(i + 1) * channels]
                    .copy_from_slice(&picture.data[pixel * channels..(pixel + 1) * channels]);
            }
            trainer.positions.write(&self.context, &positions)?;
            trainer.target.write(&self.context, &target)?;
            let rate = fit.learning_rate * fit.schedule.factor(step);
            let values = StepValues::new(step + 1, rate as f32, METHOD.betas());
            self.context.write(&trainer.step, 0, values.bytes());
            self.context.run_blocking(&trainer.recording)?;
            step += 1;

            let last = step == fit.steps;
            let mut stop = false;
            if last || step.is_multiple_of(fit.report_every) {
                let loss = f64::from(trainer.loss.read(&self.context)?[0]);
                if !loss.is_finite() {
                    return Err(non_finite(step, fit));
                }
                let steps_per_second = (step - first) as f64 / started.elapsed().as_secs_f64();
                let psnr = -10.0 * loss.log10();
                stop = report(&Progress { step, loss, psnr, steps_per_second }).is_break();
            }
            if let Some((path, every)) = &fit.checkpoint {
                if last || stop || step.is_multiple_of((*every).max(1)) {
                    self.checkpoint(path, step, fit, &trainer)?;
                }
            }
            if stop {
                return Err(Error::Cancelled { step });
            }
        }
        Ok(())
    }

    /// Renders `width` x `height` pixels of a region, their values at the centres of the pixels.
    #[cfg(feature = "blocking")]
    pub fn render(&self, width: u32, height: u32, region: Region) -> Result<Picture> {
        const TILE: u32 = 1 << 16;
        let channels = self.config.channels;
        let pixels = crate::dispatch::count("picture", &[width, height, channels])? / channels;
        check_config(pixels > 0, "size", "at least one pixel", (width, height))?;
        let tile = pixels.min(TILE);
        let context = &self.context;
        let positions = Tensor::new(context, "positions", &[tile, 2])?;
        let encoded = Tensor::new(context, "encoded", &[tile, self.config.grid.outputs()])?;
        let output = Tensor::new(context, "output", &[tile, channels])?;
        let unused = Tensor::new(context, "kept", &[4])?;
        let recording = self.forward(&positions, &output, &encoded, &unused, false)?;
        let mut data = Vec::with_capacity((pixels * channels) as usize);
        for first in (0..pixels).step_by(tile as usize) {
            let at: Vec<f32> = (first..first + tile)
                .flat_map(|i| {
                    // Past the last pixel the tile is filled up with it.
                    let i = i.min(pixels - 1);
                    let u = (f64::from(i % width) + 0.5) / f64::from(width);
                    let v = (f64::from(i / width) + 0.5) / f64::from(height);
                    [(u, 0), (v, 1)]
                        .map(|(t, d)| (region.low[d] + t * (region.high[d] - region.low[d])) as f32)
                })
                .collect();
            positions.write(context, &at)?;
            context.run_blocking(&recording)?;
            let values = output.read(context)?;
            data.extend_from_slice(&values[..(tile.min(pixels - first) * channels) as usize]);
        }
        Picture::new(width, height, channels, data)
    }

    /// Writes configuration and parameters as safetensors, whole or not at all.
    #[cfg(feature = "blocking")]
    pub fn save(&self, path: &Path) -> Result<()> {
        self.contents()?.save(path)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(context: &Context, path: &Path) -> Result<Self> {
        let file = Checkpoint::load(path)?;
        let grid = GridEncodingConfig {
            levels: file.get(path, "levels")?,
            features: file.get(path, "features")?,
            log2_table_size: file.get(path, "log2_table_size")?,
            base_resolution: file.get(path, "base_resolution")?,
            growth: file.get(path, "growth")?,
            ..GridEncodingConfig::default()
        };
        let config = RadialFieldConfig {
            grid,
            width: file.get(path, "width")?,
            layers: file.get(path, "layers")?,
            channels: file.get(path, "channels")?,
        };
        // Before anything of the size that the metadata claims is allocated.
        config.check()?;
        file.tensor(path, "grid.table", &[grid.parameter_count()?])?;
        let field = Self::new(context, config, 0)?;
        for (name, tensor) in field.parameters()?.iter() {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(field)
    }

    #[cfg(feature = "blocking")]
    fn contents(&self) -> Result<Checkpoint> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.parameters()?.iter() {
            file.insert(name, tensor.shape(), tensor.read(&self.context)?);
        }
        let grid = &self.config.grid;
        file.set("model", "RadialField");
        file.set("levels", grid.levels);
        file.set("features", grid.features);
        file.set("log2_table_size", grid.log2_table_size);
        file.set("base_resolution", grid.base_resolution);
        file.set("growth", grid.growth);
        file.set("width", self.config.width);
        file.set("layers", self.config.layers);
        file.set("channels", self.config.channels);
        Ok(file)
    }

    #[cfg(feature = "blocking")]
    fn checkpoint(&self, path: &Path, step: u64, fit: &FitConfig, trainer: &Trainer) -> Result<()> {
        let mut file = self.contents()?;
        for (name, moment) in MOMENTS.iter().zip(&trainer.moments) {
            file.insert(*name, moment.shape(), moment.read(&self.context)?);
        }
        file.set("step", step);
        file.set("seed", fit.seed);
        file.set("batch", fit.batch);
        if !file.is_finite() {
            return Err(non_finite(step, fit));
        }
        file.save(path)
    }

    /// Loads parameters and moments; gives the step to go on from.
    #[cfg(feature = "blocking")]
    fn restore(&self, path: &Path, fit: &FitConfig, trainer: &Trainer) -> Result<u64> {
        let file = Checkpoint::load(path)?;
        for (what, now) in [("seed", fit.seed), ("batch", fit.batch.into())] {
            let then: u64 = file.get(path, what)?;
            if then != now {
                let message = format!("was made with {what} {then}, not {now}: a resumed run would differ");
                return Err(Error::Checkpoint { path: path.into(), message });
            }
        }
        let step = file.get(path, "step")?;
        let parameters = self.parameters()?;
        let moments = MOMENTS.into_iter().zip(&trainer.moments);
        for (name, tensor) in parameters.iter().chain(moments) {
            tensor.write(&self.context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(step)
    }
}

const MOMENTS: [&str; 4] =
    ["adam.grid.table.1", "adam.grid.table.2", "adam.network.weights.1", "adam.network.weights.2"];

const METHOD: Method = Method::Adam { betas: [0.9, 0.99], epsilon: 1e-15, decoupled: false };

fn non_finite(step: u64, fit: &FitConfig) -> Error {
    let hint = match &fit.checkpoint {
        Some((path, _)) => {
            format!("the last good checkpoint is {}; try a smaller learning rate", path.display())
        }
        None => "try a smaller learning rate".into(),
    };
    Error::NonFinite { what: "loss", step, hint }
}
