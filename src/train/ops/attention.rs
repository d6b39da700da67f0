//! Attention on the tape.

use super::{gradient_of, or_zeros, rows, with_last};
use crate::attention::{
    AttentionConfig, AttentionGradients, AttentionInputs, AttentionTransposed, AttentionTransposedArgs,
    AttentionTransposedConfig, FlashAttentionBackward, FlashAttentionBackwardArgs, FlashAttentionForward,
    FlashAttentionForwardArgs, HeadSelectorBackward, HeadSelectorBackwardArgs, HeadSelectorConfig,
    HeadSelectorForward, HeadSelectorForwardArgs, HopfieldBackward, HopfieldBackwardArgs, HopfieldConfig,
    HopfieldForward, HopfieldForwardArgs, HopfieldMode, JoinQkv, QkvArgs, QkvConfig,
    ReversedAttentionBackward, ReversedAttentionBackwardArgs, ReversedAttentionForward,
    ReversedAttentionForwardArgs, SplitQkv, WindowAttentionBackward, WindowAttentionBackwardArgs,
    WindowAttentionConfig, WindowAttentionForward, WindowAttentionForwardArgs,
};
use crate::dense::{
    ReduceConfig, ReduceForward, ReduceForwardArgs, Reduction, SwapAxes, SwapAxesArgs, SwapAxesConfig,
};
use crate::dispatch::{Context, Kernel, Planned, Recording, Result, check_config, check_shape};
use crate::train::{Tape, Tensor, Variable};

/// Queries, keys and values of one linear layer apart: x `[.., 3 width]` gives three `[.., width]`.
pub fn split_qkv(tape: &mut Tape, x: &Variable) -> Result<[Variable; 3]> {
    let context = tape.context().clone();
    let (rows, all) = rows("x", x.tensor())?;
    check_shape(all.is_multiple_of(3), "x", "[.., 3 width]", x.tensor().shape())?;
    let config = QkvConfig { rows, width: all / 3 };
    let shape = with_last(x.tensor().shape(), all / 3);
    let tensor = |what| Tensor::new(&context, what, &shape);
    let (q, k, v) = (tensor("queries")?, tensor("keys")?, tensor("values")?);
    let args = QkvArgs { x: x.tensor().view(), q: q.view(), k: k.view(), v: v.view() };
    let forward = SplitQkv::new(&context, config)?.prepare(&args)?;
    let x_shape = x.tensor().shape().to_vec();
    Ok(tape.operation_of_many(forward, &[x], [q, k, v], move |context, gradients| {
        let dx = Tensor::new(context, "gradient", &x_shape)?;
        let part = |i: usize| or_zeros(context, gradients.get(i).and_then(Option::as_ref), &shape);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let args = QkvArgs { x: dx.view(), q: q.view(), k: k.view(), v: v.view() };
        Ok((JoinQkv::new(context, config)?.prepare(&args)?, vec![Some(dx)]))
    }))
}

/// What goes into attention. What is there is configured to be there.
#[derive(Debug, Clone, Copy)]
pub struct AttentionOperands<'a> {
    /// Queries, `[batch, queries, heads * head_dim]` as `q_layout` says.
    pub q: &'a Variable,
    /// Keys, `[batch, keys, kv_heads * head_dim]` as `k_layout` says.
    pub k: &'a Variable,
    /// Values, `[batch, keys, kv_heads * value_dim]` as `v_layout` says.
    pub v: &'a Variable,
    /// u32 `[batch, keys]`: 0 hides a key.
    pub key_mask: Option<&'a wgpu::Buffer>,
    /// What is added to the scores; the configuration says how it lies.
    pub bias: Option<&'a Variable>,
    /// Divides the scores, `[1]`.
    pub temperature: Option<&'a Variable>,
    /// Multiplies the scores of each head, `[heads]`.
    pub head_scale: Option<&'a Variable>,
    /// Multiplies the output of each head, `[heads]`.
    pub gate: Option<&'a Variable>,
}

impl<'a> AttentionOperands<'a> {
    /// Queries, keys and values alone.
    #[must_use]
    pub fn new(q: &'a Variable, k: &'a Variable, v: &'a Variable) -> Self {
        Self { q, k, v, key_mask: None, bias: None, temperature: None, head_scale: None, gate: None }
    }

    /// All that may have a gradient.
    fn variables(&self) -> Vec<&'a Variable> {
        let optional = [self.bias, self.temperature, self.head_scale, self.gate];
        [self.q, self.k, self.v].into_iter().chain(optional.into_iter().flatten()).collect()
    }

    fn configured(&self, config: &AttentionConfig) -> Result<AttentionConfig> {
        check_config(!config.half, "half", "false: tensors hold f32", config.half)?;
        Ok(AttentionConfig {
            key_mask: self.key_mask.is_some(),
            bias_gradient: self.bias.is_some(),
            temperature: self.temperature.is_some(),
            head_scale: self.head_scale.is_some(),
            gate: self.gate.is_some(),
            lse_gradient: false,
            ..*config
        })
    }

    fn tensors(&self) -> Tensors {
        let tensor = |x: &Variable| x.tensor().clone();
        Tensors {
            q: tensor(self.q),
            k: tensor(self.k),
            v: tensor(self.v),
            key_mask: self.key_mask.cloned(),
            bias: self.bias.map(tensor),
            temperature: self.temperature.map(tensor),
            head_scale: self.head_scale.map(tensor),
            gate: self.gate.map(tensor),
        }
    }
}

/// What a backward pass needs of the operands, or the gradients of them.
struct Tensors {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Option<wgpu::Buffer>,
    bias: Option<Tensor>,
    temperature: Option<Tensor>,
    head_scale: Option<Tensor>,
    gate: Option<Tensor>,
}

impl Tensors {
    fn inputs(&self) -> AttentionInputs<'_> {
        AttentionInputs {
            q: self.q.view(),
            k: self.k.view(),
            v: self.v.view(),
            key_mask: self.key_mask.as_ref().map(Into::into),
            bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            head_scale: self.head_scale.as_ref().map(Tensor::view),
            gate: self.gate.as_ref().map(Tensor::view),
        }
    }

    /// Tensors for the gradients.
    fn alike(&self, context: &Context) -> Result<Self> {
        let optional = |x: &Option<Tensor>| x.as_ref().map(|x| gradient_of(context, x)).transpose();
        Ok(Self {
            q: gradient_of(context, &self.q)?,
            k: gradient_of(context, &self.k)?,
            v: gradient_of(context, &self.v)?,
            key_mask: None,
            bias: optional(&self.bias)?,
            temperature: optional(&self.temperature)?,
            head_scale: optional(&self.head_scale)?,
            gate: optional(&self.gate)?,
        })
    }

    fn gradients(&self) -> AttentionGradients<'_> {
        AttentionGradients {
            dq: self.q.view(),
            dk: self.k.view(),
            dv: self.v.view(),
            bias: self.bias.as_ref().map(Tensor::view),
            temperature: self.temperature.as_ref().map(Tensor::view),
            head_scale: self.head_scale.as_ref().map(Tensor::view),
            gate: self.gate.as_ref().map(Tensor::view),
        }
    }

    /// In the order of [`AttentionOperands::variables`].
    fn list(self) -> Vec<Option<Tensor>> {
        let optional = [self.bias, self.temperature, self.head_scale, self.gate];
        let all = [self.q, self.k, self.v].into_iter().chain(optional.into_iter().flatten());
        all.map(Some).collect()
    }
}

/// What attention gives.
#[derive(Debug, Clone)]
pub struct Attended {
    /// The output.
    pub o: Variable,
    /// The log-sum-exp of each query's scores, `[batch, heads, queries]`. No gradient flows through it.
    pub lse: Tensor,
}

/// Attention of queries over keys and values; the output is `[batch, queries, heads * value_dim]`, or as
/// `o_layout` says. Every operand but the mask has a gradient.
pub fn attention(
    tape: &mut Tape,
    operands: &AttentionOperands<'_>,
    config: &AttentionConfig,
) -> Result<Attended> {
    let context = tape.context().clone();
    let (config, tensors) = (operands.configured(config)?, operands.tensors());
    let shape = [config.batch, config.queries, config.heads.saturating_mul(config.value_dim())];
    let o = Tensor::new(&context, "attention", &shape)?;
    let lse = Tensor::new(&context, "log-sum-exp", &[config.batch, config.heads, config.queries])?;
    let kernel = FlashAttentionForward::new(&context, config)?;
    let forward = kernel.prepare(&FlashAttentionForwardArgs {
        inputs: tensors.inputs(),
        o: o.view(),
        lse: lse.view(),
        scratch: &kernel.create_scratch()?,
    })?;
    let (output, kept) = (o.clone(), lse.clone());
    let o = tape.operation(forward, &operands.variables(), o, move |context, dy| {
        let gradients = tensors.alike(context)?;
        let kernel = FlashAttentionBackward::new(context, config)?;
        let recording = kernel.prepare(&FlashAttentionBackwardArgs {
            inputs: tensors.inputs(),
            o: output.view(),
            lse: kept.view(),
            d_o: dy.view(),
            d_lse: None,
            gradients: gradients.gradients(),
            scratch: &kernel.create_scratch()?,
        })?;
        Ok((recording, gradients.list()))
    });
    Ok(Attended { o, lse })
}

/// Reversed attention (DependencyViT, arXiv 2304.03282): each query spreads its value, times its weight, over
/// the keys that it attends to. Values are those of the queries, `[batch, queries, heads * value_dim]` as
/// `v_layout` says; weights `[batch, heads, queries]`; the output is `[batch, keys, heads * value_dim]`,
/// or as `o_layout` says. There are no gates: the weights stand for them.
pub fn reversed_attention(
    tape: &mut Tape,
    operands: &AttentionOperands<'_>,
    weights: &Variable,
    config: &AttentionConfig,
) -> Result<Attended> {
    let context = tape.context().clone();
    let (config, tensors) = (operands.configured(config)?, operands.tensors());
    let shape = [config.batch, config.keys, config.heads.saturating_mul(config.value_dim())];
    let o = Tensor::new(&context, "reversed attention", &shape)?;
    let lse = Tensor::new(&context, "log-sum-exp", &[config.batch, config.heads, config.queries])?;
    let kernel = ReversedAttentionForward::new(&context, config)?;
    let forward = kernel.prepare(&ReversedAttentionForwardArgs {
        inputs: tensors.inputs(),
        weights: weights.tensor().view(),
        o: o.view(),
        lse: lse.view(),
        scratch: &kernel.create_scratch()?,
    })?;
    let mut variables = operands.variables();
    variables.push(weights);
    let (weights, kept) = (weights.tensor().clone(), lse.clone());
    let o = tape.operation(forward, &variables, o, move |context, dy| {
        let gradients = tensors.alike(context)?;
        let d_weights = gradient_of(context, &weights)?;
        let kernel = ReversedAttentionBackward::new(context, config)?;
        let recording = kernel.prepare(&ReversedAttentionBackwardArgs {
            inputs: tensors.inputs(),
            weights: weights.view(),
            lse: kept.view(),
            d_o: dy.view(),
            gradients: gradients.gradients(),
            d_weights: d_weights.view(),
            scratch: &kernel.create_scratch()?,
        })?;
        let mut list = gradients.list();
        list.push(Some(d_weights));
        Ok((recording, list))
    });
    Ok(Attended { o, lse })
}

/// Shares of the heads and messages of reversed attention: `m = before sigmoid(z)`, `[rows]`, and
/// `w = softmax(s / temperature) m`, `[rows, heads]`, as `[m, w]`. Scores `s` are `[rows, heads]`, `z` and
/// `before` `[rows]`, each with axes of their own; `before` is the message of the layer before, and none for
/// the first.
pub fn head_selector(
    tape: &mut Tape,
    s: &Variable,
    z: &Variable,
    before: Option<&Variable>,
    temperature: f32,
) -> Result<[Variable; 2]> {
    let context = tape.context().clone();
    let (n, heads) = rows("s", s.tensor())?;
    let config = HeadSelectorConfig { rows: n, heads, temperature };
    let inputs: Vec<_> = [s, z].into_iter().chain(before).collect();
    let has_before = before.is_some();
    let ones = || Tensor::from_slice(&context, "message", z.tensor().shape(), &vec![1.0; n as usize]);
    let before = before.map_or_else(ones, |before| Ok(before.tensor().clone()))?;
    let (s, z) = (s.tensor().clone(), z.tensor().clone());
    let p = Tensor::new(&context, "shares", s.shape())?;
    let m = Tensor::new(&context, "message", z.shape())?;
    let w = Tensor::new(&context, "weights", s.shape())?;
    let forward = HeadSelectorForward::new(&context, config)?.prepare(&HeadSelectorForwardArgs {
        s: s.view(),
        z: z.view(),
        before: before.view(),
        p: p.view(),
        m: m.view(),
        w: w.view(),
    })?;
    Ok(tape.operation_of_many(forward, &inputs, [m, w], move |context, gradients| {
        let given = |i: usize| gradients.get(i).and_then(Option::as_ref);
        let dm = or_zeros(context, given(0), z.shape())?;
        let dw = or_zeros(context, given(1), s.shape())?;
        let ds = gradient_of(context, &s)?;
        let (dz, dbefore) = (gradient_of(context, &z)?, gradient_of(context, &before)?);
        let recording = HeadSelectorBackward::new(context, config)?.prepare(&HeadSelectorBackwardArgs {
            p: p.view(),
            z: z.view(),
            before: before.view(),
            dw: dw.view(),
            dm: dm.view(),
            ds: ds.view(),
            dz: dz.view(),
            dbefore: dbefore.view(),
        })?;
        let mut list = vec![Some(ds), Some(dz)];
        list.extend(has_before.then_some(Some(dbefore)));
        Ok((recording, list))
    }))
}

/// The heads before the tokens: x `[batch, tokens, heads * dim]` gives `[batch, heads, tokens, dim]`. So
/// reversed attention takes its weights, with a `dim` of 1, and retrieval its states and patterns.
pub fn heads_first(tape: &mut Tape, x: &Variable, heads: u32) -> Result<Variable> {
    let context = tape.context().clone();
    let (n, width) = rows("x", x.tensor())?;
    let batch = x.tensor().shape().first().copied().unwrap_or(0);
    let fits = heads > 0 && width.is_multiple_of(heads) && x.tensor().shape().len() == 3;
    check_shape(fits, "x", format!("[batch, tokens, {heads} heads]"), x.tensor().shape())?;
    let (tokens, dim) = (n / batch, width / heads);
    let y = Tensor::new(&context, "heads", &[batch, heads, tokens, dim])?;
    let (there, back) = swaps([batch, tokens, heads, dim]);
    let forward = swap_twice(&context, there, x.tensor(), &y)?;
    let shape = x.tensor().shape().to_vec();
    Ok(tape.operation(forward, &[x], y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", &shape)?;
        Ok((swap_twice(context, back, dy, &dx)?, vec![Some(dx)]))
    }))
}

/// The inverse of [`heads_first`]: x `[batch, heads, tokens, dim]` gives `[batch, tokens, heads * dim]`.
pub fn heads_last(tape: &mut Tape, x: &Variable) -> Result<Variable> {
    let context = tape.context().clone();
    let &[batch, heads, tokens, dim] = x.tensor().shape() else {
        return Err(crate::Error::Shape {
            what: "x",
            need: "[batch, heads, tokens, dim]".into(),
            got: format!("{:?}", x.tensor().shape()),
        });
    };
    let y = Tensor::new(&context, "tokens", &[batch, tokens, heads * dim])?;
    let (back, there) = swaps([batch, tokens, heads, dim]);
    let forward = swap_twice(&context, there, x.tensor(), &y)?;
    Ok(tape.operation(forward, &[x], y, move |context, dy| {
        let dx = Tensor::new(context, "gradient", &[batch, heads, tokens, dim])?;
        Ok((swap_twice(context, back, dy, &dx)?, vec![Some(dx)]))
    }))
}

/// `[batch tokens, heads, dim]` to `[heads, batch, tokens dim]` to `[batch, heads, tokens dim]`, and back.
fn swaps([batch, tokens, heads, dim]: [u32; 4]) -> (Swaps, Swaps) {
    let (all, each) = (batch * tokens, tokens * dim);
    ([(all, heads, dim), (heads, batch, each)], [(batch, heads, each), (heads, all, dim)])
}

/// Two swaps of axes, `(a, b, width)` each.
type Swaps = [(u32, u32, u32); 2];

fn swap_twice(context: &Context, swaps: Swaps, x: &Tensor, y: &Tensor) -> Result<Recording> {
    let between = Tensor::new(context, "swapped", x.shape())?;
    let mut recording = Recording::new();
    for ((a, b, width), x, y) in [(swaps[0], x, &between), (swaps[1], &between, y)] {
        let kernel = SwapAxes::new(context, SwapAxesConfig { a, b, width })?;
        recording.append(kernel.prepare(&SwapAxesArgs { x: x.view(), y: y.view() })?);
    }
    Ok(recording)
}

/// What each key receives of all queries and heads, `[batch, keys]`: `sum_h sum_i exp(S_ij - L_i) w_i`, of
/// operands whose values and gates are not looked at, the log-sum-exps of attention over them and the
/// queries' weights `[batch, heads, queries]`, or 1. Data, without a gradient: what tokens are pruned by.
pub fn received_mass(
    tape: &mut Tape,
    operands: &AttentionOperands<'_>,
    lse: &Tensor,
    weights: Option<&Tensor>,
    config: &AttentionConfig,
) -> Result<Tensor> {
    let context = tape.context().clone();
    let operands = AttentionOperands { gate: None, ..*operands };
    let attention = operands.configured(config)?;
    let AttentionConfig { batch, heads, queries, keys, .. } = attention;
    let layout = crate::attention::AttentionLayout::TokensHeads;
    let attention = AttentionConfig {
        value_dim: Some(1),
        bias_gradient: false,
        v_layout: layout,
        o_layout: layout,
        ..attention
    };
    let shape = [batch, queries, heads];
    let ones = vec![1.0; crate::dispatch::count("values", &shape)? as usize];
    let ones = Tensor::from_slice(&context, "values", &shape, &ones)?;
    let each = Tensor::new(&context, "mass of heads", &[batch, keys, attention.kv_heads()])?;
    let config = AttentionTransposedConfig { attention, weights: weights.is_some() };
    let kernel = AttentionTransposed::new(&context, config)?;
    let tensors = operands.tensors();
    tape.constant(kernel.prepare(&AttentionTransposedArgs {
        inputs: AttentionInputs { v: ones.view(), ..tensors.inputs() },
        lse: lse.view(),
        weights: weights.map(Tensor::view),
        y: each.view(),
        scratch: &kernel.create_scratch()?,
    })?);
    let (outer, n) = rows("mass of heads", &each)?;
    let config = ReduceConfig { reduction: Reduction::Sum, outer, n, inner: 1, variant: None, part: None };
    let mass = Tensor::new(&context, "mass", &[batch, keys])?;
    let kernel = ReduceForward::new(&context, config)?;
    let scratch = kernel.create_scratch()?;
    let args = ReduceForwardArgs { x: each.view(), y: mass.view(), index: None, scratch: &scratch };
    tape.constant(kernel.prepare(&args)?);
    Ok(mass)
}

/// Attention within shifted windows of a grid: queries, keys and values `[rows, heads * head_dim]` as
/// [`WindowAttentionConfig`] says, with a row more where there is padding; the output has none, and the
/// shape given. `table` is there exactly if configured.
pub fn window_attention(
    tape: &mut Tape,
    [q, k, v]: [&Variable; 3],
    table: Option<&Variable>,
    config: WindowAttentionConfig,
    shape: &[u32],
) -> Result<Variable> {
    let context = tape.context().clone();
    check_config(!config.half, "half", "false: tensors hold f32", config.half)?;
    let inputs: Vec<_> = [q, k, v].into_iter().chain(table).collect();
    let [q, k, v] = [q, k, v].map(|x| x.tensor().clone());
    let table = table.map(|table| table.tensor().clone());
    let tokens = config.grid.into_iter().fold(config.batch, u32::saturating_mul);
    let o = Tensor::new(&context, "attention", shape)?;
    let lse = Tensor::new(&context, "log-sum-exp", &[tokens, config.heads])?;
    let kernel = WindowAttentionForward::new(&context, config)?;
    let forward = kernel.prepare(&WindowAttentionForwardArgs {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        table: table.as_ref().map(Tensor::view),
        o: o.view(),
        lse: lse.view(),
        scratch: &kernel.create_scratch()?,
    })?;
    let output = o.clone();
    Ok(tape.operation(forward, &inputs, o, move |context, dout| {
        let (dq, dk, dv) = (gradient_of(context, &q)?, gradient_of(context, &k)?, gradient_of(context, &v)?);
        let dtable = table.as_ref().map(|table| gradient_of(context, table)).transpose()?;
        let kernel = WindowAttentionBackward::new(context, config)?;
        let recording = kernel.prepare(&WindowAttentionBackwardArgs {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            table: table.as_ref().map(Tensor::view),
            o: output.view(),
            lse: lse.view(),
            dout: dout.view(),
            dq: dq.view(),
            dk: dk.view(),
            dv: dv.view(),
            dtable: dtable.as_ref().map(Tensor::view),
            scratch: &kernel.create_scratch()?,
        })?;
        let mut list = vec![Some(dq), Some(dk), Some(dv)];
        list.extend(dtable.map(Some));
        Ok((recording, list))
    }))
}

/// Retrieval of states from stored patterns with values (Ramsauer et al. 2021): states `[batch, heads, tokens,
/// width]`, patterns and values alike, `beta` `[heads]`; the output is as the states, with the values' width.
/// The configuration is one of association with values. The memory grows with the pairs of tokens.
pub fn hopfield(
    tape: &mut Tape,
    [state, stored, values]: [&Variable; 3],
    beta: &Variable,
    config: HopfieldConfig,
) -> Result<Variable> {
    let context = tape.context().clone();
    let config = HopfieldConfig { keep: true, mask: false, ..config };
    let association = config.mode == HopfieldMode::Association;
    check_config(association, "mode", "association", config.mode)?;
    let width = config.values.unwrap_or(0);
    check_config(width > 0, "values", "at least 1", config.values)?;
    let inputs = [state, stored, values, beta];
    let [state, stored, values, beta] = inputs.map(|x| x.tensor().clone());
    // It checks the sizes that follow.
    let kernel = HopfieldForward::new(&context, config)?;
    let out = Tensor::new(&context, "retrieved", &[config.batch, config.heads, config.states, width])?;
    let flags = u64::from(config.steps() + 1) * u64::from(config.heads);
    let active = context.create_storage("active", 4 * flags)?;
    let kept = kernel.create_scratch()?;
    let forward = kernel.prepare(&HopfieldForwardArgs {
        state: state.view(),
        stored: stored.view(),
        values: Some(values.view()),
        beta: beta.view(),
        mask: None,
        out: out.view(),
        active: (&active).into(),
        scratch: &kept,
    })?;
    Ok(tape.operation(forward, &inputs, out, move |context, dout| {
        let [dstate, dstored, dvalues, dbeta] =
            [&state, &stored, &values, &beta].map(|x| gradient_of(context, x));
        let (dstate, dstored, dvalues, dbeta) = (dstate?, dstored?, dvalues?, dbeta?);
        let kernel = HopfieldBackward::new(context, config)?;
        let recording = kernel.prepare(&HopfieldBackwardArgs {
            stored: stored.view(),
            values: Some(values.view()),
            beta: beta.view(),
            active: (&active).into(),
            forward: &kept,
            dout: dout.view(),
            dstate: dstate.view(),
            dstored: Some(dstored.view()),
            dvalues: Some(dvalues.view()),
            dbeta: Some(dbeta.view()),
            scratch: &kernel.create_scratch()?,
        })?;
        Ok((recording, vec![Some(dstate), Some(dstored), Some(dvalues), Some(dbeta)]))
    }))
}
