//! SIREN: networks of sines (Sitzmann et al. 2020, "Implicit neural representations with periodic
//! activation functions"), the baseline that everybody knows; many small ones at once if wanted.

use std::ops::ControlFlow;
use std::path::Path;

use super::fit::{FitConfig, Progress, Trained, Trainer, fingerprint};
use super::picture::Picture;
use super::radial_field::Region;
use super::sampler::{Sampler, mix};
use crate::dense::{Activation, ElementwiseLoss, ElementwiseLossArgs, Loss, LossConfig, Method};
use crate::dispatch::{Context, Kernel, Planned, Result, check_config, check_shape, count};
use crate::radial::{SmoothLayer, SmoothMlpConfig, SmoothMlpForward, SmoothMlpForwardArgs};
use crate::train::{Checkpoint, Input, Parameters, Tape, Tensor, smooth_mlp};

/// What a SIREN is made of. The default is that of the paper for pictures: three hidden layers of
/// 256 sines of frequency 30.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SirenFieldConfig {
    /// Networks side by side, each with weights and a picture of its own.
    pub instances: u32,
    /// Neurons of a hidden layer.
    pub width: u32,
    /// Hidden layers, 1 to 16.
    pub layers: u32,
    /// Values of a pixel.
    pub channels: u32,
    /// Radians for each unit of what goes into a sine, `omega_0`; above 0.
    pub frequency: f32,
}

impl Default for SirenFieldConfig {
    fn default() -> Self {
        Self { instances: 1, width: 256, layers: 3, channels: 3, frequency: 30.0 }
    }
}

impl SirenFieldConfig {
    fn network(&self, points: u32) -> SmoothMlpConfig {
        SmoothMlpConfig {
            batch: self.instances,
            points,
            inputs: 2,
            width: self.width,
            layers: self.layers,
            outputs: self.channels,
            activation: Activation::Sine { frequency: self.frequency },
            ..SmoothMlpConfig::default()
        }
    }

    fn check(&self) -> Result<()> {
        let positive = self.frequency.is_finite() && self.frequency > 0.0;
        check_config(positive, "frequency", "finite and above 0", self.frequency)?;
        check_config(self.channels > 0, "channels", "at least 1", self.channels)?;
        check_config((1..=16).contains(&self.layers), "layers", "1 to 16", self.layers)?;
        self.network(1).layer_sizes().into_iter().try_for_each(|(inputs, outputs)| {
            let n = count("weights", &[self.instances, outputs, inputs])?;
            check_shape(n > 0, "weights", "no zero in the shape", [self.instances, outputs, inputs])
        })
    }
}

/// Networks of sines: colour as a function of position, for `instances` pictures of one size.
#[derive(Debug, Clone)]
pub struct SirenField {
    context: Context,
    config: SirenFieldConfig,
    /// Weights `[instances, outputs, inputs]` and biases `[instances, outputs]`.
    layers: Vec<(Tensor, Tensor)>,
}

const METHOD: Method = Method::Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: false };

/// The pixels of a step, and what is done with them.
struct Fit {
    positions: Tensor,
    target: Tensor,
    trainer: Trainer,
}

impl SirenField {
    /// With the paper's initial values (section 3.2) from a seed: weights uniform in
    /// `+-1 / inputs` in the first layer and `+-sqrt(6 / inputs) / frequency` in the others, biases
    /// uniform in `+-1 / sqrt(inputs)` as in the published code.
    pub fn new(context: &Context, config: SirenFieldConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut state = seed;
        let mut uniform = move |size: f32| {
            state = mix(state);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size
        };
        let mut layers = Vec::new();
        for (l, (inputs, outputs)) in config.network(1).layer_sizes().into_iter().enumerate() {
            let fan_in = inputs as f32;
            let size = if l == 0 { 1.0 / fan_in } else { (6.0 / fan_in).sqrt() / config.frequency };
            let shape = [config.instances, outputs, inputs];
            let weight: Vec<f32> = (0..shape.iter().product()).map(|_| uniform(size)).collect();
            let bias: Vec<f32> =
                (0..config.instances * outputs).map(|_| uniform(1.0 / fan_in.sqrt())).collect();
            layers.push((
                Tensor::from_slice(context, "weight", &shape, &weight)?,
                Tensor::from_slice(context, "bias", &shape[..2], &bias)?,
            ));
        }
        Ok(Self { context: context.clone(), config, layers })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &SirenFieldConfig {
        &self.config
    }

    /// Weights and biases of all networks.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        self.config.network(1).parameter_count()
    }

    /// Weights and biases, `net.0.weight`, `net.0.bias`, ...; the instances are the first axis.
    pub fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::new();
        for (l, (weight, bias)) in self.layers.iter().enumerate() {
            parameters.insert(format!("net.{l}.weight"), weight)?;
            parameters.insert(format!("net.{l}.bias"), bias)?;
        }
        Ok(parameters)
    }

    fn bind(&self, batch: u32) -> Result<Fit> {
        let (context, config) = (&self.context, &self.config);
        let instances = config.instances;
        let positions = Tensor::new(context, "positions", &[instances, batch, 2])?;
        let target = Tensor::new(context, "target", &[instances, batch, config.channels])?;
        let loss = Tensor::new(context, "loss", &[1])?;
        let mut tape = Tape::new(context);
        let variables: Vec<_> =
            self.layers.iter().map(|(weight, bias)| (tape.variable(weight), tape.variable(bias))).collect();
        let y = smooth_mlp(&mut tape, config.network(batch), Input::Constant(&positions), &variables)?;
        let d_y = Tensor::new(context, "d output", y.tensor().shape())?;
        let kernel = ElementwiseLoss::new(
            context,
            LossConfig {
                // The mean over one picture, as if it were fitted alone.
                scale: instances as f32,
                ..LossConfig::new(Loss::Squared, target.len())
            },
        )?;
        tape.constant(kernel.prepare(&ElementwiseLossArgs {
            prediction: y.tensor().view(),
            target: target.view(),
            loss: loss.view(),
            gradient: Some(d_y.view()),
            scratch: &kernel.create_scratch()?,
        })?);
        let gradients = tape.backward(&y, &d_y)?;
        let parameters = self.parameters()?;
        let variables = variables.iter().flat_map(|(weight, bias)| [weight, bias]);
        let trained = parameters.iter().zip(variables).map(|((name, parameter), variable)| {
            let gradient = gradients.of(variable)?;
            Ok(Trained { name, parameter, gradient, skip_zero_gradient: false, rate: 1.0 })
        });
        let trained: Vec<_> = trained.collect::<Result<_>>()?;
        let recording = gradients.recording.clone();
        let trainer = Trainer::with_method(context, METHOD, recording, loss, &trained, Vec::new())?;
        Ok(Fit { positions, target, trainer })
    }

    /// Fits each network to its picture; all pictures have one size. Of the configuration, `batch` are
    /// the pixels of a step, the same of each picture, and the learning rate is that of Adam with betas 0.9
    /// and 0.999 and epsilon 1e-8 (1e-4 in the paper). The same field, pictures and configuration give the
    /// same bits on the same adapter, also if the fit is stopped and goes on from its checkpoint.
    ///
    /// `report` is called every `report_every` steps and after the last, with the loss over all
    /// pictures; `Break` ends the fit with [`Error::Cancelled`](crate::Error::Cancelled) after a checkpoint.
    /// A loss that is not finite ends it with [`Error::NonFinite`](crate::Error::NonFinite); the last
    /// checkpoint is kept.
    #[cfg(feature = "blocking")]
    pub fn fit(
        &mut self,
        pictures: &[Picture],
        fit: &FitConfig,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let (instances, channels) = (self.config.instances, self.config.channels as usize);
        check_shape(
            pictures.len() == instances as usize,
            "pictures",
            format!("{instances}, one for each network"),
            pictures.len(),
        )?;
        let Some(first) = pictures.first() else { return Ok(()) };
        let size = (first.width, first.height, self.config.channels);
        for picture in pictures {
            let have = (picture.width, picture.height, picture.channels);
            check_shape(have == size, "pictures", format!("all of the size {size:?}"), have)?;
            picture.check()?;
        }
        fit.check()?;
        let batch = u64::from(fit.batch);
        count("batch", &[instances, fit.batch, self.config.channels.max(2)])?;
        let Fit { positions, target, mut trainer } = self.bind(fit.batch)?;
        let prints = pictures.iter().map(Picture::fingerprint);
        let words = prints.flat_map(|print| [print as u32, (print >> 32) as u32]);
        trainer.data = fit.checkpoint.is_some().then(|| fingerprint(words));
        let sampler = Sampler::new(u64::from(first.width) * u64::from(first.height), fit.seed);
        let at = |i: usize, n: u32| 2.0 * (i as f32 + 0.5) / n as f32 - 1.0;
        let width = first.width as usize;
        let mut feed = |step: u64| {
            let pixels: Vec<usize> = (0..batch).map(|i| sampler.order(step * batch + i) as usize).collect();
            let place = |&i: &usize| [at(i % width, first.width), at(i / width, first.height)];
            let places: Vec<f32> = pixels.iter().flat_map(place).collect();
            let colours: Vec<f32> = pictures
                .iter()
                .flat_map(|picture| pixels.iter().map(move |i| &picture.data[i * channels..][..channels]))
                .flatten()
                .copied()
                .collect();
            positions.write(&self.context, &places.repeat(pictures.len()))?;
            target.write(&self.context, &colours)
        };
        let tensors = self.parameters()?;
        trainer.fit(&self.context, fit, &tensors, &|| self.contents(), &mut feed, report)
    }

    /// Renders `width` x `height` pixels of a region of every picture, their values at the centres
    /// of the pixels.
    #[cfg(feature = "blocking")]
    pub fn render(&self, width: u32, height: u32, region: Region) -> Result<Vec<Picture>> {
        const TILE: u32 = 1 << 14;
        let (context, config) = (&self.context, &self.config);
        let (instances, channels) = (config.instances, config.channels);
        let pixels = count("picture", &[width, height, channels])? / channels;
        check_config(pixels > 0, "size", "at least one pixel", (width, height))?;
        let tile = pixels.min((TILE / instances).max(1));
        let network = config.network(tile);
        let positions = Tensor::new(context, "positions", &[instances, tile, 2])?;
        let output = Tensor::new(context, "output", &[instances, tile, channels])?;
        let kernel = SmoothMlpForward::new(context, network)?;
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(weight, bias)| SmoothLayer { weight: weight.view(), bias: bias.view() })
            .collect();
        let recording = kernel.prepare(&SmoothMlpForwardArgs {
            x: positions.view(),
            layers: &layers,
            y: output.view(),
            kept: &network.create_kept(context)?,
            scratch: &kernel.create_scratch()?,
        })?;
        let mut data = vec![Vec::with_capacity((pixels * channels) as usize); instances as usize];
        for first in (0..pixels).step_by(tile as usize) {
            let at: Vec<f32> = (first..first + tile)
                .flat_map(|i| {
                    // Past the last pixel the tile is filled up with it.
                    let i = i.min(pixels - 1);
                    let u = (f64::from(i % width) + 0.5) / f64::from(width);
                    let v = (f64::from(i / width) + 0.5) / f64::from(height);
                    [(u, 0), (v, 1)].map(|(t, d)| {
                        let unit = region.low[d] + t * (region.high[d] - region.low[d]);
                        (2.0 * unit - 1.0) as f32
                    })
                })
                .collect();
            positions.write(context, &at.repeat(instances as usize))?;
            context.run_blocking(&recording)?;
            let values = output.read(context)?;
            let wanted = (tile.min(pixels - first) * channels) as usize;
            for (data, values) in data.iter_mut().zip(values.chunks((tile * channels) as usize)) {
                data.extend_from_slice(&values[..wanted]);
            }
        }
        data.into_iter().map(|data| Picture::new(width, height, channels, data)).collect()
    }

    /// Writes configuration and parameters as safetensors, whole or not at all.
    #[cfg(feature = "blocking")]
    pub fn save(&self, path: &Path) -> Result<()> {
        self.contents()?.save(path)
    }

    /// Configuration and parameters.
    #[cfg(feature = "blocking")]
    fn contents(&self) -> Result<Checkpoint> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.parameters()?.iter() {
            file.insert(name, tensor.shape(), tensor.read(&self.context)?);
        }
        file.set("model", "SirenField");
        file.set("instances", self.config.instances);
        file.set("width", self.config.width);
        file.set("layers", self.config.layers);
        file.set("channels", self.config.channels);
        file.set("frequency", self.config.frequency);
        Ok(file)
    }

    /// Reads what [`save`](Self::save) wrote, or a fit's checkpoint.
    pub fn load(context: &Context, path: &Path) -> Result<Self> {
        let file = Checkpoint::load(path)?;
        let config = SirenFieldConfig {
            instances: file.get(path, "instances")?,
            width: file.get(path, "width")?,
            layers: file.get(path, "layers")?,
            channels: file.get(path, "channels")?,
            frequency: file.get(path, "frequency")?,
        };
        // Before anything of the size that the metadata claims is allocated.
        config.check()?;
        for (l, (inputs, outputs)) in config.network(1).layer_sizes().into_iter().enumerate() {
            file.tensor(path, &format!("net.{l}.weight"), &[config.instances, outputs, inputs])?;
        }
        let field = Self::new(context, config, 0)?;
        for (name, tensor) in field.parameters()?.iter() {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(field)
    }
}
