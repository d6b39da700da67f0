//! How vision transformers are trained.

#[cfg(feature = "blocking")]
use std::ops::ControlFlow;

use super::VisionTransformer;
use crate::attention::PatchMixConfig;
use crate::dispatch::{BufferView, Context, Recording, Result, check_config, check_shape, count};
#[cfg(feature = "blocking")]
use crate::models::fit::{FitConfig, Progress, Trainer};
use crate::models::sampler::{Sampler, mix};
use crate::train::ops::{self, Target};
use crate::train::{Gradients, Tape, Tensor, Update, UpdateConfig, Updated, Variable};

/// How a vision transformer is trained. The default changes nothing about images and labels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VisionTrainingConfig {
    /// How the parameters are updated.
    pub update: UpdateConfig,
    /// Share of a label that is spread over all classes, 0 to 1 (Szegedy et al. 2016, section 7).
    pub label_smoothing: f32,
    /// Share of each image's patches that a step leaves out, 0 to below 1, others in each step (Liu et al.
    /// 2022, arXiv 2208.07220). Not with positions that need all tokens, nor windows.
    pub patch_dropout: f32,
    /// Share of each image's patches that a step takes from the next image of the batch, whose label counts
    /// for so much, 0 to 1 (Lee et al. 2023, arXiv 2306.17848).
    pub patch_mix: f32,
}

/// What a step draws anew, from its seed and its number alone.
#[derive(Debug)]
struct Drawn {
    rank: wgpu::Buffer,
    /// Distinguishes uses of one seed.
    stream: u64,
    /// Tokens before the patches, which come first.
    prefix: u32,
    patches: u32,
    batch: u32,
}

impl Drawn {
    fn new(context: &Context, batch: u32, [prefix, patches]: [u32; 2], stream: u64) -> Result<Self> {
        let n = count("rank", &[batch, prefix.saturating_add(patches)])?;
        let rank = context.create_storage("rank", u64::from(n) * 4)?;
        Ok(Self { rank, stream, prefix, patches, batch })
    }

    /// A permutation for each image.
    fn draw(&self, context: &Context, seed: u64, step: u64) -> Result<()> {
        let mut all = Vec::with_capacity((self.batch * (self.prefix + self.patches)) as usize);
        for image in 0..self.batch {
            let key = [step, self.stream, u64::from(image)]
                .into_iter()
                .fold(seed, |key, part| mix(key ^ mix(part)));
            let order = Sampler::new(self.patches.into(), key);
            all.extend(0..self.prefix);
            all.extend((0..self.patches).map(|i| self.prefix + order.order(i.into()) as u32));
        }
        context.write(&self.rank, 0, bytemuck::cast_slice(&all))
    }
}

/// Labels as the loss takes them.
#[derive(Debug)]
enum Labels {
    /// u32 `[batch]`.
    Classes(wgpu::Buffer),
    /// 1 for the class, 0 for all others, `[batch, classes]`: they are mixed.
    OneHot(Tensor),
}

impl VisionTransformer {
    /// Records a whole training step for batches of this size: see [`VisionTrainer`]. What a step draws by
    /// chance follows from the seed and the step's number.
    pub fn trainer(&self, batch: u32, seed: u64, training: &VisionTrainingConfig) -> Result<VisionTrainer> {
        let (context, config) = (&self.context, &self.config);
        let VisionTrainingConfig { label_smoothing, patch_dropout, patch_mix, .. } = *training;
        check_config(batch > 0, "batch", "at least 1", batch)?;
        check_config((0.0..1.0).contains(&patch_dropout), "patch_dropout", "0 to below 1", patch_dropout)?;
        check_config((0.0..=1.0).contains(&patch_mix), "patch_mix", "0 to 1", patch_mix)?;
        let drops = patch_dropout > 0.0;
        check_config(
            !drops || !config.needs_all_tokens(),
            "patch_dropout",
            "0 with windows, rotary or relative positions",
            patch_dropout,
        )?;
        let [height, width] = config.image;
        let image = Tensor::new(context, "image", &[batch, config.channels, height, width])?;
        let mut tape = Tape::new(context);
        let mut drawn = Vec::new();
        let patches = config.patches(batch);
        let n = patches.tokens();
        let share = |share: f32| ((f64::from(n) * f64::from(share)).round() as u32).min(n);

        // Drawn before anything refers to their buffers.
        let mixed = if patch_mix > 0.0 {
            let one = Drawn::new(context, batch, [0, n], 1)?;
            let partner: Vec<u32> = (0..batch).map(|image| (image + 1) % batch).collect();
            let partner = context.create_storage_with("partner", &partner)?;
            let label = Tensor::new(context, "label", &[batch, config.classes])?;
            let mix = PatchMixConfig { patch: patches, replaced: share(patch_mix) };
            let mixed = ops::mix_patches(&mut tape, &image, &label, &partner, &one.rank, mix)?;
            drawn.push(one);
            Some((label, mixed))
        } else {
            None
        };
        let seen = mixed.as_ref().map_or(&image, |(_, [image, _])| image);
        let dropped = if drops { Some(Drawn::new(context, batch, [config.prefix(), n], 2)?) } else { None };
        let keep = config.prefix() + (n - share(patch_dropout)).max(1);
        let some = dropped.as_ref().map(|dropped| (keep, BufferView::new(&dropped.rank)));
        let (logits, variables) = self.record_some(&mut tape, seen, some, &mut Vec::new())?;
        drawn.extend(dropped);

        let (labels, [loss, gradient]) = match mixed {
            Some((label, [_, mixed])) => {
                let target = Target::Weights(&mixed);
                (Labels::OneHot(label), ops::cross_entropy(&mut tape, &logits, target, label_smoothing)?)
            }
            None => {
                let classes = context.create_storage("target", u64::from(batch) * 4)?;
                let given =
                    ops::cross_entropy(&mut tape, &logits, Target::Classes(&classes), label_smoothing)?;
                (Labels::Classes(classes), given)
            }
        };
        let gradients = tape.backward(&logits, &gradient)?;
        let mut all = Vec::new();
        for ((name, parameter), variable) in self.parameters.iter().zip(&variables) {
            // Decay shrinks matrices, not biases, norms, positions or the class token (as in timm).
            let decays = parameter.shape().len() > 1 && name.ends_with(".weight");
            all.push(Updated { parameter, gradient: gradients.of(variable)?, decays });
        }
        let (update, rest) = Update::new(context, &training.update, &all)?;
        let mut recording = gradients.recording.clone();
        recording.append(rest);
        Ok(VisionTrainer {
            context: context.clone(),
            seed,
            image,
            labels,
            drawn,
            classes: config.classes,
            logits: logits.tensor().clone(),
            loss,
            gradients,
            variables,
            update,
            recording,
            steps: 0,
        })
    }

    /// Trains as [`FitConfig`] says, with batches that `next` gives for each step, by the number of steps done:
    /// images `[batch, channels, height, width]` and classes `[batch]`.
    ///
    /// Of the fit, `learning_rate` is that of the optimiser in `training`. `report` is called every
    /// `report_every` steps and after the last; `Break` ends the fit with
    /// [`Error::Cancelled`](crate::Error::Cancelled) after a checkpoint. A loss that is not finite ends it with
    /// [`Error::NonFinite`](crate::Error::NonFinite): such a step changes nothing, and the last checkpoint is
    /// kept. A fit that is resumed gives the same bits as one that never stopped, if `next` does.
    #[cfg(feature = "blocking")]
    pub fn fit(
        &self,
        training: &VisionTrainingConfig,
        fit: &FitConfig,
        mut next: impl FnMut(u64) -> Result<(Vec<f32>, Vec<u32>)>,
        mut report: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        fit.check()?;
        let mut trainer = self.trainer(fit.batch, fit.seed, training)?;
        let names = self.parameters.iter().map(|(name, _)| name);
        let whole =
            Trainer::of_update(&trainer.update, names, trainer.loss.clone(), trainer.recording.clone());
        let mut feed = |step: u64| {
            let (images, classes) = next(step)?;
            trainer.steps = step;
            trainer.feed(&images, &classes)
        };
        let contents = || {
            let mut file = self.contents()?;
            file.set("training", format!("{training:?}"));
            Ok(file)
        };
        whole.fit(&self.context, fit, &self.parameters, &contents, &mut feed, &mut report)
    }
}

/// A recorded training step of a [`VisionTransformer`], whose parameters it updates in place.
#[derive(Debug)]
pub struct VisionTrainer {
    context: Context,
    seed: u64,
    image: Tensor,
    labels: Labels,
    drawn: Vec<Drawn>,
    classes: u32,
    logits: Tensor,
    loss: Tensor,
    gradients: Gradients,
    variables: Vec<Variable>,
    update: Update,
    recording: Recording,
    steps: u64,
}

impl VisionTrainer {
    /// Writes the next batch and what the step draws.
    fn feed(&self, images: &[f32], classes: &[u32]) -> Result<()> {
        let batch = self.logits.len() / self.classes;
        check_shape(classes.len() == batch as usize, "classes", format!("{batch} elements"), classes.len())?;
        let worst = classes.iter().copied().max().unwrap_or(0);
        check_config(
            worst < self.classes,
            "classes",
            &format!("below {}, those of the model", self.classes),
            worst,
        )?;
        self.image.write(&self.context, images)?;
        match &self.labels {
            Labels::Classes(buffer) => self.context.write(buffer, 0, bytemuck::cast_slice(classes))?,
            Labels::OneHot(tensor) => {
                let row = |&class: &u32| (0..self.classes).map(move |c| f32::from(c == class));
                tensor.write(&self.context, &classes.iter().flat_map(row).collect::<Vec<_>>())?;
            }
        }
        self.drawn.iter().try_for_each(|drawn| drawn.draw(&self.context, self.seed, self.steps))
    }

    /// Writes the next batch and learning rate, through `Queue::write_buffer`, and gives the dispatches to
    /// encode: images `[batch, channels, height, width]`, classes `[batch]`.
    pub fn prepare(&mut self, images: &[f32], classes: &[u32], rate: f32) -> Result<&Recording> {
        self.feed(images, classes)?;
        self.steps += 1;
        self.update.set(&self.context, self.steps, rate)?;
        Ok(&self.recording)
    }

    /// One training step.
    #[cfg(feature = "blocking")]
    pub fn step(&mut self, images: &[f32], classes: &[u32], rate: f32) -> Result<()> {
        let context = self.context.clone();
        context.run_blocking(self.prepare(images, classes, rate)?)
    }

    /// The mean cross-entropy of the last batch, `[1]`, before its step.
    #[must_use]
    pub fn loss(&self) -> &Tensor {
        &self.loss
    }

    /// The gradients of the last batch, in the order of the model's parameters.
    pub fn gradients(&self) -> Result<Vec<&Tensor>> {
        self.variables.iter().map(|variable| self.gradients.of(variable)).collect()
    }

    /// Steps done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
