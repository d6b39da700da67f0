//! Head selector and message controller of reversed attention (`shaders/attention/head_selector.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// Weights `w_h = softmax(s / temperature)_h m_before sigmoid(z)` of each token and head
/// (DependencyViT, arXiv 2304.03282).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSelectorConfig {
    /// Tokens of the whole batch, at least 1.
    pub rows: u32,
    /// Heads, at least 1.
    pub heads: u32,
    /// Of the softmax over heads, above 0; the paper's is 0.1.
    pub temperature: f32,
}

impl Default for HeadSelectorConfig {
    fn default() -> Self {
        Self { rows: 1, heads: 12, temperature: 0.1 }
    }
}

const WORKGROUP: u32 = 64;

static FORWARD: Shader = shader!(
    "attention/head_selector",
    "forward",
    [index],
    [read("s"), read("z"), read("before"), write("p"), write("m"), write("w")]
);
static BACKWARD: Shader = shader!(
    "attention/head_selector",
    "backward",
    [index],
    [
        read("p_in"),
        read("z"),
        read("before"),
        read("dw"),
        read("dm"),
        write("ds"),
        write("dz"),
        write("dbefore")
    ]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    heads: u32,
    inverse_temperature: f32,
}

impl HeadSelectorConfig {
    fn plan(
        &self,
        shader: &'static Shader,
        flops: u64,
        words: [u64; 2],
        caps: &Capabilities,
    ) -> Result<Plan> {
        let Self { rows, heads, temperature } = *self;
        check_config(rows > 0, "rows", "at least 1", rows)?;
        check_config(heads > 0, "heads", "at least 1", heads)?;
        let inverse_temperature = temperature.recip();
        let fits = temperature > 0.0 && inverse_temperature.is_finite() && inverse_temperature > 0.0;
        check_config(fits, "temperature", "above 0 and finite, as is its inverse", temperature)?;
        let n = u64::from(count("s", &[rows, heads])?);
        caps.check_rounds("heads", heads, 3 * u64::from(heads))?;
        let params = Params { rows, heads, inverse_temperature };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP);
        let cost = Cost::new(n * flops, 4 * (n * words[0] + u64::from(rows) * words[1]));
        let groups = rows.div_ceil(WORKGROUP).into();
        Ok(Plan::single("row", Launch::new(shader, constants, &params, groups, caps, cost)?))
    }

    fn counts(&self) -> [u64; 2] {
        [u64::from(self.rows), u64::from(self.rows) * u64::from(self.heads)]
    }
}

kernel! {
    /// Shares of the heads, messages and weights.
    HeadSelectorForward, HeadSelectorConfig
}

/// Buffers of [`HeadSelectorForward`].
#[derive(Debug, Clone, Copy)]
pub struct HeadSelectorForwardArgs<'a> {
    /// Scores of the heads, `[rows, heads]`.
    pub s: BufferView<'a>,
    /// What goes into the message's sigmoid, `[rows]`.
    pub z: BufferView<'a>,
    /// Message of the layer before, `[rows]`; ones for the first layer.
    pub before: BufferView<'a>,
    /// Shares of the heads, `[rows, heads]`; their sum is 1.
    pub p: BufferView<'a>,
    /// Message, `[rows]`: `before sigmoid(z)`.
    pub m: BufferView<'a>,
    /// Weights, `[rows, heads]`: `p m`.
    pub w: BufferView<'a>,
}

impl HeadSelectorForward {
    /// An invocation a token.
    pub fn plan(config: &HeadSelectorConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&FORWARD, 6, [3, 3], caps)
    }
}

impl Kernel for HeadSelectorForward {
    type Args<'a> = HeadSelectorForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [rows, n] = self.config.counts();
        let list = [
            Arg::words("s", args.s, n),
            Arg::words("z", args.z, rows),
            Arg::words("before", args.before, rows),
            Arg::words("p", args.p, n),
            Arg::words("m", args.m, rows),
            Arg::words("w", args.w, n),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

kernel! {
    /// Gradients of scores, messages and what goes into the sigmoid.
    HeadSelectorBackward, HeadSelectorConfig
}

/// Buffers of [`HeadSelectorBackward`].
#[derive(Debug, Clone, Copy)]
pub struct HeadSelectorBackwardArgs<'a> {
    /// The forward pass's shares, `[rows, heads]`.
    pub p: BufferView<'a>,
    /// As in the forward pass.
    pub z: BufferView<'a>,
    /// As in the forward pass.
    pub before: BufferView<'a>,
    /// Gradient of the weights, `[rows, heads]`.
    pub dw: BufferView<'a>,
    /// Gradient of the message by other ways than the weights, `[rows]`: the next layer's `dbefore`;
    /// zeros for the last.
    pub dm: BufferView<'a>,
    /// Gradient of the scores, `[rows, heads]`; overwritten.
    pub ds: BufferView<'a>,
    /// Gradient of z, `[rows]`; overwritten.
    pub dz: BufferView<'a>,
    /// Gradient of the message of the layer before, `[rows]`; overwritten.
    pub dbefore: BufferView<'a>,
}

impl HeadSelectorBackward {
    /// An invocation a token.
    pub fn plan(config: &HeadSelectorConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&BACKWARD, 5, [3, 5], caps)
    }
}

impl Kernel for HeadSelectorBackward {
    type Args<'a> = HeadSelectorBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [rows, n] = self.config.counts();
        let list = [
            Arg::words("p", args.p, n),
            Arg::words("z", args.z, rows),
            Arg::words("before", args.before, rows),
            Arg::words("dw", args.dw, n),
            Arg::words("dm", args.dm, rows),
            Arg::words("ds", args.ds, n),
            Arg::words("dz", args.dz, rows),
            Arg::words("dbefore", args.dbefore, rows),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}
