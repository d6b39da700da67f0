//! From the slots of experts back to tokens: the weighted sum of what the experts gave
//! (`shaders/attention/combine.wgsl`, between gathers and sums of rows by index).
//!
//! [`WeighForward`] and [`WeighBackward`] are the products alone: rows times a weight each.
//!
//! The way there, tokens into slots, is [`Gather`] with the slots' tokens as its index, and its gradient
//! [`ScatterAdd`]: an empty slot names no token, and reads zeros.

use crate::dense::{Gather, GatherArgs, GatherConfig, ScatterAdd, ScatterAddArgs, ScatterAddConfig};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Planned, Recording, Result,
    Scratch, Shader, check_config, count, kernel, read, shader, write,
};

/// Shapes of a combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CombineConfig {
    /// Tokens n, at least 1.
    pub tokens: u32,
    /// Slots of all experts, at least 1.
    pub slots: u32,
    /// Elements of a token, at least 1.
    pub width: u32,
}

static WEIGH: [Shader; 2] = [
    shader!("attention/combine", "weigh", [index, scalars], [read("weight"), read("x"), write("y")]),
    shader!(
        "attention/combine",
        "weigh",
        [index, vectors],
        [read("weight"), read("x").vec4(), write("y").vec4()]
    ),
];
static WEIGH_BACKWARD: [Shader; 2] = [
    shader!(
        "attention/combine",
        "weigh_backward",
        [index, scalars],
        [read("weight"), read("x"), read("dy"), write("dx"), write("dweight")]
    ),
    shader!(
        "attention/combine",
        "weigh_backward",
        [index, vectors],
        [read("weight"), read("x").vec4(), read("dy").vec4(), write("dx").vec4(), write("dweight")]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    count: u32,
}

impl CombineConfig {
    fn gather(&self) -> GatherConfig {
        GatherConfig { rows: self.tokens, n: self.slots, width: self.width, variant: None }
    }

    fn sum(&self) -> ScatterAddConfig {
        ScatterAddConfig { gather: self.gather(), accumulate: false }
    }

    fn weigh(&self) -> WeighConfig {
        WeighConfig { rows: self.slots, width: self.width }
    }
}

/// Rows of a matrix, each with a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeighConfig {
    /// Rows, at least 1.
    pub rows: u32,
    /// Elements of a row, at least 1.
    pub width: u32,
}

impl WeighConfig {
    fn check(&self) -> Result<()> {
        check_config(self.rows > 0, "rows", "at least 1", self.rows)?;
        check_config(self.width > 0, "width", "at least 1", self.width)?;
        count("x", &[self.rows, self.width]).map(drop)
    }

    /// The launch of either entry point; the sizes are checked.
    fn launch(&self, shaders: &'static [Shader; 2], backward: bool, caps: &Capabilities) -> Result<Launch> {
        let WeighConfig { rows, width } = *self;
        let whole = width.is_multiple_of(4);
        let lanes = if whole { 4 } else { 1 };
        let items = rows * (width / lanes);
        if backward {
            caps.check_rounds("width", width, (width / lanes).into())?;
        }
        let elements = u64::from(rows) * u64::from(width);
        let params = Params { rows, width: width / lanes, count: items };
        let (groups, buffers) = if backward { (rows.div_ceil(8), 3) } else { (items.div_ceil(64), 2) };
        let cost = Cost::new(elements * buffers, 4 * elements * buffers);
        Launch::new(&shaders[usize::from(whole)], Constants::new(), &params, groups.into(), caps, cost)
    }

    fn args<'a>(&self, weight: BufferView<'a>, x: BufferView<'a>) -> [Arg<'a>; 2] {
        [Arg::words("weight", weight, self.rows.into()), self.rows("x", x)]
    }

    fn rows<'a>(&self, what: &'static str, view: BufferView<'a>) -> Arg<'a> {
        Arg::words(what, view, u64::from(self.rows) * u64::from(self.width))
    }
}

kernel! {
    /// `y_sc = weight_s x_sc`.
    WeighForward, WeighConfig
}

/// Buffers of [`WeighForward`].
#[derive(Debug, Clone, Copy)]
pub struct WeighForwardArgs<'a> {
    /// Rows, `[rows, width]`.
    pub x: BufferView<'a>,
    /// The weight of each, `[rows]`.
    pub weight: BufferView<'a>,
    /// Output, `[rows, width]`.
    pub y: BufferView<'a>,
}

impl WeighForward {
    /// An invocation an item.
    pub fn plan(config: &WeighConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        Ok(Plan::single("item", config.launch(&WEIGH, false, caps)?))
    }
}

impl Kernel for WeighForward {
    type Args<'a> = WeighForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [weight, x] = self.config.args(args.weight, args.x);
        let list = [weight, x, self.config.rows("y", args.y)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

kernel! {
    /// Gradients of rows and weights: `dx_sc = weight_s dy_sc`, `dweight_s = sum_c x_sc dy_sc`.
    WeighBackward, WeighConfig
}

/// Buffers of [`WeighBackward`].
#[derive(Debug, Clone, Copy)]
pub struct WeighBackwardArgs<'a> {
    /// As in the forward pass.
    pub x: BufferView<'a>,
    /// As in the forward pass.
    pub weight: BufferView<'a>,
    /// Gradient of the output, `[rows, width]`.
    pub dy: BufferView<'a>,
    /// Gradient of the rows, `[rows, width]`; overwritten.
    pub dx: BufferView<'a>,
    /// Gradient of the weights, `[rows]`; overwritten.
    pub dweight: BufferView<'a>,
}

impl WeighBackward {
    /// An invocation a row.
    pub fn plan(config: &WeighConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        Ok(Plan::single("row", config.launch(&WEIGH_BACKWARD, true, caps)?))
    }
}

impl Kernel for WeighBackward {
    type Args<'a> = WeighBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [weight, x] = self.config.args(args.weight, args.x);
        let (dy, dx) = (self.config.rows("dy", args.dy), self.config.rows("dx", args.dx));
        let dweight = Arg::words("dweight", args.dweight, self.config.rows.into());
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &[weight, x, dy, dx, dweight])?))
    }
}

kernel! {
    /// `y_i` = the sum of `weight_s x_s` over the slots `s` of token `i`; 0 for a token without a slot.
    CombineForward, CombineConfig
}

/// Buffers of [`CombineForward`].
#[derive(Debug, Clone, Copy)]
pub struct CombineForwardArgs<'a> {
    /// What the experts gave, `[slots, width]`.
    pub x: BufferView<'a>,
    /// The weight of each slot, `[slots]`.
    pub weight: BufferView<'a>,
    /// The token of each slot, u32 `[slots]`; `tokens` or more: none.
    pub token: BufferView<'a>,
    /// Output, `[tokens, width]`.
    pub y: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl CombineForward {
    /// The products, and their sums by token.
    pub fn plan(config: &CombineConfig, caps: &Capabilities) -> Result<Plan> {
        let sum = ScatterAdd::plan(&config.sum(), caps)?;
        let elements = config.slots * config.width;
        let weigh = Plan::single("", config.weigh().launch(&WEIGH, false, caps)?);
        Ok(Plan::join(sum.variant, [Plan::words(elements), weigh, sum]))
    }
}

impl Kernel for CombineForward {
    type Args<'a> = CombineForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let sum = ScatterAdd::new(context, config.sum())?;
        let [own, scratch] = args.scratch.split([1, sum.planned().scratch.len()])?;
        let product = own.view(0)?;
        let [weight, x] = config.weigh().args(args.weight, args.x);
        let list = [weight, x, config.weigh().rows("scratch", product)];
        let mut recording = Recording::single(context.bind(&self.plan.launches[0], &list)?);
        let to_sum = ScatterAddArgs { dy: product, index: args.token, dx: args.y, scratch: &scratch };
        recording.append(sum.prepare(&to_sum)?);
        Ok(recording)
    }
}

kernel! {
    /// Gradients of what the experts gave, and of the weights; both 0 in a slot without a token.
    CombineBackward, CombineConfig
}

/// Buffers of [`CombineBackward`].
#[derive(Debug, Clone, Copy)]
pub struct CombineBackwardArgs<'a> {
    /// What the experts gave, `[slots, width]`.
    pub x: BufferView<'a>,
    /// The weight of each slot, `[slots]`.
    pub weight: BufferView<'a>,
    /// The token of each slot, u32 `[slots]`; `tokens` or more: none.
    pub token: BufferView<'a>,
    /// Gradient of the output, `[tokens, width]`.
    pub dy: BufferView<'a>,
    /// Gradient of `x`, `[slots, width]`; overwritten.
    pub dx: BufferView<'a>,
    /// Gradient of the weights, `[slots]`; overwritten.
    pub dweight: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl CombineBackward {
    /// The gradient of each slot's token, and the products.
    pub fn plan(config: &CombineConfig, caps: &Capabilities) -> Result<Plan> {
        let gather = Gather::plan(&config.gather(), caps)?;
        let weigh = Plan::single("", config.weigh().launch(&WEIGH_BACKWARD, true, caps)?);
        Ok(Plan::join(gather.variant, [Plan::words(config.slots * config.width), gather, weigh]))
    }
}

impl Kernel for CombineBackward {
    type Args<'a> = CombineBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let dy = args.scratch.view(0)?;
        let gather = Gather::new(context, config.gather())?;
        let mut recording = gather.prepare(&GatherArgs { x: args.dy, index: args.token, y: dy })?;
        let config = config.weigh();
        let [weight, x] = config.args(args.weight, args.x);
        let dweight = Arg::words("dweight", args.dweight, config.rows.into());
        let list = [weight, x, config.rows("scratch", dy), config.rows("dx", args.dx), dweight];
        let launch = config.launch(&WEIGH_BACKWARD, true, context.capabilities())?;
        recording.push(context.bind(&launch, &list)?);
        Ok(recording)
    }
}
