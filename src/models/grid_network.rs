//! A multiresolution grid and a small network on top, and how they are trained: what the fields share.

use std::ops::ControlFlow;
use std::path::Path;

use super::fit::{FitConfig, Progress, Trained, Trainer, initial_weights, uniform};
use crate::dense::{ElementwiseLoss, ElementwiseLossArgs, Loss, LossConfig};
use crate::dispatch::{Context, Kernel, Planned, Recording, Result};
use crate::radial::{
    FusedMlpBackward, FusedMlpBackwardArgs, FusedMlpConfig, FusedMlpForward, FusedMlpForwardArgs,
    GridEncodingBackwardTable, GridEncodingBackwardTableArgs, GridEncodingConfig, GridEncodingForward,
    GridEncodingForwardArgs,
};
use crate::train::{Checkpoint, Parameters, Tensor};

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

impl GridNetwork {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    pub fn new(
        context: &Context,
        config: GridNetworkConfig,
        seed: u64,
        metadata: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let mut uniform = uniform(seed);
        let entries = config.grid.parameter_count()?;
        let table: Vec<f32> = (0..entries).map(|_| uniform(1e-4)).collect();
        let network = config.network(1, false);
        FusedMlpForward::plan(&network, context.capabilities())?;
        let weights = initial_weights(&network, 6.0, false, &mut uniform);
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

        let trained = self.parameters()?;
        let gradients = [&d_table, &d_weights];
        let trained: Vec<_> = trained
            .iter()
            .zip(gradients)
            .map(|((name, parameter), gradient)| {
                // Entries that no point of the batch touches keep their moments.
                let skip_zero_gradient = name == "grid.table";
                Trained { name, parameter, gradient, skip_zero_gradient, rate: 1.0 }
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
        trainer.fit(&self.context, fit, &self.parameters()?, &|| self.contents(), feed, report)
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
}
