//! Neural fields of a surface: the signed distance to it, or whether a place is inside, as a function of position.

use std::ops::ControlFlow;
use std::path::Path;

use super::field_network::{FieldNetwork, FieldNetworkConfig, Pass, name_of, named, with_finest};
use super::fit::{FitConfig, Progress, fingerprint};
use super::hybrid::{Hybrid, RadialBasesConfig};
use super::mesh::{Cube, Mesh};
#[cfg(feature = "blocking")]
use super::mesh::{MeshSearch, SearchOutputs, TILE};
#[cfg(feature = "blocking")]
use super::mesh_batches::MeshBatches;
use crate::dense::{Loss, RandomState};
use crate::dispatch::{BufferView, Context, Kernel, Planned, Result, check_config};
use crate::radial::{
    CentreInitialisation, CentreInitialisationArgs, CentreInitialisationConfig, CentreReport, CentreSeeds,
    FieldPoints, GridEncodingConfig, Importance, MeshSign, RadialFunction, RadialShape,
};
use crate::train::{Checkpoint, Tensor};

/// What a field of a surface is fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SurfaceTarget {
    /// The signed distance, by its relative error, as published for NeuRBF (Chen et al. 2023), and by the error of
    /// its slope.
    #[default]
    Distance,
    /// Whether a place is inside, by cross-entropy (Mescheder et al. 2019).
    Occupancy,
}

impl SurfaceTarget {
    const NAMES: [(Self, &str); 2] = [(Self::Distance, "distance"), (Self::Occupancy, "occupancy")];

    fn name(self) -> &'static str {
        name_of(self, &Self::NAMES)
    }

    /// Files that do not say what they hold have distances.
    fn of_file(file: &Checkpoint, path: &Path) -> Result<Self> {
        named(file, path, "target", &Self::NAMES)
    }
}

/// Its name in a file.
const SLOPES: &str = "slope_weight";

/// What a field is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceFieldConfig {
    /// What the field is fitted to.
    pub target: SurfaceTarget,
    /// The grid; `dims` must be 3, `points` is not looked at.
    pub grid: GridEncodingConfig,
    /// Neurons of a hidden layer: 16, 32, 64 or 128.
    pub width: u32,
    /// Hidden layers, 1 to 8.
    pub layers: u32,
    /// Weight of the error of the slope of a distance beside the relative error of the distance: points come in pairs,
    /// a thousandth of the cube's edge apart, and what their distances differ by is held against what it should be. Normals
    /// gain by it. Above 0, batches are multiples of 4. 0: as published. Not looked at for an occupancy.
    pub slope_weight: f32,
    /// Radial bases beside the grid; then the first hidden layer has a sinusoid. `None`: the grid
    /// alone.
    pub radial: Option<RadialBasesConfig>,
}

impl Default for SurfaceFieldConfig {
    /// 16 levels of one feature from 16 to 2,048 cells, tables of `2^15` entries, two hidden layers of 64: the
    /// grid of the published hybrid field.
    fn default() -> Self {
        let grid = GridEncodingConfig { dims: 3, features: 1, ..GridEncodingConfig::default() };
        Self {
            target: SurfaceTarget::Distance,
            grid,
            width: 64,
            layers: 2,
            slope_weight: SLOPE_WEIGHT,
            radial: None,
        }
        .with_finest(2048)
    }
}

impl SurfaceFieldConfig {
    /// The published hybrid: 8 neighbours, 16 features of hat functions, and as many centres as make it as large
    /// as a grid of 16 levels and 2 features with tables of `2^log2_table_size` entries, shapes counted with the
    /// centres.
    pub fn hybrid(log2_table_size: u32) -> Result<Self> {
        let mut hybrid = Self::default();
        hybrid.grid.log2_table_size = log2_table_size;
        let mut reference = hybrid.parts();
        reference.grid.features = 2;
        let radial = RadialBasesConfig {
            centres: 0,
            neighbours: 8,
            features: 16,
            function: RadialFunction::Hat,
            shape: RadialShape::Scalar,
            extent: [1.0; 2],
            frequencies: Some([1.0, 8.0]),
            hidden_frequencies: Some([30.0, 300.0]),
        };
        hybrid.radial = Some(radial);
        let centres = hybrid.parts().centres_for(&reference, 2048)?;
        Ok(Self { radial: Some(RadialBasesConfig { centres, ..radial }), ..hybrid })
    }

    /// With another finest resolution. Long fits use fine cells; a short one cannot fill them, and
    /// leaves noise there.
    #[must_use]
    pub fn with_finest(self, finest: u32) -> Self {
        Self { grid: with_finest(self.grid, finest), ..self }
    }

    /// Trained numbers: table entries, weights and biases, without padding of the weights, and the features of
    /// the centres.
    pub fn parameter_count(&self) -> Result<u64> {
        self.parts().parameter_count()
    }

    fn check(&self, cube: &Cube) -> Result<()> {
        self.parts().check(3)?;
        let slopes = self.slope_weight;
        check_config(slopes.is_finite() && slopes >= 0.0, SLOPES, "finite and at least 0", slopes)?;
        let fits = cube.centre.iter().all(|x| x.is_finite()) && cube.half.is_finite() && cube.half > 0.0;
        check_config(fits, "cube", "finite and not empty", cube)
    }

    fn parts(&self) -> FieldNetworkConfig {
        let Self { grid, width, layers, radial, .. } = *self;
        FieldNetworkConfig { grid, width, layers, outputs: 1, radial }
    }
}

/// Points on the surface, near it and anywhere, in the published ratio of 4 : 3 : 1. The first are a
/// multiple of 64, so that the others begin where a buffer can be bound; of an even batch all are even.
fn counts(batch: u32) -> [u32; 3] {
    let surface = batch / 128 * 64;
    let rest = batch - surface;
    let anywhere = rest / 8 * 2;
    [surface, rest - anywhere, anywhere]
}

/// See [`SurfaceFieldConfig::slope_weight`].
const SLOPE_WEIGHT: f32 = 0.25;

/// The standard deviation between the two points of a pair along each axis, where half an edge of the cube is 1. Normals
/// are those of the cells in which the surface is looked for later, of 256 to 1,024 an edge. Farther apart the points
/// would not see creases, nearer together only rounding.
const PAIR_SIGMA: f32 = 0.002;

/// Their standard deviation from the surface, where half an edge of the cube is 1.
const SIGMA: f32 = 0.01;

/// Of the points on the surface. Published: 0. But the median of a place that a network cannot tell from the surface is 0
/// if half of the points lie there: the field became flat within 3e-4 of the surface, its sign there a matter of
/// luck, and its slope noise.
const SURFACE_SIGMA: f32 = 0.001;

/// At first a field is 0 everywhere, nearly. That is the median of what it should be where half of the points have the
/// distance 0, so that a relative error can keep it there for hundreds of steps. Hence the first steps, at most
/// a fifth of all, look from farther away and at no point on the surface: there the sign alone tells much.
const WARM_UP: u64 = 256;
const FIRST_SIGMA: f32 = 0.1;

fn first_counts(batch: u32) -> [u32; 3] {
    let anywhere = batch / 16 * 2;
    [0, batch - anywhere, anywhere]
}

/// Keeps the relative loss finite; same unit.
const EPSILON: f32 = 0.01;

/// What the network computes is this times the distance, where an edge of the cube is 1: numbers around 1 near the
/// surface, so that a step of the optimiser, which has the size of the learning rate, is small beside them.
const SCALE: f32 = 16.0;

/// The network of an occupancy computes the logit of being outside. What it should be is the sigmoid of this times the
/// distance, where an edge of the cube is 1: 0 or 1, but where the distance is so small that it is rounding.
const SHARPNESS: f32 = 1_048_576.0;

/// A surface as a function of position: the signed distance to it, negative inside, or whether a place is inside.
///
/// Distances are fitted as published for NeuRBF (Chen et al. 2023): relative error `|d - t| / (|t| + 0.01)`, points on
/// the surface, near it and anywhere in the ratio 4 : 3 : 1; and slopes beside them, see
/// [`slope_weight`](SurfaceFieldConfig::slope_weight). Occupancies by the cross-entropy (Mescheder et al.
/// 2019, equation 3), half of the points 0.01 of half an edge of the cube from the surface on average, three eighths
/// 0.1 and the rest anywhere.
#[derive(Debug, Clone)]
pub struct SurfaceField {
    config: SurfaceFieldConfig,
    cube: Cube,
    /// Its positions lie in `[0, 1]^3`, and so do its distances: half of those in `[-1, 1]^3`.
    network: FieldNetwork,
}

fn metadata(config: &SurfaceFieldConfig, cube: &Cube) -> Vec<(&'static str, String)> {
    let SurfaceFieldConfig { target, slope_weight, .. } = config;
    let [x, y, z] = cube.centre;
    let values =
        [("centre_x", x), ("centre_y", y), ("centre_z", z), ("half", cube.half), (SLOPES, *slope_weight)];
    let mut all = vec![("model", "SurfaceField".to_string()), ("target", target.name().to_string())];
    all.extend(values.map(|(name, value)| (name, value.to_string())));
    all
}

impl SurfaceField {
    /// For surfaces in `cube`, with initial values from a seed.
    pub fn new(context: &Context, config: SurfaceFieldConfig, cube: Cube, seed: u64) -> Result<Self> {
        config.check(&cube)?;
        let network = FieldNetwork::new(context, config.parts(), seed, metadata(&config, &cube))?;
        Ok(Self { config, cube, network })
    }

    /// As [`new`](Self::new) for a mesh's cube, with the centres of a hybrid placed by the mesh: weighted k-means
    /// of points as a fit has them, each with the weight `1 / |distance|`.
    #[cfg(feature = "blocking")]
    pub fn for_mesh(context: &Context, config: SurfaceFieldConfig, mesh: &Mesh, seed: u64) -> Result<Self> {
        let field = Self::new(context, config, mesh.cube(), seed)?;
        if let Some(hybrid) = &field.network.hybrid {
            place_centres(context, hybrid, &MeshSearch::new(context, &mesh.in_unit(&field.cube))?, seed)?;
        }
        Ok(field)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &SurfaceFieldConfig {
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

    /// Fits the field to the signed distances of a mesh, or to their signs, which are computed on the device at random
    /// points, new ones in each step; on a CPU, if a batch has up to 131,072 points, in each fourth on average. The
    /// first steps to distances, 256 or a fifth of all, look at points farther from the surface. The same
    /// field, mesh and configuration give the same bits on the same adapter, whether or not the run is stopped and resumed
    /// in between.
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
        let target = self.config.target;
        let context = self.network.context.clone();
        let search = MeshSearch::new(&context, &mesh.in_unit(&self.cube))?;
        let mut step = self.network.step(fit.batch)?;
        let (scale, loss) = match target {
            SurfaceTarget::Distance => (SCALE, Loss::Relative { epsilon: 0.5 * SCALE * EPSILON }),
            SurfaceTarget::Occupancy => (SHARPNESS, Loss::BinaryCrossEntropy),
        };
        let slopes = match target {
            SurfaceTarget::Distance => self.config.slope_weight,
            SurfaceTarget::Occupancy => 0.0,
        };
        let whole = slopes == 0.0 || fit.batch.is_multiple_of(4);
        check_config(whole, "batch", "a multiple of 4 where `slope_weight` is above 0", fit.batch)?;
        let pair_sigma = if slopes > 0.0 { PAIR_SIGMA } else { 0.0 };
        // Of a pair the network's numbers differ by this times the slope, about.
        let pairs = slopes / (0.5 * SCALE * PAIR_SIGMA);
        // Each until its step.
        let stages = match target {
            SurfaceTarget::Distance => vec![
                (WARM_UP.min(fit.steps / 5), first_counts(fit.batch), [0.0, FIRST_SIGMA, pair_sigma]),
                (u64::MAX, counts(fit.batch), [SURFACE_SIGMA, SIGMA, pair_sigma]),
            ],
            SurfaceTarget::Occupancy => vec![(u64::MAX, counts(fit.batch), [SIGMA, FIRST_SIGMA, 0.0])],
        };
        let tensors = [&step.pass.positions, &step.target];
        let squash = target == SurfaceTarget::Occupancy;
        let mut batches = stages
            .into_iter()
            .map(|(end, counts, sigmas)| {
                let sigmas = sigmas.map(|sigma| 0.5 * sigma);
                let batches = MeshBatches::new(&search, counts, sigmas, (scale, squash), fit.seed, tensors)?;
                Ok((end, batches))
            })
            .collect::<Result<Vec<_>>>()?;
        let location = self.network.locate(&mut step)?;
        let mut trainer = self.network.trainer(&mut step, (loss, pairs), location.find, 1.0)?;
        trainer.unread = match target {
            SurfaceTarget::Distance => &["extent.0", "extent.1"],
            SurfaceTarget::Occupancy => &["extent.0", "extent.1", SLOPES],
        };
        let vertices = mesh.vertices.iter().flatten().map(|x| x.to_bits());
        let words = vertices.chain(mesh.triangles.iter().flatten().copied());
        trainer.data = fit.checkpoint.is_some().then(|| fingerprint(words));
        context.run_blocking(&location.build)?;
        let mut feed = |step| {
            let stage = batches.iter_mut().find(|(end, _)| step < *end);
            stage.map_or(Ok(()), |(_, batches)| batches.write(step))
        };
        self.network.fit(&trainer, fit, &mut feed, report)
    }

    /// What a unit of the network's output is.
    fn unit(&self) -> f32 {
        match self.config.target {
            SurfaceTarget::Distance => 2.0 * self.cube.half / SCALE,
            SurfaceTarget::Occupancy => 1.0,
        }
    }

    /// In the unit cube, clamped to it.
    fn units(&self, points: &[[f32; 3]]) -> Vec<[f32; 3]> {
        points.iter().map(|&p| self.cube.unit(p).map(|x| x.clamp(0.0, 1.0))).collect()
    }

    /// What the field was fitted to, at points of the cube (others are clamped to it): the distance, negative inside;
    /// or the occupancy, from 0 outside to 1 inside.
    #[cfg(feature = "blocking")]
    pub fn eval(&self, points: &[[f32; 3]]) -> Result<Vec<f32>> {
        let mut all = self.implicit(points)?;
        if self.config.target == SurfaceTarget::Occupancy {
            all.iter_mut().for_each(|logit| *logit = 1.0 / (1.0 + logit.exp()));
        }
        Ok(all)
    }

    /// A function that is negative inside and 0 on the surface, for [`marching_cubes`](super::marching_cubes()) and
    /// [`overlap`](super::overlap): the distance; or minus the logit of the occupancy, which is 0 where that is
    /// 1/2. Of a logit blocks can not be skipped: [`MarchingCubesConfig::slack`](super::MarchingCubesConfig::slack)
    /// is infinity then.
    #[cfg(feature = "blocking")]
    pub fn implicit(&self, points: &[[f32; 3]]) -> Result<Vec<f32>> {
        let tile = points.len().clamp(1, TILE as usize);
        let context = &self.network.context;
        let tiles = self.network.evaluation(tile as u32, false)?;
        let mut all = Vec::with_capacity(points.len());
        for chunk in points.chunks(tile) {
            let units = self.units(chunk);
            context.write(tiles.pass.positions.buffer(), 0, bytemuck::cast_slice(&units))?;
            context.run_blocking(&tiles.recording)?;
            let values = tiles.pass.output.read(context)?;
            all.extend(values[..chunk.len()].iter().map(|y| self.unit() * y));
        }
        Ok(all)
    }

    /// The slopes of the [`implicit`](Self::implicit) function at points of the cube. They point outside; of a distance
    /// they are unit vectors near the surface, nearly.
    ///
    /// Where the set of a point's neighbours changes, and on the borders of the grid's cells, a field has no slope:
    /// it is that on one side.
    #[cfg(feature = "blocking")]
    pub fn gradient(&self, points: &[[f32; 3]]) -> Result<Vec<[f32; 3]>> {
        let mut all = Vec::with_capacity(points.len());
        for chunk in points.chunks(self.network.gradient_tile(TILE) as usize) {
            let units = self.units(chunk);
            let write = |pass: &Pass| pass.positions.write(&self.network.context, units.as_flattened());
            let (of_grid, of_bases) = self.network.position_gradients(chunk.len() as u32, &write)?;
            // The network's positions are in units of the cube's edge.
            let scale = self.unit() / (2.0 * self.cube.half);
            let at = |i: usize| (of_grid[i] + of_bases.get(i).unwrap_or(&0.0)) * scale;
            all.extend((0..chunk.len()).map(|i| [at(3 * i), at(3 * i + 1), at(3 * i + 2)]));
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
        let parts = FieldNetworkConfig::of_file(&file, path, 3, 1)?;
        let FieldNetworkConfig { grid, width, layers, radial, .. } = parts;
        let target = SurfaceTarget::of_file(&file, path)?;
        let config = SurfaceFieldConfig {
            target,
            grid,
            width,
            layers,
            // Files that do not say it are of fields without.
            slope_weight: file.get_or(path, SLOPES, 0.0)?,
            radial,
        };
        let number = |name| file.get::<f32>(path, name);
        let centre = [number("centre_x")?, number("centre_y")?, number("centre_z")?];
        let cube = Cube { centre, half: number("half")? };
        config.check(&cube)?;
        let network = FieldNetwork::of_file(context, parts, &file, path, metadata(&config, &cube))?;
        Ok(Self { config, cube, network })
    }
}

/// Points that choose and move the centres, for each of them.
const POINTS_OF_A_CENTRE: u32 = 16;

/// Centres and shapes of a mesh in the unit cube.
#[cfg(feature = "blocking")]
fn place_centres(context: &Context, hybrid: &Hybrid, search: &MeshSearch, seed: u64) -> Result<()> {
    let centres = hybrid.config.centres;
    let points = centres.saturating_mul(POINTS_OF_A_CENTRE).clamp(1 << 12, 1 << 22);
    let positions = Tensor::new(context, "positions", &[points, 3])?;
    let distances = Tensor::new(context, "distances", &[points])?;
    let state = context.create_storage_with("state", RandomState::new(seed, 0).bytes())?;
    let mut recording = search.sample(&state, &positions, counts(points), [0.0, 0.5 * SIGMA, 0.0], true)?;
    let rest = SearchOutputs::new(context, points)?;
    recording.append(search.search(0, &positions, &distances, &rest, MeshSign::None)?);
    let config = CentreInitialisationConfig {
        importance: Importance::InverseDistance { points },
        points: FieldPoints::Positions { dims: 3, points, extent: [1.0; 3], resolution: [2048; 3] },
        centres,
        seeds: CentreSeeds::Drawn,
        iterations: 10,
        alpha: 0.5,
        // Of hat functions, as published.
        scale: 4.0,
        stream: 1,
    };
    let initialisation = CentreInitialisation::new(context, config)?;
    let matrices = Tensor::new(context, "matrices", &[centres, 6])?;
    let report = context.create_storage("report", CentreReport::WORDS * 4)?;
    let scratch = initialisation.create_scratch()?;
    recording.append(initialisation.prepare(&CentreInitialisationArgs {
        values: distances.view(),
        positions: Some(positions.view()),
        state: BufferView::new(&state),
        centres: hybrid.centres.view(),
        shapes: matrices.view(),
        report: BufferView::new(&report),
        scratch: &scratch,
    })?);
    context.run_blocking(&recording)?;
    let scalars: Vec<f32> = matrices.read(context)?.chunks(6).map(scalar_shape).collect();
    hybrid.shapes.write(context, &scalars)
}

/// One over the width of a covariance along a mean axis, from the upper triangle of its inverse.
fn scalar_shape(inverse: &[f32]) -> f32 {
    let [xx, xy, xz, yy, yz, zz] = std::array::from_fn(|i| f64::from(inverse[i]));
    // The trace of the covariance, by cofactors.
    let minors = [yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy];
    let determinant = xx * minors[0] - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz);
    let trace: f64 = minors.iter().sum::<f64>() / determinant;
    (3.0 / trace).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chen et al. 2023: parameters of the models for signed distances.
    #[test]
    fn parameter_counts_are_the_published_ones() {
        let count = |log2| {
            let config = SurfaceFieldConfig::hybrid(log2).unwrap();
            (config.radial.unwrap().centres, config.parameter_count().unwrap())
        };
        assert_eq!(count(15), (23_600, 856_009));
        assert_eq!(count(14), (12_280, 448_489));
        assert_eq!(count(13), (6_347, 234_897));
        assert_eq!(count(12), (3_275, 124_305));
    }

    #[test]
    fn a_scalar_shape_has_the_mean_variance() {
        // Variances 4, 1 and 1/4: their mean is 1.75.
        let shape = scalar_shape(&[0.25, 0.0, 0.0, 1.0, 0.0, 4.0]);
        assert!((shape - 1.75f32.sqrt().recip()).abs() < 1e-6, "{shape}");
    }
}
