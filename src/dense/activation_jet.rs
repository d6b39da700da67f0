//! Activations of values with their tangents, forward and backward (`shaders/dense/activation_jet.wgsl`).
//!
//! A *jet* is a value with its derivatives along some directions, as forward-mode differentiation
//! carries them. The backward pass through a jet gives the gradients of any loss of values **and**
//! of derivatives, which needs the second derivative of the activation: eikonal losses, supervision
//! by gradients, physics-informed losses of first order.

use super::Activation;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// An activation over `[batch, 1 + tangents, rows, features]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActivationJetConfig {
    /// The function. Those with kinks have the second derivative 0.
    pub activation: Activation,
    /// Jets side by side, each with a bias of its own; at least 1.
    pub batch: u32,
    /// Derivatives beside each value; 0 is a plain activation with a bias.
    pub tangents: u32,
    /// Rows of a plane, at least 1.
    pub rows: u32,
    /// Elements of a row, at least 1.
    pub features: u32,
    /// A bias is added to the values before.
    pub bias: bool,
}

impl ActivationJetConfig {
    /// Elements of a jet: `batch (1 + tangents) rows features`.
    pub fn count(&self) -> Result<u32> {
        let axes = [("batch", self.batch), ("rows", self.rows), ("features", self.features)];
        for (what, value) in axes {
            check_config(value > 0, what, "at least 1", value)?;
        }
        check_config(self.tangents < 1024, "tangents", "below 1024", self.tangents)?;
        count("jet", &[self.batch, 1 + self.tangents, self.rows, self.features])
    }

    fn plan(&self, shaders: &'static [Shader; 2], buffers: u64, caps: &Capabilities) -> Result<Plan> {
        let elements = u64::from(self.count()?);
        self.activation.check()?;
        let wide = self.features.is_multiple_of(4);
        let (width, workgroup, name) = if wide { (4, 256, "vec4") } else { (1, 64, "scalar") };
        let items = self.batch * self.rows * (self.features / width);
        let params = Params {
            items,
            plane: self.rows * (self.features / width),
            features: self.features / width,
            tangents: self.tangents,
            parameter: self.activation.parameter(),
        };
        let constants = Constants::new()
            .u32("WORKGROUP", workgroup)
            .u32("ACTIVATION", self.activation.id())
            .bool("BIAS", self.bias);
        let shader = &shaders[usize::from(wide)];
        let cost = Cost::new(elements, elements * 4 * buffers);
        let groups = items.div_ceil(workgroup).into();
        Ok(Plan::single(name, Launch::new(shader, constants, &params, groups, caps, cost)?))
    }

    /// `jet` and the bias, or what stands for one that is never read.
    fn inputs<'a>(&self, z: BufferView<'a>, bias: Option<BufferView<'a>>) -> Result<[Arg<'a>; 2]> {
        let z = self.jet("z", z)?;
        let bias = match bias {
            Some(view) if self.bias => {
                Arg::words("bias", view, u64::from(self.batch) * u64::from(self.features))
            }
            None if self.bias => return Err(super::linear::missing("bias")),
            _ => z,
        };
        Ok([z, bias])
    }

    fn jet<'a>(&self, what: &'static str, view: BufferView<'a>) -> Result<Arg<'a>> {
        Ok(Arg::words(what, view, self.count()?.into()))
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    plane: u32,
    features: u32,
    tangents: u32,
    parameter: f32,
}

static FORWARD: [Shader; 2] = [
    shader!(
        "dense/activation_jet",
        "forward",
        [index, sincos, activation, scalars, activation_scalars],
        [read("z"), read("bias"), write("y")]
    ),
    shader!(
        "dense/activation_jet",
        "forward",
        [index, sincos, activation, vectors, activation_vectors],
        [read("z").vec4(), read("bias").vec4(), write("y").vec4()]
    ),
];
static BACKWARD: [Shader; 2] = [
    shader!(
        "dense/activation_jet",
        "backward",
        [index, sincos, activation, scalars, activation_scalars],
        [read("z"), read("bias"), read("dy"), write("dz")]
    ),
    shader!(
        "dense/activation_jet",
        "backward",
        [index, sincos, activation, vectors, activation_vectors],
        [read("z").vec4(), read("bias").vec4(), read("dy").vec4(), write("dz").vec4()]
    ),
];

kernel! {
    /// `y[0] = a(z[0] + bias)`, `y[t] = a'(z[0] + bias) z[t]`.
    ActivationJetForward, ActivationJetConfig
}

/// Buffers of [`ActivationJetForward`].
#[derive(Debug, Clone, Copy)]
pub struct ActivationJetForwardArgs<'a> {
    /// Input, `[batch, 1 + tangents, rows, features]`.
    pub z: BufferView<'a>,
    /// `[batch, features]`, if the configuration has a bias.
    pub bias: Option<BufferView<'a>>,
    /// Output, as `z`.
    pub y: BufferView<'a>,
}

impl ActivationJetForward {
    /// One invocation an element or four, with all of its tangents.
    pub fn plan(config: &ActivationJetConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&FORWARD, 2, caps)
    }
}

impl Kernel for ActivationJetForward {
    type Args<'a> = ActivationJetForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [z, bias] = self.config.inputs(args.z, args.bias)?;
        let args = [z, bias, self.config.jet("y", args.y)?];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

kernel! {
    /// `dz[0] = a' dy[0] + a'' sum_t dy[t] z[t]`, `dz[t] = a' dy[t]`, with `a'` and `a''` at
    /// `z[0] + bias`. The gradient of the bias is the sum of `dz[0]` over the rows.
    ActivationJetBackward, ActivationJetConfig
}

/// Buffers of [`ActivationJetBackward`].
#[derive(Debug, Clone, Copy)]
pub struct ActivationJetBackwardArgs<'a> {
    /// The forward pass's input, `[batch, 1 + tangents, rows, features]`.
    pub z: BufferView<'a>,
    /// `[batch, features]`, if the configuration has a bias.
    pub bias: Option<BufferView<'a>>,
    /// Gradient of the output, as `z`.
    pub dy: BufferView<'a>,
    /// Gradient of the input, as `z`; overwritten.
    pub dz: BufferView<'a>,
}

impl ActivationJetBackward {
    /// One invocation an element or four, with all of its tangents.
    pub fn plan(config: &ActivationJetConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&BACKWARD, 3, caps)
    }
}

impl Kernel for ActivationJetBackward {
    type Args<'a> = ActivationJetBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [z, bias] = self.config.inputs(args.z, args.bias)?;
        let args = [z, bias, self.config.jet("dy", args.dy)?, self.config.jet("dz", args.dz)?];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
