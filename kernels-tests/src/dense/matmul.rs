//! Reference and cases of `dense::matmul`.

use patchfield::Kernel;
use patchfield::dense::activation::Activation;
use patchfield::dense::matmul::*;

use super::activation;
use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// Value and magnitude (the sum of the terms' sizes) of each result before the activation.
pub fn reference(config: &MatmulConfig, a: &[f32], b: &[f32], c: &[f32], bias: &[f32]) -> Vec<(f64, f64)> {
    let [m, n, k] = [config.m, config.n, config.k].map(|v| v as usize);
    let mut out = Vec::with_capacity(c.len());
    for batch in 0..config.batch as usize {
        let a = if config.share_a { a } else { &a[batch * m * k..] };
        let b = if config.share_b { b } else { &b[batch * k * n..] };
        for row in 0..m {
            for column in 0..n {
                let (mut sum, mut size) = (0.0, 0.0);
                for i in 0..k {
                    let x = a[if config.transpose_a { i * m + row } else { row * k + i }];
                    let y = b[if config.transpose_b { column * k + i } else { i * n + column }];
                    let term = f64::from(x) * f64::from(y);
                    sum += term;
                    size += term.abs();
                }
                let scale = f64::from(config.scale);
                let (mut z, mut size) = (scale * sum, (scale * size).abs());
                let mut add = |v: f32| {
                    z += f64::from(v);
                    size += f64::from(v).abs();
                };
                if config.accumulate {
                    add(c[(batch * m + row) * n + column]);
                }
                if config.bias {
                    add(bias[column]);
                }
                out.push((z, size));
            }
        }
    }
    out
}

fn case(config: MatmulConfig, random: &mut Random) -> Case {
    let batch = |shared: bool| if shared { 1 } else { config.batch };
    // Of a long sum with signs a part that is left out would be lost in the bound.
    let low = if config.k > 60_000 { 0.0 } else { -1.0 };
    let mut matrix = |n: u32| {
        let v = random.vec(n as usize, low, 1.0);
        if config.half { v.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect() } else { v }
    };
    let a: Vec<f32> = matrix(batch(config.share_a) * config.m * config.k);
    let b: Vec<f32> = matrix(batch(config.share_b) * config.k * config.n);
    let c = random.vec((config.batch * config.m * config.n) as usize, -1.0, 1.0);
    let bias = random.vec(config.n as usize, -1.0, 1.0);
    let z = reference(&config, &a, &b, &c, &bias);
    // |a(z + e) - a(z)| <= 1.13 |e| for the activations of the cases; they add 8 units of their own.
    let y: Vec<(f64, f64)> =
        z.iter().map(|&(z, size)| (activation::reference(config.activation, z).0, 1.13 * size)).collect();
    // A sum of k terms rounds k times at the worst, then the slices, the scale, C and the bias.
    let ulps = f64::from(config.k + config.slices.unwrap_or(config.k.div_ceil(256)) + 3);
    let data = |v: &[f32]| if config.half { Data::f16(v) } else { Data::F32(v.to_vec()) };
    let name = format!("{config:?}");
    let mut case = Case::new("dense/matmul", name, move |context, buffers| {
        let kernel = Matmul::new(context, config)?;
        kernel.prepare(&MatmulArgs {
            a: buffers["a"],
            b: buffers["b"],
            bias: config.bias.then(|| buffers["bias"]),
            y: buffers["y"],
            kept: config.keep.then(|| buffers["kept"]),
            scratch: &buffers.scratch(&kernel)?,
        })
    })
    .read("a", data(&a))
    .read("b", data(&b));
    if config.bias {
        case = case.input("bias", &bias);
    }
    if config.keep {
        case = case.output("kept", Expected::near(&z, ulps, 0.0));
    }
    let expected = Expected::near(&y, ulps + 8.0, 0.0);
    if config.accumulate { case.update("y", Data::F32(c), expected) } else { case.output("y", expected) }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "an off-by-one tile edge",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "if row + r < params.m && column < params.n {",
        replace: "if row + r + 1u < params.m && column < params.n {",
    },
    Canary {
        bug: "a missed barrier after a tile is staged",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "store(staged, local);
        workgroupBarrier();",
        replace: "store(staged, local);",
    },
    Canary {
        bug: "a tile staged before the last one is read",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "workgroupBarrier();
        store(staged, local);",
        replace: "store(staged, local);",
    },
    Canary {
        bug: "a place in another row of the staged tile",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "quad ^ (k % 8u)",
        replace: "quad ^ k",
    },
    Canary {
        bug: "the last terms staged and not multiplied",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "k < end + STEP;",
        replace: "k < end;",
    },
    Canary {
        bug: "rows of invocations as in a narrower workgroup",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "local / 32u / ACROSS * 4u",
        replace: "local / 32u * 4u",
    },
    Canary {
        bug: "one block of results at another's place",
        kernel: "dense/matmul",
        shader: "dense/matmul::tiled",
        find: "sum01 = sum10;",
        replace: "sum01 = sum11;",
    },
    Canary {
        bug: "the row of the neighbouring lane",
        kernel: "dense/matmul",
        shader: "dense/matmul_packed::packed",
        find: "right, 7u);",
        replace: "right, 6u);",
    },
    Canary {
        bug: "padding of k that is not zero",
        kernel: "dense/matmul",
        shader: "dense/matmul_pack::pack",
        find: "if row < rows && column < columns {",
        replace: "if column < columns {",
    },
];

/// Cases large enough for the tiles of 64 x 64 and of 128 x 128 results on GPUs (the others have 32 x 32), with
/// edges within and between blocks of 4 x 4, sums that end within a step, every transposition. Most have
/// enough tiles by many slices, since that takes fewer results.
fn tile_cases(random: &mut Random) -> Vec<Case> {
    let base = MatmulConfig { variant: Some(MatmulVariant::Tiled), ..Default::default() };
    // The last slices have 10 and 26 terms of 16 and 32.
    let middle = MatmulConfig { m: 61, n: 126, k: 250, batch: 8, slices: Some(16), ..base };
    let large = MatmulConfig { m: 253, n: 122, k: 506, batch: 4, slices: Some(16), ..base };
    let mut cases = Vec::new();
    for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
        for plain in [middle, large] {
            cases.push(case(MatmulConfig { transpose_a, transpose_b, ..plain }, random));
        }
    }
    for sliced in [middle, large] {
        cases.push(case(MatmulConfig { half: true, share_a: true, bias: true, ..sliced }, random));
        let whole = MatmulConfig {
            k: 5,
            batch: 16 * sliced.batch,
            slices: Some(1),
            transpose_b: true,
            scale: 0.7,
            accumulate: true,
            bias: true,
            keep: true,
            activation: Activation::Gelu,
            ..sliced
        };
        cases.push(case(whole, random));
    }
    // Tiles of 128 would be mostly empty here: tiles of 64, then of 32.
    cases.push(case(MatmulConfig { m: 64 * 260 - 3, n: 50, k: 9, ..base }, random));
    cases.push(case(MatmulConfig { m: 3, n: 128 * 130, k: 9, ..base }, random));
    cases
}

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(31);
    let mut cases = Vec::new();
    let base = MatmulConfig::default();
    for variant in [MatmulVariant::Naive, MatmulVariant::Tiled, MatmulVariant::Subgroup] {
        let base = MatmulConfig { variant: Some(variant), ..base };
        for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let base = MatmulConfig { transpose_a, transpose_b, ..base };
            // Around the edges of the tiles (16, 32, 64), primes, one row, one column, one term.
            for [m, n, k] in
                [[1, 1, 1], [16, 32, 16], [15, 31, 17], [17, 33, 15], [4, 68, 20], [67, 3, 61], [1, 97, 5]]
            {
                cases.push(case(MatmulConfig { m, n, k, ..base }, &mut random));
            }
            // Batched, sliced, with everything.
            let whole = MatmulConfig {
                m: 20,
                n: 36,
                k: 72,
                batch: 3,
                share_b: true,
                scale: 0.7,
                bias: true,
                keep: true,
                activation: Activation::Gelu,
                ..base
            };
            cases.push(case(MatmulConfig { slices: Some(1), ..whole }, &mut random));
            cases.push(case(
                MatmulConfig { slices: Some(3), share_a: true, share_b: false, ..whole },
                &mut random,
            ));
            let add = MatmulConfig { accumulate: true, m: 9, n: 5, k: 700, scale: -0.5, ..base };
            cases.push(case(add, &mut random));
            cases.push(case(MatmulConfig { half: true, m: 33, n: 40, k: 24, ..base }, &mut random));
        }
        // A sum of more rounds than Mesa's llvmpipe lets an invocation have, were it not sliced.
        cases.push(case(MatmulConfig { m: 4, n: 4, k: 66_000, slices: Some(1), ..base }, &mut random));
    }
    cases.extend(tile_cases(&mut random));
    // Around the edges of the panels (32, 64), sums that end within four terms, every transposition,
    // with and without an epilogue.
    let base = MatmulConfig { variant: Some(MatmulVariant::Packed), ..base };
    for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let base = MatmulConfig { transpose_a, transpose_b, ..base };
        for [m, n, k] in [[4, 4, 4], [32, 64, 16], [28, 60, 20], [36, 68, 12], [100, 36, 24]] {
            cases.push(case(MatmulConfig { m, n, k, ..base }, &mut random));
        }
        let whole = MatmulConfig {
            m: 36,
            n: 132,
            k: 72,
            batch: 3,
            share_a: transpose_a,
            share_b: transpose_b,
            scale: 0.7,
            bias: true,
            keep: true,
            activation: Activation::Gelu,
            ..base
        };
        cases.push(case(MatmulConfig { slices: Some(1), ..whole }, &mut random));
        let add = MatmulConfig { accumulate: true, batch: 2, m: 40, n: 8, k: 700, scale: -0.5, ..base };
        cases.push(case(MatmulConfig { slices: Some(3), ..add }, &mut random));
        cases.push(case(MatmulConfig { half: true, m: 32, n: 40, k: 24, ..base }, &mut random));
    }
    // A is [k, m] and B is [k, n]: k need not be a multiple of 4, nor m where B's rows are.
    for k in [1, 7, 18] {
        let config = MatmulConfig { m: 36, n: 68, k, batch: 2, transpose_a: true, ..base };
        cases.push(case(config, &mut random));
    }
    cases.push(case(MatmulConfig { m: 33, n: 68, k: 20, ..base }, &mut random));
    // What a large product takes by itself.
    let large = MatmulConfig { variant: None, m: 224, n: 196, k: 44, ..base };
    cases.push(case(large, &mut random));
    cases
}
