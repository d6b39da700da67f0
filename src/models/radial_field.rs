//! Neural fields over the plane: a multiresolution grid, radial bases beside it, and a small network.

use std::ops::ControlFlow;
use std::path::Path;

#[cfg(feature = "blocking")]
use super::bands::gradient_norms;
use super::bands::most_bytes;
use super::field_network::{Evaluation, FieldNetwork, FieldNetworkConfig, Pass, with_finest};
use super::fit::{FitConfig, Progress};
use super::hybrid::RadialBasesConfig;
use super::picture::Picture;
use super::sampler::Sampler;
use crate::dense::{Loss, RandomState};
use crate::dispatch::{BufferView, Context, Kernel, Planned, Recording, Result, check_config};
use crate::radial::{
    CentreInitialisation, CentreInitialisationArgs, CentreInitialisationConfig, CentreReport, CentreSeeds,
    GridEncodingConfig, Importance, RadialFunction, RadialShape,
};
use crate::train::{Checkpoint, Tensor};

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
            frequencies: Some([0.125, 4096.0]),
            hidden_frequencies: Some([1.0, 1000.0]),
        };
        let hybrid = Self { radial: Some(radial), ..reference.with_table(2, log2_table_size) };
        let centres = hybrid.parts().centres_for(&reference.parts(), width.max(height) / 2)?;
        Ok(Self { radial: Some(RadialBasesConfig { centres, ..radial }), ..hybrid })
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
        self.parts().parameter_count()
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

    fn with_finest(self, finest: u32) -> Self {
        Self { grid: with_finest(self.grid, finest), ..self }
    }

    fn parts(&self) -> FieldNetworkConfig {
        let Self { grid, width, layers, channels, radial } = *self;
        FieldNetworkConfig { grid, width, layers, outputs: channels, radial }
    }

    fn check(&self) -> Result<()> {
        check_config((1..=4).contains(&self.channels), "channels", "1 to 4", self.channels)?;
        self.parts().check(2)
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

/// Points of one dispatch.
#[cfg(feature = "blocking")]
const TILE: u32 = 1 << 16;

/// A neural field: colour as a function of position.
#[derive(Debug, Clone)]
pub struct RadialField {
    config: RadialFieldConfig,
    network: FieldNetwork,
}

fn metadata(config: &RadialFieldConfig) -> Vec<(&'static str, String)> {
    vec![("model", "RadialField".into()), ("channels", config.channels.to_string())]
}

impl RadialField {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    ///
    /// A hybrid has all weights and biases uniform in +-1 / sqrt(inputs), as published, and centres
    /// uniform over the picture; [`for_picture`](Self::for_picture) places them by what is to be fitted.
    pub fn new(context: &Context, config: RadialFieldConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let network = FieldNetwork::new(context, config.parts(), seed, metadata(&config))?;
        Ok(Self { config, network })
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
        field.place(picture, CentreSeeds::Drawn, seed)?;
        Ok(field)
    }

    /// As [`for_picture`](Self::for_picture), with the centres left where [`new`](Self::new) puts them:
    /// what is lost when they do not follow the detail.
    #[cfg(feature = "blocking")]
    pub fn with_random_centres(
        context: &Context,
        config: RadialFieldConfig,
        picture: &Picture,
        seed: u64,
    ) -> Result<Self> {
        let field = Self::new(context, config, seed)?;
        field.place(picture, CentreSeeds::Given, seed)?;
        Ok(field)
    }

    /// Places the centres of a hybrid as published, or leaves those that are given, and shapes them.
    #[cfg(feature = "blocking")]
    fn place(&self, picture: &Picture, seeds: CentreSeeds, seed: u64) -> Result<()> {
        let (Some(hybrid), Some(radial)) = (&self.network.hybrid, &self.config.radial) else { return Ok(()) };
        let context = &self.network.context;
        picture.check_size()?;
        let Picture { width, height, channels, data } = picture;
        let extent = [width, height].map(|&n| f64::from(n) / 128.0);
        let need = format!("the picture's {extent:?}");
        check_config(radial.extent == extent, "extent", &need, radial.extent)?;
        let published = CentreInitialisationConfig::for_picture(*width, *height, *channels, radial.centres);
        let iterations = if seeds == CentreSeeds::Given { 0 } else { published.iterations };
        let whole = CentreInitialisationConfig { seeds, iterations, ..published };
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
        })?)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RadialFieldConfig {
        &self.config
    }

    /// Trained numbers: see [`RadialFieldConfig::parameter_count`].
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        self.network.parameter_count()
    }

    /// Writes positions, `[N, 2]` in the unit square.
    fn write_positions(&self, pass: &Pass, positions: &[f32]) -> Result<()> {
        let context = &self.network.context;
        pass.positions.write(context, positions)?;
        let Some(radial) = &self.config.radial else { return Ok(()) };
        let places: Vec<f32> = positions
            .iter()
            .enumerate()
            .map(|(i, &t)| ((2.0 * f64::from(t) - 1.0) * radial.extent[i % 2]) as f32)
            .collect();
        pass.places.write(context, &places)
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
        picture.check()?;
        check_config(
            picture.channels == channels,
            "channels",
            &format!("{channels}, those of the field"),
            picture.channels,
        )?;
        let count = u64::from(picture.width) * u64::from(picture.height);
        // A hybrid whose batch has room for all pixels takes them all, in their order: then what
        // depends on the positions is found once.
        let hybrid = self.config.radial.is_some();
        let all = hybrid && u64::from(fit.batch) >= count;
        let batch = if all { count as u32 } else { fit.batch };
        crate::dispatch::count("batch", &[batch, channels.max(2)])?;
        let context = &self.network.context;
        let mut step = self.network.step(batch)?;
        let location = self.network.locate(&mut step)?;
        // The published rates: 1e-2 for the network, 5e-3 for features.
        let feature_rate = if hybrid { 0.5 } else { 1.0 };
        let mut trainer =
            self.network.trainer(&mut step, (Loss::Squared, 0.0), Recording::new(), feature_rate)?;
        trainer.data = fit.checkpoint.is_some().then(|| picture.fingerprint());
        context.run_blocking(&location.build)?;
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
            step.target.write(context, &target)?;
            context.run_blocking(&location.find)
        };
        self.network.fit(&trainer, fit, &mut feed, report)
    }

    /// The field's values, `[points, channels]`, at points of the unit square.
    #[cfg(feature = "blocking")]
    pub fn eval(&self, points: &[[f32; 2]]) -> Result<Vec<f32>> {
        let n = u32::try_from(points.len()).unwrap_or(u32::MAX);
        crate::dispatch::count("points", &[n, self.config.channels.max(2)])?;
        self.values(n, &|i| points.get(i as usize).copied().unwrap_or_default())
    }

    /// Renders `width` x `height` pixels of a region, their values at the centres of the pixels.
    /// In tiles of so many pixels as the device's limits have room for.
    #[cfg(feature = "blocking")]
    pub fn render(&self, width: u32, height: u32, region: Region) -> Result<Picture> {
        let channels = self.config.channels;
        let pixels = crate::dispatch::count("picture", &[width, height, channels])? / channels;
        check_config(pixels > 0, "size", "at least one pixel", (width, height))?;
        let data = self.values(pixels, &|i| {
            let u = (f64::from(i % width) + 0.5) / f64::from(width);
            let v = (f64::from(i / width) + 0.5) / f64::from(height);
            [(u, 0), (v, 1)].map(|(t, d)| (region.low[d] + t * (region.high[d] - region.low[d])) as f32)
        })?;
        Picture::new(width, height, channels, data)
    }

    /// The values at `count` places, `[count, channels]`, in tiles of so many as the device's limits have room for.
    #[cfg(feature = "blocking")]
    fn values(&self, count: u32, place: &dyn Fn(u32) -> [f32; 2]) -> Result<Vec<f32>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let channels = self.config.channels;
        let context = &self.network.context;
        // What a point has most of: features, neurons or neighbours.
        let radial = self.config.radial.map_or(0, |radial| radial.features.max(radial.neighbours));
        let widest = u64::from(self.config.width.max(self.config.grid.outputs() + radial));
        let room = (most_bytes(context) / (4 * widest)).max(1);
        let tile = u64::from(count.min(TILE)).min(room) as u32;
        let Evaluation { pass, recording } = self.network.evaluation(tile, false)?;
        let mut all = Vec::with_capacity((count * channels) as usize);
        for first in (0..count).step_by(tile as usize) {
            // Past the last point the tile is filled up with it.
            let at: Vec<f32> = (first..first + tile).flat_map(|i| place(i.min(count - 1))).collect();
            self.write_positions(&pass, &at)?;
            context.run_blocking(&recording)?;
            let values = pass.output.read(context)?;
            all.extend_from_slice(&values[..(tile.min(count - first) * channels) as usize]);
        }
        Ok(all)
    }

    /// The derivatives of every channel along x and y, `[points, channels, 2]`, at points of the unit square.
    ///
    /// Where the set of a point's neighbours changes, and on the borders of the grid's cells, a field has no slope:
    /// it is that on one side.
    #[cfg(feature = "blocking")]
    pub fn gradient(&self, points: &[[f32; 2]]) -> Result<Vec<f32>> {
        let channels = self.config.channels as usize;
        let tile = self.network.gradient_tile(TILE) as usize;
        let extent = self.config.radial.map_or([0.0; 2], |radial| radial.extent);
        let mut all = Vec::with_capacity(points.len() * channels * 2);
        for chunk in points.chunks(tile) {
            let n = chunk.len();
            let write = |pass: &Pass| self.write_positions(pass, chunk.as_flattened());
            let (of_grid, of_bases) = self.network.position_gradients(n as u32, &write)?;
            for i in 0..n * channels * 2 {
                let (point, channel, axis) = (i / 2 / channels, i / 2 % channels, i % 2);
                let at = (channel * n + point) * 2 + axis;
                let among_centres = of_bases.get(at).map_or(0.0, |d| d * (2.0 * extent[axis]) as f32);
                all.push(of_grid[at] + among_centres);
            }
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
        let channels = file.get(path, "channels")?;
        let parts = FieldNetworkConfig::of_file(&file, path, 2, channels)?;
        let FieldNetworkConfig { grid, width, layers, radial, .. } = parts;
        let config = RadialFieldConfig { grid, width, layers, channels, radial };
        // Before anything of the size that the metadata claims is allocated.
        config.check()?;
        let network = FieldNetwork::of_file(context, parts, &file, path, metadata(&config))?;
        Ok(Self { config, network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chen et al. 2023: parameters of the models for pictures.
    #[test]
    fn parameter_counts_are_the_published_ones() {
        let count =
            |config: RadialFieldConfig| (config.radial.unwrap().centres, config.parameter_count().unwrap());
        let picture = |side, log2| count(RadialFieldConfig::hybrid_for_picture(side, side, 3, log2).unwrap());
        assert_eq!(picture(256, 15), (2_776, 128_871));
        assert_eq!(picture(256, 12), (1_755, 71_623));
        assert_eq!(picture(8000, 24), (795_365, 57_458_951));
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
