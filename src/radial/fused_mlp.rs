//! Small fully connected networks in one dispatch (`shaders/radial/fused_mlp.wgsl`).

use crate::dense::Activation;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_config, count, kernel, read, shader, write,
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

const WORKGROUP: u32 = 32;
/// Points whose weight gradients one invocation sums.
const BLOCK: u32 = 256;

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

    fn constants(&self) -> Constants {
        let [inputs, width, outputs] = [self.inputs, self.width, self.outputs].map(|n| n.div_ceil(4));
        Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .u32("ACTIVATION", self.activation.id())
            .u32("INPUTS", self.inputs)
            .u32("INPUTS4", inputs)
            .u32("WIDTH4", width)
            .u32("OUTPUTS", self.outputs)
            .u32("OUTPUTS4", outputs)
            .u32("LONGEST4", inputs.max(width).max(outputs))
            .u32("LAYERS", self.layers)
            .u32("TOTAL4", self.weight_count() / 4)
            .u32("BLOCK", BLOCK)
    }

    /// The constants with the three that only some entry points look at.
    fn flags(&self, keep: bool, want_dx: bool, first: bool) -> Constants {
        self.constants().bool("KEEP", keep).bool("WANT_DX", want_dx).bool("FIRST", first)
    }

    fn multiply_adds(&self) -> u64 {
        let each: u32 = self.layer_table().iter().map(|layer| layer.outputs * layer.inputs).sum();
        u64::from(each) * u64::from(self.points)
    }
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
    parameter: f32,
}

static FORWARD: Shader = shader!(
    "radial/fused_mlp",
    "forward",
    [index, sincos, activation],
    [read("weights").vec4(), read("x"), write("y"), write("kept").vec4()]
);
static BACKWARD: Shader = shader!(
    "radial/fused_mlp",
    "backward",
    [index, sincos, activation],
    [read("weights").vec4(), read("kept_in").vec4(), read("dy"), write("deltas").vec4(), write("dx")]
);
static WEIGHT_GRADIENT: Shader = shader!(
    "radial/fused_mlp",
    "weight_gradient",
    [index, sincos, activation],
    [read("layer_x"), read("kept_in").vec4(), read("deltas_in"), write("sums_of_blocks").vec4()]
);
static SUM_BLOCKS: Shader = shader!(
    "radial/fused_mlp",
    "sum_blocks",
    [index, sincos, activation],
    [read("partial_in").vec4(), write("dweights").vec4()]
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
    /// One invocation a point.
    pub fn plan(config: &FusedMlpConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let params =
            Params { points: config.points, parameter: config.activation.parameter(), ..Params::default() };
        let points = u64::from(config.points);
        let kept = if config.keep { config.kept_count() } else { 0 };
        let io = points * u64::from(config.inputs + config.outputs) + u64::from(config.weight_count());
        let cost = Cost::new(2 * config.multiply_adds(), 4 * (io + kept));
        let groups = points.div_ceil(WORKGROUP.into());
        let constants = config.flags(config.keep, false, false);
        Ok(Plan::single("uniform", Launch::new(&FORWARD, constants, &params, groups, caps, cost)?))
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
    /// written to it, and one element is enough.
    pub dx: BufferView<'a>,
    /// As the plan asks for: the gradients of the pre-activations, and partial sums.
    pub scratch: &'a Scratch,
}

impl FusedMlpBackward {
    /// Back through the layers, one invocation a point; then each layer's weights, block by block.
    pub fn plan(config: &FusedMlpConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let total = config.weight_count();
        let blocks = config.points.div_ceil(BLOCK);
        count("partial sums", &[blocks, total])?;
        let base = Params {
            points: config.points,
            blocks,
            total: total / 4,
            parameter: config.activation.parameter(),
            ..Params::default()
        };
        let work = config.multiply_adds();
        let kept = config.kept_count();
        let groups = u64::from(config.points.div_ceil(WORKGROUP));
        let backward = Launch::new(
            &BACKWARD,
            config.flags(false, config.input_gradient, false),
            &base,
            groups,
            caps,
            Cost::new(2 * work, 8 * kept),
        )?;
        let mut launches = vec![backward];
        for (l, layer) in config.layer_table().iter().enumerate() {
            let l = l as u32;
            let (columns, rows) = (layer.bias / 4, layer.rows / 4);
            let params = Params {
                columns,
                rows,
                first_weight: layer.first / 4,
                first_input: l.saturating_sub(1) * config.points * config.width / 4,
                first_delta: l * config.points * config.width,
                ..base
            };
            let groups = u64::from(blocks) * u64::from(rows) * u64::from((columns + WORKGROUP) / WORKGROUP);
            let macs = u64::from(config.points) * u64::from(layer.outputs) * u64::from(layer.inputs);
            let cost =
                Cost::new(2 * macs, 4 * u64::from(config.points) * u64::from(layer.inputs + layer.outputs));
            launches.push(Launch::new(
                &WEIGHT_GRADIENT,
                config.flags(false, false, l == 0),
                &params,
                groups,
                caps,
                cost,
            )?);
        }
        let bytes = u64::from(total) * 4 * u64::from(blocks + 1);
        let groups = u64::from((total / 4).div_ceil(WORKGROUP));
        let constants = config.flags(false, false, false);
        launches.push(Launch::new(&SUM_BLOCKS, constants, &base, groups, caps, Cost::new(0, bytes))?);
        let partial = u64::from(blocks) * u64::from(total) * 4;
        Ok(Plan { variant: "uniform", launches, scratch: vec![kept * 4, partial] })
    }
}

impl Kernel for FusedMlpBackward {
    type Args<'a> = FusedMlpBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let points = u64::from(config.points);
        let total = u64::from(config.weight_count());
        let partial = total * points.div_ceil(BLOCK.into());
        let x = Arg::words("x", args.x, points * u64::from(config.inputs));
        let kept = Arg::words("kept", args.kept, config.kept_count());
        let deltas = Arg::words("scratch 0", args.scratch.view(0)?, config.kept_count());
        let partial = Arg::words("scratch 1", args.scratch.view(1)?, partial);
        let dx = if config.input_gradient { points * u64::from(config.inputs) } else { 1 };
        let backward = [
            Arg::words("weights", args.weights, total),
            kept,
            Arg::words("dy", args.dy, points * u64::from(config.outputs)),
            deltas,
            Arg::words("dx", args.dx, dx),
        ];
        let mut recording = Recording::new();
        let last = self.plan.launches.len() - 1;
        for (index, launch) in self.plan.launches.iter().enumerate() {
            recording.push(match index {
                0 => self.context.bind(launch, &backward)?,
                i if i < last => self.context.bind(launch, &[x, kept, deltas, partial])?,
                _ => self.context.bind(launch, &[partial, Arg::words("dweights", args.dweights, total)])?,
            });
        }
        Ok(recording)
    }
}
