//! Radial bases of compact support on a lattice, twice differentiable everywhere
//! (`shaders/radial/compact_basis.wgsl`).
//!
//! A field over the k nearest centres jumps where the set of those centres changes, and so do its
//! derivatives: supervised by gradients it does not converge. Here each point sees a fixed ring of
//! lattice nodes whose bases, with their first and second derivatives, have come down to zero where
//! a node leaves the ring. Values, spatial derivatives and the gradients of both are exact.

use super::Differential;
use crate::dense::{Sort, SortConfig, SortKey, SortPayload};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result, Scratch,
    Shader, check_apart, check_config, check_workgroup, count, kernel, read, shader, write,
};

/// The function of the distance, as one of `q = r^2`, the square of the distance in radii. Each has
/// two continuous derivatives at the centre and at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum CompactKernel {
    /// `(1 - r)^6 (35 q + 18 r + 3) / 3` (Wendland 1995): four continuous derivatives, positive
    /// definite in up to three dimensions.
    #[default]
    WendlandC4,
    /// `exp(-sharpness q) (1 - q)^3`
    Gaussian {
        /// At least 0.
        sharpness: f32,
    },
    /// `(1 - q)^3 / (1 + sharpness q)`
    InverseQuadratic {
        /// At least 0.
        sharpness: f32,
    },
}

impl CompactKernel {
    fn id(self) -> u32 {
        match self {
            Self::WendlandC4 => 0,
            Self::Gaussian { .. } => 1,
            Self::InverseQuadratic { .. } => 2,
        }
    }

    fn sharpness(self) -> f32 {
        match self {
            Self::WendlandC4 => 0.0,
            Self::Gaussian { sharpness } | Self::InverseQuadratic { sharpness } => sharpness,
        }
    }
}

/// How far a node may move away from its place on the lattice, and its radius shrink. Both are
/// bounded so that its support stays within the ring: the field is as smooth as with fixed nodes.
///
/// A node has `dims + 1` numbers `(u, v)`: its centre is the node + `shift tanh(u)`, its radius
/// `(ring / 2 - shift) 2^(-octaves sigmoid(v))`, in cells. All 0 is a good start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveNodes {
    /// Cells along each axis, at least 0 and below `ring / 2`.
    pub shift: f32,
    /// 0 to 4.
    pub octaves: f32,
}

impl Default for AdaptiveNodes {
    fn default() -> Self {
        Self { shift: 0.25, octaves: 0.5 }
    }
}

/// How the gradients of weights and shapes are summed. Either way it is the same bits in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactBasisVariant {
    /// One invocation walks all points that see its node: for CPU adapters.
    Alone,
    /// A workgroup shares them: for GPUs.
    Together,
}

/// Levels of lattices over `[0, 1]^dims`, each with features of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompactBasisConfig {
    /// 2 or 3.
    pub dims: u32,
    /// Levels, 1 to 16.
    pub levels: u32,
    /// Cells of the coarsest level along an axis, at least 1.
    pub base_resolution: u32,
    /// Factor between the resolutions of neighbouring levels, at least 1.
    pub growth: f64,
    /// Nodes that a point sees along an axis, 2 to 4; the radius is half of it, in cells.
    pub ring: u32,
    /// Features of a level: 4 to 64, a multiple of 4.
    pub features: u32,
    /// The function of the distance.
    pub kernel: CompactKernel,
    /// Divides each basis by the sum of all (and 1e-4): a partition of unity, with the full
    /// quotient rule in every gradient.
    pub normalized: bool,
    /// Features are `sum_k w sin(m a_k)` with a frequency m each, instead of `sum_k w a_k`.
    pub sinusoids: bool,
    /// `None`: nodes stay in place.
    pub adaptive: Option<AdaptiveNodes>,
    /// Values, or their derivatives in space too.
    pub differential: Differential,
    /// Points of one call, `N`.
    pub points: u32,
    /// The gradient of the positions is wanted.
    pub to_positions: bool,
    /// `None`: what suits the device.
    pub variant: Option<CompactBasisVariant>,
}

impl Default for CompactBasisConfig {
    fn default() -> Self {
        Self {
            dims: 2,
            levels: 1,
            base_resolution: 16,
            growth: 2.0,
            ring: 4,
            features: 8,
            kernel: CompactKernel::default(),
            normalized: false,
            sinusoids: false,
            adaptive: None,
            differential: Differential::Value,
            points: 1,
            to_positions: false,
            variant: None,
        }
    }
}

/// One lattice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatticeLevel {
    /// Cells along an axis.
    pub resolution: u32,
    /// Index of its first node.
    pub first: u32,
    /// Its nodes, `(resolution + ring - 1)^dims`, row by row. Node `n` of an axis lies at
    /// `n - (ring - 2) / 2` cells.
    pub nodes: u32,
    first_list: u32,
    cells: u32,
}

impl CompactBasisConfig {
    /// The levels, from coarse to fine.
    pub fn level_table(&self) -> Result<Vec<LatticeLevel>> {
        check_config(matches!(self.dims, 2 | 3), "dims", "2 or 3", self.dims)?;
        check_config((1..=16).contains(&self.levels), "levels", "1 to 16", self.levels)?;
        check_config(self.base_resolution > 0, "base_resolution", "at least 1", self.base_resolution)?;
        let growth = self.growth;
        check_config(growth.is_finite() && growth >= 1.0, "growth", "finite and at least 1", growth)?;
        check_config((2..=4).contains(&self.ring), "ring", "2 to 4", self.ring)?;
        let features = self.features;
        let whole = features.is_multiple_of(4) && (4..=64).contains(&features);
        check_config(whole, "features", "a multiple of 4 from 4 to 64", features)?;
        let sharpness = self.kernel.sharpness();
        let good = sharpness.is_finite() && sharpness >= 0.0;
        check_config(good, "sharpness", "finite and at least 0", sharpness)?;
        if let Some(AdaptiveNodes { shift, octaves }) = self.adaptive {
            let reach = 0.5 * self.ring as f32;
            check_config((0.0..reach).contains(&shift), "shift", "from 0 to below ring / 2", shift)?;
            check_config((0.0..=4.0).contains(&octaves), "octaves", "0 to 4", octaves)?;
        }
        check_config(self.points > 0, "points", "at least 1", self.points)?;
        let (mut first, mut first_list) = (0u32, 0u32);
        (0..self.levels)
            .map(|l| {
                let resolution = (f64::from(self.base_resolution) * growth.powi(l as i32)).round();
                // Places within a cell must keep digits in f32.
                let fine = resolution <= 65_536.0;
                check_config(fine, "growth", "such that no level is finer than 65,536", growth)?;
                let resolution = resolution as u32;
                let power = |n: u32, what| count(what, &[n, n, if self.dims == 3 { n } else { 1 }]);
                let nodes = power(resolution + self.ring - 1, "nodes")?;
                let cells = power(resolution, "cells")?;
                let level = LatticeLevel { resolution, first, nodes, first_list, cells };
                let end = |what, elements: u64| {
                    u32::try_from(elements).map_err(|_| Error::IndexOverflow { what, elements })
                };
                first = end("nodes", u64::from(first) + u64::from(nodes))?;
                let list = u64::from(cells) + 1 + u64::from(self.points);
                first_list = end("lists", u64::from(first_list) + list)?;
                Ok(level)
            })
            .collect()
    }

    /// Nodes of all levels.
    pub fn node_count(&self) -> Result<u32> {
        let nodes = self.level_table()?.iter().map(|level| level.nodes).sum();
        count("weights", &[nodes, self.features])?;
        count("shapes", &[nodes, self.dims + 1])?;
        Ok(nodes)
    }

    /// Words of the lists of all levels.
    pub fn list_count(&self) -> Result<u32> {
        let last = self.level_table()?.last().copied();
        Ok(last.map_or(0, |level| level.first_list + level.cells + 1 + self.points))
    }

    /// Features of an encoded point, `levels * features`.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        self.levels * self.features
    }

    /// Elements of the output: `[N, outputs]`, or `[1 + dims, N, outputs]` for jets.
    pub fn output_count(&self) -> Result<u32> {
        count("y", &[self.differential.planes(self.dims), self.points, self.levels, self.features])
    }

    fn constants(&self) -> Constants {
        Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .u32("ACTIVATION", 0)
            .u32("DIMS", self.dims)
            .u32("RING", self.ring)
            .u32("KERNEL", self.kernel.id())
            .u32("DIFFERENTIAL", self.differential.id())
            .bool("NORMALIZE", self.normalized)
            .bool("SINUSOID", self.sinusoids)
            .bool("ADAPTIVE", self.adaptive.is_some())
    }

    fn params(&self, l: u32, level: &LatticeLevel) -> Params {
        let (shift, octaves) = self.adaptive.map_or((0.0, 0.0), |a| (a.shift, a.octaves));
        let quads = self.features / 4;
        Params {
            points: self.points,
            resolution: level.resolution,
            nodes: level.resolution + self.ring - 1,
            first_node: level.first,
            quads,
            column: l * quads,
            row: self.levels * quads,
            plane: self.points * self.levels * quads,
            first_list: level.first_list,
            accumulate: u32::from(l > 0),
            radius: 0.5 * self.ring as f32 - shift,
            sharpness: self.kernel.sharpness(),
            shift,
            octaves,
            share: 0,
            shares: 1,
        }
    }

    /// Pairs of a point and a node of a level.
    fn pairs(&self) -> u64 {
        u64::from(self.points) * u64::from(self.ring).pow(self.dims)
    }

    /// The least work of a level: a distance and a basis of about 20 operations for each pair, and
    /// for each of its features a product for each plane, and about 20 for a sine.
    fn cost(&self, level: &LatticeLevel, passes: u64) -> Cost {
        let planes = u64::from(self.differential.planes(self.dims));
        let feature = 2 * planes + if self.sinusoids { 20 } else { 0 };
        let flops = self.pairs() * (20 + u64::from(self.features) * feature) * passes;
        let values = u64::from(self.points) * (u64::from(self.dims) + u64::from(self.features) * planes);
        let weights = u64::from(level.nodes) * u64::from(self.features) * passes;
        Cost::new(flops, 4 * (values + weights))
    }

    /// A point's row of `records`, in vec4s.
    fn record_vectors(&self) -> u64 {
        1 + u64::from(self.normalized) + u64::from(self.differential == Differential::Along)
    }

    /// The gradient of the positions, or what that of the shapes needs of it.
    fn needs_positions(&self) -> bool {
        self.to_positions || self.adaptive.is_some()
    }

    fn sort(&self, level: &LatticeLevel) -> SortConfig {
        SortConfig {
            key: SortKey::U32,
            count: self.points,
            payload: SortPayload::Indices,
            descending: false,
            bits: (u32::BITS - (level.cells - 1).leading_zeros()).max(1),
            variant: None,
        }
    }
}

const WORKGROUP: u32 = 64;

/// Rounds of loops in a launch of an owner of sums. Mesa's llvmpipe ends all loops of an invocation
/// after 65,535; invocations that run as one and walk different rows of cells take up to three
/// times their own.
const ROUNDS: u64 = 1 << 14;

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    resolution: u32,
    nodes: u32,
    first_node: u32,
    quads: u32,
    column: u32,
    row: u32,
    plane: u32,
    first_list: u32,
    accumulate: u32,
    radius: f32,
    sharpness: f32,
    shift: f32,
    octaves: f32,
    share: u32,
    shares: u32,
}

/// One entry point, with the common files that all of them need.
macro_rules! basis_shader {
    ($entry:literal, [$($binding:expr),* $(,)?]) => {
        shader!("radial/compact_basis", $entry, [index, sincos, activation], [$($binding),*])
    };
}

static FORWARD: Shader = basis_shader!(
    "forward",
    [
        read("positions"),
        read("weights").vec4(),
        read("frequencies").vec4(),
        read("shapes"),
        read("direction"),
        write("y").vec4()
    ]
);
static CELLS: Shader = basis_shader!("cells_of_points", [read("positions"), write("keys")]);
static LIST: Shader = basis_shader!("list", [read("sorted_keys"), read("sorted_points"), write("lists_out")]);
static RECORDS: Shader = basis_shader!(
    "make_records",
    [
        read("positions"),
        read("record_lists"),
        read("record_direction"),
        read("shapes"),
        write("records_out").vec4()
    ]
);
static TO_POSITIONS: Shader = basis_shader!(
    "to_positions",
    [
        read("records").vec4(),
        read("weights").vec4(),
        read("frequencies").vec4(),
        read("shapes"),
        read("lists"),
        read("dy").vec4(),
        write("adjoints_out").vec4(),
        write("dx")
    ]
);
/// Alone and together.
static TO_WEIGHTS: [Shader; 2] = [
    basis_shader!(
        "to_weights",
        [
            read("records").vec4(),
            write("dweights").vec4(),
            read("frequencies").vec4(),
            read("shapes"),
            read("lists"),
            read("dy").vec4()
        ]
    ),
    basis_shader!(
        "to_weights_together",
        [
            read("records").vec4(),
            write("dweights").vec4(),
            read("frequencies").vec4(),
            read("shapes"),
            read("lists"),
            read("dy").vec4()
        ]
    ),
];
static TO_SHAPES: [Shader; 2] = [
    basis_shader!(
        "to_shapes",
        [
            read("records").vec4(),
            read("weights").vec4(),
            read("frequencies").vec4(),
            read("shapes"),
            read("lists"),
            read("dy").vec4(),
            read("adjoints").vec4(),
            write("dshapes")
        ]
    ),
    basis_shader!(
        "to_shapes_together",
        [
            read("records").vec4(),
            read("weights").vec4(),
            read("frequencies").vec4(),
            read("shapes"),
            read("lists"),
            read("dy").vec4(),
            read("adjoints").vec4(),
            write("dshapes")
        ]
    ),
];

/// The buffers that a basis is made of.
#[derive(Debug, Clone, Copy)]
pub struct CompactBasisInputs<'a> {
    /// Positions in `[0, 1]`, `[N, dims]`; others are clamped, and nothing changes along the axes
    /// where they are.
    pub positions: BufferView<'a>,
    /// Weights, `[nodes, features]`, level after level.
    pub weights: BufferView<'a>,
    /// Radians for each unit of a basis, `[features]`, up to 50,000; for sinusoids.
    pub frequencies: Option<BufferView<'a>>,
    /// `(u, v)` of [`AdaptiveNodes`], `[nodes, dims + 1]`; for adaptive nodes.
    pub shapes: Option<BufferView<'a>>,
    /// Directions, `[N, dims]`; for [`Differential::Along`].
    pub direction: Option<BufferView<'a>>,
}

/// The arguments made of them; what is not used is stood for by the positions.
#[derive(Clone, Copy)]
struct InputArgs<'a> {
    positions: Arg<'a>,
    weights: Arg<'a>,
    frequencies: Arg<'a>,
    shapes: Arg<'a>,
    direction: Arg<'a>,
}

impl CompactBasisConfig {
    fn inputs<'a>(&self, inputs: &CompactBasisInputs<'a>) -> Result<InputArgs<'a>> {
        let nodes = u64::from(self.node_count()?);
        let (features, dims) = (u64::from(self.features), u64::from(self.dims));
        let each = u64::from(self.points) * dims;
        let positions = Arg::words("positions", inputs.positions, each);
        let weights = Arg::words("weights", inputs.weights, nodes * features);
        let optional = |what, view: Option<BufferView<'a>>, wanted: bool, n, other| match view {
            Some(view) if wanted => Ok(Arg::words(what, view, n)),
            None if wanted => Err(Error::Config {
                what,
                need: "a buffer, since the configuration asks for it".into(),
                got: "none".into(),
            }),
            _ => Ok(other),
        };
        let along = self.differential == Differential::Along;
        Ok(InputArgs {
            positions,
            weights,
            // The weights hold at least four numbers, as the binding demands.
            frequencies: optional("frequencies", inputs.frequencies, self.sinusoids, features, weights)?,
            shapes: optional(
                "shapes",
                inputs.shapes,
                self.adaptive.is_some(),
                nodes * (dims + 1),
                positions,
            )?,
            direction: optional("direction", inputs.direction, along, each, positions)?,
        })
    }

    fn lists<'a>(&self, view: BufferView<'a>) -> Result<Arg<'a>> {
        Ok(Arg::words("lists", view, self.list_count()?.into()))
    }
}

kernel! {
    /// Features of positions: values, jets, or derivatives along a direction.
    CompactBasisForward, CompactBasisConfig
}

/// Buffers of [`CompactBasisForward`].
#[derive(Debug, Clone, Copy)]
pub struct CompactBasisForwardArgs<'a> {
    /// The basis and where it is evaluated.
    pub inputs: CompactBasisInputs<'a>,
    /// Output, `[N, levels * features]`; for jets `[1 + dims, N, levels * features]`.
    pub y: BufferView<'a>,
}

impl CompactBasisForward {
    /// One launch a level; one invocation a point and four features.
    pub fn plan(config: &CompactBasisConfig, caps: &Capabilities) -> Result<Plan> {
        let table = config.level_table()?;
        config.node_count()?;
        config.output_count()?;
        let blocks = config.points.div_ceil(WORKGROUP);
        let groups = u64::from(blocks) * u64::from(config.features / 4);
        let launch = |(l, level): (u32, &LatticeLevel)| {
            let params = config.params(l, level);
            Launch::new(&FORWARD, config.constants(), &params, groups, caps, config.cost(level, 1))
        };
        let launches = (0..).zip(&table).map(launch).collect::<Result<_>>()?;
        Ok(Plan { variant: "point-quad", launches, scratch: Vec::new() })
    }
}

impl Kernel for CompactBasisForward {
    type Args<'a> = CompactBasisForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let InputArgs { positions, weights, frequencies, shapes, direction } =
            self.config.inputs(&args.inputs)?;
        let y = Arg::words("y", args.y, self.config.output_count()?.into());
        let mut recording = Recording::new();
        for launch in &self.plan.launches {
            let args = [positions, weights, frequencies, shapes, direction, y];
            recording.push(self.context.bind(launch, &args)?);
        }
        Ok(recording)
    }
}

kernel! {
    /// The points of each cell, which the backward pass walks. They hold for as long as the
    /// positions do: a batch that stays the same needs them once.
    CompactBasisLists, CompactBasisConfig
}

/// Buffers of [`CompactBasisLists`].
#[derive(Debug, Clone, Copy)]
pub struct CompactBasisListsArgs<'a> {
    /// Positions, `[N, dims]`.
    pub positions: BufferView<'a>,
    /// Output, as many words as [`CompactBasisConfig::list_count`] says.
    pub lists: BufferView<'a>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

/// Scratch buffers of the lists before those of the sort: keys, sorted keys, order.
const LIST_SCRATCH: usize = 3;

impl CompactBasisLists {
    /// For each level: cells, a sort, and the lists.
    pub fn plan(config: &CompactBasisConfig, caps: &Capabilities) -> Result<Plan> {
        config.list_count()?;
        // Which hold the indices of the points' positions.
        config.output_count()?;
        let points = u64::from(config.points);
        let mut plan = Plan { variant: "sorted", ..Plan::default() };
        for (l, level) in (0..).zip(&config.level_table()?) {
            let params = config.params(l, level);
            // The lists depend on the lattice alone: one pipeline for all bases.
            let constants = CompactBasisConfig { dims: config.dims, ..Default::default() }.constants();
            let positions = points * u64::from(config.dims);
            let mut push = |shader, items: u32, words: u64| -> Result<()> {
                let groups = items.div_ceil(WORKGROUP).into();
                let cost = Cost::new(0, words * 4);
                plan.launches.push(Launch::new(shader, constants.clone(), &params, groups, caps, cost)?);
                Ok(())
            };
            push(&CELLS, config.points, positions + points)?;
            push(&LIST, config.points.max(level.cells + 1), 3 * points + u64::from(level.cells))?;
            let sort = Sort::plan(&config.sort(level), caps)?;
            let at = plan.launches.len() - 1;
            plan.launches.splice(at..at, sort.launches);
            for (i, bytes) in [points * 4; LIST_SCRATCH].into_iter().chain(sort.scratch).enumerate() {
                match plan.scratch.get_mut(i) {
                    Some(most) => *most = bytes.max(*most),
                    None => plan.scratch.push(bytes),
                }
            }
        }
        Ok(plan)
    }
}

impl Kernel for CompactBasisLists {
    type Args<'a> = CompactBasisListsArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let scratch: Vec<_> =
            (0..self.plan.scratch.len()).map(|i| args.scratch.view(i)).collect::<Result<_>>()?;
        let (own, of_sort) = scratch.split_at(LIST_SCRATCH.min(scratch.len()));
        let too_few =
            Error::BufferTooSmall { what: "scratch", need: LIST_SCRATCH as u64, have: scratch.len() as u64 };
        let &[keys, sorted, order] = own else { return Err(too_few) };
        let points = u64::from(config.points);
        let words = |what, view| Arg::words(what, view, points);
        let positions = Arg::words("positions", args.positions, points * u64::from(config.dims));
        let lists = config.lists(args.lists)?;
        check_apart(&[lists], &[Some(positions)])?;
        let mut left = self.plan.launches.iter();
        let mut recording = Recording::new();
        for level in &config.level_table()? {
            let sort = config.sort(level);
            let sort_launches = Sort::plan(&sort, context.capabilities())?.launches.len();
            if let Some(cells) = left.next() {
                recording.push(context.bind(cells, &[positions, words("keys", keys)])?);
            }
            let sorting: Vec<_> = left.by_ref().take(sort_launches).cloned().collect();
            let values = (None, Some(order));
            recording.append(Sort::bind(context, &sorting, &sort, (keys, sorted), values, of_sort)?);
            if let Some(list) = left.next() {
                let args = [words("sorted", sorted), words("order", order), lists];
                recording.push(context.bind(list, &args)?);
            }
        }
        Ok(recording)
    }
}

kernel! {
    /// Gradients of weights, adaptive nodes and positions, without atomics.
    CompactBasisBackward, CompactBasisConfig
}

/// Buffers of [`CompactBasisBackward`].
#[derive(Debug, Clone, Copy)]
pub struct CompactBasisBackwardArgs<'a> {
    /// As in the forward pass.
    pub inputs: CompactBasisInputs<'a>,
    /// Of [`CompactBasisLists`] for these positions.
    pub lists: BufferView<'a>,
    /// Gradient of the output, of the output's shape.
    pub dy: BufferView<'a>,
    /// Gradient of the weights, `[nodes, features]`; overwritten.
    pub dweights: BufferView<'a>,
    /// Gradient of the shapes, `[nodes, dims + 1]`, for adaptive nodes; overwritten.
    pub dshapes: Option<BufferView<'a>>,
    /// Gradient of the positions, `[N, dims]`, if the configuration asks for it; overwritten.
    pub dx: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl CompactBasisBackward {
    /// For each level: the records, the positions (for adaptive nodes, too), the weights and the
    /// shapes.
    pub fn plan(config: &CompactBasisConfig, caps: &Capabilities) -> Result<Plan> {
        config.node_count()?;
        config.list_count()?;
        config.output_count()?;
        check_workgroup("radial/compact_basis", WORKGROUP, 16 * WORKGROUP, caps)?;
        let alone = if caps.cpu { CompactBasisVariant::Alone } else { CompactBasisVariant::Together };
        let (variant, name) = match config.variant.unwrap_or(alone) {
            CompactBasisVariant::Alone => (0, "alone"),
            CompactBasisVariant::Together => (1, "together"),
        };
        let points = u64::from(config.points);
        let record_bytes = config.record_vectors() * 16;
        let mut plan = Plan { variant: name, ..Plan::default() };
        for (l, level) in (0..).zip(&config.level_table()?) {
            let params = config.params(l, level);
            let mut push = |shader, groups: u64, cost: Cost, rounds: u64| -> Result<()> {
                // What each invocation walks, in the worst case that a node sees all points.
                let shares = rounds.div_ceil(ROUNDS).max(1);
                let cost = Cost::new(cost.flops / shares, cost.bytes / shares);
                // At most 2^32 points and 16 quads: below 2^23.
                let shares = shares as u32;
                for share in 0..shares {
                    let params = Params { share, shares, ..params };
                    let constants = config.constants();
                    plan.launches.push(Launch::new(shader, constants, &params, groups, caps, cost)?);
                }
                Ok(())
            };
            let each_point = config.points.div_ceil(WORKGROUP).into();
            let owned = |n: u64| if variant == 1 { n } else { n.div_ceil(WORKGROUP.into()) };
            let walked = if variant == 1 { points.div_ceil(WORKGROUP.into()) } else { points };
            let sums = if config.normalized { 20 * config.pairs() } else { 0 };
            let record = Cost::new(sums, points * (record_bytes + 4 * u64::from(config.dims)));
            push(&RECORDS, each_point, record, 0)?;
            if config.needs_positions() {
                push(&TO_POSITIONS, each_point, config.cost(level, 2), 0)?;
            }
            let (nodes, quads) = (u64::from(level.nodes), u64::from(config.features / 4));
            push(&TO_WEIGHTS[variant], owned(nodes * quads), config.cost(level, 1), walked)?;
            if config.adaptive.is_some() {
                push(&TO_SHAPES[variant], owned(nodes), config.cost(level, 2), walked * (1 + quads))?;
            }
        }
        plan.scratch = vec![points * record_bytes];
        if config.needs_positions() {
            plan.scratch.push(if config.normalized { points * 16 } else { 16 });
            plan.scratch.push(if config.to_positions { 4 } else { points * u64::from(config.dims) * 4 });
        }
        Ok(plan)
    }
}

impl Kernel for CompactBasisBackward {
    type Args<'a> = CompactBasisBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let (context, config) = (&self.context, &self.config);
        let InputArgs { positions, weights, frequencies, shapes, direction } = config.inputs(&args.inputs)?;
        let missing = |what| Error::Config {
            what,
            need: "a buffer, since the configuration asks for it".into(),
            got: "none".into(),
        };
        let scratch = |what, i: usize| -> Result<Arg<'_>> {
            let bytes = self.plan.scratch.get(i).copied().unwrap_or(0);
            Ok(Arg::words(what, args.scratch.view(i)?, bytes / 4))
        };
        let lists = config.lists(args.lists)?;
        let dy = Arg::words("dy", args.dy, config.output_count()?.into());
        let dweights = Arg::words("dweights", args.dweights, weights.need / 4);
        let dshapes = if config.adaptive.is_some() {
            let view = args.dshapes.ok_or_else(|| missing("dshapes"))?;
            Some(Arg::words("dshapes", view, shapes.need / 4))
        } else {
            None
        };
        let dx = if config.to_positions {
            let view = args.dx.ok_or_else(|| missing("dx"))?;
            Some(Arg::words("dx", view, positions.need / 4))
        } else {
            None
        };
        let outputs: Vec<_> = [Some(dweights), dshapes, dx].into_iter().flatten().collect();
        let read = [positions, weights, frequencies, shapes, direction, lists, dy];
        check_apart(&outputs, &read.map(Some))?;
        let records = scratch("scratch 0", 0)?;
        let mut left = self.plan.launches.iter().peekable();
        let mut recording = Recording::new();
        // All shares of a pass have the same buffers.
        let mut push = |args: &[Arg<'_>]| -> Result<()> {
            let Some(first) = left.next() else { return Ok(()) };
            recording.push(context.bind(first, args)?);
            let same = |next: &&Launch| next.shader().name() == first.shader().name();
            while let Some(share) = left.next_if(same) {
                recording.push(context.bind(share, args)?);
            }
            Ok(())
        };
        for _ in 0..config.levels {
            push(&[positions, lists, direction, shapes, records])?;
            if config.needs_positions() {
                let adjoints = scratch("scratch 1", 1)?;
                let dx = match dx {
                    Some(dx) => dx,
                    None => scratch("scratch 2", 2)?,
                };
                push(&[records, weights, frequencies, shapes, lists, dy, adjoints, dx])?;
            }
            push(&[records, dweights, frequencies, shapes, lists, dy])?;
            if let Some(dshapes) = dshapes {
                let adjoints = scratch("scratch 1", 1)?;
                push(&[records, weights, frequencies, shapes, lists, dy, adjoints, dshapes])?;
            }
        }
        Ok(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_points_than_indices_hold_are_refused() {
        let caps = Capabilities::baseline();
        for points in [u32::MAX, u32::MAX - 1, 1 << 30] {
            let config = CompactBasisConfig { points, levels: 2, ..Default::default() };
            let plans = [
                CompactBasisForward::plan(&config, &caps),
                CompactBasisLists::plan(&config, &caps),
                CompactBasisBackward::plan(&config, &caps),
            ];
            for plan in plans {
                assert!(matches!(plan, Err(Error::IndexOverflow { what: "lists" | "y", .. })), "{points}");
            }
        }
        let many = CompactBasisConfig { points: u32::MAX - 300, ..Default::default() };
        assert_eq!(many.list_count(), Ok(u32::MAX - 300 + 257));
        assert!(CompactBasisLists::plan(&many, &caps).is_err());
    }
}
