//! Small fully connected networks in one dispatch (`shaders/radial/fused_mlp.wgsl`).

use crate::dense::Activation;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result, Scratch,
    Shader, check_apart, check_config, check_workgroup, count, kernel, read, shader, write,
};

/// A network of `layers` hidden layers of `width` and a linear layer on top.
///
/// The defaults are tiny-cuda-nn's: two hidden layers of 64 with ReLU. For an activation of the
/// output use [`ActivationForward`](crate::dense::ActivationForward).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedMlpConfig {
    /// Inputs, 1 to 128.
    pub inputs: u32,
    /// Neurons of a hidden layer: 16, 32, 64 or 128.
    pub width: u32,
    /// Hidden layers, 1 to 8.
    pub layers: u32,
    /// Outputs, 1 to 128.
    pub outputs: u32,
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Points of one call, `N`.
    pub points: u32,
    /// Forward: keep the pre-activations for the backward pass.
    pub keep: bool,
    /// Backward: compute the gradient of the input too.
    pub input_gradient: bool,
    /// How it is computed; `None` takes what suits the device.
    pub variant: Option<FusedMlpVariant>,
}

impl Default for FusedMlpConfig {
    fn default() -> Self {
        Self {
            inputs: 32,
            width: 64,
            layers: 2,
            outputs: 3,
            activation: Activation::Relu,
            points: 1,
            keep: false,
            input_gradient: true,
            variant: None,
        }
    }
}

/// Where a layer's weights lie in the buffer of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpLayer {
    /// First element.
    pub first: u32,
    /// Outputs: rows that matter.
    pub outputs: u32,
    /// Rows, `outputs` rounded up to 4.
    pub rows: u32,
    /// Inputs: the first columns of a row.
    pub inputs: u32,
    /// Column of the bias: `inputs` rounded up to 4. A row is four elements longer than that.
    pub bias: u32,
}

impl MlpLayer {
    /// Elements of a row.
    #[must_use]
    pub fn stride(&self) -> u32 {
        self.bias + 4
    }
}

/// Points whose weight gradients one workgroup sums.
const BLOCK: u32 = 256;

/// How the network is computed. All variants give the same results to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusedMlpVariant {
    /// One invocation a point; needs nothing.
    Plain,
    /// For CPU adapters: weights are read once for 32 points and shared by shuffles. Needs
    /// subgroups of 8.
    Subgroup,
    /// For GPUs: activations and weights in workgroup memory, 4 points x 4 outputs an invocation.
    Staged,
}

impl FusedMlpVariant {
    /// The one asked for, if the device can run it; otherwise what suits the device.
    fn resolve(config: &FusedMlpConfig, caps: &Capabilities) -> Result<Self> {
        let suits = if caps.cpu { Self::Subgroup } else { Self::Staged };
        match config.variant {
            Some(variant) => variant.check(config, caps).map(|()| variant),
            None => Ok(suits.check(config, caps).map_or(Self::Plain, |()| suits)),
        }
    }

    fn check(self, config: &FusedMlpConfig, caps: &Capabilities) -> Result<()> {
        let what = "fused_mlp";
        if self == Self::Subgroup && caps.subgroups != Some((8, 8)) {
            return Err(Error::FeatureMissing { what, feature: "SUBGROUP of size 8" });
        }
        check_workgroup(what, self.workgroup(), self.workgroup_bytes(config), caps)
    }

    fn shaders(self, config: &FusedMlpConfig) -> &'static Shaders {
        let [x, y] = config.widths();
        match self {
            Self::Subgroup => &SUBGROUP[x][y],
            Self::Staged => &STAGED[x][y],
            Self::Plain => &PLAIN[x][y],
        }
    }

    fn forward(self, config: &FusedMlpConfig) -> &'static Shader {
        let [x, y] = config.widths();
        if self == Self::Subgroup && config.is_narrow() {
            &NARROW[x][y]
        } else {
            &self.shaders(config).forward
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Subgroup => "subgroup",
            Self::Staged => "staged",
            Self::Plain => "plain",
        }
    }

    /// Invocations of a workgroup.
    fn workgroup(self) -> u32 {
        match self {
            Self::Subgroup => 8,
            Self::Staged => 128,
            Self::Plain => 32,
        }
    }

    /// Bytes of workgroup memory of the hungriest entry point.
    fn workgroup_bytes(self, config: &FusedMlpConfig) -> u32 {
        match self {
            Self::Subgroup if config.is_narrow() => 0,
            Self::Subgroup => 16 * config.tile(self),
            Self::Staged => (8 << 10) + (4 << 10),
            Self::Plain => 0,
        }
    }

    /// Points of a workgroup, forward and backward.
    fn points(self, width: u32) -> u32 {
        if self == Self::Staged { 2048 / width } else { 32 }
    }

    /// Rows and columns of weights, divided by 4, that a workgroup of the weight gradient has.
    fn gradient_tile(self) -> [u32; 2] {
        match self {
            Self::Subgroup => [8, 8],
            Self::Staged => [8, 16],
            Self::Plain => [1, 32],
        }
    }
}

impl FusedMlpConfig {
    fn check(&self) -> Result<()> {
        check_config((1..=128).contains(&self.inputs), "inputs", "1 to 128", self.inputs)?;
        check_config((1..=128).contains(&self.outputs), "outputs", "1 to 128", self.outputs)?;
        check_config(matches!(self.width, 16 | 32 | 64 | 128), "width", "16, 32, 64 or 128", self.width)?;
        check_config((1..=8).contains(&self.layers), "layers", "1 to 8", self.layers)?;
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        self.activation.check()?;
        count("kept", &[self.points, self.layers * self.width + 128]).map(drop)
    }

    /// The layers, the output layer last.
    #[must_use]
    pub fn layer_table(&self) -> Vec<MlpLayer> {
        let mut first = 0;
        (0..=self.layers)
            .map(|l| {
                let inputs = if l == 0 { self.inputs } else { self.width };
                let outputs = if l == self.layers { self.outputs } else { self.width };
                let layer = MlpLayer {
                    first,
                    outputs,
                    rows: outputs.next_multiple_of(4),
                    inputs,
                    bias: inputs.next_multiple_of(4),
                };
                first += layer.rows * layer.stride();
                layer
            })
            .collect()
    }

    /// Elements of the buffer of weights, padding included.
    #[must_use]
    pub fn weight_count(&self) -> u32 {
        self.layer_table().iter().map(|layer| layer.rows * layer.stride()).sum()
    }

    /// Weights and biases without the padding.
    #[must_use]
    pub fn parameter_count(&self) -> u32 {
        self.layer_table().iter().map(|layer| layer.outputs * (layer.inputs + 1)).sum()
    }

    /// Elements of the kept pre-activations: `[layers, N, width]`, then `[N, outputs rounded up to 4]`.
    #[must_use]
    pub fn kept_count(&self) -> u64 {
        let each = self.layers * self.width + self.outputs.next_multiple_of(4);
        u64::from(self.points) * u64::from(each)
    }

    /// Whether inputs and outputs are read and written four at a time.
    fn widths(&self) -> [usize; 2] {
        [self.inputs, self.outputs].map(|n| n.is_multiple_of(4).into())
    }

    /// `Subgroup`: no layer has more inputs than an invocation can hold in registers.
    fn is_narrow(&self) -> bool {
        self.inputs.max(self.width) <= 64
    }

    /// `Subgroup`: vec4s that hold two layers of a workgroup's points.
    fn tile(&self, variant: FusedMlpVariant) -> u32 {
        let longest = self.inputs.max(self.width).max(self.outputs).div_ceil(4);
        2 * longest * variant.points(self.width)
    }

    /// The constants; the last four are looked at by some entry points only.
    fn constants(&self, variant: FusedMlpVariant, flags: Flags) -> Constants {
        let [inputs, width, outputs] = [self.inputs, self.width, self.outputs].map(|n| n.div_ceil(4));
        let longest = inputs.max(width).max(outputs);
        let constants = Constants::new()
            .u32("WORKGROUP", variant.workgroup())
            .u32("ACTIVATION", self.activation.id())
            .u32("INPUTS", self.inputs)
            .u32("INPUTS4", inputs)
            .u32("WIDTH4", width)
            .u32("OUTPUTS", self.outputs)
            .u32("OUTPUTS4", outputs)
            .u32("LONGEST4", longest)
            .u32("POINTS", variant.points(self.width))
            .u32("TILE", self.tile(variant))
            .u32("CHUNK4", (64 / width).min(width))
            .u32("TOTAL4", self.weight_count() / 4)
            .u32("BLOCK", BLOCK)
            .u32("ROWS4", flags.rows.max(1))
            .bool("KEEP", flags.keep)
            .bool("WANT_DX", flags.want_dx)
            .bool("FIRST", flags.first);
        if variant == FusedMlpVariant::Subgroup { constants.subgroups() } else { constants }
    }

    fn multiply_adds(&self) -> u64 {
        let each: u32 = self.layer_table().iter().map(|layer| layer.outputs * layer.inputs).sum();
        u64::from(each) * u64::from(self.points)
    }
}

#[derive(Default)]
struct Flags {
    keep: bool,
    want_dx: bool,
    first: bool,
    rows: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    columns: u32,
    rows: u32,
    first_weight: u32,
    first_input: u32,
    first_delta: u32,
    blocks: u32,
    total: u32,
    layers: u32,
    parameter: f32,
}

/// Entry points of one variant.
struct Shaders {
    forward: Shader,
    backward: Shader,
    weight_gradient: Shader,
}

/// The forward pass of a file.
macro_rules! forward {
    ($file:literal, [$($common:ident),*], $x:expr, $y:expr) => {
        shader!(
            $file,
            "forward",
            [index, sincos, activation, $($common),*],
            [read("weights").vec4(), $x, $y, write("kept").vec4()]
        )
    };
}

/// The three entry points of a file.
macro_rules! entries {
    ($file:literal, [$($common:ident),*], $x:expr, $dx:expr, $y:expr, $dy:expr) => {
        Shaders {
            forward: forward!($file, [$($common),*], $x, $y),
            backward: shader!(
                $file,
                "backward",
                [index, sincos, activation, $($common),*],
                [read("weights").vec4(), $dy, write("deltas").vec4(), read("kept_in").vec4(), $dx]
            ),
            weight_gradient: shader!(
                $file,
                "weight_gradient",
                [index, sincos, activation, $($common),*],
                [write("sums_of_blocks").vec4(), $x, read("deltas_in").vec4(), read("kept_in").vec4()]
            ),
        }
    };
}

/// What is read and written one or four at a time: `[inputs % 4 == 0][outputs % 4 == 0]`.
type Widths<T> = [[T; 2]; 2];

/// The three entry points of a file, for all widths.
macro_rules! shaders {
    ($file:literal, [$($common:ident),*]) => {
        [
            [
                entries!($file, [$($common,)* mlp_scalars, mlp_outputs_scalars],
                    read("x"), write("dx"), write("y"), read("dy")),
                entries!($file, [$($common,)* mlp_scalars, mlp_outputs_vectors],
                    read("x"), write("dx"), write("y").vec4(), read("dy").vec4()),
            ],
            [
                entries!($file, [$($common,)* mlp_vectors, mlp_outputs_scalars],
                    read("x").vec4(), write("dx").vec4(), write("y"), read("dy")),
                entries!($file, [$($common,)* mlp_vectors, mlp_outputs_vectors],
                    read("x").vec4(), write("dx").vec4(), write("y").vec4(), read("dy").vec4()),
            ],
        ]
    };
}

static PLAIN: Widths<Shaders> = shaders!("radial/fused_mlp", [quads, mlp]);
static SUBGROUP: Widths<Shaders> = shaders!("radial/fused_mlp_subgroup", [quads, mlp, mlp_blocks]);
static STAGED: Widths<Shaders> = shaders!("radial/fused_mlp_staged", [quads, mlp]);
static NARROW: Widths<Shader> = {
    macro_rules! narrow {
        ([$($common:ident),*], $x:expr, $y:expr) => {
            forward!("radial/fused_mlp_narrow", [quads, mlp, mlp_blocks, $($common),*], $x, $y)
        };
    }
    [
        [
            narrow!([mlp_scalars, mlp_outputs_scalars], read("x"), write("y")),
            narrow!([mlp_scalars, mlp_outputs_vectors], read("x"), write("y").vec4()),
        ],
        [
            narrow!([mlp_vectors, mlp_outputs_scalars], read("x").vec4(), write("y")),
            narrow!([mlp_vectors, mlp_outputs_vectors], read("x").vec4(), write("y").vec4()),
        ],
    ]
};
static SUM_BLOCKS: Shader = shader!(
    "radial/fused_mlp",
    "sum_blocks",
    [index, sincos, activation, quads, mlp, mlp_scalars, mlp_outputs_scalars],
    [read("blocks_in").vec4(), write("dweights").vec4()]
);

kernel! {
    /// The network's output for `N` points.
    FusedMlpForward, FusedMlpConfig
}

/// Buffers of [`FusedMlpForward`].
#[derive(Debug, Clone, Copy)]
pub struct FusedMlpForwardArgs<'a> {
    /// Weights as [`FusedMlpConfig::layer_table`] says; the padding must be 0.
    pub weights: BufferView<'a>,
    /// Input, `[N, inputs]`.
    pub x: BufferView<'a>,
    /// Output, `[N, outputs]`.
    pub y: BufferView<'a>,
    /// Pre-activations for the backward pass, [`FusedMlpConfig::kept_count`] elements. Without
    /// `keep` nothing is written to it, and 4 elements are enough.
    pub kept: BufferView<'a>,
}

impl FusedMlpForward {
    /// One dispatch.
    pub fn plan(config: &FusedMlpConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let variant = FusedMlpVariant::resolve(config, caps)?;
        let params = Params {
            points: config.points,
            layers: config.layers,
            parameter: config.activation.parameter(),
            ..Params::default()
        };
        let points = u64::from(config.points);
        let kept = if config.keep { config.kept_count() } else { 0 };
        let io = points * u64::from(config.inputs + config.outputs) + u64::from(config.weight_count());
        let cost = Cost::new(2 * config.multiply_adds(), 4 * (io + kept));
        let groups = points.div_ceil(variant.points(config.width).into());
        let constants = config.constants(variant, Flags { keep: config.keep, ..Flags::default() });
        let launch = Launch::new(variant.forward(config), constants, &params, groups, caps, cost)?;
        Ok(Plan::single(variant.name(), launch))
    }
}

impl Kernel for FusedMlpForward {
    type Args<'a> = FusedMlpForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let points = u64::from(config.points);
        let args = [
            Arg::words("weights", args.weights, config.weight_count().into()),
            Arg::words("x", args.x, points * u64::from(config.inputs)),
            Arg::words("y", args.y, points * u64::from(config.outputs)),
            Arg::words("kept", args.kept, if config.keep { config.kept_count() } else { 4 }),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

kernel! {
    /// Gradients of the weights and, where asked for, of the input.
    FusedMlpBackward, FusedMlpConfig
}

/// Buffers of [`FusedMlpBackward`].
#[derive(Debug, Clone, Copy)]
pub struct FusedMlpBackwardArgs<'a> {
    /// As in the forward pass.
    pub weights: BufferView<'a>,
    /// As in the forward pass, `[N, inputs]`.
    pub x: BufferView<'a>,
    /// What the forward pass kept.
    pub kept: BufferView<'a>,
    /// Gradient of the output, `[N, outputs]`.
    pub dy: BufferView<'a>,
    /// Gradient of the weights, laid out like them; overwritten. The padding's gradient is 0 where
    /// the weights' padding is 0.
    pub dweights: BufferView<'a>,
    /// Gradient of the input, `[N, inputs]`; overwritten. Without `input_gradient` nothing is
    /// written to it, and 4 elements are enough.
    pub dx: BufferView<'a>,
    /// As the plan asks for: the gradients of the pre-activations, and partial sums.
    pub scratch: &'a Scratch,
}

impl FusedMlpBackward {
    /// Back through the layers; then each layer's weights, block by block; then the blocks' sum.
    pub fn plan(config: &FusedMlpConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let variant = FusedMlpVariant::resolve(config, caps)?;
        let total = config.weight_count();
        let blocks = config.points.div_ceil(BLOCK);
        count("partial sums", &[blocks, total])?;
        let base = Params {
            points: config.points,
            blocks,
            total: total / 4,
            layers: config.layers,
            parameter: config.activation.parameter(),
            ..Params::default()
        };
        let kept = config.kept_count();
        let groups = u64::from(config.points.div_ceil(variant.points(config.width)));
        let constants =
            config.constants(variant, Flags { want_dx: config.input_gradient, ..Flags::default() });
        let cost = Cost::new(2 * config.multiply_adds(), 8 * kept);
        let mut launches =
            vec![Launch::new(&variant.shaders(config).backward, constants, &base, groups, caps, cost)?];
        for (l, layer) in config.layer_table().iter().enumerate() {
            let l = l as u32;
            let (columns, rows) = (layer.bias / 4, layer.rows / 4);
            let params = Params {
                columns,
                rows,
                first_weight: layer.first / 4,
                first_input: l.saturating_sub(1) * config.points * config.width / 4,
                first_delta: l * config.points * config.width / 4,
                ..base
            };
            let tile = variant.gradient_tile();
            let each = rows.min(tile[0]);
            // The plain variant has the bias as one more column.
            let lanes = columns + u32::from(variant == FusedMlpVariant::Plain);
            let groups =
                u64::from(blocks) * u64::from(rows.div_ceil(tile[0])) * u64::from(lanes.div_ceil(tile[1]));
            let points = u64::from(config.points);
            let cost = Cost::new(
                2 * points * u64::from(layer.outputs) * u64::from(layer.inputs),
                4 * points * u64::from(layer.inputs + layer.outputs),
            );
            let constants =
                config.constants(variant, Flags { first: l == 0, rows: each, ..Flags::default() });
            let shader = &variant.shaders(config).weight_gradient;
            launches.push(Launch::new(shader, constants, &params, groups, caps, cost)?);
        }
        let bytes = u64::from(total) * 4 * u64::from(blocks + 1);
        let plain = FusedMlpVariant::Plain;
        let groups = u64::from((total / 4).div_ceil(plain.workgroup()));
        let constants = config.constants(plain, Flags::default());
        launches.push(Launch::new(&SUM_BLOCKS, constants, &base, groups, caps, Cost::new(0, bytes))?);
        let partial = u64::from(blocks) * u64::from(total) * 4;
        Ok(Plan { variant: variant.name(), launches, scratch: vec![kept * 4, partial] })
    }
}

impl Kernel for FusedMlpBackward {
    type Args<'a> = FusedMlpBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let points = u64::from(config.points);
        let total = u64::from(config.weight_count());
        let partial = total * points.div_ceil(BLOCK.into());
        let weights = Arg::words("weights", args.weights, total);
        let x = Arg::words("x", args.x, points * u64::from(config.inputs));
        let kept = Arg::words("kept", args.kept, config.kept_count());
        let dy = Arg::words("dy", args.dy, points * u64::from(config.outputs));
        let deltas = Arg::words("scratch 0", args.scratch.view(0)?, config.kept_count());
        let partial = Arg::words("scratch 1", args.scratch.view(1)?, partial);
        let dx = if config.input_gradient { points * u64::from(config.inputs) } else { 4 };
        let dx = Arg::words("dx", args.dx, dx);
        let dweights = Arg::words("dweights", args.dweights, total);
        let outputs = [dweights, dx];
        let written = if config.input_gradient { &outputs[..] } else { &outputs[..1] };
        check_apart(written, &[weights, x, kept, dy].map(Some))?;
        let backward = [weights, dy, deltas, kept, dx];
        let mut recording = Recording::new();
        let last = self.plan.launches.len() - 1;
        for (index, launch) in self.plan.launches.iter().enumerate() {
            recording.push(match index {
                0 => self.context.bind(launch, &backward)?,
                i if i < last => self.context.bind(launch, &[partial, x, deltas, kept])?,
                _ => self.context.bind(launch, &[partial, dweights])?,
            });
        }
        Ok(recording)
    }
}
