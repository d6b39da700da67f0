//! Layer norm and RMS norm over the last axis (`shaders/dense/layer_norm.wgsl`).

use super::{ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Planned, Recording, Result,
    Scratch, Shader, check_apart, check_config, check_shape, check_workgroup, count, kernel, read, shader,
    write,
};

/// What a row is normalised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Normalisation {
    /// Mean and standard deviation (Ba et al. 2016, eq. 4).
    #[default]
    Layer,
    /// The root of the mean square (Zhang and Sennrich 2019, eq. 4).
    RootMeanSquare,
}

/// What follows the normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affine {
    /// Nothing.
    None,
    /// A factor for each column.
    Weight,
    /// A factor and a summand for each column.
    #[default]
    WeightAndBias,
}

/// Who normalises a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerNormVariant {
    /// One invocation: narrow rows, and CPU adapters.
    Invocation,
    /// A part of a workgroup, as large as the row is wide.
    Workgroup,
}

/// A normalisation of each of `rows` rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNormConfig {
    /// Rows, at least 1.
    pub rows: u32,
    /// Elements of a row, at least 1.
    pub width: u32,
    /// What a row is normalised by.
    pub normalisation: Normalisation,
    /// What follows.
    pub affine: Affine,
    /// Forward: `h = x + residual` is normalised, and kept. Backward: the gradient that reaches h
    /// by other ways is added.
    pub residual: bool,
    /// Added to the variance; at least 0, and above it if rows may be constant. Common: 1e-6 in vision transformers, 1e-5 elsewhere.
    pub epsilon: f32,
    /// `None`: by the width and the adapter.
    pub variant: Option<LayerNormVariant>,
}

impl Default for LayerNormConfig {
    fn default() -> Self {
        Self {
            rows: 1,
            width: 1,
            normalisation: Normalisation::Layer,
            affine: Affine::WeightAndBias,
            residual: false,
            epsilon: 1e-6,
            variant: None,
        }
    }
}

/// Of each kernel: for items of one element, and of four.
macro_rules! forms {
    ($name:ident, $entry:literal, [$($scalar:expr),*], [$($vector:expr),*]) => {
        static $name: [Shader; 2] = [
            shader!("dense/layer_norm", $entry, [index, scalars, row_sum], [$($scalar),*]),
            shader!("dense/layer_norm", $entry, [index, vectors, row_sum], [$($vector),*]),
        ];
    };
}
forms!(
    FORWARD,
    "forward",
    [read("x"), read("weight"), read("bias"), write("y"), write("statistics")],
    [read("x").vec4(), read("weight").vec4(), read("bias").vec4(), write("y").vec4(), write("statistics")]
);
forms!(
    FORWARD_RESIDUAL,
    "forward_residual",
    [
        read("x"),
        read("weight"),
        read("bias"),
        write("y"),
        write("statistics"),
        read("residual"),
        write("hidden")
    ],
    [
        read("x").vec4(),
        read("weight").vec4(),
        read("bias").vec4(),
        write("y").vec4(),
        write("statistics"),
        read("residual").vec4(),
        write("hidden").vec4()
    ]
);
forms!(
    BACKWARD,
    "backward",
    [read("h"), read("known"), read("dy"), read("scale"), read("dhidden"), write("dh")],
    [
        read("h").vec4(),
        read("known"),
        read("dy").vec4(),
        read("scale").vec4(),
        read("dhidden").vec4(),
        write("dh").vec4()
    ]
);
forms!(
    COLUMNS,
    "columns",
    [read("h"), read("known"), read("dy"), write("weight_blocks"), write("bias_blocks")],
    [
        read("h").vec4(),
        read("known"),
        read("dy").vec4(),
        write("weight_blocks").vec4(),
        write("bias_blocks").vec4()
    ]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    block: u32,
    blocks: u32,
    inverse_width: f32,
    epsilon: f32,
}

/// Times that an invocation reads its part of a row: for the mean, the variance and the output.
const PASSES: u64 = 3;
/// Of the sums over rows.
const COLUMNS_WORKGROUP: u32 = 64;
/// Invocations that keep a device busy.
const BUSY: u32 = 1 << 16;

impl LayerNormConfig {
    fn counts(&self) -> Result<u64> {
        check_config(self.rows > 0, "rows", "at least 1", self.rows)?;
        check_config(self.width > 0, "width", "at least 1", self.width)?;
        let epsilon = self.epsilon;
        check_config(epsilon.is_finite() && epsilon >= 0.0, "epsilon", "at least 0 and finite", epsilon)?;
        // Lanes step over the end of a row by up to a workgroup.
        check_config(self.width <= u32::MAX - 256, "width", "below 2^32 - 256", self.width)?;
        count("statistics", &[self.rows, 2])?;
        Ok(count("x", &[self.rows, self.width])?.into())
    }

    /// Index of the shaders, and items of a row.
    fn items(&self) -> (usize, u32) {
        if self.width.is_multiple_of(4) { (1, self.width / 4) } else { (0, self.width) }
    }

    /// Invocations of a workgroup, those of a row, and the name.
    fn lanes(&self, caps: &Capabilities) -> (u32, u32, &'static str) {
        let items = self.items().1;
        let narrow = (caps.cpu || items <= 8) && PASSES * u64::from(items) <= caps.rounds();
        let default = if narrow { LayerNormVariant::Invocation } else { LayerNormVariant::Workgroup };
        match self.variant.unwrap_or(default) {
            LayerNormVariant::Invocation => (64, 1, "invocation"),
            LayerNormVariant::Workgroup => {
                (256, items.div_ceil(4).next_power_of_two().clamp(2, 256), "workgroup")
            }
        }
    }

    /// Rows of a block of the sums over rows, and blocks.
    fn blocks(&self) -> (u32, u32) {
        let wanted = BUSY.div_ceil(self.items().1);
        let block = self.rows.div_ceil(wanted).clamp(16, 256);
        (block, self.rows.div_ceil(block))
    }

    fn params(&self) -> Params {
        let (block, blocks) = self.blocks();
        let inverse_width = (1.0 / f64::from(self.width)) as f32;
        let Self { rows, epsilon, .. } = *self;
        Params { rows, width: self.items().1, block, blocks, inverse_width, epsilon }
    }

    /// The launch of a kernel that takes a row at a time.
    fn launch(&self, shaders: &'static [Shader; 2], caps: &Capabilities, cost: Cost) -> Result<Launch> {
        let (workgroup, lanes, _) = self.lanes(caps);
        caps.check_rounds("width", self.width, PASSES * u64::from(self.items().1.div_ceil(lanes)))?;
        check_workgroup("dense/layer_norm", workgroup, if lanes > 1 { 8 * workgroup } else { 0 }, caps)?;
        let groups = self.rows.div_ceil(workgroup / lanes);
        let shader = &shaders[self.items().0];
        Launch::new(shader, self.constants(workgroup, lanes, 1), &self.params(), groups.into(), caps, cost)
    }

    fn constants(&self, workgroup: u32, lanes: u32, columns: u32) -> Constants {
        let affine = match self.affine {
            Affine::None => 0,
            Affine::Weight => 1,
            Affine::WeightAndBias => 2,
        };
        Constants::new()
            .u32("WORKGROUP", workgroup)
            .u32("LANES", lanes)
            .u32("COLUMNS", columns)
            .u32("AFFINE", affine)
            .bool("RMS", self.normalisation == Normalisation::RootMeanSquare)
            .bool("SKIP", self.residual)
    }

    /// The sum of the blocks.
    fn sum(&self) -> ReduceConfig {
        let n = self.blocks().1;
        let reduction = Reduction::Sum;
        ReduceConfig { reduction, outer: 1, n, inner: self.width, variant: None, part: None }
    }

    /// How many of weight and bias there are.
    fn parameters(&self) -> usize {
        match self.affine {
            Affine::None => 0,
            Affine::Weight => 1,
            Affine::WeightAndBias => 2,
        }
    }

    /// `Err` unless just the parameters of the configuration are given.
    fn check_given(&self, names: [&'static str; 2], given: [Option<BufferView<'_>>; 2]) -> Result<()> {
        for (i, (name, view)) in names.into_iter().zip(given).enumerate() {
            check_given(name, i < self.parameters(), view)?;
        }
        Ok(())
    }
}

fn check_given(what: &'static str, wanted: bool, given: Option<BufferView<'_>>) -> Result<()> {
    let need = if wanted { "a buffer" } else { "none, as configured" };
    check_shape(wanted == given.is_some(), what, need, given.map(|view| view.size))
}

kernel! {
    /// Normalises rows, `y = (h - mean) / deviation * weight + bias`.
    LayerNormForward, LayerNormConfig
}

/// Buffers of [`LayerNormForward`].
#[derive(Debug, Clone, Copy)]
pub struct LayerNormForwardArgs<'a> {
    /// Input, `[rows, width]`.
    pub x: BufferView<'a>,
    /// Added to x, `[rows, width]`; given exactly if configured.
    pub residual: Option<BufferView<'a>>,
    /// `[width]`; given exactly if configured.
    pub weight: Option<BufferView<'a>>,
    /// `[width]`; given exactly if configured.
    pub bias: Option<BufferView<'a>>,
    /// `h = x + residual`, `[rows, width]`; given exactly if there is a residual.
    pub hidden: Option<BufferView<'a>>,
    /// Output, `[rows, width]`. A row with a NaN, or with a variance beyond f32, is NaN.
    pub y: BufferView<'a>,
    /// Mean (0 for RMS norm) and inverse deviation of each row, `[rows, 2]`, for the backward pass.
    pub statistics: BufferView<'a>,
}

impl LayerNormForward {
    /// Chooses the variant and the grid.
    pub fn plan(config: &LayerNormConfig, caps: &Capabilities) -> Result<Plan> {
        let n = config.counts()?;
        let (shaders, buffers, adds) =
            if config.residual { (&FORWARD_RESIDUAL, 4, 1) } else { (&FORWARD, 2, 0) };
        let cost = Cost::new(n * (7 + adds), n * 4 * buffers + u64::from(config.rows) * 8);
        Ok(Plan::single(config.lanes(caps).2, config.launch(shaders, caps, cost)?))
    }
}

impl Kernel for LayerNormForward {
    type Args<'a> = LayerNormForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let n = config.counts()?;
        config.check_given(["weight", "bias"], [args.weight, args.bias])?;
        check_given("residual", config.residual, args.residual)?;
        check_given("hidden", config.residual, args.hidden)?;
        // What is not there is never read; x stands in for it.
        let width = config.width.into();
        let none = Arg::words("x", args.x, width);
        let mut list = vec![
            Arg::words("x", args.x, n),
            args.weight.map_or(none, |view| Arg::words("weight", view, width)),
            args.bias.map_or(none, |view| Arg::words("bias", view, width)),
            Arg::words("y", args.y, n),
            Arg::words("statistics", args.statistics, u64::from(config.rows) * 2),
        ];
        list.extend(args.residual.map(|view| Arg::words("residual", view, n)));
        list.extend(args.hidden.map(|view| Arg::words("hidden", view, n)));
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

kernel! {
    /// Gradients of a normalisation's input, weight and bias.
    LayerNormBackward, LayerNormConfig
}

/// Buffers of [`LayerNormBackward`].
#[derive(Debug, Clone, Copy)]
pub struct LayerNormBackwardArgs<'a> {
    /// What was normalised, `[rows, width]`: the forward pass's `hidden` if there was a residual,
    /// else its x.
    pub h: BufferView<'a>,
    /// The forward pass's statistics, `[rows, 2]`.
    pub statistics: BufferView<'a>,
    /// `[width]`; given exactly if configured.
    pub weight: Option<BufferView<'a>>,
    /// Gradient of y, `[rows, width]`.
    pub dy: BufferView<'a>,
    /// Gradient of `hidden` by other ways than y, `[rows, width]`; given exactly if there is a residual.
    pub dhidden: Option<BufferView<'a>>,
    /// Gradient of h, and so of x and of the residual, `[rows, width]`; overwritten.
    pub dh: BufferView<'a>,
    /// Gradient of the weight, `[width]`, overwritten; given exactly if configured.
    pub dweight: Option<BufferView<'a>>,
    /// Gradient of the bias, `[width]`, overwritten; given exactly if configured.
    pub dbias: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl LayerNormBackward {
    /// Chooses the variant and the grids.
    pub fn plan(config: &LayerNormConfig, caps: &Capabilities) -> Result<Plan> {
        let n = config.counts()?;
        let (rows, width) = (u64::from(config.rows), u64::from(config.width));
        let buffers = if config.residual { 4 } else { 3 };
        let cost = Cost::new(n * 10, n * 4 * buffers + rows * 8);
        let mut plan = Plan::single(config.lanes(caps).2, config.launch(&BACKWARD, caps, cost)?);
        if config.affine == Affine::None {
            return Ok(plan);
        }
        let (kind, items) = config.items();
        let columns = items.next_power_of_two().min(COLUMNS_WORKGROUP);
        let blocks = config.blocks().1;
        let groups =
            u64::from(items.div_ceil(columns)) * u64::from(blocks.div_ceil(COLUMNS_WORKGROUP / columns));
        // h and dy are counted above: one reading would do.
        let cost = Cost::new(n * 5, u64::from(blocks) * width * 8);
        let constants = config.constants(COLUMNS_WORKGROUP, 1, columns);
        plan.launches.push(Launch::new(&COLUMNS[kind], constants, &config.params(), groups, caps, cost)?);
        plan.scratch = vec![u64::from(blocks) * width * 4; 2];
        for _ in 0..config.parameters() {
            let sum = ReduceForward::plan(&config.sum(), caps)?;
            plan.launches.extend(sum.launches);
            plan.scratch.extend(sum.scratch);
        }
        Ok(plan)
    }
}

impl Kernel for LayerNormBackward {
    type Args<'a> = LayerNormBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let n = config.counts()?;
        check_given("weight", config.parameters() > 0, args.weight)?;
        check_given("dhidden", config.residual, args.dhidden)?;
        config.check_given(["dweight", "dbias"], [args.dweight, args.dbias])?;
        let h = Arg::words("h", args.h, n);
        let statistics = Arg::words("statistics", args.statistics, u64::from(config.rows) * 2);
        let dy = Arg::words("dy", args.dy, n);
        // What is not there is never read; h and dy stand in for it.
        let width = config.width.into();
        let weight =
            args.weight.map_or(Arg::words("h", args.h, width), |view| Arg::words("weight", view, width));
        let dhidden = args.dhidden.map_or(dy, |view| Arg::words("dhidden", view, n));
        let dh = Arg::words("dh", args.dh, n);
        let [dweight, dbias] = [("dweight", args.dweight), ("dbias", args.dbias)]
            .map(|(what, view)| view.map(|view| Arg::words(what, view, width)));
        let outputs: Vec<_> = [Some(dh), dweight, dbias].into_iter().flatten().collect();
        check_apart(&outputs, &[h, statistics, dy, weight, dhidden].map(Some))?;
        let launches = &self.plan.launches;
        let mut recording =
            Recording::single(context.bind(&launches[0], &[h, statistics, dy, weight, dhidden, dh])?);
        if config.affine == Affine::None {
            return Ok(recording);
        }
        let blocks = [args.scratch.view(0)?, args.scratch.view(1)?];
        let words = u64::from(config.blocks().1) * u64::from(config.width);
        let [weight_blocks, bias_blocks] = blocks.map(|view| Arg::words("scratch", view, words));
        let list = [h, statistics, dy, weight_blocks, bias_blocks];
        recording.push(context.bind(&launches[1], &list)?);
        let sum = ReduceForward::new(context, config.sum())?;
        let each = sum.planned().scratch.len();
        let outputs = [args.dweight, args.dbias].into_iter().flatten();
        for (i, (x, y)) in blocks.into_iter().zip(outputs).enumerate() {
            let own = (0..each).map(|j| args.scratch.view(2 + i * each + j).map(|view| view.buffer.clone()));
            let scratch = Scratch(own.collect::<Result<_>>()?);
            recording.append(sum.prepare(&ReduceForwardArgs { x, y, index: None, scratch: &scratch })?);
        }
        Ok(recording)
    }
}
