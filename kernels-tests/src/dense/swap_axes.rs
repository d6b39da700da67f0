//! Cases of `dense::swap_axes`.

use patchfield::Kernel;
use patchfield::dense::swap_axes::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// `[a, b, width]` to `[b, a, width]`.
pub fn swap_axes<T: Copy>(x: &[T], [a, b, width]: [usize; 3]) -> Vec<T> {
    let row = |j: usize, i: usize| x[(i * b + j) * width..][..width].iter().copied();
    (0..b).flat_map(|j| (0..a).flat_map(move |i| row(j, i))).collect()
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the wrong axis as the stride",
        kernel: "dense/swap_axes",
        shader: "dense/swap_axes::swap",
        find: "x[(i * params.b + j) * params.width + c]",
        replace: "x[(i * params.a + j) * params.width + c]",
    },
    Canary {
        bug: "one row for all columns of it",
        kernel: "dense/swap_axes",
        shader: "dense/swap_axes::swap",
        find: "* params.width + c]",
        replace: "* params.width]",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(63);
    let shapes = [[1, 1, 1], [7, 3, 1], [3, 5, 4], [13, 2, 9], [2, 31, 64], [5, 5, 63]];
    let case = |shape: [u32; 3]| {
        let [a, b, width] = shape;
        let config = SwapAxesConfig { a, b, width };
        let x = random.u32s((a * b * width) as usize);
        let y = swap_axes(&x, shape.map(|v| v as usize));
        Case::new("dense/swap_axes", format!("{shape:?}"), move |context, buffers| {
            SwapAxes::new(context, config)?.prepare(&SwapAxesArgs { x: buffers["x"], y: buffers["y"] })
        })
        .read("x", Data::U32(x))
        .output("y", Expected::Exact(y))
    };
    shapes.map(case).into()
}
