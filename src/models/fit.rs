//! How models are fitted: what a fit is told and tells, the optimiser, the steps and the checkpoints.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::dense::{Method, Optimizer, OptimizerArgs, OptimizerConfig, StepValues};
use crate::dispatch::{BufferView, Context, Error, Kernel, Recording, Result, Scratch, check_config};
use crate::radial::FusedMlpConfig;
#[cfg(feature = "blocking")]
use crate::train::Difference;
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
    /// Where checkpoints go, and the steps between two of them, at least 1.
    pub checkpoint: Option<(PathBuf, u64)>,
    /// Go on from the checkpoint instead of from the model's present parameters. One of another model, seed or batch is
    /// refused, and of other pictures or another mesh: the run would not give the same bits. Rate, schedule and the
    /// number of steps may differ.
    pub resume: bool,
}

impl FitConfig {
    pub(super) fn check(&self) -> Result<()> {
        check_config(self.batch > 0, "batch", "at least 1", self.batch)?;
        check_config(self.report_every > 0, "report_every", "at least 1", self.report_every)?;
        check_config(self.learning_rate.is_finite(), "learning_rate", "finite", self.learning_rate)?;
        let interval = self.checkpoint.as_ref().map_or(1, |(_, every)| *every);
        check_config(interval > 0, "checkpoint", "at least 1 step between two of them", interval)?;
        let has_file = self.checkpoint.is_some();
        check_config(has_file || !self.resume, "resume", "a checkpoint to go on from", "none")
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

/// A number by which data are known again.
pub(super) fn fingerprint(words: impl Iterator<Item = u32>) -> u64 {
    words.fold(0, |sum, word| super::sampler::mix(sum ^ u64::from(word)))
}

/// What older files do not say, and what they mean; where that is nothing, anything will do.
#[cfg(feature = "blocking")]
const UNSAID: [(&str, Option<&str>); 5] = [
    ("interpolation", Some("linear")),
    ("kind", Some("hash")),
    ("align_corners", Some("false")),
    ("training", None),
    ("data", None),
];

/// Everything that the steps of a fit touch, bound once.
pub(super) struct Trainer {
    /// The [`fingerprint`] of what is fitted; none if it is not known beforehand, or no checkpoint will hold it.
    pub data: Option<u64>,
    /// What the model's file says and the fit does not look at.
    pub unread: &'static [&'static str],
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
        Ok(Self {
            data: None,
            unread: &[],
            step,
            loss,
            moments,
            betas: method.betas(),
            recording,
            _scratch: scratch,
        })
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
            data: None,
            unread: &[],
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
            Some((path, _)) if fit.resume => self.restore(context, path, fit, tensors, contents()?)?,
            _ => 0,
        };
        // Whether the file is this run's.
        let mut is_saved = fit.resume;
        let (started, first) = (std::time::Instant::now(), step);
        while step < fit.steps {
            feed(step)?;
            let rate = fit.learning_rate * fit.schedule.factor(step);
            let values = StepValues::new(step + 1, rate as f32, self.betas);
            context.write(&self.step, 0, values.bytes())?;
            context.run_blocking(&self.recording)?;
            step += 1;

            let last = step == fit.steps;
            let mut stop = false;
            if last || step.is_multiple_of(fit.report_every) {
                let loss = f64::from(self.loss.read(context)?[0]);
                if !loss.is_finite() {
                    return Err(non_finite("loss", step, fit, is_saved));
                }
                let steps_per_second = (step - first) as f64 / started.elapsed().as_secs_f64();
                let psnr = -10.0 * loss.log10();
                stop = report(&Progress { step, loss, psnr, steps_per_second }).is_break();
            }
            if let Some((path, every)) = &fit.checkpoint {
                if last || stop || step.is_multiple_of(*every) {
                    let file = self.checkpoint(context, step, fit, contents()?)?;
                    if !file.is_finite() {
                        return Err(non_finite("parameters", step, fit, is_saved));
                    }
                    file.save(path)?;
                    is_saved = true;
                }
            }
            if stop {
                return Err(Error::Cancelled { step });
            }
        }
        Ok(())
    }

    /// A checkpoint: the model's file with the moments and the state of the fit.
    #[cfg(feature = "blocking")]
    fn checkpoint(
        &self,
        context: &Context,
        step: u64,
        fit: &FitConfig,
        mut file: Checkpoint,
    ) -> Result<Checkpoint> {
        for (name, moment) in &self.moments {
            file.insert(name, moment.shape(), moment.read(context)?);
        }
        file.set("step", step);
        self.describe(&mut file, fit);
        Ok(file)
    }

    /// What a fit that goes on must have in common with the one before.
    #[cfg(feature = "blocking")]
    fn describe(&self, file: &mut Checkpoint, fit: &FitConfig) {
        file.set("seed", fit.seed);
        file.set("batch", fit.batch);
        if let Some(data) = self.data {
            file.set("data", data);
        }
    }

    /// Loads tensors and moments, all or none; gives the step to go on from. `own` is the model's file.
    #[cfg(feature = "blocking")]
    fn restore(
        &self,
        context: &Context,
        path: &Path,
        fit: &FitConfig,
        tensors: &Parameters,
        mut own: Checkpoint,
    ) -> Result<u64> {
        self.describe(&mut own, fit);
        let mut file = Checkpoint::load(path)?;
        let mut apart = [&["step"], self.unread].concat();
        for (name, meaning) in UNSAID {
            match meaning {
                _ if file.has(name) || !own.has(name) => {}
                Some(meaning) => file.set(name, meaning),
                None => apart.push(name),
            }
        }
        let refuse = |message| Err(Error::Checkpoint { path: path.into(), message });
        if let Some(Difference { name, own, others }) = own.difference(&file, &apart) {
            if name == "data" {
                return refuse("is of a fit to other data: a resumed run would differ".into());
            }
            let [now, then] = [own, others].map(|value| value.unwrap_or("none"));
            return refuse(format!("was made with {name} {then}, not {now}: a resumed run would differ"));
        }
        let step: u64 = file.get(path, "step")?;
        if step > fit.steps {
            return refuse(format!("holds step {step} of a fit, of which only {} are asked for", fit.steps));
        }
        let moments = self.moments.iter().map(|(name, moment)| (name.as_str(), moment));
        let all: Vec<_> = tensors
            .iter()
            .chain(moments)
            .map(|(name, tensor)| Ok((tensor, file.tensor(path, name, tensor.shape())?)))
            .collect::<Result<_>>()?;
        all.into_iter().try_for_each(|(tensor, data)| tensor.write(context, data)).map(|()| step)
    }
}

/// `is_saved`: whether the run wrote its checkpoint, or began with it.
fn non_finite(what: &'static str, step: u64, fit: &FitConfig, is_saved: bool) -> Error {
    let hint = match &fit.checkpoint {
        Some((path, _)) if is_saved => {
            format!("the last good checkpoint is {}; try a smaller learning rate", path.display())
        }
        _ => "try a smaller learning rate".into(),
    };
    Error::NonFinite { what, step, hint }
}
