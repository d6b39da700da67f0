//! Neural fields over the plane: a multiresolution grid, radial bases beside it, and a small network.

use std::ops::ControlFlow;
use std::path::Path;

use super::bands::{gradient_norms, most_bytes};
use super::fit::{FitConfig, Progress, Trained, Trainer, initial_weights, uniform};
use super::hybrid::{self, Hybrid};
use super::picture::Picture;
use super::sampler::Sampler;
use crate::dense::{ElementwiseLoss, ElementwiseLossArgs, Loss, LossConfig, RandomState};
use crate::dispatch::{BufferView, Context, Kernel, Planned, Recording, Result, check_config};
use crate::radial::{
    CentreInitialisation, CentreInitialisationArgs, CentreInitialisationConfig, CentreReport,
    FusedMlpBackward, FusedMlpBackwardArgs, FusedMlpConfig, FusedMlpForward, FusedMlpForwardArgs,
    GridEncodingBackwardTable, GridEncodingBackwardTableArgs, GridEncodingConfig, GridEncodingForward,
    GridEncodingForwardArgs, Importance, RadialFunction, RadialShape,
};
use crate::train::{Checkpoint, Parameters, Tensor};

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
    /// Radial bases beside the grid; then the first hidden layer has a sinusoid. `None`: the grid
    /// alone.
    pub radial: Option<RadialBasesConfig>,
}

/// The radial half of a hybrid field (Chen et al. 2023, "NeuRBF").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RadialBasesConfig {
    /// Centres, at least as many as neighbours.
    pub centres: u32,
    /// Nearest centres of a point, 1 to 32.
    pub neighbours: u32,
    /// Features, at least 1.
    pub features: u32,
    /// The kernel function.
    pub function: RadialFunction,
    /// What a shape is; symmetric for a picture.
    pub shape: RadialShape,
    /// The picture spans `-extent` to `extent` along each axis: its size over 128, as published.
    pub extent: [f64; 2],
    /// Lowest and highest frequency of the features' sinusoids.
    pub frequencies: [f64; 2],
    /// The same of the first hidden layer.
    pub hidden_frequencies: [f64; 2],
}

impl RadialFieldConfig {
    /// For a picture of this size: 16 levels of 2 features from 16 cells to half the longer side,
    /// tables of `2^15` entries, and two hidden layers of 64.
    #[must_use]
    pub fn for_picture(width: u32, height: u32, channels: u32) -> Self {
        let grid = GridEncodingConfig::default();
        let config = Self { grid, width: 64, layers: 2, channels, radial: None };
        config.with_finest(width.max(height) / 2)
    }

    /// The published hybrid for a picture of this size: a grid of 2 levels, and as many centres as
    /// make it as large as the grid of [`for_picture`](Self::for_picture) with tables of
    /// `2^log2_table_size` entries would be, shapes counted with the centres.
    pub fn hybrid_for_picture(width: u32, height: u32, channels: u32, log2_table_size: u32) -> Result<Self> {
        let mut reference = Self::for_picture(width, height, channels).with_table(16, log2_table_size);
        reference.grid.align_corners = true;
        let radial = RadialBasesConfig {
            centres: 0,
            neighbours: 4,
            features: 32,
            function: RadialFunction::InverseQuadratic,
            shape: RadialShape::Symmetric,
            extent: [f64::from(width) / 128.0, f64::from(height) / 128.0],
            frequencies: [0.125, 4096.0],
            hidden_frequencies: [1.0, 1000.0],
        };
        let hybrid = Self { radial: Some(radial), ..reference.with_table(2, log2_table_size) };
        hybrid.with_centres_for(&reference, width.max(height) / 2)
    }

    /// The published hybrid for signed distances in the cube, for its number of parameters: fitting
    /// fields in three dimensions is not here yet.
    pub fn hybrid_for_distances(log2_table_size: u32) -> Result<Self> {
        let grid = GridEncodingConfig { dims: 3, log2_table_size, ..GridEncodingConfig::default() };
        let reference = Self { grid, width: 64, layers: 2, channels: 1, radial: None }.with_finest(2048);
        let radial = RadialBasesConfig {
            centres: 0,
            neighbours: 8,
            features: 16,
            function: RadialFunction::Hat,
            shape: RadialShape::Scalar,
            extent: [1.0; 2],
            frequencies: [1.0, 8.0],
            hidden_frequencies: [30.0, 300.0],
        };
        let mut hybrid = Self { radial: Some(radial), ..reference };
        hybrid.grid.features = 1;
        hybrid.with_centres_for(&reference, 2048)
    }

    /// As many centres as make the hybrid, shapes and positions counted, as large as `reference`.
    ///
    /// The reference's entries are counted by the published rule in f64, in which a resolution of
    /// 32.00000000000001 is 33: the grid itself has 32 corners there.
    fn with_centres_for(mut self, reference: &Self, finest: u32) -> Result<Self> {
        let grid = &reference.grid;
        let base = f64::from(grid.base_resolution);
        let ratio = f64::from(finest) / base;
        let growth = (ratio.max(1.0).log2() / f64::from(grid.levels - 1)).exp2();
        let entries: u64 = (0..grid.levels)
            .map(|level| {
                let resolution = (base * growth.powf(f64::from(level))).ceil() as u64;
                // What is above every table is not squared further.
                let corners = resolution.min(1 << 16).pow(grid.dims);
                corners.min(1 << grid.log2_table_size).next_multiple_of(8)
            })
            .sum();
        let network = u64::from(reference.network(1, false).parameter_count());
        let all = entries * u64::from(grid.features) + network;
        let rest = self.parameter_count()?;
        let dims = self.grid.dims;
        if let Some(radial) = &mut self.radial {
            let each = radial.features + dims + radial.shape.size(dims);
            // Parameters fit into 32 bits, as tables do.
            radial.centres = (all.saturating_sub(rest) / u64::from(each)) as u32;
        }
        Ok(self)
    }

    /// The hybrid with just this number of trained parameters, or the most below it that a whole
    /// number of centres gives: the largest table for which the published rule does not ask for
    /// more, and centres for what is left.
    pub fn hybrid_with_parameters(width: u32, height: u32, channels: u32, parameters: u64) -> Result<Self> {
        for log2_table_size in (4..=24).rev() {
            let mut config = Self::hybrid_for_picture(width, height, channels, log2_table_size)?;
            let count = config.parameter_count()?;
            if count > parameters {
                continue;
            }
            if let Some(radial) = &mut config.radial {
                let more = (parameters - count) / u64::from(radial.features);
                radial.centres = radial.centres.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
                if radial.centres >= radial.neighbours {
                    return Ok(config);
                }
            }
        }
        let need = "enough for the network, a grid and a few centres";
        check_config(false, "parameters", need, parameters)?;
        Ok(Self::for_picture(width, height, channels))
    }

    /// Trained numbers: table entries, weights and biases (without the padding of the network), and
    /// the features of the centres; positions and shapes of the centres are frozen.
    pub fn parameter_count(&self) -> Result<u64> {
        let table = u64::from(self.grid.parameter_count()?);
        let network = u64::from(self.network(1, false).parameter_count());
        let Some(radial) = &self.radial else { return Ok(table + network) };
        let joined = u64::from(self.grid.outputs()) + u64::from(radial.features);
        let first = u64::from(self.width) * (joined + 1);
        let features = u64::from(radial.centres) * u64::from(radial.features);
        Ok(table + network + first + features + joined)
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
        // Of a hybrid the first layer is a kernel of its own.
        let (inputs, layers) = match self.radial {
            None => (self.grid.outputs(), self.layers),
            Some(_) => (self.width, self.layers.saturating_sub(1)),
        };
        FusedMlpConfig {
            inputs,
            width: self.width,
            layers,
            outputs: self.channels,
            points,
            keep,
            ..FusedMlpConfig::default()
        }
    }

    fn check(&self) -> Result<()> {
        check_config(self.grid.dims == 2, "dims", "2 for a picture", self.grid.dims)?;
        check_config((1..=4).contains(&self.channels), "channels", "1 to 4", self.channels)?;
        let Some(radial) = &self.radial else { return Ok(()) };
        check_config(self.layers >= 2, "layers", "at least 2 with radial bases", self.layers)?;
        let RadialBasesConfig { centres, neighbours, features, shape, .. } = *radial;
        check_config((1..=32).contains(&neighbours), "neighbours", "1 to 32", neighbours)?;
        check_config(features > 0, "features", "at least 1", features)?;
        let need = format!("at least the {neighbours} neighbours");
        check_config(centres >= neighbours, "centres", &need, centres)?;
        check_config(shape == RadialShape::Symmetric, "shape", "symmetric for a picture", shape)?;
        let above = |v: f64| v.is_finite() && v > 0.0;
        check_config(radial.extent.into_iter().all(above), "extent", "above 0", radial.extent)?;
        let ranges = [radial.frequencies, radial.hidden_frequencies];
        check_config(ranges.concat().into_iter().all(above), "frequencies", "above 0", ranges)?;
        crate::dispatch::count("radial weights", &[centres, features]).map(drop)
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

/// A neural field: colour as a function of position.
#[derive(Debug, Clone)]
pub struct RadialField {
    context: Context,
    config: RadialFieldConfig,
    table: Tensor,
    weights: Tensor,
    hybrid: Option<Hybrid>,
}

/// The tensors of a forward pass over a fixed number of points.
struct Pass {
    positions: Tensor,
    encoded: Tensor,
    output: Tensor,
    kept: Tensor,
    hybrid: Option<hybrid::Buffers>,
}

/// A training step, and the buffers that the host writes before it.
struct Step {
    pass: Pass,
    target: Tensor,
    /// What depends on the positions alone: neighbours, bases, inverted lists.
    locate: Recording,
    trainer: Trainer,
}

impl RadialField {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    ///
    /// A hybrid has all weights and biases uniform in +-1 / sqrt(inputs), as published, and centres
    /// uniform over the picture; [`for_picture`](Self::for_picture) places them by what is to be fitted.
    pub fn new(context: &Context, config: RadialFieldConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut uniform = uniform(seed);
        let entries = config.grid.parameter_count()?;
        let table: Vec<f32> = (0..entries).map(|_| uniform(1e-4)).collect();
        let network = config.network(1, false);
        FusedMlpForward::plan(&network, context.capabilities())?;
        let hybrid = config.radial.is_some();
        let spread = if hybrid { 1.0 } else { 6.0 };
        let weights = initial_weights(&network, spread, hybrid, &mut uniform);
        let hybrid = match config.radial {
            None => None,
            Some(radial) => {
                let hybrid = Hybrid::new(context, radial, config.grid.outputs(), config.width, &mut uniform)?;
                let [x, y] = radial.extent.map(|extent| extent as f32);
                let centres: Vec<f32> = (0..radial.centres).flat_map(|_| [uniform(x), uniform(y)]).collect();
                hybrid.centres.write(context, &centres)?;
                // As wide as the share of the area that a centre has.
                let share = radial.extent.map(|extent| 4.0 * extent * extent / f64::from(radial.centres));
                let shape = [(1.0 / share[0]) as f32, 0.0, (1.0 / share[1]) as f32];
                hybrid.shapes.write(context, &shape.repeat(radial.centres as usize))?;
                Some(hybrid)
            }
        };
        Ok(Self {
            context: context.clone(),
            config,
            table: Tensor::from_slice(context, "grid.table", &[entries], &table)?,
            weights: Tensor::from_slice(context, "network.weights", &[weights.len() as u32], &weights)?,
            hybrid,
        })
    }

    /// As [`new`](Self::new), with the centres of a hybrid placed by the picture: weighted k-means of
    /// its pixels, and shapes from the covariance of what each centre has. A picture that is larger than
    /// a buffer may be is weighed band by band; a buffer has 8 bytes for each of its pixels.
    #[cfg(feature = "blocking")]
    pub fn for_picture(
        context: &Context,
        config: RadialFieldConfig,
        picture: &Picture,
        seed: u64,
    ) -> Result<Self> {
        let field = Self::new(context, config, seed)?;
        let (Some(hybrid), Some(radial)) = (&field.hybrid, &config.radial) else { return Ok(field) };
        let Picture { width, height, channels, data } = picture;
        let extent = [width, height].map(|&n| f64::from(n) / 128.0);
        let need = format!("the picture's {extent:?}");
        check_config(radial.extent == extent, "extent", &need, radial.extent)?;
        let whole = CentreInitialisationConfig::for_picture(*width, *height, *channels, radial.centres);
        let points = crate::dispatch::count("pixels", &[*width, *height])?;
        let (config, values) = if data.len() as u64 * 4 <= most_bytes(context) {
            (whole, Tensor::from_slice(context, "picture", &[*height, *width, *channels], data)?)
        } else {
            let importance = Importance::Given { points };
            (CentreInitialisationConfig { importance, ..whole }, gradient_norms(context, picture)?)
        };
        let initialisation = CentreInitialisation::new(context, config)?;
        let state = context.create_storage_with("random state", RandomState::new(seed, 0).bytes())?;
        let report = context.create_storage("report", CentreReport::WORDS * 4)?;
        let scratch = initialisation.create_scratch()?;
        context.run_blocking(&initialisation.prepare(&CentreInitialisationArgs {
            values: values.view(),
            positions: None,
            state: BufferView::new(&state),
            centres: hybrid.centres.view(),
            shapes: hybrid.shapes.view(),
            report: BufferView::new(&report),
            scratch: &scratch,
        })?)?;
        Ok(field)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RadialFieldConfig {
        &self.config
    }

    /// Trained numbers: see [`RadialFieldConfig::parameter_count`].
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        // The configuration was checked: it fits.
        self.config.parameter_count().unwrap_or_default()
    }

    /// What is trained.
    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::new();
        parameters.insert("grid.table", &self.table)?;
        parameters.insert("network.weights", &self.weights)?;
        for (name, tensor) in self.hybrid.iter().flat_map(Hybrid::trained) {
            parameters.insert(name, tensor)?;
        }
        Ok(parameters)
    }

    /// What a file holds: what is trained, and what is frozen.
    fn tensors(&self) -> Result<Parameters> {
        let mut tensors = self.parameters()?;
        for (name, tensor) in self.hybrid.iter().flat_map(Hybrid::frozen) {
            tensors.insert(name, tensor)?;
        }
        Ok(tensors)
    }

    /// The tensors of a pass; `keep` as for a backward pass.
    fn pass(&self, points: u32, keep: bool) -> Result<Pass> {
        let context = &self.context;
        let tensor = |what, shape: &[u32]| Tensor::new(context, what, shape);
        let network = self.config.network(points, keep);
        FusedMlpForward::plan(&network, context.capabilities())?;
        // `kept_count` was checked to fit by the plan.
        let kept = if keep { network.kept_count() as u32 } else { 4 };
        Ok(Pass {
            positions: tensor("positions", &[points, 2])?,
            encoded: tensor("encoded", &[points, self.config.grid.outputs()])?,
            output: tensor("output", &[points, self.config.channels])?,
            kept: tensor("kept", &[kept])?,
            hybrid: self.hybrid.as_ref().map(|hybrid| hybrid.buffers(context, points)).transpose()?,
        })
    }

    /// Forward pass for positions that are already on the device, and whose neighbours are known.
    fn forward(&self, pass: &mut Pass, keep: bool) -> Result<Recording> {
        let points = pass.positions.len() / 2;
        let mut recording = GridEncodingForward::new(&self.context, self.config.grid(points))?.prepare(
            &GridEncodingForwardArgs {
                positions: pass.positions.view(),
                table: self.table.view(),
                encoded: pass.encoded.view(),
            },
        )?;
        let mut input = pass.encoded.clone();
        if let (Some(hybrid), Some(buffers)) = (&self.hybrid, &mut pass.hybrid) {
            recording.append(hybrid.forward(&self.context, buffers, &pass.encoded)?);
            input = buffers.hidden.clone();
        }
        let network = FusedMlpForward::new(&self.context, self.config.network(points, keep))?;
        recording.append(network.prepare(&FusedMlpForwardArgs {
            weights: self.weights.view(),
            x: input.view(),
            y: pass.output.view(),
            kept: pass.kept.view(),
        })?);
        Ok(recording)
    }

    /// Writes positions, `[N, 2]` in the unit square.
    fn write_positions(&self, pass: &Pass, positions: &[f32]) -> Result<()> {
        pass.positions.write(&self.context, positions)?;
        if let (Some(buffers), Some(radial)) = (&pass.hybrid, &self.config.radial) {
            let places: Vec<f32> = positions
                .iter()
                .enumerate()
                .map(|(i, &t)| ((2.0 * f64::from(t) - 1.0) * radial.extent[i % 2]) as f32)
                .collect();
            buffers.places.write(&self.context, &places)?;
        }
        Ok(())
    }

    fn step(&self, batch: u32) -> Result<Step> {
        let context = &self.context;
        let channels = self.config.channels;
        let mut pass = self.pass(batch, true)?;
        let tensor = |what, shape: &[u32]| Tensor::new(context, what, shape);
        let target = tensor("target", &[batch, channels])?;
        let d_encoded = tensor("d encoded", pass.encoded.shape())?;
        let d_output = tensor("d output", &[batch, channels])?;
        let loss = tensor("loss", &[1])?;
        let d_table = tensor("d table", self.table.shape())?;
        let d_weights = tensor("d weights", self.weights.shape())?;
        let network = self.config.network(batch, true);
        let backward = FusedMlpBackward::new(context, network)?;

        let mut recording = self.forward(&mut pass, true)?;
        let config = LossConfig { loss: Loss::Squared, count: batch * channels, scale: 1.0, gradient: true };
        let error = ElementwiseLoss::new(context, config)?;
        let error_scratch = error.create_scratch()?;
        recording.append(error.prepare(&ElementwiseLossArgs {
            prediction: pass.output.view(),
            target: target.view(),
            loss: loss.view(),
            gradient: Some(d_output.view()),
            scratch: &error_scratch,
        })?);
        let backward_scratch = backward.create_scratch()?;
        let input = pass.hybrid.as_ref().map_or(&pass.encoded, |buffers| &buffers.hidden).clone();
        let d_input = match &pass.hybrid {
            None => d_encoded.clone(),
            Some(buffers) => tensor("d hidden", buffers.hidden.shape())?,
        };
        recording.append(backward.prepare(&FusedMlpBackwardArgs {
            weights: self.weights.view(),
            x: input.view(),
            kept: pass.kept.view(),
            dy: d_output.view(),
            dweights: d_weights.view(),
            dx: d_input.view(),
            scratch: &backward_scratch,
        })?);
        let mut gradients = vec![d_table.clone(), d_weights];
        let mut locate = Recording::new();
        if let (Some(hybrid), Some(buffers)) = (&self.hybrid, &mut pass.hybrid) {
            let to = hybrid.gradients(context, batch)?;
            locate.append(hybrid.locate(context, buffers)?);
            locate.append(hybrid.invert(context, buffers, &to)?);
            recording.append(hybrid.backward(context, buffers, &to, &d_input, &d_encoded)?);
            gradients.extend(to.parameters);
        }
        let to_table = GridEncodingBackwardTable::new(context, self.config.grid(batch))?;
        let table_scratch = to_table.create_scratch()?;
        recording.append(to_table.prepare(&GridEncodingBackwardTableArgs {
            positions: pass.positions.view(),
            dy: d_encoded.view(),
            dtable: d_table.view(),
            scratch: &table_scratch,
        })?);

        let hybrid = self.hybrid.is_some();
        let parameters = self.parameters()?;
        let trained: Vec<_> = parameters
            .iter()
            .zip(&gradients)
            .map(|((name, parameter), gradient)| {
                let features = matches!(name, "grid.table" | "radial.weights" | "radial.bias");
                Trained {
                    name,
                    parameter,
                    gradient,
                    // Entries that no pixel of the batch touches keep their moments.
                    skip_zero_gradient: name == "grid.table" && !hybrid,
                    // The published rates: 1e-2 for the network, 5e-3 for features.
                    rate: if hybrid && features { 0.5 } else { 1.0 },
                }
            })
            .collect();
        let scratch = vec![error_scratch, backward_scratch, table_scratch];
        let trainer = Trainer::new(context, recording, loss, &trained, scratch)?;
        Ok(Step { pass, target, locate, trainer })
    }

    /// Fits the field to a picture. The same field, picture and configuration give the same bits
    /// on the same adapter, whether or not the run is stopped and resumed in between.
    ///
    /// `report` is called every `report_every` steps and after the last; `Break` ends the fit with
    /// [`Error::Cancelled`](crate::Error::Cancelled) after a checkpoint. A loss that is not finite ends it with
    /// [`Error::NonFinite`](crate::Error::NonFinite); the last checkpoint is kept.
    #[cfg(feature = "blocking")]
    pub fn fit(
        &mut self,
        picture: &Picture,
        fit: &FitConfig,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let channels = self.config.channels;
        fit.check()?;
        check_config(picture.channels == channels, "channels", "those of the field", picture.channels)?;
        let count = u64::from(picture.width) * u64::from(picture.height);
        // A hybrid whose batch has room for all pixels takes them all, in their order: then what
        // depends on the positions is found once.
        let all = self.hybrid.is_some() && u64::from(fit.batch) >= count;
        let batch = if all { count as u32 } else { fit.batch };
        crate::dispatch::count("batch", &[batch, channels.max(2)])?;
        let step = self.step(batch)?;
        let sampler = Sampler::new(count, fit.seed);
        let mut positions = vec![0.0f32; 2 * batch as usize];
        let mut target = vec![0.0f32; (batch * channels) as usize];
        let mut is_fed = false;
        let mut feed = |done: u64| {
            if all && is_fed {
                return Ok(());
            }
            is_fed = true;
            for i in 0..batch as usize {
                let sample = done * u64::from(batch) + i as u64;
                let pixel = if all { i } else { sampler.order(sample) as usize };
                let (x, y) = (pixel % picture.width as usize, pixel / picture.width as usize);
                positions[2 * i] = (x as f32 + 0.5) / picture.width as f32;
                positions[2 * i + 1] = (y as f32 + 0.5) / picture.height as f32;
                let channels = channels as usize;
                target[i * channels..(i + 1) * channels]
                    .copy_from_slice(&picture.data[pixel * channels..(pixel + 1) * channels]);
            }
            self.write_positions(&step.pass, &positions)?;
            step.target.write(&self.context, &target)?;
            if self.hybrid.is_some() {
                self.context.run_blocking(&step.locate)?;
            }
            Ok(())
        };
        let tensors = self.tensors()?;
        step.trainer.fit(&self.context, fit, &tensors, &|| self.contents(), &mut feed, report)
    }

    /// Renders `width` x `height` pixels of a region, their values at the centres of the pixels.
    /// In tiles of so many pixels as the device's limits have room for.
    #[cfg(feature = "blocking")]
    pub fn render(&self, width: u32, height: u32, region: Region) -> Result<Picture> {
        const TILE: u32 = 1 << 16;
        let channels = self.config.channels;
        let pixels = crate::dispatch::count("picture", &[width, height, channels])? / channels;
        check_config(pixels > 0, "size", "at least one pixel", (width, height))?;
        // What a pixel has most of: features, neurons or neighbours.
        let radial = self.config.radial.map_or(0, |radial| radial.features.max(radial.neighbours));
        let widest = u64::from(self.config.width.max(self.config.grid.outputs() + radial));
        let room = (most_bytes(&self.context) / (4 * widest)).max(1);
        let tile = u64::from(pixels.min(TILE)).min(room) as u32;
        let context = &self.context;
        let mut pass = self.pass(tile, false)?;
        let mut recording = Recording::new();
        if let (Some(hybrid), Some(buffers)) = (&self.hybrid, &mut pass.hybrid) {
            recording.append(hybrid.locate(context, buffers)?);
        }
        recording.append(self.forward(&mut pass, false)?);
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
            self.write_positions(&pass, &at)?;
            context.run_blocking(&recording)?;
            let values = pass.output.read(context)?;
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
            align_corners: file.get(path, "align_corners").unwrap_or(false),
            ..GridEncodingConfig::default()
        };
        // Files of the grid alone have no centres.
        let radial = match file.get(path, "centres") {
            Ok(centres) => Some(read_radial(&file, path, centres)?),
            Err(_) => None,
        };
        let config = RadialFieldConfig {
            grid,
            width: file.get(path, "width")?,
            layers: file.get(path, "layers")?,
            channels: file.get(path, "channels")?,
            radial,
        };
        // Before anything of the size that the metadata claims is allocated.
        config.check()?;
        file.tensor(path, "grid.table", &[grid.parameter_count()?])?;
        if let Some(radial) = &config.radial {
            file.tensor(path, "radial.weights", &[radial.centres, radial.features])?;
        }
        let field = Self::new(context, config, 0)?;
        for (name, tensor) in field.tensors()?.iter() {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(field)
    }

    #[cfg(feature = "blocking")]
    fn contents(&self) -> Result<Checkpoint> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.tensors()?.iter() {
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
        if let Some(radial) = &self.config.radial {
            file.set("align_corners", grid.align_corners);
            file.set("centres", radial.centres);
            file.set("neighbours", radial.neighbours);
            file.set("radial_features", radial.features);
            file.set("function", radial.function as u32);
            for (name, [low, high]) in radial_ranges(radial) {
                file.set(format!("{name}.0"), low);
                file.set(format!("{name}.1"), high);
            }
        }
        Ok(file)
    }
}

/// Pairs of numbers of a radial half, with their names in a file.
fn radial_ranges(radial: &RadialBasesConfig) -> [(&'static str, [f64; 2]); 3] {
    [
        ("extent", radial.extent),
        ("frequencies", radial.frequencies),
        ("hidden_frequencies", radial.hidden_frequencies),
    ]
}

fn read_radial(file: &Checkpoint, path: &Path, centres: u32) -> Result<RadialBasesConfig> {
    let range = |name: &str| -> Result<[f64; 2]> {
        Ok([file.get(path, &format!("{name}.0"))?, file.get(path, &format!("{name}.1"))?])
    };
    let function: usize = file.get(path, "function")?;
    let need = "the number of a kernel function";
    let function = RadialFunction::ALL.get(function).copied();
    check_config(function.is_some(), "function", need, function)?;
    Ok(RadialBasesConfig {
        centres,
        neighbours: file.get(path, "neighbours")?,
        features: file.get(path, "radial_features")?,
        function: function.unwrap_or_default(),
        shape: RadialShape::Symmetric,
        extent: range("extent")?,
        frequencies: range("frequencies")?,
        hidden_frequencies: range("hidden_frequencies")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chen et al. 2023: parameters of the models for pictures and for signed distances.
    #[test]
    fn parameter_counts_are_the_published_ones() {
        let count =
            |config: RadialFieldConfig| (config.radial.unwrap().centres, config.parameter_count().unwrap());
        let picture = |side, log2| count(RadialFieldConfig::hybrid_for_picture(side, side, 3, log2).unwrap());
        assert_eq!(picture(256, 15), (2_776, 128_871));
        assert_eq!(picture(256, 12), (1_755, 71_623));
        assert_eq!(picture(8000, 24), (795_365, 57_458_951));
        let distances = |log2| count(RadialFieldConfig::hybrid_for_distances(log2).unwrap());
        assert_eq!(distances(15), (23_600, 856_009));
        assert_eq!(distances(14), (12_280, 448_489));
        assert_eq!(distances(13), (6_347, 234_897));
        assert_eq!(distances(12), (3_275, 124_305));
    }

    #[test]
    fn a_number_of_parameters_is_met() {
        for wanted in [10_000, 71_623, 100_000, 128_871, 500_000] {
            let config = RadialFieldConfig::hybrid_with_parameters(256, 256, 3, wanted).unwrap();
            let have = config.parameter_count().unwrap();
            assert!(have <= wanted && wanted - have < 32, "{wanted}: {have}");
            config.check().unwrap();
        }
        assert!(RadialFieldConfig::hybrid_with_parameters(256, 256, 3, 6_800).is_err());
    }
}
