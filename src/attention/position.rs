//! Positions of patches as vectors: sine and cosine tables, and learned ones added to tokens
//! (`shaders/attention/position.wgsl`).

use std::ops::Range;

use crate::dispatch::{
    Arg, BufferView, Capabilities, Constants, Cost, Kernel, Launch, Plan, Recording, Result, Shader,
    check_config, check_shape, count, kernel, read, shader, write,
};

/// The longest wave of [`sin_cos_table`] is `2 pi` times this, in tokens (Vaswani et al. 2017).
const BASE: f64 = 10_000.0;

/// `[sin(x w_i) | cos(x w_i)]`, `w_i = 10000^(-i / half)`, `half` waves of each.
fn waves(x: u32, half: u32) -> impl Iterator<Item = f64> {
    let angle = move |i: u32| f64::from(x) * BASE.powf(-f64::from(i) / f64::from(half));
    (0..half).map(move |i| angle(i).sin()).chain((0..half).map(move |i| angle(i).cos()))
}

/// Fixed positions of a grid, `[tokens, width]`, the last axis fastest.
///
/// The width is shared out among the axes, and each part holds first the sines of its coordinate, then
/// the cosines (Vaswani et al. 2017, section 3.5, with the sines and cosines apart):
/// - one axis (`[n]`): all of it; `width` even.
/// - two (`[height, width]`): the first half for x, the second for y, as in MAE (He et al. 2022);
///   `width` a multiple of 4.
/// - three (`[depth, height, width]`): `2 ceil(width / 6)` each for z, y and x, cut off at `width`.
pub fn sin_cos_table(grid: &[u32], width: u32) -> Result<Vec<f32>> {
    check_config(grid.iter().all(|&n| n > 0), "grid", "no axis of 0 cells", grid)?;
    check_config(width > 0, "width", "at least 1", width)?;
    let tokens = count("grid", grid)?;
    let elements = count("table", &[tokens, width])?;
    let mut table = Vec::with_capacity(elements as usize);
    match *grid {
        [n] => {
            check_config(width.is_multiple_of(2), "width", "even", width)?;
            (0..n).for_each(|x| table.extend(waves(x, width / 2)));
        }
        [height, columns] => {
            check_config(width.is_multiple_of(4), "width", "a multiple of 4", width)?;
            for y in 0..height {
                (0..columns).for_each(|x| table.extend(waves(x, width / 4).chain(waves(y, width / 4))));
            }
        }
        [depth, height, columns] => {
            let half = width.div_ceil(6);
            for z in 0..depth {
                for y in 0..height {
                    for x in 0..columns {
                        let all = waves(z, half).chain(waves(y, half)).chain(waves(x, half));
                        table.extend(all.take(width as usize));
                    }
                }
            }
        }
        _ => check_config(false, "grid", "one to three axes", grid)?,
    }
    Ok(table.into_iter().map(|v: f64| v as f32).collect())
}

/// Positions added to the tokens of a batch, after tokens that all images share (a class token, say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddPositionConfig {
    /// Images, at least 1.
    pub batch: u32,
    /// Tokens of an image, those put before included; more than `prefix`.
    pub tokens: u32,
    /// Elements of a token, at least 1.
    pub width: u32,
    /// Tokens put before.
    pub prefix: u32,
}

const WORKGROUP: u32 = 64;

/// Of items of one element, and of four.
static FORWARD: [Shader; 2] = [
    shader!(
        "attention/position",
        "forward",
        [index, scalars],
        [read("x"), read("prefix"), read("table"), write("y")]
    ),
    shader!(
        "attention/position",
        "forward",
        [index, vectors],
        [read("x").vec4(), read("prefix").vec4(), read("table").vec4(), write("y").vec4()]
    ),
];
static BACKWARD: [Shader; 2] = [
    shader!("attention/position", "backward", [index, scalars], [read("dy"), write("dtable"), write("dx")]),
    shader!(
        "attention/position",
        "backward",
        [index, vectors],
        [read("dy").vec4(), write("dtable").vec4(), write("dx").vec4()]
    ),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    items: u32,
    end: u32,
    first: u32,
    image: u32,
    prefix: u32,
}

impl AddPositionConfig {
    fn check(&self) -> Result<()> {
        for (what, value) in [("batch", self.batch), ("width", self.width)] {
            check_config(value > 0, what, "at least 1", value)?;
        }
        check_config(self.tokens > self.prefix, "tokens", "more than `prefix`", self.tokens)?;
        count("y", &[self.batch, self.tokens, self.width]).map(drop)
    }

    /// Elements of x, prefix, table and y.
    fn counts(&self) -> [u64; 4] {
        let [batch, tokens, width, prefix] =
            [self.batch, self.tokens, self.width, self.prefix].map(u64::from);
        [batch * (tokens - prefix) * width, prefix * width, tokens * width, batch * tokens * width]
    }

    fn variant(&self) -> &'static str {
        if self.width.is_multiple_of(4) { "vec4" } else { "scalar" }
    }

    /// One launch over some of the images, with invocations for so many items of the table.
    fn launch(
        &self,
        shaders: &'static [Shader; 2],
        owners: u32,
        images: Range<u32>,
        caps: &Capabilities,
    ) -> Result<Launch> {
        let table = self.counts()[2];
        let y = table * images.len() as u64;
        let (kind, lanes) = if self.width.is_multiple_of(4) { (1, 4) } else { (0, 1) };
        let [image, prefix] = [self.tokens, self.prefix].map(|tokens| tokens * self.width / lanes);
        let params = Params { items: owners * image, end: images.end, first: images.start, image, prefix };
        let constants = Constants::new().u32("WORKGROUP", WORKGROUP);
        let groups = params.items.div_ceil(WORKGROUP).into();
        Launch::new(&shaders[kind], constants, &params, groups, caps, Cost::new(y, 4 * (2 * y + table)))
    }
}

kernel! {
    /// `y = [prefix | x] + table`, the same table for each image.
    AddPosition, AddPositionConfig
}

/// Buffers of [`AddPosition`].
#[derive(Debug, Clone, Copy)]
pub struct AddPositionArgs<'a> {
    /// Tokens, `[batch, tokens - prefix, width]`.
    pub x: BufferView<'a>,
    /// Tokens put before those of each image, `[prefix, width]`; given exactly if there are any.
    pub prefix: Option<BufferView<'a>>,
    /// Positions, `[tokens, width]`, those of the prefix first.
    pub table: BufferView<'a>,
    /// Output, `[batch, tokens, width]`.
    pub y: BufferView<'a>,
}

impl AddPosition {
    /// An invocation an item of the output.
    pub fn plan(config: &AddPositionConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let launch = config.launch(&FORWARD, config.batch, 0..config.batch, caps)?;
        Ok(Plan::single(config.variant(), launch))
    }
}

impl Kernel for AddPosition {
    type Args<'a> = AddPositionArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [x, prefix, table, y] = self.config.counts();
        let (wanted, given) = (self.config.prefix > 0, args.prefix);
        let need = if wanted { "a buffer" } else { "none, as configured" };
        check_shape(wanted == given.is_some(), "prefix", need, given.map(|view| view.size))?;
        let x = Arg::words("x", args.x, x);
        // Where there is no prefix nothing of it is read; x stands in for it.
        let list = [
            x,
            given.map_or(x, |view| Arg::words("prefix", view, prefix)),
            Arg::words("table", args.table, table),
            Arg::words("y", args.y, y),
        ];
        Ok(Recording::single(self.context.bind(&self.plan.launches[0], &list)?))
    }
}

kernel! {
    /// Gradients of [`AddPosition`]'s table and tokens.
    AddPositionBackward, AddPositionConfig
}

/// Buffers of [`AddPositionBackward`].
#[derive(Debug, Clone, Copy)]
pub struct AddPositionBackwardArgs<'a> {
    /// Gradient of the output, `[batch, tokens, width]`.
    pub dy: BufferView<'a>,
    /// Gradient of the table, `[tokens, width]`; overwritten. Its first `prefix` rows are the
    /// gradient of the prefix too.
    pub dtable: BufferView<'a>,
    /// Gradient of the tokens, `[batch, tokens - prefix, width]`; overwritten.
    pub dx: BufferView<'a>,
}

impl AddPositionBackward {
    /// An invocation an item of the table; several launches, one after the other, where there are more
    /// images than one may walk through.
    pub fn plan(config: &AddPositionConfig, caps: &Capabilities) -> Result<Plan> {
        config.check()?;
        let step = u64::from(config.batch).min(caps.rounds()) as u32;
        let launches = (0..config.batch.div_ceil(step)).map(|i| {
            let first = i * step;
            config.launch(&BACKWARD, 1, first..config.batch.min(first.saturating_add(step)), caps)
        });
        let launches = launches.collect::<Result<_>>()?;
        Ok(Plan { variant: config.variant(), launches, scratch: Vec::new() })
    }
}

impl Kernel for AddPositionBackward {
    type Args<'a> = AddPositionBackwardArgs<'a>;

    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording> {
        let [x, _, table, y] = self.config.counts();
        let list = [
            Arg::words("dy", args.dy, y),
            Arg::words("dtable", args.dtable, table),
            Arg::words("dx", args.dx, x),
        ];
        let mut recording = Recording::new();
        for launch in &self.plan.launches {
            recording.push(self.context.bind(launch, &list)?);
        }
        Ok(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_what_the_formulas_say() {
        let one = sin_cos_table(&[5], 6).unwrap();
        let angle = 4.0 * 10_000f64.powf(-2.0 / 3.0);
        assert_eq!(one[4 * 6 + 2], angle.sin() as f32);
        assert_eq!(one[4 * 6 + 5], angle.cos() as f32);
        // x first: the second token is at x = 1, y = 0.
        let two = sin_cos_table(&[2, 3], 8).unwrap();
        assert_eq!(
            two[8..12],
            [1f64.sin() as f32, 0.01f64.sin() as f32, 1f64.cos() as f32, 0.01f64.cos() as f32]
        );
        assert_eq!(two[12..16], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(two[4 * 8..][4..8], two[8..12]);
        // Twelve and four of ten: the axes after the cut have none.
        let three = sin_cos_table(&[2, 2, 2], 10).unwrap();
        assert_eq!(three.len(), 80);
        assert_eq!(three[7 * 10..][..4], three[7 * 10..][4..8]);
        assert_eq!(three[7 * 10 + 8], 1f64.sin() as f32);
    }

    #[test]
    fn wrong_grids_are_refused() {
        for (grid, width) in [(&[][..], 4), (&[0][..], 4), (&[3][..], 3), (&[2, 2][..], 6), (&[2; 4][..], 8)]
        {
            assert!(sin_cos_table(grid, width).is_err(), "{grid:?} {width}");
        }
        assert!(sin_cos_table(&[65_536, 65_536], 4).is_err());
    }
}
