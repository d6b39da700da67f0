//! Attention within many small instances (`shaders/attention/small_attention.wgsl`).

pub use super::instances::SmallAttentionVariant;
use super::instances::{Backward, Forward, Instances};
use crate::dispatch::{BufferView, Capabilities, Kernel, Plan, Recording, Result, Scratch, kernel};

/// Softmax attention within each of many instances of up to 512 tokens: the regions of DuoFormer, the
/// tokens of a masked autoencoder's decoder, the pixels of a patch.
///
/// `O = softmax(scale Q K^T) V`, per instance and head. For long sequences it is the wrong kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmallAttentionConfig {
    /// Instances, at least 1.
    pub instances: u32,
    /// Tokens of an instance, 1 to 512.
    pub tokens: u32,
    /// Heads, at least 1.
    pub heads: u32,
    /// Elements of a head, 1 to 256.
    pub head_dim: u32,
    /// Factor of the scores; `None`: `head_dim^-1/2`.
    pub scale: Option<f32>,
    /// Attend only to the keys that a mask names.
    pub mask: bool,
    /// q, k, v, o and their gradients are f16; sums are f32. Needs `SHADER_F16`.
    pub half: bool,
    /// `None`: what suits the device.
    pub variant: Option<SmallAttentionVariant>,
}

impl Default for SmallAttentionConfig {
    /// DuoFormer's regions in one picture, of one head.
    fn default() -> Self {
        Self {
            instances: 49,
            tokens: 86,
            heads: 1,
            head_dim: 64,
            scale: None,
            mask: false,
            half: false,
            variant: None,
        }
    }
}

impl SmallAttentionConfig {
    fn instances(&self) -> Result<Instances> {
        let rows = super::instances::rows("tokens", &[self.instances, self.tokens])?;
        Instances {
            rows,
            instances: self.instances,
            tokens: self.tokens,
            heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale,
            half: self.half,
            masked: self.mask,
            variant: self.variant,
            window: None,
        }
        .check()
    }
}

kernel! {
    /// Attention within instances.
    SmallAttentionForward, SmallAttentionConfig
}

/// Buffers of [`SmallAttentionForward`].
#[derive(Debug, Clone, Copy)]
pub struct SmallAttentionForwardArgs<'a> {
    /// Queries, `[instances, tokens, heads, head_dim]`.
    pub q: BufferView<'a>,
    /// Keys, as `q`.
    pub k: BufferView<'a>,
    /// Values, as `q`.
    pub v: BufferView<'a>,
    /// `[instances, tokens]` u32, 0 where a key is not attended to; given exactly if configured. A
    /// query without keys gives 0.
    pub mask: Option<BufferView<'a>>,
    /// Output, as `q`.
    pub o: BufferView<'a>,
    /// Natural logarithm of the sum of the exponentials of each row of scores, `[instances, tokens,
    /// heads]`, for the backward pass; -1e30 for a row without keys.
    pub lse: BufferView<'a>,
}

impl SmallAttentionForward {
    /// One dispatch.
    pub fn plan(config: &SmallAttentionConfig, caps: &Capabilities) -> Result<Plan> {
        config.instances()?.plan_forward(caps)
    }
}

impl Kernel for SmallAttentionForward {
    type Args<'a> = SmallAttentionForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let SmallAttentionForwardArgs { q, k, v, mask, o, lse } = *args;
        let scratch = Scratch::default();
        let args = Forward { q, k, v, extra: mask, o, lse, scratch: &scratch };
        self.config.instances()?.forward(&self.context, &self.plan, &args)
    }
}

kernel! {
    /// Gradients of the queries, keys and values.
    SmallAttentionBackward, SmallAttentionConfig
}

/// Buffers of [`SmallAttentionBackward`].
#[derive(Debug, Clone, Copy)]
pub struct SmallAttentionBackwardArgs<'a> {
    /// As in the forward pass.
    pub q: BufferView<'a>,
    /// As in the forward pass.
    pub k: BufferView<'a>,
    /// As in the forward pass.
    pub v: BufferView<'a>,
    /// As in the forward pass.
    pub mask: Option<BufferView<'a>>,
    /// The forward pass's output.
    pub o: BufferView<'a>,
    /// The forward pass's log-sum-exp.
    pub lse: BufferView<'a>,
    /// Gradient of the output, as `o`.
    pub dout: BufferView<'a>,
    /// Gradient of the queries, as `q`; overwritten.
    pub dq: BufferView<'a>,
    /// Gradient of the keys, as `k`; overwritten.
    pub dk: BufferView<'a>,
    /// Gradient of the values, as `v`; overwritten.
    pub dv: BufferView<'a>,
    /// As the plan asks for: 16 bytes a token and head.
    pub scratch: &'a Scratch,
}

impl SmallAttentionBackward {
    /// The sums of the rows, then dQ, then dK and dV.
    pub fn plan(config: &SmallAttentionConfig, caps: &Capabilities) -> Result<Plan> {
        config.instances()?.plan_backward(caps)
    }
}

impl Kernel for SmallAttentionBackward {
    type Args<'a> = SmallAttentionBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let SmallAttentionBackwardArgs { q, k, v, mask, o, lse, dout, dq, dk, dv, scratch } = *args;
        let args = Backward { q, k, v, extra: mask, o, lse, dout, dq, dk, dv, dextra: None, scratch };
        self.config.instances()?.backward(&self.context, &self.plan, &args)
    }
}
