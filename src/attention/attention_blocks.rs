//! The passes of flash attention one by one, for operations that are put together from them
//! (`shaders/attention/flash_attention.wgsl`).
//!
//! With `P_ij = exp(S_ij - L_i)`: [`AttentionLse`] gives `L`, [`AttentionWithLse`] applies `P`, and
//! [`AttentionTransposed`] its transpose. None of them needs more memory than its rows.

use super::config::AttentionConfig;
use super::flash_attention::{
    AttentionInputs, Bound, Steps, check_apart, forward_slices, optional, scratch_arg,
};
use super::pass::{Flags, Kind, Pass, Slices};
use crate::dispatch::{
    Arg, BufferView, Capabilities, Kernel, Plan, Recording, Result, Scratch, check_config, kernel,
};

/// Of the pass that gives the log-sum-exp alone.
pub(super) const LSE: Flags =
    Flags { known: false, values: false, keys: false, sums: false, write_ds: false };
/// Of the pass that applies known weights.
pub(super) const KNOWN: Flags =
    Flags { known: true, values: true, keys: false, sums: false, write_ds: false };
/// Of the pass that applies the transpose of known weights.
pub(super) const TRANSPOSED: Flags =
    Flags { known: false, values: true, keys: false, sums: false, write_ds: false };

kernel! {
    /// The log-sum-exp `L_i = log sum_j exp S_ij` of each query's scores.
    AttentionLse, AttentionConfig
}

/// Buffers of [`AttentionLse`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionLseArgs<'a> {
    /// What goes in; the values are not looked at, and any buffer may stand for them.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N_q]`.
    pub lse: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionLse {
    /// Chooses the variant and the slices.
    pub fn plan(config: &AttentionConfig, caps: &Capabilities) -> Result<Plan> {
        let pass = Pass::new(config, caps)?;
        let slices = forward_slices(&pass);
        let mut launches = Vec::new();
        if pass.has_side() {
            launches.push(pass.prepare()?);
        }
        launches.push(pass.forward(slices, LSE)?);
        if slices.count > 1 {
            launches.push(pass.merge(slices, false)?);
        }
        let side = if pass.has_side() { pass.side_words() } else { 0 };
        let lse = pass.partial_words(slices, config.heads, config.queries, 1)?;
        // What stands for the output, which nothing is written to.
        Ok(Plan { variant: pass.variant.name(), launches, scratch: vec![4 * side, 4 * lse, 16] })
    }
}

impl Kernel for AttentionLse {
    type Args<'a> = AttentionLseArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let pass = Pass::new(config, self.context.capabilities())?;
        let slices = forward_slices(&pass);
        let inputs = Bound::new(config, &AttentionInputs { v: args.inputs.k, ..args.inputs }, [false; 2])?;
        let lse = Arg::words("lse", args.lse, config.lse_count());
        check_apart(&[lse], &inputs.given())?;
        let scratch = |index| scratch_arg(&self.plan, args.scratch, index);
        let (side, partial, unused) = (scratch(0)?, scratch(1)?, scratch(2)?);
        let none = inputs.none;
        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        if pass.has_side() {
            recording.push(self.context.bind(steps.next()?, &inputs.prepare(side, None))?);
        }
        let to = if slices.count > 1 { partial } else { lse };
        let list = [inputs.q, inputs.k, none, side, inputs.bias(), unused, to];
        recording.push(self.context.bind(steps.next()?, &list)?);
        if slices.count > 1 {
            recording.push(self.context.bind(steps.next()?, &[partial, lse, none, none, none, unused])?);
        }
        Ok(recording)
    }
}

kernel! {
    /// `O_i = g_h sum_j exp(S_ij - L_i) v_j` with `L` known.
    AttentionWithLse, AttentionConfig
}

/// Buffers of [`AttentionWithLse`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionWithLseArgs<'a> {
    /// What goes in.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N_q]`.
    pub lse: BufferView<'a>,
    /// The output, `[B, N_q, H, value_dim]` as `o_layout` says.
    pub o: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

impl AttentionWithLse {
    /// Chooses the variant and the slices.
    pub fn plan(config: &AttentionConfig, caps: &Capabilities) -> Result<Plan> {
        let pass = Pass::new(config, caps)?;
        let slices = forward_slices(&pass);
        let AttentionConfig { heads, queries, .. } = *config;
        let mut launches = Vec::new();
        if pass.has_side() {
            launches.push(pass.prepare()?);
        }
        launches.push(pass.prepare_rows(false)?);
        launches.push(pass.forward(slices, KNOWN)?);
        if slices.count > 1 {
            launches.push(pass.sum_slices(slices, pass.x, heads, queries, config.value_dim())?);
        }
        let partial = pass.partial_words(slices, heads, queries, config.value_dim())?;
        let scratch = vec![4 * pass.side_words(), 4 * partial, 16];
        Ok(Plan { variant: pass.variant.name(), launches, scratch })
    }
}

impl Kernel for AttentionWithLse {
    type Args<'a> = AttentionWithLseArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let config = &self.config;
        let pass = Pass::new(config, self.context.capabilities())?;
        let slices = forward_slices(&pass);
        let inputs = Bound::new(config, &args.inputs, [true, false])?;
        let lse = Arg::words("lse", args.lse, config.lse_count());
        let o = Arg::words("o", args.o, config.o()?.end.into());
        check_apart(&[o], &inputs.given())?;
        check_apart(&[o], &[Some(lse)])?;
        let scratch = |index| scratch_arg(&self.plan, args.scratch, index);
        let (side, partial, unused) = (scratch(0)?, scratch(1)?, scratch(2)?);
        let none = inputs.none;
        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        if pass.has_side() {
            recording.push(self.context.bind(steps.next()?, &inputs.prepare(side, None))?);
        }
        recording.push(self.context.bind(steps.next()?, &[lse, none, none, none, side, none])?);
        let to = if slices.count > 1 { partial } else { o };
        let list = [inputs.q, inputs.k, inputs.v, side, inputs.bias(), to, unused];
        recording.push(self.context.bind(steps.next()?, &list)?);
        if slices.count > 1 {
            recording.push(self.context.bind(steps.next()?, &[none, none, partial, none, none, o])?);
        }
        Ok(recording)
    }
}

/// Of [`AttentionTransposed`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AttentionTransposedConfig {
    /// Of the scores. `o_layout` is that of the queries' values, and `v_layout` that of the result.
    pub attention: AttentionConfig,
    /// The queries' values have weights `[B, H, N_q]`.
    pub weights: bool,
}

kernel! {
    /// `y_j = sum_i exp(S_ij - L_i) w_i x_i` over the queries, of all heads that share the key, with `L` known.
    AttentionTransposed, AttentionTransposedConfig
}

/// Buffers of [`AttentionTransposed`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionTransposedArgs<'a> {
    /// What goes in; `v` stands for the values of the queries, `x`, `[B, N_q, H, value_dim]` as
    /// `o_layout` says.
    pub inputs: AttentionInputs<'a>,
    /// The log-sum-exp, `[B, H, N_q]`.
    pub lse: BufferView<'a>,
    /// `[B, H, N_q]`, if configured.
    pub weights: Option<BufferView<'a>>,
    /// The result, `[B, N_k, kv_heads, value_dim]` as `v_layout` says.
    pub y: BufferView<'a>,
    /// As the plan asks.
    pub scratch: &'a Scratch,
}

/// Slices of a sum over the queries.
pub(super) fn transposed_slices(pass: &Pass<'_>) -> Slices {
    let config = pass.config;
    pass.slices(Kind::Keys, config.kv_heads(), config.keys, config.queries)
}

impl AttentionTransposed {
    /// Chooses the variant and the slices.
    pub fn plan(config: &AttentionTransposedConfig, caps: &Capabilities) -> Result<Plan> {
        let AttentionTransposedConfig { attention, weights } = config;
        check_config(!(attention.gate && *weights), "gate", "false where there are weights", attention.gate)?;
        let pass = Pass::reversed(attention, caps, *weights)?;
        let slices = transposed_slices(&pass);
        let (heads, keys, dv) = (attention.kv_heads(), attention.keys, attention.value_dim());
        let mut launches = Vec::new();
        if pass.has_side() {
            launches.push(pass.prepare()?);
        }
        launches.push(pass.prepare_rows(false)?);
        launches.push(pass.backward_keys(slices, TRANSPOSED)?);
        if slices.count > 1 {
            launches.push(pass.sum_slices(slices, pass.v, heads, keys, dv)?);
        }
        let partial = pass.partial_words(slices, heads, keys, dv)?;
        let scratch = vec![4 * pass.side_words(), 4 * partial, 16];
        Ok(Plan { variant: pass.variant.name(), launches, scratch })
    }
}

impl Kernel for AttentionTransposed {
    type Args<'a> = AttentionTransposedArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let AttentionTransposedConfig { attention: config, weights } = &self.config;
        let pass = Pass::reversed(config, self.context.capabilities(), *weights)?;
        let slices = transposed_slices(&pass);
        let inputs = Bound::new(config, &args.inputs, [true, true])?;
        let lse = Arg::words("lse", args.lse, config.lse_count());
        let weights = optional("weights", *weights, args.weights, config.lse_count())?;
        let y = Arg::words("y", args.y, config.v()?.end.into());
        check_apart(&[y], &inputs.given())?;
        check_apart(&[y], &[Some(lse), weights])?;
        let scratch = |index| scratch_arg(&self.plan, args.scratch, index);
        let (side, partial, unused) = (scratch(0)?, scratch(1)?, scratch(2)?);
        let none = inputs.none;
        let mut steps = Steps::new(&self.plan);
        let mut recording = Recording::new();
        if pass.has_side() {
            recording.push(self.context.bind(steps.next()?, &inputs.prepare(side, weights))?);
        }
        recording.push(self.context.bind(steps.next()?, &[lse, none, none, none, side, none])?);
        let to = if slices.count > 1 { partial } else { y };
        let list = [inputs.k, inputs.q, inputs.v, side, inputs.bias(), none, unused, to];
        recording.push(self.context.bind(steps.next()?, &list)?);
        if slices.count > 1 {
            recording.push(self.context.bind(steps.next()?, &[none, none, partial, none, none, y])?);
        }
        Ok(recording)
    }
}
