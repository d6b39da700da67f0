//! Matrix products (`shaders/dense/matmul.wgsl`).

use super::{Activation, matmul_packed};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Error, Kernel, Launch, Plan, Recording, Result, Scratch,
    Shader, check_config, check_workgroup, count, kernel, read, shader, write,
};

/// How a product is computed. All variants give the same results to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatmulVariant {
    /// Four columns of a row an invocation; the oracle of the others.
    Naive,
    /// For GPUs: tiles in workgroup memory, 8 x 8 results an invocation (4 x 4 where the product is small).
    Tiled,
    /// For CPU adapters: 16 x 8 results an invocation, shared operands by shuffles. Needs
    /// subgroups of 8.
    Subgroup,
    /// For large products on CPU adapters: operands are first copied into panels that are read in
    /// order, 32 x 8 results an invocation. Needs subgroups of 8, and rows of A, B and Y that are
    /// multiples of 4 long.
    Packed,
}

/// `Y[b] = activation(scale op(A[b]) op(B[b]) + C[b] + bias)`, with `op(A)` `[m, k]`, `op(B)` `[k, n]`
/// and `Y` `[m, n]`, all dense and row by row.
///
/// The default is the plain product of two 1 x 1 matrices: set `m`, `n` and `k`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatmulConfig {
    /// Rows of the result.
    pub m: u32,
    /// Columns of the result.
    pub n: u32,
    /// Terms of each sum.
    pub k: u32,
    /// Products side by side; the results lie one after another.
    pub batch: u32,
    /// A is stored as `[k, m]`.
    pub transpose_a: bool,
    /// B is stored as `[n, k]`.
    pub transpose_b: bool,
    /// One A for the whole batch.
    pub share_a: bool,
    /// One B for the whole batch.
    pub share_b: bool,
    /// A and B hold f16; sums and results are f32. Needs `SHADER_F16`.
    pub half: bool,
    /// Factor of the product.
    pub scale: f32,
    /// Add to what the result's buffer holds (`C`) instead of overwriting it.
    pub accumulate: bool,
    /// Add a row of `n` values.
    pub bias: bool,
    /// Applied last.
    pub activation: Activation,
    /// Keep what goes into the activation, for its backward pass.
    pub keep: bool,
    /// Parts that each sum is cut into, each with workgroups of its own; `None`: as many as keep
    /// the device busy. More where an invocation's loops would be too long for a CPU adapter. Fixed by
    /// the sizes and the device alone, so results repeat bit by bit.
    pub slices: Option<u32>,
    /// `None`: what suits the device.
    pub variant: Option<MatmulVariant>,
}

impl Default for MatmulConfig {
    fn default() -> Self {
        Self {
            m: 1,
            n: 1,
            k: 1,
            batch: 1,
            transpose_a: false,
            transpose_b: false,
            share_a: false,
            share_b: false,
            half: false,
            scale: 1.0,
            accumulate: false,
            bias: false,
            activation: Activation::Identity,
            keep: false,
            slices: None,
            variant: None,
        }
    }
}

impl MatmulConfig {
    /// Elements of the buffers of A, B and the result.
    fn sizes(&self) -> Result<[u32; 3]> {
        for (what, value) in [("m", self.m), ("n", self.n), ("k", self.k), ("batch", self.batch)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        // Slices are whole multiples of 16.
        check_config(self.k < u32::MAX - 15, "k", "less than 2^32 - 16", self.k)?;
        check_config(self.scale.is_finite(), "scale", "finite", self.scale)?;
        self.activation.check()?;
        let batch = |shared: bool| if shared { 1 } else { self.batch };
        Ok([
            count("A", &[batch(self.share_a), self.m, self.k])?,
            count("B", &[batch(self.share_b), self.k, self.n])?,
            count("Y", &[self.batch, self.m, self.n])?,
        ])
    }

    /// Whether every row is a multiple of 4 long, so that four elements are one load.
    fn is_even(&self) -> bool {
        let a = if self.transpose_a { self.m } else { self.k };
        let b = if self.transpose_b { self.k } else { self.n };
        let pairs =
            !self.half || ((self.m * self.k).is_multiple_of(8) && (self.k * self.n).is_multiple_of(8));
        a.is_multiple_of(4) && b.is_multiple_of(4) && self.n.is_multiple_of(4) && pairs
    }

    /// Whether packing A, which is read for every 64 columns, and B, which is read for every 32 rows,
    /// costs little beside the product: it takes as long as 20 rows and 20 columns of it.
    fn is_large(&self) -> bool {
        let (m, n) = (u64::from(self.m), u64::from(self.n));
        m * n >= 96 * (m + n)
    }

    /// Whether nothing happens to the sums.
    fn is_plain(&self) -> bool {
        let plain = self.scale == 1.0 && self.activation == Activation::Identity;
        plain && !self.accumulate && !self.bias && !self.keep
    }

    fn variant(&self, caps: &Capabilities) -> Result<MatmulVariant> {
        let what = "matmul";
        if self.half && !caps.f16 {
            return Err(Error::FeatureMissing { what, feature: "SHADER_F16" });
        }
        let check = |variant| match variant {
            MatmulVariant::Subgroup | MatmulVariant::Packed if caps.subgroups != Some((8, 8)) => {
                Err(Error::FeatureMissing { what, feature: "SUBGROUP of size 8" })
            }
            MatmulVariant::Packed => {
                check_config(self.is_even(), "variant", "rows that are multiples of 4 long", "Packed")
            }
            MatmulVariant::Tiled => SMALL.check(caps),
            _ => Ok(()),
        };
        match self.variant {
            Some(variant) => check(variant).map(|()| variant),
            None => {
                let suits = match caps.cpu {
                    true if self.is_even() && self.is_large() => MatmulVariant::Packed,
                    true => MatmulVariant::Subgroup,
                    false => MatmulVariant::Tiled,
                };
                Ok(check(suits).map_or(MatmulVariant::Naive, |()| suits))
            }
        }
    }
}

/// The tiles of Y that workgroups of the variant for GPUs have.
#[derive(Debug, Clone, Copy)]
struct Tile {
    /// Invocations a side.
    side: u32,
    /// Blocks of 4 rows, and of 4 columns, an invocation.
    blocks: u32,
    /// Tiles that keep the cores of a large GPU busy.
    enough: u64,
    /// What a result takes, relatively, as an H100 measured it: a larger tile reads its operands less often.
    time: u64,
}

const SMALL: Tile = Tile { side: 8, blocks: 1, enough: 0, time: 16 };
const MIDDLE: Tile = Tile { side: 8, blocks: 2, enough: 256, time: 13 };
const LARGE: Tile = Tile { side: 16, blocks: 2, enough: 128, time: 12 };

impl Tile {
    /// Rows, and columns, of Y.
    fn edge(self) -> u32 {
        4 * self.side * self.blocks
    }

    /// Whether the device can run its workgroups.
    fn check(self, caps: &Capabilities) -> Result<()> {
        let step = 2 * self.side / self.blocks;
        check_workgroup("matmul", self.side * self.side, 2 * step * self.edge() * 4, caps)
    }

    /// The fastest that the device can run, where `tiles` says how many of an edge cover the results.
    fn choose(tiles: impl Fn(u32) -> u64, caps: &Capabilities) -> Self {
        let time = |tile: &Self| tiles(tile.edge()) * u64::from(tile.edge()).pow(2) * tile.time;
        let suits = |tile: &Self| tiles(tile.edge()) >= tile.enough && tile.check(caps).is_ok();
        [LARGE, MIDDLE].into_iter().filter(suits).chain([SMALL]).min_by_key(time).unwrap_or(SMALL)
    }
}

/// Results that keep a device busy without slices, and terms of a sum that are worth a slice of their own.
/// A GPU wants a few workgroups of 64, with 32 x 32 results each, for each of its hundred cores.
fn slicing(caps: &Capabilities) -> (u64, u32) {
    if caps.cpu { (1 << 16, 256) } else { (1 << 19, 128) }
}

/// Of those that are chosen: one invocation adds them up.
const MOST_SLICES: u32 = 4096;

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    batch: u32,
    a_stride: u32,
    b_stride: u32,
    slices: u32,
    slice_k: u32,
    scale: f32,
    parameter: f32,
}

/// One entry point with elements read one or four at a time, and without or with `kept`.
macro_rules! shaders {
    ($file:literal, $entry:literal, [$($buffers:ident),*], $keep:ident, [$($element:tt)*], [$($kept:expr)?]) => {
        shader!(
            $file,
            $entry,
            [index, sincos, activation, blocks, matmul, $($buffers,)* $keep],
            [
                read("a")$($element)*,
                read("b")$($element)*,
                read("bias")$($element)*,
                write("c")$($element)*,
                $($kept)?
            ]
        )
    };
    ($file:literal, $entry:literal, $buffers:tt, $element:tt) => {
        [
            shaders!($file, $entry, $buffers, matmul_keep_none, $element, []),
            shaders!($file, $entry, $buffers, matmul_keep, $element, [write("kept")]),
        ]
    };
    ($file:literal, $entry:literal) => {
        [
            shaders!($file, $entry, [matmul_scalars], []),
            shaders!($file, $entry, [quads, operands, matmul_vectors], [.vec4()]),
            shaders!($file, $entry, [quads, operands_stored, matmul_vectors], [.vec4()]),
        ]
    };
}

/// Of elements one at a time, and of four, f32 or f16.
type Shaders = [[Shader; 2]; 3];

static NAIVE: Shaders = shaders!("dense/matmul", "naive");
static TILED: Shaders = shaders!("dense/matmul", "tiled");
static SUBGROUP: Shaders = shaders!("dense/matmul_subgroup", "subgroup");
static SUM_SLICES: Shaders = shaders!("dense/matmul_slices", "sum_slices");

kernel! {
    /// A matrix product, batched, with bias and activation.
    Matmul, MatmulConfig
}

/// Buffers of [`Matmul`].
#[derive(Debug, Clone, Copy)]
pub struct MatmulArgs<'a> {
    /// `[batch, m, k]`, or `[batch, k, m]` where it is transposed; without the batch where it is shared.
    pub a: BufferView<'a>,
    /// `[batch, k, n]`, or `[batch, n, k]` where it is transposed; without the batch where it is shared.
    pub b: BufferView<'a>,
    /// `[n]`, if the configuration has a bias.
    pub bias: Option<BufferView<'a>>,
    /// The result, `[batch, m, n]`; read too, if the configuration accumulates.
    pub y: BufferView<'a>,
    /// What went into the activation, as `y`, if the configuration keeps it.
    pub kept: Option<BufferView<'a>>,
    /// As the plan asks for; empty, unless sums are sliced.
    pub scratch: &'a Scratch,
}

impl Matmul {
    /// Chooses the variant and the slices.
    pub fn plan(config: &MatmulConfig, caps: &Capabilities) -> Result<Plan> {
        let [a, b, y] = config.sizes()?;
        let variant = config.variant(caps)?;
        let (busy, slice) = slicing(caps);
        let most = config.k.div_ceil(slice);
        let slices = match config.slices {
            Some(slices) => {
                check_config((1..=MOST_SLICES).contains(&slices), "slices", "1 to 4096", slices)?;
                slices.min(config.k.div_ceil(16))
            }
            None => busy.div_ceil(u64::from(y)).min(u64::from(most)).min(MOST_SLICES.into()) as u32,
        };
        // The rounds of an invocation's loops for sixteen terms of a sum, at the most.
        let rounds = match variant {
            MatmulVariant::Naive => 16 * 6,
            MatmulVariant::Tiled => 2 * (1 + 9),
            _ => 16,
        };
        let longest = (caps.rounds() / rounds).saturating_mul(16).min(u64::from(config.k));
        let slices = slices.max(u64::from(config.k).div_ceil(longest) as u32);
        let slice_k = config.k.div_ceil(slices).next_multiple_of(16);
        // Rounding a slice up may leave none for the last ones.
        let slices = config.k.div_ceil(slice_k);
        let sliced = slices > 1;
        count("slices", &[slices, y])?;
        caps.check_rounds("k", config.k, slices.into())?;
        let params = Params {
            m: config.m,
            n: config.n,
            k: config.k,
            batch: config.batch,
            a_stride: if config.share_a { 0 } else { config.m * config.k },
            b_stride: if config.share_b { 0 } else { config.k * config.n },
            slices,
            slice_k,
            scale: config.scale,
            parameter: config.activation.parameter(),
        };
        let matrices = u64::from(config.batch) * u64::from(slices);
        let tiles = |height: u32, width: u32| {
            matrices * u64::from(config.m.div_ceil(height)) * u64::from(config.n.div_ceil(width))
        };
        let tile = Tile::choose(|edge| tiles(edge, edge), caps);
        let (shaders, groups, name) = match variant {
            MatmulVariant::Naive => (&NAIVE, tiles(1, 4).div_ceil(64), "naive"),
            MatmulVariant::Tiled => (&TILED, tiles(tile.edge(), tile.edge()), "tiled"),
            MatmulVariant::Subgroup => (&SUBGROUP, tiles(16, 64), "subgroup"),
            // Has shaders of its own.
            MatmulVariant::Packed => (&SUBGROUP, 0, "packed"),
        };
        let shaders = match config.is_even() && variant == MatmulVariant::Subgroup {
            true => &shaders[1 + usize::from(config.half)],
            false => &shaders[0],
        };
        let constants = |half: bool, sliced: bool| {
            let constants = Constants::new()
                .float("Storage", half)
                .bool("TRANSPOSE_A", config.transpose_a)
                .bool("TRANSPOSE_B", config.transpose_b)
                .bool("SLICED", sliced)
                .bool("ACCUMULATE", config.accumulate)
                .bool("BIAS", config.bias)
                .u32("ACTIVATION", config.activation.id())
                .u32("SIDE", tile.side)
                .u32("BLOCKS", tile.blocks);
            if variant == MatmulVariant::Subgroup { constants.subgroups() } else { constants }
        };
        let element = if config.half { 2 } else { 4 };
        let flops = (2 * u64::from(y)).saturating_mul(config.k.into());
        let inputs = element * (u64::from(a) + u64::from(b));
        let extra = 4 * u64::from(y) * (1 + u64::from(config.accumulate) + u64::from(config.keep));
        let keep = usize::from(config.keep);
        let packed = variant == MatmulVariant::Packed;
        if packed && !sliced && config.is_plain() {
            let cost = Cost::new(flops, inputs + extra);
            let (launches, scratch) = matmul_packed::plan(config, slices, slice_k, cost, caps)?;
            return Ok(Plan { variant: name, launches, scratch });
        }
        if !packed && !sliced {
            let shader = &shaders[keep];
            let cost = Cost::new(flops, inputs + extra);
            let launch = Launch::new(shader, constants(config.half, false), &params, groups, caps, cost)?;
            return Ok(Plan::single(name, launch));
        }
        let partial = u64::from(slices) * u64::from(y) * 4;
        let cost = Cost::new(flops, inputs);
        let (mut launches, mut scratch) = match packed {
            true => matmul_packed::plan(config, slices, slice_k, cost, caps)?,
            false => {
                let constants = constants(config.half, true);
                let product = Launch::new(&shaders[0], constants, &params, groups, caps, cost)?;
                (vec![product], Vec::new())
            }
        };
        let even = usize::from(config.n.is_multiple_of(4));
        let groups =
            (u64::from(config.batch) * u64::from(config.m) * u64::from(config.n.div_ceil(4))).div_ceil(64);
        let sum = Launch::new(
            &SUM_SLICES[even][keep],
            constants(false, false),
            &params,
            groups,
            caps,
            Cost::new(0, extra),
        )?;
        launches.push(sum);
        scratch.push(partial);
        Ok(Plan { variant: name, launches, scratch })
    }
}

impl Kernel for Matmul {
    type Args<'a> = MatmulArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let [a, b, y] = config.sizes()?.map(u64::from);
        let input = |name, view, n| Arg::new(name, view, n, if config.half { 2 } else { 4 });
        let a = input("a", args.a, a);
        let b = input("b", args.b, b);
        let missing = |what| Error::Config {
            what,
            need: "a buffer, since the configuration asks for it".into(),
            got: "none".into(),
        };
        let bias = match args.bias {
            Some(view) if config.bias => Some(Arg::words("bias", view, config.n.into())),
            None if config.bias => return Err(missing("bias")),
            _ => None,
        };
        let kept = match args.kept {
            Some(view) if config.keep => Some(Arg::words("kept", view, y)),
            None if config.keep => return Err(missing("kept")),
            _ => None,
        };
        let out = Arg::words("y", args.y, y);
        let scratch = |name, index| {
            let words = self.plan.scratch.get(index).map_or(0, |bytes| bytes / 4);
            Ok::<_, Error>(Arg::words(name, args.scratch.view(index)?, words))
        };
        let bind = |launch, all: &[Arg<'_>]| self.context.bind(launch, all);
        // Where there is no bias, the shader never reads what stands for it.
        let epilogue = |input, other| {
            let mut all = vec![input, other, bias.unwrap_or(input), out];
            all.extend(kept);
            all
        };
        let mut recording;
        let sum;
        match &self.plan.launches[..] {
            [product] => return Ok(Recording::single(bind(product, &epilogue(a, b))?)),
            [product, last] => {
                let partial = scratch("scratch 0", 0)?;
                recording = Recording::single(bind(product, &[a, b, a, partial])?);
                sum = Some((last, partial));
            }
            [pack_a, pack_b, product, rest @ ..] => {
                let panels = [scratch("scratch 0", 0)?, scratch("scratch 1", 1)?];
                recording = Recording::single(bind(pack_a, &[a, panels[0]])?);
                recording.push(bind(pack_b, &[b, panels[1]])?);
                sum = match rest.first() {
                    Some(last) => Some((last, scratch("scratch 2", 2)?)),
                    None => None,
                };
                let to = sum.map_or(out, |(_, partial)| partial);
                recording.push(bind(product, &[panels[0], panels[1], to])?);
            }
            [] => return Err(missing("launches")),
        }
        if let Some((last, partial)) = sum {
            recording.push(bind(last, &epilogue(partial, partial))?);
        }
        Ok(recording)
    }
}
