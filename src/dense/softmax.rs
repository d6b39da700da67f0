//! Softmax and log-softmax over the last axis (`shaders/dense/softmax.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_config, check_shape, check_workgroup, count, kernel, read, shader, write,
};

/// A bias of this or less masks its element.
pub const MASKED: f32 = -1e30;

/// How rows are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftmaxVariant {
    /// One invocation a row: short rows, and CPU adapters.
    Invocation,
    /// One workgroup a row; rows of more than 1,024 items in parts. An item is one element, or four
    /// where `n` is a multiple of 4.
    Workgroup,
}

/// An additive bias with fewer rows than the logits: row `r` takes its row `(r / repeat) % rows`.
///
/// Of scores `[B, Q, N]`, one for each image (a key mask, `[B, N]`) has `rows: B, repeat: Q`; one for
/// all images (`[Q, N]`) has `rows: Q, repeat: 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftmaxBias {
    /// Rows of the bias, at least 1.
    pub rows: u32,
    /// How many rows of logits in succession take the same one, at least 1.
    pub repeat: u32,
}

/// `softmax(scale x + bias)` of each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxConfig {
    /// Rows, at least 1.
    pub rows: u32,
    /// Elements of a row, at least 1.
    pub n: u32,
    /// Factor of the logits, finite.
    pub scale: f32,
    /// The logarithm of the softmax instead.
    pub log: bool,
    /// Added to the scaled logits; [`MASKED`] or less masks.
    pub bias: Option<SoftmaxBias>,
    /// `None`: by the shape and the adapter.
    pub variant: Option<SoftmaxVariant>,
}

impl Default for SoftmaxConfig {
    fn default() -> Self {
        Self { rows: 1, n: 1, scale: 1.0, log: false, bias: None, variant: None }
    }
}

/// Items that an invocation holds in registers.
const HELD: u32 = 4;
/// Invocations of a workgroup for a row of up to 256 items, and for a longer one. Rows one an
/// invocation: the first.
const WORKGROUPS: [u32; 2] = [64, 256];

/// `[width][entry]`: one element an item, or four.
macro_rules! shaders {
    ([$($element:tt)*], $width:ident) => {
        [
            shader!(
                "dense/softmax", "rows", [index, $width],
                [read("x")$($element)*, read("bias")$($element)*, write("y_bits")$($element)*]
            ),
            shader!(
                "dense/softmax", "row", [index, $width],
                [read("x")$($element)*, read("bias")$($element)*, write("y_bits")$($element)*]
            ),
            shader!(
                "dense/softmax", "part", [index, $width],
                [read("x")$($element)*, read("bias")$($element)*, write("parts_out").stride(8)]
            ),
            shader!(
                "dense/softmax", "merge", [index, $width],
                [
                    read("x")$($element)*,
                    read("bias")$($element)*,
                    write("y_bits")$($element)*,
                    read("parts_in").stride(8)
                ]
            ),
            shader!(
                "dense/softmax", "rows_backward", [index, $width],
                [read("y")$($element)*, read("dy")$($element)*, write("dx")$($element)*]
            ),
            shader!(
                "dense/softmax", "row_backward", [index, $width],
                [read("y")$($element)*, read("dy")$($element)*, write("dx")$($element)*]
            ),
            shader!(
                "dense/softmax", "part_backward", [index, $width],
                [read("y")$($element)*, read("dy")$($element)*, write("dots_out")]
            ),
            shader!(
                "dense/softmax", "merge_backward", [index, $width],
                [read("y")$($element)*, read("dy")$($element)*, write("dx")$($element)*, read("dots_in")]
            ),
        ]
    };
}
static SHADERS: [[Shader; 8]; 2] = [shaders!([], scalars), shaders!([.vec4()], vectors)];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    n: u32,
    parts: u32,
    length: u32,
    bias_rows: u32,
    bias_repeat: u32,
    scale: f32,
}

impl SoftmaxConfig {
    /// Elements of x, and of the bias.
    fn counts(&self) -> Result<(u32, u32)> {
        check_config(self.rows > 0, "rows", "at least 1", self.rows)?;
        check_config(self.n > 0, "n", "at least 1", self.n)?;
        // Strided loops step over the end of a row by up to what a workgroup holds.
        check_config(self.n <= u32::MAX - 1024, "n", "at most 2^32 - 1025", self.n)?;
        check_config(self.scale.is_finite(), "scale", "finite", self.scale)?;
        if let Some(bias) = self.bias {
            check_config(bias.rows > 0 && bias.repeat > 0, "bias", "at least 1 row, repeated once", bias)?;
        }
        Ok((count("x", &[self.rows, self.n])?, count("bias", &[self.bias.map_or(1, |b| b.rows), self.n])?))
    }

    /// The launches of the forward pass, or of the backward one, which `flops` and `bytes` an element cost.
    fn plan(&self, backward: bool, flops: u64, bytes: u64, caps: &Capabilities) -> Result<Plan> {
        let (elements, bias) = self.counts()?;
        let width = usize::from(self.n.is_multiple_of(4));
        let items = if width == 1 { self.n / 4 } else { self.n };
        let short = if caps.cpu { self.rows >= 64 || self.n <= 1024 } else { self.n <= 32 };
        // The maximum, the sum, and the output.
        let rounds = 3 * u64::from(items);
        let default = if short && rounds <= caps.rounds() {
            SoftmaxVariant::Invocation
        } else {
            SoftmaxVariant::Workgroup
        };
        let variant = self.variant.unwrap_or(default);
        let workgroup = match variant {
            SoftmaxVariant::Workgroup if items > WORKGROUPS[0] * HELD => WORKGROUPS[1],
            _ => WORKGROUPS[0],
        };
        check_workgroup("dense/softmax", workgroup, 4 * workgroup, caps)?;
        let length = workgroup * HELD;
        let parts = if variant == SoftmaxVariant::Invocation { 1 } else { items.div_ceil(length) };
        let rounds = if variant == SoftmaxVariant::Invocation { rounds } else { 2 * u64::from(parts) };
        caps.check_rounds("n", self.n, rounds)?;
        let SoftmaxBias { rows: bias_rows, repeat: bias_repeat } =
            self.bias.unwrap_or(SoftmaxBias { rows: 1, repeat: 1 });
        let params =
            Params { rows: self.rows, n: items, parts, length, bias_rows, bias_repeat, scale: self.scale };
        let bias_bytes = if self.bias.is_some() && !backward { 4 * u64::from(bias) } else { 0 };
        let n = u64::from(elements);
        let whole = Cost::new(n * flops, n * bytes + bias_bytes);
        let launch = |entry: usize, groups: u64, cost| {
            let shader = &SHADERS[width][entry + if backward { 4 } else { 0 }];
            let mut constants = Constants::new().u32("WORKGROUP", workgroup).bool("LOG", self.log);
            constants = constants.u32("HELD", HELD).bool("BIAS", self.bias.is_some() && !backward);
            Launch::new(shader, constants, &params, groups, caps, cost)
        };
        let all = u64::from(self.rows) * u64::from(parts);
        match (variant, parts) {
            (SoftmaxVariant::Invocation, _) => {
                let groups = self.rows.div_ceil(workgroup).into();
                Ok(Plan::single("invocation", launch(0, groups, whole)?))
            }
            (SoftmaxVariant::Workgroup, 1) => Ok(Plan::single("workgroup", launch(1, all, whole)?)),
            (SoftmaxVariant::Workgroup, _) => {
                count("parts", &[self.rows, parts])?;
                // What goes in is read twice, and weighed: once would do.
                let bytes = all * if backward { 4 } else { 8 };
                let launches = vec![launch(2, all, Cost::new(0, bytes))?, launch(3, all, whole)?];
                Ok(Plan { variant: "parts", launches, scratch: vec![bytes] })
            }
        }
    }
}

/// Binds one launch, or `part` and `merge`.
fn bind(
    context: &crate::Context,
    plan: &Plan,
    [a, b, out]: [Arg<'_>; 3],
    scratch: &Scratch,
) -> Result<Recording> {
    if let [launch] = &plan.launches[..] {
        return Ok(Recording::single(context.bind(launch, &[a, b, out])?));
    }
    let bytes = plan.scratch.first().copied().unwrap_or(0);
    let parts = Arg::words("scratch", scratch.view(0)?, bytes / 4);
    let mut recording = Recording::single(context.bind(&plan.launches[0], &[a, b, parts])?);
    recording.push(context.bind(&plan.launches[1], &[a, b, out, parts])?);
    Ok(recording)
}

kernel! {
    /// `y = softmax(scale x + bias)` over each row, or its logarithm. A row that is masked throughout
    /// gives zeros; the logarithm of 0 is given as [`MASKED`].
    SoftmaxForward, SoftmaxConfig
}

/// Buffers of [`SoftmaxForward`].
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxForwardArgs<'a> {
    /// Logits, `[rows, n]`. NaN or infinity makes its row NaN, unless it is masked.
    pub x: BufferView<'a>,
    /// `[bias.rows, n]`; given exactly if configured.
    pub bias: Option<BufferView<'a>>,
    /// Output, `[rows, n]`.
    pub y: BufferView<'a>,
    /// As the plan asks for; empty, unless rows are long.
    pub scratch: &'a Scratch,
}

impl SoftmaxForward {
    /// Chooses the variant and the parts.
    pub fn plan(config: &SoftmaxConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(false, 6, 8, caps)
    }
}

impl Kernel for SoftmaxForward {
    type Args<'a> = SoftmaxForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (elements, bias) = self.config.counts()?;
        let need = if self.config.bias.is_some() { "a buffer" } else { "none, as configured" };
        check_shape(
            self.config.bias.is_some() == args.bias.is_some(),
            "bias",
            need,
            args.bias.map(|b| b.size),
        )?;
        let x = Arg::words("x", args.x, elements.into());
        // Where there is no bias, the shader never reads what stands for it.
        let bias = args.bias.map_or(x, |view| Arg::words("bias", view, bias.into()));
        bind(&self.context, &self.plan, [x, bias, Arg::words("y", args.y, elements.into())], args.scratch)
    }
}

kernel! {
    /// `dx` of [`SoftmaxForward`] from its output: `scale y (dy - <y, dy>)`, or for the logarithm
    /// `scale (dy - exp(y) sum dy)`; 0 where the element is masked. The gradient of the bias is `dx` of a
    /// configuration with scale 1, summed over the rows that share one of the bias
    /// ([`ReduceForward`](super::ReduceForward)).
    SoftmaxBackward, SoftmaxConfig
}

/// Buffers of [`SoftmaxBackward`].
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxBackwardArgs<'a> {
    /// The forward pass's output, `[rows, n]`.
    pub y: BufferView<'a>,
    /// Gradient of the output, `[rows, n]`.
    pub dy: BufferView<'a>,
    /// Gradient of the logits, `[rows, n]`; overwritten.
    pub dx: BufferView<'a>,
    /// As the plan asks for; empty, unless rows are long.
    pub scratch: &'a Scratch,
}

impl SoftmaxBackward {
    /// Chooses the variant and the parts.
    pub fn plan(config: &SoftmaxConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(true, 5, 12, caps)
    }
}

impl Kernel for SoftmaxBackward {
    type Args<'a> = SoftmaxBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = u64::from(self.config.counts()?.0);
        let args3 = [Arg::words("y", args.y, n), Arg::words("dy", args.dy, n), Arg::words("dx", args.dx, n)];
        bind(&self.context, &self.plan, args3, args.scratch)
    }
}
