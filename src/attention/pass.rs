//! The launches that the kernels of flash attention are put together from.

use super::config::{AttentionBias, AttentionConfig, AttentionVariant, Rows};
use crate::dispatch::{
    Capabilities, Constants, Cost, Error, Launch, Result, Shader, check_workgroup, count, read, shader, write,
};

/// The uniform block of `attention_params.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    pub batch: u32,
    pub heads: u32,
    pub sharing: u32,
    pub queries: u32,
    pub keys: u32,
    pub offset: i32,
    pub before: i32,
    pub after: i32,
    pub own: [u32; 4],
    pub other: [u32; 4],
    pub other_values: [u32; 4],
    pub own_values: [u32; 4],
    pub y: [u32; 5],
    pub z: [u32; 5],
    pub bias_batch: u32,
    pub bias_head: u32,
    pub prefix: u32,
    pub grid_height: u32,
    pub grid_width: u32,
    pub row_first: u32,
    pub row_end: u32,
    pub row_heads: u32,
    pub column_first: u32,
    pub column_end: u32,
    pub slice_length: u32,
    pub slices: u32,
    pub rows_at: u32,
    pub weights_at: u32,
    pub extra_sums: u32,
    pub extra_ds: u32,
    pub scale: f32,
}

/// One entry point with elements read one or four at a time; the file `$other` has those of the other side.
macro_rules! shaders {
    ($file:literal, $entry:literal, [$($common:ident),*], [$($scalars:expr),*], [$($vectors:expr),*]) => {
        shaders!($file, $entry, attention_other_vectors, [$($common),*], [$($scalars),*], [$($vectors),*])
    };
    (
        $file:literal, $entry:literal, $other:ident, [$($common:ident),*], [$($scalars:expr),*], [$($vectors:expr),*]
    ) => {
        [
            shader!($file, $entry, [index, exponential, attention_params, attention_scalars, $($common),*], [$($scalars),*]),
            shader!($file, $entry, [index, exponential, attention_params, attention_vectors, $other, $($common),*], [$($vectors),*]),
        ]
    };
}
pub(super) use shaders;

/// The entry points of one variant.
pub(super) struct Shaders {
    forward: [Shader; 2],
    backward_queries: [Shader; 2],
    backward_keys: [Shader; 2],
}

macro_rules! variant {
    ($file:literal, $common:tt) => {
        variant!([$file, $common], [$file, $common], attention_other_vectors, 16)
    };
    (
        [$forward:literal, $forward_common:tt], [$file:literal, $common:tt], $other:ident, $bytes:literal
    ) => {
        Shaders {
            forward: shaders!(
                $forward,
                "forward",
                $other,
                $forward_common,
                [
                    read("own"),
                    read("other"),
                    read("other_values"),
                    read("side"),
                    read("bias"),
                    write("o"),
                    write("lse")
                ],
                [
                    read("own").vec4(),
                    read("other").stride($bytes),
                    read("other_values").stride($bytes),
                    read("side"),
                    read("bias"),
                    write("o").vec4(),
                    write("lse")
                ]
            ),
            backward_queries: variant!(
                $file,
                "backward_queries",
                $other,
                $bytes,
                $common,
                [write("extra")],
                [write("extra")]
            ),
            backward_keys: variant!(
                $file,
                "backward_keys",
                $other,
                $bytes,
                $common,
                [write("d_own_values")],
                [write("d_own_values").vec4()]
            ),
        }
    };
    (
        $file:literal, $entry:literal, $other:ident, $bytes:literal, $common:tt, [$scalars:expr], [$vectors:expr]
    ) => {
        shaders!(
            $file,
            $entry,
            $other,
            $common,
            [
                read("own"),
                read("other"),
                read("other_values"),
                read("side"),
                read("bias"),
                read("own_values"),
                write("d_own"),
                $scalars
            ],
            [
                read("own").vec4(),
                read("other").stride($bytes),
                read("other_values").stride($bytes),
                read("side"),
                read("bias"),
                read("own_values").vec4(),
                write("d_own").vec4(),
                $vectors
            ]
        )
    };
}

static PLAIN: Shaders = variant!("attention/flash_attention", []);

static TILED: Shaders =
    variant!("attention/flash_attention_tiled", [blocks, attention_rows, attention_tiles]);
static SUBGROUP: Shaders = variant!(
    ["attention/flash_attention_subgroup_forward", [attention_rows, attention_pairs, attention_lanes]],
    ["attention/flash_attention_subgroup_backward", [attention_rows, attention_pairs]],
    attention_other_vectors,
    16
);
static SUBGROUP_WIDE: Shaders = variant!(
    ["attention/flash_attention_subgroup_forward", [attention_rows, attention_lanes, wide]],
    ["attention/flash_attention_subgroup_backward", [attention_rows, wide]],
    attention_other_wide,
    32
);

static PREPARE: Shader = shader!(
    "attention/flash_terms",
    "prepare",
    [index, exponential, attention_params, attention_scalars],
    [
        read("temperature"),
        read("head_scale"),
        read("gate"),
        read("key_mask"),
        write("side_out"),
        read("weights")
    ]
);
static PREPARE_ROWS: [Shader; 2] = shaders!(
    "attention/flash_terms",
    "prepare_rows",
    [],
    [
        read("lse_in"),
        read("lse_gradient"),
        read("other_values"),
        read("unused"),
        write("side_out"),
        read("own_values")
    ],
    [
        read("lse_in"),
        read("lse_gradient"),
        read("other_values").vec4(),
        read("unused"),
        write("side_out"),
        read("own_values").vec4()
    ]
);
static MERGE: [Shader; 2] = shaders!(
    "attention/flash_terms",
    "merge",
    [],
    [read("lse_in"), write("lse"), read("other_values"), read("unused"), read("unused"), write("o")],
    [
        read("lse_in"),
        write("lse"),
        read("other_values").vec4(),
        read("unused"),
        read("unused"),
        write("o").vec4()
    ]
);
static SUM_SLICES: [Shader; 2] = shaders!(
    "attention/flash_terms",
    "sum_slices",
    [],
    [read("unused"), read("unused"), read("other_values"), read("unused"), read("unused"), write("o")],
    [
        read("unused"),
        read("unused"),
        read("other_values").vec4(),
        read("unused"),
        read("unused"),
        write("o").vec4()
    ]
);
static HEAD_SUMS: Shader = shader!(
    "attention/flash_terms",
    "head_sums",
    [index, exponential, attention_params, attention_scalars],
    [read("extra"), write("sums_out")]
);
static WEIGHT_GRADIENTS: Shader = shader!(
    "attention/flash_terms",
    "weight_gradients",
    [index, exponential, attention_params, attention_scalars],
    [read("extra"), write("dweights")]
);
static HEAD_GRADIENTS: Shader = shader!(
    "attention/flash_terms",
    "head_gradients",
    [index, exponential, attention_params, attention_scalars],
    [read("temperature"), read("head_scale"), read("sums_in"), write("gradient")]
);
static BIAS_GRADIENT: Shader = shader!(
    "attention/flash_terms",
    "bias_gradient",
    [index, exponential, attention_params, attention_scalars],
    [read("extra"), write("dbias"), read("unused"), read("side")]
);
static TABLE_GRADIENT: Shader = shader!(
    "attention/flash_terms",
    "table_gradient",
    [index, exponential, attention_params, attention_scalars],
    [read("extra"), write("dbias"), read("unused"), read("side")]
);

/// Keys (or queries) that are worth a slice of their own, and the most that one workgroup walks through.
const SHORTEST_SLICE: u32 = 256;
const LONGEST_SLICE: u32 = 1 << 16;
/// Slices and stretches of rows are whole tiles of any variant, where they may be so long.
const SLICE_STEP: u32 = 64;
/// Where not: of slices of the plain variant, and of stretches whose rows a table's gradient adds up, or of
/// which a binding holds few.
const SHORT_STEP: u32 = 4;
/// Elements of dS that are kept at a time for the gradient of the bias.
const CHUNK: u64 = 1 << 22;

/// What the passes have in common: the checked configuration and what follows from it.
pub(super) struct Pass<'a> {
    pub config: &'a AttentionConfig,
    pub caps: &'a Capabilities,
    pub variant: AttentionVariant,
    /// Where the tensors lie; `x` and `o` alike.
    pub q: Rows,
    pub k: Rows,
    pub v: Rows,
    pub x: Rows,
    /// The query rows have weights of their own.
    pub weights: bool,
    /// The values that go in are those of the queries, as in reversed attention.
    reversed: bool,
    /// Heads have factors of their own.
    pub heads: bool,
    /// The backward pass leaves sums of each query row.
    pub sums: bool,
}

/// What varies between the launches of one entry point.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    pub known: bool,
    pub values: bool,
    pub keys: bool,
    pub sums: bool,
    pub write_ds: bool,
}

/// The same for the launches around them.
#[derive(Debug, Clone, Copy, Default)]
struct Terms {
    terms: bool,
    values: bool,
    what: u32,
}

/// Slices of a sum, and how long each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slices {
    pub count: u32,
    pub length: u32,
}

/// What a launch computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Forward,
    Queries,
    Keys,
}

/// Own rows of an invocation of the tiled variant; a workgroup has eight times as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    rows: u32,
}

impl Tile {
    /// Invocations of a workgroup.
    const WORKGROUP: u32 = 64;
    /// Other rows that a workgroup has at a time.
    const COLUMNS: u32 = 32;
    /// Registers of an invocation for scores and sums: what leaves enough workgroups side by side.
    const REGISTERS: u32 = 160;
    /// Workgroups of the taller tiles that keep a large GPU busy: with fewer, more of the others are faster.
    const BUSY: u64 = 1024;
    const TALL: Self = Self { rows: 8 };
    const SMALLEST: Self = Self { rows: 4 };

    /// Bytes of workgroup memory: the staged columns, the weights, and a word.
    fn bytes(self) -> u32 {
        512 * (self.rows + 4) + 1024 * self.rows + 4
    }

    fn registers(self, kind: Kind, config: &AttentionConfig) -> u32 {
        // Every eighth block of four columns.
        let [d, dv] = [config.head_dim, config.value_dim()].map(|n| n.div_ceil(32) * 4);
        let sums = match kind {
            Kind::Forward => dv,
            Kind::Queries => d,
            Kind::Keys => d + dv,
        };
        self.rows * (4 + sums)
    }

    /// The tallest that the limits, the registers and the number of rows allow.
    fn solve(kind: Kind, config: &AttentionConfig, caps: &Capabilities) -> Self {
        let (heads, rows) = match kind {
            Kind::Keys => (config.kv_heads(), config.keys),
            _ => (config.heads, config.queries),
        };
        let workgroups = u64::from(config.batch) * u64::from(heads) * u64::from(rows.div_ceil(64));
        let suits = Self::TALL.bytes() <= caps.workgroup_bytes()
            && Self::TALL.registers(kind, config) <= Self::REGISTERS
            // CPU adapters are never short of work.
            && (caps.cpu || workgroups >= Self::BUSY);
        if suits { Self::TALL } else { Self::SMALLEST }
    }
}

impl AttentionVariant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tiled => "tiled",
            Self::Subgroup => "subgroup",
        }
    }

    fn check(self, config: &AttentionConfig, caps: &Capabilities) -> Result<()> {
        let what = "flash_attention";
        match self {
            Self::Plain => check_workgroup(what, 64, 0, caps),
            Self::Tiled => check_workgroup(what, Tile::WORKGROUP, Tile::SMALLEST.bytes(), caps),
            Self::Subgroup if caps.subgroups != Some((8, 8)) => {
                Err(Error::FeatureMissing { what, feature: "SUBGROUP of size 8" })
            }
            Self::Subgroup if config.head_dim.max(config.value_dim()) > 128 => Err(Error::LimitExceeded {
                what,
                limit: "head dimension of the variant for subgroups of 8",
                need: config.head_dim.max(config.value_dim()).into(),
                have: 128,
            }),
            Self::Subgroup => Ok(()),
        }
    }

    /// The one asked for, or the best that the device can run.
    fn resolve(config: &AttentionConfig, caps: &Capabilities) -> Result<Self> {
        let suits = if caps.cpu { Self::Subgroup } else { Self::Tiled };
        match config.variant {
            Some(variant) => variant.check(config, caps).map(|()| variant),
            None => match suits.check(config, caps) {
                Ok(()) => Ok(suits),
                Err(_) => Self::Plain.check(config, caps).map(|()| Self::Plain),
            },
        }
    }
}

impl<'a> Pass<'a> {
    /// Attention proper.
    pub fn new(config: &'a AttentionConfig, caps: &'a Capabilities) -> Result<Self> {
        Self::with_values(config, caps, false, false)
    }

    /// With the values on the side of the queries, weighted or not.
    pub fn reversed(config: &'a AttentionConfig, caps: &'a Capabilities, weights: bool) -> Result<Self> {
        Self::with_values(config, caps, weights, true)
    }

    fn with_values(
        config: &'a AttentionConfig,
        caps: &'a Capabilities,
        weights: bool,
        reversed: bool,
    ) -> Result<Self> {
        config.check()?;
        if config.half && !caps.f16 {
            return Err(Error::FeatureMissing { what: "flash_attention", feature: "SHADER_F16" });
        }
        let pass = Self {
            config,
            caps,
            variant: AttentionVariant::resolve(config, caps)?,
            q: config.q()?,
            k: config.k()?,
            v: config.v()?,
            x: config.o()?,
            weights,
            reversed,
            heads: config.temperature || config.head_scale || config.gate,
            sums: config.temperature || config.head_scale || config.gate || weights,
        };
        count("side buffer", &[pass.side_words_checked()?])?;
        let (tokens, rounds) = pass.rounds(Kind::Keys);
        let least = rounds * u64::from(pass.step().div_ceil(tokens));
        caps.check_rounds("heads", config.heads, least)?;
        Ok(pass)
    }

    /// Whether there is anything to prepare before the rows.
    pub fn has_side(&self) -> bool {
        self.heads || self.config.key_mask || self.weights
    }

    fn mask_words(&self) -> u64 {
        if self.config.key_mask { u64::from(self.config.batch) * u64::from(self.config.keys) } else { 0 }
    }

    pub fn rows_at(&self) -> u64 {
        2 * u64::from(self.config.heads) + self.mask_words()
    }

    fn weights_at(&self) -> u64 {
        self.rows_at() + 2 * self.config.lse_count()
    }

    /// Words of the side buffer.
    pub fn side_words(&self) -> u64 {
        self.weights_at() + if self.weights { self.config.lse_count() } else { 0 }
    }

    fn side_words_checked(&self) -> Result<u32> {
        let words = self.side_words();
        u32::try_from(words).map_err(|_| Error::IndexOverflow { what: "side buffer", elements: words })
    }

    fn shaders(&self) -> &'static Shaders {
        match self.variant {
            AttentionVariant::Plain => &PLAIN,
            AttentionVariant::Tiled => &TILED,
            AttentionVariant::Subgroup if self.wide() => &SUBGROUP_WIDE,
            AttentionVariant::Subgroup => &SUBGROUP,
        }
    }

    /// Whether every row of the tensors is made of whole vectors of `width` elements.
    fn has_vectors_of(&self, width: u32) -> bool {
        let Self { config, q, k, v, x, .. } = self;
        let rows = [q, k, v, x].iter().all(|rows| rows.are_multiples_of(width));
        rows && config.head_dim.is_multiple_of(width) && config.value_dim().is_multiple_of(width)
    }

    /// Whether rows are read as vectors of eight floats, each two of them a 64-bit integer.
    pub fn wide(&self) -> bool {
        self.caps.int64 && !self.config.half && self.has_vectors_of(8)
    }

    /// 1 where every row of the tensors is made of whole vec4s.
    pub fn even(&self) -> usize {
        // A binding is at least 16 bytes.
        let pairs = !self.config.half || [self.q, self.k, self.v, self.x].iter().all(|rows| rows.end >= 8);
        usize::from(self.has_vectors_of(4) && pairs)
    }

    pub fn params(&self) -> Params {
        let AttentionConfig { batch, heads, queries, keys, bias, .. } = *self.config;
        let (before, after) = self.config.reach();
        let place = |rows: &Rows| [rows.first, rows.batch, rows.head, rows.row];
        let matrix = queries.wrapping_mul(keys);
        let (bias_batch, bias_head) = match bias {
            AttentionBias::Dense { share_batch, share_heads } => {
                let head = if share_heads { 0 } else { matrix };
                let all = if share_heads { matrix } else { matrix.wrapping_mul(heads) };
                (if share_batch { 0 } else { all }, head)
            }
            _ => (0, 0),
        };
        let (prefix, grid_height, grid_width) = match bias {
            AttentionBias::Table { prefix, height, width } => (prefix, height, width),
            _ => (0, 1, 1),
        };
        Params {
            batch,
            heads,
            sharing: heads / self.config.kv_heads(),
            queries,
            keys,
            offset: keys as i32 - queries as i32,
            before: before as i32,
            after: after as i32,
            own: place(&self.q),
            other: place(&self.k),
            other_values: place(&self.v),
            own_values: place(&self.x),
            bias_batch,
            bias_head,
            prefix,
            grid_height,
            grid_width,
            row_end: queries,
            row_heads: heads,
            slice_length: keys,
            slices: 1,
            rows_at: self.rows_at() as u32,
            weights_at: self.weights_at() as u32,
            scale: self.config.scale() * std::f32::consts::LOG2_E,
            ..Params::default()
        }
    }

    /// What the scores of a pair need.
    pub fn score_constants(&self, kind: Kind) -> Constants {
        let config = self.config;
        let bias = match config.bias {
            AttentionBias::None => 0,
            AttentionBias::Dense { .. } => 1,
            AttentionBias::Table { .. } => 2,
        };
        Constants::new()
            .float("Storage", config.half)
            .u32("D", config.head_dim)
            .u32("D4", config.head_dim.div_ceil(4))
            .u32("DV", config.value_dim())
            .u32("DV4", config.value_dim().div_ceil(4))
            .u32("BIAS", bias)
            .bool("WINDOW", config.has_window())
            .bool("MASK", config.key_mask)
            .bool("HEADS", self.heads)
            .bool("WEIGHTS", self.weights)
            .float("OtherStorage", config.half && (kind == Kind::Keys) == self.reversed)
            .float("OwnStorage", config.half && (kind == Kind::Keys) != self.reversed)
            .bool("TRANSPOSED", kind == Kind::Keys)
    }

    fn constants(&self, kind: Kind, flags: Flags) -> Constants {
        let constants = self
            .score_constants(kind)
            .bool("KNOWN", flags.known)
            .bool("VALUES", flags.values)
            .bool("KEYS", flags.keys)
            .bool("SUMS", flags.sums)
            .bool("WRITE_DS", flags.write_ds);
        match self.variant {
            AttentionVariant::Plain => constants,
            AttentionVariant::Subgroup => constants.subgroups(),
            AttentionVariant::Tiled => constants.u32("ROWS", Tile::solve(kind, self.config, self.caps).rows),
        }
    }

    /// Constants of the launches around the passes, whose "values" are f32 rows of `width`.
    fn terms(&self, width: u32, terms: Terms) -> Constants {
        Constants::new()
            .alias("Storage", "f32")
            .alias("OtherStorage", "f32")
            .float("OwnStorage", self.config.half && self.reversed)
            .u32("D", self.config.head_dim)
            .u32("D4", self.config.head_dim.div_ceil(4))
            .u32("DV", width)
            .u32("DV4", width.div_ceil(4))
            .u32("BIAS", 0)
            .bool("WINDOW", self.config.has_window())
            .bool("MASK", self.config.key_mask)
            .bool("HEADS", self.heads)
            .bool("WEIGHTS", self.weights)
            .bool("TEMPERATURE", self.config.temperature)
            .bool("HEAD_SCALE", self.config.head_scale)
            .bool("GATE", self.config.gate)
            .bool("TERMS", terms.terms)
            .bool("LSE_GRADIENT", terms.terms && self.config.lse_gradient)
            .bool("VALUES", terms.values)
            .u32("WHAT", terms.what)
    }

    /// How the sum over `length` tokens is cut for `rows` rows of `heads` heads.
    pub fn slices(&self, kind: Kind, heads: u32, rows: u32, length: u32) -> Slices {
        self.slices_for(kind, self.groups(kind, rows), heads, length)
    }

    /// The same where a head has `groups` workgroups of this variant.
    pub fn slices_for(&self, kind: Kind, groups: u32, heads: u32, length: u32) -> Slices {
        let groups = u64::from(self.config.batch) * u64::from(heads) * u64::from(groups);
        let busy: u64 = if self.caps.cpu { 8 } else { 512 };
        let wanted = busy.div_ceil(groups).min(length.div_ceil(SHORTEST_SLICE).into()) as u32;
        let longest = self.longest_slice(kind);
        let wanted = self.config.slices.unwrap_or(wanted).max(length.div_ceil(longest));
        // Rounding a slice up may leave none for the last ones.
        let length_each = length.div_ceil(wanted.min(length)).next_multiple_of(SLICE_STEP).min(longest);
        Slices { count: length.div_ceil(length_each), length: length_each }
    }

    /// The rounds of an invocation's loops for each of so many tokens.
    fn rounds(&self, kind: Kind) -> (u32, u64) {
        let [d, dv] = [self.config.head_dim, self.config.value_dim()].map(|n| u64::from(n.div_ceil(4)));
        let rows = |of_d: u64, of_dv: u64| of_d * d + of_dv * dv;
        // Loops over the columns: products and sums with q and k, and with values.
        let columns = match kind {
            Kind::Forward => rows(1, 2),
            Kind::Queries => rows(2, 1),
            Kind::Keys => rows(2, 1),
        };
        let sharing = if kind == Kind::Keys { self.config.heads / self.config.kv_heads() } else { 1 };
        let (tokens, rounds) = match self.variant {
            // Short loops with fixed ends are straight-line code.
            AttentionVariant::Plain => (1, if d.max(dv) <= 16 { 1 } else { 4 + columns }),
            AttentionVariant::Tiled => {
                // Sixteen columns are staged and multiplied at a time; sums read a few tokens at a time.
                (Tile::COLUMNS, 8 * columns + 4 * u64::from(Tile::COLUMNS))
            }
            // Two keys at a time: a round, and two more where they raise the maximum.
            AttentionVariant::Subgroup if kind == Kind::Forward => (2, 3),
            // (Statistics of columns take two in a round: at most 32,768 rounds of LONGEST_SLICE.)
            AttentionVariant::Subgroup => (4, 1),
        };
        (tokens, rounds * u64::from(sharing))
    }

    /// The rounds of a pair's score, computed by one invocation.
    pub fn rounds_of_pair(&self) -> u64 {
        // As of the plain variant.
        if self.config.head_dim <= 64 { 1 } else { 4 + u64::from(self.config.head_dim.div_ceil(4)) }
    }

    /// The least that a slice must be.
    fn step(&self) -> u32 {
        if self.variant == AttentionVariant::Plain { SHORT_STEP } else { SLICE_STEP }
    }

    /// The tokens that an invocation may go through.
    fn longest_slice(&self, kind: Kind) -> u32 {
        let (tokens, rounds) = self.rounds(kind);
        let step = self.step();
        let most = (self.caps.rounds() / rounds).saturating_mul(tokens.into()).min(LONGEST_SLICE.into());
        (most as u32 / step * step).max(step)
    }

    /// Workgroups for the own rows of a head.
    fn groups(&self, kind: Kind, rows: u32) -> u32 {
        rows.div_ceil(match self.variant {
            AttentionVariant::Plain => 64,
            AttentionVariant::Tiled => 8 * Tile::solve(kind, self.config, self.caps).rows,
            AttentionVariant::Subgroup if kind == Kind::Forward => 64,
            AttentionVariant::Subgroup => 32,
        })
    }

    /// Words of `slices` dense results of `heads` heads of `rows` rows of `width`; 0 for one slice.
    pub fn partial_words(&self, slices: Slices, heads: u32, rows: u32, width: u32) -> Result<u64> {
        if slices.count == 1 {
            return Ok(0);
        }
        let words = count("slices", &[slices.count, self.config.batch, heads, rows, width])?;
        Ok(words.into())
    }

    /// Results in `at`, or dense ones for each slice.
    fn result(&self, slices: Slices, at: Rows, heads: u32, rows: u32, width: u32) -> Result<[u32; 5]> {
        if slices.count == 1 {
            return Ok([0, at.first, at.batch, at.head, at.row]);
        }
        self.partial_words(slices, heads, rows, width)?;
        let dense = Rows::dense("slices", [self.config.batch, heads, rows, width])?;
        Ok([self.config.batch * heads * rows * width, 0, dense.batch, dense.head, dense.row])
    }

    /// Multiply-adds of a product with rows of `width`.
    pub fn products(&self, width: u32) -> u64 {
        let matrices = u64::from(self.config.batch) * u64::from(self.config.heads);
        matrices.saturating_mul(self.config.pairs()).saturating_mul(width.into())
    }

    /// Bytes of queries, keys and values.
    pub fn inputs(&self) -> u64 {
        let config = self.config;
        let (d, dv) = (u64::from(config.head_dim), u64::from(config.value_dim()));
        let keys = u64::from(config.kv_heads()) * u64::from(config.keys) * (d + dv);
        let queries = u64::from(config.heads) * u64::from(config.queries) * d;
        u64::from(config.batch) * (keys + queries) * if config.half { 2 } else { 4 }
    }

    /// Bytes of the output.
    fn outputs(&self) -> u64 {
        4 * self.config.lse_count() * u64::from(self.config.value_dim())
    }

    pub fn prepare(&self) -> Result<Launch> {
        let count = u64::from(self.config.heads).max(self.mask_words()).max(if self.weights {
            self.config.lse_count()
        } else {
            0
        });
        check_workgroup("flash_attention", 256, 0, self.caps)?;
        let constants = self.terms(self.config.value_dim(), Terms::default());
        Launch::new(
            &PREPARE,
            constants,
            &self.params(),
            count.div_ceil(256),
            self.caps,
            Cost::new(0, 8 * count),
        )
    }

    /// L of the query rows and, with `terms`, D.
    pub fn prepare_rows(&self, terms: bool) -> Result<Launch> {
        let place = [self.x.first, self.x.batch, self.x.head, self.x.row];
        let params = Params { other_values: place, ..self.params() };
        let constants = self.terms(self.config.value_dim(), Terms { terms, ..Terms::default() });
        let rows = self.config.lse_count();
        let bytes = 8 * rows + if terms { 2 * self.outputs() } else { 0 };
        let cost = Cost::new(if terms { self.outputs() / 2 } else { 0 }, bytes);
        Launch::new(&PREPARE_ROWS[self.even()], constants, &params, rows.div_ceil(64), self.caps, cost)
    }

    pub fn forward(&self, slices: Slices, flags: Flags) -> Result<Launch> {
        let AttentionConfig { batch, heads, queries, .. } = *self.config;
        let dv = self.config.value_dim();
        let params = Params {
            y: self.result(slices, self.x, heads, queries, dv)?,
            slices: slices.count,
            slice_length: slices.length,
            ..self.params()
        };
        let groups = u64::from(slices.count)
            * u64::from(batch)
            * u64::from(heads)
            * u64::from(self.groups(Kind::Forward, queries));
        let flops = self.products(self.config.head_dim) + if flags.values { self.products(dv) } else { 0 };
        let cost = Cost::new(flops.saturating_mul(2), self.inputs() + self.outputs());
        let shader = &self.shaders().forward[self.even()];
        Launch::new(shader, self.constants(Kind::Forward, flags), &params, groups, self.caps, cost)
    }

    /// The output and the log-sum-exp from those of the slices.
    pub fn merge(&self, slices: Slices, values: bool) -> Result<Launch> {
        let params = Params {
            y: [0, self.x.first, self.x.batch, self.x.head, self.x.row],
            slices: slices.count,
            ..self.params()
        };
        let blocks = self.config.lse_count() * u64::from(self.config.value_dim().div_ceil(4));
        let constants = self.terms(self.config.value_dim(), Terms { values, ..Terms::default() });
        let cost = Cost::new(0, self.outputs() * u64::from(slices.count + 1));
        Launch::new(&MERGE[self.even()], constants, &params, blocks.div_ceil(64), self.caps, cost)
    }

    /// The sum of the slices' results into `at`: rows of `width`.
    pub fn sum_slices(&self, slices: Slices, at: Rows, heads: u32, rows: u32, width: u32) -> Result<Launch> {
        let params = Params {
            y: [0, at.first, at.batch, at.head, at.row],
            slices: slices.count,
            row_heads: heads,
            row_end: rows,
            ..self.params()
        };
        let row_count = u64::from(self.config.batch) * u64::from(heads) * u64::from(rows);
        let blocks = row_count * u64::from(width.div_ceil(4));
        let cost = Cost::new(0, row_count * 4 * u64::from(width) * u64::from(slices.count + 1));
        let constants = self.terms(width, Terms::default());
        Launch::new(&SUM_SLICES[self.even()], constants, &params, blocks.div_ceil(64), self.caps, cost)
    }

    /// Query rows whose dS is kept at a time: all, unless there is a gradient of the bias.
    pub fn chunk(&self) -> u32 {
        let AttentionConfig { batch, heads, queries, keys, .. } = *self.config;
        if !self.config.bias_gradient {
            return queries;
        }
        let row = u64::from(batch) * u64::from(heads) * u64::from(keys);
        let step = u64::from(SHORT_STEP);
        // dS is bound as a whole, with the sums of the rows.
        let limits = &self.caps.limits;
        let words = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / 4;
        let sums = self.row_sums(self.slices(Kind::Queries, heads, queries, keys));
        let held = words.saturating_sub(sums) / row / step * step;
        let mut rows = (CHUNK / row).max(1).next_multiple_of(SLICE_STEP.into()).min(held.max(step));
        if matches!(self.config.bias, AttentionBias::Table { .. }) {
            // An entry of the table adds up the rows of all images.
            let most = self.caps.rounds() / (u64::from(self.config.batch) + 2) / step * step;
            rows = rows.min(most.max(step));
        }
        rows.min(queries.into()) as u32
    }

    /// Words of the sums of the query rows.
    fn row_sums(&self, slices: Slices) -> u64 {
        if self.sums { 2 * u64::from(slices.count) * self.config.lse_count() } else { 0 }
    }

    /// Words of the extra buffer before dS, and with it.
    fn extra(&self, slices: Slices) -> Result<(u64, u64)> {
        let sums = self.row_sums(slices);
        let row = u64::from(self.config.batch) * u64::from(self.config.heads) * u64::from(self.config.keys);
        let ds = if self.config.bias_gradient { row.saturating_mul(self.chunk().into()) } else { 0 };
        let all = sums.saturating_add(ds);
        if all > u32::MAX.into() {
            return Err(Error::IndexOverflow { what: "dS", elements: all });
        }
        Ok((sums, all))
    }

    pub fn extra_words(&self, slices: Slices) -> Result<u64> {
        Ok(self.extra(slices)?.1)
    }

    /// The gradient of the query rows `[first, end)`.
    pub fn backward_queries(&self, slices: Slices, first: u32, end: u32) -> Result<Launch> {
        let AttentionConfig { batch, heads, queries, head_dim, .. } = *self.config;
        let params = Params {
            y: self.result(slices, self.q, heads, queries, head_dim)?,
            slices: slices.count,
            slice_length: slices.length,
            row_first: first,
            row_end: end,
            extra_sums: 0,
            extra_ds: self.extra(slices)?.0 as u32,
            ..self.params()
        };
        let groups = u64::from(slices.count)
            * u64::from(batch)
            * u64::from(heads)
            * u64::from(self.groups(Kind::Queries, end - first));
        let flags =
            Flags { sums: self.sums, write_ds: self.config.bias_gradient, values: true, ..Flags::default() };
        // Of five products backwards, the two that both passes compute count half in each.
        let all = (3 * self.products(head_dim)).saturating_add(self.products(self.config.value_dim()));
        let share = |n: u64| (u128::from(n) * u128::from(end - first) / u128::from(queries)) as u64;
        let cost = Cost::new(share(all), share(self.inputs() + 2 * self.outputs()));
        let shader = &self.shaders().backward_queries[self.even()];
        Launch::new(shader, self.constants(Kind::Queries, flags), &params, groups, self.caps, cost)
    }

    /// The gradients of keys (`keys`) and values (`values`).
    pub fn backward_keys(&self, slices: Slices, flags: Flags) -> Result<Launch> {
        let AttentionConfig { batch, keys, head_dim, .. } = *self.config;
        let (heads, dv) = (self.config.kv_heads(), self.config.value_dim());
        let base = self.params();
        let params = Params {
            own: base.other,
            other: base.own,
            own_values: base.other_values,
            other_values: base.own_values,
            y: self.result(slices, self.k, heads, keys, head_dim)?,
            z: self.result(slices, self.v, heads, keys, dv)?,
            slices: slices.count,
            slice_length: slices.length,
            row_end: keys,
            row_heads: heads,
            ..base
        };
        let groups = u64::from(slices.count)
            * u64::from(batch)
            * u64::from(heads)
            * u64::from(self.groups(Kind::Keys, keys));
        let (d, dv) = (self.products(head_dim), self.products(dv));
        let flops = match (flags.keys, flags.values) {
            (true, true) => 3 * d + 3 * dv,
            (true, false) => 4 * d + 2 * dv,
            _ => 2 * d + 2 * dv,
        };
        let cost = Cost::new(flops, 2 * self.inputs() + 2 * self.outputs());
        let shader = &self.shaders().backward_keys[self.even()];
        Launch::new(shader, self.constants(Kind::Keys, flags), &params, groups, self.caps, cost)
    }

    /// The gradient of the bias from dS of the query rows `[first, end)`.
    pub fn bias_gradient(&self, slices: Slices, first: u32, end: u32) -> Result<Launch> {
        let params = Params {
            row_first: first,
            row_end: end,
            extra_ds: self.extra(slices)?.0 as u32,
            ..self.params()
        };
        let rows = u64::from(end - first);
        let AttentionConfig { batch, heads, .. } = *self.config;
        let (shader, count, rounds) = match self.config.bias {
            AttentionBias::Table { .. } => {
                (&TABLE_GRADIENT, self.config.bias_count(), rows * (2 + u64::from(batch)))
            }
            AttentionBias::Dense { share_batch, share_heads } => {
                let count = self.config.bias_count() / u64::from(self.config.queries) * rows;
                let images = if share_batch { u64::from(batch) } else { 1 };
                let rounds = images * (2 + if share_heads { u64::from(heads) } else { 1 });
                (&BIAS_GRADIENT, count, rounds)
            }
            AttentionBias::None => (&BIAS_GRADIENT, 0, 0),
        };
        self.caps.check_rounds("batch", batch, rounds)?;
        let all =
            u64::from(self.config.batch) * u64::from(self.config.heads) * u64::from(self.config.keys) * rows;
        let cost = Cost::new(all, 4 * (all + count));
        let constants = self.terms(self.config.value_dim(), Terms::default());
        Launch::new(shader, constants, &params, count.div_ceil(64), self.caps, cost)
    }

    /// Sums over the rows of each head.
    pub fn head_sums(&self, slices: Slices) -> Result<Launch> {
        check_workgroup("flash_attention", 256, 2048, self.caps)?;
        let params = Params { slices: slices.count, ..self.params() };
        let constants = self.terms(self.config.value_dim(), Terms::default());
        let cost = Cost::new(0, 8 * u64::from(slices.count) * self.config.lse_count());
        Launch::new(&HEAD_SUMS, constants, &params, self.config.heads.into(), self.caps, cost)
    }

    /// The gradient of the query rows' weights.
    pub fn weight_gradients(&self, slices: Slices) -> Result<Launch> {
        let params = Params { slices: slices.count, ..self.params() };
        let constants = self.terms(self.config.value_dim(), Terms::default());
        let rows = self.config.lse_count();
        let cost = Cost::new(0, 4 * rows * (2 * u64::from(slices.count) + 1));
        Launch::new(&WEIGHT_GRADIENTS, constants, &params, rows.div_ceil(64), self.caps, cost)
    }

    /// The gradient of the temperature (0), the head scales (1) or the gates (2).
    pub fn head_gradients(&self, what: u32) -> Result<Launch> {
        if what == 0 {
            // One invocation adds up all heads.
            self.caps.check_rounds("heads", self.config.heads, self.config.heads.into())?;
        }
        let groups = if what == 0 { 1 } else { u64::from(self.config.heads).div_ceil(64) };
        let constants = self.terms(self.config.value_dim(), Terms { what, ..Terms::default() });
        let cost = Cost::new(0, 8 * u64::from(self.config.heads));
        Launch::new(&HEAD_GRADIENTS, constants, &self.params(), groups, self.caps, cost)
    }
}
