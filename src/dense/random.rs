//! Random numbers and permutations, the same bits on every adapter (`shaders/dense/random.wgsl`).
//!
//! Philox4x32-10 (Salmon et al. 2011): an element is a function of seed, step, stream and index, so
//! that nothing is carried from call to call and any part can be computed anywhere. Normal numbers
//! are made in integer arithmetic; the last conversion to f32 is exact.

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// The `state` buffer: four u32 that the host writes, before each submit if numbers are to change
/// from one submit of a recording to the next.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct RandomState {
    /// Words 0 and 1: the key, low word first.
    pub seed: [u32; 2],
    /// Words 2 and 3: the upper half of the counter, low word first.
    pub step: [u32; 2],
}

impl RandomState {
    /// Words of the buffer.
    pub const WORDS: u64 = 4;

    /// For a training step.
    #[must_use]
    pub fn new(seed: u64, step: u64) -> Self {
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        Self { seed: halves(seed), step: halves(step) }
    }

    /// The bytes to write into the buffer.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

/// What the words are made into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distribution {
    /// Words, u32.
    Bits,
    /// f32 in `[0, 1)`, in steps of 2^-24.
    #[default]
    Uniform,
    /// f32 in `[-1, 1)`, in steps of 2^-23.
    Symmetric,
    /// f32, standard normal (Box and Muller 1958), in steps of 2^-21 within 6.67.
    Normal,
}

/// Random numbers for `count` elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomConfig {
    /// Elements, at least 1.
    pub count: u32,
    /// The distribution.
    pub distribution: Distribution,
    /// Factor of the numbers, rounded once; 1 for bits. The standard deviation of normal numbers.
    pub scale: f32,
    /// Distinguishes uses of one state: each use takes a stream of its own.
    pub stream: u32,
    /// Where in the stream it begins, in blocks of four elements; wraps. Permutations of the same
    /// stream use the blocks from 2^31.
    pub first_block: u32,
}

/// Random permutations of `0 .. n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermutationConfig {
    /// Permutations, 1 to 2^30.
    pub rows: u32,
    /// Elements of each, at least 1.
    pub n: u32,
    /// Distinguishes uses of one state.
    pub stream: u32,
}

const WORKGROUP: u32 = 256;

static FILL: Shader = shader!("dense/random", "fill", [index, random], [read("state"), write("y")]);
static PERMUTATION: Shader =
    shader!("dense/random", "permutation", [index, random], [read("state"), write("y")]);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    stream: u32,
    first_block: u32,
    n: u32,
    side: u32,
    scale: f32,
}

kernel! {
    /// Random numbers.
    RandomFill, RandomConfig
}

/// Buffers of [`RandomFill`] and [`RandomPermutation`].
#[derive(Debug, Clone, Copy)]
pub struct RandomArgs<'a> {
    /// [`RandomState`], u32 `[4]`.
    pub state: BufferView<'a>,
    /// Output: `[count]` f32 (u32 for bits), or u32 `[rows, n]`.
    pub y: BufferView<'a>,
}

impl RandomFill {
    /// Chooses the grid.
    pub fn plan(config: &RandomConfig, caps: &Capabilities) -> Result<Plan> {
        let RandomConfig { count, distribution, scale, stream, first_block } = *config;
        check_config(count > 0, "count", "at least 1", count)?;
        check_config(scale.is_finite(), "scale", "finite", scale)?;
        let (kind, name) = match distribution {
            Distribution::Bits => (0, "bits"),
            Distribution::Uniform => (1, "uniform"),
            Distribution::Symmetric => (2, "symmetric"),
            Distribution::Normal => (3, "normal"),
        };
        check_config(kind > 0 || scale == 1.0, "scale", "1 for bits", scale)?;
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("KIND", kind);
        let params = Params { count, stream, first_block, n: 1, side: 1, scale };
        // Integer operations, about 60 an element and 40 more for normal numbers.
        let operations = if kind == 3 { 100 } else { 60 };
        let cost = Cost::new(u64::from(count) * operations, u64::from(count) * 4);
        let groups = count.div_ceil(4).div_ceil(WORKGROUP).into();
        Ok(Plan::single(name, Launch::new(&FILL, constants, &params, groups, caps, cost)?))
    }
}

impl Kernel for RandomFill {
    type Args<'a> = RandomArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let state = Arg::words("state", args.state, RandomState::WORDS);
        let y = Arg::words("y", args.y, self.config.count.into());
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &[state, y])?))
    }
}

kernel! {
    /// Random permutations, each element computed on its own in constant time: a keyed bijection
    /// (Feistel network with cycle walking, Black and Rogaway 2002), no sorting.
    RandomPermutation, PermutationConfig
}

impl RandomPermutation {
    /// Chooses the grid.
    pub fn plan(config: &PermutationConfig, caps: &Capabilities) -> Result<Plan> {
        let PermutationConfig { rows, n, stream } = *config;
        check_config((1..=1 << 30).contains(&rows), "rows", "1 to 2^30", rows)?;
        check_config(n > 0, "n", "at least 1", n)?;
        let count = count("y", &[rows, n])?;
        let root = n.isqrt();
        // At most 65,536, whose square is one above the last u32: places still fit.
        let side = root + u32::from(u64::from(root) * u64::from(root) < u64::from(n));
        let params = Params { count, stream, first_block: 0, n, side, scale: 1.0 };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP).u32("KIND", 0);
        let cost = Cost::new(u64::from(count) * 700, u64::from(count) * 4);
        let groups = count.div_ceil(WORKGROUP).into();
        Ok(Plan::single("feistel", Launch::new(&PERMUTATION, constants, &params, groups, caps, cost)?))
    }
}

impl Kernel for RandomPermutation {
    type Args<'a> = RandomArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let state = Arg::words("state", args.state, RandomState::WORDS);
        let n = u64::from(self.config.rows) * u64::from(self.config.n);
        let y = Arg::words("y", args.y, n);
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &[state, y])?))
    }
}
