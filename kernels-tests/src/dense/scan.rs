//! Reference and cases of `dense::scan`.

use patchfield::Kernel;
use patchfield::dense::scan::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "dense/scan";

/// `(prefix sum, prefix sum of the magnitudes)`.
pub fn reference(x: &[f64], exclusive: bool, reverse: bool) -> Vec<(f64, f64)> {
    let mut y = vec![(0.0, 0.0); x.len()];
    let (mut sum, mut size) = (0.0, 0.0);
    for i in 0..x.len() {
        let at = if reverse { x.len() - 1 - i } else { i };
        let before = (sum, size);
        sum += x[at];
        size += x[at].abs();
        y[at] = if exclusive { before } else { (sum, size) };
    }
    y
}

fn case(config: ScanConfig) -> Case {
    let name = format!(
        "{:?}, {}, exclusive {}, reverse {}",
        config.element, config.count, config.exclusive, config.reverse
    );
    Case::new(KERNEL, name, move |context, b| {
        let kernel = Scan::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&ScanArgs { x: b["x"], y: b["y"], scratch: &scratch })
    })
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the offset of the block before",
        kernel: "dense/scan",
        shader: "dense/scan::scan_blocks",
        find: "scan_block(group, local, offsets[group]);",
        replace: "scan_block(group, local, offsets[max(group, 1u) - 1u]);",
    },
    Canary {
        bug: "a missed barrier between the steps",
        kernel: "dense/scan",
        shader: "dense/scan::scan",
        find: "shared_sums[from_copy + local] = sum;
        workgroupBarrier();",
        replace: "shared_sums[from_copy + local] = sum;",
    },
    Canary {
        bug: "reversed from one place too far",
        kernel: "dense/scan",
        shader: "dense/scan::scan",
        find: "select(i, params.count - 1u - i,",
        replace: "select(i, params.count - i - select(1u, 0u, i > 0u),",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(6);
    let mut cases = Vec::new();
    // A block is 512 elements: one, two and three levels (262,144 fill two).
    let mut sizes = vec![1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1021, 4099];
    sizes.extend([262_144, 262_145]);
    for count in sizes {
        for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
            if count > 10_000 && exclusive == reverse {
                continue;
            }
            // All bits: sums wrap around.
            let words = random.u32s(count as usize);
            let mut y = vec![0u32; words.len()];
            let mut sum = 0u32;
            for i in 0..words.len() {
                let at = if reverse { words.len() - 1 - i } else { i };
                let next = sum.wrapping_add(words[at]);
                y[at] = if exclusive { sum } else { next };
                sum = next;
            }
            let config = ScanConfig { element: ScanElement::U32, count, exclusive, reverse };
            cases.push(case(config).read("x", Data::U32(words)).output("y", Expected::Exact(y)));

            let x = random.vec(count as usize, -2.0, 3.0);
            let wide: Vec<f64> = x.iter().map(|&v| v.into()).collect();
            let y = reference(&wide, exclusive, reverse);
            // Additions on the longest way of a term, each level: 8 in its invocation, 6 in the
            // tree or the scan, 9 after the offset; three levels.
            let config = ScanConfig { element: ScanElement::F32, count, exclusive, reverse };
            cases.push(case(config).input("x", &x).output("y", Expected::near(&y, 3.0 * 23.0, 1e-37)));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reverse_scan_is_the_transpose() {
        let (x, g) = ([1.0, -2.0, 0.5, 3.0], [0.3, 0.7, -1.1, 2.0]);
        for exclusive in [false, true] {
            let forward: f64 = reference(&x, exclusive, false).iter().zip(g).map(|(y, g)| y.0 * g).sum();
            let backward: f64 = reference(&g, exclusive, true).iter().zip(x).map(|(d, x)| d.0 * x).sum();
            assert!((forward - backward).abs() < 1e-12);
        }
    }
}
