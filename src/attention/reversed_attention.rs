//! Reversed attention of DependencyViT (Ding et al. 2023, arXiv 2304.03282) in memory that grows with the
//! tokens, not with their pairs (`shaders/attention/flash_attention.wgsl`).
//!
//! Each token `i` spreads its value over the tokens `j` that it attends to, instead of gathering theirs:
//!
//! `O_j = sum_i P_ij w_i v_i`, with `P_ij = exp(S_ij - L_i)`,
//!
//! which is the transposed pass of attention's gradient with known log-sum-exps. Backwards, with
//! `u_i = sum_j P_ij dO_j` and `D_i = w_i <v_i, u_i>`: `dv_i = w_i u_i`, `dw_i = <v_i, u_i>`,
//! `dS_ij = P_ij (w_i <v_i, dO_j> - D_i)`, and `dq`, `dk` from it as ever.

use super::attention_blocks::{KNOWN, LSE, TRANSPOSED, transposed_slices};
use super::config::AttentionConfig;
use super::flash_attention::{
    AttentionGradients, AttentionInputs, Bound, Steps, backward_slices, check_apart, chunks, forward_slices,
    optional, plan_head_gradients, scratch_arg,
};
use super::pass::{Flags, Pass};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Kernel, Plan, Recording, Result, Scratch, check_config, kernel,
};

/// Of the gradient of the keys.
const KEYS: Flags = Flags { known: false, values: false, keys: true, sums: false, write_ds: false };

/// The scores are configured as in attention. Values and output change places: `v` is
/// `[B, N_q, H, value_dim]` as `v_layout` says, and the output `[B, N_k, H, value_dim]` as `o_layout` says.
/// Every head has its own keys, and instead of gates there are weights `w` `[B, H, N_q]`: the product of
/// head selector and message controller.
fn inner(config: &AttentionConfig) -> Result<AttentionConfig> {
    let AttentionConfig { heads, gate, lse_gradient, v_layout, o_layout, .. } = *config;
    check_config(config.kv_heads() == heads, "kv_heads", "as many as `heads`", config.kv_heads())?;
    check_config(!gate, "gate", "false: the weights stand for it", gate)?;
    check_config(!lse_gradient, "lse_gradient", "false", lse_gradient)?;
    Ok(AttentionConfig { v_layout: o_layout, o_layout: v_layout, ..*config })
}

kernel! {
    /// `O_j = sum_i exp(S_ij - L_i) w_i v_i`, and the log-sum-exp `L` of each query's scores.
    ///
    /// Values and output change places against attention: `v` is `[B, N_q, H, value_dim]` as `v_layout`
    /// says, and the output `[B, N_k, H, value_dim]` as `o_layout` says. Every head has keys of its own.
    ReversedAttentionForward, AttentionConfig
}

/// Buffers of [`ReversedAttentionForward`].
#[derive(Debug, Clone, Copy)]
pub struct ReversedAttentionForwardArgs<'a> {
    /// What goes in; `v` are the values of the queries.
    pub inputs: AttentionInputs<'a>,
    /// The weights of the query rows, `[B, H, N_q]`.
    pub weights: BufferView<'a>,
    /// The output, `[B, N_k, H, value_dim]` as `o_layout` says.
    pub o: BufferView<'a>,
    /// The log-sum-exp of each query's scores, `[B, H, N_q]`; the backward pass needs it.
    pub lse: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl ReversedAttentionForward {
    /// The log-sum-exp, then the transposed pass.
    pub fn plan(config: &AttentionConfig, caps: &Capabilities) -> Result<Plan> {
        let config = inner(config)?;
        let pass = Pass::reversed(&config, caps, true)?;
        let (over_keys, over_queries) = (forward_slices(&pass), transposed_slices(&pass));
        let (heads, keys, dv) = (config.heads, config.keys, config.value_dim());
        let mut launches = vec![pass.prepare()?, pass.forward(over_keys, LSE)?];
        if over_keys.count > 1 {
            launches.push(pass.merge(over_keys, false)?);
        }
        launches.push(pass.prepare_rows(false)?);
        launches.push(pass.backward_keys(over_queries, TRANSPOSED)?);
        if over_queries.count > 1 {
            launches.push(pass.sum_slices(over_queries, pass.v, heads, keys, dv)?);
        }
        let lse = pass.partial_words(over_keys, heads, config.queries, 1)?;
        let partial = pass.partial_words(over_queries, heads, keys, dv)?;
        let scratch = vec![4 * pass.side_words(), 4 * lse, 4 * partial, 16];
        Ok(Plan { variant: pass.variant.name(), launches, scratch })
    }
}

impl Kernel for ReversedAttentionForward {
    type Args<'a> = ReversedAttentionForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = inner(&self.config)?;
        let pass = Pass::reversed(&config, self.context.capabilities(), true)?;
        let (over_keys, over_queries) = (forward_slices(&pass), transposed_slices(&pass));
        let inputs = Bound::new(&config, &args.inputs, [true, true])?;
        let weights = Arg::words("weights", args.weights, config.lse_count());
        let lse = Arg::words("lse", args.lse, config.lse_count());
        let o = Arg::words("o", args.o, config.v()?.end.into());
        check_apart(&[o, lse], &inputs.given())?;
        check_apart(&[o, lse], &[Some(weights)])?;
        let scratch = |index| scratch_arg(&self.plan, args.scratch, index);
        let (side, partial_lse, partial, unused) = (scratch(0)?, scratch(1)?, scratch(2)?, scratch(3)?);
        let Bound { q, k, v, none, .. } = inputs;

        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        let mut push = |list: &[Arg<'_>]| -> Result<()> {
            recording.push(self.context.bind(steps.next()?, list)?);
            Ok(())
        };
        push(&inputs.prepare(side, Some(weights)))?;
        let to_lse = if over_keys.count > 1 { partial_lse } else { lse };
        push(&[q, k, none, side, inputs.bias(), unused, to_lse])?;
        if over_keys.count > 1 {
            push(&[partial_lse, lse, none, none, none, unused])?;
        }
        push(&[lse, none, none, none, side, none])?;
        let to_o = if over_queries.count > 1 { partial } else { o };
        push(&[k, q, v, side, inputs.bias(), none, unused, to_o])?;
        if over_queries.count > 1 {
            push(&[none, none, partial, none, none, o])?;
        }
        Ok(recording)
    }
}

kernel! {
    /// The gradients of all that goes into reversed attention.
    ReversedAttentionBackward, AttentionConfig
}

/// Buffers of [`ReversedAttentionBackward`].
#[derive(Debug, Clone, Copy)]
pub struct ReversedAttentionBackwardArgs<'a> {
    /// As in the forward pass.
    pub inputs: AttentionInputs<'a>,
    /// As in the forward pass.
    pub weights: BufferView<'a>,
    /// The log-sum-exp of the forward pass.
    pub lse: BufferView<'a>,
    /// The gradient of the output, laid out like it.
    pub d_o: BufferView<'a>,
    /// Where the gradients go; `dv` is laid out as the values of the queries.
    pub gradients: AttentionGradients<'a>,
    /// The gradient of the weights, `[B, H, N_q]`; overwritten.
    pub d_weights: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl ReversedAttentionBackward {
    /// The gradient of the values by the plain pass; from it D; then queries and keys.
    pub fn plan(config: &AttentionConfig, caps: &Capabilities) -> Result<Plan> {
        let config = inner(config)?;
        let pass = Pass::reversed(&config, caps, true)?;
        let over_values = forward_slices(&pass);
        let [over_keys, over_queries] = backward_slices(&pass);
        let AttentionConfig { heads, queries, keys, head_dim, .. } = config;
        let dv = config.value_dim();
        let mut launches =
            vec![pass.prepare()?, pass.prepare_rows(false)?, pass.forward(over_values, KNOWN)?];
        if over_values.count > 1 {
            launches.push(pass.sum_slices(over_values, pass.x, heads, queries, dv)?);
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
            launches.push(pass.sum_slices(over_queries, pass.k, heads, keys, head_dim)?);
        }
        launches.push(pass.weight_gradients(over_keys)?);
        launches.extend(plan_head_gradients(&pass, over_keys)?);
        let partial = [
            pass.partial_words(over_values, heads, queries, dv)?,
            pass.partial_words(over_keys, heads, queries, head_dim)?,
            pass.partial_words(over_queries, heads, keys, head_dim)?,
        ];
        let [values, q, k] = partial;
        let sums = if pass.heads { 2 * u64::from(heads) } else { 0 };
        let words = [pass.side_words(), pass.extra_words(over_keys)?, values.max(q).max(k), sums];
        let mut scratch = words.map(|n| 4 * n).to_vec();
        scratch.push(16);
        Ok(Plan { variant: pass.variant.name(), launches, scratch })
    }
}

impl Kernel for ReversedAttentionBackward {
    type Args<'a> = ReversedAttentionBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = inner(&self.config)?;
        let pass = Pass::reversed(&config, self.context.capabilities(), true)?;
        let over_values = forward_slices(&pass);
        let [over_keys, over_queries] = backward_slices(&pass);
        let inputs = Bound::new(&config, &args.inputs, [true, true])?;
        let weights = Arg::words("weights", args.weights, config.lse_count());
        let lse = Arg::words("lse", args.lse, config.lse_count());
        let d_o = Arg::words("d_o", args.d_o, config.v()?.end.into());
        let heads = config.heads.into();
        let gradients = &args.gradients;
        let dq = Arg::words("dq", gradients.dq, config.q()?.end.into());
        let dk = Arg::words("dk", gradients.dk, config.k()?.end.into());
        let dv = Arg::words("dv", gradients.dv, config.o()?.end.into());
        let d_weights = Arg::words("d_weights", args.d_weights, config.lse_count());
        let d_bias = optional("bias gradient", config.bias_gradient, gradients.bias, config.bias_count())?;
        let d_heads = [
            optional("temperature gradient", config.temperature, gradients.temperature, 1)?,
            optional("head_scale gradient", config.head_scale, gradients.head_scale, heads)?,
            optional("gate gradient", false, gradients.gate, heads)?,
        ];
        let mut outputs = vec![dq, dk, dv, d_weights];
        outputs.extend(d_bias);
        outputs.extend(d_heads.iter().flatten());
        check_apart(&outputs, &inputs.given())?;
        check_apart(&outputs, &[Some(weights), Some(lse), Some(d_o)])?;
        let scratch = |index| scratch_arg(&self.plan, args.scratch, index);
        let (side, extra, partial, sums, unused) =
            (scratch(0)?, scratch(1)?, scratch(2)?, scratch(3)?, scratch(4)?);
        let Bound { q, k, v, temperature, head_scale, none, .. } = inputs;

        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        let mut push = |list: &[Arg<'_>]| -> Result<()> {
            recording.push(self.context.bind(steps.next()?, list)?);
            Ok(())
        };
        push(&inputs.prepare(side, Some(weights)))?;
        push(&[lse, none, none, none, side, none])?;
        let to_v = if over_values.count > 1 { partial } else { dv };
        push(&[q, k, d_o, side, inputs.bias(), to_v, unused])?;
        if over_values.count > 1 {
            push(&[none, none, partial, none, none, dv])?;
        }
        push(&[lse, none, dv, none, side, v])?;
        let to_q = if over_keys.count > 1 { partial } else { dq };
        for _ in chunks(&pass) {
            push(&[q, k, d_o, side, inputs.bias(), v, to_q, extra])?;
            if let Some(d_bias) = d_bias {
                push(&[extra, d_bias, none, side])?;
            }
        }
        if over_keys.count > 1 {
            push(&[none, none, partial, none, none, dq])?;
        }
        let to_k = if over_queries.count > 1 { partial } else { dk };
        push(&[k, q, v, side, inputs.bias(), d_o, to_k, unused])?;
        if over_queries.count > 1 {
            push(&[none, none, partial, none, none, dk])?;
        }
        push(&[extra, d_weights])?;
        if pass.heads {
            push(&[extra, sums])?;
            for d_head in d_heads.into_iter().flatten() {
                push(&[temperature.unwrap_or(none), head_scale.unwrap_or(none), sums, d_head])?;
            }
        }
        Ok(recording)
    }
}
