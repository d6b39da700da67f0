//! Real spherical harmonics of directions (`shaders/radial/spherical_harmonics.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// The real spherical harmonics of degrees `l < degree` of `points` directions: `degree^2` values
/// each, `Y_l^m` at `l^2 + l + m`, orthonormal over the sphere, with the sign `(-1)^m`; order and signs
/// are those of tiny-cuda-nn (which takes directions mapped to `[0, 1]`).
///
/// Directions are unit vectors with components in `[-1, 1]`. For vectors of other lengths the
/// result is the polynomial in x, y and z whose powers of `x^2 + y^2` were replaced by `1 - z^2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SphericalHarmonicsConfig {
    /// Directions, at least 1.
    pub points: u32,
    /// 1 to 8.
    pub degree: u32,
}

const WORKGROUP: u32 = 64;

static FORWARD: Shader =
    shader!("radial/spherical_harmonics", "forward", [index], [read("directions"), write("y")]);
static BACKWARD: Shader =
    shader!("radial/spherical_harmonics", "backward", [index], [read("directions"), read("dy"), write("dx")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
}

impl SphericalHarmonicsConfig {
    /// Values for each direction, `degree^2`.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        self.degree.saturating_mul(self.degree)
    }

    fn values(&self) -> u64 {
        u64::from(self.points) * u64::from(self.outputs())
    }

    fn components(&self) -> u64 {
        u64::from(self.points) * 3
    }

    /// One invocation a direction, with `operations` for each value.
    fn plan(&self, shader: &'static Shader, operations: u64, ends: u64, caps: &Capabilities) -> Result<Plan> {
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        check_config((1..=8).contains(&self.degree), "degree", "1 to 8", self.degree)?;
        count("directions", &[self.points, 3])?;
        count("y", &[self.points, self.outputs()])?;
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("DEGREE", self.degree);
        let cost = Cost::new(self.values() * operations, 4 * (self.values() + self.components() * ends));
        let groups = self.points.div_ceil(WORKGROUP).into();
        let params = Params { count: self.points };
        Ok(Plan::single("direction", Launch::new(shader, constants, &params, groups, caps, cost)?))
    }
}

kernel! {
    /// The spherical harmonics of each direction.
    SphericalHarmonicsForward, SphericalHarmonicsConfig
}

/// Buffers of [`SphericalHarmonicsForward`].
#[derive(Debug, Clone, Copy)]
pub struct SphericalHarmonicsForwardArgs<'a> {
    /// Unit vectors, `[points, 3]`.
    pub directions: BufferView<'a>,
    /// Output, `[points, degree^2]`.
    pub y: BufferView<'a>,
}

impl SphericalHarmonicsForward {
    /// One invocation a direction.
    pub fn plan(config: &SphericalHarmonicsConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&FORWARD, 4, 1, caps)
    }
}

impl Kernel for SphericalHarmonicsForward {
    type Args<'a> = SphericalHarmonicsForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [
            Arg::words("directions", args.directions, self.config.components()),
            Arg::words("y", args.y, self.config.values()),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

kernel! {
    /// The gradient of the directions: of the polynomials, not projected onto the sphere.
    SphericalHarmonicsBackward, SphericalHarmonicsConfig
}

/// Buffers of [`SphericalHarmonicsBackward`].
#[derive(Debug, Clone, Copy)]
pub struct SphericalHarmonicsBackwardArgs<'a> {
    /// The forward pass's directions, `[points, 3]`.
    pub directions: BufferView<'a>,
    /// Gradient of the output, `[points, degree^2]`.
    pub dy: BufferView<'a>,
    /// Gradient of the directions, `[points, 3]`; overwritten.
    pub dx: BufferView<'a>,
}

impl SphericalHarmonicsBackward {
    /// One invocation a direction.
    pub fn plan(config: &SphericalHarmonicsConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&BACKWARD, 12, 2, caps)
    }
}

impl Kernel for SphericalHarmonicsBackward {
    type Args<'a> = SphericalHarmonicsBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [
            Arg::words("directions", args.directions, self.config.components()),
            Arg::words("dy", args.dy, self.config.values()),
            Arg::words("dx", args.dx, self.config.components()),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
