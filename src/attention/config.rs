//! What all kernels of flash attention are configured by.

use crate::dispatch::{Error, Result, check_config};

/// How the rows of `[B, N, H, D]` lie in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionLayout {
    /// `[B, N, H, D]`: what a linear layer over tokens gives.
    #[default]
    TokensHeads,
    /// `[B, H, N, D]`.
    HeadsTokens,
    /// Anything whose rows are contiguous; for queries, keys and values in one buffer, say. All in elements.
    Strides {
        /// First element.
        first: u32,
        /// From one batch to the next.
        batch: u32,
        /// From one head to the next.
        head: u32,
        /// From one token to the next.
        token: u32,
    },
}

/// What is added to the scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionBias {
    /// Nothing.
    #[default]
    None,
    /// A matrix `[B or 1, H or 1, N_q, N_k]`. An element of -1e30 or less hides the key from the query.
    Dense {
        /// One matrix for the whole batch.
        share_batch: bool,
        /// One matrix for all heads.
        share_heads: bool,
    },
    /// A learned value for each head and each displacement on a grid of tokens,
    /// `[(2 height - 1)(2 width - 1), H]`, as in Swin (Liu et al. 2021, section 3.2): row
    /// `(y_i - y_j + height - 1)(2 width - 1) + x_i - x_j + width - 1`. Queries and keys are the same
    /// `prefix + height * width` tokens.
    Table {
        /// Tokens before the grid, whose pairs get no bias (a class token, say).
        prefix: u32,
        /// Rows of the grid.
        height: u32,
        /// Columns of the grid.
        width: u32,
    },
}

/// How attention is computed. All variants give the same results to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionVariant {
    /// A row an invocation; needs nothing. The oracle of the others.
    Plain,
    /// For GPUs: tiles in workgroup memory, 4 x 4 or 8 x 4 scores an invocation, as the device allows.
    Tiled,
    /// For CPU adapters: 64 rows a subgroup (backward 32), what they share by shuffles; two floats are one load where
    /// the device has 64-bit integers and rows are multiples of 8. Needs subgroups of 8, and head dimensions up to
    /// 128.
    Subgroup,
}

/// Attention `O = g softmax(scale beta / T Q K^T + bias) V` of `heads` heads.
///
/// A query row that sees no key gives zeros, a log-sum-exp of -1e30 and zero gradients. A NaN spreads to
/// the rows that see it, and no further. The default is one head of one token, of 64 columns: set the sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Batch, `B`.
    pub batch: u32,
    /// Heads of the queries, `H`.
    pub heads: u32,
    /// Heads of keys and values, a divisor of `heads`; `None`: as many as there are query heads.
    /// Query head `h` uses head `h / (heads / kv_heads)`.
    pub kv_heads: Option<u32>,
    /// Query tokens, `N_q`.
    pub queries: u32,
    /// Key tokens, `N_k`.
    pub keys: u32,
    /// Columns of queries and keys of a head, 1 to 256.
    pub head_dim: u32,
    /// Columns of the values of a head, 1 to 256; `None`: as `head_dim`.
    pub value_dim: Option<u32>,
    /// How queries and their gradient lie.
    pub q_layout: AttentionLayout,
    /// How keys and their gradient lie.
    pub k_layout: AttentionLayout,
    /// How values and their gradient lie.
    pub v_layout: AttentionLayout,
    /// How the output and its gradient lie.
    pub o_layout: AttentionLayout,
    /// Factor of the scores; `None`: `1 / sqrt(head_dim)`.
    pub scale: Option<f32>,
    /// A query sees keys up to its own position alone, which is `i + N_k - N_q`.
    pub causal: bool,
    /// A query sees so many keys to each side of its position.
    pub window: Option<u32>,
    /// There is a mask `[B, N_k]` of u32: a key with 0 is seen by no one.
    pub key_mask: bool,
    /// What is added to the scores.
    pub bias: AttentionBias,
    /// Backward: compute the gradient of the bias.
    pub bias_gradient: bool,
    /// The scores are divided by a value in a buffer, which has a gradient.
    pub temperature: bool,
    /// Each head's scores are multiplied by a value in a buffer `[H]`, which has a gradient.
    pub head_scale: bool,
    /// Each head's output is multiplied by a value in a buffer `[H]`, which has a gradient: the
    /// importance of the head (Michel et al. 2019).
    pub gate: bool,
    /// Backward: the log-sum-exp has a gradient too.
    pub lse_gradient: bool,
    /// Queries, keys and values hold f16; all else is f32. Needs `SHADER_F16`.
    pub half: bool,
    /// Parts that the keys are cut into, each with workgroups of its own (backward: the keys, or the
    /// queries); `None`: as many as keep the device busy. Fixed by sizes and device alone.
    pub slices: Option<u32>,
    /// `None`: what suits the device.
    pub variant: Option<AttentionVariant>,
}

impl Default for AttentionConfig {
    fn default() -> Self {
        Self {
            batch: 1,
            heads: 1,
            kv_heads: None,
            queries: 1,
            keys: 1,
            head_dim: 64,
            value_dim: None,
            q_layout: AttentionLayout::TokensHeads,
            k_layout: AttentionLayout::TokensHeads,
            v_layout: AttentionLayout::TokensHeads,
            o_layout: AttentionLayout::TokensHeads,
            scale: None,
            causal: false,
            window: None,
            key_mask: false,
            bias: AttentionBias::None,
            bias_gradient: false,
            temperature: false,
            head_scale: false,
            gate: false,
            lse_gradient: false,
            half: false,
            slices: None,
            variant: None,
        }
    }
}

/// The most tokens: positions and their differences fit into 30 bits.
const TOKENS: u32 = 1 << 28;

/// A tensor's place in its buffer, in elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub first: u32,
    pub batch: u32,
    pub head: u32,
    pub row: u32,
    /// Elements from the beginning of the buffer to the end of the last row.
    pub end: u32,
}

impl AttentionConfig {
    /// Heads of keys and values.
    #[must_use]
    pub fn kv_heads(&self) -> u32 {
        self.kv_heads.unwrap_or(self.heads)
    }

    /// Columns of the values of a head.
    #[must_use]
    pub fn value_dim(&self) -> u32 {
        self.value_dim.unwrap_or(self.head_dim)
    }

    /// Factor of the scores.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale.unwrap_or(1.0 / (self.head_dim.max(1) as f32).sqrt())
    }

    /// Elements of the log-sum-exp: `[B, H, N_q]` (saturated at `u64::MAX`).
    #[must_use]
    pub fn lse_count(&self) -> u64 {
        (u64::from(self.batch) * u64::from(self.heads)).saturating_mul(self.queries.into())
    }

    /// Elements of the bias.
    #[must_use]
    pub fn bias_count(&self) -> u64 {
        let [heads, queries, keys] = [self.heads, self.queries, self.keys].map(u64::from);
        match self.bias {
            AttentionBias::None => 0,
            AttentionBias::Dense { share_batch, share_heads } => {
                let batch = if share_batch { 1 } else { self.batch.into() };
                // Saturates far above what `check` lets pass.
                let matrices = if share_heads { batch } else { heads.saturating_mul(batch) };
                matrices.saturating_mul(queries.saturating_mul(keys))
            }
            AttentionBias::Table { height, width, .. } => {
                let side = |n: u32| (2 * u64::from(n)).saturating_sub(1);
                side(height).saturating_mul(side(width)).saturating_mul(heads)
            }
        }
    }

    /// Pairs of a query and a key that it sees by position, of one head.
    pub(super) fn pairs(&self) -> u64 {
        let (before, after) = self.reach();
        let offset = i64::from(self.keys) - i64::from(self.queries);
        if !self.has_window() {
            return u64::from(self.queries) * u64::from(self.keys);
        }
        let seen = |i: u32| {
            let position = i64::from(i) + offset;
            let first = (position - i64::from(before)).max(0);
            let end = (position + i64::from(after) + 1).min(self.keys.into());
            (end - first).max(0) as u64
        };
        (0..self.queries).map(seen).sum()
    }

    pub(super) fn has_window(&self) -> bool {
        self.causal || self.window.is_some()
    }

    /// Keys seen before and after the own position.
    pub(super) fn reach(&self) -> (u32, u32) {
        let side = self.window.unwrap_or(TOKENS).min(TOKENS);
        (side, if self.causal { 0 } else { side })
    }

    /// `Err` unless every number is in range and every index fits into 32 bits.
    pub(super) fn check(&self) -> Result<()> {
        let sizes = [
            ("batch", self.batch),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads()),
            ("queries", self.queries),
            ("keys", self.keys),
        ];
        for (what, value) in sizes {
            check_config((1..=TOKENS).contains(&value), what, "1 to 2^28", value)?;
        }
        let fits = self.heads.is_multiple_of(self.kv_heads());
        check_config(fits, "kv_heads", "a divisor of `heads`", self.kv_heads())?;
        check_config((1..=256).contains(&self.head_dim), "head_dim", "1 to 256", self.head_dim)?;
        check_config((1..=256).contains(&self.value_dim()), "value_dim", "1 to 256", self.value_dim())?;
        check_config(self.scale().is_finite(), "scale", "finite", self.scale())?;
        if let Some(slices) = self.slices {
            check_config((1..=4096).contains(&slices), "slices", "1 to 4096", slices)?;
        }
        if let AttentionBias::Table { prefix, height, width } = self.bias {
            let tokens = u64::from(prefix) + u64::from(height) * u64::from(width);
            let grid =
                tokens == u64::from(self.queries) && self.queries == self.keys && height > 0 && width > 0;
            check_config(grid, "bias", "a grid of all queries, which are the keys too", self.bias)?;
        }
        let wants = !self.bias_gradient || self.bias != AttentionBias::None;
        check_config(wants, "bias_gradient", "false where there is no bias", self.bias_gradient)?;
        for (what, elements) in [("bias", self.bias_count()), ("lse", self.lse_count().saturating_mul(2))] {
            if elements > u32::MAX.into() {
                return Err(Error::IndexOverflow { what, elements });
            }
        }
        self.q()?;
        self.k()?;
        self.v()?;
        self.o().map(drop)
    }

    pub(super) fn q(&self) -> Result<Rows> {
        rows("q", self.q_layout, [self.batch, self.queries, self.heads, self.head_dim])
    }

    pub(super) fn k(&self) -> Result<Rows> {
        rows("k", self.k_layout, [self.batch, self.keys, self.kv_heads(), self.head_dim])
    }

    pub(super) fn v(&self) -> Result<Rows> {
        rows("v", self.v_layout, [self.batch, self.keys, self.kv_heads(), self.value_dim()])
    }

    pub(super) fn o(&self) -> Result<Rows> {
        rows("o", self.o_layout, [self.batch, self.queries, self.heads, self.value_dim()])
    }
}

/// The strides of `[batch, tokens, heads, width]`, no two rows of which may overlap: gradients lie so too.
fn rows(
    what: &'static str,
    layout: AttentionLayout,
    [batch, tokens, heads, width]: [u32; 4],
) -> Result<Rows> {
    let [b, n, h, d] = [batch, tokens, heads, width].map(u64::from);
    let (first, strides) = match layout {
        AttentionLayout::TokensHeads => (0, [n.saturating_mul(h * d), d, h * d]),
        AttentionLayout::HeadsTokens => (0, [h.saturating_mul(n * d), n * d, d]),
        AttentionLayout::Strides { first, batch, head, token } => {
            (first.into(), [batch, head, token].map(u64::from))
        }
    };
    let axes = [(b, strides[0]), (h, strides[1]), (n, strides[2])];
    let mut sorted: Vec<(u64, u64)> = axes.into_iter().filter(|axis| axis.0 > 1).collect();
    sorted.sort_by_key(|axis| axis.1);
    let mut extent = d;
    for (length, stride) in sorted {
        check_config(stride >= extent, what, "rows that do not overlap", layout)?;
        extent = (length - 1).saturating_mul(stride).saturating_add(extent);
    }
    let end = extent.saturating_add(first);
    if end > u32::MAX.into() {
        return Err(Error::IndexOverflow { what, elements: end });
    }
    // An axis of length 1 may have any stride.
    let stride = |length: u64, stride: u64| if length > 1 { stride as u32 } else { 0 };
    Ok(Rows {
        first: first as u32,
        batch: stride(b, strides[0]),
        head: stride(h, strides[1]),
        row: stride(n, strides[2]),
        end: end as u32,
    })
}

impl Rows {
    /// Dense rows `[batch, heads, tokens, width]`.
    pub fn dense(what: &'static str, [batch, heads, tokens, width]: [u32; 4]) -> Result<Self> {
        rows(what, AttentionLayout::HeadsTokens, [batch, tokens, heads, width])
    }

    /// Whether every row begins at a multiple of `width`.
    pub fn are_multiples_of(&self, width: u32) -> bool {
        [self.first, self.batch, self.head, self.row].iter().all(|n| n.is_multiple_of(width))
    }
}
