//! Reference and cases of `radial::nearest_neighbours`.

use patchfield::radial::nearest_neighbours::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "radial/nearest_neighbours";

/// The squared distance as the shaders compute it, in f32 and never fused; of all NaNs, one.
pub fn squared_distance(a: &[f32], b: &[f32]) -> u32 {
    let mut sum = (a[0] - b[0]) * (a[0] - b[0]);
    for (a, b) in a.iter().zip(b).skip(1) {
        sum += (a - b) * (a - b);
    }
    sum.to_bits().min(0x7fc0_0000)
}

/// `(squared distance, index)` of the `k` nearest of all centres, in that order.
pub fn reference(point: &[f32], centres: &[f32], k: usize) -> Vec<(u32, u32)> {
    let distance = |(centre, i)| (squared_distance(point, centre), i);
    let mut all: Vec<_> = centres.chunks(point.len()).zip(0..).map(distance).collect();
    // What a sort of all would give.
    if k < all.len() {
        all.select_nth_unstable(k - 1);
        all.truncate(k);
    }
    all.sort_unstable();
    all
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// In a box.
    Uniform,
    /// In a box that is a thousand times as long as wide.
    Long,
    /// Around a few places, with very different radii.
    Clustered,
    /// On a line along x.
    Collinear,
    /// On a diagonal.
    Diagonal,
    /// On few places, many on each: ties everywhere.
    Duplicate,
    /// All on one place.
    Same,
    /// On a square lattice, points on it too: ties all around.
    Regular,
    /// Some NaN, some infinite, some at 1e30, the rest in a box.
    NotFinite,
    /// In a small box far from the origin.
    Far,
}

const LAYOUTS: [Layout; 10] = [
    Layout::Uniform,
    Layout::Long,
    Layout::Clustered,
    Layout::Collinear,
    Layout::Diagonal,
    Layout::Duplicate,
    Layout::Same,
    Layout::Regular,
    Layout::NotFinite,
    Layout::Far,
];

fn place(layout: Layout, dims: usize, i: u32, random: &mut Random) -> Vec<f32> {
    let mut x = random.vec(dims, -2.0, 2.0);
    match layout {
        Layout::Uniform => {}
        Layout::Long => x[dims - 1] *= 1000.0,
        Layout::Clustered => {
            let cluster = random.below(5) as f32;
            let radius = 10f32.powf(-cluster);
            x.iter_mut().for_each(|x| *x = *x * radius + cluster * 0.7 - 1.0);
        }
        Layout::Collinear => x.iter_mut().skip(1).for_each(|x| *x = 0.25),
        Layout::Diagonal => {
            let first = x[0];
            x.iter_mut().for_each(|x| *x = first);
        }
        Layout::Duplicate => x.iter_mut().for_each(|x| *x = (*x * 1.5).round()),
        Layout::Same => x.iter_mut().for_each(|x| *x = 0.5),
        Layout::Regular => x.iter_mut().for_each(|x| *x = (*x * 4.0).round() / 4.0),
        Layout::NotFinite => match i % 7 {
            2 => x[0] = f32::NAN,
            3 => x[dims - 1] = f32::INFINITY,
            4 => x[0] = f32::NEG_INFINITY,
            5 => x[dims - 1] = 1e30,
            _ => {}
        },
        Layout::Far => x.iter_mut().for_each(|x| *x = *x * 0.01 + 3000.0),
    }
    x
}

fn places(layout: Layout, dims: usize, n: u32, random: &mut Random) -> Vec<f32> {
    (0..n).flat_map(|i| place(layout, dims, i, random)).collect()
}

fn case(config: NearestConfig, what: &str, points: Vec<f32>, centres: Vec<f32>) -> Case {
    let NearestConfig { dims, points: n, centres: m, k, distances, variant } = config;
    let near: Vec<_> =
        points.chunks(dims as usize).flat_map(|p| reference(p, &centres, k as usize)).collect();
    let variant_name = match variant {
        Some(NearestVariant::Lattice(_)) => "Lattice".into(),
        variant => format!("{variant:?}"),
    };
    let name = format!("{what}, {dims}-D, {n} points, {m} centres, k {k}, {variant_name}");
    let case = Case::new(KERNEL, name, move |context, b| {
        let kernel = NearestNeighbours::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&NearestArgs {
            points: b["points"],
            centres: b["centres"],
            indices: b["indices"],
            distances: distances.then(|| b["distances"]),
            scratch: &scratch,
        })
    })
    .input("points", &points)
    .input("centres", &centres)
    .output("indices", Expected::Exact(near.iter().map(|near| near.1).collect()));
    if !distances {
        return case;
    }
    case.output("distances", Expected::Exact(near.iter().map(|near| near.0).collect()))
}

/// Some points among the centres, some on them, some far out, some not finite.
fn queries(layout: Layout, dims: usize, n: u32, centres: &[f32], random: &mut Random) -> Vec<f32> {
    let m = (centres.len() / dims) as u32;
    let query = |i: u32| match i % 11 {
        1 | 6 => {
            let at = random.below(m) as usize * dims;
            centres[at..at + dims].to_vec()
        }
        3 => random.vec(dims, -50.0, 50.0),
        7 => random.vec(dims, -1e6, 1e6),
        9 if i > 30 => {
            let mut x = random.vec(dims, -1.0, 1.0);
            let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38];
            x[random.below(dims as u32) as usize] = bad[random.below(4) as usize];
            x
        }
        _ => place(layout, dims, 0, random),
    };
    (0..n).flat_map(query).collect()
}

fn lattice_case(cells: &[u32], k: u32, n: u32, random: &mut Random) -> Case {
    let dims = cells.len();
    let mut lattice = Lattice { cells: [1; 3], origin: [-1.25, 0.5, 3.0], spacing: [0.25, 0.1, 0.7] };
    lattice.cells[..dims].copy_from_slice(cells);
    let m: u32 = cells.iter().product();
    let centre = |i: u32| {
        let [nx, ny, _] = lattice.cells;
        let at = [i % nx, i / nx % ny, i / nx / ny];
        (0..dims).map(move |d| lattice.origin[d] + at[d] as f32 * lattice.spacing[d])
    };
    let centres: Vec<f32> = (0..m).flat_map(centre).collect();
    let points = queries(Layout::Uniform, dims, n, &centres, random);
    let variant = Some(NearestVariant::Lattice(lattice));
    let config = NearestConfig { dims: dims as u32, points: n, centres: m, k, distances: true, variant };
    case(config, &format!("lattice {cells:?}"), points, centres)
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the search stopped at the first ring",
        kernel: KERNEL,
        shader: "radial/nearest_neighbours::search_distances",
        find: "ring <= rings &&",
        replace: "ring <= 1u &&",
    },
    Canary {
        bug: "a bound taken from the wrong face",
        kernel: KERNEL,
        shader: "radial/nearest_neighbours::search_distances",
        find: "f32(last + 1u) * side - x",
        replace: "f32(last + 2u) * side - x",
    },
    Canary {
        bug: "ties by the order of the cells",
        kernel: KERNEL,
        shader: "radial/nearest_neighbours::search_distances",
        find: "if is_before(candidate, last_of_list.distance, last_of_list.index) {",
        replace: "if candidate.distance < last_of_list.distance {",
    },
    Canary {
        bug: "the last cell of a row left out",
        kernel: KERNEL,
        shader: "radial/nearest_neighbours::search_distances",
        find: "var to_cell = last.x + 1u;",
        replace: "var to_cell = last.x;",
    },
    Canary {
        bug: "a pass that forgets what the one before has found",
        kernel: KERNEL,
        shader: "radial/nearest_brute_force::search_distances",
        find: "if params.first > 0u {",
        replace: "if false {",
    },
    Canary {
        bug: "a cell's first centre dropped",
        kernel: KERNEL,
        shader: "radial/centre_grid::cell_starts",
        find: "sorted_keys[middle] < cell {",
        replace: "sorted_keys[middle] <= cell {",
    },
    Canary {
        bug: "cells numbered with another row length than the rows are walked with",
        kernel: KERNEL,
        shader: "radial/centre_grid::cell_keys",
        find: "cells.x * (y + cells.y * z)",
        replace: "cells.y * (y + cells.y * z)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(41);
    let mut cases = Vec::new();
    let grid = Some(NearestVariant::Grid);
    let brute = Some(NearestVariant::BruteForce);
    // Every layout in 2-D and 3-D; sizes around the workgroup of 64; every block of the list.
    for (i, layout) in LAYOUTS.into_iter().enumerate() {
        for (dims, points, centres, k) in [
            (2, [1, 63, 64, 65, 257][i % 5], 301, [1, 4, 5, 8][i % 4]),
            (3, [193, 67, 130, 64, 1][i % 5], 523, [8, 3, 17, 32][i % 4]),
        ] {
            let d = dims as usize;
            let places = places(layout, d, centres, &mut random);
            let points_at = queries(layout, d, points, &places, &mut random);
            for variant in [grid, brute] {
                let config = NearestConfig { dims, points, centres, k, distances: true, variant };
                cases.push(case(config, &format!("{layout:?}"), points_at.clone(), places.clone()));
            }
        }
    }
    // Few centres, down to as many as neighbours; one cell; no distances; 1-D and 4-D.
    for (dims, points, centres, k, variant) in [
        (2, 65, 1, 1, grid),
        (2, 65, 2, 2, grid),
        (3, 65, 32, 32, grid),
        (3, 65, 33, 29, grid),
        (1, 130, 97, 6, grid),
        (1, 130, 97, 6, brute),
        (4, 97, 150, 9, brute),
        (4, 5, 12, 12, None),
        (2, 97, 129, 21, None),
        (3, 97, 128, 25, None),
        (2, 300, 2776, 4, None),
        (3, 300, 3001, 13, None),
    ] {
        let places = places(Layout::Uniform, dims as usize, centres, &mut random);
        let points_at = queries(Layout::Uniform, dims as usize, points, &places, &mut random);
        let config = NearestConfig { dims, points, centres, k, distances: k != 21, variant };
        cases.push(case(config, "Uniform", points_at, places));
    }
    // More than a point may visit in the grid of a CPU adapter, and more than a pass over all takes.
    for (layout, dims, points, centres, k) in [
        (Layout::Same, 2, 9, 4500, 5),
        (Layout::Clustered, 3, 70, 9000, 6),
        (Layout::Collinear, 2, 40, 50_000, 3),
        (Layout::NotFinite, 3, 45, 49_153, 9),
    ] {
        let places = places(layout, dims as usize, centres, &mut random);
        let points_at = queries(layout, dims as usize, points, &places, &mut random);
        for variant in [grid, brute] {
            let config = NearestConfig { dims, points, centres, k, distances: true, variant };
            cases.push(case(config, &format!("{layout:?}"), points_at.clone(), places.clone()));
        }
    }
    for (cells, k) in [(&[1u32, 1][..], 1), (&[17, 11], 4), (&[1, 40], 9), (&[7, 5, 6], 8), (&[30], 3)] {
        cases.push(lattice_case(cells, k, 150, &mut random));
    }
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> Vec<Result<()>> {
    let good = NearestConfig { dims: 2, points: 4, centres: 6, k: 3, distances: false, variant: None };
    let lattice = Lattice { cells: [3, 2, 1], ..Lattice::default() };
    let on = |lattice| NearestConfig { variant: Some(NearestVariant::Lattice(lattice)), ..good };
    [
        NearestConfig { dims: 0, ..good },
        NearestConfig { dims: 5, ..good },
        NearestConfig { points: 0, ..good },
        NearestConfig { k: 0, ..good },
        NearestConfig { k: 33, centres: 64, ..good },
        NearestConfig { centres: 2, ..good },
        NearestConfig { dims: 4, variant: Some(NearestVariant::Grid), ..good },
        on(Lattice { cells: [3, 3, 1], ..lattice }),
        on(Lattice { cells: [3, 1, 2], ..lattice }),
        on(Lattice { spacing: [1.0, 0.0, 1.0], ..lattice }),
        on(Lattice { origin: [f32::NAN, 0.0, 0.0], ..lattice }),
    ]
    .map(|config| NearestNeighbours::new(context, config).map(drop))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index() {
        let centres = [1.0, 0.0, -1.0, 0.0, 0.0, 1.0, f32::NAN, 0.0];
        let order: Vec<_> = reference(&[0.0, 0.0], &centres, 4).iter().map(|near| near.1).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
