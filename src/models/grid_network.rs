//! A multiresolution grid and a small network on top, and how they are trained: what the fields share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

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

/// How a field is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct FitConfig {
    /// Training steps in all, those before a resume included.
    pub steps: u64,
    /// Points (pixels) of a step.
    pub batch: u32,
    /// Learning rate of Adam (betas 0.9 and 0.99, epsilon 1e-15).
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Seed of the choice of points, or of the order of pixels.
    pub seed: u64,
    /// Steps between two calls of the callback; at each the loss is read and must be finite.
    pub report_every: u64,
    /// Where checkpoints go, and the steps between two of them.
    pub checkpoint: Option<(PathBuf, u64)>,
    /// Go on from the checkpoint instead of from the field's present parameters.
    pub resume: bool,
}

impl FitConfig {
    pub(super) fn check(&self) -> Result<()> {
        check_config(self.batch > 0, "batch", "at least 1", self.batch)?;
        check_config(self.report_every > 0, "report_every", "at least 1", self.report_every)?;
        check_config(self.learning_rate.is_finite(), "learning_rate", "finite", self.learning_rate)
    }
}

/// What the callback of a fit is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Mean loss of the last batch: squared error of a picture, relative error of a distance field.
    pub loss: f64,
    /// The same in dB: the PSNR, where the loss is a squared error.
    pub psnr: f64,
    /// Mean speed since the fit began.
    pub steps_per_second: f64,
}

/// The parts of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct GridNetworkConfig {
    /// `points` is not looked at.
    pub grid: GridEncodingConfig,
    pub width: u32,
    pub layers: u32,
    pub outputs: u32,
}

impl GridNetworkConfig {
    fn grid(&self, points: u32) -> GridEncodingConfig {
        GridEncodingConfig { points, ..self.grid }
    }

    fn network(&self, points: u32, keep: bool) -> FusedMlpConfig {
        FusedMlpConfig {
            inputs: self.grid.outputs(),
            width: self.width,
            layers: self.layers,
            outputs: self.outputs,
            points,
            keep,
            ..FusedMlpConfig::default()
        }
    }

    /// From the metadata of a file, with the number of dimensions and the outputs that the model knows.
    pub fn of_file(file: &Checkpoint, path: &Path, dims: u32, outputs: u32) -> Result<Self> {
        let grid = GridEncodingConfig {
            dims,
            levels: file.get(path, "levels")?,
            features: file.get(path, "features")?,
            log2_table_size: file.get(path, "log2_table_size")?,
            base_resolution: file.get(path, "base_resolution")?,
            growth: file.get(path, "growth")?,
            ..GridEncodingConfig::default()
        };
        Ok(Self { grid, width: file.get(path, "width")?, layers: file.get(path, "layers")?, outputs })
    }
}

/// The parameters of a field on the device.
#[derive(Debug, Clone)]
pub(super) struct GridNetwork {
    pub context: Context,
    config: GridNetworkConfig,
    table: Tensor,
    weights: Tensor,
    /// What a file says about the model beyond the configuration.
    metadata: Vec<(&'static str, String)>,
}

/// The buffers of a forward pass over a fixed number of points.
pub(super) struct Evaluation {
    pub positions: Tensor,
    pub output: Tensor,
    pub recording: Recording,
    _encoded: Tensor,
}

/// Everything that a training step touches, bound once.
pub(super) struct Trainer {
    step: wgpu::Buffer,
    loss: Tensor,
    moments: [Tensor; 4],
    recording: Recording,
    _scratch: Vec<Scratch>,
}

impl GridNetwork {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    pub fn new(
        context: &Context,
        config: GridNetworkConfig,
        seed: u64,
        metadata: Vec<(&'static str, String)>,
    ) -> Result<Self> {
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
            metadata,
        })
    }

    /// Parameters from a file whose metadata gave `config`.
    pub fn of_file(
        context: &Context,
        config: GridNetworkConfig,
        file: &Checkpoint,
        path: &Path,
        metadata: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        // Before anything of the size that the metadata claims is allocated.
        file.tensor(path, "grid.table", &[config.grid.parameter_count()?])?;
        let network = Self::new(context, config, 0, metadata)?;
        for (name, tensor) in network.parameters()?.iter() {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(network)
    }

    /// Trainable numbers: table entries, weights and biases, without padding of the weights.
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
        let points = positions.len() / self.config.grid.dims;
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

    /// A forward pass over `points` points.
    pub fn evaluation(&self, points: u32) -> Result<Evaluation> {
        let tensor = |what, shape: &[u32]| Tensor::new(&self.context, what, shape);
        let positions = tensor("positions", &[points, self.config.grid.dims])?;
        let encoded = tensor("encoded", &[points, self.config.grid.outputs()])?;
        let output = tensor("output", &[points, self.config.outputs])?;
        let unused = tensor("kept", &[4])?;
        let recording = self.forward(&positions, &output, &encoded, &unused, false)?;
        Ok(Evaluation { positions, output, recording, _encoded: encoded })
    }

    /// A training step: `before` writes the positions `[batch, dims]` and the target `[batch, outputs]`, unless
    /// the host does; then forward and backward pass and the optimiser.
    pub fn trainer(
        &self,
        loss_function: Loss,
        before: Recording,
        positions: &Tensor,
        target: &Tensor,
    ) -> Result<Trainer> {
        let context = &self.context;
        let channels = self.config.outputs;
        let batch = positions.len() / self.config.grid.dims;
        let features = self.config.grid.outputs();
        let tensor = |what, shape: &[u32]| Tensor::new(context, what, shape);
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

        let mut recording = before;
        recording.append(self.forward(positions, &output, &encoded, &kept, true)?);
        let config = LossConfig { loss: loss_function, count: batch * channels, scale: 1.0, gradient: true };
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
                // Entries that no point of the batch touches keep their moments.
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
        Ok(Trainer { step, loss, moments, recording, _scratch })
    }

    /// Runs the steps of a fit. `feed` is called before each with the number of steps done.
    ///
    /// `report` is called every `report_every` steps and after the last; `Break` ends the fit with
    /// [`Error::Cancelled`] after a checkpoint. A loss that is not finite ends it with
    /// [`Error::NonFinite`]; the last checkpoint is kept.
    #[cfg(feature = "blocking")]
    pub fn fit(
        &self,
        trainer: &Trainer,
        fit: &FitConfig,
        feed: &mut dyn FnMut(u64) -> Result<()>,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut step = match &fit.checkpoint {
            Some((path, _)) if fit.resume => self.restore(path, fit, trainer)?,
            _ => 0,
        };
        let (started, first) = (std::time::Instant::now(), step);
        while step < fit.steps {
            feed(step)?;
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
                    self.checkpoint(path, step, fit, trainer)?;
                }
            }
            if stop {
                return Err(Error::Cancelled { step });
            }
        }
        Ok(())
    }

    /// Configuration, metadata and parameters.
    #[cfg(feature = "blocking")]
    pub fn contents(&self) -> Result<Checkpoint> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.parameters()?.iter() {
            file.insert(name, tensor.shape(), tensor.read(&self.context)?);
        }
        let grid = &self.config.grid;
        file.set("levels", grid.levels);
        file.set("features", grid.features);
        file.set("log2_table_size", grid.log2_table_size);
        file.set("base_resolution", grid.base_resolution);
        file.set("growth", grid.growth);
        file.set("width", self.config.width);
        file.set("layers", self.config.layers);
        for (name, value) in &self.metadata {
            file.set(*name, value);
        }
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

pub(super) const METHOD: Method = Method::Adam { betas: [0.9, 0.99], epsilon: 1e-15, decoupled: false };

pub(super) fn non_finite(step: u64, fit: &FitConfig) -> Error {
    let hint = match &fit.checkpoint {
        Some((path, _)) => {
            format!("the last good checkpoint is {}; try a smaller learning rate", path.display())
        }
        None => "try a smaller learning rate".into(),
    };
    Error::NonFinite { what: "loss", step, hint }
}
