//! Filling, copying, converting and adding whole arrays (`shaders/dense/copy.wgsl`).

use crate::dispatch::{
    Arg, Binding, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, kernel, read, shader, write,
};

/// How many elements an invocation moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyVariant {
    /// One (a word of two for the conversions); any count.
    Scalar,
    /// Four; the count must be a multiple of 4.
    Vec4,
}

/// Of scalars, and of vec4s: large workgroups copy a third faster on CPU adapters.
const WORKGROUP: [u32; 2] = [64, 256];

const fn vec2(binding: Binding) -> Binding {
    Binding { stride: 8, ..binding }
}

static FILL: [Shader; 2] = [
    shader!("dense/copy", "fill", [index, half], [write("y")]),
    shader!("dense/copy", "fill_vec4", [index, half], [write("y").vec4()]),
];
static COPY: [Shader; 2] = [
    shader!("dense/copy", "copy", [index, half], [read("x"), write("y")]),
    shader!("dense/copy", "copy_vec4", [index, half], [read("x").vec4(), write("y").vec4()]),
];
static NARROW: [Shader; 2] = [
    shader!("dense/copy", "narrow", [index, half], [read("x"), write("y")]),
    shader!("dense/copy", "narrow_vec4", [index, half], [read("x").vec4(), vec2(write("y"))]),
];
static WIDEN: [Shader; 2] = [
    shader!("dense/copy", "widen", [index, half], [read("x"), write("y")]),
    shader!("dense/copy", "widen_vec4", [index, half], [vec2(read("x")), write("y").vec4()]),
];
static ADD: [Shader; 2] = [
    shader!("dense/copy", "add", [index, half], [read("x"), write("y")]),
    shader!("dense/copy", "add_vec4", [index, half], [read("x").vec4(), write("y").vec4()]),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    count: u32,
    value: u32,
    a: f32,
    b: f32,
}

/// `per_item` elements of a scalar invocation; flops and bytes of one element.
fn plan(
    variant: Option<CopyVariant>,
    shaders: &'static [Shader; 2],
    per_item: u32,
    mut params: Params,
    (flops, bytes): (u64, u64),
    caps: &Capabilities,
) -> Result<Plan> {
    let count = params.count;
    check_config(count > 0, "count", "at least 1", count)?;
    let whole = count.is_multiple_of(4);
    let variant = variant.unwrap_or(if whole { CopyVariant::Vec4 } else { CopyVariant::Scalar });
    let (shader, name, workgroup) = match variant {
        CopyVariant::Scalar => {
            params.items = count.div_ceil(per_item);
            (&shaders[0], "scalar", WORKGROUP[0])
        }
        CopyVariant::Vec4 => {
            check_config(whole, "count", "a multiple of 4 for the vec4 variant", count)?;
            params.items = count / 4;
            (&shaders[1], "vec4", WORKGROUP[1])
        }
    };
    let constants = Constants::new().u32("WORKGROUP", workgroup);
    let cost = Cost::new(u64::from(count) * flops, u64::from(count) * bytes);
    let groups = params.items.div_ceil(workgroup).into();
    Ok(Plan::single(name, Launch::new(shader, constants, &params, groups, caps, cost)?))
}

/// Configuration of [`Fill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillConfig {
    /// 32-bit elements, at least 1.
    pub count: u32,
    /// The word that each becomes; `f32::to_bits` of a float.
    pub value: u32,
    /// `None`: the fastest that fits.
    pub variant: Option<CopyVariant>,
}

kernel! {
    /// `y = value`.
    Fill, FillConfig
}

/// Buffers of [`Fill`].
#[derive(Debug, Clone, Copy)]
pub struct FillArgs<'a> {
    /// Output, `[count]` words.
    pub y: BufferView<'a>,
}

impl Fill {
    /// Chooses the variant and the grid.
    pub fn plan(config: &FillConfig, caps: &Capabilities) -> Result<Plan> {
        let params = Params { count: config.count, value: config.value, ..Params::default() };
        plan(config.variant, &FILL, 1, params, (0, 4), caps)
    }
}

impl Kernel for Fill {
    type Args<'a> = FillArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [Arg::words("y", args.y, self.config.count.into())];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

/// Configuration of [`CopyWords`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyConfig {
    /// 32-bit elements, at least 1.
    pub count: u32,
    /// `None`: the fastest that fits.
    pub variant: Option<CopyVariant>,
}

kernel! {
    /// `y = x`, any 32-bit words; unlike a copy command it can stand inside a compute pass.
    CopyWords, CopyConfig
}

/// Buffers of [`CopyWords`].
#[derive(Debug, Clone, Copy)]
pub struct CopyArgs<'a> {
    /// Input, `[count]` words.
    pub x: BufferView<'a>,
    /// Output, `[count]` words; of another buffer than `x`.
    pub y: BufferView<'a>,
}

impl CopyWords {
    /// Chooses the variant and the grid.
    pub fn plan(config: &CopyConfig, caps: &Capabilities) -> Result<Plan> {
        let params = Params { count: config.count, ..Params::default() };
        plan(config.variant, &COPY, 1, params, (0, 8), caps)
    }
}

impl Kernel for CopyWords {
    type Args<'a> = CopyArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        let args = [Arg::words("x", args.x, n), Arg::words("y", args.y, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

/// The direction of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// f32 to f16, to the nearest and ties to even; from 65,520 on infinity.
    Narrow,
    /// f16 to f32, exact.
    Widen,
}

/// Configuration of [`Convert`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvertConfig {
    /// Elements, at least 1.
    pub count: u32,
    /// From what to what.
    pub conversion: Conversion,
    /// `None`: the fastest that fits.
    pub variant: Option<CopyVariant>,
}

kernel! {
    /// Converts between f32 and f16 (two to a word, the first in the low half) on any device,
    /// with or without f16 in its shaders. Denormals, infinities and NaN are kept.
    Convert, ConvertConfig
}

/// Buffers of [`Convert`].
#[derive(Debug, Clone, Copy)]
pub struct ConvertArgs<'a> {
    /// Input, `[count]`.
    pub x: BufferView<'a>,
    /// Output, `[count]`; of an odd count of f16, the other half of the last word becomes 0.
    pub y: BufferView<'a>,
}

impl Convert {
    /// Chooses the variant and the grid.
    pub fn plan(config: &ConvertConfig, caps: &Capabilities) -> Result<Plan> {
        let params = Params { count: config.count, ..Params::default() };
        let shaders = match config.conversion {
            Conversion::Narrow => &NARROW,
            Conversion::Widen => &WIDEN,
        };
        plan(config.variant, shaders, 2, params, (0, 6), caps)
    }
}

impl Kernel for Convert {
    type Args<'a> = ConvertArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        let (from, to) = match self.config.conversion {
            Conversion::Narrow => (4, 2),
            Conversion::Widen => (2, 4),
        };
        let args = [Arg::new("x", args.x, n, from), Arg::new("y", args.y, n, to)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

/// Configuration of [`Add`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddConfig {
    /// f32 elements, at least 1.
    pub count: u32,
    /// Factor of `x`, finite.
    pub a: f32,
    /// Factor of `y`, finite. With 0 the old contents are not read: NaN there does not survive.
    pub b: f32,
    /// `None`: the fastest that fits.
    pub variant: Option<CopyVariant>,
}

kernel! {
    /// `y = a x + b y`.
    Add, AddConfig
}

/// Buffers of [`Add`].
#[derive(Debug, Clone, Copy)]
pub struct AddArgs<'a> {
    /// Input, `[count]`.
    pub x: BufferView<'a>,
    /// Read and overwritten, `[count]`.
    pub y: BufferView<'a>,
}

impl Add {
    /// Chooses the variant and the grid.
    pub fn plan(config: &AddConfig, caps: &Capabilities) -> Result<Plan> {
        check_config(config.a.is_finite(), "a", "finite", config.a)?;
        check_config(config.b.is_finite(), "b", "finite", config.b)?;
        let params = Params { count: config.count, a: config.a, b: config.b, ..Params::default() };
        plan(config.variant, &ADD, 1, params, (3, 12), caps)
    }
}

impl Kernel for Add {
    type Args<'a> = AddArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        let args = [Arg::words("x", args.x, n), Arg::words("y", args.y, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
