//! Reference and cases of `dense::reduce`.

use patchfield::Kernel;
use patchfield::dense::reduce::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "dense/reduce";

/// `(y, sum of |terms|, index of the first maximum)` of one column.
pub fn reference(reduction: Reduction, column: &[f64]) -> (f64, f64, usize) {
    let n = column.len() as f64;
    let sum: f64 = column.iter().sum();
    let size: f64 = column.iter().map(|v| v.abs()).sum();
    match reduction {
        Reduction::Sum => (sum, size, 0),
        Reduction::Mean => (sum / n, size / n, 0),
        Reduction::L2Norm => {
            let norm = column.iter().map(|v| v * v).sum::<f64>().sqrt();
            (norm, norm, 0)
        }
        Reduction::Max => {
            let mut best = 0;
            for (k, v) in column.iter().enumerate() {
                if !column[best].is_nan() && (v.is_nan() || *v > column[best]) {
                    best = k;
                }
            }
            (column[best], column[best].abs(), best)
        }
    }
}

/// Roundings on the longest way of a term into the result, one pass: a run of 32, the runs of an
/// invocation, and the tree of 64 or the four of an item (of which there are a fourth as many).
fn depth(n: u32) -> f64 {
    32.0 + f64::from(n.min(4096)) / 32.0 + 6.0
}

struct Row {
    reduction: Reduction,
    shape: [u32; 3],
    variant: Option<ReduceVariant>,
    part: Option<u32>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Random,
    /// NaN, infinities, ties, zeros of both signs, whole columns of zeros.
    Special,
}

impl Row {
    fn cases(&self, random: &mut Random) -> [Case; 2] {
        let [outer, n, inner] = self.shape;
        let Self { reduction, variant, part, .. } = *self;
        let config = ReduceConfig { reduction, outer, n, inner, variant, part };
        let mut x = random.vec((outer * n * inner) as usize, -3.0, 5.0);
        if self.kind == Kind::Special {
            let odd = [f32::NAN, 5.0, -0.0, 0.0, f32::NEG_INFINITY, f32::INFINITY, -f32::NAN, 1e-30];
            for v in &mut x {
                *v = match random.below(6) {
                    0 if reduction == Reduction::Max => odd[random.below(8) as usize],
                    0 => f32::NAN,
                    1 => 5.0,
                    _ => (*v * 2.0).round() / 2.0,
                };
            }
            // Whole columns of zeros of both signs.
            for o in (0..outer).step_by(2) {
                for k in 0..n {
                    x[((o * n + k) * inner) as usize] = if k % 3 == 0 { -0.0 } else { 0.0 };
                }
            }
        }
        let dy = random.vec((outer * inner) as usize, -2.0, 2.0);
        let at = |o: u32, k: u32, i: u32| ((o * n + k) * inner + i) as usize;
        let (mut y, mut index) = (Vec::new(), Vec::new());
        let mut dx = vec![(0.0, 0.0); x.len()];
        // What the backward pass of the norm reads: the norm rounded to f32.
        let mut rounded = Vec::new();
        for o in 0..outer {
            for i in 0..inner {
                let column: Vec<f64> = (0..n).map(|k| x[at(o, k, i)].into()).collect();
                let (value, size, first) = reference(reduction, &column);
                y.push((value, size));
                rounded.push(value as f32);
                index.push(first as u32);
                let g = f64::from(dy[(o * inner + i) as usize]);
                let norm = f64::from(value as f32);
                for k in 0..n {
                    let d = match reduction {
                        Reduction::Sum => g,
                        Reduction::Mean => g / f64::from(n),
                        Reduction::L2Norm if norm == 0.0 => 0.0,
                        Reduction::L2Norm => column[k as usize] / norm * g,
                        Reduction::Max => g * f64::from(k as usize == first),
                    };
                    dx[at(o, k, i)] = (d, d.abs());
                }
            }
        }
        let is_max = reduction == Reduction::Max;
        let is_norm = reduction == Reduction::L2Norm;
        let name = format!("{reduction:?} {:?} {variant:?} part {part:?} {:?}", self.shape, self.kind);
        let forward = Case::new(KERNEL, format!("forward {name}"), move |context, b| {
            let kernel = ReduceForward::new(context, config)?;
            let scratch = b.scratch(&kernel)?;
            let index = is_max.then(|| b["index"]);
            kernel.prepare(&ReduceForwardArgs { x: b["x"], y: b["y"], index, scratch: &scratch })
        })
        .input("x", &x);
        // A maximum is one of the inputs. Of sums each pass adds its depth, two passes at the most
        // in these tables but for the shortest parts (which are shallow); squares, root and mean
        // round thrice more.
        let ulps = if is_max { 0.0 } else { 2.0 * depth(n) + 3.0 };
        let mut forward = forward.output("y", Expected::near(&y, ulps, if is_max { 0.0 } else { 1e-37 }));
        if is_max {
            forward = forward.output("index", Expected::Exact(index.clone()));
        }
        let mut backward = Case::new(KERNEL, format!("backward {name}"), move |context, b| {
            ReduceBackward::new(context, config)?.prepare(&ReduceBackwardArgs {
                dy: b["dy"],
                x: is_norm.then(|| b["x"]),
                y: is_norm.then(|| b["y"]),
                index: is_max.then(|| b["index"]),
                dx: b["dx"],
            })
        })
        .input("dy", &dy);
        if is_norm {
            backward = backward.input("x", &x).input("y", &rounded);
        }
        if is_max {
            backward = backward.read("index", Data::U32(index));
        }
        // The norm: a division (2.5 ulp = 5 units in WGSL) and a product; the mean: 1 / n rounded,
        // and a product.
        let backward = backward.output("dx", Expected::near(&dx, if is_norm { 6.1 } else { 2.1 }, 1e-37));
        [forward, backward]
    }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the last of equal maxima for the first",
        kernel: "dense/reduce",
        shader: "dense/reduce::max_columns",
        find: "let take = r > best.rank;",
        replace: "let take = r >= best.rank;",
    },
    Canary {
        bug: "the rest of the last run added",
        kernel: "dense/reduce",
        shader: "dense/reduce::sum_columns",
        find: "select(v, v * v, params.square == 1u), m + j < length)",
        replace: "select(v, v * v, params.square == 1u), m + j <= length)",
    },
    Canary {
        bug: "a missed barrier in a tree",
        kernel: "dense/reduce",
        shader: "dense/reduce::sum_rows",
        find: "workgroupBarrier();
    }
    if local == 0u {
        y[group] = finish_one",
        replace: "}
    if local == 0u {
        y[group] = finish_one",
    },
    Canary {
        bug: "a gradient of NaN where the norm is 0",
        kernel: "dense/reduce",
        shader: "dense/reduce::norm_backward",
        find: "norm_gradient(input[at], size, g)",
        replace: "(input[at] / size * g)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(5);
    let mut cases = Vec::new();
    let shapes = [
        [1, 1, 1],
        [3, 1, 5],
        [1, 63, 1],
        [1, 64, 1],
        [2, 65, 1],
        [5, 127, 3],
        [2, 33, 64],
        [2, 37, 260],
        [1, 1024, 1],
        [3, 9, 4],
        [3, 40, 65],
        [1, 1009, 17],
        [70, 2, 1],
    ];
    for reduction in [Reduction::Sum, Reduction::Mean, Reduction::L2Norm, Reduction::Max] {
        let mut add = |shape, variant, part, kind| {
            cases.extend(Row { reduction, shape, variant, part, kind }.cases(&mut random));
        };
        for shape in shapes {
            for variant in [ReduceVariant::Columns, ReduceVariant::Rows] {
                add(shape, Some(variant), None, Kind::Random);
            }
        }
        for variant in [ReduceVariant::Columns, ReduceVariant::Rows] {
            add([4, 130, 3], Some(variant), None, Kind::Special);
            // Two, three and seven passes, with ragged ends.
            add([2, 130, 3], Some(variant), Some(64), Kind::Special);
            add([2, 101, 7], Some(variant), Some(5), Kind::Random);
            add([1, 127, 1], Some(variant), Some(2), Kind::Special);
        }
        add([1, 100_003, 1], None, None, Kind::Random);
        add([1, 3001, 32], None, None, Kind::Random);
        // 70,001 workgroups: two rows of the grid.
        if reduction == Reduction::Max {
            add([70_001, 2, 1], Some(ReduceVariant::Rows), None, Kind::Random);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_the_norm_agrees_with_finite_differences() {
        let x = [0.5, -1.5, 2.0];
        let norm = reference(Reduction::L2Norm, &x).0;
        for k in 0..3 {
            let moved = |h: f64| {
                let mut x = x;
                x[k] += h;
                reference(Reduction::L2Norm, &x).0
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - x[k] / norm).abs() < 1e-8);
        }
    }
}
