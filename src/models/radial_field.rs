//! Neural fields over the plane: a multiresolution grid and a small network.

use std::ops::ControlFlow;
use std::path::Path;

use super::grid_network::{FitConfig, GridNetwork, GridNetworkConfig, Progress};
use super::picture::Picture;
use super::sampler::Sampler;
use crate::dense::Loss;
use crate::dispatch::{Context, Recording, Result, check_config};
use crate::radial::GridEncodingConfig;
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
}

impl RadialFieldConfig {
    /// For a picture of this size: 16 levels of 2 features from 16 cells to half the longer side,
    /// tables of `2^15` entries, and two hidden layers of 64.
    #[must_use]
    pub fn for_picture(width: u32, height: u32, channels: u32) -> Self {
        let config = Self { grid: GridEncodingConfig::default(), width: 64, layers: 2, channels };
        config.with_finest(width.max(height) / 2)
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

    fn parts(&self) -> GridNetworkConfig {
        GridNetworkConfig { grid: self.grid, width: self.width, layers: self.layers, outputs: self.channels }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![("model", "RadialField".into()), ("channels", self.channels.to_string())]
    }

    fn check(&self) -> Result<()> {
        check_config(self.grid.dims == 2, "dims", "2 for a picture", self.grid.dims)?;
        check_config((1..=4).contains(&self.channels), "channels", "1 to 4", self.channels)
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
    config: RadialFieldConfig,
    network: GridNetwork,
}

impl RadialField {
    /// With initial values from a seed: the table uniform in +-1e-4, the weights uniform in
    /// +-sqrt(6 / inputs) (He et al. 2015), biases 0.
    pub fn new(context: &Context, config: RadialFieldConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let network = GridNetwork::new(context, config.parts(), seed, config.metadata())?;
        Ok(Self { config, network })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &RadialFieldConfig {
        &self.config
    }

    /// Trainable numbers: table entries, weights and biases, without padding of the weights.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        self.network.parameter_count()
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
        let (batch, channels) = (fit.batch, self.config.channels);
        fit.check()?;
        check_config(picture.channels == channels, "channels", "those of the field", picture.channels)?;
        crate::dispatch::count("batch", &[batch, channels.max(2)])?;
        let context = &self.network.context;
        let on_device = [
            Tensor::new(context, "positions", &[batch, 2])?,
            Tensor::new(context, "target", &[batch, channels])?,
        ];
        let trainer = self.network.trainer(Loss::Squared, Recording::new(), &on_device[0], &on_device[1])?;
        let count = u64::from(picture.width) * u64::from(picture.height);
        let sampler = Sampler::new(count, fit.seed);
        let mut positions = vec![0.0f32; 2 * batch as usize];
        let mut target = vec![0.0f32; (batch * channels) as usize];
        let mut feed = |step: u64| {
            for i in 0..batch as usize {
                let pixel = sampler.order(step * u64::from(batch) + i as u64) as usize;
                let (x, y) = (pixel % picture.width as usize, pixel / picture.width as usize);
                positions[2 * i] = (x as f32 + 0.5) / picture.width as f32;
                positions[2 * i + 1] = (y as f32 + 0.5) / picture.height as f32;
                let channels = channels as usize;
                target[i * channels..(i + 1) * channels]
                    .copy_from_slice(&picture.data[pixel * channels..(pixel + 1) * channels]);
            }
            on_device[0].write(context, &positions)?;
            on_device[1].write(context, &target)
        };
        self.network.fit(&trainer, fit, &mut feed, report)
    }

    /// Renders `width` x `height` pixels of a region, their values at the centres of the pixels.
    #[cfg(feature = "blocking")]
    pub fn render(&self, width: u32, height: u32, region: Region) -> Result<Picture> {
        const TILE: u32 = 1 << 16;
        let channels = self.config.channels;
        let pixels = crate::dispatch::count("picture", &[width, height, channels])? / channels;
        check_config(pixels > 0, "size", "at least one pixel", (width, height))?;
        let tile = pixels.min(TILE);
        let context = &self.network.context;
        let tiles = self.network.evaluation(tile)?;
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
            tiles.positions.write(context, &at)?;
            context.run_blocking(&tiles.recording)?;
            let values = tiles.output.read(context)?;
            data.extend_from_slice(&values[..(tile.min(pixels - first) * channels) as usize]);
        }
        Picture::new(width, height, channels, data)
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
        let GridNetworkConfig { grid, width, layers, .. } =
            GridNetworkConfig::of_file(&file, path, 2, channels)?;
        let config = RadialFieldConfig { grid, width, layers, channels };
        config.check()?;
        let network = GridNetwork::of_file(context, config.parts(), &file, path, config.metadata())?;
        Ok(Self { config, network })
    }
}
