//! Attention within shifted windows of a grid, in two and three dimensions
//! (`shaders/attention/window_attention.wgsl`).

use super::instances::{Backward, Forward, Instances, SmallAttentionVariant, Window};
use crate::dispatch::{
    BufferView, Capabilities, Kernel, Plan, Recording, Result, Scratch, check_config, kernel,
};

/// Windowed attention as in Swin (Liu et al. 2021) and its volume form (NeRF-MAE, Irshad et al. 2024).
///
/// The grid is padded with zero tokens at its end to whole windows, rolled back by `shift` along each
/// axis and cut into windows; each attends within itself, with a bias for each relative position and
/// `mask` added between tokens that the roll has brought together from both ends of the grid. None of
/// this moves data: a window's tokens are found by index arithmetic.
///
/// Padding is attended to, as in the published code: a padded token's key and value are the
/// projection of zeros, that is, the projection's bias. Where there is padding
/// ([`is_padded`](Self::is_padded)), `q`, `k` and `v` therefore have one row more than the grid has
/// tokens: the projection of one row of zeros.
///
/// A picture is a volume with a first axis of 1: `grid: [1, 56, 56], window: [1, 7, 7]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowAttentionConfig {
    /// Grids, at least 1.
    pub batch: u32,
    /// Tokens along each axis, at least 1.
    pub grid: [u32; 3],
    /// Tokens of a window along each axis; at most 512 in all.
    pub window: [u32; 3],
    /// Roll along each axis, below the window. Taken as 0 where one window holds the whole axis.
    pub shift: [u32; 3],
    /// Heads, at least 1.
    pub heads: u32,
    /// Elements of a head, 1 to 256.
    pub head_dim: u32,
    /// Factor of the scores; `None`: `head_dim^-1/2`.
    pub scale: Option<f32>,
    /// Whether there is a table of relative biases.
    pub table: bool,
    /// Added to the scores between regions; 0 or below.
    pub mask: f32,
    /// q, k, v, o and their gradients are f16; sums, the table and its gradient are f32. Needs
    /// `SHADER_F16`.
    pub half: bool,
    /// `None`: what suits the device.
    pub variant: Option<SmallAttentionVariant>,
}

impl Default for WindowAttentionConfig {
    /// The first stage of NeRF-MAE's Swin-S, unshifted: 40^3 tokens in windows of 4^3, 3 heads of 32.
    fn default() -> Self {
        Self {
            batch: 1,
            grid: [40; 3],
            window: [4; 3],
            shift: [0; 3],
            heads: 3,
            head_dim: 32,
            scale: None,
            table: true,
            mask: -100.0,
            half: false,
            variant: None,
        }
    }
}

impl WindowAttentionConfig {
    fn window(&self) -> Result<Window> {
        for axis in 0..3 {
            check_config(self.grid[axis] > 0, "grid", "at least 1 along each axis", self.grid)?;
            check_config(
                (1..=512).contains(&self.window[axis]),
                "window",
                "1 to 512 along each axis",
                self.window,
            )?;
            let less = self.shift[axis] < self.window[axis];
            check_config(less, "shift", "below the window along each axis", self.shift)?;
        }
        check_config(self.mask.is_finite() && self.mask <= 0.0, "mask", "finite and 0 or below", self.mask)?;
        let mut window = Window {
            size: self.grid,
            length: self.window,
            windows: [0; 3],
            shift: [0; 3],
            table: self.table,
            mask: self.mask,
        };
        for axis in 0..3 {
            window.windows[axis] = self.grid[axis].div_ceil(self.window[axis]);
            window.shift[axis] = if window.windows[axis] > 1 { self.shift[axis] } else { 0 };
        }
        Ok(window)
    }

    fn instances(&self) -> Result<Instances> {
        let window = self.window()?;
        let [x, y, z] = window.windows;
        let [grid_x, grid_y, grid_z] = self.grid;
        Instances {
            rows: super::instances::rows("grid", &[self.batch, grid_x, grid_y, grid_z])?,
            instances: super::instances::rows("windows", &[self.batch, x, y, z])?,
            tokens: super::instances::rows("window", &self.window)?,
            heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale,
            half: self.half,
            masked: false,
            variant: self.variant,
            window: Some(window),
        }
        .check()
    }

    /// Rows of the table of biases: `(2 wx - 1) (2 wy - 1) (2 wz - 1)`.
    #[must_use]
    pub fn table_entries(&self) -> u32 {
        self.window.iter().fold(1, |n: u32, &w| n.saturating_mul(w.saturating_mul(2).saturating_sub(1)))
    }

    /// Whether some axis is not a multiple of its window, so that there is padding.
    #[must_use]
    pub fn is_padded(&self) -> bool {
        self.grid.iter().zip(&self.window).any(|(grid, window)| !grid.is_multiple_of((*window).max(1)))
    }
}

kernel! {
    /// Attention within windows.
    WindowAttentionForward, WindowAttentionConfig
}

/// Buffers of [`WindowAttentionForward`].
#[derive(Debug, Clone, Copy)]
pub struct WindowAttentionForwardArgs<'a> {
    /// Queries, `[batch, grid x, grid y, grid z, heads, head_dim]`, and one row of `[heads, head_dim]`
    /// more where there is padding; that row is not looked at.
    pub q: BufferView<'a>,
    /// Keys, as `q`; the row more is the key of all padding.
    pub k: BufferView<'a>,
    /// Values, as `q`; the row more is the value of all padding.
    pub v: BufferView<'a>,
    /// Biases, `[(2 wx - 1) (2 wy - 1) (2 wz - 1), heads]`: row
    /// `((dx + wx - 1) (2 wy - 1) + dy + wy - 1) (2 wz - 1) + dz + wz - 1` is for a query that lies
    /// `(dx, dy, dz)` behind its key. Given exactly if configured.
    pub table: Option<BufferView<'a>>,
    /// Output, as `q` without the row more.
    pub o: BufferView<'a>,
    /// Natural logarithm of the sum of the exponentials of each row of scores, `[batch, grid x, grid
    /// y, grid z, heads]`, for the backward pass.
    pub lse: BufferView<'a>,
    /// As the plan asks for: the biases of all pairs of tokens.
    pub scratch: &'a Scratch,
}

impl WindowAttentionForward {
    /// The table spread over the pairs of tokens, then one dispatch for all windows.
    pub fn plan(config: &WindowAttentionConfig, caps: &Capabilities) -> Result<Plan> {
        config.instances()?.plan_forward(caps)
    }
}

impl Kernel for WindowAttentionForward {
    type Args<'a> = WindowAttentionForwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let WindowAttentionForwardArgs { q, k, v, table, o, lse, scratch } = *args;
        let args = Forward { q, k, v, extra: table, o, lse, scratch };
        self.config.instances()?.forward(&self.context, &self.plan, &args)
    }
}

kernel! {
    /// Gradients of the queries, keys, values and biases.
    WindowAttentionBackward, WindowAttentionConfig
}

/// Buffers of [`WindowAttentionBackward`].
#[derive(Debug, Clone, Copy)]
pub struct WindowAttentionBackwardArgs<'a> {
    /// As in the forward pass.
    pub q: BufferView<'a>,
    /// As in the forward pass.
    pub k: BufferView<'a>,
    /// As in the forward pass.
    pub v: BufferView<'a>,
    /// As in the forward pass.
    pub table: Option<BufferView<'a>>,
    /// The forward pass's output.
    pub o: BufferView<'a>,
    /// The forward pass's log-sum-exp.
    pub lse: BufferView<'a>,
    /// Gradient of the output, as `o`.
    pub dout: BufferView<'a>,
    /// Gradient of the queries, as `q`; overwritten. That of the row more is 0.
    pub dq: BufferView<'a>,
    /// Gradient of the keys, as `k`; overwritten. That of the row more is the sum over all padding.
    pub dk: BufferView<'a>,
    /// Gradient of the values, as `v`; overwritten. That of the row more is the sum over all padding.
    pub dv: BufferView<'a>,
    /// Gradient of the biases, as `table`; overwritten. Given exactly if configured.
    pub dtable: Option<BufferView<'a>>,
    /// As the plan asks for: the biases of all pairs of tokens, and sums over windows.
    pub scratch: &'a Scratch,
}

impl WindowAttentionBackward {
    /// The table spread; the sums of the rows; dQ and the sums of dS over slices of the windows; dK and
    /// dV; the table's gradient; the gradients of padding.
    pub fn plan(config: &WindowAttentionConfig, caps: &Capabilities) -> Result<Plan> {
        config.instances()?.plan_backward(caps)
    }
}

impl Kernel for WindowAttentionBackward {
    type Args<'a> = WindowAttentionBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let WindowAttentionBackwardArgs { q, k, v, table, o, lse, dout, dq, dk, dv, dtable, scratch } = *args;
        let args = Backward { q, k, v, extra: table, o, lse, dout, dq, dk, dv, dextra: dtable, scratch };
        self.config.instances()?.backward(&self.context, &self.plan, &args)
    }
}
