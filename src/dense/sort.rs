//! Stable radix sort and argsort (`shaders/dense/sort.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Context, Cost, Error, Kernel, Launch, Plan, Recording, Result,
    Scratch, Shader, check_config, check_workgroup, kernel, read, shader, write,
};

use super::scan::{Scan, ScanConfig, ScanElement};

/// The type of the keys, and with it their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// Unsigned integers.
    U32 = 0,
    /// Signed integers.
    I32 = 1,
    /// f32 in the total order of IEEE 754 (that of `f32::total_cmp`): NaNs with the sign bit,
    /// -inf, ..., -0, +0, ..., inf, NaNs without it. Bits are kept, denormals and NaNs too.
    F32 = 2,
}

/// What moves along with the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortPayload {
    /// Nothing.
    None,
    /// A 32-bit word for each key.
    Values,
    /// Each key's index before the sort, u32: `values_out` becomes the argsort.
    Indices,
}

/// How a pass moves the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortVariant {
    /// By 4 bits, through workgroup memory into runs: for GPUs.
    Staged,
    /// By 8 bits, straight to their places: for CPU adapters.
    Direct,
}

/// A stable sort of `count` keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortConfig {
    /// Their type.
    pub key: SortKey,
    /// Keys, at least 1 and at most 2^32 - 4,096.
    pub count: u32,
    /// What moves along.
    pub payload: SortPayload,
    /// From the largest to the smallest; equal keys keep their order all the same.
    pub descending: bool,
    /// For u32, how many of the lowest bits are looked at, 1 to 32: a pass for each 4 or 8. For
    /// the others, 32.
    pub bits: u32,
    /// `None`: the one for the device.
    pub variant: Option<SortVariant>,
}

/// What the variants differ by.
struct Shape {
    name: &'static str,
    workgroup: u32,
    items: u32,
    /// Bits that a pass sorts by.
    digit: u32,
    staged: bool,
}

const STAGED: Shape = Shape { name: "staged", workgroup: 64, items: 16, digit: 4, staged: true };
const DIRECT: Shape = Shape { name: "direct", workgroup: 8, items: 512, digit: 8, staged: false };

impl Shape {
    fn block(&self) -> u32 {
        self.workgroup * self.items
    }

    fn bins(&self) -> u32 {
        1 << self.digit
    }

    /// As the shader's head comment says.
    fn workgroup_bytes(&self) -> u32 {
        let stage = if self.staged { 8 * self.block() } else { 8 };
        (self.bins() + 2) * 4 * self.workgroup + 4 * self.bins() + stage
    }
}

static COUNT: Shader = shader!("dense/sort", "count_digits", [index], [read("keys"), write("counts")]);
static SCATTER: Shader =
    shader!("dense/sort", "scatter", [index], [read("keys"), read("offsets"), write("keys_out")]);
static SCATTER_VALUES: Shader = shader!(
    "dense/sort",
    "scatter_values",
    [index],
    [read("keys"), read("offsets"), write("keys_out"), write("values_out"), read("values")]
);
static SCATTER_INDICES: Shader = shader!(
    "dense/sort",
    "scatter_indices",
    [index],
    [read("keys"), read("offsets"), write("keys_out"), write("values_out")]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    blocks: u32,
    shift: u32,
    digits: u32,
    flip: u32,
}

kernel! {
    /// Sorts keys, and a payload with them.
    Sort, SortConfig
}

/// Buffers of [`Sort`].
#[derive(Debug, Clone, Copy)]
pub struct SortArgs<'a> {
    /// The keys, `[count]`; not changed.
    pub keys: BufferView<'a>,
    /// The sorted keys, `[count]`.
    pub keys_out: BufferView<'a>,
    /// With [`SortPayload::Values`]: the payload, `[count]`; not changed.
    pub values: Option<BufferView<'a>>,
    /// The payload in the order of the sorted keys, `[count]`; not used without a payload.
    pub values_out: Option<BufferView<'a>>,
    /// As the plan asks for.
    pub scratch: &'a Scratch,
}

impl SortConfig {
    fn shape(&self, caps: &Capabilities) -> &'static Shape {
        match self.variant {
            Some(SortVariant::Staged) => &STAGED,
            Some(SortVariant::Direct) => &DIRECT,
            None if caps.cpu => &DIRECT,
            None => &STAGED,
        }
    }

    fn passes(&self, shape: &Shape) -> u32 {
        self.bits.div_ceil(shape.digit)
    }

    fn scan(&self, shape: &Shape) -> ScanConfig {
        let count = shape.bins() * self.count.div_ceil(shape.block());
        ScanConfig { element: ScanElement::U32, count, exclusive: true, reverse: false }
    }

    /// Scratch buffers for keys and values between the passes. The scratch is: counts, their prefix
    /// sums, these, and what the prefix sum asks for.
    fn buffers_between(&self, shape: &Shape) -> usize {
        match (self.passes(shape), self.payload) {
            (1, _) => 0,
            (_, SortPayload::None) => 1,
            _ => 2,
        }
    }
}

impl Sort {
    /// The passes and their grids.
    pub fn plan(config: &SortConfig, caps: &Capabilities) -> Result<Plan> {
        let SortConfig { key, count, payload, descending, bits, .. } = *config;
        let shape = config.shape(caps);
        check_config(count > 0, "count", "at least 1", count)?;
        check_config(count <= u32::MAX - 4095, "count", "at most 2^32 - 4096", count)?;
        check_config((1..=32).contains(&bits), "bits", "1 to 32", bits)?;
        check_config(key == SortKey::U32 || bits == 32, "bits", "32 for i32 and f32", bits)?;
        check_workgroup("dense/sort", shape.workgroup, shape.workgroup_bytes(), caps)?;
        let constants = Constants::new()
            .u32("WORKGROUP", shape.workgroup)
            .u32("ITEMS", shape.items)
            .u32("BINS", shape.bins())
            .bool("STAGED", shape.staged)
            .u32("KEY", key as u32);
        let blocks = count.div_ceil(shape.block());
        let scan_config = config.scan(shape);
        let (n, table) = (u64::from(count), u64::from(scan_config.count));
        let scan = Scan::plan(&scan_config, caps)?;
        let mut plan = Plan { variant: shape.name, ..Plan::default() };
        for pass in 0..config.passes(shape) {
            let shift = pass * shape.digit;
            let params = Params {
                count,
                blocks,
                shift,
                digits: (1 << shape.digit.min(bits - shift)) - 1,
                flip: if descending { u32::MAX } else { 0 },
            };
            let (scatter, words) = match payload {
                SortPayload::None => (&SCATTER, 2),
                SortPayload::Indices if pass == 0 => (&SCATTER_INDICES, 3),
                _ => (&SCATTER_VALUES, 4),
            };
            let mut push = |shader, words: u64| -> Result<()> {
                let cost = Cost::new(0, 4 * (words * n + table));
                plan.launches.push(Launch::new(
                    shader,
                    constants.clone(),
                    &params,
                    blocks.into(),
                    caps,
                    cost,
                )?);
                Ok(())
            };
            push(&COUNT, 1)?;
            push(scatter, words)?;
            let at = plan.launches.len() - 1;
            plan.launches.splice(at..at, scan.launches.iter().cloned());
        }
        plan.scratch = vec![table * 4; 2];
        plan.scratch.extend(std::iter::repeat_n(n * 4, config.buffers_between(shape)));
        plan.scratch.extend(scan.scratch);
        Ok(plan)
    }

    /// Binds the launches of a plan for `config`; `scratch` as that plan asks for. `values` is
    /// `(values, values_out)`.
    pub(crate) fn bind(
        context: &Context,
        launches: &[Launch],
        config: &SortConfig,
        keys: (BufferView<'_>, BufferView<'_>),
        values: (Option<BufferView<'_>>, Option<BufferView<'_>>),
        scratch: &[BufferView<'_>],
    ) -> Result<Recording> {
        let shape = config.shape(context.capabilities());
        let between = config.buffers_between(shape);
        let passes = config.passes(shape) as usize;
        let scan_count = config.scan(shape).count;
        let short =
            Error::BufferTooSmall { what: "scratch", need: 2 + between as u64, have: scratch.len() as u64 };
        if scratch.len() < 2 + between || !launches.len().is_multiple_of(passes) {
            return Err(short);
        }
        let (counts, offsets, scan_scratch) = (scratch[0], scratch[1], &scratch[2 + between..]);
        let (n, table) = (u64::from(config.count), u64::from(scan_count));
        let words = |what, view, n| Arg::words(what, view, n);
        let need = |what, view: Option<_>| {
            let missing = || Error::Shape { what, need: "a buffer".into(), got: "none".into() };
            view.ok_or_else(missing).map(|view| words(what, view, n))
        };
        let mut recording = Recording::new();
        let (mut from, mut from_values) = (keys.0, values.0);
        for (pass, launches) in launches.chunks_exact(launches.len() / passes).enumerate() {
            let [count, scan @ .., scatter] = launches else { return Err(short) };
            // The last pass writes the results, the one before it scratch, and so on.
            let (to, to_values) = if (passes - 1 - pass).is_multiple_of(2) {
                (keys.1, values.1)
            } else {
                (scratch[2], if between == 2 { Some(scratch[3]) } else { None })
            };
            let counted = [words("keys", from, n), words("counts", counts, table)];
            recording.push(context.bind(count, &counted)?);
            let scan = Scan::bind(context, scan, scan_count, counts, offsets, scan_scratch)?;
            recording.append(scan);
            let mut args =
                vec![words("keys", from, n), words("offsets", offsets, table), words("keys_out", to, n)];
            if config.payload != SortPayload::None {
                args.push(need("values_out", to_values)?);
                if config.payload == SortPayload::Values || pass > 0 {
                    args.push(need("values", from_values)?);
                }
            }
            recording.push(context.bind(scatter, &args)?);
            (from, from_values) = (to, to_values);
        }
        Ok(recording)
    }
}

impl Kernel for Sort {
    type Args<'a> = SortArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let scratch: Vec<_> =
            (0..self.plan.scratch.len()).map(|i| args.scratch.view(i)).collect::<Result<_>>()?;
        let (keys, values) = ((args.keys, args.keys_out), (args.values, args.values_out));
        // With several passes no launch sees both the input and the output.
        for (input, other) in [(Some(args.keys), "keys"), (args.values, "values")] {
            for (output, what) in [(Some(args.keys_out), "keys_out"), (args.values_out, "values_out")] {
                if input.zip(output).is_some_and(|(a, b)| a.buffer == b.buffer) {
                    return Err(Error::Aliased { what, other });
                }
            }
        }
        Self::bind(&self.context, &self.plan.launches, &self.config, keys, values, &scratch)
    }
}
