//! Radial basis functions of the nearest centres (`shaders/radial/radial_basis.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_apart, check_config, check_shape, check_workgroup, count, kernel, read, shader, write,
};

/// The kernel functions, of `t = u^T K u` (or `|M u|^2`) with `u = x - c` and `r = sqrt(t)`.
///
/// Those marked "singular" have no slope at the centre, or an infinite one: their gradients are 0
/// where `t < 2^-100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum RadialFunction {
    /// `1 / (1 + t)`: inverse quadratic. The published choice for pictures and radiance.
    #[default]
    InverseQuadratic,
    /// `1 / sqrt(1 + t)`
    InverseMultiquadric,
    /// `exp(-t / 2)`
    Gaussian,
    /// `exp(-(t / 2)^2)`
    SuperGaussian,
    /// `exp(-t / 2)^2`
    SquaredGaussian,
    /// `exp(-r)`; singular.
    Markov,
    /// `exp(-sin r)`, `r` up to 50,000; singular.
    ExponentialSine,
    /// `1 + t`
    Quadratic,
    /// `sqrt(1 + t)`
    Multiquadric,
    /// `r`: polyharmonic spline of order 1; singular.
    Linear,
    /// `r^3`: polyharmonic spline of order 3.
    Cubic,
    /// `1 - t`: Epanechnikov's parabola, not cut off.
    Parabola,
    /// `1 / (r + 1e-10)`; singular.
    InverseLinear,
    /// `1 / (r^3 + 1e-30)`; singular.
    InverseCubic,
    /// `max(0, 1 - |v_d|)` multiplied over the axes, `v = M u`: with centres on a regular grid this
    /// is multilinear interpolation. The published choice for signed distances. Its gradients are 0
    /// on the ridges (`v_d = 0`) and from `|v_d| = 1` on.
    Hat,
    /// `x . c / (|x| |c|)`: cosine similarity; the shapes are not used. The value and its gradients
    /// are 0 where `|x|^2 |c|^2 < 2^-100`.
    Cosine,
}

impl RadialFunction {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::InverseQuadratic,
        Self::InverseMultiquadric,
        Self::Gaussian,
        Self::SuperGaussian,
        Self::SquaredGaussian,
        Self::Markov,
        Self::ExponentialSine,
        Self::Quadratic,
        Self::Multiquadric,
        Self::Linear,
        Self::Cubic,
        Self::Parabola,
        Self::InverseLinear,
        Self::InverseCubic,
        Self::Hat,
        Self::Cosine,
    ];
}

/// What the shape of a centre is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum RadialShape {
    /// One number `s`: `K = s I`, and for the hat `M = s I`.
    Scalar,
    /// A number an axis, the diagonal of `K` (or `M`).
    Diagonal,
    /// A symmetric `K` (or `M`): its upper triangle, row by row. The published choice.
    #[default]
    Symmetric,
    /// Any matrix `M`, row by row: `t = |M u|^2`.
    General,
}

impl RadialShape {
    /// Numbers of a shape in `dims` dimensions.
    #[must_use]
    pub fn size(self, dims: u32) -> u32 {
        match self {
            Self::Scalar => 1,
            Self::Diagonal => dims,
            Self::Symmetric => dims * (dims + 1) / 2,
            Self::General => dims * dims,
        }
    }
}

/// Whether the bases of a point are divided by their sum, plus `epsilon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum RadialNormalisation {
    /// They are not.
    None,
    /// Divided; the sum counts as a constant in the gradient, as published.
    #[default]
    Detached,
    /// Divided, with the gradient of the quotient.
    Full,
}

/// Radial basis functions of `points` points at their `neighbours` nearest of `centres` centres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RadialBasisConfig {
    /// The kernel function.
    pub function: RadialFunction,
    /// What a shape is.
    pub shape: RadialShape,
    /// Normalisation over the neighbours.
    pub normalisation: RadialNormalisation,
    /// Added to the sum that is divided by; at least 0. Where both are 0, so are the bases.
    pub epsilon: f32,
    /// 1 to 4.
    pub dims: u32,
    /// Centres, at least 1.
    pub centres: u32,
    /// Neighbours of a point, 1 to 32.
    pub neighbours: u32,
    /// Points, at least 1.
    pub points: u32,
    /// Invocations that share the pairs of a centre in the backward pass: a power of two up to 64.
    /// `None`: 32, and on CPU adapters as few as the longest list allows.
    pub lanes: Option<u32>,
}

impl Default for RadialBasisConfig {
    /// The published configuration for pictures.
    fn default() -> Self {
        Self {
            function: RadialFunction::default(),
            shape: RadialShape::default(),
            normalisation: RadialNormalisation::default(),
            epsilon: 1e-8,
            dims: 2,
            centres: 1,
            neighbours: 4,
            points: 1,
            lanes: None,
        }
    }
}

const WORKGROUP: u32 = 64;

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    centres: u32,
    neighbours: u32,
    epsilon: f32,
}

static FORWARD: Shader = shader!(
    "radial/radial_basis",
    "forward",
    [index, sincos, exponential],
    [read("positions"), read("centres"), read("shapes"), read("neighbours"), write("y")]
);
static BACKWARD_POINTS: Shader = shader!(
    "radial/radial_basis",
    "backward_points",
    [index, sincos, exponential],
    [
        read("positions"),
        read("centres"),
        read("shapes"),
        read("neighbours"),
        read("dy"),
        write("dphi_out"),
        write("dx")
    ]
);
static BACKWARD_CENTRES: Shader = shader!(
    "radial/radial_basis",
    "backward_centres",
    [index, sincos, exponential],
    [
        read("positions"),
        read("centres"),
        read("shapes"),
        read("dphi"),
        read("order"),
        read("starts"),
        write("dcentres"),
        write("dshapes")
    ]
);

/// How many invocations must share a list that may hold all `pairs`, of at most `most`.
pub(super) fn fewest_lanes(what: &'static str, pairs: u64, most: u32, caps: &Capabilities) -> Result<u32> {
    let lanes = pairs.div_ceil(caps.rounds()).next_power_of_two();
    let all = u64::from(most).saturating_mul(caps.rounds());
    let need = format!("such that there are at most {all} pairs on a CPU adapter");
    check_config(lanes <= most.into(), what, &need, pairs)?;
    Ok(lanes as u32)
}

impl RadialBasisConfig {
    fn check(&self) -> Result<()> {
        check_config((1..=4).contains(&self.dims), "dims", "1 to 4", self.dims)?;
        check_config(self.centres > 0, "centres", "at least 1", self.centres)?;
        check_config((1..=32).contains(&self.neighbours), "neighbours", "1 to 32", self.neighbours)?;
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        let epsilon = self.epsilon;
        check_config(epsilon.is_finite() && epsilon >= 0.0, "epsilon", "finite and at least 0", epsilon)?;
        if let Some(lanes) = self.lanes {
            let good = lanes.is_power_of_two() && lanes <= WORKGROUP;
            check_config(good, "lanes", "a power of two up to 64", lanes)?;
        }
        count("centres", &[self.centres, self.dims])?;
        count("shapes", &[self.centres, self.shape.size(self.dims)])?;
        count("positions", &[self.points, self.dims])?;
        count("neighbours", &[self.points, self.neighbours]).map(drop)
    }

    fn lanes(&self, caps: &Capabilities) -> Result<u32> {
        let fewest = fewest_lanes("points", self.pairs(), WORKGROUP, caps)?;
        Ok(self.lanes.unwrap_or(if caps.cpu { 1 } else { 32 }).max(fewest))
    }

    fn pairs(&self) -> u64 {
        u64::from(self.points) * u64::from(self.neighbours)
    }

    fn launch(
        &self,
        shader: &'static Shader,
        lanes: u32,
        groups: u32,
        cost: Cost,
        caps: &Capabilities,
    ) -> Result<Launch> {
        let constants = Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .u32("DIMS", self.dims)
            .u32("FUNCTION", self.function as u32)
            .u32("SHAPE", self.shape as u32)
            .u32("SHAPE_SIZE", self.shape.size(self.dims))
            .u32("NORMALISATION", self.normalisation as u32)
            .u32("LANES", lanes);
        let Self { points, centres, neighbours, epsilon, .. } = *self;
        let params = Params { points, centres, neighbours, epsilon };
        Launch::new(shader, constants, &params, groups.into(), caps, cost)
    }

    /// Points, and centres with their shapes, each once.
    fn geometry_bytes(&self) -> u64 {
        let centre = u64::from(self.dims + self.shape.size(self.dims));
        4 * (u64::from(self.points) * u64::from(self.dims) + u64::from(self.centres) * centre)
    }

    /// Operations for one `phi`: the offset, `M u`, the product, and a few for the function.
    fn flops(&self) -> u64 {
        let d = u64::from(self.dims);
        self.pairs() * (d + 2 * u64::from(self.shape.size(self.dims)) + 2 * d + 4)
    }

    fn geometry<'a>(&self, views: [BufferView<'a>; 3]) -> [Arg<'a>; 3] {
        let centres = u64::from(self.centres);
        let size = u64::from(self.shape.size(self.dims));
        [
            Arg::words("positions", views[0], u64::from(self.points) * u64::from(self.dims)),
            Arg::words("centres", views[1], centres * u64::from(self.dims)),
            Arg::words("shapes", views[2], centres * size),
        ]
    }
}

kernel! {
    /// `phi` of every point and neighbour.
    RadialBasisForward, RadialBasisConfig
}

/// Buffers of [`RadialBasisForward`].
#[derive(Debug, Clone, Copy)]
pub struct RadialBasisForwardArgs<'a> {
    /// Points, `[N, dims]`.
    pub positions: BufferView<'a>,
    /// Centres, `[C, dims]`.
    pub centres: BufferView<'a>,
    /// Shapes, `[C, RadialShape::size]`; not read by [`RadialFunction::Cosine`].
    pub shapes: BufferView<'a>,
    /// Indices of each point's neighbours, u32 `[N, K]` (rows of a shared table come by
    /// [`Gather`](crate::dense::Gather)). An index that is not below `C` is no neighbour: 0.
    pub neighbours: BufferView<'a>,
    /// The bases, normalised if configured, `[N, K]`. NaN in a position gives NaN in its row.
    pub phi: BufferView<'a>,
}

impl RadialBasisForward {
    /// One invocation a point.
    pub fn plan(config: &RadialBasisConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        check_workgroup("radial/radial_basis", WORKGROUP, 0, caps)?;
        let cost = Cost::new(config.flops(), config.geometry_bytes() + 8 * config.pairs());
        let groups = config.points.div_ceil(WORKGROUP);
        Ok(Plan::single("point", config.launch(&FORWARD, 1, groups, cost, caps)?))
    }
}

impl Kernel for RadialBasisForward {
    type Args<'a> = RadialBasisForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let pairs = self.config.pairs();
        let mut bound = self.config.geometry([args.positions, args.centres, args.shapes]).to_vec();
        bound.push(Arg::words("neighbours", args.neighbours, pairs));
        bound.push(Arg::words("phi", args.phi, pairs));
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &bound)?))
    }
}

kernel! {
    /// Gradients of the positions, the centres and the shapes.
    RadialBasisBackward, RadialBasisConfig
}

/// Buffers of [`RadialBasisBackward`].
#[derive(Debug, Clone, Copy)]
pub struct RadialBasisBackwardArgs<'a> {
    /// As in the forward pass.
    pub positions: BufferView<'a>,
    /// As in the forward pass.
    pub centres: BufferView<'a>,
    /// As in the forward pass.
    pub shapes: BufferView<'a>,
    /// As in the forward pass.
    pub neighbours: BufferView<'a>,
    /// Gradient of the bases, `[N, K]`.
    pub dphi: BufferView<'a>,
    /// The same before normalisation, `[N, K]`; overwritten. What the centres' gradients are made of.
    pub dkernel: BufferView<'a>,
    /// Gradient of the positions, `[N, dims]`; overwritten.
    pub dpositions: BufferView<'a>,
    /// What the centres take part in; `None`: frozen, no gradient is wanted.
    pub centre_gradients: Option<RadialCentreGradients<'a>>,
}

/// Where the gradients of centres and shapes go.
#[derive(Debug, Clone, Copy)]
pub struct RadialCentreGradients<'a> {
    /// `order` of [`InvertedIndex`](crate::dense::InvertedIndex) of the neighbours, u32 `[N K]`.
    pub order: BufferView<'a>,
    /// Its `starts`, u32 `[C + 1]`.
    pub starts: BufferView<'a>,
    /// Gradient of the centres, `[C, dims]`; overwritten.
    pub dcentres: BufferView<'a>,
    /// Gradient of the shapes, laid out like them; overwritten. An element off the diagonal of a
    /// symmetric shape stands for both of its places. 0 for [`RadialFunction::Cosine`].
    pub dshapes: BufferView<'a>,
}

impl RadialBasisBackward {
    /// One invocation a point; then some a centre.
    pub fn plan(config: &RadialBasisConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        check_workgroup("radial/radial_basis", WORKGROUP, 5 * 16 * WORKGROUP, caps)?;
        let (pairs, flops) = (config.pairs(), config.flops());
        let cost = Cost::new(2 * flops, 2 * config.geometry_bytes() + 12 * pairs);
        let points = config.launch(&BACKWARD_POINTS, 1, config.points.div_ceil(WORKGROUP), cost, caps)?;
        let lanes = config.lanes(caps)?;
        let groups = config.centres.div_ceil(WORKGROUP / lanes);
        let cost = Cost::new(2 * flops, 2 * config.geometry_bytes() + 8 * pairs);
        let centres = config.launch(&BACKWARD_CENTRES, lanes, groups, cost, caps)?;
        let variant = if lanes == 1 { "invocation" } else { "workgroup" };
        Ok(Plan { variant, launches: vec![points, centres], scratch: Vec::new() })
    }
}

impl Kernel for RadialBasisBackward {
    type Args<'a> = RadialBasisBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let pairs = config.pairs();
        let geometry = config.geometry([args.positions, args.centres, args.shapes]);
        let neighbours = Arg::words("neighbours", args.neighbours, pairs);
        let dphi = Arg::words("dphi", args.dphi, pairs);
        let dkernel = Arg::words("dkernel", args.dkernel, pairs);
        let positions = u64::from(config.points) * u64::from(config.dims);
        let dpositions = Arg::words("dpositions", args.dpositions, positions);
        let mut bound = geometry.to_vec();
        bound.extend([neighbours, dphi, dkernel, dpositions]);
        let [points, centres] = &self.plan.launches[..] else {
            check_shape(false, "plan", "two launches", self.plan.launches.len())?;
            return Ok(Recording::new());
        };
        let mut recording = Recording::single(self.context.bind(points, &bound)?);
        if let Some(wanted) = &args.centre_gradients {
            let c = u64::from(config.centres);
            let size = u64::from(config.shape.size(config.dims));
            let order = Arg::words("order", wanted.order, pairs);
            let starts = Arg::words("starts", wanted.starts, c + 1);
            let dcentres = Arg::words("dcentres", wanted.dcentres, c * u64::from(config.dims));
            let dshapes = Arg::words("dshapes", wanted.dshapes, c * size);
            let [x, centre, shape] = geometry;
            let read = [x, centre, shape, neighbours, dphi, order, starts];
            check_apart(&[dkernel, dpositions, dcentres, dshapes], &read.map(Some))?;
            let mut bound = geometry.to_vec();
            bound.extend([dkernel, order, starts, dcentres, dshapes]);
            recording.push(self.context.bind(centres, &bound)?);
        }
        Ok(recording)
    }
}
