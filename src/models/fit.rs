//! How models are fitted: what a fit is told and tells, the optimiser, the steps and the checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::dense::{Method, Optimizer, OptimizerArgs, OptimizerConfig, StepValues};
use crate::dispatch::{BufferView, Context, Error, Kernel, Recording, Result, Scratch, check_config};
use crate::radial::FusedMlpConfig;
use crate::train::{Checkpoint, Parameters, Schedule, Tensor, Update};

/// How a model is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct FitConfig {
    /// Training steps in all, those before a resume included.
    pub steps: u64,
    /// Points (pixels, images) of a step.
    pub batch: u32,
    /// Learning rate: of Adam (betas 0.9 and 0.99, epsilon 1e-15) for fields that do not say otherwise.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Seed of the choice of points, of the order of pixels, or of what a step draws.
    pub seed: u64,
    /// Steps between two calls of the callback; at each the loss is read and must be finite.
    pub report_every: u64,
    /// Where checkpoints go, and the steps between two of them.
    pub checkpoint: Option<(PathBuf, u64)>,
    /// Go on from the checkpoint instead of from the model's present parameters.
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
    /// Mean loss of the last batch: squared error of a picture, error of distances and their slopes,
    /// cross-entropy of occupancies and of a classifier.
    pub loss: f64,
    /// The same in dB: the PSNR, where the loss is a squared error.
    pub psnr: f64,
    /// Mean speed since the fit began.
    pub steps_per_second: f64,
}

/// That of grids, most of whose entries get no gradient in a step (Mueller et al. 2022, section 4).
const ADAM: Method = Method::Adam { betas: [0.9, 0.99], epsilon: 1e-15, decoupled: false };

/// Numbers uniform in `+-size`, one after the other.
pub(super) fn uniform(seed: u64) -> impl FnMut(f32) -> f32 {
    let mut state = seed;
    move |size| {
        state = super::sampler::mix(state);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
    }
}

/// Weights of a network uniform in `+-sqrt(spread / inputs)`; biases 0, or like the weights.
pub(super) fn initial_weights(
    network: &FusedMlpConfig,
    spread: f32,
    biases: bool,
    uniform: &mut dyn FnMut(f32) -> f32,
) -> Vec<f32> {
    let mut weights = vec![0.0; network.weight_count() as usize];
    for layer in network.layer_table() {
        let size = (spread / layer.inputs as f32).sqrt();
        for o in 0..layer.outputs {
            let row = (layer.first + o * layer.stride()) as usize;
            weights[row..row + layer.inputs as usize].fill_with(|| uniform(size));
            if biases {
                weights[row + layer.bias as usize] = uniform(size);
            }
        }
    }
    weights
}

/// A parameter and how it is trained.
pub(super) struct Trained<'a> {
    pub name: &'a str,
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    /// Elements without a gradient keep their moments.
    pub skip_zero_gradient: bool,
    /// Factor of the learning rate.
    pub rate: f32,
}

/// Everything that the steps of a fit touch, bound once.
pub(super) struct Trainer {
    step: wgpu::Buffer,
    loss: Tensor,
    /// Those of the optimiser, with their names in a file.
    moments: Vec<(String, Tensor)>,
    betas: [f32; 2],
    recording: Recording,
    _scratch: Vec<Scratch>,
}

impl Trainer {
    /// `recording` computes the loss and the gradients.
    pub fn new(
        context: &Context,
        recording: Recording,
        loss: Tensor,
        trained: &[Trained<'_>],
        scratch: Vec<Scratch>,
    ) -> Result<Self> {
        Self::with_method(context, ADAM, recording, loss, trained, scratch)
    }

    /// The same with a method of its own.
    pub fn with_method(
        context: &Context,
        method: Method,
        mut recording: Recording,
        loss: Tensor,
        trained: &[Trained<'_>],
        scratch: Vec<Scratch>,
    ) -> Result<Self> {
        let step = context.create_storage("step", StepValues::WORDS * 4)?;
        let mut moments = Vec::new();
        for Trained { name, parameter, gradient, skip_zero_gradient, rate } in trained {
            let zeros = || {
                let zeros = vec![0.0; parameter.len() as usize];
                Tensor::from_slice(context, "moment", parameter.shape(), &zeros)
            };
            let [first, second] = [zeros()?, zeros()?];
            let config = OptimizerConfig {
                skip_zero_gradient: *skip_zero_gradient,
                rate: *rate,
                ..OptimizerConfig::new(parameter.len(), method)
            };
            recording.append(Optimizer::new(context, config)?.prepare(&OptimizerArgs {
                step: BufferView::new(&step),
                gradient: gradient.view(),
                parameter: parameter.view(),
                moment1: Some(first.view()),
                moment2: Some(second.view()),
            })?);
            moments.extend([(format!("adam.{name}.1"), first), (format!("adam.{name}.2"), second)]);
        }
        Ok(Self { step, loss, moments, betas: method.betas(), recording, _scratch: scratch })
    }

    /// `recording` computes the loss and the gradients, and ends with the update of the parameters of these
    /// names.
    pub fn of_update<'a>(
        update: &Update,
        names: impl Iterator<Item = &'a str>,
        loss: Tensor,
        recording: Recording,
    ) -> Self {
        let moments = names.zip(update.moments()).flat_map(|(name, moments)| {
            (1..).zip(moments).filter_map(move |(i, moment)| {
                moment.as_ref().map(|moment| (format!("moment.{name}.{i}"), moment.clone()))
            })
        });
        Self {
            step: update.values().clone(),
            loss,
            moments: moments.collect(),
            betas: update.betas(),
            recording,
            _scratch: Vec::new(),
        }
    }

    /// Runs the steps of a fit. `feed` is called before each with the number of steps done; `tensors` are
    /// those that `contents`, which makes a model file, holds.
    ///
    /// `report` is called every `report_every` steps and after the last; `Break` ends the fit with
    /// [`Error::Cancelled`] after a checkpoint. A loss that is not finite ends it with
    /// [`Error::NonFinite`]; the last checkpoint is kept.
    #[cfg(feature = "blocking")]
    pub fn fit(
        &self,
        context: &Context,
        fit: &FitConfig,
        tensors: &Parameters,
        contents: &dyn Fn() -> Result<Checkpoint>,
        feed: &mut dyn FnMut(u64) -> Result<()>,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut step = match &fit.checkpoint {
            Some((path, _)) if fit.resume => self.restore(context, path, fit, tensors)?,
            _ => 0,
        };
        let (started, first) = (std::time::Instant::now(), step);
        while step < fit.steps {
            feed(step)?;
            let rate = fit.learning_rate * fit.schedule.factor(step);
            let values = StepValues::new(step + 1, rate as f32, self.betas);
            context.write(&self.step, 0, values.bytes());
            context.run_blocking(&self.recording)?;
            step += 1;

            let last = step == fit.steps;
            let mut stop = false;
            if last || step.is_multiple_of(fit.report_every) {
                let loss = f64::from(self.loss.read(context)?[0]);
                if !loss.is_finite() {
                    return Err(non_finite(step, fit));
                }
                let steps_per_second = (step - first) as f64 / started.elapsed().as_secs_f64();
                let psnr = -10.0 * loss.log10();
                stop = report(&Progress { step, loss, psnr, steps_per_second }).is_break();
            }
            if let Some((path, every)) = &fit.checkpoint {
                if last || stop || step.is_multiple_of((*every).max(1)) {
                    self.save(context, path, step, fit, contents()?)?;
                }
            }
            if stop {
                return Err(Error::Cancelled { step });
            }
        }
        Ok(())
    }

    /// Writes a checkpoint: the model's file with the moments and the state of the fit.
    #[cfg(feature = "blocking")]
    fn save(
        &self,
        context: &Context,
        path: &Path,
        step: u64,
        fit: &FitConfig,
        mut file: Checkpoint,
    ) -> Result<()> {
        for (name, moment) in &self.moments {
            file.insert(name, moment.shape(), moment.read(context)?);
        }
        file.set("step", step);
        file.set("seed", fit.seed);
        file.set("batch", fit.batch);
        if !file.is_finite() {
            return Err(non_finite(step, fit));
        }
        file.save(path)
    }

    /// Loads tensors and moments; gives the step to go on from.
    #[cfg(feature = "blocking")]
    fn restore(&self, context: &Context, path: &Path, fit: &FitConfig, tensors: &Parameters) -> Result<u64> {
        let file = Checkpoint::load(path)?;
        for (what, now) in [("seed", fit.seed), ("batch", fit.batch.into())] {
            let then: u64 = file.get(path, what)?;
            if then != now {
                let message = format!("was made with {what} {then}, not {now}: a resumed run would differ");
                return Err(Error::Checkpoint { path: path.into(), message });
            }
        }
        let step = file.get(path, "step")?;
        let moments = self.moments.iter().map(|(name, moment)| (name.as_str(), moment));
        for (name, tensor) in tensors.iter().chain(moments) {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(step)
    }
}

fn non_finite(step: u64, fit: &FitConfig) -> Error {
    let hint = match &fit.checkpoint {
        Some((path, _)) => {
            format!("the last good checkpoint is {}; try a smaller learning rate", path.display())
        }
        None => "try a smaller learning rate".into(),
    };
    Error::NonFinite { what: "loss", step, hint }
}
