//! Reference and cases of `attention::window_attention`.
//!
//! The reference does literally what the published code does: pad, roll, partition, attend, put back,
//! unroll, crop. It shares no index arithmetic with the kernel.

use patchfield::Kernel;
use patchfield::attention::*;

use super::small_attention::{Dense, Term, VARIANTS, accumulate, reference, roundings, row};
use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// Where a cell of the padded, rolled grid comes from: a row of the batch's grid, or nothing (padding).
type Cell = Option<usize>;

/// A grid as nested lists `[x][y][z]`.
type Grid<T> = Vec<Vec<Vec<T>>>;

/// `torch.roll(x, -shift)` along each axis.
fn roll<T: Clone>(grid: &Grid<T>, shift: [usize; 3]) -> Grid<T> {
    let mut out = grid.clone();
    out.rotate_left(shift[0]);
    for plane in &mut out {
        plane.rotate_left(shift[1]);
        for line in plane {
            line.rotate_left(shift[2]);
        }
    }
    out
}

/// The windows of a grid in order, each a list of its cells.
fn partition<T: Clone>(grid: &Grid<T>, w: [usize; 3]) -> Vec<Vec<T>> {
    let mut out = Vec::new();
    for planes in grid.chunks(w[0]) {
        for y in (0..planes[0].len()).step_by(w[1]) {
            for z in (0..planes[0][0].len()).step_by(w[2]) {
                let lines = planes.iter().flat_map(|plane| &plane[y..y + w[1]]);
                out.push(lines.flat_map(|line| line[z..z + w[2]].iter().cloned()).collect());
            }
        }
    }
    out
}

/// The cells of each window with the number of their region, for one grid whose rows begin at `first`.
fn windows(config: &WindowAttentionConfig, first: usize) -> Vec<Vec<(Cell, usize)>> {
    let [grid, window, shift] = [config.grid, config.window, config.shift].map(|a| a.map(|n| n as usize));
    let padded: Vec<usize> = (0..3).map(|a| grid[a].div_ceil(window[a]) * window[a]).collect();
    let shift: Vec<usize> = (0..3).map(|a| if window[a] >= padded[a] { 0 } else { shift[a] }).collect();
    let shift = [shift[0], shift[1], shift[2]];
    let mut next = first;
    let mut cells: Grid<Cell> = vec![vec![vec![None; padded[2]]; padded[1]]; padded[0]];
    for plane in cells.iter_mut().take(grid[0]) {
        for line in plane.iter_mut().take(grid[1]) {
            for cell in line.iter_mut().take(grid[2]) {
                *cell = Some(next);
                next += 1;
            }
        }
    }
    // The published image of regions: a counter over the products of three slices an axis.
    let mut regions: Grid<usize> = vec![vec![vec![0; padded[2]]; padded[1]]; padded[0]];
    let slices = |axis: usize| {
        let (p, w, s) = (padded[axis], window[axis], shift[axis]);
        if s == 0 { std::iter::once(0..p).collect() } else { vec![0..p - w, p - w..p - s, p - s..p] }
    };
    let mut count = 0;
    for xs in slices(0) {
        for ys in slices(1) {
            for zs in slices(2) {
                for x in xs.clone() {
                    for y in ys.clone() {
                        regions[x][y][zs.clone()].fill(count);
                    }
                }
                count += 1;
            }
        }
    }
    let cells = partition(&roll(&cells, shift), window);
    let regions = partition(&regions, window);
    cells.into_iter().zip(regions).map(|(c, r)| c.into_iter().zip(r).collect()).collect()
}

/// What the reference gives, in the layouts of the kernel.
struct Outputs {
    o: Vec<Term>,
    lse: Vec<Term>,
    dq: Vec<Term>,
    dk: Vec<Term>,
    dv: Vec<Term>,
    dtable: Vec<Term>,
}

struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    table: Vec<f32>,
    dout: Vec<f32>,
}

fn dense(config: &WindowAttentionConfig, x: &Inputs) -> Outputs {
    let [heads, dim, batch] = [config.heads, config.head_dim, config.batch].map(|n| n as usize);
    let cells = config.grid.iter().product::<u32>() as usize;
    let rows = cells * batch;
    let scale = config.scale.map_or_else(|| 1.0 / f64::from(config.head_dim).sqrt(), f64::from);
    let w = config.window.map(|n| n as i64);
    let place = |i: usize| {
        let i = i as i64;
        [i / (w[1] * w[2]), i / w[2] % w[1], i % w[2]]
    };
    let entry = |i: usize, j: usize| {
        let (a, b) = (place(i), place(j));
        let d = [0, 1, 2].map(|axis| a[axis] - b[axis] + w[axis] - 1);
        ((d[0] * (2 * w[1] - 1) + d[1]) * (2 * w[2] - 1) + d[2]) as usize
    };
    let mut out = Outputs {
        o: vec![(0.0, 0.0); rows * heads * dim],
        lse: vec![(0.0, 0.0); rows * heads],
        dq: vec![(0.0, 0.0); x.q.len()],
        dk: vec![(0.0, 0.0); x.q.len()],
        dv: vec![(0.0, 0.0); x.q.len()],
        dtable: vec![(0.0, 0.0); x.table.len()],
    };
    for grid in 0..batch {
        for window in windows(config, grid * cells) {
            for head in 0..heads {
                let get = |data: &[f32], missing: usize| -> Vec<Vec<f64>> {
                    window
                        .iter()
                        .map(|(cell, _)| row(data, heads, dim, cell.unwrap_or(missing), head))
                        .collect()
                };
                // Padding's query is any vector and its output is cropped: the gradient is 0.
                let crop = |data: &[f32]| -> Vec<Vec<f64>> {
                    let zero = || vec![0.0; dim];
                    window
                        .iter()
                        .map(|(c, _)| c.map_or_else(zero, |c| row(data, heads, dim, c, head)))
                        .collect()
                };
                let addends = |i: usize, j: usize| {
                    let mut all = Vec::new();
                    if config.table {
                        all.push(f64::from(x.table[entry(i, j) * heads + head]));
                    }
                    if window[i].1 != window[j].1 {
                        all.push(f64::from(config.mask));
                    }
                    all
                };
                let r = reference(&Dense {
                    tokens: window.len(),
                    dim,
                    scale,
                    q: crop(&x.q),
                    k: get(&x.k, rows),
                    v: get(&x.v, rows),
                    dout: crop(&x.dout),
                    addends: &addends,
                    keys: vec![true; window.len()],
                });
                for (i, (cell, _)) in window.iter().enumerate() {
                    let at = cell.unwrap_or(rows);
                    accumulate(&mut out.dk, heads, dim, at, head, &r.dk[i]);
                    accumulate(&mut out.dv, heads, dim, at, head, &r.dv[i]);
                    if cell.is_none() {
                        continue;
                    }
                    accumulate(&mut out.o, heads, dim, at, head, &r.o[i]);
                    accumulate(&mut out.dq, heads, dim, at, head, &r.dq[i]);
                    out.lse[at * heads + head] = r.lse[i];
                    if config.table {
                        for (j, ds) in r.ds[i].iter().enumerate() {
                            let sum = &mut out.dtable[entry(i, j) * heads + head];
                            *sum = (sum.0 + ds.0, sum.1 + ds.1);
                        }
                    }
                }
            }
        }
    }
    out
}

fn inputs(config: &WindowAttentionConfig, random: &mut Random) -> Inputs {
    let cells = config.batch * config.grid.iter().product::<u32>();
    let width = config.heads * config.head_dim;
    let count = ((cells + u32::from(config.is_padded())) * width) as usize;
    let table = if config.table { config.table_entries() * config.heads } else { 0 } as usize;
    let mut vec = |n: usize, size: f32| {
        let v = random.vec(n, -size, size);
        if config.half { v.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect() } else { v }
    };
    Inputs {
        q: vec(count, 1.5),
        k: vec(count, 1.5),
        v: vec(count, 1.0),
        table: vec(table, 1.0),
        dout: vec((cells * width) as usize, 1.0),
    }
}

fn pair(config: WindowAttentionConfig, random: &mut Random) -> [Case; 2] {
    let x = inputs(&config, random);
    let expected = dense(&config, &x);
    let tokens = config.window.iter().product::<u32>();
    let ulps = roundings(config.head_dim, tokens);
    let name = format!("{config:?}");
    let data = |v: &[f32]| if config.half { Data::f16(v) } else { Data::F32(v.to_vec()) };
    let with = |case: Case, name, expected| {
        if config.half { case.output_f16(name, expected) } else { case.output(name, expected) }
    };
    let fill = |case: Case| {
        case.read("q", data(&x.q)).read("k", data(&x.k)).read("v", data(&x.v)).input("table", &x.table)
    };
    let forward = Case::new("attention/window_attention", format!("forward {name}"), move |context, b| {
        let kernel = WindowAttentionForward::new(context, config)?;
        kernel.prepare(&WindowAttentionForwardArgs {
            q: b["q"],
            k: b["k"],
            v: b["v"],
            table: config.table.then(|| b["table"]),
            o: b["o"],
            lse: b["lse"],
            scratch: &b.scratch(&kernel)?,
        })
    });
    let forward = fill(forward).output("lse", Expected::near(&expected.lse, ulps, 0.0));
    let forward = with(forward, "o", Expected::near(&expected.o, ulps, 1e-37));
    let rows = expected.lse.len() as u64;
    let outputs = expected.o.len() as u64 * if config.half { 2 } else { 4 };
    let backward = Case::new("attention/window_attention", format!("backward {name}"), move |context, b| {
        let forward = WindowAttentionForward::new(context, config)?;
        let backward = WindowAttentionBackward::new(context, config)?;
        let o = context.create_storage("o", outputs)?;
        let lse = context.create_storage("lse", rows * 4)?;
        let (o, lse) = ((&o).into(), (&lse).into());
        let (q, k, v) = (b["q"], b["k"], b["v"]);
        let table = config.table.then(|| b["table"]);
        let scratch = b.scratch(&forward)?;
        let args = WindowAttentionForwardArgs { q, k, v, table, o, lse, scratch: &scratch };
        let mut recording = forward.prepare(&args)?;
        recording.append(backward.prepare(&WindowAttentionBackwardArgs {
            q,
            k,
            v,
            table,
            o,
            lse,
            dout: b["dout"],
            dq: b["dq"],
            dk: b["dk"],
            dv: b["dv"],
            dtable: config.table.then(|| b["dtable"]),
            scratch: &b.scratch(&backward)?,
        })?);
        Ok(recording)
    });
    // Sums over the tokens of sums over a head's elements, with f16 as in small_attention; those of the
    // table and of padding go over a slice's windows and then over the slices.
    let ulps = 2.0 * ulps + if config.half { 4096.0 } else { 0.0 };
    let more = ulps + 64.0;
    let backward = fill(backward).read("dout", data(&x.dout));
    let backward = with(backward, "dq", Expected::near(&expected.dq, ulps, 1e-37));
    let backward = with(backward, "dk", Expected::near(&expected.dk, more, 1e-37));
    let backward = with(backward, "dv", Expected::near(&expected.dv, more, 1e-37));
    if !config.table {
        return [forward, backward];
    }
    [forward, backward.output("dtable", Expected::near(&expected.dtable, more, 1e-37))]
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the table read transposed",
        kernel: "attention/window_attention",
        shader: "attention/window_attention::spread",
        find: "pair_bias(x, i, head)",
        replace: "pair_bias(i, x, head)",
    },
    Canary {
        bug: "a pair of the table's last row left out",
        kernel: "attention/window_attention",
        shader: "attention/window_attention::table_gradient",
        find: "if x < WINDOW_X",
        replace: "if x + 1u < max(WINDOW_X, 2u)",
    },
    Canary {
        bug: "a missed barrier",
        kernel: "attention/window_attention",
        shader: "attention/window_attention::pad_gradient",
        find: "workgroupBarrier();
        if local < stride { pad_parts",
        replace: "if local < stride { pad_parts",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(47);
    let mut cases = Vec::new();
    let base = WindowAttentionConfig::default();
    for variant in VARIANTS {
        let base = WindowAttentionConfig { variant: Some(variant), ..base };
        for (batch, grid, window, shift, heads, head_dim, table) in [
            // One window; padding and a shift; whole windows; three axes with the shift and without.
            (1, [1, 7, 7], [1, 7, 7], [0, 3, 3], 2, 32, true),
            (1, [1, 14, 13], [1, 7, 7], [0, 3, 3], 3, 8, true),
            (2, [1, 8, 8], [1, 4, 4], [0, 2, 2], 3, 8, false),
            (1, [1, 5, 9], [1, 4, 4], [0, 1, 3], 2, 12, true),
            (1, [10, 10, 10], [4, 4, 4], [2, 2, 2], 1, 24, true),
            (1, [10, 10, 10], [4, 4, 4], [0, 0, 0], 1, 8, true),
            (2, [5, 5, 5], [4, 4, 4], [0, 0, 0], 2, 24, true),
            (1, [5, 5, 5], [4, 4, 4], [2, 2, 2], 3, 24, true),
            (1, [3, 9, 4], [2, 3, 5], [1, 2, 4], 1, 7, true),
        ] {
            // Unrolled, it compiles slowly: the shapes that share a permutation with few others.
            let shared = (head_dim == 24 && shift != [0; 3]) || (head_dim == 8 && grid[0] == 1);
            if variant == SmallAttentionVariant::Subgroup && !shared {
                continue;
            }
            let config = WindowAttentionConfig { batch, grid, window, shift, heads, head_dim, table, ..base };
            cases.extend(pair(config, &mut random));
        }
        let half = WindowAttentionConfig {
            grid: [5, 5, 5],
            shift: [2; 3],
            heads: 1,
            head_dim: 8,
            half: true,
            mask: -20.0,
            scale: Some(0.25),
            ..base
        };
        cases.extend(pair(half, &mut random));
    }
    // Windows of 216 tokens, with padding and a shift. (With subgroups they would compile slowly.)
    for variant in [SmallAttentionVariant::Plain, SmallAttentionVariant::Tiled] {
        let large = WindowAttentionConfig {
            grid: [7, 6, 6],
            window: [6; 3],
            shift: [3, 0, 0],
            heads: 1,
            head_dim: 8,
            variant: Some(variant),
            ..base
        };
        cases.extend(pair(large, &mut random));
    }
    cases
}
