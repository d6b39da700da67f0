//! Rotary positions of queries and keys (`shaders/attention/rotary.wgsl`).

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, count, kernel, read, shader, write,
};

/// Which elements of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RotaryPairs {
    /// `2 k` and `2 k + 1` (Su et al. 2021, eq. 34).
    #[default]
    Interleaved,
    /// `k` and `k + rotary / 2`.
    Halves,
}

/// The order of the axes of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadLayout {
    /// `[batch, tokens, heads, dim]`.
    #[default]
    TokensFirst,
    /// `[batch, heads, tokens, dim]`.
    HeadsFirst,
}

/// Rotation of the heads of a batch of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotaryConfig {
    /// Images, at least 1.
    pub batch: u32,
    /// Tokens of an image, at least 1.
    pub tokens: u32,
    /// Heads, at least 1; of a packed `[batch, tokens, 3, heads, dim]` all three times as many.
    pub heads: u32,
    /// Heads that are turned, the first ones; the others are copied. Two thirds of a packed buffer.
    pub rotated: u32,
    /// Elements of a head, at least 1.
    pub dim: u32,
    /// Elements of a head that are turned, the first ones; even, at most `dim`.
    pub rotary: u32,
    /// Which elements turn together.
    pub pairs: RotaryPairs,
    /// The order of the axes.
    pub layout: HeadLayout,
    /// Turn back: the gradient of the turn.
    pub inverse: bool,
}

impl RotaryConfig {
    /// The gradient of this rotation: its inverse.
    #[must_use]
    pub fn backward(self) -> Self {
        Self { inverse: !self.inverse, ..self }
    }
}

/// The table of [`Rotary`], `[tokens, 2, rotary]`, from the angle of each pair of each token,
/// `[tokens, rotary / 2]` in rad. The angles are rounded once, after sine and cosine.
#[must_use]
pub fn rotary_table(angles: &[f64], rotary: u32, pairs: RotaryPairs) -> Vec<f32> {
    let half = (rotary / 2).max(1) as usize;
    let of = |e: usize| match pairs {
        RotaryPairs::Interleaved => (e / 2, e.is_multiple_of(2)),
        RotaryPairs::Halves => (e % half, e < half),
    };
    let mut table = Vec::with_capacity(angles.len() * 4);
    for angles in angles.chunks_exact(half) {
        table.extend((0..2 * half).map(|e| angles[of(e).0].cos() as f32));
        table.extend((0..2 * half).map(|e| {
            let (pair, first) = of(e);
            (if first { -angles[pair].sin() } else { angles[pair].sin() }) as f32
        }));
    }
    table
}

/// Angles of tokens in a row: `n base^(-k / pairs)`, `[tokens, pairs]` (Su et al. 2021, eq. 15,
/// with `base` 10,000).
#[must_use]
pub fn rotary_angles(tokens: u32, pairs: u32, base: f64) -> Vec<f64> {
    let wave = move |n: u32, k: u32| f64::from(n) * base.powf(-f64::from(k) / f64::from(pairs));
    (0..tokens).flat_map(|n| (0..pairs).map(move |k| wave(n, k))).collect()
}

/// Angles of a grid of `[height, width]` tokens after `prefix` tokens that are not turned,
/// `[prefix + height width, pairs]`: the first half of the pairs by x, the second by y (axial
/// frequencies, Heo et al. 2024, section 3.2, with `base` 100). `pairs` is even and at least 2.
pub fn rotary_angles_2d(grid: [u32; 2], prefix: u32, pairs: u32, base: f64) -> Result<Vec<f64>> {
    check_config(pairs > 0 && pairs.is_multiple_of(2), "pairs", "even for two axes, at least 2", pairs)?;
    let [height, width] = grid;
    let tokens = u64::from(height) * u64::from(width) + u64::from(prefix);
    count("angles", &[u32::try_from(tokens).unwrap_or(u32::MAX), pairs])?;
    let half = pairs / 2;
    let wave = move |x: u32, k: u32| f64::from(x) * base.powf(-f64::from(k) / f64::from(half));
    let mut angles = vec![0.0; prefix as usize * pairs as usize];
    for y in 0..height {
        for x in 0..width {
            angles.extend((0..half).map(|k| wave(x, k)).chain((0..half).map(|k| wave(y, k))));
        }
    }
    Ok(angles)
}

const WORKGROUP: u32 = 64;

/// Of items of one element, and of four.
static ROTATE: [Shader; 2] = [
    shader!(
        "attention/rotary",
        "rotate",
        [index, scalars, rotary_scalars],
        [read("x"), read("table"), write("y")]
    ),
    shader!(
        "attention/rotary",
        "rotate",
        [index, vectors, rotary_vectors],
        [read("x").vec4(), read("table").vec4(), write("y").vec4()]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    dim: u32,
    rotary: u32,
    half: u32,
    heads: u32,
    rotated: u32,
    tokens: u32,
    sign: f32,
}

kernel! {
    /// Turns the pairs of heads by the angles of a table.
    Rotary, RotaryConfig
}

/// Buffers of [`Rotary`].
#[derive(Debug, Clone, Copy)]
pub struct RotaryArgs<'a> {
    /// Heads, as the layout says.
    pub x: BufferView<'a>,
    /// Cosines and signed sines, `[tokens, 2, rotary]`: see [`rotary_table`].
    pub table: BufferView<'a>,
    /// Output, as x.
    pub y: BufferView<'a>,
}

impl Rotary {
    /// An invocation an item.
    pub fn plan(config: &RotaryConfig, caps: &Capabilities) -> Result<Plan> {
        let RotaryConfig { batch, tokens, heads, rotated, dim, rotary, pairs, layout, inverse } = *config;
        for (what, value) in [("batch", batch), ("tokens", tokens), ("heads", heads), ("dim", dim)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        check_config(rotated <= heads, "rotated", "at most `heads`", rotated)?;
        let fits = rotary > 0 && rotary <= dim && rotary.is_multiple_of(2);
        check_config(fits, "rotary", "even, from 2 to `dim`", rotary)?;
        let elements = count("x", &[batch, tokens, heads, dim])?;
        count("table", &[tokens, 2, rotary])?;
        let halves = pairs == RotaryPairs::Halves;
        let whole = dim.is_multiple_of(4) && rotary.is_multiple_of(if halves { 8 } else { 4 });
        let (kind, lanes, name) = if whole { (1, 4, "vec4") } else { (0, 1, "scalar") };
        let params = Params {
            items: elements / lanes,
            dim: dim / lanes,
            rotary: rotary / lanes,
            half: rotary / 2 / lanes,
            heads,
            rotated,
            tokens,
            sign: if inverse { -1.0 } else { 1.0 },
        };
        let constants = Constants::new()
            .u32("WORKGROUP", WORKGROUP)
            .bool("INTERLEAVED", !halves)
            .bool("HEADS_FIRST", layout == HeadLayout::HeadsFirst);
        let n = u64::from(elements);
        let cost = Cost::new(3 * n, 8 * n + 8 * u64::from(tokens) * u64::from(rotary));
        let groups = params.items.div_ceil(WORKGROUP).into();
        Ok(Plan::single(name, Launch::new(&ROTATE[kind], constants, &params, groups, caps, cost)?))
    }
}

impl Kernel for Rotary {
    type Args<'a> = RotaryArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let RotaryConfig { batch, tokens, heads, dim, rotary, .. } = self.config;
        let n = u64::from(count("x", &[batch, tokens, heads, dim])?);
        let list = [
            Arg::words("x", args.x, n),
            Arg::words("table", args.table, 2 * u64::from(tokens) * u64::from(rotary)),
            Arg::words("y", args.y, n),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_of_a_grid_are_x_then_y() {
        let angles = rotary_angles_2d([2, 3], 1, 4, 100.0).unwrap();
        assert_eq!(angles[..4], [0.0; 4]);
        assert_eq!(angles[6 * 4..], [2.0, 0.2, 1.0, 0.1]);
        assert!(rotary_angles_2d([2, 3], 0, 3, 100.0).is_err());
        assert!(rotary_angles_2d([65_536, 65_536], 0, 2, 100.0).is_err());
        // None at all would take 2^64 turns to write nothing.
        assert!(rotary_angles_2d([u32::MAX, u32::MAX], 0, 0, 100.0).is_err());
        assert_eq!(rotary_angles(3, 2, 10_000.0), [0.0, 0.0, 1.0, 0.01, 2.0, 0.02]);
    }
}
