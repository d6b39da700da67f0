//! Points drawn by weight (`shaders/radial/weighted_sample.wgsl`).

use crate::dense::random::RandomState;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Kernel, Launch, Plan, Recording, Result,
    Scratch, Shader, check_config, count, kernel, read, shader, write,
};

/// Draws with replacement from weighted points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedSampleConfig {
    /// Coordinates of a point, 1 to 4.
    pub dims: u32,
    /// Points, at least 1.
    pub points: u32,
    /// Draws, 1 to 2^31.
    pub draws: u32,
    /// Distinguishes uses of one random state.
    pub stream: u32,
}

const WORKGROUP: u32 = 64;
const CHILDREN: u32 = 64;

static SUM_WEIGHTS: Shader = shader!(
    "radial/weighted_sample",
    "sum_weights",
    [index, random, weight],
    [read("weights"), write("sums")]
);
static SUM_LEVEL: Shader =
    shader!("radial/weighted_sample", "sum_level", [index, random, weight], [write("level_sums")]);
static DRAW: Shader = shader!(
    "radial/weighted_sample",
    "draw",
    [index, random, weight],
    [read("weights"), read("tree"), read("positions"), read("state"), write("samples")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    points: u32,
    draws: u32,
    stream: u32,
    levels: u32,
    children: u32,
    from_node: u32,
    to_node: u32,
}

/// The sums of weights, level upon level, 64 nodes to one of the next level.
pub(crate) struct WeightTree {
    /// The points, then the nodes of each level up to the root.
    nodes: Vec<u32>,
}

impl WeightTree {
    pub fn new(points: u32) -> Self {
        let mut nodes = vec![points, points.div_ceil(CHILDREN)];
        let mut top = points.div_ceil(CHILDREN);
        while top > 1 {
            top = top.div_ceil(CHILDREN);
            nodes.push(top);
        }
        Self { nodes }
    }

    /// All nodes together.
    pub fn size(&self) -> u32 {
        self.nodes[1..].iter().sum()
    }

    /// Where the sum of all weights stands.
    pub fn root(&self) -> u32 {
        self.size() - 1
    }

    fn params(&self) -> Params {
        let (points, levels) = (self.nodes[0], self.nodes.len() as u32 - 1);
        Params { points, draws: 0, stream: 0, levels, children: 0, from_node: 0, to_node: 0 }
    }

    /// A launch for each level.
    pub fn plan(&self, caps: &Capabilities) -> Result<Vec<Launch>> {
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("D", 1);
        let mut from_node = 0;
        self.nodes
            .windows(2)
            .enumerate()
            .map(|(level, pair)| {
                let (children, nodes) = (pair[0], pair[1]);
                let shader = if level == 0 { &SUM_WEIGHTS } else { &SUM_LEVEL };
                let to_node = if level == 0 { 0 } else { from_node + children };
                let params = Params { children, from_node, to_node, ..self.params() };
                from_node = to_node;
                let cost = Cost::new(children.into(), 4 * (u64::from(children) + u64::from(nodes)));
                let groups = nodes.div_ceil(WORKGROUP).into();
                Launch::new(shader, constants.clone(), &params, groups, caps, cost)
            })
            .collect()
    }

    /// Binds the launches of the plan.
    pub fn bind(
        &self,
        context: &Context,
        launches: &[Launch],
        weights: Arg<'_>,
        sums: BufferView<'_>,
    ) -> Result<Recording> {
        let mut recording = Recording::new();
        let sums = Arg::words("sums", sums, self.size().into());
        for (level, launch) in launches.iter().enumerate() {
            let args: &[Arg<'_>] = if level == 0 { &[weights, sums] } else { &[sums] };
            recording.push(context.bind(launch, args)?);
        }
        Ok(recording)
    }
}

kernel! {
    /// Points drawn with replacement, each with a probability proportional to its weight. The same
    /// draws on every adapter.
    WeightedSample, WeightedSampleConfig
}

/// Buffers of [`WeightedSample`].
#[derive(Debug, Clone, Copy)]
pub struct WeightedSampleArgs<'a> {
    /// Weights, `[points]`. NaN, infinity, negative numbers and numbers above 1e27 count as 0. If all
    /// are 0, all points are alike.
    pub weights: BufferView<'a>,
    /// The points, `[points, dims]`.
    pub positions: BufferView<'a>,
    /// [`RandomState`], u32 `[4]`.
    pub state: BufferView<'a>,
    /// The points drawn, `[draws, dims]`; overwritten.
    pub samples: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl WeightedSample {
    /// The sums of the weights, then the draws.
    pub fn plan(config: &WeightedSampleConfig, caps: &Capabilities) -> Result<Plan> {
        let WeightedSampleConfig { dims, points, draws, stream } = *config;
        check_config((1..=4).contains(&dims), "dims", "1 to 4", dims)?;
        check_config(points > 0, "points", "at least 1", points)?;
        check_config((1..=1 << 31).contains(&draws), "draws", "1 to 2^31", draws)?;
        count("positions", &[points, dims])?;
        let samples = u64::from(count("samples", &[draws, dims])?);
        let tree = WeightTree::new(points);
        let mut launches = tree.plan(caps)?;
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("D", dims);
        let params = Params { draws, stream, ..tree.params() };
        // A draw reads half the children of a node of each level, all draws no more than there are; and its point.
        let seen = u64::from(draws) * u64::from(params.levels * CHILDREN / 2);
        let words = seen.min(u64::from(points) + u64::from(tree.size())) + 2 * samples;
        let groups = draws.div_ceil(WORKGROUP).into();
        let cost = Cost::new(u64::from(draws) * 120, 4 * words);
        launches.push(Launch::new(&DRAW, constants, &params, groups, caps, cost)?);
        Ok(Plan { variant: "tree", launches, scratch: vec![u64::from(tree.size()) * 4] })
    }
}

impl Kernel for WeightedSample {
    type Args<'a> = WeightedSampleArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let WeightedSampleConfig { dims, points, draws, .. } = self.config;
        let tree = WeightTree::new(points);
        let Some((draw, levels)) = self.plan.launches.split_last() else {
            return Err(Error::IndexOverflow { what: "launches", elements: 0 });
        };
        let weights = Arg::words("weights", args.weights, points.into());
        let sums = args.scratch.view(0)?;
        let mut recording = tree.bind(&self.context, levels, weights, sums)?;
        let each = |what, view, n: u32| Arg::words(what, view, u64::from(n) * u64::from(dims));
        let bound = [
            weights,
            Arg::words("sums", sums, tree.size().into()),
            each("positions", args.positions, points),
            Arg::words("state", args.state, RandomState::WORDS),
            each("samples", args.samples, draws),
        ];
        recording.push(self.context.bind(draw, &bound)?);
        Ok(recording)
    }
}
