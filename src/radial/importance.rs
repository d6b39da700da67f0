//! Where a field needs its centres (`shaders/radial/importance.wgsl`).

use super::weighted_sample::WeightTree;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result, Scratch,
    Shader, check_config, count, kernel, read, shader, write,
};

/// What weighs a point (Chen et al. 2023, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// The norm of a picture's gradient, over its channels and both directions: Sobel derivatives
    /// divided by 8, the edge's pixels continued beyond it.
    Sobel {
        /// Pixels in a row, at least 1.
        width: u32,
        /// Rows, at least 1.
        height: u32,
        /// Values of a pixel, at least 1.
        channels: u32,
    },
    /// `1 / (|distance| + 1e-9)` of a signed distance.
    InverseDistance {
        /// Distances, at least 1.
        points: u32,
    },
    /// Weights as they are.
    Given {
        /// Weights, at least 1.
        points: u32,
    },
}

impl Importance {
    /// The points that are weighed.
    pub fn points(&self) -> Result<u32> {
        let points = match *self {
            Self::Sobel { width, height, .. } => count("pixels", &[width, height])?,
            Self::InverseDistance { points } | Self::Given { points } => points,
        };
        check_config(points > 0, "points", "at least 1", self)?;
        Ok(points)
    }

    /// The words of the input.
    fn values(&self) -> Result<u32> {
        match *self {
            Self::Sobel { width, height, channels } => {
                check_config(channels > 0, "channels", "at least 1", channels)?;
                count("picture", &[height, width, channels])
            }
            _ => self.points(),
        }
    }
}

/// Counters of the initialisation, u32 `[8]`, as they lie in the `report` buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct CentreReport {
    /// Weights that were NaN, infinite, negative or above 1e27 and were taken as 0. A pixel that is
    /// NaN makes those of itself and its neighbours so.
    pub unusable_weights: u32,
    /// 1 if all weights were 0, and all points were taken to weigh the same.
    pub uniform: u32,
    /// Centres without a point of their own; their shapes are the smallest allowed.
    pub empty: u32,
    /// Shapes that a published clip changed.
    pub clamped: u32,
    /// 3-D shapes without an inverse, or nearly: of two points, or by the clips. Their correlations
    /// were halved.
    pub indefinite: u32,
    /// 0.
    pub reserved: [u32; 3],
}

impl CentreReport {
    /// Words of the buffer.
    pub const WORDS: u64 = 8;
}

const WORKGROUP: u32 = 64;

macro_rules! weighing {
    ($entry:literal) => {
        shader!(
            "radial/importance",
            $entry,
            [index, weight],
            [read("values"), write("weights"), write("report")]
        )
    };
}
static CLEAR_REPORT: Shader =
    shader!("radial/importance", "clear_report", [index, weight], [write("cleared")]);
static SOBEL: Shader = weighing!("sobel");
static SOBEL_BAND: Shader =
    shader!("radial/importance", "sobel_band", [index, weight], [read("values"), write("raw")]);
static INVERSE_DISTANCE: Shader = weighing!("inverse_distance");
static GIVEN: Shader = weighing!("given");
static NORMALISE: Shader = shader!(
    "radial/importance",
    "normalise",
    [index, weight],
    [read("sums"), write("weights"), write("report")]
);
static PIXEL_POSITIONS: Shader =
    shader!("radial/importance", "pixel_positions", [index, weight], [write("positions")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    width: u32,
    height: u32,
    channels: u32,
    skipped: u32,
    first: u32,
    root: u32,
}

fn constants() -> Constants {
    Constants::new().u32("WORKGROUP", WORKGROUP)
}

kernel! {
    /// The weights of points, divided by their mean; all 1 if all are 0.
    ImportanceWeights, Importance
}

/// Buffers of [`ImportanceWeights`].
#[derive(Debug, Clone, Copy)]
pub struct ImportanceArgs<'a> {
    /// The picture `[height, width, channels]`, the distances or the weights `[points]`.
    pub values: BufferView<'a>,
    /// The weights, `[points]`; overwritten.
    pub weights: BufferView<'a>,
    /// [`CentreReport`], u32 `[8]`; cleared, then `unusable_weights` and `uniform` are set.
    pub report: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl ImportanceWeights {
    /// Clears the report, weighs, sums, and divides.
    pub fn plan(config: &Importance, caps: &Capabilities) -> Result<Plan> {
        let points = config.points()?;
        let values = u64::from(config.values()?);
        let tree = WeightTree::new(points);
        let mut params = Params { points, root: tree.root(), ..Params::default() };
        let (shader, name, flops) = match *config {
            Importance::Sobel { width, height, channels } => {
                caps.check_rounds("channels", channels, channels.into())?;
                params = Params { width, height, channels, ..params };
                (&SOBEL, "sobel", 16 * values)
            }
            Importance::InverseDistance { .. } => (&INVERSE_DISTANCE, "inverse distance", 2 * values),
            Importance::Given { .. } => (&GIVEN, "given", 0),
        };
        let n = u64::from(points);
        let launch = |shader, groups: u32, flops: u64, words: u64| {
            Launch::new(shader, constants(), &params, groups.into(), caps, Cost::new(flops, 4 * words))
        };
        let groups = points.div_ceil(WORKGROUP);
        let mut launches = vec![launch(&CLEAR_REPORT, 1, 0, 8)?, launch(shader, groups, flops, values + n)?];
        launches.extend(tree.plan(caps)?);
        launches.push(launch(&NORMALISE, groups, n, 2 * n)?);
        Ok(Plan { variant: name, launches, scratch: vec![u64::from(tree.size()) * 4] })
    }
}

impl Kernel for ImportanceWeights {
    type Args<'a> = ImportanceArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let points = self.config.points()?;
        let tree = WeightTree::new(points);
        let [clear, weigh, sums @ .., normalise] = &self.plan.launches[..] else {
            return Err(Error::IndexOverflow { what: "launches", elements: 0 });
        };
        let values = Arg::words("values", args.values, self.config.values()?.into());
        let weights = Arg::words("weights", args.weights, points.into());
        let report = Arg::words("report", args.report, CentreReport::WORDS);
        let sum_view = args.scratch.view(0)?;
        let mut recording = Recording::single(self.context.bind(clear, &[report])?);
        recording.push(self.context.bind(weigh, &[values, weights, report])?);
        recording.append(tree.bind(&self.context, sums, weights, sum_view)?);
        let sums = Arg::words("sums", sum_view, tree.size().into());
        recording.push(self.context.bind(normalise, &[sums, weights, report])?);
        Ok(recording)
    }
}

/// Some rows of a picture that is too large for one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SobelBandConfig {
    /// Pixels in a row, at least 1.
    pub width: u32,
    /// Rows of the picture, at least 1.
    pub height: u32,
    /// Values of a pixel, at least 1.
    pub channels: u32,
    /// The first row of the band.
    pub first_row: u32,
    /// Rows of the band, at least 1.
    pub rows: u32,
}

impl SobelBandConfig {
    /// The rows of the picture that the kernel reads: those of the band, and one more on each side
    /// where there is one.
    #[must_use]
    pub fn rows_read(&self) -> std::ops::Range<u32> {
        let end = self.first_row.saturating_add(self.rows).saturating_add(1).min(self.height);
        self.first_row.saturating_sub(1)..end
    }

    fn values(&self) -> Result<u32> {
        count("values", &[self.rows_read().len() as u32, self.width, self.channels])
    }
}

kernel! {
    /// The gradient norms of a band of rows, not yet divided by their mean. After all bands,
    /// [`Importance::Given`] makes weights of them, the same as [`Importance::Sobel`] of the whole.
    SobelBand, SobelBandConfig
}

/// Buffers of [`SobelBand`].
#[derive(Debug, Clone, Copy)]
pub struct SobelBandArgs<'a> {
    /// The rows of [`rows_read`](SobelBandConfig::rows_read), `[rows read, width, channels]`.
    pub values: BufferView<'a>,
    /// The gradient norms of the whole picture, `[height, width]`; those of the band are overwritten.
    /// -1 where a pixel is not finite.
    pub raw: BufferView<'a>,
}

impl SobelBand {
    /// One invocation a pixel.
    pub fn plan(config: &SobelBandConfig, caps: &Capabilities) -> Result<Plan> {
        let SobelBandConfig { width, height, channels, first_row, rows } = *config;
        count("raw", &[width, height])?;
        for (what, value) in [("width", width), ("height", height), ("channels", channels), ("rows", rows)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        let within = first_row.checked_add(rows).is_some_and(|end| end <= height);
        check_config(within, "first_row, rows", "within the picture", (first_row, rows))?;
        caps.check_rounds("channels", channels, channels.into())?;
        let values = u64::from(config.values()?);
        let read = config.rows_read();
        let params = Params {
            points: rows * width,
            width,
            height: read.len() as u32,
            channels,
            skipped: first_row - read.start,
            first: first_row * width,
            ..Params::default()
        };
        let cost = Cost::new(16 * values, 4 * (values + u64::from(params.points)));
        let groups = params.points.div_ceil(WORKGROUP).into();
        Ok(Plan::single("pixel", Launch::new(&SOBEL_BAND, constants(), &params, groups, caps, cost)?))
    }
}

impl Kernel for SobelBand {
    type Args<'a> = SobelBandArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let pixels = u64::from(self.config.width) * u64::from(self.config.height);
        let bound = [
            Arg::words("values", args.values, self.config.values()?.into()),
            Arg::words("raw", args.raw, pixels),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &bound)?))
    }
}

/// The pixels of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelGrid {
    /// Pixels in a row, 1 to 2^23.
    pub width: u32,
    /// Rows, 1 to 2^23.
    pub height: u32,
}

kernel! {
    /// The centres of pixels: pixel (i, j) at `((2 i + 1 - width) / 128, (2 j + 1 - height) / 128)`, so
    /// that a picture reaches from `-width / 128` to `width / 128`. Exact.
    PixelPositions, PixelGrid
}

/// Buffers of [`PixelPositions`].
#[derive(Debug, Clone, Copy)]
pub struct PixelPositionsArgs<'a> {
    /// The positions, `[height, width, 2]`, x then y; overwritten.
    pub positions: BufferView<'a>,
}

impl PixelPositions {
    /// One invocation a pixel.
    pub fn plan(config: &PixelGrid, caps: &Capabilities) -> Result<Plan> {
        let PixelGrid { width, height } = *config;
        for (what, side) in [("width", width), ("height", height)] {
            check_config((1..=1 << 23).contains(&side), what, "1 to 2^23", side)?;
        }
        let words = count("positions", &[width, height, 2])?;
        let params = Params { points: words / 2, width, height, ..Params::default() };
        let groups = params.points.div_ceil(WORKGROUP).into();
        let cost = Cost::new(words.into(), 4 * u64::from(words));
        Ok(Plan::single("pixel", Launch::new(&PIXEL_POSITIONS, constants(), &params, groups, caps, cost)?))
    }
}

impl Kernel for PixelPositions {
    type Args<'a> = PixelPositionsArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let words = count("positions", &[self.config.width, self.config.height, 2])?;
        let positions = Arg::words("positions", args.positions, words.into());
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &[positions])?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_that_a_cpu_adapter_would_cut_off_are_refused() {
        let cpu = Capabilities { cpu: true, ..Capabilities::baseline() };
        let band = |channels, caps: &Capabilities| {
            let config = SobelBandConfig { width: 2, height: 2, channels, first_row: 0, rows: 2 };
            SobelBand::plan(&config, caps)
        };
        let whole = |channels, caps: &Capabilities| {
            ImportanceWeights::plan(&Importance::Sobel { width: 2, height: 2, channels }, caps)
        };
        assert!(band(60_000, &cpu).is_ok() && whole(60_000, &cpu).is_ok());
        for plan in [band(60_001, &cpu), whole(60_001, &cpu)] {
            assert!(plan.unwrap_err().to_string().contains("`channels` = 60001"));
        }
        assert!(band(60_001, &Capabilities::baseline()).is_ok());
        assert!(whole(60_001, &Capabilities::baseline()).is_ok());
    }
}
