//! Reference and cases of `dense::inverted_index`.

use patchfield::Kernel;
use patchfield::dense::inverted_index::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "dense/inverted_index";

/// Places by row, those of no row last; and where each row's begin.
pub fn reference(index: &[u32], rows: u32) -> (Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..index.len() as u32).collect();
    order.sort_by_key(|&at| index[at as usize].min(rows));
    let before = |row| index.iter().filter(|&&i| i < row).count() as u32;
    (order, (0..=rows).map(before).collect())
}

fn case(rows: u32, n: u32, outside: bool, random: &mut Random) -> Case {
    let index: Vec<u32> = (0..n)
        .map(|i| if outside && i % 7 == 3 { [rows, u32::MAX][i as usize % 2] } else { random.below(rows) })
        .collect();
    let (order, starts) = reference(&index, rows);
    let config = InvertedIndexConfig { rows, n };
    Case::new(KERNEL, format!("{rows} rows, {n} places, some outside: {outside}"), move |context, b| {
        let kernel = InvertedIndex::new(context, config)?;
        kernel.prepare(&InvertedIndexArgs {
            index: b["index"],
            order: b["order"],
            starts: b["starts"],
            scratch: &b.scratch(&kernel)?,
        })
    })
    .read("index", Data::U32(index))
    .output("order", Expected::Exact(order))
    .output("starts", Expected::Exact(starts))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "lists that begin one place late",
        kernel: KERNEL,
        shader: "dense/gather::row_starts",
        find: "sorted[middle] < row",
        replace: "sorted[middle] <= row",
    },
    Canary {
        bug: "keys beyond the last row left as they are",
        kernel: KERNEL,
        shader: "dense/gather::clamp_index",
        find: "min(index[i], params.rows)",
        replace: "index[i]",
    },
    Canary {
        bug: "one list start too few",
        kernel: KERNEL,
        shader: "dense/gather::row_starts",
        find: "row < params.count",
        replace: "row + 1u < params.count",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(47);
    let sizes = [(1, 1), (3, 64), (257, 63), (1000, 4097), (2, 5000), (70_000, 300)];
    let mut cases = Vec::new();
    for (rows, n) in sizes {
        for outside in [false, true] {
            cases.push(case(rows, n, outside, &mut random));
        }
    }
    cases
}
