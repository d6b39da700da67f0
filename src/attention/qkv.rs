//! Queries, keys and values of one linear layer, apart and together (`shaders/attention/qkv.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// Rows of queries, keys and values side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QkvConfig {
    /// Rows, at least 1.
    pub rows: u32,
    /// Elements of a query, of a key and of a value, at least 1.
    pub width: u32,
}

const WORKGROUP: u32 = 64;

/// Of items of one element, and of four.
static SPLIT: [Shader; 2] = [
    shader!("attention/qkv", "split", [index, scalars], [read("x"), write("q"), write("k"), write("v")]),
    shader!(
        "attention/qkv",
        "split",
        [index, vectors],
        [read("x").vec4(), write("q").vec4(), write("k").vec4(), write("v").vec4()]
    ),
];
static JOIN: [Shader; 2] = [
    shader!(
        "attention/qkv",
        "join",
        [index, scalars],
        [write("x_out"), read("q_in"), read("k_in"), read("v_in")]
    ),
    shader!(
        "attention/qkv",
        "join",
        [index, vectors],
        [write("x_out").vec4(), read("q_in").vec4(), read("k_in").vec4(), read("v_in").vec4()]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    width: u32,
}

impl QkvConfig {
    fn plan(&self, shaders: &'static [Shader; 2], caps: &Capabilities) -> Result<Plan> {
        check_config(self.rows > 0, "rows", "at least 1", self.rows)?;
        check_config(self.width > 0, "width", "at least 1", self.width)?;
        let all = count("x", &[self.rows, 3, self.width])?;
        let (kind, lanes, name) =
            if self.width.is_multiple_of(4) { (1, 4, "vec4") } else { (0, 1, "scalar") };
        let params = Params { items: all / 3 / lanes, width: self.width / lanes };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP);
        let groups = params.items.div_ceil(WORKGROUP).into();
        let cost = Cost::new(0, 8 * u64::from(all));
        Ok(Plan::single(name, Launch::new(&shaders[kind], constants, &params, groups, caps, cost)?))
    }

    fn args<'a>(&self, args: &QkvArgs<'a>) -> [Arg<'a>; 4] {
        let n = u64::from(self.rows) * u64::from(self.width);
        [
            Arg::words("x", args.x, 3 * n),
            Arg::words("q", args.q, n),
            Arg::words("k", args.k, n),
            Arg::words("v", args.v, n),
        ]
    }
}

/// Buffers of [`SplitQkv`] and [`JoinQkv`].
#[derive(Debug, Clone, Copy)]
pub struct QkvArgs<'a> {
    /// All three, `[rows, 3, width]`.
    pub x: BufferView<'a>,
    /// Queries, `[rows, width]`.
    pub q: BufferView<'a>,
    /// Keys, `[rows, width]`.
    pub k: BufferView<'a>,
    /// Values, `[rows, width]`.
    pub v: BufferView<'a>,
}

kernel! {
    /// `q, k, v = x`. Any 32-bit elements; the gradient is [`JoinQkv`].
    SplitQkv, QkvConfig
}

impl SplitQkv {
    /// An invocation an item of each.
    pub fn plan(config: &QkvConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&SPLIT, caps)
    }
}

impl Kernel for SplitQkv {
    type Args<'a> = QkvArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &self.config.args(args))?))
    }
}

kernel! {
    /// `x = q, k, v`. Any 32-bit elements; the gradient is [`SplitQkv`].
    JoinQkv, QkvConfig
}

impl JoinQkv {
    /// An invocation an item of each.
    pub fn plan(config: &QkvConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&JOIN, caps)
    }
}

impl Kernel for JoinQkv {
    type Args<'a> = QkvArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &self.config.args(args))?))
    }
}
