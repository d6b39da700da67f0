//! Neural signed distance fields: the distance to a surface as a function of position.

use std::ops::ControlFlow;
use std::path::Path;

use super::fit::{FitConfig, Progress};
use super::grid_network::{GridNetwork, GridNetworkConfig};
use super::mesh::{Cube, Mesh};
#[cfg(feature = "blocking")]
use super::mesh::{MeshSearch, SearchOutputs, TILE};
use crate::dense::{Add, AddArgs, AddConfig, Loss, RandomState};
use crate::dispatch::{Context, Kernel, Result, check_config};
use crate::radial::{GridEncodingConfig, MeshSign};
use crate::train::{Checkpoint, Tensor};

/// What a field is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistanceFieldConfig {
    /// The grid; `dims` must be 3, `points` is not looked at.
    pub grid: GridEncodingConfig,
    /// Neurons of a hidden layer: 16, 32, 64 or 128.
    pub width: u32,
    /// Hidden layers, 1 to 8.
    pub layers: u32,
}

impl Default for DistanceFieldConfig {
    /// 16 levels of one feature from 16 to 2,048 cells, tables of `2^15` entries, two hidden layers of 64: the
    /// grid of the published hybrid field.
    fn default() -> Self {
        let grid = GridEncodingConfig { dims: 3, features: 1, ..GridEncodingConfig::default() };
        Self { grid, width: 64, layers: 2 }.with_finest(2048)
    }
}

impl DistanceFieldConfig {
    /// With another finest resolution. Long fits use fine cells; a short one cannot fill them, and
    /// leaves noise there.
    #[must_use]
    pub fn with_finest(mut self, finest: u32) -> Self {
        let ratio = f64::from(finest) / f64::from(self.grid.base_resolution.max(1));
        self.grid.growth = ratio.max(1.0).powf(1.0 / f64::from(self.grid.levels.max(2) - 1));
        self
    }

    fn check(&self) -> Result<()> {
        check_config(self.grid.dims == 3, "dims", "3 for a distance field", self.grid.dims)
    }

    fn parts(&self) -> GridNetworkConfig {
        GridNetworkConfig { grid: self.grid, width: self.width, layers: self.layers, outputs: 1 }
    }
}

/// Points on the surface, near it and anywhere, in the published ratio of 4 : 3 : 1. The first are a
/// multiple of 64, so that the others begin where a buffer can be bound.
fn counts(batch: u32) -> [u32; 3] {
    let surface = batch / 128 * 64;
    let near = (batch - surface).div_ceil(4) * 3;
    let near = near.min(batch - surface);
    [surface, near, batch - surface - near]
}

/// Their distance from the surface, where half an edge of the cube is 1.
const SIGMA: f32 = 0.01;
/// Keeps the relative loss finite; same unit.
const EPSILON: f32 = 0.01;

/// What the network computes is this times the distance, where an edge of the cube is 1: numbers around 1 near the
/// surface, so that a step of the optimiser, which has the size of the learning rate, is small beside them.
const SCALE: f32 = 16.0;

/// The distance to a surface as a function of position: negative inside.
///
/// Fitted as published for NeuRBF (Chen et al. 2023): relative error `|d - t| / (|t| + 0.01)`, points on the
/// surface, near it and anywhere in the ratio 4 : 3 : 1.
#[derive(Debug, Clone)]
pub struct DistanceField {
    config: DistanceFieldConfig,
    cube: Cube,
    /// Its positions lie in `[0, 1]^3`, and so do its distances: half of those in `[-1, 1]^3`.
    network: GridNetwork,
}

fn metadata(cube: &Cube) -> Vec<(&'static str, String)> {
    let [x, y, z] = cube.centre;
    let values = [("centre_x", x), ("centre_y", y), ("centre_z", z), ("half", cube.half)];
    let mut all = vec![("model", "DistanceField".to_string())];
    all.extend(values.map(|(name, value)| (name, value.to_string())));
    all
}

impl DistanceField {
    /// For surfaces in `cube`, with initial values from a seed.
    pub fn new(context: &Context, config: DistanceFieldConfig, cube: Cube, seed: u64) -> Result<Self> {
        config.check()?;
        let fits = cube.centre.iter().all(|x| x.is_finite()) && cube.half.is_finite() && cube.half > 0.0;
        check_config(fits, "cube", "finite and not empty", cube)?;
        let network = GridNetwork::new(context, config.parts(), seed, metadata(&cube))?;
        Ok(Self { config, cube, network })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &DistanceFieldConfig {
        &self.config
    }

    /// Where the field is defined.
    #[must_use]
    pub fn cube(&self) -> Cube {
        self.cube
    }

    /// Trainable numbers: table entries, weights and biases, without padding of the weights.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        self.network.parameter_count()
    }

    /// Fits the field to the signed distances of a mesh, which are computed at new random points in each step,
    /// on the device. The same field, mesh and configuration give the same bits on the same
    /// adapter, whether or not the run is stopped and resumed in between.
    ///
    /// An open mesh has an inside by its winding number. `report`, cancelling and losses that are not finite: as
    /// [`RadialField::fit`](super::RadialField::fit).
    #[cfg(feature = "blocking")]
    pub fn fit(
        &mut self,
        mesh: &Mesh,
        fit: &FitConfig,
        report: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        fit.check()?;
        crate::dispatch::count("batch", &[fit.batch, 3])?;
        let context = self.network.context.clone();
        let search = MeshSearch::new(&context, &mesh.in_unit(&self.cube))?;
        let positions = Tensor::new(&context, "positions", &[fit.batch, 3])?;
        // On the surface the distance is 0.
        let target = Tensor::from_slice(&context, "target", &[fit.batch], &vec![0.0; fit.batch as usize])?;
        let counts = counts(fit.batch);
        let rest = SearchOutputs::new(&context, fit.batch - counts[0])?;
        let state = context.create_storage("state", RandomState::WORDS * 4)?;
        let mut before = search.sample(&state, &positions, counts, 0.5 * SIGMA)?;
        let sign = MeshSign::Approximate { beta: 2.0 };
        before.append(search.search(counts[0], &positions, &target, &rest, sign)?);
        let scaled = Tensor::new(&context, "scaled target", &[fit.batch])?;
        let scale = AddConfig { count: fit.batch, a: SCALE, b: 0.0, variant: None };
        let args = AddArgs { x: target.view(), y: scaled.view() };
        before.append(Add::new(&context, scale)?.prepare(&args)?);
        let loss = Loss::Relative { epsilon: 0.5 * SCALE * EPSILON };
        let trainer = self.network.trainer(loss, before, &positions, &scaled)?;
        let mut feed = |step| {
            context.write(&state, 0, RandomState::new(fit.seed, step).bytes());
            Ok(())
        };
        self.network.fit(&trainer, fit, &mut feed, report)
    }

    /// The field's distances at points of the cube; others are clamped to it.
    #[cfg(feature = "blocking")]
    pub fn distances(&self, points: &[[f32; 3]]) -> Result<Vec<f32>> {
        let tile = points.len().clamp(1, TILE as usize);
        let context = &self.network.context;
        let tiles = self.network.evaluation(tile as u32)?;
        let mut all = Vec::with_capacity(points.len());
        for chunk in points.chunks(tile) {
            let units: Vec<[f32; 3]> = chunk.iter().map(|&p| self.cube.unit(p)).collect();
            context.write(tiles.positions.buffer(), 0, bytemuck::cast_slice(&units));
            context.run_blocking(&tiles.recording)?;
            let values = tiles.output.read(context)?;
            all.extend(values[..chunk.len()].iter().map(|d| 2.0 * self.cube.half / SCALE * d));
        }
        Ok(all)
    }

    /// Writes configuration and parameters as safetensors, whole or not at all.
    #[cfg(feature = "blocking")]
    pub fn save(&self, path: &Path) -> Result<()> {
        self.network.contents()?.save(path)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(context: &Context, path: &Path) -> Result<Self> {
        let file = Checkpoint::load(path)?;
        let GridNetworkConfig { grid, width, layers, .. } = GridNetworkConfig::of_file(&file, path, 3, 1)?;
        let config = DistanceFieldConfig { grid, width, layers };
        let number = |name| file.get::<f32>(path, name);
        let centre = [number("centre_x")?, number("centre_y")?, number("centre_z")?];
        let cube = Cube { centre, half: number("half")? };
        let network = GridNetwork::of_file(context, config.parts(), &file, path, metadata(&cube))?;
        Ok(Self { config, cube, network })
    }
}
