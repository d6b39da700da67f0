//! References and cases of `dense::gather`.

use patchfield::Kernel;
use patchfield::dense::gather::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "dense/gather";

/// Rows of `x` by index; zeros for an index out of range.
pub fn gather<T: Copy + Default>(x: &[T], index: &[u32], width: usize) -> Vec<T> {
    index
        .iter()
        .flat_map(|&row| {
            let start = row as usize * width;
            let row = x.get(start..start + width).map(<[T]>::to_vec);
            row.unwrap_or_else(|| vec![T::default(); width])
        })
        .collect()
}

/// `(sum, sum of the magnitudes)` for each element of the table, beginning with `dx`.
pub fn scatter_add(dy: &[f64], index: &[u32], dx: &[f64], width: usize) -> Vec<(f64, f64)> {
    let mut out: Vec<_> = dx.iter().map(|v| (*v, v.abs())).collect();
    for (row, dy) in index.iter().zip(dy.chunks(width)) {
        let start = *row as usize * width;
        if let Some(out) = out.get_mut(start..start + width) {
            for (out, v) in out.iter_mut().zip(dy) {
                *out = (out.0 + v, out.1 + v.abs());
            }
        }
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Index {
    /// Any row, and one in eight out of range.
    Any,
    /// Nearly all the same row.
    One,
    /// A row as often as its number is small, from the last to the first.
    Falling,
    /// All out of range.
    Outside,
}

fn indices(kind: Index, rows: u32, n: u32, random: &mut Random) -> Vec<u32> {
    let outside = [rows, rows.saturating_add(1), 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
    let mut index: Vec<u32> = (0..n)
        .map(|_| match kind {
            Index::Any if random.below(8) > 0 => random.below(rows),
            Index::One if random.below(500) > 0 => rows / 2,
            Index::Falling => random.below(rows).min(random.below(rows)),
            _ => outside[random.below(6) as usize],
        })
        .collect();
    if kind == Index::Falling {
        index.sort_unstable_by(|a, b| b.cmp(a));
    }
    index
}

type Shape = [u32; 3];

fn gather_case(shape: Shape, kind: Index, variant: Option<GatherVariant>, random: &mut Random) -> Case {
    let [rows, n, width] = shape;
    let config = GatherConfig { rows, n, width, variant };
    // Any bits: NaN and denormals must come through.
    let x = random.u32s((rows * width) as usize);
    let index = indices(kind, rows, n, random);
    let y = gather(&x, &index, width as usize);
    Case::new(KERNEL, format!("gather {shape:?} {kind:?} {variant:?}"), move |context, b| {
        Gather::new(context, config)?.prepare(&GatherArgs { x: b["x"], index: b["index"], y: b["y"] })
    })
    .read("x", Data::U32(x))
    .read("index", Data::U32(index))
    .output("y", Expected::Exact(y))
}

fn scatter_case(shape: Shape, kind: Index, variant: Option<GatherVariant>, random: &mut Random) -> Case {
    let [rows, n, width] = shape;
    let accumulate = n % 2 == 1;
    let config = ScatterAddConfig { gather: GatherConfig { rows, n, width, variant }, accumulate };
    let dy = random.vec((n * width) as usize, -2.0, 3.0);
    let index = indices(kind, rows, n, random);
    let before = random.vec((rows * width) as usize, -1.0, 1.0);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let start = if accumulate { wide(&before) } else { vec![0.0; before.len()] };
    let dx = scatter_add(&wide(&dy), &index, &start, width as usize);
    let name = format!("scatter {shape:?} {kind:?} {variant:?} accumulate {accumulate}");
    let case = Case::new(KERNEL, name, move |context, b| {
        let kernel = ScatterAdd::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&ScatterAddArgs { dy: b["dy"], index: b["index"], dx: b["dx"], scratch: &scratch })
    })
    .input("dy", &dy)
    .read("index", Data::U32(index));
    // Additions on the longest way of a term: 31 in its block, 31 in its span, and the walk of at
    // most 4 * 31 short steps and n / 1024 long ones; never more than there are terms.
    let walk = 186.0 + f64::from(n) / 1024.0;
    let expected = Expected::near(&dx, walk.min(f64::from(n)) + 1.0, 1e-37);
    if accumulate { case.update("dx", Data::F32(before), expected) } else { case.output("dx", expected) }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "a step that skips elements of a row",
        kernel: "dense/gather",
        shader: "dense/gather::add_rows",
        find: "if k % SPAN == 0u && left >= SPAN {",
        replace: "if k % SPAN == 0u && left + 1u >= SPAN {",
    },
    Canary {
        bug: "an index beyond the last row read as the last",
        kernel: "dense/gather",
        shader: "dense/gather::gather",
        find: "if row < params.rows {",
        replace: "if row <= params.rows {",
    },
    Canary {
        bug: "what was there forgotten",
        kernel: "dense/gather",
        shader: "dense/gather::add_rows",
        find: "if params.accumulate == 1u {",
        replace: "if params.accumulate == 2u {",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(8);
    let mut cases = Vec::new();
    // [rows, n, width]; blocks are of 32 and 1,024 elements.
    let shapes = [
        [1, 1, 1],
        [3, 31, 1],
        [2, 32, 3],
        [5, 33, 2],
        [16, 63, 1],
        [15, 64, 7],
        [17, 65, 1],
        [1000, 100, 5],
        [97, 1023, 3],
        [1, 1024, 1],
        [4, 5003, 2],
        [3, 4, 4],
        [7, 257, 8],
        [2, 2111, 12],
        [1009, 509, 64],
    ];
    let kinds = [Index::Any, Index::One, Index::Falling, Index::Outside];
    for (i, shape) in shapes.into_iter().enumerate() {
        for kind in kinds {
            cases.push(scatter_case(shape, kind, None, &mut random));
        }
        cases.push(gather_case(shape, kinds[i % 4], None, &mut random));
        cases.push(gather_case(shape, Index::Any, None, &mut random));
    }
    for kind in kinds {
        cases.push(scatter_case([50, 3001, 4], kind, Some(GatherVariant::Scalar), &mut random));
        cases.push(gather_case([50, 301, 4], kind, Some(GatherVariant::Scalar), &mut random));
    }
    // 65,538 workgroups: two rows of the grid.
    cases.push(gather_case([3, 65_537, 64], Index::Any, Some(GatherVariant::Scalar), &mut random));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scatter_add_is_the_transpose_of_gather() {
        let mut random = Random::new(9);
        let index = indices(Index::Any, 5, 40, &mut random);
        let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<_>>();
        let (x, g) = (wide(random.vec(15, -1.0, 1.0)), wide(random.vec(120, -1.0, 1.0)));
        let forward: f64 = gather(&x, &index, 3).iter().zip(&g).map(|(y, g)| y * g).sum();
        let backward: f64 = scatter_add(&g, &index, &[0.0; 15], 3).iter().zip(&x).map(|(d, x)| d.0 * x).sum();
        assert!((forward - backward).abs() < 1e-12);
    }
}
