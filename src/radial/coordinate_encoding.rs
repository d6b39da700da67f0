//! Encodings of single coordinates (`shaders/radial/coordinate_encoding.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// What becomes of a coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoordinateEncoding {
    /// `sin(2^k pi x)` and `cos(2^k pi x)` for `k` below `frequencies`, in pairs: `2 * frequencies`
    /// outputs (Mildenhall et al. 2020, *NeRF*, eq. 4). Coordinates should lie in `[-1, 1]`.
    Frequency {
        /// 1 to 24.
        frequencies: u32,
    },
    /// A quartic blob of radius `1 / bins` around the coordinate, integrated over each of `bins` equal
    /// parts of `[0, 1]` with the ends joined: `bins` outputs, which add up to 1 (Müller et al. 2019,
    /// *Neural Importance Sampling*, section 4.3). Coordinates should lie in `[0, 1]`.
    OneBlob {
        /// 2 to 1024; powers of two in the literature.
        bins: u32,
    },
}

impl Default for CoordinateEncoding {
    /// The ten frequencies of NeRF's positions.
    fn default() -> Self {
        Self::Frequency { frequencies: 10 }
    }
}

impl CoordinateEncoding {
    /// Outputs for each coordinate.
    #[must_use]
    pub fn outputs(self) -> u32 {
        match self {
            Self::Frequency { frequencies } => frequencies.saturating_mul(2),
            Self::OneBlob { bins } => bins,
        }
    }

    fn check(self) -> Result<()> {
        match self {
            Self::Frequency { frequencies: n } => {
                check_config((1..=24).contains(&n), "frequencies", "1 to 24", n)
            }
            Self::OneBlob { bins: n } => check_config((2..=1024).contains(&n), "bins", "2 to 1024", n),
        }
    }
}

/// An encoding of `points` positions of `dims` coordinates each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoordinateEncodingConfig {
    /// The encoding.
    pub encoding: CoordinateEncoding,
    /// Positions, at least 1.
    pub points: u32,
    /// Coordinates of a position, at least 1.
    pub dims: u32,
}

const WORKGROUP: u32 = 64;

static FORWARD: Shader =
    shader!("radial/coordinate_encoding", "forward", [index, sincos], [read("x"), write("y")]);
static BACKWARD: Shader =
    shader!("radial/coordinate_encoding", "backward", [index, sincos], [read("x"), read("dy"), write("dx")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    outputs: u32,
}

impl CoordinateEncodingConfig {
    fn coordinates(&self) -> u64 {
        u64::from(self.points) * u64::from(self.dims)
    }

    fn values(&self) -> u64 {
        self.coordinates() * u64::from(self.encoding.outputs())
    }

    /// One launch; `whole`: an invocation owns a coordinate, else one pair or one bin.
    fn plan(&self, shader: &'static Shader, whole: bool, caps: &Capabilities) -> Result<Plan> {
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        check_config(self.dims > 0, "dims", "at least 1", self.dims)?;
        self.encoding.check()?;
        let outputs = self.encoding.outputs();
        let coordinates = count("x", &[self.points, self.dims])?;
        let values = count("y", &[self.points, self.dims, outputs])?;
        let frequency = matches!(self.encoding, CoordinateEncoding::Frequency { .. });
        let invocations = match (whole, frequency) {
            (true, _) => coordinates,
            (false, true) => values / 2,
            (false, false) => values,
        };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).bool("FREQUENCY", frequency);
        let params = Params { count: invocations, outputs };
        // About 12 operations for a sine or a cosine, 30 for the six integrals of a bin.
        let operations = if frequency { 12 } else { 30 };
        let ends = if whole { 2 } else { 1 };
        let cost = Cost::new(self.values() * operations, 4 * (self.values() + self.coordinates() * ends));
        let groups = invocations.div_ceil(WORKGROUP).into();
        let variant = if whole { "coordinate" } else { "output" };
        Ok(Plan::single(variant, Launch::new(shader, constants, &params, groups, caps, cost)?))
    }
}

kernel! {
    /// Encodes coordinates.
    CoordinateEncodingForward, CoordinateEncodingConfig
}

/// Buffers of [`CoordinateEncodingForward`].
#[derive(Debug, Clone, Copy)]
pub struct CoordinateEncodingForwardArgs<'a> {
    /// Coordinates, `[points, dims]`.
    pub x: BufferView<'a>,
    /// Output, `[points, dims, outputs]`.
    pub y: BufferView<'a>,
}

impl CoordinateEncodingForward {
    /// One invocation a pair of waves or a bin.
    pub fn plan(config: &CoordinateEncodingConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&FORWARD, false, caps)
    }
}

impl Kernel for CoordinateEncodingForward {
    type Args<'a> = CoordinateEncodingForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [
            Arg::words("x", args.x, self.config.coordinates()),
            Arg::words("y", args.y, self.config.values()),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}

kernel! {
    /// The gradient of the coordinates.
    CoordinateEncodingBackward, CoordinateEncodingConfig
}

/// Buffers of [`CoordinateEncodingBackward`].
#[derive(Debug, Clone, Copy)]
pub struct CoordinateEncodingBackwardArgs<'a> {
    /// The forward pass's coordinates, `[points, dims]`.
    pub x: BufferView<'a>,
    /// Gradient of the output, `[points, dims, outputs]`.
    pub dy: BufferView<'a>,
    /// Gradient of the coordinates, `[points, dims]`; overwritten.
    pub dx: BufferView<'a>,
}

impl CoordinateEncodingBackward {
    /// One invocation a coordinate.
    pub fn plan(config: &CoordinateEncodingConfig, caps: &Capabilities) -> Result<Plan> {
        config.plan(&BACKWARD, true, caps)
    }
}

impl Kernel for CoordinateEncodingBackward {
    type Args<'a> = CoordinateEncodingBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let args = [
            Arg::words("x", args.x, self.config.coordinates()),
            Arg::words("dy", args.dy, self.config.values()),
            Arg::words("dx", args.dx, self.config.coordinates()),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &args)?))
    }
}
