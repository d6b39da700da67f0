//! What windowed attention and attention within small instances share: they differ in which tokens an
//! instance has, and in what is added to its scores.

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Launch, Plan, Recording, Result, Scratch,
    Shader, check_apart, check_config, check_shape, check_workgroup, count, read, shader, write,
};

/// How attention within instances is computed. All variants give the same results to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallAttentionVariant {
    /// One invocation a token of a head; needs nothing.
    Plain,
    /// For GPUs: a tile of scores in workgroup memory, 4 x 4 an invocation.
    Tiled,
    /// For CPU adapters: four rows an invocation in registers, the others' tokens by shuffles; at most 64
    /// elements a head. Needs subgroups of 8.
    Subgroup,
}

impl SmallAttentionVariant {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tiled => "tiled",
            Self::Subgroup => "subgroup",
        }
    }

    fn shaders(self) -> &'static Shaders {
        match self {
            Self::Plain => &PLAIN,
            Self::Tiled => &TILED,
            Self::Subgroup => &SUBGROUP,
        }
    }
}

/// A grid cut into windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub size: [u32; 3],
    pub length: [u32; 3],
    pub windows: [u32; 3],
    pub shift: [u32; 3],
    pub table: bool,
    pub mask: f32,
}

impl Window {
    fn is_padded(&self) -> bool {
        (0..3).any(|axis| !self.size[axis].is_multiple_of(self.length[axis]))
    }

    /// Entries of the table.
    fn entries(&self) -> u32 {
        self.length.iter().map(|w| 2 * w - 1).product()
    }
}

/// Attention within instances, as a kernel's configuration describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instances {
    /// Tokens of all instances, without padding.
    pub rows: u32,
    pub instances: u32,
    /// Of an instance, padding included.
    pub tokens: u32,
    pub heads: u32,
    pub head_dim: u32,
    pub scale: Option<f32>,
    pub half: bool,
    pub masked: bool,
    pub variant: Option<SmallAttentionVariant>,
    pub window: Option<Window>,
}

/// The product of sizes that must each be at least 1.
pub(super) fn rows(what: &'static str, sizes: &[u32]) -> Result<u32> {
    check_config(sizes.iter().all(|&size| size > 0), what, "at least 1", sizes)?;
    count(what, sizes)
}

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    heads: u32,
    instances: u32,
    tokens: u32,
    blocks: u32,
    per_slice: u32,
    parts: u32,
    scale: f32,
    score_scale: f32,
    mask: f32,
    bias_sums: u32,
    pad_sums: u32,
    slices: u32,
    size: [u32; 3],
    windows: [u32; 3],
    shift: [u32; 3],
}

/// One entry point for small instances and for windows, each with elements read one and four at a time.
type Entry = [[Shader; 2]; 2];

/// The entry points of a variant.
struct Shaders {
    forward: Entry,
    backward_queries: Entry,
    backward_keys: Entry,
}

/// One entry point of one file; `$element` makes a binding one of four elements.
macro_rules! entry {
    (forward, $file:literal, $tokens:ident, $buffers:ident, $extra:expr, [$($element:tt)*]) => {
        shader!(
            $file,
            "forward",
            [index, exponential, small_attention, $tokens, $buffers],
            [
                read("q")$($element)*,
                read("k")$($element)*,
                read("v")$($element)*,
                $extra,
                read("dout")$($element)*,
                write("lse"),
                write("o")$($element)*
            ]
        )
    };
    (backward_queries, $file:literal, $tokens:ident, $buffers:ident, $extra:expr, [$($element:tt)*]) => {
        shader!(
            $file,
            "backward_queries",
            [index, exponential, small_attention, $tokens, $buffers],
            [
                read("q")$($element)*,
                read("k")$($element)*,
                read("v")$($element)*,
                $extra,
                read("dout")$($element)*,
                write("sums").vec4(),
                write("dq")$($element)*
            ]
        )
    };
    (backward_keys, $file:literal, $tokens:ident, $buffers:ident, $extra:expr, [$($element:tt)*]) => {
        shader!(
            $file,
            "backward_keys",
            [index, exponential, small_attention, $tokens, $buffers],
            [
                read("q")$($element)*,
                read("k")$($element)*,
                read("v")$($element)*,
                $extra,
                read("dout")$($element)*,
                write("sums").vec4(),
                write("dk")$($element)*,
                write("dv")$($element)*
            ]
        )
    };
}

macro_rules! entries {
    ($form:ident, $file:literal) => {
        [
            [
                entry!($form, $file, small_tokens, small_scalars, read("key_mask"), []),
                entry!($form, $file, small_tokens, small_vectors, read("key_mask"), [.vec4()]),
            ],
            [
                entry!($form, $file, window_tokens, small_scalars, read("bias_rows").vec4(), []),
                entry!($form, $file, window_tokens, small_vectors, read("bias_rows").vec4(), [.vec4()]),
            ],
        ]
    };
}

macro_rules! shaders {
    ($file:literal) => {
        Shaders {
            forward: entries!(forward, $file),
            backward_queries: entries!(backward_queries, $file),
            backward_keys: entries!(backward_keys, $file),
        }
    };
}

static PLAIN: Shaders = shaders!("attention/small_attention");
static TILED: Shaders = shaders!("attention/small_attention_tiled");
static SUBGROUP: Shaders = shaders!("attention/small_attention_subgroup");

macro_rules! row_sums {
    ($tokens:ident, $buffers:ident, [$($element:tt)*]) => {
        shader!(
            "attention/small_attention",
            "row_sums",
            [index, exponential, small_attention, $tokens, $buffers],
            [
                read("o_in")$($element)*,
                read("dout_in")$($element)*,
                read("lse_in"),
                write("row_sums_out").vec4()
            ]
        )
    };
}
static ROW_SUMS: Entry = [
    [row_sums!(small_tokens, small_scalars, []), row_sums!(small_tokens, small_vectors, [.vec4()])],
    [row_sums!(window_tokens, small_scalars, []), row_sums!(window_tokens, small_vectors, [.vec4()])],
];

static SPREAD: Shader = shader!(
    "attention/window_attention",
    "spread",
    [index, exponential, small_attention, window_tokens, small_scalars],
    [read("table"), write("bias_out").vec4()]
);
static TABLE_GRADIENT: Shader = shader!(
    "attention/window_attention",
    "table_gradient",
    [index, exponential, small_attention, window_tokens, small_scalars],
    [read("sums_in").vec4(), write("dtable")]
);
static PAD_GRADIENT: [Shader; 2] = [
    shader!(
        "attention/window_attention",
        "pad_gradient",
        [index, exponential, small_attention, window_tokens, small_scalars],
        [read("sums_in").vec4(), write("dq_pad"), write("dk_pad"), write("dv_pad")]
    ),
    shader!(
        "attention/window_attention",
        "pad_gradient",
        [index, exponential, small_attention, window_tokens, small_vectors],
        [read("sums_in").vec4(), write("dq_pad").vec4(), write("dk_pad").vec4(), write("dv_pad").vec4()]
    ),
];

/// Slices of the windows, times heads, whose sums of dS are kept apart: enough to fill a GPU.
const SLICES: u32 = 512;

/// The buffers of a forward pass; `extra` is the mask of the keys or the table of biases.
pub(super) struct Forward<'a> {
    pub q: BufferView<'a>,
    pub k: BufferView<'a>,
    pub v: BufferView<'a>,
    pub extra: Option<BufferView<'a>>,
    pub o: BufferView<'a>,
    pub lse: BufferView<'a>,
    pub scratch: &'a Scratch,
}

/// The buffers of a backward pass.
pub(super) struct Backward<'a> {
    pub q: BufferView<'a>,
    pub k: BufferView<'a>,
    pub v: BufferView<'a>,
    pub extra: Option<BufferView<'a>>,
    pub o: BufferView<'a>,
    pub lse: BufferView<'a>,
    pub dout: BufferView<'a>,
    pub dq: BufferView<'a>,
    pub dk: BufferView<'a>,
    pub dv: BufferView<'a>,
    pub dextra: Option<BufferView<'a>>,
    pub scratch: &'a Scratch,
}

/// Where the sums of a backward pass lie in their buffer, in vec4s.
struct Sums {
    slices: u32,
    per_slice: u32,
    bias: u64,
    pad: u64,
    end: u64,
}

/// How `Tiled` shares out an instance; all but bytes and invocations in units of 4 elements.
struct Tile {
    workgroup: u32,
    /// Workgroups to an instance and head.
    parts: u32,
    rows: u32,
    /// Of the result, computed at once.
    columns: u32,
    /// Of the elements of a head, staged at once for the scores.
    chunk: u32,
    /// Tokens staged at once for the result.
    keys: u32,
    /// vec4s.
    stage: u32,
    bytes: u32,
}

impl Instances {
    pub fn check(self) -> Result<Self> {
        check_config((1..=512).contains(&self.tokens), "tokens", "1 to 512 an instance", self.tokens)?;
        check_config(self.heads > 0, "heads", "at least 1", self.heads)?;
        check_config((1..=256).contains(&self.head_dim), "head_dim", "1 to 256", self.head_dim)?;
        check_config(self.scale().is_finite(), "scale", "finite", self.scale)?;
        let overflow = || Error::IndexOverflow { what: "q", elements: u64::from(self.rows) + 1 };
        let rows = self.rows.checked_add(self.is_padded().into()).ok_or_else(overflow)?;
        count("q", &[rows, self.heads, self.head_dim])?;
        count("windows", &[self.instances, self.heads, self.tokens])?;
        Ok(self)
    }

    fn scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| 1.0 / (self.head_dim as f32).sqrt())
    }

    fn is_padded(&self) -> bool {
        self.window.is_some_and(|window| window.is_padded())
    }

    fn has_table(&self) -> bool {
        self.window.is_some_and(|window| window.table)
    }

    /// Elements of q, k and v.
    fn elements(&self) -> u64 {
        let rows = u64::from(self.rows) + u64::from(self.is_padded());
        rows * u64::from(self.heads) * u64::from(self.head_dim)
    }

    /// Elements of o.
    fn outputs(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.heads) * u64::from(self.head_dim)
    }

    fn element_bytes(&self) -> u64 {
        if self.half { 2 } else { 4 }
    }

    fn blocks(&self) -> u32 {
        self.tokens.div_ceil(4)
    }

    /// Which shader of an entry point.
    fn pick(&self, entry: &'static Entry) -> &'static Shader {
        &entry[usize::from(self.window.is_some())][self.vectors()]
    }

    /// Whether four elements are read at once. A binding of f16 vectors is at least 16 bytes long.
    fn vectors(&self) -> usize {
        usize::from(self.head_dim.is_multiple_of(if self.half { 8 } else { 4 }))
    }

    /// Elements of the biases spread over pairs: as they are, and transposed.
    fn spread(&self) -> u64 {
        8 * u64::from(self.heads) * u64::from(self.blocks()) * u64::from(self.tokens)
    }

    /// Rounds of an invocation's loops over an instance, at the most.
    fn rounds(&self, variant: SmallAttentionVariant) -> u64 {
        let [blocks, columns] = [self.blocks(), self.head_dim.div_ceil(4)].map(u64::from);
        match variant {
            // For each block two products and a sum, or a product and three sums.
            SmallAttentionVariant::Plain => 1 + 3 * columns + blocks * (1 + 3 * columns),
            SmallAttentionVariant::Subgroup => 1 + blocks,
            // Products and sums with as little staged at a time as there may be.
            SmallAttentionVariant::Tiled => 4 * (1 + blocks) * (1 + columns),
        }
    }

    /// Without a table and padding there is nothing to sum, and a slice is an instance.
    fn sums(&self, caps: &Capabilities) -> Result<Sums> {
        let summed = self.has_table() || self.is_padded();
        let wanted = if summed { SLICES.div_ceil(self.heads) } else { self.instances };
        let most = (caps.rounds() / self.rounds(self.variant(caps)?)).max(1);
        let per_slice = u64::from(self.instances.div_ceil(wanted)).min(most) as u32;
        let slices = self.instances.div_ceil(per_slice);
        let each = u64::from(slices) * u64::from(self.heads) * u64::from(self.tokens);
        let bias = u64::from(self.rows) * u64::from(self.heads);
        let pad = bias + if self.has_table() { each * u64::from(self.blocks()) } else { 0 };
        let end = pad + if self.is_padded() { each * 2 * u64::from(self.head_dim.div_ceil(4)) } else { 0 };
        if end > u64::from(u32::MAX) {
            return Err(Error::IndexOverflow { what: "scratch", elements: end });
        }
        Ok(Sums { slices, per_slice, bias, pad, end })
    }

    fn params(&self, sums: Option<&Sums>, parts: u32) -> Params {
        let window = self.window.unwrap_or(Window {
            size: [0; 3],
            length: [0; 3],
            windows: [0; 3],
            shift: [0; 3],
            table: false,
            mask: 0.0,
        });
        Params {
            rows: self.rows,
            heads: self.heads,
            instances: self.instances,
            tokens: self.tokens,
            blocks: self.blocks(),
            per_slice: sums.map_or(1, |sums| sums.per_slice),
            parts,
            scale: self.scale(),
            score_scale: self.scale() * std::f32::consts::LOG2_E,
            mask: window.mask * std::f32::consts::LOG2_E,
            bias_sums: sums.map_or(0, |sums| sums.bias as u32),
            pad_sums: sums.map_or(0, |sums| sums.pad as u32),
            slices: sums.map_or(self.instances, |sums| sums.slices),
            size: window.size,
            windows: window.windows,
            shift: window.shift,
        }
    }

    fn constants(&self) -> Constants {
        let mut constants = Constants::new()
            .float("Storage", self.half)
            .u32("D", self.head_dim)
            .u32("D4", self.head_dim.div_ceil(4))
            .bool("PADDED", self.is_padded());
        match self.window {
            None => constants = constants.bool("MASKED", self.masked),
            Some(window) => {
                for (axis, length) in ["WINDOW_X", "WINDOW_Y", "WINDOW_Z"].into_iter().zip(window.length) {
                    constants = constants.u32(axis, length);
                }
                constants = constants.bool("BIAS", window.table).bool("REGIONS", window.shift != [0; 3]);
            }
        }
        constants
    }

    fn variant(&self, caps: &Capabilities) -> Result<SmallAttentionVariant> {
        let what = "small_attention";
        if self.half && !caps.f16 {
            return Err(Error::FeatureMissing { what, feature: "SHADER_F16" });
        }
        // Of the passes that all variants share.
        check_workgroup(what, 64, 1024, caps)?;
        let check = |variant| match variant {
            SmallAttentionVariant::Plain => Ok(()),
            SmallAttentionVariant::Subgroup if caps.subgroups != Some((8, 8)) => {
                Err(Error::FeatureMissing { what, feature: "SUBGROUP of size 8" })
            }
            SmallAttentionVariant::Subgroup if self.head_dim > 64 => {
                check_config(false, "variant", "another for more than 64 elements a head", self.head_dim)
            }
            SmallAttentionVariant::Subgroup => Ok(()),
            SmallAttentionVariant::Tiled => {
                let tile = self.tile(caps);
                check_workgroup(what, tile.workgroup, tile.bytes, caps)
            }
        };
        match self.variant {
            Some(variant) => check(variant).map(|()| variant),
            None => {
                let suits =
                    if caps.cpu { SmallAttentionVariant::Subgroup } else { SmallAttentionVariant::Tiled };
                Ok(check(suits).map_or(SmallAttentionVariant::Plain, |()| suits))
            }
        }
    }

    /// The tile that a workgroup of `Tiled` has: 4 rows x 4 columns an invocation, and as much staged
    /// as fits beside it.
    fn tile(&self, caps: &Capabilities) -> Tile {
        let blocks = self.blocks();
        let parts = blocks.div_ceil((128 / blocks).max(1));
        let rows = blocks.div_ceil(parts);
        let workgroup = (rows * blocks).next_multiple_of(32);
        let columns = self.head_dim.div_ceil(4).min(workgroup / rows);
        // Scores, partial sums of rows, row maxima, tokens.
        let fixed = 64 * rows * blocks + 16 * rows * blocks + 16 * rows + 32 * (rows + blocks);
        let stage = caps.workgroup_bytes().saturating_sub(fixed).min(8 << 10) / 16;
        let chunk = (stage / (4 * (rows + blocks))).clamp(1, self.head_dim.div_ceil(4));
        let keys = (stage / (4 * columns)).clamp(1, blocks);
        let stage = (chunk * 4 * (rows + blocks)).max(keys * 4 * columns);
        Tile { workgroup, parts, rows, columns, chunk, keys, stage, bytes: fixed + 16 * stage }
    }

    /// Multiply-adds of one product of a matrix of scores with another, padding's queries left out.
    fn product(&self) -> u64 {
        self.outputs() * u64::from(self.tokens)
    }

    /// Constants of a variant, the workgroups along the tokens of an instance, and all workgroups of a pass
    /// over `slices`.
    fn shape(
        &self,
        variant: SmallAttentionVariant,
        slices: u32,
        caps: &Capabilities,
    ) -> (Constants, u32, u64) {
        let heads = u64::from(slices) * u64::from(self.heads);
        let constants = self.constants();
        match variant {
            SmallAttentionVariant::Plain => (constants, 1, (heads * u64::from(self.tokens)).div_ceil(64)),
            SmallAttentionVariant::Subgroup => {
                let parts = self.tokens.div_ceil(32);
                (constants.subgroups(), parts, heads * u64::from(parts))
            }
            SmallAttentionVariant::Tiled => {
                let tile = self.tile(caps);
                let constants = constants
                    .u32("WORKGROUP", tile.workgroup)
                    .u32("BLOCKS", self.blocks())
                    .u32("ROWS4", tile.rows)
                    .u32("COLUMNS4", tile.columns)
                    .u32("CHUNK4", tile.chunk)
                    .u32("KEYS4", tile.keys)
                    .u32("STAGE", tile.stage);
                (constants, tile.parts, heads * u64::from(tile.parts))
            }
        }
    }

    fn plan_spread(&self, caps: &Capabilities) -> Result<Launch> {
        let groups = (self.spread() / 4).div_ceil(64);
        let cost = Cost::new(0, 4 * self.spread());
        Launch::new(&SPREAD, self.constants(), &self.params(None, 1), groups, caps, cost)
    }

    pub fn plan_forward(&self, caps: &Capabilities) -> Result<Plan> {
        let variant = self.variant(caps)?;
        let mut plan = Plan { variant: variant.name(), launches: Vec::new(), scratch: Vec::new() };
        if self.has_table() {
            plan.launches.push(self.plan_spread(caps)?);
            plan.scratch.push(4 * self.spread());
        }
        let bytes = self.element_bytes() * (3 * self.elements() + self.outputs());
        let lse = 4 * u64::from(self.rows) * u64::from(self.heads);
        let cost = Cost::new(4 * self.product(), bytes + lse);
        let shader = self.pick(&variant.shaders().forward);
        let (constants, parts, groups) = self.shape(variant, self.instances, caps);
        plan.launches.push(Launch::new(shader, constants, &self.params(None, parts), groups, caps, cost)?);
        Ok(plan)
    }

    pub fn plan_backward(&self, caps: &Capabilities) -> Result<Plan> {
        let variant = self.variant(caps)?;
        let sums = self.sums(caps)?;
        if self.has_table() || self.is_padded() {
            // What adds up the slices: 64 invocations an entry of the table, or a vec4 of padding.
            let rounds = u64::from(sums.slices) * u64::from(self.tokens.div_ceil(64));
            caps.check_rounds("instances", self.instances, rounds)?;
        }
        let mut plan = Plan { variant: variant.name(), launches: Vec::new(), scratch: vec![16 * sums.end] };
        if self.has_table() {
            plan.launches.push(self.plan_spread(caps)?);
            plan.scratch.push(4 * self.spread());
        }
        let (constants, parts, groups) = self.shape(variant, sums.slices, caps);
        let params = self.params(Some(&sums), parts);
        let element = self.element_bytes();
        let row_sums = sums.bias * 16;
        let mut launch = |shader, constants: &Constants, groups, flops, bytes| {
            let cost = Cost::new(flops, bytes);
            plan.launches.push(Launch::new(shader, constants.clone(), &params, groups, caps, cost)?);
            Ok::<_, Error>(())
        };
        let bytes = element * 2 * self.outputs() + row_sums * 5 / 4;
        let common = self.constants();
        launch(self.pick(&ROW_SUMS), &common, sums.bias.div_ceil(64), 2 * self.outputs(), bytes)?;
        // Five products are the least for all gradients; the second pass computes two of them again.
        let shaders = variant.shaders();
        let inputs = element * (3 * self.elements() + self.outputs()) + row_sums;
        let bytes = inputs + element * self.elements() + 16 * (sums.pad - sums.bias);
        launch(self.pick(&shaders.backward_queries), &constants, groups, 6 * self.product(), bytes)?;
        let bytes = inputs + 2 * element * self.elements() + 16 * (sums.end - sums.pad);
        launch(self.pick(&shaders.backward_keys), &constants, groups, 4 * self.product(), bytes)?;
        if let Some(window) = self.window.filter(|window| window.table) {
            let groups = u64::from(window.entries()) * u64::from(self.heads);
            launch(&TABLE_GRADIENT, &common, groups, 0, 16 * (sums.pad - sums.bias) + 4 * groups)?;
        }
        if self.is_padded() {
            let groups = 2 * u64::from(self.heads) * u64::from(self.head_dim.div_ceil(4));
            launch(&PAD_GRADIENT[self.vectors()], &common, groups, 0, 16 * (sums.end - sums.pad))?;
        }
        Ok(plan)
    }

    /// The mask of the keys or the table of biases, if it is configured.
    fn extra<'a>(&self, view: Option<BufferView<'a>>) -> Result<Option<Arg<'a>>> {
        let (what, wanted, elements) = match self.window {
            Some(window) => ("table", self.has_table(), u64::from(window.entries()) * u64::from(self.heads)),
            None => ("mask", self.masked, self.rows.into()),
        };
        Ok(given(what, wanted, view)?.map(|view| Arg::words(what, view, elements)))
    }

    /// `extra` as the shaders read it, after the launch that makes it.
    fn bind_extra<'a>(
        &self,
        context: &Context,
        launches: &mut std::slice::Iter<'_, Launch>,
        extra: Option<Arg<'a>>,
        k: Arg<'a>,
        spread: impl Fn() -> Result<BufferView<'a>>,
        recording: &mut Recording,
    ) -> Result<Arg<'a>> {
        match extra {
            // The shader never reads what stands for it.
            None => Ok(k),
            Some(mask) if self.window.is_none() => Ok(mask),
            Some(table) => {
                let spread = Arg::words("scratch", spread()?, self.spread());
                if let Some(launch) = launches.next() {
                    recording.push(context.bind(launch, &[table, spread])?);
                }
                Ok(spread)
            }
        }
    }

    pub fn forward(&self, context: &Context, plan: &Plan, args: &Forward<'_>) -> Result<Recording> {
        let mut recording = Recording::new();
        let element = self.element_bytes();
        let like_q = |what, view| Arg::new(what, view, self.elements(), element);
        let (q, k, v) = (like_q("q", args.q), like_q("k", args.k), like_q("v", args.v));
        let lse = Arg::words("lse", args.lse, u64::from(self.rows) * u64::from(self.heads));
        let o = Arg::new("o", args.o, self.outputs(), element);
        let extra = self.extra(args.extra)?;
        check_apart(&[o, lse], &[Some(q), Some(k), Some(v), extra])?;
        let mut launches = plan.launches.iter();
        let extra =
            self.bind_extra(context, &mut launches, extra, k, || args.scratch.view(0), &mut recording)?;
        // The second k is not read forward.
        let all = [q, k, v, extra, k, lse, o];
        for launch in launches {
            recording.push(context.bind(launch, &all)?);
        }
        Ok(recording)
    }

    pub fn backward(&self, context: &Context, plan: &Plan, args: &Backward<'_>) -> Result<Recording> {
        let mut recording = Recording::new();
        let element = self.element_bytes();
        let like_q = |what, view| Arg::new(what, view, self.elements(), element);
        let like_o = |what, view| Arg::new(what, view, self.outputs(), element);
        let dextra = given("dtable", self.has_table(), args.dextra)?;
        let sums = Arg::new("scratch", args.scratch.view(0)?, self.sums(context.capabilities())?.end, 16);
        let (q, k, v) = (like_q("q", args.q), like_q("k", args.k), like_q("v", args.v));
        let (dq, dk, dv) = (like_q("dq", args.dq), like_q("dk", args.dk), like_q("dv", args.dv));
        let (o, dout) = (like_o("o", args.o), like_o("dout", args.dout));
        let lse = Arg::words("lse", args.lse, u64::from(self.rows) * u64::from(self.heads));
        let extra = self.extra(args.extra)?;
        let dtable = dextra.zip(self.window).map(|(view, window)| {
            Arg::words("dtable", view, u64::from(window.entries()) * u64::from(self.heads))
        });
        let mut outputs = vec![dq, dk, dv];
        outputs.extend(dtable);
        check_apart(&outputs, &[Some(q), Some(k), Some(v), extra, Some(o), Some(lse), Some(dout)])?;
        let mut launches = plan.launches.iter();
        let extra =
            self.bind_extra(context, &mut launches, extra, k, || args.scratch.view(1), &mut recording)?;
        let mut all: Vec<Vec<Arg<'_>>> = vec![
            vec![o, dout, lse, sums],
            vec![q, k, v, extra, dout, sums, dq],
            vec![q, k, v, extra, dout, sums, dk, dv],
        ];
        all.extend(dtable.map(|dtable| vec![sums, dtable]));
        if self.is_padded() {
            all.push(vec![sums, dq, dk, dv]);
        }
        for (launch, args) in launches.zip(&all) {
            recording.push(context.bind(launch, args)?);
        }
        Ok(recording)
    }
}

/// A buffer that is given exactly if the configuration asks for it.
fn given<'a>(
    what: &'static str,
    wanted: bool,
    view: Option<BufferView<'a>>,
) -> Result<Option<BufferView<'a>>> {
    let need = if wanted { "a buffer, as configured" } else { "none, as configured" };
    check_shape(wanted == view.is_some(), what, need, view.map(|view| view.size))?;
    Ok(view)
}
