//! Elementwise activations, forward and backward (`shaders/dense/activation.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, kernel, read, shader, write,
};

/// The activation functions that any kernel with a fused activation takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// `x`
    #[default]
    Identity,
    /// `max(x, 0)`; the derivative at 0 is 0.
    Relu,
    /// `x` for `x > 0`, else `slope * x`.
    LeakyRelu {
        /// The slope below 0.
        slope: f32,
    },
    /// `x Phi(x)` with the exact normal distribution function (Hendrycks and Gimpel 2016, eq. 1).
    Gelu,
    /// `x sigmoid(x)`, also known as swish.
    Silu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `log(1 + exp(x))`
    Softplus,
    /// `tanh(x)`
    Tanh,
    /// `sin(frequency * x)` (Sitzmann et al. 2020, with frequency 30); `|frequency * x|` up to 50,000.
    Sine {
        /// Radians for each unit of `x`.
        frequency: f32,
    },
    /// `exp(x)`
    Exp,
}

impl Activation {
    /// The value of the shaders' `ACTIVATION`.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::Identity => 0,
            Self::Relu => 1,
            Self::LeakyRelu { .. } => 2,
            Self::Gelu => 3,
            Self::Silu => 4,
            Self::Sigmoid => 5,
            Self::Softplus => 6,
            Self::Tanh => 7,
            Self::Sine { .. } => 8,
            Self::Exp => 9,
        }
    }

    /// The slope or the frequency; 0 for the others.
    pub(crate) fn parameter(self) -> f32 {
        match self {
            Self::LeakyRelu { slope } => slope,
            Self::Sine { frequency } => frequency,
            _ => 0.0,
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        check_config(self.parameter().is_finite(), "activation", "finite", self)
    }
}

/// How many elements an invocation computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationVariant {
    /// One; any count.
    Scalar,
    /// Four; the count must be a multiple of 4.
    Vec4,
}

/// An activation over `count` elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationConfig {
    /// The function.
    pub activation: Activation,
    /// Elements, at least 1.
    pub count: u32,
    /// `None`: the fastest that fits.
    pub variant: Option<ActivationVariant>,
}

/// Of scalars, and of vec4s: large workgroups are faster on CPU adapters.
const WORKGROUP: [u32; 2] = [64, 256];

static FORWARD: Shader =
    shader!("dense/activation", "forward", [index, sincos, activation], [read("x"), write("y")]);
static FORWARD_VEC4: Shader = shader!(
    "dense/activation",
    "forward_vec4",
    [index, sincos, activation],
    [read("x").vec4(), write("y").vec4()]
);
static BACKWARD: Shader = shader!(
    "dense/activation",
    "backward",
    [index, sincos, activation],
    [read("x"), read("dy"), write("dx")]
);
static BACKWARD_VEC4: Shader = shader!(
    "dense/activation",
    "backward_vec4",
    [index, sincos, activation],
    [read("x").vec4(), read("dy").vec4(), write("dx").vec4()]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    parameter: f32,
}

fn plan(
    config: &ActivationConfig,
    scalar: &'static Shader,
    vec4: &'static Shader,
    buffers: u64,
    caps: &Capabilities,
) -> Result<Plan> {
    let count = config.count;
    check_config(count > 0, "count", "at least 1", count)?;
    config.activation.check()?;
    let whole = count.is_multiple_of(4);
    let variant =
        config.variant.unwrap_or(if whole { ActivationVariant::Vec4 } else { ActivationVariant::Scalar });
    let (shader, items, name, workgroup) = match variant {
        ActivationVariant::Scalar => (scalar, count, "scalar", WORKGROUP[0]),
        ActivationVariant::Vec4 => {
            check_config(whole, "count", "a multiple of 4 for the vec4 variant", count)?;
            (vec4, count / 4, "vec4", WORKGROUP[1])
        }
    };
    let constants = Constants::new().u32("WORKGROUP", workgroup).u32("ACTIVATION", config.activation.id());
    let params = Params { count: items, parameter: config.activation.parameter() };
    let cost = Cost::new(u64::from(count), u64::from(count) * 4 * buffers);
    let groups = items.div_ceil(workgroup).into();
    Ok(Plan::single(name, Launch::new(shader, constants, &params, groups, caps, cost)?))
}

kernel! {
    /// `y = a(x)`.
    ActivationForward, ActivationConfig
}

/// Buffers of [`ActivationForward`].
#[derive(Debug, Clone, Copy)]
pub struct ActivationForwardArgs<'a> {
    /// Input, `[count]`.
    pub x: BufferView<'a>,
    /// Output, `[count]`.
    pub y: BufferView<'a>,
}

impl ActivationForward {
    /// Chooses the variant and the grid.
    pub fn plan(config: &ActivationConfig, caps: &Capabilities) -> Result<Plan> {
        plan(config, &FORWARD, &FORWARD_VEC4, 2, caps)
    }
}

impl Kernel for ActivationForward {
    type Args<'a> = ActivationForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        let args = [Arg::words("x", args.x, n), Arg::words("y", args.y, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

kernel! {
    /// `dx = dy a'(x)`, with `x` the input of the forward pass.
    ActivationBackward, ActivationConfig
}

/// Buffers of [`ActivationBackward`].
#[derive(Debug, Clone, Copy)]
pub struct ActivationBackwardArgs<'a> {
    /// The forward pass's input, `[count]`.
    pub x: BufferView<'a>,
    /// Gradient of the output, `[count]`.
    pub dy: BufferView<'a>,
    /// Gradient of the input, `[count]`; overwritten.
    pub dx: BufferView<'a>,
}

impl ActivationBackward {
    /// Chooses the variant and the grid.
    pub fn plan(config: &ActivationConfig, caps: &Capabilities) -> Result<Plan> {
        plan(config, &BACKWARD, &BACKWARD_VEC4, 3, caps)
    }
}

impl Kernel for ActivationBackward {
    type Args<'a> = ActivationBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let n = self.config.count.into();
        let args = [Arg::words("x", args.x, n), Arg::words("dy", args.dy, n), Arg::words("dx", args.dx, n)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
