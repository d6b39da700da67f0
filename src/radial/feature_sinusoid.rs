//! Sinusoids of a hidden layer (`shaders/radial/feature_sinusoid.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// `y[n, f] = x + sin(m_f x)` over `[points, width]` (Chen et al. 2023, equation 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureSinusoidConfig {
    /// Points, at least 1.
    pub points: u32,
    /// Neurons, at least 1.
    pub width: u32,
}

const WORKGROUP: u32 = 256;

/// Operations of a sine and its argument.
const SINE_FLOPS: u64 = 19;

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    width: u32,
}

static FORWARD: [Shader; 2] = [
    shader!(
        "radial/feature_sinusoid",
        "forward",
        [index, scalars, stored_floats, sine],
        [read("x"), read("frequencies"), write("y")]
    ),
    shader!(
        "radial/feature_sinusoid",
        "forward",
        [index, quads, vectors, stored_quads, sine],
        [read("x").vec4(), read("frequencies").vec4(), write("y").vec4()]
    ),
];
static BACKWARD: [Shader; 2] = [
    shader!(
        "radial/feature_sinusoid",
        "backward",
        [index, scalars, stored_floats, sine],
        [read("x"), read("frequencies"), read("dy"), write("dx")]
    ),
    shader!(
        "radial/feature_sinusoid",
        "backward",
        [index, quads, vectors, stored_quads, sine],
        [read("x").vec4(), read("frequencies").vec4(), read("dy").vec4(), write("dx").vec4()]
    ),
];

impl FeatureSinusoidConfig {
    fn plan(&self, shaders: &'static [Shader; 2], arrays: u64, caps: &Capabilities) -> Result<Plan> {
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        check_config(self.width > 0, "width", "at least 1", self.width)?;
        let elements = count("x", &[self.points, self.width])?;
        let four = self.width.is_multiple_of(4);
        let (name, each) = if four { ("vec4", 4) } else { ("scalar", 1) };
        let params = Params { count: elements / each, width: self.width / each };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP);
        let cost =
            Cost::new(u64::from(elements) * (SINE_FLOPS + arrays - 1), u64::from(elements) * 4 * arrays);
        let groups = params.count.div_ceil(WORKGROUP).into();
        let launch = Launch::new(&shaders[usize::from(four)], constants, &params, groups, caps, cost)?;
        Ok(Plan::single(name, launch))
    }

    fn arg<'a>(&self, what: &'static str, view: BufferView<'a>) -> Arg<'a> {
        Arg::words(what, view, u64::from(self.points) * u64::from(self.width))
    }
}

kernel! {
    /// `y = x + sin(m x)`.
    FeatureSinusoidForward, FeatureSinusoidConfig
}

/// Buffers of [`FeatureSinusoidForward`].
#[derive(Debug, Clone, Copy)]
pub struct FeatureSinusoidForwardArgs<'a> {
    /// Input, `[points, width]`; `|m x|` up to 12,000 rad (to 2^-20 up to 50,000).
    pub x: BufferView<'a>,
    /// A frequency for each neuron, `[width]`.
    pub frequencies: BufferView<'a>,
    /// Output, `[points, width]`.
    pub y: BufferView<'a>,
}

impl FeatureSinusoidForward {
    /// One dispatch.
    pub fn plan(config: &FeatureSinusoidConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&FORWARD, 2, caps)
    }
}

impl Kernel for FeatureSinusoidForward {
    type Args<'a> = FeatureSinusoidForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let frequencies = Arg::words("frequencies", args.frequencies, self.config.width.into());
        let args = [self.config.arg("x", args.x), frequencies, self.config.arg("y", args.y)];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

kernel! {
    /// `dx = dy (1 + m cos(m x))`. The frequencies are fixed: they have no gradient.
    FeatureSinusoidBackward, FeatureSinusoidConfig
}

/// Buffers of [`FeatureSinusoidBackward`].
#[derive(Debug, Clone, Copy)]
pub struct FeatureSinusoidBackwardArgs<'a> {
    /// As in the forward pass.
    pub x: BufferView<'a>,
    /// As in the forward pass.
    pub frequencies: BufferView<'a>,
    /// Gradient of the output, `[points, width]`.
    pub dy: BufferView<'a>,
    /// Gradient of the input, `[points, width]`; overwritten.
    pub dx: BufferView<'a>,
}

impl FeatureSinusoidBackward {
    /// One dispatch.
    pub fn plan(config: &FeatureSinusoidConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&BACKWARD, 3, caps)
    }
}

impl Kernel for FeatureSinusoidBackward {
    type Args<'a> = FeatureSinusoidBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let frequencies = Arg::words("frequencies", args.frequencies, self.config.width.into());
        let (x, dy, dx) =
            (self.config.arg("x", args.x), self.config.arg("dy", args.dy), self.config.arg("dx", args.dx));
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &[x, frequencies, dy, dx])?))
    }
}
