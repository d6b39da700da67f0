//! Multiresolution hash and dense grids (`shaders/radial/grid_encoding.wgsl`).

use super::Differential;
use crate::dense::{Sort, SortConfig, SortKey, SortPayload};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Kernel, Launch, Plan, Planned, Recording,
    Result, Scratch, Shader, check_config, count, read, shader, write,
};

/// How values between the corners of a cell are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// Multilinear: continuous.
    #[default]
    Linear,
    /// Multilinear in `f^2 (3 - 2 f)`: continuous with its first derivative.
    Smoothstep,
}

/// What the entries of a level stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GridKind {
    /// At most `2^log2_table_size` entries a level; cells of finer levels share them by a hash.
    #[default]
    Hash,
    /// Every corner of every level has an entry of its own.
    Dense,
}

/// How the gradient of the table is summed. Either way it is the same bits in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GridEncodingVariant {
    /// In 64-bit fixed point, through integer atomics. Each term is rounded to `max|dy| 2^-30`.
    /// 3.5 to 4 times as fast as sorting on a CPU adapter (`cargo bench -- grid_encoding`).
    FixedPoint,
    /// The contributions are sorted by the entry they go to, and each entry's run is summed in f32:
    /// each entry is as exact as its own terms are, whatever the largest `dy` is.
    Sorted {
        /// Levels that are sorted together, at least 1. Scratch grows with it, and dispatches
        /// become fewer.
        levels_at_once: u32,
    },
}

/// A multiresolution grid (Mueller et al. 2022, "Instant neural graphics primitives", section 3).
///
/// The rules of indexing are those of tiny-cuda-nn. The defaults are its image configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridEncodingConfig {
    /// 2 or 3.
    pub dims: u32,
    /// Levels, 1 to 32.
    pub levels: u32,
    /// Features of an entry: 1, 2, 4 or 8.
    pub features: u32,
    /// Logarithm of the most entries a level may have, 1 to 24.
    pub log2_table_size: u32,
    /// Resolution of the coarsest level, at least 1.
    pub base_resolution: u32,
    /// Factor between the resolutions of neighbouring levels, at least 1.
    pub growth: f64,
    /// Linear or smoothstep.
    pub interpolation: Interpolation,
    /// Hash or dense.
    pub kind: GridKind,
    /// Puts 0 and 1 on the outermost corners instead of half a cell inside of them.
    pub align_corners: bool,
    /// Points of one call, `N`.
    pub points: u32,
    /// Of the table's gradient. `None`: [`GridEncodingVariant::FixedPoint`].
    pub variant: Option<GridEncodingVariant>,
}

impl Default for GridEncodingConfig {
    fn default() -> Self {
        Self {
            dims: 2,
            levels: 16,
            features: 2,
            log2_table_size: 15,
            base_resolution: 16,
            growth: 1.5,
            interpolation: Interpolation::Linear,
            kind: GridKind::Hash,
            align_corners: false,
            points: 1,
            variant: None,
        }
    }
}

/// One level of a grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridLevel {
    /// Cells along an axis, not rounded: `base growth^l - 1`, rounded to f32 as the shader sees it.
    pub scale: f32,
    /// Corners along an axis: `ceil(scale) + 1`.
    pub resolution: u32,
    /// Index of its first entry in the table.
    pub first: u32,
    /// Its entries.
    pub entries: u32,
    /// Whether entries are found by the hash.
    pub hashed: bool,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct PackedLevel {
    scale: f32,
    resolution: u32,
    first: u32,
    entries: u32,
    hashed: u32,
    pad: [u32; 3],
}

impl GridEncodingConfig {
    fn check(&self) -> Result<()> {
        check_config(matches!(self.dims, 2 | 3), "dims", "2 or 3", self.dims)?;
        check_config((1..=32).contains(&self.levels), "levels", "1 to 32", self.levels)?;
        check_config(matches!(self.features, 1 | 2 | 4 | 8), "features", "1, 2, 4 or 8", self.features)?;
        let log2 = self.log2_table_size;
        check_config((1..=24).contains(&log2), "log2_table_size", "1 to 24", log2)?;
        check_config(self.base_resolution > 0, "base_resolution", "at least 1", self.base_resolution)?;
        let growth = self.growth;
        check_config(growth.is_finite() && growth >= 1.0, "growth", "finite and at least 1", growth)?;
        check_config(self.points > 0, "points", "at least 1", self.points)
    }

    /// The levels, from coarse to fine.
    pub fn level_table(&self) -> Result<Vec<GridLevel>> {
        self.check()?;
        let mut first = 0u32;
        (0..self.levels)
            .map(|l| {
                let exact = f64::from(self.base_resolution) * self.growth.powi(l as i32) - 1.0;
                let scale = exact as f32;
                // Cell indices must be exact in f32.
                check_config(
                    scale < 8_388_608.0,
                    "growth",
                    "such that no level is finer than 2^23",
                    self.growth,
                )?;
                let resolution = scale.ceil() as u32 + 1;
                // 2^23 corners along each of three axes are more than 64 bits hold.
                let corners = u64::from(resolution).saturating_pow(self.dims);
                let padded = corners.div_ceil(8).saturating_mul(8);
                let entries = match self.kind {
                    GridKind::Hash => padded.min(1 << self.log2_table_size),
                    GridKind::Dense => padded,
                };
                let entries = u32::try_from(entries)
                    .map_err(|_| Error::IndexOverflow { what: "table", elements: entries })?;
                let level =
                    GridLevel { scale, resolution, first, entries, hashed: corners > u64::from(entries) };
                first = first.checked_add(entries).ok_or(Error::IndexOverflow {
                    what: "table",
                    elements: u64::from(first) + u64::from(entries),
                })?;
                Ok(level)
            })
            .collect()
    }

    /// Elements of the table, `entries * features`.
    pub fn parameter_count(&self) -> Result<u32> {
        let entries = self.level_table()?.iter().map(|level| level.entries).sum();
        // The gradient's sums take two words each.
        count("table", &[entries, self.features, 2]).map(|n| n / 2)
    }

    /// Features of an encoded point, `levels * features`.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        self.levels * self.features
    }

    pub(super) fn constants(&self, differential: Differential) -> Constants {
        Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .u32("DIMS", self.dims)
            .u32("LEVELS", self.levels)
            .u32("FEATURES", self.features)
            .u32("SPAN", SPAN)
            .u32("DIFFERENTIAL", differential.id())
            .bool("SMOOTHSTEP", self.interpolation == Interpolation::Smoothstep)
            .bool("ALIGN_CORNERS", self.align_corners)
    }

    fn launch(
        &self,
        shader: &'static Shader,
        values: u32,
        groups: u64,
        cost: Cost,
        caps: &Capabilities,
    ) -> Result<Launch> {
        self.launch_of(Differential::Value, shader, values, groups, cost, caps)
    }

    pub(super) fn launch_of(
        &self,
        differential: Differential,
        shader: &'static Shader,
        values: u32,
        groups: u64,
        cost: Cost,
        caps: &Capabilities,
    ) -> Result<Launch> {
        count("positions", &[self.points, self.dims])?;
        let params = Params { points: self.points, values, ..Params::default() };
        Launch::new(shader, self.constants(differential), &params, groups, caps, cost)
    }

    /// Least work of reading or writing each corner once: 2^D corners of F features.
    pub(super) fn cost(&self, flops_per_corner: u64, bytes_per_output: u64) -> Cost {
        let outputs = u64::from(self.points) * u64::from(self.outputs());
        let corners = outputs << self.dims;
        Cost::new(
            corners * flops_per_corner,
            corners * 4 + outputs * bytes_per_output + u64::from(self.points) * u64::from(self.dims) * 4,
        )
    }
}

pub(super) const WORKGROUP: u32 = 64;
const SPAN: u32 = 32;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    values: u32,
    first_level: u32,
    some_levels: u32,
    first_row: u32,
}

static FORWARD: Shader = shader!(
    "radial/grid_encoding",
    "forward",
    [index],
    [read("levels").stride(32), read("positions"), read("table"), write("encoded")]
);
static BACKWARD_INPUT: Shader = shader!(
    "radial/grid_encoding",
    "backward_input",
    [index],
    [read("levels").stride(32), read("positions"), read("table"), read("dy_input"), write("dx")]
);
pub(super) static CLEAR: Shader = shader!("radial/grid_encoding", "clear", [index], [write("cleared")]);
static LARGEST: Shader =
    shader!("radial/grid_encoding", "largest", [index], [read("dy_range"), write("largest_bits")]);
static BACKWARD_TABLE: Shader = shader!(
    "radial/grid_encoding",
    "backward_table",
    [index],
    [read("levels").stride(32), read("positions"), read("dy_table"), read("range"), write("sums")]
);
pub(super) static CONVERT: Shader = shader!(
    "radial/grid_encoding",
    "convert",
    [index],
    [read("sums_done"), read("range_done"), write("dtable")]
);
static CONTRIBUTION_ROWS: Shader = shader!(
    "radial/grid_encoding",
    "contribution_rows",
    [index],
    [read("levels").stride(32), read("positions"), write("keys")]
);
static MARK_RUNS: Shader =
    shader!("radial/grid_encoding", "mark_runs", [index], [read("sorted"), write("runs_out")]);
static SUM_BLOCKS: Shader = shader!(
    "radial/grid_encoding",
    "sum_blocks",
    [index],
    [
        read("levels").stride(32),
        read("positions"),
        read("dy_table"),
        read("sorted_rows"),
        read("order"),
        write("blocks_out")
    ]
);
static SUM_SPANS: Shader = shader!(
    "radial/grid_encoding",
    "sum_spans",
    [index],
    [read("sorted"), read("blocks_in"), write("spans_out")]
);
static SUM_ROWS: Shader = shader!(
    "radial/grid_encoding",
    "sum_rows",
    [index],
    [
        read("levels").stride(32),
        read("positions"),
        read("dy_table"),
        read("runs"),
        read("order"),
        read("blocks"),
        read("spans"),
        write("dtable_rows")
    ]
);

/// Declares one of the three kernels: like `kernel!`, with the table of levels in a buffer of its own.
macro_rules! grid_kernel {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            context: Context,
            config: GridEncodingConfig,
            plan: Plan,
            levels: wgpu::Buffer,
        }

        impl $name {
            /// Plans for the context's device and uploads the table of levels.
            pub fn new(context: &Context, config: GridEncodingConfig) -> Result<Self> {
                let plan = Self::plan(&config, context.capabilities())?;
                let levels = upload_levels(context, &config)?;
                Ok(Self { context: context.clone(), config, plan, levels })
            }

            /// The configuration it was planned for.
            #[must_use]
            pub fn config(&self) -> &GridEncodingConfig {
                &self.config
            }

            fn levels(&self) -> Arg<'_> {
                Arg::new("levels", BufferView::new(&self.levels), u64::from(self.config.levels), 32)
            }

            fn positions<'a>(&self, view: BufferView<'a>) -> Arg<'a> {
                Arg::words("positions", view, u64::from(self.config.points) * u64::from(self.config.dims))
            }

            fn encoded<'a>(&self, what: &'static str, view: BufferView<'a>) -> Arg<'a> {
                Arg::words(what, view, u64::from(self.config.points) * u64::from(self.config.outputs()))
            }
        }

        impl Planned for $name {
            fn context(&self) -> &Context {
                &self.context
            }

            fn planned(&self) -> &Plan {
                &self.plan
            }
        }
    };
}

pub(super) fn upload_levels(context: &Context, config: &GridEncodingConfig) -> Result<wgpu::Buffer> {
    let packed: Vec<_> = config
        .level_table()?
        .iter()
        .map(|level| PackedLevel {
            scale: level.scale,
            resolution: level.resolution,
            first: level.first,
            entries: level.entries,
            hashed: level.hashed.into(),
            pad: [0; 3],
        })
        .collect();
    context.create_storage_with("levels", &packed)
}

grid_kernel! {
    /// Encodes positions.
    GridEncodingForward
}

/// Buffers of [`GridEncodingForward`].
#[derive(Debug, Clone, Copy)]
pub struct GridEncodingForwardArgs<'a> {
    /// Positions in `[0, 1]`, `[N, dims]`; others are clamped.
    pub positions: BufferView<'a>,
    /// The table, `[entries, features]`.
    pub table: BufferView<'a>,
    /// Output, `[N, levels, features]`.
    pub encoded: BufferView<'a>,
}

impl GridEncodingForward {
    /// One invocation a point and level.
    pub fn plan(config: &GridEncodingConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        config.parameter_count()?;
        count("encoded", &[config.points, config.outputs()])?;
        let groups = u64::from(config.points.div_ceil(WORKGROUP)) * u64::from(config.levels);
        let launch = config.launch(&FORWARD, 0, groups, config.cost(2, 4), caps)?;
        Ok(Plan::single("point-level", launch))
    }
}

impl Kernel for GridEncodingForward {
    type Args<'a> = GridEncodingForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [
            self.levels(),
            self.positions(args.positions),
            Arg::words("table", args.table, self.config.parameter_count()?.into()),
            self.encoded("encoded", args.encoded),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

grid_kernel! {
    /// The gradient of the positions.
    GridEncodingBackwardInput
}

/// Buffers of [`GridEncodingBackwardInput`].
#[derive(Debug, Clone, Copy)]
pub struct GridEncodingBackwardInputArgs<'a> {
    /// As in the forward pass, `[N, dims]`.
    pub positions: BufferView<'a>,
    /// As in the forward pass, `[entries, features]`.
    pub table: BufferView<'a>,
    /// Gradient of the output, `[N, levels, features]`.
    pub dy: BufferView<'a>,
    /// Gradient of the positions, `[N, dims]`; overwritten. 0 outside `[0, 1]`. On the border of a
    /// cell, where the linear encoding has two slopes, it is the slope of the cell above.
    pub dx: BufferView<'a>,
}

impl GridEncodingBackwardInput {
    /// One invocation a point.
    pub fn plan(config: &GridEncodingConfig, caps: &Capabilities) -> Result<Plan> {
        GridEncodingForward::plan(config, caps)?;
        let groups = config.points.div_ceil(WORKGROUP).into();
        let launch = config.launch(&BACKWARD_INPUT, 0, groups, config.cost(4, 4), caps)?;
        Ok(Plan::single("point", launch))
    }
}

impl Kernel for GridEncodingBackwardInput {
    type Args<'a> = GridEncodingBackwardInputArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [
            self.levels(),
            self.positions(args.positions),
            Arg::words("table", args.table, self.config.parameter_count()?.into()),
            self.encoded("dy", args.dy),
            Arg::words("dx", args.dx, u64::from(self.config.points) * u64::from(self.config.dims)),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

grid_kernel! {
    /// The gradient of the table, the same bits in every run and without float atomics.
    GridEncodingBackwardTable
}

/// Buffers of [`GridEncodingBackwardTable`].
#[derive(Debug, Clone, Copy)]
pub struct GridEncodingBackwardTableArgs<'a> {
    /// As in the forward pass, `[N, dims]`.
    pub positions: BufferView<'a>,
    /// Gradient of the output, `[N, levels, features]`. If any element is NaN or infinite, the
    /// whole gradient of the table is NaN; sorted, that of the entries around its point is not finite.
    pub dy: BufferView<'a>,
    /// Gradient of the table, `[entries, features]`; overwritten.
    pub dtable: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

/// The levels that are sorted together.
#[derive(Debug, Clone, Copy)]
struct Together {
    first_level: u32,
    levels: u32,
    /// Entry of the first.
    first_row: u32,
    /// Their entries.
    rows: u32,
    /// What all points add to them.
    contributions: u32,
}

impl Together {
    fn all(config: &GridEncodingConfig, levels_at_once: u32) -> Result<Vec<Self>> {
        check_config(levels_at_once > 0, "levels_at_once", "at least 1", levels_at_once)?;
        let table = config.level_table()?;
        let mut first_level = 0;
        table
            .chunks(levels_at_once as usize)
            .map(|chunk| {
                let levels = chunk.len() as u32;
                let contributions = count("contributions", &[config.points, levels, 1 << config.dims])?;
                let together = Self {
                    first_level,
                    levels,
                    first_row: chunk.first().map_or(0, |level| level.first),
                    rows: chunk.iter().map(|level| level.entries).sum(),
                    contributions,
                };
                first_level += levels;
                Ok(together)
            })
            .collect()
    }

    fn sort(&self) -> SortConfig {
        SortConfig {
            key: SortKey::U32,
            count: self.contributions,
            payload: SortPayload::Indices,
            descending: false,
            bits: (u32::BITS - (self.rows - 1).leading_zeros()).max(1),
            variant: None,
        }
    }

    /// Whole blocks, and whole spans.
    fn sums(&self) -> (u32, u32) {
        (self.contributions / SPAN, self.contributions / (SPAN * SPAN))
    }

    /// Bytes of keys, sorted keys, order, runs, sums of blocks, sums of spans.
    fn scratch(&self, features: u32) -> [u64; OWN_SCRATCH] {
        let keys = u64::from(self.contributions) * 4;
        let (blocks, spans) = self.sums();
        let sums = |n: u32| u64::from(n.max(1)) * u64::from(features) * 4;
        [keys, keys, keys, u64::from(self.rows) * 8, sums(blocks), sums(spans)]
    }

    fn push(
        &self,
        config: &GridEncodingConfig,
        sort: Plan,
        caps: &Capabilities,
        out: &mut Vec<Launch>,
    ) -> Result<()> {
        let &Self { first_level, levels, first_row, rows, contributions } = self;
        let wide = u64::from;
        let mut push = |shader, values: u32, groups: u64, flops: u64, words: u64| -> Result<()> {
            let params =
                Params { points: config.points, values, first_level, some_levels: levels, first_row };
            let cost = Cost::new(flops, words * 4);
            out.push(Launch::new(
                shader,
                config.constants(Differential::Value),
                &params,
                groups,
                caps,
                cost,
            )?);
            Ok(())
        };
        let each = |n: u32| wide(n.div_ceil(WORKGROUP));
        let positions = wide(config.points) * wide(config.dims);
        let groups = each(config.points) * wide(levels);
        push(&CONTRIBUTION_ROWS, 0, groups, 0, positions + wide(contributions))?;
        push(&CLEAR, 2 * rows, each(2 * rows), 0, 2 * wide(rows))?;
        push(&MARK_RUNS, contributions, each(contributions), 0, wide(contributions))?;
        let features = wide(config.features);
        let (blocks, spans) = self.sums();
        // What is read and added is counted once, at the last launch.
        if blocks > 0 {
            push(&SUM_BLOCKS, blocks, each(blocks), 0, 2 * wide(blocks))?;
        }
        if spans > 0 {
            push(&SUM_SPANS, spans, each(spans), wide(blocks) * features, 2 * wide(spans))?;
        }
        let dy = wide(config.points) * wide(levels) * features;
        let words = positions + dy + wide(contributions) + wide(rows) * (2 + features);
        push(&SUM_ROWS, rows, each(rows), 2 * wide(contributions) * features, words)?;
        let at = out.len() - 2 - usize::from(blocks > 0) - usize::from(spans > 0);
        out.splice(at..at, sort.launches);
        Ok(())
    }
}

/// Scratch buffers of the sorted variant before those of the sort.
const OWN_SCRATCH: usize = 6;

impl GridEncodingBackwardTable {
    /// In fixed point: clears the sums, finds the range, adds, and converts. Sorted, for some
    /// levels after the other: lists the rows of all contributions, sorts them, and sums the runs.
    pub fn plan(config: &GridEncodingConfig, caps: &Capabilities) -> Result<Plan> {
        GridEncodingForward::plan(config, caps)?;
        match config.variant {
            None | Some(GridEncodingVariant::FixedPoint) => Self::plan_fixed_point(config, caps),
            Some(GridEncodingVariant::Sorted { levels_at_once }) => {
                Self::plan_sorted(config, levels_at_once, caps)
            }
        }
    }

    fn plan_fixed_point(config: &GridEncodingConfig, caps: &Capabilities) -> Result<Plan> {
        let table = config.parameter_count()?;
        let encoded = count("dy", &[config.points, config.outputs()])?;
        let blocks = |n: u32, each: u32| u64::from(n.div_ceil(WORKGROUP * each));
        let bytes = |n: u32, each: u64| Cost::new(0, u64::from(n) * each);
        let groups = u64::from(config.points.div_ceil(WORKGROUP)) * u64::from(config.levels);
        Ok(Plan {
            variant: "fixed point",
            launches: vec![
                config.launch(&CLEAR, 1, 1, Cost::default(), caps)?,
                config.launch(&CLEAR, 2 * table, blocks(2 * table, 1), bytes(2 * table, 4), caps)?,
                config.launch(&LARGEST, encoded, blocks(encoded, 64), bytes(encoded, 4), caps)?,
                config.launch(&BACKWARD_TABLE, 0, groups, config.cost(2, 4), caps)?,
                config.launch(&CONVERT, table, blocks(table, 1), bytes(table, 12), caps)?,
            ],
            scratch: vec![u64::from(table) * 8, 4],
        })
    }

    fn plan_sorted(config: &GridEncodingConfig, levels_at_once: u32, caps: &Capabilities) -> Result<Plan> {
        let mut plan = Plan { variant: "sorted", ..Plan::default() };
        for together in Together::all(config, levels_at_once)? {
            let sort = Sort::plan(&together.sort(), caps)?;
            // All take turns with the same buffers.
            let bytes = together.scratch(config.features).into_iter().chain(sort.scratch.iter().copied());
            for (i, bytes) in bytes.enumerate() {
                match plan.scratch.get_mut(i) {
                    Some(most) => *most = bytes.max(*most),
                    None => plan.scratch.push(bytes),
                }
            }
            together.push(config, sort, caps, &mut plan.launches)?;
        }
        Ok(plan)
    }

    fn prepare_fixed_point(&self, args: &GridEncodingBackwardTableArgs<'_>) -> Result<Recording> {
        let table = u64::from(self.config.parameter_count()?);
        let sums = Arg::words("scratch 0", args.scratch.view(0)?, 2 * table);
        let range = Arg::words("scratch 1", args.scratch.view(1)?, 1);
        let dy = self.encoded("dy", args.dy);
        let dtable = Arg::words("dtable", args.dtable, table);
        let bound: [&[Arg<'_>]; 5] = [
            &[range],
            &[sums],
            &[dy, range],
            &[self.levels(), self.positions(args.positions), dy, range, sums],
            &[sums, range, dtable],
        ];
        let mut recording = Recording::new();
        for (launch, args) in self.plan.launches.iter().zip(bound) {
            recording.push(self.context.bind(launch, args)?);
        }
        Ok(recording)
    }

    fn prepare_sorted(
        &self,
        args: &GridEncodingBackwardTableArgs<'_>,
        levels_at_once: u32,
    ) -> Result<Recording> {
        let scratch: Vec<_> =
            (0..self.plan.scratch.len()).map(|i| args.scratch.view(i)).collect::<Result<_>>()?;
        let (own, sort_scratch) = scratch.split_at(OWN_SCRATCH.min(scratch.len()));
        let too_few =
            || Error::BufferTooSmall { what: "scratch", need: OWN_SCRATCH as u64, have: own.len() as u64 };
        let &[keys, sorted, order, runs, blocks, spans] = own else { return Err(too_few()) };
        let levels = self.levels();
        let positions = self.positions(args.positions);
        let dy = self.encoded("dy", args.dy);
        let dtable = Arg::words("dtable", args.dtable, self.config.parameter_count()?.into());
        let mut left = &self.plan.launches[..];
        let mut recording = Recording::new();
        for together in Together::all(&self.config, levels_at_once)? {
            let [key_bytes, .., run_bytes, block_bytes, span_bytes] = together.scratch(self.config.features);
            let arg = |what, view, need| Arg { what, view, need };
            let sorted_arg = arg("sorted", sorted, key_bytes);
            let order_arg = arg("order", order, key_bytes);
            let runs = arg("runs", runs, run_bytes);
            let blocks = arg("blocks", blocks, block_bytes);
            let spans = arg("spans", spans, span_bytes);
            let before = [vec![levels, positions, arg("keys", keys, key_bytes)], vec![runs]];
            let mut after = vec![vec![sorted_arg, runs]];
            let (whole_blocks, whole_spans) = together.sums();
            if whole_blocks > 0 {
                after.push(vec![levels, positions, dy, sorted_arg, order_arg, blocks]);
            }
            if whole_spans > 0 {
                after.push(vec![sorted_arg, blocks, spans]);
            }
            after.push(vec![levels, positions, dy, runs, order_arg, blocks, spans, dtable]);
            let sort = together.sort();
            let sort_launches = Sort::plan(&sort, self.context.capabilities())?.launches.len();
            if left.len() < before.len() + sort_launches + after.len() {
                return Err(too_few());
            }
            let (now, rest) = left.split_at(before.len() + sort_launches + after.len());
            let (first, others) = now.split_at(before.len());
            let (sorting, last) = others.split_at(sort_launches);
            for (launch, args) in first.iter().zip(&before) {
                recording.push(self.context.bind(launch, args)?);
            }
            let values = (None, Some(order));
            recording.append(Sort::bind(
                &self.context,
                sorting,
                &sort,
                (keys, sorted),
                values,
                sort_scratch,
            )?);
            for (launch, args) in last.iter().zip(&after) {
                recording.push(self.context.bind(launch, args)?);
            }
            left = rest;
        }
        Ok(recording)
    }
}

impl Kernel for GridEncodingBackwardTable {
    type Args<'a> = GridEncodingBackwardTableArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        match self.config.variant {
            None | Some(GridEncodingVariant::FixedPoint) => self.prepare_fixed_point(args),
            Some(GridEncodingVariant::Sorted { levels_at_once }) => self.prepare_sorted(args, levels_at_once),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_sizes_are_those_of_tiny_cuda_nn() {
        let config = GridEncodingConfig {
            dims: 3,
            levels: 20,
            base_resolution: 32,
            log2_table_size: 16,
            ..Default::default()
        };
        let levels = config.level_table().unwrap();
        assert_eq!((levels[0].entries, levels[1].entries), (32 * 32 * 32, 65536));
        assert_eq!(config.parameter_count().unwrap(), 2_555_904);
    }

    #[test]
    fn levels_of_more_corners_than_64_bits_hold_have_whole_tables() {
        let config = GridEncodingConfig {
            dims: 3,
            levels: 19,
            base_resolution: 16,
            growth: 2.0,
            ..Default::default()
        };
        let levels = config.level_table().unwrap();
        assert!(levels[2..].iter().all(|level| level.entries == 1 << 15 && level.hashed));
        let dense = GridEncodingConfig { kind: GridKind::Dense, ..config };
        assert!(matches!(dense.level_table(), Err(Error::IndexOverflow { what: "table", .. })));
        let one = GridEncodingConfig { levels: 1, base_resolution: 1 << 22, ..dense };
        assert!(matches!(one.level_table(), Err(Error::IndexOverflow { what: "table", .. })));
        let many = GridEncodingConfig { points: 1 << 31, levels: 1, features: 1, ..config };
        let plan = GridEncodingForward::plan(&many, &Capabilities::baseline());
        assert!(matches!(plan, Err(Error::IndexOverflow { what: "positions", .. })));
    }
}
