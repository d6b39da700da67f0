//! What attention looks at, without the matrix of its weights (`shaders/attention/attention_statistics.wgsl`).
//!
//! All start from queries, keys and the log-sum-exp `L` that [`FlashAttentionForward`] left (or [`AttentionLse`]
//! computes alone), with `P_ij = exp(S_ij - L_i)`: statistics of the rows of P ([`AttentionRowStatistics`]) and of its
//! columns ([`AttentionColumnMass`]), one layer of the rollout of a row vector ([`AttentionRollout`]), the mass by
//! distance on the grid of patches ([`AttentionHops`]), and a block of P itself ([`AttentionTile`]).
//! Their memory grows with the tokens. A configured gate scales the output and not P: it is not looked at.
//!
//! [`FlashAttentionForward`]: super::flash_attention::FlashAttentionForward
//! [`AttentionLse`]: super::attention_blocks::AttentionLse

use super::config::{AttentionBias, AttentionConfig, AttentionLayout, AttentionVariant};
use super::flash_attention::{AttentionInputs, Bound, Steps, check_apart, optional, scratch_arg};
use super::pass::{Kind, Params as ScoreParams, Pass, Slices, shaders};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Scratch, Shader,
    check_config, check_workgroup, count, kernel, read, shader, write,
};

/// The patches among the tokens: after `prefix` tokens without a place (a class token, say), row by row.
/// Queries and keys are the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// Tokens before the grid.
    pub prefix: u32,
    /// Rows of patches.
    pub height: u32,
    /// Columns of patches.
    pub width: u32,
}

impl PatchGrid {
    /// Rings around a patch that can hold others, its own place included: the larger side.
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.height.max(self.width)
    }

    fn check(&self, config: &AttentionConfig) -> Result<()> {
        let tokens = u64::from(self.prefix) + u64::from(self.height) * u64::from(self.width);
        let fits = tokens == u64::from(config.queries) && config.queries == config.keys;
        let fits = fits && self.height > 0 && self.width > 0;
        check_config(fits, "grid", "a grid of all queries, which are the keys too", self)?;
        if let AttentionBias::Table { prefix, height, width } = config.bias {
            let same = *self == Self { prefix, height, width };
            check_config(same, "grid", "the grid of the bias", self)?;
        }
        Ok(())
    }
}

/// The shaders of one variant.
struct Shaders {
    rows: [Shader; 2],
    columns: [Shader; 2],
}

/// An entry point with elements of queries and keys read one or four at a time; then what it reads and writes.
macro_rules! entry {
    ($file:literal, $entry:literal, $common:tt, $weights:literal, $result:expr) => {
        entry!($file, $entry, attention_other_vectors, 16, $common, $weights, $result)
    };
    (
        $file:literal, $entry:literal, $other:ident, $bytes:literal, [$($common:ident),*], $weights:literal, $result:expr
    ) => {
        shaders!(
            $file,
            $entry,
            $other,
            [attention_statistics $(, $common)*],
            [read("own"), read("other"), read($weights), read("side"), read("bias"), $result],
            [read("own").vec4(), read("other").stride($bytes), read($weights), read("side"), read("bias"), $result]
        )
    };
}
macro_rules! subgroup {
    ($other:ident, $bytes:literal, $common:tt) => {
        Shaders {
            rows: entry!(
                "attention/attention_statistics_subgroup",
                "rows",
                $other,
                $bytes,
                $common,
                "unused",
                write("row_parts").vec4()
            ),
            columns: entry!(
                "attention/attention_statistics_subgroup",
                "columns",
                $other,
                $bytes,
                $common,
                "weights",
                write("column_parts")
            ),
        }
    };
}

static PLAIN: Shaders = Shaders {
    rows: entry!("attention/attention_statistics", "rows", [], "unused", write("row_parts").vec4()),
    columns: entry!("attention/attention_statistics", "columns", [], "weights", write("column_parts")),
};
static TILED: Shaders = Shaders {
    rows: entry!(
        "attention/attention_statistics_tiled",
        "rows",
        [blocks, attention_rows, attention_tiles],
        "unused",
        write("row_parts").vec4()
    ),
    columns: entry!(
        "attention/attention_statistics_tiled",
        "columns",
        [blocks, attention_rows, attention_tiles],
        "weights",
        write("column_parts")
    ),
};
static SUBGROUP: Shaders =
    subgroup!(attention_other_vectors, 16, [attention_rows, attention_pairs, attention_lanes]);
static SUBGROUP_WIDE: Shaders = subgroup!(attention_other_wide, 32, [attention_rows, attention_lanes, wide]);
static HOPS: [Shader; 2] = entry!("attention/attention_statistics", "hops", [], "unused", write("hop_parts"));
static TILE: [Shader; 2] = entry!("attention/attention_statistics", "tile", [], "unused", write("block"));
static MERGE_ROWS: Shader = shader!(
    "attention/attention_statistics_merge",
    "rows",
    [index, exponential],
    [
        read("row_parts").vec4(),
        read("side"),
        write("entropy"),
        write("best"),
        write("best_weight"),
        write("distance")
    ]
);
static MERGE_COLUMNS: Shader = shader!(
    "attention/attention_statistics_merge",
    "columns",
    [index, exponential],
    [read("column_parts"), read("row"), write("mass"), write("mean")]
);
static MERGE_HOPS: Shader = shader!(
    "attention/attention_statistics_merge",
    "hops",
    [index, exponential],
    [read("hop_parts"), write("mass_of_hops")]
);

/// The uniform block of `attention_statistics_merge.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    parts: u32,
    heads: u32,
    tokens: u32,
    rows_at: u32,
    share: f32,
}

/// Rows of a workgroup in all variants.
const ROWS: u32 = 64;
/// Workgroup memory of the tiled variant.
const TILED_BYTES: u32 = 14 << 10;

/// Without what P does not depend on.
fn weights_of(config: &AttentionConfig) -> AttentionConfig {
    let dense = AttentionLayout::TokensHeads;
    AttentionConfig {
        value_dim: None,
        v_layout: dense,
        o_layout: dense,
        gate: false,
        bias_gradient: false,
        lse_gradient: false,
        ..*config
    }
}

fn inputs_of<'a>(config: &AttentionConfig, inputs: &AttentionInputs<'a>) -> Result<Bound<'a>> {
    Bound::new(config, &AttentionInputs { v: inputs.k, gate: None, ..*inputs }, [false; 2])
}

/// The launches, over a checked configuration.
struct Statistics<'a> {
    /// Of the statistics' own variant.
    pass: Pass<'a>,
}

impl<'a> Statistics<'a> {
    fn new(config: &'a AttentionConfig, caps: &'a Capabilities) -> Result<Self> {
        let what = "attention_statistics";
        let mut pass = Pass::new(config, caps)?;
        let tiled = check_workgroup(what, 64, TILED_BYTES, caps);
        let variant = match config.variant {
            Some(AttentionVariant::Tiled) => tiled.map(|()| AttentionVariant::Tiled)?,
            None if !caps.cpu && tiled.is_ok() => AttentionVariant::Tiled,
            // As asked for, or as the scores of a CPU adapter are best computed.
            _ if pass.variant == AttentionVariant::Subgroup => AttentionVariant::Subgroup,
            _ => AttentionVariant::Plain,
        };
        check_workgroup(what, 64, 256, caps)?;
        pass.variant = variant;
        Ok(Self { pass })
    }

    fn shaders(&self) -> &'static Shaders {
        match self.pass.variant {
            AttentionVariant::Plain => &PLAIN,
            AttentionVariant::Tiled => &TILED,
            AttentionVariant::Subgroup if self.pass.wide() => &SUBGROUP_WIDE,
            AttentionVariant::Subgroup => &SUBGROUP,
        }
    }

    fn constants(&self, kind: Kind) -> Constants {
        let constants = self.pass.score_constants(kind);
        match self.pass.variant {
            AttentionVariant::Plain => constants,
            AttentionVariant::Tiled => constants.u32("ROWS", ROWS / 8),
            AttentionVariant::Subgroup => constants.subgroups(),
        }
    }

    fn params(&self, grid: Option<PatchGrid>) -> ScoreParams {
        let params = self.pass.params();
        match grid {
            Some(PatchGrid { prefix, height, width }) => {
                ScoreParams { prefix, grid_height: height, grid_width: width, ..params }
            }
            None => params,
        }
    }

    /// Workgroups for `rows` rows of every head.
    fn groups(&self, rows: u32) -> u64 {
        u64::from(self.pass.config.batch) * u64::from(self.pass.config.heads) * u64::from(rows.div_ceil(ROWS))
    }

    fn slices(&self, kind: Kind, rows: u32, length: u32) -> Slices {
        self.pass.slices_for(kind, rows.div_ceil(ROWS), self.pass.config.heads, length)
    }

    /// Scores and a few operations more of each pair.
    fn cost(&self, result: u64) -> Cost {
        let pairs = self.pass.products(1);
        Cost::new(
            2 * self.pass.products(self.pass.config.head_dim) + 4 * pairs,
            self.pass.inputs() + 4 * result,
        )
    }

    /// What all begin with: the side buffer, and L in it.
    fn prepare(&self) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        if self.pass.has_side() {
            launches.push(self.pass.prepare()?);
        }
        launches.push(self.pass.prepare_rows(false)?);
        Ok(launches)
    }

    fn plan(&self, launches: Vec<Launch>, words: [u64; 2]) -> Plan {
        let scratch = vec![4 * self.pass.side_words(), 4 * words[0], 4 * words[1]];
        Plan { variant: self.pass.variant.name(), launches, scratch }
    }

    fn rows(&self, grid: Option<PatchGrid>) -> Result<Plan> {
        let AttentionConfig { batch, heads, queries, keys, .. } = *self.pass.config;
        let slices = self.slices(Kind::Forward, queries, keys);
        let words = count("row statistics", &[slices.count, batch, heads, queries, 4])?;
        let params = ScoreParams { slices: slices.count, slice_length: slices.length, ..self.params(grid) };
        let constants = self.constants(Kind::Forward).bool("GRID", grid.is_some()).bool("WEIGHTED", false);
        let groups = u64::from(slices.count) * self.groups(queries);
        let (caps, rows) = (self.pass.caps, self.pass.config.lse_count());
        let shader = &self.shaders().rows[self.pass.even()];
        let mut launches = self.prepare()?;
        launches.push(Launch::new(shader, constants, &params, groups, caps, self.cost(words.into()))?);
        let params = Params { count: rows as u32, ..self.merge_params(slices.count, keys) };
        let constants =
            Constants::new().bool("GRID", grid.is_some()).bool("HEADS", false).bool("ROLLOUT", false);
        let cost = Cost::new(0, 4 * u64::from(words) + 16 * rows);
        launches.push(Launch::new(&MERGE_ROWS, constants, &params, rows.div_ceil(64), caps, cost)?);
        Ok(self.plan(launches, [words.into(), if grid.is_some() { 0 } else { 4 }]))
    }

    fn merge_params(&self, parts: u32, tokens: u32) -> Params {
        let rows_at = self.pass.rows_at() as u32;
        Params { count: 0, parts, heads: self.pass.config.heads, tokens, rows_at, share: 1.0 }
    }

    /// `rollout`: the share of attention; then the masses of the heads are not wanted.
    fn columns(&self, weighted: bool, rollout: Option<f32>) -> Result<Plan> {
        let AttentionConfig { batch, heads, queries, keys, .. } = *self.pass.config;
        let slices = self.slices(Kind::Keys, keys, queries);
        // One invocation adds up a key's slices, head by head.
        let rounds = u64::from(heads) * (u64::from(slices.count) + 2);
        self.pass.caps.check_rounds("heads", heads, rounds)?;
        let words = count("column masses", &[slices.count, batch, heads, keys])?;
        let base = self.params(None);
        let params = ScoreParams {
            own: base.other,
            other: base.own,
            row_end: keys,
            slices: slices.count,
            slice_length: slices.length,
            ..base
        };
        let constants = self.constants(Kind::Keys).bool("GRID", false).bool("WEIGHTED", weighted);
        let groups = u64::from(slices.count) * self.groups(keys);
        let shader = &self.shaders().columns[self.pass.even()];
        let caps = self.pass.caps;
        let mut launches = self.prepare()?;
        launches.push(Launch::new(shader, constants, &params, groups, caps, self.cost(words.into()))?);
        let columns = u64::from(count("column masses", &[batch, keys])?);
        let params = Params {
            count: columns as u32,
            share: rollout.unwrap_or(1.0),
            ..self.merge_params(slices.count, keys)
        };
        let constants = Constants::new()
            .bool("GRID", false)
            .bool("HEADS", rollout.is_none())
            .bool("ROLLOUT", rollout.is_some());
        let cost = Cost::new(0, 4 * u64::from(words) + 8 * columns);
        launches.push(Launch::new(&MERGE_COLUMNS, constants, &params, columns.div_ceil(64), caps, cost)?);
        Ok(self.plan(launches, [words.into(), if rollout.is_none() { 0 } else { 4 }]))
    }

    fn hops(&self, grid: PatchGrid) -> Result<Plan> {
        let AttentionConfig { batch, heads, queries, .. } = *self.pass.config;
        let (tiles, hops) = (queries.div_ceil(ROWS), grid.hops());
        // A ring has at most eight times as many patches as its number.
        let rounds = 8 * u64::from(hops) * self.pass.rounds_of_pair();
        self.pass.caps.check_rounds("grid", hops, rounds.max(tiles.into()))?;
        let words = count("hops", &[batch, heads, tiles, hops])?;
        let constants = self.pass.score_constants(Kind::Forward).bool("GRID", true).bool("WEIGHTED", false);
        let (caps, shader) = (self.pass.caps, &HOPS[self.pass.even()]);
        // A ring's four sides, and the columns of each of their scores.
        let columns = 2 + u64::from(self.pass.config.head_dim.div_ceil(4));
        caps.check_rounds("grid", hops, 4 * u64::from(hops) * columns)?;
        let mut launches = self.prepare()?;
        let cost = self.cost(words.into());
        launches.push(Launch::new(shader, constants, &self.params(Some(grid)), words.into(), caps, cost)?);
        let rings = u64::from(batch) * u64::from(heads) * u64::from(hops);
        let params = Params { count: rings as u32, ..self.merge_params(tiles, hops) };
        let constants = Constants::new().bool("GRID", false).bool("HEADS", false).bool("ROLLOUT", false);
        let cost = Cost::new(0, 4 * (u64::from(words) + rings));
        launches.push(Launch::new(&MERGE_HOPS, constants, &params, rings.div_ceil(64), caps, cost)?);
        Ok(Plan { variant: "plain", ..self.plan(launches, [words.into(), 0]) })
    }

    fn tile(&self, [first, end]: [u32; 2], [column_first, column_end]: [u32; 2]) -> Result<Plan> {
        let AttentionConfig { batch, heads, head_dim, .. } = *self.pass.config;
        let elements: u64 = count("block", &[batch, heads, end - first, column_end - column_first])?.into();
        let params =
            ScoreParams { row_first: first, row_end: end, column_first, column_end, ..self.params(None) };
        let constants = self.pass.score_constants(Kind::Forward).bool("GRID", false).bool("WEIGHTED", false);
        let (caps, shader) = (self.pass.caps, &TILE[self.pass.even()]);
        let cost =
            Cost::new(elements.saturating_mul(2 * u64::from(head_dim)), self.pass.inputs() + 4 * elements);
        let mut launches = self.prepare()?;
        launches.push(Launch::new(shader, constants, &params, elements.div_ceil(64), caps, cost)?);
        Ok(Plan { variant: "plain", ..self.plan(launches, [0, 0]) })
    }
}

/// Binds the launches of a plan one by one, after those that all begin with.
struct Binder<'k, 'a> {
    context: &'k crate::dispatch::Context,
    steps: Steps<'k>,
    recording: Recording,
    inputs: Bound<'a>,
    side: Arg<'a>,
}

impl<'k, 'a> Binder<'k, 'a> {
    fn new(
        context: &'k crate::dispatch::Context,
        plan: &'k Plan,
        config: &AttentionConfig,
        inputs: &AttentionInputs<'a>,
        lse: BufferView<'a>,
        outputs: &[Arg<'a>],
        scratch: &'a Scratch,
    ) -> Result<Self> {
        let inputs = inputs_of(config, inputs)?;
        let lse = Arg::words("lse", lse, config.lse_count());
        check_apart(outputs, &inputs.given())?;
        check_apart(outputs, &[Some(lse)])?;
        let side = scratch_arg(plan, scratch, 0)?;
        let mut binder = Self { context, steps: Steps::new(plan), recording: Recording::new(), inputs, side };
        if config.key_mask || config.temperature || config.head_scale {
            binder.push(&binder.inputs.prepare(side, None))?;
        }
        let none = binder.inputs.none;
        binder.push(&[lse, none, none, none, side, none])?;
        Ok(binder)
    }

    fn push(&mut self, list: &[Arg<'_>]) -> Result<()> {
        self.recording.push(self.context.bind(self.steps.next()?, list)?);
        Ok(())
    }
}

/// Of [`AttentionRowStatistics`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AttentionRowStatisticsConfig {
    /// Of the scores. Variants: plain, tiled, or for subgroups of 8.
    pub attention: AttentionConfig,
    /// Where the patches are, if distances are wanted.
    pub grid: Option<PatchGrid>,
}

kernel! {
    /// Of each row of P: its entropy `-sum_j P_ij ln P_ij`, from 0 to `ln N_k`; its largest weight and that key,
    /// the first such; and, on a grid, the mean distance `sum_j P_ij |place_i - place_j|`.
    ///
    /// Distances are Euclidean, in patches; times the patch's side, and averaged over the queries, they are the mean
    /// attention distance of Dosovitskiy et al. 2021 (appendix D.7). Pairs with a token before the grid add nothing.
    AttentionRowStatistics, AttentionRowStatisticsConfig
}

/// Buffers of [`AttentionRowStatistics`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionRowStatisticsArgs<'a> {
    /// What goes in; values and gates are not looked at.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N_q]`.
    pub lse: BufferView<'a>,
    /// Entropies in nats, `[B, H, N_q]`; 0 for a row that sees nothing.
    pub entropy: BufferView<'a>,
    /// u32 `[B, H, N_q]`: the key of the largest weight; `u32::MAX` for a row that sees nothing, or a NaN.
    pub best: BufferView<'a>,
    /// The largest weights, `[B, H, N_q]`.
    pub best_weight: BufferView<'a>,
    /// Mean distances in patches, `[B, H, N_q]`, if there is a grid.
    pub distance: Option<BufferView<'a>>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionRowStatistics {
    /// Chooses the variant and the slices of the keys.
    pub fn plan(config: &AttentionRowStatisticsConfig, caps: &Capabilities) -> Result<Plan> {
        if let Some(grid) = config.grid {
            grid.check(&config.attention)?;
        }
        Statistics::new(&weights_of(&config.attention), caps)?.rows(config.grid)
    }
}

impl Kernel for AttentionRowStatistics {
    type Args<'a> = AttentionRowStatisticsArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = weights_of(&self.config.attention);
        let rows = config.lse_count();
        let entropy = Arg::words("entropy", args.entropy, rows);
        let best = Arg::words("best", args.best, rows);
        let best_weight = Arg::words("best_weight", args.best_weight, rows);
        let distance = optional("distance", self.config.grid.is_some(), args.distance, rows)?;
        let mut outputs = vec![entropy, best, best_weight];
        outputs.extend(distance);
        let parts = scratch_arg(&self.plan, args.scratch, 1)?;
        let unused = scratch_arg(&self.plan, args.scratch, 2)?;
        let (inputs, lse) = (&args.inputs, args.lse);
        let mut b = Binder::new(&self.context, &self.plan, &config, inputs, lse, &outputs, args.scratch)?;
        b.push(&[b.inputs.q, b.inputs.k, b.inputs.none, b.side, b.inputs.bias(), parts])?;
        b.push(&[parts, b.side, entropy, best, best_weight, distance.unwrap_or(unused)])?;
        Ok(b.recording)
    }
}

/// Of [`AttentionColumnMass`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AttentionColumnMassConfig {
    /// Of the scores. Variants: plain, tiled, or for subgroups of 8.
    pub attention: AttentionConfig,
    /// The queries have weights `[B, N_q]`; otherwise all count 1.
    pub weights: bool,
}

kernel! {
    /// The mass that each key receives, `m_j = sum_i w_i P_ij`, for each head, and its mean over the heads.
    ///
    /// With weights of 1, the masses of a head add up to the number of queries that see a key.
    AttentionColumnMass, AttentionColumnMassConfig
}

/// Buffers of [`AttentionColumnMass`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionColumnMassArgs<'a> {
    /// What goes in; values and gates are not looked at.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N_q]`.
    pub lse: BufferView<'a>,
    /// `[B, N_q]`, if configured.
    pub weights: Option<BufferView<'a>>,
    /// The masses, `[B, H, N_k]`, of the heads of the queries.
    pub mass: BufferView<'a>,
    /// Their means, `[B, N_k]`.
    pub mean: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionColumnMass {
    /// Chooses the variant and the slices of the queries.
    pub fn plan(config: &AttentionColumnMassConfig, caps: &Capabilities) -> Result<Plan> {
        Statistics::new(&weights_of(&config.attention), caps)?.columns(config.weights, None)
    }
}

impl Kernel for AttentionColumnMass {
    type Args<'a> = AttentionColumnMassArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = weights_of(&self.config.attention);
        let keys = u64::from(config.batch) * u64::from(config.keys);
        let rows = u64::from(config.batch) * u64::from(config.queries);
        let weights = optional("weights", self.config.weights, args.weights, rows)?;
        let mass = Arg::words("mass", args.mass, keys * u64::from(config.heads));
        let mean = Arg::words("mean", args.mean, keys);
        check_apart(&[mass, mean], &[weights])?;
        let parts = scratch_arg(&self.plan, args.scratch, 1)?;
        let (inputs, lse) = (&args.inputs, args.lse);
        let mut b =
            Binder::new(&self.context, &self.plan, &config, inputs, lse, &[mass, mean], args.scratch)?;
        let weights = weights.unwrap_or(b.inputs.none);
        b.push(&[b.inputs.k, b.inputs.q, weights, b.side, b.inputs.bias(), parts])?;
        b.push(&[parts, b.inputs.none, mass, mean])?;
        Ok(b.recording)
    }
}

/// Of [`AttentionRollout`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionRolloutConfig {
    /// Of the scores. Queries and keys are the same tokens. Variants: plain, tiled, or for
    /// subgroups of 8.
    pub attention: AttentionConfig,
    /// The share of attention, `a`; the rest stays where it is, as by the residual connection. 0 to 1.
    pub share: f32,
}

impl Default for AttentionRolloutConfig {
    fn default() -> Self {
        Self { attention: AttentionConfig::default(), share: 0.5 }
    }
}

kernel! {
    /// One layer of the attention rollout (Abnar and Zuidema 2020, arXiv 2005.00928) of a row vector:
    /// `r^T <- r^T (a P + (1 - a) I)`, with P the mean over the heads.
    ///
    /// From the last layer to the first, beginning with 1 at the class token, this gives that token's row of the
    /// product of all layers, without any matrix. A row that adds up to 1 goes on to do so, unless a query sees
    /// nothing.
    AttentionRollout, AttentionRolloutConfig
}

/// Buffers of [`AttentionRollout`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionRolloutArgs<'a> {
    /// What goes in; values and gates are not looked at.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N]`.
    pub lse: BufferView<'a>,
    /// The row vector, `[B, N]`.
    pub row: BufferView<'a>,
    /// The row vector before this layer, `[B, N]`.
    pub next: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionRollout {
    /// Chooses the variant and the slices of the queries.
    pub fn plan(config: &AttentionRolloutConfig, caps: &Capabilities) -> Result<Plan> {
        let AttentionRolloutConfig { attention, share } = config;
        check_config(attention.queries == attention.keys, "queries", "as many as keys", attention.queries)?;
        check_config((0.0..=1.0).contains(share), "share", "0 to 1", share)?;
        Statistics::new(&weights_of(attention), caps)?.columns(true, Some(*share))
    }
}

impl Kernel for AttentionRollout {
    type Args<'a> = AttentionRolloutArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = weights_of(&self.config.attention);
        let tokens = u64::from(config.batch) * u64::from(config.keys);
        let row = Arg::words("row", args.row, tokens);
        let next = Arg::words("next", args.next, tokens);
        check_apart(&[next], &[Some(row)])?;
        let parts = scratch_arg(&self.plan, args.scratch, 1)?;
        let unused = scratch_arg(&self.plan, args.scratch, 2)?;
        let (inputs, lse) = (&args.inputs, args.lse);
        let mut b = Binder::new(&self.context, &self.plan, &config, inputs, lse, &[next], args.scratch)?;
        b.push(&[b.inputs.k, b.inputs.q, row, b.side, b.inputs.bias(), parts])?;
        b.push(&[parts, row, unused, next])?;
        Ok(b.recording)
    }
}

/// Of [`AttentionHops`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionHopsConfig {
    /// Of the scores.
    pub attention: AttentionConfig,
    /// Where the patches are.
    pub grid: PatchGrid,
}

kernel! {
    /// The mass of P by distance on the grid, for each head: bin k has the pairs of patches with
    /// `max(|dy|, |dx|) = k`, the k-th ring of neighbours; bin 0 is the weight of the patches on themselves.
    ///
    /// The bins of a head add up to the mass that patches give to patches: their number, less what goes to the
    /// tokens before the grid.
    AttentionHops, AttentionHopsConfig
}

/// Buffers of [`AttentionHops`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionHopsArgs<'a> {
    /// What goes in; values and gates are not looked at.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N]`.
    pub lse: BufferView<'a>,
    /// The masses, `[B, H, grid.hops()]`.
    pub mass: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionHops {
    /// One invocation a query and ring, on every device.
    pub fn plan(config: &AttentionHopsConfig, caps: &Capabilities) -> Result<Plan> {
        config.grid.check(&config.attention)?;
        Statistics::new(&weights_of(&config.attention), caps)?.hops(config.grid)
    }
}

impl Kernel for AttentionHops {
    type Args<'a> = AttentionHopsArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = weights_of(&self.config.attention);
        let matrices = u64::from(config.batch) * u64::from(config.heads);
        let mass = Arg::words("mass", args.mass, matrices * u64::from(self.config.grid.hops()));
        let parts = scratch_arg(&self.plan, args.scratch, 1)?;
        let (inputs, lse) = (&args.inputs, args.lse);
        let mut b = Binder::new(&self.context, &self.plan, &config, inputs, lse, &[mass], args.scratch)?;
        b.push(&[b.inputs.q, b.inputs.k, b.inputs.none, b.side, b.inputs.bias(), parts])?;
        b.push(&[parts, mass])?;
        Ok(b.recording)
    }
}

/// Of [`AttentionTile`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionTileConfig {
    /// Of the scores.
    pub attention: AttentionConfig,
    /// First query, and one after the last.
    pub rows: [u32; 2],
    /// First key, and one after the last.
    pub columns: [u32; 2],
}

kernel! {
    /// A block of P itself, of any size and place, for all heads.
    AttentionTile, AttentionTileConfig
}

/// Buffers of [`AttentionTile`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionTileArgs<'a> {
    /// What goes in; values and gates are not looked at.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N_q]`.
    pub lse: BufferView<'a>,
    /// `[B, H, rows, columns]`.
    pub weights: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionTile {
    /// One invocation an element, on every device.
    pub fn plan(config: &AttentionTileConfig, caps: &Capabilities) -> Result<Plan> {
        let AttentionTileConfig { attention, rows, columns } = config;
        let within = |[first, end]: [u32; 2], all: u32| first < end && end <= all;
        check_config(within(*rows, attention.queries), "rows", "a range of queries", format!("{rows:?}"))?;
        check_config(within(*columns, attention.keys), "columns", "a range of keys", format!("{columns:?}"))?;
        Statistics::new(&weights_of(attention), caps)?.tile(*rows, *columns)
    }
}

impl Kernel for AttentionTile {
    type Args<'a> = AttentionTileArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let AttentionTileConfig { attention, rows, columns } = self.config;
        let config = weights_of(&attention);
        let [rows, columns] = [rows, columns].map(|[first, end]| u64::from(end - first));
        let elements = u64::from(config.batch) * u64::from(config.heads) * rows * columns;
        let weights = Arg::words("weights", args.weights, elements);
        let (inputs, lse) = (&args.inputs, args.lse);
        let mut b = Binder::new(&self.context, &self.plan, &config, inputs, lse, &[weights], args.scratch)?;
        b.push(&[b.inputs.q, b.inputs.k, b.inputs.none, b.side, b.inputs.bias(), weights])?;
        Ok(b.recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let caps = Capabilities::baseline();
        let attention = AttentionConfig { queries: 13, keys: 13, ..AttentionConfig::default() };
        let grid = PatchGrid { prefix: 1, height: 3, width: 4 };
        let refused = |plan: Result<Plan>, what: &str| {
            let error = plan.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let rows = |attention, grid| {
            AttentionRowStatistics::plan(&AttentionRowStatisticsConfig { attention, grid: Some(grid) }, &caps)
        };
        assert!(rows(attention, grid).is_ok());
        refused(rows(attention, PatchGrid { height: 4, ..grid }), "`grid`");
        refused(rows(attention, PatchGrid { prefix: 13, height: 0, width: 0 }), "`grid`");
        refused(rows(attention, PatchGrid { width: u32::MAX, height: u32::MAX, ..grid }), "`grid`");
        refused(rows(AttentionConfig { keys: 12, ..attention }, grid), "`grid`");
        let bias = AttentionBias::Table { prefix: 1, height: 4, width: 3 };
        refused(rows(AttentionConfig { bias, ..attention }, grid), "`grid`");
        refused(rows(AttentionConfig { head_dim: 0, ..attention }, grid), "`head_dim`");
        let rollout =
            |attention, share| AttentionRollout::plan(&AttentionRolloutConfig { attention, share }, &caps);
        assert!(rollout(attention, 1.0).is_ok());
        refused(rollout(attention, f32::NAN), "`share`");
        refused(rollout(attention, 1.1), "`share`");
        refused(rollout(AttentionConfig { keys: 12, ..attention }, 0.5), "`queries`");
        let tile =
            |rows, columns| AttentionTile::plan(&AttentionTileConfig { attention, rows, columns }, &caps);
        assert!(tile([12, 13], [0, 13]).is_ok());
        refused(tile([3, 3], [0, 13]), "`rows`");
        refused(tile([0, 14], [0, 13]), "`rows`");
        refused(tile([0, 1], [5, 2]), "`columns`");
        let huge = AttentionConfig { queries: 1 << 20, keys: 1 << 20, ..attention };
        let whole = AttentionTileConfig { attention: huge, rows: [0, 1 << 20], columns: [0, 1 << 20] };
        refused(AttentionTile::plan(&whole, &caps), "block");
    }
}
