//! Reference and cases of `dense::concatenate`.

use patchfield::Kernel;
use patchfield::dense::concatenate::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "dense/concatenate";

fn both(rows: u32, first: u32, second: u32, bias: bool, random: &mut Random) -> [Case; 2] {
    let config = ConcatenateConfig { rows, first, second, bias };
    let (n, p, q) = (rows as usize, first as usize, second as usize);
    let width = p + q;
    let [a, b] = [n * p, n * q].map(|n| random.vec(n, -1.0, 1.0));
    let shift = random.vec(width, -1.0, 1.0);
    let dy = random.vec(n * width, -1.0, 1.0);
    let (mut y, mut da, mut db) = (Vec::new(), Vec::new(), Vec::new());
    let mut dbias = vec![(0.0, 0.0); width];
    for r in 0..n {
        for c in 0..width {
            let v = if c < p { a[r * p + c] } else { b[r * q + c - p] };
            y.push(f64::from(v) + if bias { f64::from(shift[c]) } else { 0.0 });
            let g = f64::from(dy[r * width + c]);
            if c < p { &mut da } else { &mut db }.push((g, g.abs()));
            dbias[c] = (dbias[c].0 + g, dbias[c].1 + g.abs());
        }
    }
    let y: Vec<_> = y.into_iter().map(|v| (v, v.abs())).collect();
    let name = format!("{rows}x({first}+{second}), bias {bias}");
    let mut forward = Case::new(KERNEL, format!("forward {name}"), move |context, b| {
        ConcatenateForward::new(context, config)?.prepare(&ConcatenateForwardArgs {
            a: b["a"],
            b: b["b"],
            bias: bias.then(|| b["bias"]),
            y: b["y"],
        })
    })
    .input("a", &a)
    .input("b", &b)
    // One addition, or none.
    .output("y", Expected::near(&y, if bias { 1.0 } else { 0.0 }, 0.0));
    let mut backward = Case::new(KERNEL, format!("backward {name}"), move |context, b| {
        let kernel = ConcatenateBackward::new(context, config)?;
        kernel.prepare(&ConcatenateBackwardArgs {
            dy: b["dy"],
            da: b["da"],
            db: b["db"],
            dbias: bias.then(|| b["dbias"]),
            scratch: &b.scratch(&kernel)?,
        })
    })
    .input("dy", &dy)
    .output("da", Expected::near(&da, 0.0, 0.0))
    .output("db", Expected::near(&db, 0.0, 0.0));
    if bias {
        forward = forward.input("bias", &shift);
        // At most an addition a row.
        backward = backward.output("dbias", Expected::near(&dbias, f64::from(rows) * 0.5 + 1.0, 0.0));
    }
    [forward, backward]
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the second part with the first one's columns",
        kernel: KERNEL,
        shader: "dense/concatenate::concatenate",
        find: "b[row * params.second + column - params.first]",
        replace: "b[row * params.second + min(column, params.second - 1u)]",
    },
    Canary {
        bug: "the parts exchanged at the border",
        kernel: KERNEL,
        shader: "dense/concatenate::split",
        find: "column < params.first",
        replace: "column <= params.first",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(46);
    let shapes = [(1, 1, 1), (37, 4, 32), (101, 5, 3), (64, 4, 4), (65, 7, 8), (9, 100, 28)];
    let mut cases = Vec::new();
    for (rows, first, second) in shapes {
        for bias in [true, false] {
            cases.extend(both(rows, first, second, bias, &mut random));
        }
    }
    cases
}
