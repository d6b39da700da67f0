//! Swapping two axes (`shaders/dense/swap_axes.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// `[a, b, width]` to `[b, a, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapAxesConfig {
    /// The first axis, at least 1.
    pub a: u32,
    /// The second axis, at least 1.
    pub b: u32,
    /// Elements that stay together, at least 1.
    pub width: u32,
}

static SWAP: [Shader; 2] = [
    shader!("dense/swap_axes", "swap", [index], [read("x"), write("y")]),
    shader!("dense/swap_axes", "swap", [index], [read("x").vec4(), write("y").vec4()]),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    a: u32,
    b: u32,
    width: u32,
    count: u32,
}

kernel! {
    /// `y[j, i] = x[i, j]`, rows of `width` 32-bit words of any kind. The gradient is the same with
    /// `a` and `b` swapped.
    SwapAxes, SwapAxesConfig
}

/// Buffers of [`SwapAxes`].
#[derive(Debug, Clone, Copy)]
pub struct SwapAxesArgs<'a> {
    /// Input, `[a, b, width]`.
    pub x: BufferView<'a>,
    /// Output, `[b, a, width]`.
    pub y: BufferView<'a>,
}

impl SwapAxesConfig {
    fn count(&self) -> Result<u32> {
        for (what, value) in [("a", self.a), ("b", self.b), ("width", self.width)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        count("x", &[self.a, self.b, self.width])
    }
}

impl SwapAxes {
    /// One launch.
    pub fn plan(config: &SwapAxesConfig, caps: &Capabilities) -> Result<Plan> {
        let elements = config.count()?;
        let whole = config.width.is_multiple_of(4);
        let lanes = if whole { 4 } else { 1 };
        let constants = Constants::new().alias("Words", if whole { "vec4<u32>" } else { "u32" });
        let SwapAxesConfig { a, b, width } = *config;
        let params = Params { a, b, width: width / lanes, count: elements / lanes };
        let groups = params.count.div_ceil(64).into();
        let cost = Cost::new(0, 8 * u64::from(elements));
        let shader = &SWAP[usize::from(whole)];
        let name = if whole { "vec4" } else { "scalar" };
        Ok(Plan::single(name, Launch::new(shader, constants, &params, groups, caps, cost)?))
    }
}

impl Kernel for SwapAxes {
    type Args<'a> = SwapAxesArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = u64::from(self.config.count()?);
        let args = [Arg::words("x", args.x, n), Arg::words("y", args.y, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
