//! A learnable order of the patches, as sines and cosines (`shaders/attention/learned_order.wgsl`).

use crate::dense::{ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_apart, check_config, check_workgroup, count, kernel, read, shader, write,
};

/// Positions `X = order + shift` of the patches on a curve, as `[sin(X W^T) | cos(X W^T)]` (LOOPE,
/// arXiv 2504.14386).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LearnedOrderConfig {
    /// Images, at least 1.
    pub batch: u32,
    /// Patches of an image, at least 1.
    pub tokens: u32,
    /// Frequencies, half of the width; at least 1.
    pub frequencies: u32,
    /// Invocations that share a row of the shift's gradient, a power of 2 up to 64; `None`: one on CPU
    /// adapters, else up to 16.
    pub lanes: Option<u32>,
}

const WORKGROUP: u32 = 64;
/// Invocations that keep a device busy.
const BUSY: u32 = 1 << 14;

static FORWARD: Shader = shader!(
    "attention/learned_order",
    "forward",
    [index, sincos, row_sum],
    [read("order"), read("shift"), read("frequency"), write("e")]
);
static ROWS: Shader = shader!(
    "attention/learned_order",
    "rows",
    [index, sincos, row_sum],
    [read("order"), read("shift"), read("frequency"), read("de"), write("dshift")]
);
static COLUMNS: Shader = shader!(
    "attention/learned_order",
    "columns",
    [index, sincos, row_sum],
    [read("order"), read("shift"), read("frequency"), read("de"), write("frequency_blocks")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    tokens: u32,
    frequencies: u32,
    block: u32,
    blocks: u32,
}

impl LearnedOrderConfig {
    fn check(&self) -> Result<()> {
        let fields = [("batch", self.batch), ("tokens", self.tokens), ("frequencies", self.frequencies)];
        for (what, value) in fields {
            check_config(value > 0, what, "at least 1", value)?;
        }
        count("e", &[self.batch, self.tokens, 2, self.frequencies]).map(drop)
    }

    fn params(&self) -> Params {
        let Self { batch, tokens, frequencies, .. } = *self;
        let rows = batch * tokens;
        let block = rows.div_ceil(BUSY.div_ceil(frequencies)).clamp(16, 256);
        Params { rows, tokens, frequencies, block, blocks: rows.div_ceil(block) }
    }

    /// Elements of `e`.
    fn elements(&self) -> u64 {
        2 * u64::from(self.batch) * u64::from(self.tokens) * u64::from(self.frequencies)
    }

    /// The sum of the blocks.
    fn sum(&self) -> ReduceConfig {
        let (n, inner) = (self.params().blocks, self.frequencies);
        ReduceConfig { reduction: Reduction::Sum, outer: 1, n, inner, variant: None, part: None }
    }

    fn inputs<'a>(&self, views: [BufferView<'a>; 3]) -> [Arg<'a>; 3] {
        let [order, shift, frequency] = views;
        [
            Arg::words("order", order, self.tokens.into()),
            Arg::words("shift", shift, u64::from(self.batch) * u64::from(self.tokens)),
            Arg::words("frequency", frequency, self.frequencies.into()),
        ]
    }
}

fn constants(lanes: u32) -> Constants {
    Constants::new().u32("WORKGROUP", WORKGROUP).u32("LANES", lanes)
}

kernel! {
    /// `e = [sin(X W^T) | cos(X W^T)]`.
    LearnedOrderForward, LearnedOrderConfig
}

/// Buffers of [`LearnedOrderForward`].
#[derive(Debug, Clone, Copy)]
pub struct LearnedOrderForwardArgs<'a> {
    /// Place of each patch on the curve, `[tokens]`: see [`gilbert_ranks`](super::gilbert_ranks).
    pub order: BufferView<'a>,
    /// What the image's content adds, `[batch, tokens]`.
    pub shift: BufferView<'a>,
    /// Frequencies `W` in rad a place, `[frequencies]`; `|X W|` up to 50,000.
    pub frequency: BufferView<'a>,
    /// Output, `[batch, tokens, 2 frequencies]`.
    pub e: BufferView<'a>,
}

impl LearnedOrderForward {
    /// An invocation a pair of sine and cosine.
    pub fn plan(config: &LearnedOrderConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let params = config.params();
        let n = config.elements();
        let cost = Cost::new(12 * n, 4 * (n + u64::from(params.rows)));
        let groups = (params.rows * params.frequencies).div_ceil(WORKGROUP).into();
        Ok(Plan::single("pair", Launch::new(&FORWARD, constants(1), &params, groups, caps, cost)?))
    }
}

impl Kernel for LearnedOrderForward {
    type Args<'a> = LearnedOrderForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let mut list = self.config.inputs([args.order, args.shift, args.frequency]).to_vec();
        list.push(Arg::words("e", args.e, self.config.elements()));
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

kernel! {
    /// Gradients of the shift and of the frequencies.
    LearnedOrderBackward, LearnedOrderConfig
}

/// Buffers of [`LearnedOrderBackward`].
#[derive(Debug, Clone, Copy)]
pub struct LearnedOrderBackwardArgs<'a> {
    /// As in the forward pass.
    pub order: BufferView<'a>,
    /// As in the forward pass.
    pub shift: BufferView<'a>,
    /// As in the forward pass.
    pub frequency: BufferView<'a>,
    /// Gradient of e, `[batch, tokens, 2 frequencies]`.
    pub de: BufferView<'a>,
    /// Gradient of the shift, `[batch, tokens]`; overwritten.
    pub dshift: BufferView<'a>,
    /// Gradient of the frequencies, `[frequencies]`; overwritten.
    pub dfrequency: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl LearnedOrderBackward {
    /// Sums over frequencies, and over rows in blocks.
    pub fn plan(config: &LearnedOrderConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let params = config.params();
        let default = if caps.cpu { 1 } else { config.frequencies.min(16).next_power_of_two() };
        let lanes = config.lanes.unwrap_or(default);
        let fits = lanes.is_power_of_two() && lanes <= WORKGROUP;
        check_config(fits, "lanes", "a power of 2 up to 64", lanes)?;
        let each = config.frequencies.div_ceil(lanes);
        caps.check_rounds("frequencies", config.frequencies, each.into())?;
        check_workgroup("attention/learned_order", WORKGROUP, 8 * WORKGROUP, caps)?;
        let n = config.elements();
        let cost = Cost::new(13 * n, 4 * (n + 2 * u64::from(params.rows)));
        let groups = params.rows.div_ceil(WORKGROUP / lanes).into();
        let rows = Launch::new(&ROWS, constants(lanes), &params, groups, caps, cost)?;
        let mut plan = Plan::single(if lanes == 1 { "invocation" } else { "lanes" }, rows);
        let blocks = count("blocks", &[params.blocks, params.frequencies])?;
        // The gradient is counted above: one reading would do.
        let cost = Cost::new(13 * n, 4 * u64::from(blocks));
        let groups = blocks.div_ceil(WORKGROUP).into();
        plan.launches.push(Launch::new(&COLUMNS, constants(1), &params, groups, caps, cost)?);
        plan.scratch.push(4 * u64::from(blocks));
        let sum = ReduceForward::plan(&config.sum(), caps)?;
        plan.launches.extend(sum.launches);
        plan.scratch.extend(sum.scratch);
        Ok(plan)
    }
}

impl Kernel for LearnedOrderBackward {
    type Args<'a> = LearnedOrderBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let params = config.params();
        let blocks = args.scratch.view(0)?;
        let mut list = config.inputs([args.order, args.shift, args.frequency]).to_vec();
        list.push(Arg::words("de", args.de, config.elements()));
        let dshift = Arg::words("dshift", args.dshift, params.rows.into());
        let dfrequency = Arg::words("dfrequency", args.dfrequency, config.frequencies.into());
        let inputs: Vec<_> = list.iter().copied().map(Some).collect();
        check_apart(&[dshift, dfrequency], &inputs)?;
        list.push(dshift);
        let mut recording = Recording::single(context.bind(&self.plan.launches[0], &list)?);
        let words = u64::from(params.blocks) * u64::from(params.frequencies);
        list[4] = Arg::words("scratch", blocks, words);
        recording.push(context.bind(&self.plan.launches[1], &list)?);
        let scratch = Scratch(args.scratch.0.iter().skip(1).cloned().collect());
        let sum = ReduceForwardArgs { x: blocks, y: args.dfrequency, index: None, scratch: &scratch };
        recording.append(ReduceForward::new(context, config.sum())?.prepare(&sum)?);
        Ok(recording)
    }
}
