//! What fields are made of: a multiresolution grid, radial bases beside it if wanted, and a small network
//! on top; and how they are trained.

use std::ops::ControlFlow;
use std::path::Path;

#[cfg(feature = "blocking")]
use super::bands::most_bytes;
use super::fit::{FitConfig, Progress, Trained, Trainer, initial_weights, uniform};
use super::hybrid::{self, Hybrid, RadialBasesConfig};
use crate::dense::{ElementwiseLoss, ElementwiseLossArgs, Loss, LossConfig};
use crate::dispatch::{Context, Kernel, Planned, Recording, Result, check_config};
use crate::radial::{
    FusedMlpBackward, FusedMlpBackwardArgs, FusedMlpConfig, FusedMlpForward, FusedMlpForwardArgs,
    GridEncodingBackwardInput, GridEncodingBackwardInputArgs, GridEncodingBackwardTable,
    GridEncodingBackwardTableArgs, GridEncodingConfig, GridEncodingForward, GridEncodingForwardArgs,
    GridKind, Interpolation,
};
use crate::train::{Checkpoint, Parameters, Tensor};

/// The parts of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FieldNetworkConfig {
    /// `points` is not looked at.
    pub grid: GridEncodingConfig,
    pub width: u32,
    pub layers: u32,
    pub outputs: u32,
    pub radial: Option<RadialBasesConfig>,
}

/// A grid with another finest resolution.
pub(super) fn with_finest(grid: GridEncodingConfig, finest: u32) -> GridEncodingConfig {
    let ratio = f64::from(finest) / f64::from(grid.base_resolution.max(1));
    GridEncodingConfig { growth: ratio.max(1.0).powf(1.0 / f64::from(grid.levels.max(2) - 1)), ..grid }
}

impl FieldNetworkConfig {
    pub fn check(&self, dims: u32) -> Result<()> {
        check_config(self.grid.dims == dims, "dims", &format!("{dims} for this field"), self.grid.dims)?;
        let Some(radial) = &self.radial else { return Ok(()) };
        check_config(self.layers >= 2, "layers", "at least 2 with radial bases", self.layers)?;
        radial.check(dims)
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
            outputs: self.outputs,
            points,
            keep,
            ..FusedMlpConfig::default()
        }
    }

    /// Trained numbers: table entries, weights and biases (without the padding of the network), and
    /// the features of the centres; positions and shapes of the centres are frozen.
    pub fn parameter_count(&self) -> Result<u64> {
        let sizes = [("width", self.width, 128), ("layers", self.layers, 8), ("outputs", self.outputs, 128)];
        for (what, size, most) in sizes {
            check_config((1..=most).contains(&size), what, &format!("1 to {most}"), size)?;
        }
        let table = u64::from(self.grid.parameter_count()?);
        let network = u64::from(self.network(1, false).parameter_count());
        let Some(radial) = &self.radial else { return Ok(table + network) };
        let joined = u64::from(self.grid.outputs()) + u64::from(radial.features);
        let first = u64::from(self.width) * (joined + 1);
        let features = u64::from(radial.centres) * u64::from(radial.features);
        Ok(table + network + first + features + joined)
    }

    /// How many centres make the hybrid, shapes and positions counted, as large as `reference` is.
    ///
    /// The reference's entries are counted by the published rule in f64, in which a resolution of
    /// 32.00000000000001 is 33: the grid itself has 32 corners there.
    pub fn centres_for(&self, reference: &Self, finest: u32) -> Result<u32> {
        let Some(radial) = &self.radial else { return Ok(0) };
        let grid = &reference.grid;
        grid.level_table()?;
        let base = f64::from(grid.base_resolution);
        let ratio = f64::from(finest) / base;
        let growth = (ratio.max(1.0).log2() / f64::from(grid.levels.max(2) - 1)).exp2();
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
        let rest = Self { radial: Some(RadialBasesConfig { centres: 0, ..*radial }), ..*self };
        let dims = self.grid.dims;
        let each = radial.features + dims + radial.shape.size(dims);
        // Parameters fit into 32 bits, as tables do.
        Ok((all.saturating_sub(rest.parameter_count()?) / u64::from(each)) as u32)
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
            interpolation: named(file, path, "interpolation", &INTERPOLATIONS)?,
            kind: named(file, path, "kind", &KINDS)?,
            align_corners: file.get_or(path, "align_corners", false)?,
            ..GridEncodingConfig::default()
        };
        let config = Self {
            grid,
            width: file.get(path, "width")?,
            layers: file.get(path, "layers")?,
            outputs,
            radial: RadialBasesConfig::of_file(file, path, dims)?,
        };
        config.check(dims).map(|()| config)
    }

    #[cfg(feature = "blocking")]
    fn describe(&self, file: &mut Checkpoint) {
        file.set("levels", self.grid.levels);
        file.set("features", self.grid.features);
        file.set("log2_table_size", self.grid.log2_table_size);
        file.set("base_resolution", self.grid.base_resolution);
        file.set("growth", self.grid.growth);
        file.set("interpolation", name_of(self.grid.interpolation, &INTERPOLATIONS));
        file.set("kind", name_of(self.grid.kind, &KINDS));
        file.set("align_corners", self.grid.align_corners);
        file.set("width", self.width);
        file.set("layers", self.layers);
        if let Some(radial) = &self.radial {
            radial.describe(file);
        }
    }
}

const INTERPOLATIONS: [(Interpolation, &str); 2] =
    [(Interpolation::Linear, "linear"), (Interpolation::Smoothstep, "smoothstep")];
const KINDS: [(GridKind, &str); 2] = [(GridKind::Hash, "hash"), (GridKind::Dense, "dense")];

pub(super) fn name_of<T: Copy + PartialEq>(value: T, names: &[(T, &'static str)]) -> &'static str {
    names.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

/// A value by its name in a file; the first one if an older file does not say it.
pub(super) fn named<T: Copy>(
    file: &Checkpoint,
    path: &Path,
    what: &'static str,
    names: &[(T, &str)],
) -> Result<T> {
    let (first, absent) = names[0];
    let name: String = file.get_or(path, what, absent.into())?;
    let found = names.iter().find(|(_, known)| *known == name);
    let all: Vec<_> = names.iter().map(|(_, name)| *name).collect();
    check_config(found.is_some(), what, &all.join(" or "), &name)?;
    Ok(found.map_or(first, |(value, _)| *value))
}

/// The parameters of a field on the device.
#[derive(Debug, Clone)]
pub(super) struct FieldNetwork {
    pub context: Context,
    config: FieldNetworkConfig,
    table: Tensor,
    weights: Tensor,
    pub hybrid: Option<Hybrid>,
    /// What a file says about the model beyond the configuration.
    metadata: Vec<(&'static str, String)>,
}

/// The tensors of a forward pass over a fixed number of points.
pub(super) struct Pass {
    /// In the unit square or cube.
    pub positions: Tensor,
    /// The same among the centres: another tensor in the plane, with radial bases.
    pub places: Tensor,
    pub output: Tensor,
    encoded: Tensor,
    kept: Tensor,
    hybrid: Option<hybrid::Buffers>,
}

/// A forward pass that is ready to run.
pub(super) struct Evaluation {
    pub pass: Pass,
    pub recording: Recording,
}

/// What depends on the positions alone; nothing if there are no radial bases.
#[derive(Default)]
pub(super) struct Location {
    /// Once: the cells over the centres.
    pub build: Recording,
    /// The neighbours of the positions, the bases there and the inverted lists.
    pub find: Recording,
}

/// The tensors of a training step.
pub(super) struct Step {
    pub pass: Pass,
    pub target: Tensor,
    gradients: Option<hybrid::Gradients>,
}

impl FieldNetwork {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    ///
    /// A hybrid has all weights and biases uniform in +-1 / sqrt(inputs), as published, and centres
    /// uniform over the square or cube.
    pub fn new(
        context: &Context,
        config: FieldNetworkConfig,
        seed: u64,
        metadata: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let mut uniform = uniform(seed);
        let entries = config.grid.parameter_count()?;
        let table: Vec<f32> = (0..entries).map(|_| uniform(1e-4)).collect();
        let network = config.network(1, false);
        FusedMlpForward::plan(&network, context.capabilities())?;
        let radial = config.radial.is_some();
        let weights = initial_weights(&network, if radial { 1.0 } else { 6.0 }, radial, &mut uniform);
        let sizes = [config.grid.dims, config.grid.outputs(), config.width];
        let hybrid = config.radial.map(|radial| Hybrid::new(context, radial, sizes, &mut uniform));
        Ok(Self {
            context: context.clone(),
            config,
            table: Tensor::from_slice(context, "grid.table", &[entries], &table)?,
            weights: Tensor::from_slice(context, "network.weights", &[weights.len() as u32], &weights)?,
            hybrid: hybrid.transpose()?,
            metadata,
        })
    }

    /// Parameters from a file whose metadata gave `config`.
    pub fn of_file(
        context: &Context,
        config: FieldNetworkConfig,
        file: &Checkpoint,
        path: &Path,
        metadata: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        // Before anything of the size that the metadata claims is allocated.
        file.tensor(path, "grid.table", &[config.grid.parameter_count()?])?;
        if let Some(radial) = &config.radial {
            file.tensor(path, "radial.weights", &[radial.centres, radial.features])?;
        }
        let network = Self::new(context, config, 0, metadata)?;
        for (name, tensor) in network.tensors()?.iter() {
            tensor.write(context, file.tensor(path, name, tensor.shape())?)?;
        }
        Ok(network)
    }

    /// See [`FieldNetworkConfig::parameter_count`].
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
        let dims = self.config.grid.dims;
        let tensor = |what, shape: &[u32]| Tensor::new(context, what, shape);
        let network = self.config.network(points, keep);
        FusedMlpForward::plan(&network, context.capabilities())?;
        // `kept_count` was checked to fit by the plan.
        let kept = if keep { network.kept_count() as u32 } else { 4 };
        let positions = tensor("positions", &[points, dims])?;
        let apart = self.hybrid.is_some() && dims == 2;
        let places = if apart { tensor("places", &[points, dims])? } else { positions.clone() };
        Ok(Pass {
            hybrid: self.hybrid.as_ref().map(|hybrid| hybrid.buffers(context, &places)).transpose()?,
            positions,
            places,
            encoded: tensor("encoded", &[points, self.config.grid.outputs()])?,
            output: tensor("output", &[points, self.config.outputs])?,
            kept: tensor("kept", &[kept])?,
        })
    }

    /// Forward pass for positions that are already on the device, and whose neighbours are known.
    fn forward(&self, pass: &mut Pass, keep: bool) -> Result<Recording> {
        let points = pass.positions.len() / self.config.grid.dims;
        let mut recording = GridEncodingForward::new(&self.context, self.config.grid(points))?.prepare(
            &GridEncodingForwardArgs {
                positions: pass.positions.view(),
                table: self.table.view(),
                encoded: pass.encoded.view(),
            },
        )?;
        if let (Some(hybrid), Some(buffers)) = (&self.hybrid, &mut pass.hybrid) {
            recording.append(hybrid.forward(&self.context, buffers, &pass.encoded)?);
        }
        let network = FusedMlpForward::new(&self.context, self.config.network(points, keep))?;
        recording.append(network.prepare(&FusedMlpForwardArgs {
            weights: self.weights.view(),
            x: pass.input().view(),
            y: pass.output.view(),
            kept: pass.kept.view(),
        })?);
        Ok(recording)
    }

    /// A forward pass over `points` points; `keep` as for a backward pass.
    pub fn evaluation(&self, points: u32, keep: bool) -> Result<Evaluation> {
        let mut pass = self.pass(points, keep)?;
        let mut recording = Recording::new();
        if let (Some(hybrid), Some(buffers)) = (&self.hybrid, &mut pass.hybrid) {
            let Location { build, find } = hybrid.locate(&self.context, buffers)?;
            recording.append(build);
            recording.append(find);
        }
        recording.append(self.forward(&mut pass, keep)?);
        Ok(Evaluation { pass, recording })
    }

    /// The tensors of a training step over `batch` points.
    pub fn step(&self, batch: u32) -> Result<Step> {
        let gradients = self.hybrid.as_ref().map(|hybrid| hybrid.gradients(&self.context, batch));
        Ok(Step {
            pass: self.pass(batch, true)?,
            target: Tensor::new(&self.context, "target", &[batch, self.config.outputs])?,
            gradients: gradients.transpose()?,
        })
    }

    /// What the step needs to know of its positions.
    pub fn locate(&self, step: &mut Step) -> Result<Location> {
        let (Some(hybrid), Some(buffers), Some(to)) = (&self.hybrid, &mut step.pass.hybrid, &step.gradients)
        else {
            return Ok(Location::default());
        };
        let mut location = hybrid.locate(&self.context, buffers)?;
        location.find.append(hybrid.invert(&self.context, buffers, to)?);
        Ok(location)
    }

    /// From the gradient of the output to that of the network's weights and of the grid's features, and with
    /// radial bases to those of their parameters.
    fn backward(
        &self,
        pass: &mut Pass,
        d_output: &Tensor,
        d_weights: &Tensor,
        to: hybrid::Wanted<'_>,
    ) -> Result<(Recording, Tensor, crate::dispatch::Scratch)> {
        let context = &self.context;
        let points = pass.positions.len() / self.config.grid.dims;
        let backward = FusedMlpBackward::new(context, self.config.network(points, true))?;
        let scratch = backward.create_scratch()?;
        let d_input = Tensor::new(context, "d input", pass.input().shape())?;
        let mut recording = backward.prepare(&FusedMlpBackwardArgs {
            weights: self.weights.view(),
            x: pass.input().view(),
            kept: pass.kept.view(),
            dy: d_output.view(),
            dweights: d_weights.view(),
            dx: d_input.view(),
            scratch: &scratch,
        })?;
        let mut d_encoded = d_input.clone();
        if let (Some(hybrid), Some(buffers)) = (&self.hybrid, &mut pass.hybrid) {
            d_encoded = Tensor::new(context, "d encoded", pass.encoded.shape())?;
            recording.append(hybrid.backward(context, buffers, to, &d_input, &d_encoded)?);
        }
        Ok((recording, d_encoded, scratch))
    }

    /// A training step after `before`, which writes positions and target (unless the host does) and finds
    /// what [`locate`](Self::locate) tells: forward and backward pass and the optimiser. `pairs` is that of
    /// [`LossConfig`]. `feature_rate` is the factor of the learning rate for the table and the radial features.
    pub fn trainer(
        &self,
        step: &mut Step,
        (loss_function, pairs): (Loss, f32),
        before: Recording,
        feature_rate: f32,
    ) -> Result<Trainer> {
        let context = &self.context;
        let count = step.target.len();
        let batch = count / self.config.outputs;
        let Step { pass, target, gradients } = step;
        let tensor = |what, shape: &[u32]| Tensor::new(context, what, shape);
        let d_output = tensor("d output", target.shape())?;
        let loss = tensor("loss", &[1])?;
        let d_table = tensor("d table", self.table.shape())?;
        let d_weights = tensor("d weights", self.weights.shape())?;

        let mut recording = before;
        recording.append(self.forward(pass, true)?);
        let config = LossConfig { pairs, ..LossConfig::new(loss_function, count) };
        let error = ElementwiseLoss::new(context, config)?;
        let error_scratch = error.create_scratch()?;
        recording.append(error.prepare(&ElementwiseLossArgs {
            prediction: pass.output.view(),
            target: target.view(),
            loss: loss.view(),
            gradient: Some(d_output.view()),
            scratch: &error_scratch,
        })?);
        let wanted = match gradients {
            Some(to) => hybrid::Wanted::Parameters(to),
            None => hybrid::Wanted::Places,
        };
        let (backward, d_encoded, backward_scratch) = self.backward(pass, &d_output, &d_weights, wanted)?;
        recording.append(backward);
        let to_table = GridEncodingBackwardTable::new(context, self.config.grid(batch))?;
        let table_scratch = to_table.create_scratch()?;
        recording.append(to_table.prepare(&GridEncodingBackwardTableArgs {
            positions: pass.positions.view(),
            dy: d_encoded.view(),
            dtable: d_table.view(),
            scratch: &table_scratch,
        })?);

        let mut all = vec![d_table, d_weights];
        all.extend(gradients.iter().flat_map(|to| to.parameters.clone()));
        let parameters = self.parameters()?;
        let trained: Vec<_> = parameters
            .iter()
            .zip(&all)
            .map(|((name, parameter), gradient)| {
                let features = matches!(name, "grid.table" | "radial.weights" | "radial.bias");
                Trained {
                    name,
                    parameter,
                    gradient,
                    // Entries that no point of the batch touches keep their moments.
                    skip_zero_gradient: name == "grid.table" && self.hybrid.is_none(),
                    rate: if features { feature_rate } else { 1.0 },
                }
            })
            .collect();
        let scratch = vec![error_scratch, backward_scratch, table_scratch];
        Trainer::new(context, recording, loss, &trained, scratch)
    }

    /// Runs the steps of a fit: see [`Trainer::fit`].
    #[cfg(feature = "blocking")]
    pub fn fit(
        &self,
        trainer: &Trainer,
        fit: &FitConfig,
        feed: &mut dyn FnMut(u64) -> Result<()>,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        trainer.fit(&self.context, fit, &self.tensors()?, &|| self.contents(), feed, report)
    }

    /// Points whose derivatives are found at once, at most `most`: so many as the device's limits have room for.
    #[cfg(feature = "blocking")]
    pub fn gradient_tile(&self, most: u32) -> u32 {
        let radial = self.config.radial.map_or(0, |radial| radial.features.max(4 * radial.neighbours));
        let joined = u64::from(self.config.grid.outputs()) + u64::from(radial);
        let widest = joined.max(self.config.network(1, true).kept_count());
        let room = most_bytes(&self.context) / (4 * widest);
        room.clamp(1, u64::from(most)) as u32
    }

    /// The derivatives of the outputs by the position in the unit square or cube, and where there are radial
    /// bases those by the place among the centres: each `[outputs, N, dims]`. `write` is given the pass before it
    /// runs, to write the positions.
    ///
    /// Neighbours count as fixed: where their set changes the field may jump, and the derivative does not
    /// know.
    #[cfg(feature = "blocking")]
    pub fn position_gradients(
        &self,
        points: u32,
        write: &dyn Fn(&Pass) -> Result<()>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let context = &self.context;
        let outputs = self.config.outputs;
        let Evaluation { mut pass, recording } = self.evaluation(points, true)?;
        write(&pass)?;
        context.run_blocking(&recording)?;
        let d_output = Tensor::new(context, "d output", pass.output.shape())?;
        let d_weights = Tensor::new(context, "d weights", self.weights.shape())?;
        let (mut backward, d_encoded, _scratch) =
            self.backward(&mut pass, &d_output, &d_weights, hybrid::Wanted::Places)?;
        let d_positions = Tensor::new(context, "d positions", pass.positions.shape())?;
        let to_positions = GridEncodingBackwardInput::new(context, self.config.grid(points))?;
        backward.append(to_positions.prepare(&GridEncodingBackwardInputArgs {
            positions: pass.positions.view(),
            table: self.table.view(),
            dy: d_encoded.view(),
            dx: d_positions.view(),
        })?);
        let (mut of_grid, mut of_bases) = (Vec::new(), Vec::new());
        for output in 0..outputs {
            let one = |i: u32| if i % outputs == output { 1.0 } else { 0.0 };
            d_output.write(context, &(0..points * outputs).map(one).collect::<Vec<f32>>())?;
            context.run_blocking(&backward)?;
            of_grid.extend(d_positions.read(context)?);
            if let Some(d_places) = pass.hybrid.as_ref().and_then(|buffers| buffers.d_places.as_ref()) {
                of_bases.extend(d_places.read(context)?);
            }
        }
        Ok((of_grid, of_bases))
    }

    /// Configuration, metadata and parameters.
    #[cfg(feature = "blocking")]
    pub fn contents(&self) -> Result<Checkpoint> {
        let mut file = Checkpoint::new();
        for (name, tensor) in self.tensors()?.iter() {
            file.insert(name, tensor.shape(), tensor.read(&self.context)?);
        }
        self.config.describe(&mut file);
        for (name, value) in &self.metadata {
            file.set(*name, value);
        }
        Ok(file)
    }
}

impl Pass {
    /// What goes into the network.
    fn input(&self) -> &Tensor {
        self.hybrid.as_ref().map_or(&self.encoded, |buffers| &buffers.hidden)
    }
}
