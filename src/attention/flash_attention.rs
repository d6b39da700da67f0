//! Attention without the matrix of weights (`shaders/attention/flash_attention.wgsl`).

use super::config::{AttentionBias, AttentionConfig, Rows};
use super::pass::{Flags, Kind, Pass, Slices};
pub(super) use crate::dispatch::check_apart;
use crate::dispatch::{
    Arg, BufferView, Capabilities, Error, Kernel, Launch, Plan, Recording, Result, Scratch, kernel,
};

/// What goes into attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// Queries, `[B, N_q, H, head_dim]` as `q_layout` says.
    pub q: BufferView<'a>,
    /// Keys, `[B, N_k, kv_heads, head_dim]` as `k_layout` says.
    pub k: BufferView<'a>,
    /// Values, `[B, N_k, kv_heads, value_dim]` as `v_layout` says.
    pub v: BufferView<'a>,
    /// u32 `[B, N_k]`, if configured: 0 hides a key.
    pub key_mask: Option<BufferView<'a>>,
    /// The matrix or table, if configured.
    pub bias: Option<BufferView<'a>>,
    /// `[1]`, if configured; not 0.
    pub temperature: Option<BufferView<'a>>,
    /// `[H]`, if configured.
    pub head_scale: Option<BufferView<'a>>,
    /// `[H]`, if configured.
    pub gate: Option<BufferView<'a>>,
}

impl<'a> AttentionInputs<'a> {
    /// Queries, keys and values alone.
    #[must_use]
    pub fn new(q: BufferView<'a>, k: BufferView<'a>, v: BufferView<'a>) -> Self {
        Self { q, k, v, key_mask: None, bias: None, temperature: None, head_scale: None, gate: None }
    }
}

/// The buffer of something optional: there exactly if it is configured.
pub(super) fn optional<'a>(
    what: &'static str,
    wanted: bool,
    view: Option<BufferView<'a>>,
    elements: u64,
) -> Result<Option<Arg<'a>>> {
    match (wanted, view) {
        (true, Some(view)) => Ok(Some(Arg::words(what, view, elements))),
        (false, None) => Ok(None),
        _ => {
            let need = if wanted { "a buffer" } else { "none" };
            let got = if wanted { "none" } else { "a buffer" };
            Err(Error::Config { what, need: format!("{need}, as configured"), got: got.into() })
        }
    }
}

/// The inputs as arguments of launches.
pub(super) struct Bound<'a> {
    pub q: Arg<'a>,
    pub k: Arg<'a>,
    pub v: Arg<'a>,
    pub key_mask: Option<Arg<'a>>,
    pub bias: Option<Arg<'a>>,
    pub temperature: Option<Arg<'a>>,
    pub head_scale: Option<Arg<'a>>,
    pub gate: Option<Arg<'a>>,
    /// Stands for what is not there, and is never read as such.
    pub none: Arg<'a>,
}

impl<'a> Bound<'a> {
    /// Without values, or with values on the side of the queries, if the launches want it so.
    pub fn new(
        config: &AttentionConfig,
        inputs: &AttentionInputs<'a>,
        [has_values, reversed]: [bool; 2],
    ) -> Result<Self> {
        let size = if config.half { 2 } else { 4 };
        let tensor = |what, view, rows: Rows| Arg::new(what, view, rows.end.into(), size);
        let heads = config.heads.into();
        let masked = u64::from(config.batch) * u64::from(config.keys);
        let has_bias = config.bias != AttentionBias::None;
        let q = tensor("q", inputs.q, config.q()?);
        Ok(Self {
            q,
            k: tensor("k", inputs.k, config.k()?),
            v: match (has_values, reversed) {
                (false, _) => q,
                (true, false) => tensor("v", inputs.v, config.v()?),
                (true, true) => tensor("v", inputs.v, config.o()?),
            },
            key_mask: optional("key_mask", config.key_mask, inputs.key_mask, masked)?,
            bias: optional("bias", has_bias, inputs.bias, config.bias_count())?,
            temperature: optional("temperature", config.temperature, inputs.temperature, 1)?,
            head_scale: optional("head_scale", config.head_scale, inputs.head_scale, heads)?,
            gate: optional("gate", config.gate, inputs.gate, heads)?,
            none: q,
        })
    }

    /// All that is there.
    pub fn given(&self) -> [Option<Arg<'a>>; 8] {
        let Self { q, k, v, key_mask, bias, temperature, head_scale, gate, .. } = *self;
        [Some(q), Some(k), Some(v), key_mask, bias, temperature, head_scale, gate]
    }

    /// The launch that fills the side buffer with factors, mask and weights.
    pub fn prepare(&self, side: Arg<'a>, weights: Option<Arg<'a>>) -> [Arg<'a>; 6] {
        let or_none = |arg: Option<Arg<'a>>| arg.unwrap_or(self.none);
        [
            or_none(self.temperature),
            or_none(self.head_scale),
            or_none(self.gate),
            or_none(self.key_mask),
            side,
            or_none(weights),
        ]
    }

    pub fn bias(&self) -> Arg<'a> {
        self.bias.unwrap_or(self.none)
    }
}

/// Launches taken one by one, in the order in which they were planned.
pub(super) struct Steps<'p> {
    plan: &'p Plan,
    next: usize,
}

impl<'p> Steps<'p> {
    pub fn new(plan: &'p Plan) -> Self {
        Self { plan, next: 0 }
    }

    pub fn next(&mut self) -> Result<&'p Launch> {
        self.next += 1;
        let missing = || Error::Shape {
            what: "plan",
            need: format!("{} launches", self.next),
            got: self.plan.launches.len().to_string(),
        };
        self.plan.launches.get(self.next - 1).ok_or_else(missing)
    }
}

/// Scratch buffer `index`, of which the launch sees what was planned.
pub(super) fn scratch_arg<'a>(plan: &Plan, scratch: &'a Scratch, index: usize) -> Result<Arg<'a>> {
    let bytes = plan.scratch.get(index).copied().unwrap_or(0);
    Ok(Arg::words("scratch", scratch.view(index)?, bytes.max(16) / 4))
}

kernel! {
    /// The output and the log-sum-exp of attention.
    FlashAttentionForward, AttentionConfig
}

/// Buffers of [`FlashAttentionForward`].
#[derive(Debug, Clone, Copy)]
pub struct FlashAttentionForwardArgs<'a> {
    /// What goes in.
    pub inputs: AttentionInputs<'a>,
    /// The output, `[B, N_q, H, value_dim]` as `o_layout` says.
    pub o: BufferView<'a>,
    /// The log-sum-exp of each query's scores, `[B, H, N_q]`; the backward pass needs it.
    pub lse: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

/// Of the forward pass.
const FORWARD: Flags = Flags { known: false, values: true, keys: false, sums: false, write_ds: false };

pub(super) fn forward_slices(pass: &Pass<'_>) -> Slices {
    let config = pass.config;
    pass.slices(Kind::Forward, config.heads, config.queries, config.keys)
}

impl FlashAttentionForward {
    /// Chooses the variant and the slices.
    pub fn plan(config: &AttentionConfig, caps: &Capabilities) -> Result<Plan> {
        let pass = Pass::new(config, caps)?;
        let slices = forward_slices(&pass);
        let mut launches = Vec::new();
        if pass.has_side() {
            launches.push(pass.prepare()?);
        }
        launches.push(pass.forward(slices, FORWARD)?);
        if slices.count > 1 {
            launches.push(pass.merge(slices, true)?);
        }
        let side = if pass.has_side() { pass.side_words() } else { 0 };
        let partial = pass.partial_words(slices, config.heads, config.queries, config.value_dim())?;
        let lse = pass.partial_words(slices, config.heads, config.queries, 1)?;
        Ok(Plan { variant: pass.variant.name(), launches, scratch: vec![4 * side, 4 * partial, 4 * lse] })
    }
}

impl Kernel for FlashAttentionForward {
    type Args<'a> = FlashAttentionForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let pass = Pass::new(config, self.context.capabilities())?;
        let slices = forward_slices(&pass);
        let inputs = Bound::new(config, &args.inputs, [true, false])?;
        let o = Arg::words("o", args.o, config.o()?.end.into());
        let lse = Arg::words("lse", args.lse, config.lse_count());
        let Bound { q, k, v, none, .. } = inputs;
        check_apart(&[o, lse], &inputs.given())?;
        let [side, partial_o, partial_lse] =
            [0, 1, 2].map(|index| scratch_arg(&self.plan, args.scratch, index));
        let (side, partial_o, partial_lse) = (side?, partial_o?, partial_lse?);
        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        if pass.has_side() {
            recording.push(self.context.bind(steps.next()?, &inputs.prepare(side, None))?);
        }
        let (to_o, to_lse) = if slices.count > 1 { (partial_o, partial_lse) } else { (o, lse) };
        let list = [q, k, v, side, inputs.bias(), to_o, to_lse];
        recording.push(self.context.bind(steps.next()?, &list)?);
        if slices.count > 1 {
            let list = [partial_lse, lse, partial_o, none, none, o];
            recording.push(self.context.bind(steps.next()?, &list)?);
        }
        Ok(recording)
    }
}

kernel! {
    /// The gradients of all that goes into attention.
    FlashAttentionBackward, AttentionConfig
}

/// Where the gradients go; all are overwritten.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGradients<'a> {
    /// As the queries.
    pub dq: BufferView<'a>,
    /// As the keys.
    pub dk: BufferView<'a>,
    /// As the values.
    pub dv: BufferView<'a>,
    /// As the bias, if `bias_gradient` is configured.
    pub bias: Option<BufferView<'a>>,
    /// `[1]`, if a temperature is configured.
    pub temperature: Option<BufferView<'a>>,
    /// `[H]`, if head scales are configured.
    pub head_scale: Option<BufferView<'a>>,
    /// `[H]`, if gates are configured.
    pub gate: Option<BufferView<'a>>,
}

impl<'a> AttentionGradients<'a> {
    /// Those of queries, keys and values alone.
    #[must_use]
    pub fn new(dq: BufferView<'a>, dk: BufferView<'a>, dv: BufferView<'a>) -> Self {
        Self { dq, dk, dv, bias: None, temperature: None, head_scale: None, gate: None }
    }
}

/// Buffers of [`FlashAttentionBackward`].
#[derive(Debug, Clone, Copy)]
pub struct FlashAttentionBackwardArgs<'a> {
    /// As in the forward pass.
    pub inputs: AttentionInputs<'a>,
    /// The output of the forward pass.
    pub o: BufferView<'a>,
    /// The log-sum-exp of the forward pass.
    pub lse: BufferView<'a>,
    /// The gradient of the output, laid out like it.
    pub d_o: BufferView<'a>,
    /// The gradient of the log-sum-exp, `[B, H, N_q]`, if configured.
    pub d_lse: Option<BufferView<'a>>,
    /// Where the gradients go.
    pub gradients: AttentionGradients<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

/// Of the gradients of keys and values.
const KEYS: Flags = Flags { known: false, values: true, keys: true, sums: false, write_ds: false };

/// Slices of the sums over keys and over queries.
pub(super) fn backward_slices(pass: &Pass<'_>) -> [Slices; 2] {
    let config = pass.config;
    [
        pass.slices(Kind::Queries, config.heads, config.queries, config.keys),
        pass.slices(Kind::Keys, config.kv_heads(), config.keys, config.queries),
    ]
}

/// What sums over all rows of a head.
pub(super) fn plan_head_gradients(pass: &Pass<'_>, slices: Slices) -> Result<Vec<Launch>> {
    if !pass.heads {
        return Ok(Vec::new());
    }
    let wanted = [pass.config.temperature, pass.config.head_scale, pass.config.gate];
    let gradients =
        (0..).zip(wanted).filter(|(_, wanted)| *wanted).map(|(what, _)| pass.head_gradients(what));
    std::iter::once(pass.head_sums(slices)).chain(gradients).collect()
}

/// The query rows of one launch after another.
pub(super) fn chunks(pass: &Pass<'_>) -> impl Iterator<Item = (u32, u32)> {
    let (step, queries) = (pass.chunk(), pass.config.queries);
    (0..queries.div_ceil(step)).map(move |i| (i * step, ((i + 1) * step).min(queries)))
}

impl FlashAttentionBackward {
    /// D of the query rows; their gradient; then that of keys and values; then what sums over all.
    pub fn plan(config: &AttentionConfig, caps: &Capabilities) -> Result<Plan> {
        let pass = Pass::new(config, caps)?;
        let [over_keys, over_queries] = backward_slices(&pass);
        let AttentionConfig { heads, queries, keys, head_dim, .. } = *config;
        let (kv_heads, dv) = (config.kv_heads(), config.value_dim());
        let mut launches = Vec::new();
        if pass.has_side() {
            launches.push(pass.prepare()?);
        }
        launches.push(pass.prepare_rows(true)?);
        for (first, end) in chunks(&pass) {
            launches.push(pass.backward_queries(over_keys, first, end)?);
            if config.bias_gradient {
                launches.push(pass.bias_gradient(over_keys, first, end)?);
            }
        }
        if over_keys.count > 1 {
            launches.push(pass.sum_slices(over_keys, pass.q, heads, queries, head_dim)?);
        }
        launches.push(pass.backward_keys(over_queries, KEYS)?);
        if over_queries.count > 1 {
            launches.push(pass.sum_slices(over_queries, pass.k, kv_heads, keys, head_dim)?);
            launches.push(pass.sum_slices(over_queries, pass.v, kv_heads, keys, dv)?);
        }
        if pass.sums {
            launches.push(pass.head_sums(over_keys)?);
            for (what, wanted) in [config.temperature, config.head_scale, config.gate].into_iter().enumerate()
            {
                if wanted {
                    launches.push(pass.head_gradients(what as u32)?);
                }
            }
        }
        let partial_q = pass.partial_words(over_keys, heads, queries, head_dim)?;
        let partial_k = pass.partial_words(over_queries, kv_heads, keys, head_dim)?;
        let partial_v = pass.partial_words(over_queries, kv_heads, keys, dv)?;
        let sums = if pass.heads { 2 * u64::from(heads) } else { 0 };
        let words =
            [pass.side_words(), pass.extra_words(over_keys)?, partial_q.max(partial_k), partial_v, sums];
        Ok(Plan { variant: pass.variant.name(), launches, scratch: words.map(|n| 4 * n).to_vec() })
    }
}

impl Kernel for FlashAttentionBackward {
    type Args<'a> = FlashAttentionBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let pass = Pass::new(config, self.context.capabilities())?;
        let [over_keys, over_queries] = backward_slices(&pass);
        let inputs = Bound::new(config, &args.inputs, [true, false])?;
        let o = Arg::words("o", args.o, config.o()?.end.into());
        let x = Arg::words("d_o", args.d_o, config.o()?.end.into());
        let lse = Arg::words("lse", args.lse, config.lse_count());
        let d_lse = optional("d_lse", config.lse_gradient, args.d_lse, config.lse_count())?;
        let heads = config.heads.into();
        let gradients = &args.gradients;
        let dq = Arg::words("dq", gradients.dq, config.q()?.end.into());
        let dk = Arg::words("dk", gradients.dk, config.k()?.end.into());
        let dv = Arg::words("dv", gradients.dv, config.v()?.end.into());
        let d_bias = optional("bias gradient", config.bias_gradient, gradients.bias, config.bias_count())?;
        let d_heads = [
            optional("temperature gradient", config.temperature, gradients.temperature, 1)?,
            optional("head_scale gradient", config.head_scale, gradients.head_scale, heads)?,
            optional("gate gradient", config.gate, gradients.gate, heads)?,
        ];
        let Bound { q, k, v, temperature, head_scale, none, .. } = inputs;
        let mut outputs = vec![dq, dk, dv];
        outputs.extend(d_bias);
        outputs.extend(d_heads.iter().flatten());
        check_apart(&outputs, &inputs.given())?;
        check_apart(&outputs, &[Some(o), Some(x), Some(lse), d_lse])?;
        let scratch = |index| scratch_arg(&self.plan, args.scratch, index);
        let (side, extra, partial, partial_v, sums) =
            (scratch(0)?, scratch(1)?, scratch(2)?, scratch(3)?, scratch(4)?);

        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        let mut push = |list: &[Arg<'_>]| -> Result<()> {
            recording.push(self.context.bind(steps.next()?, list)?);
            Ok(())
        };
        if pass.has_side() {
            push(&inputs.prepare(side, None))?;
        }
        push(&[lse, d_lse.unwrap_or(none), o, none, side, x])?;
        let to_q = if over_keys.count > 1 { partial } else { dq };
        for _ in chunks(&pass) {
            push(&[q, k, v, side, inputs.bias(), x, to_q, extra])?;
            if let Some(d_bias) = d_bias {
                push(&[extra, d_bias, none, side])?;
            }
        }
        if over_keys.count > 1 {
            push(&[none, none, partial, none, none, dq])?;
        }
        let (to_k, to_v) = if over_queries.count > 1 { (partial, partial_v) } else { (dk, dv) };
        push(&[k, q, x, side, inputs.bias(), v, to_k, to_v])?;
        if over_queries.count > 1 {
            push(&[none, none, partial, none, none, dk])?;
            push(&[none, none, partial_v, none, none, dv])?;
        }
        if pass.heads {
            push(&[extra, sums])?;
            for d_head in d_heads.into_iter().flatten() {
                push(&[temperature.unwrap_or(none), head_scale.unwrap_or(none), sums, d_head])?;
            }
        }
        Ok(recording)
    }
}
