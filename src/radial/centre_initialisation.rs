//! Centres and shapes of a radial field from what it is to represent: importance, weighted seeds,
//! weighted k-means and covariances (Chen et al. 2023, section 3.2), all on the device.
//!
//! Memory is proportional to points plus centres; nothing of their product is stored. A picture that is
//! too large for one buffer is weighed band by band ([`SobelBand`](super::SobelBand)), and enters as
//! [`Importance::Given`].

use super::cluster::{
    ClusterConfig, ClusterMeans, ClusterMeansArgs, ClusterShapes, ClusterShapesArgs, ClusterShapesConfig,
};
use super::importance::{
    Importance, ImportanceArgs, ImportanceWeights, PixelGrid, PixelPositions, PixelPositionsArgs,
};
use super::nearest_neighbours::{NearestArgs, NearestConfig, NearestNeighbours};
use super::weighted_sample::{WeightedSample, WeightedSampleArgs, WeightedSampleConfig};
use crate::dispatch::{
    BufferView, Capabilities, Kernel, Plan, Planned, Recording, Result, Scratch, check_config, check_shape,
    count, kernel,
};

/// Where the weighted points lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldPoints {
    /// The pixels of a picture, at the places of [`PixelPositions`].
    Pixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Anywhere, in 1-D to 3-D.
    Positions {
        /// Coordinates of a point, 1 to 3.
        dims: u32,
        /// Points.
        points: u32,
        /// How far the field reaches along each axis, for the clips of the shapes.
        extent: [f32; 3],
        /// How many samples it has along each axis, for the clips of the shapes.
        resolution: [u32; 3],
    },
}

/// Where the centres are before k-means moves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CentreSeeds {
    /// Points drawn by weight, with replacement, as published.
    #[default]
    Drawn,
    /// Where the caller has put them.
    Given,
}

/// Centres and shapes for a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CentreInitialisationConfig {
    /// What weighs the points.
    pub importance: Importance,
    /// The points, as many as are weighed.
    pub points: FieldPoints,
    /// Centres, at least 1; may be more than points.
    pub centres: u32,
    /// Where they are at first.
    pub seeds: CentreSeeds,
    /// Steps of k-means. Published: 10.
    pub iterations: u32,
    /// What covariances are divided by; see [`ClusterShapesConfig::alpha`].
    pub alpha: f32,
    /// Factor of the covariances; see [`ClusterShapesConfig::scale`].
    pub scale: f32,
    /// Distinguishes uses of one random state.
    pub stream: u32,
}

impl CentreInitialisationConfig {
    /// The published settings for a picture of f32 `[height, width, channels]`.
    #[must_use]
    pub fn for_picture(width: u32, height: u32, channels: u32, centres: u32) -> Self {
        Self {
            importance: Importance::Sobel { width, height, channels },
            points: FieldPoints::Pixels { width, height },
            centres,
            seeds: CentreSeeds::Drawn,
            iterations: 10,
            alpha: 0.5,
            scale: 1.0,
            stream: 0,
        }
    }

    /// Coordinates of a centre.
    #[must_use]
    pub fn dims(&self) -> u32 {
        match self.points {
            FieldPoints::Pixels { .. } => 2,
            FieldPoints::Positions { dims, .. } => dims,
        }
    }

    fn parts(&self) -> Result<Parts> {
        let points = self.importance.points()?;
        let dims = self.dims();
        let (own, extent, resolution, pixels) = match self.points {
            FieldPoints::Pixels { width, height } => (
                count("pixels", &[width, height])?,
                [width as f32 / 64.0, height as f32 / 64.0, 1.0],
                [width, height, 1],
                Some(PixelGrid { width, height }),
            ),
            FieldPoints::Positions { points, extent, resolution, .. } => (points, extent, resolution, None),
        };
        check_config(own == points, "points", &format!("the {points} that are weighed"), own)?;
        check_config((1..=3).contains(&dims), "dims", "1 to 3", dims)?;
        let clusters = ClusterConfig { dims, points, clusters: self.centres };
        let shapes = ClusterShapesConfig {
            alpha: self.alpha,
            scale: self.scale,
            ..ClusterShapesConfig::with_clips(clusters, extent, resolution)
        };
        let (centres, k) = (self.centres, 1);
        Ok(Parts {
            pixels,
            importance: self.importance,
            sample: (self.seeds == CentreSeeds::Drawn).then_some(WeightedSampleConfig {
                dims,
                points,
                draws: centres,
                stream: self.stream,
            }),
            nearest: NearestConfig { dims, points, centres, k, distances: false, variant: None },
            means: clusters,
            shapes,
        })
    }
}

/// The configurations of the kernels that do the work.
struct Parts {
    pixels: Option<PixelGrid>,
    importance: Importance,
    sample: Option<WeightedSampleConfig>,
    nearest: NearestConfig,
    means: ClusterConfig,
    shapes: ClusterShapesConfig,
}

/// Scratch buffers of its own: positions (of pixels), weights, labels. Then those of the kernels.
const OWN_SCRATCH: usize = 3;

kernel! {
    /// Weighs the points, draws seeds by weight where none are given, moves them by weighted k-means, and shapes a basis
    /// around each centre. The same bits in every run on one adapter.
    CentreInitialisation, CentreInitialisationConfig
}

/// Buffers of [`CentreInitialisation`].
#[derive(Debug, Clone, Copy)]
pub struct CentreInitialisationArgs<'a> {
    /// What [`Importance`] weighs: the picture `[height, width, channels]`, distances or weights `[points]`.
    pub values: BufferView<'a>,
    /// The points, `[points, dims]`; none for pixels.
    pub positions: Option<BufferView<'a>>,
    /// [`RandomState`](crate::dense::RandomState), u32 `[4]`.
    pub state: BufferView<'a>,
    /// The centres, `[centres, dims]`; overwritten, after their seeds are read if those are given.
    pub centres: BufferView<'a>,
    /// The shapes, `[centres, dims (dims + 1) / 2]`, as in [`ClusterShapesArgs`]; overwritten.
    pub shapes: BufferView<'a>,
    /// [`CentreReport`](super::CentreReport), u32 `[8]`; overwritten.
    pub report: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl CentreInitialisation {
    /// The launches of all kernels in order, the repeated ones once for each iteration.
    pub fn plan(config: &CentreInitialisationConfig, caps: &Capabilities) -> Result<Plan> {
        let parts = config.parts()?;
        let points = u64::from(parts.means.points);
        let most = 10_000;
        check_config(config.iterations <= most, "iterations", "at most 10,000", config.iterations)?;
        let positions = if parts.pixels.is_some() { points * 8 } else { 4 };
        let mut plan = Plan {
            variant: "k-means",
            launches: Vec::new(),
            scratch: vec![positions, points * 4, points * 4],
        };
        if let Some(pixels) = &parts.pixels {
            plan.launches.extend(PixelPositions::plan(pixels, caps)?.launches);
        }
        let nearest = NearestNeighbours::plan(&parts.nearest, caps)?;
        let means = ClusterMeans::plan(&parts.means, caps)?;
        let shapes = ClusterShapes::plan(&parts.shapes, caps)?;
        let sample = parts.sample.map(|config| WeightedSample::plan(&config, caps)).transpose()?;
        for part in [Some(ImportanceWeights::plan(&parts.importance, caps)?), sample].into_iter().flatten() {
            plan.launches.extend(part.launches);
            plan.scratch.extend(part.scratch);
        }
        for part in [&nearest, &means, &shapes] {
            plan.scratch.extend(&part.scratch);
        }
        for _ in 0..config.iterations {
            plan.launches.extend(nearest.launches.iter().chain(&means.launches).cloned());
        }
        plan.launches.extend(nearest.launches.into_iter().chain(shapes.launches));
        Ok(plan)
    }
}

impl Kernel for CentreInitialisation {
    type Args<'a> = CentreInitialisationArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let &CentreInitialisationArgs { values, positions, state, centres, shapes, report, scratch } = args;
        let parts = self.config.parts()?;
        let context = &self.context;
        let need = if parts.pixels.is_some() { "none for pixels" } else { "a buffer" };
        let given = positions.map(|view| view.size);
        check_shape(parts.pixels.is_some() == given.is_none(), "positions", need, given)?;
        let (weights, labels) = (scratch.view(1)?, scratch.view(2)?);
        let mut recording = Recording::new();
        let positions = match (positions, parts.pixels) {
            (Some(view), _) => view,
            (None, Some(pixels)) => {
                let positions = scratch.view(0)?;
                let kernel = PixelPositions::new(context, pixels)?;
                recording.append(kernel.prepare(&PixelPositionsArgs { positions })?);
                positions
            }
            (None, None) => scratch.view(0)?,
        };
        let mut left = scratch.0.get(OWN_SCRATCH..).unwrap_or_default();
        let mut take = |plan: &Plan| {
            let (own, rest) = left.split_at(plan.scratch.len().min(left.len()));
            left = rest;
            Scratch(own.to_vec())
        };
        let kernel = ImportanceWeights::new(context, parts.importance)?;
        let scratch = &take(kernel.planned());
        recording.append(kernel.prepare(&ImportanceArgs { values, weights, report, scratch })?);

        if let Some(config) = parts.sample {
            let kernel = WeightedSample::new(context, config)?;
            let scratch = &take(kernel.planned());
            let args = WeightedSampleArgs { weights, positions, state, samples: centres, scratch };
            recording.append(kernel.prepare(&args)?);
        }

        let kernel = NearestNeighbours::new(context, parts.nearest)?;
        let scratch = &take(kernel.planned());
        let (points, indices, distances) = (positions, labels, None);
        let nearest = kernel.prepare(&NearestArgs { points, centres, indices, distances, scratch })?;

        let kernel = ClusterMeans::new(context, parts.means)?;
        let scratch = &take(kernel.planned());
        let means = kernel.prepare(&ClusterMeansArgs { positions, weights, labels, centres, scratch })?;
        for _ in 0..self.config.iterations {
            recording.append(nearest.clone());
            recording.append(means.clone());
        }
        recording.append(nearest);

        let kernel = ClusterShapes::new(context, parts.shapes)?;
        let scratch = &take(kernel.planned());
        let args = ClusterShapesArgs { positions, weights, labels, centres, shapes, report, scratch };
        recording.append(kernel.prepare(&args)?);
        Ok(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_megapixels_fit_into_bindings_of_128_mib() {
        let config = CentreInitialisationConfig {
            importance: Importance::Given { points: 4096 * 4096 },
            ..CentreInitialisationConfig::for_picture(4096, 4096, 3, 400_000)
        };
        let plan = CentreInitialisation::plan(&config, &Capabilities::baseline()).unwrap();
        assert!(plan.scratch.iter().all(|&bytes| bytes <= 128 << 20), "{:?}", plan.scratch);
        // Points of 16 bytes, centres of a few hundred at the most.
        assert!(plan.scratch_bytes() < 4096 * 4096 * 17 + 400_000 * 300, "{}", plan.scratch_bytes());
    }
}
