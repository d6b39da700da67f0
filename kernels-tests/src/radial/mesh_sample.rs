//! Reference and cases of `radial::mesh_sample`.

use patchfield::Kernel;
use patchfield::dense::RandomState;
use patchfield::radial::MeshBvh;
use patchfield::radial::mesh_sample::*;

use super::mesh_distance::{Mesh, cube, torus};
use crate::canaries::Canary;
use crate::dense::random::{normal_pair, philox4x32};
use crate::harness::{Case, Data, Expected};

/// Coordinates and the sums of the magnitudes of their terms.
fn reference(
    config: &MeshSampleConfig,
    state: &RandomState,
    bvh: &MeshBvh,
    starts: &[u32],
) -> Vec<(f64, f64)> {
    if config.pair_sigma == 0.0 {
        let all: u32 = config.counts.iter().sum();
        return points(config, state, bvh, starts, &(0..all).collect::<Vec<_>>());
    }
    // As many points as there are pairs, each from the words of the pair's first.
    let halves = MeshSampleConfig { counts: config.counts.map(|n| n / 2), ..*config };
    let all: u32 = halves.counts.iter().sum();
    let firsts: Vec<u32> = (0..all).map(|pair| 2 * pair).collect();
    let mut out = Vec::new();
    for (first, place) in firsts.iter().zip(points(&halves, state, bvh, starts, &firsts).chunks(3)) {
        out.extend_from_slice(place);
        let moved = shift(config, state, first + 1).map(|x| x * f64::from(config.pair_sigma));
        out.extend(place.iter().zip(moved).map(|((p, terms), x)| (p + x, terms + x.abs())));
    }
    out
}

fn block(config: &MeshSampleConfig, state: &RandomState, block: u32) -> [u32; 4] {
    philox4x32([block, config.stream, state.step[0], state.step[1]], state.seed)
}

/// The normal vector of point `i`.
fn shift(config: &MeshSampleConfig, state: &RandomState, i: u32) -> [f64; 3] {
    let w = block(config, state, 2 * i + 1);
    let ([x, y], [z, _]) = (normal_pair(w[0], w[1]), normal_pair(w[2], w[3]));
    [x, y, z].map(|x| f64::from(x) / 2_097_152.0)
}

/// Each by itself, from the words of the point whose number stands in `drawn`.
fn points(
    config: &MeshSampleConfig,
    state: &RandomState,
    bvh: &MeshBvh,
    starts: &[u32],
    drawn: &[u32],
) -> Vec<(f64, f64)> {
    let [surface, near, everywhere] = config.counts;
    let unit = |word: u32| f64::from(word >> 8) / 16_777_216.0;
    let mut out = Vec::new();
    for i in 0..surface + near + everywhere {
        let own = drawn[i as usize];
        let mut w = block(config, state, 2 * own);
        let mut place = [w[0], w[1], w[2]].map(unit);
        if config.stratified {
            let (k, n) = match i {
                i if i < surface => (i, surface),
                i if i < surface + near => (i - surface, near),
                i => (i - surface - near, everywhere),
            };
            let start = |k: u32| (u64::from(k) << 32) / u64::from(n);
            w[0] = (start(k) + ((u64::from(w[0]) * (start(k + 1) - start(k))) >> 32)) as u32;
            // Bit 31 - 3 l - d is bit 9 - l of the cell along axis d.
            let cell = |d: u32| (0..10).fold(0, |cell, l| cell << 1 | (w[0] >> (31 - 3 * l - d) & 1));
            place = [0, 1, 2].map(|d: u32| (f64::from(cell(d)) + unit(w[d as usize + 1])) / 1024.0);
        }
        if i >= surface + near {
            let [low, size] = config.cube.map(f64::from);
            out.extend(place.map(|t| (low + size * t, low.abs() + size.abs() * t)));
            continue;
        }
        let chosen = starts.iter().rposition(|&start| start <= w[0]).unwrap_or(0);
        let [a, b, c] =
            bvh.corners()[chosen].map(|c| [c[0], c[1], c[2]].map(|x| f64::from(f32::from_bits(x))));
        let (mut u, mut v) = (unit(w[1]), unit(w[2]));
        if u + v > 1.0 {
            (u, v) = (1.0 - u, 1.0 - v);
        }
        let sigma = f64::from(if i < surface { config.surface_sigma } else { config.sigma });
        for (d, normal) in shift(config, state, own).into_iter().enumerate() {
            let shift = sigma * normal;
            let value = a[d] + u * (b[d] - a[d]) + v * (c[d] - a[d]) + shift;
            let terms = a[d].abs() + u * (b[d].abs() + a[d].abs()) + v * (c[d].abs() + a[d].abs());
            out.push((value, terms + shift.abs()));
        }
    }
    out
}

fn case(name: &str, mesh: &Mesh, config: MeshSampleConfig, state: RandomState) -> Case {
    let bvh = MeshBvh::build(&mesh.0, &mesh.1).expect("a mesh");
    let starts = bvh.area_starts().expect("a mesh with an area");
    let config = MeshSampleConfig { triangles: bvh.triangles(), ..config };
    let expected = reference(&config, &state, &bvh, &starts);
    let kind = if config.stratified { " stratified" } else { "" };
    let pairs = if config.pair_sigma > 0.0 { " in pairs" } else { "" };
    let name = format!("{name}, {:?}{kind} points{pairs}", config.counts);
    Case::new("radial/mesh_sample", name, move |context, b| {
        MeshSample::new(context, config)?.prepare(&MeshSampleArgs {
            state: b["state"],
            corners: b["corners"],
            starts: b["starts"],
            positions: b["positions"],
        })
    })
    .read("state", Data::U32(bytemuck::pod_collect_to_vec(state.bytes())))
    .read("corners", Data::U32(bytemuck::pod_collect_to_vec(bytemuck::cast_slice::<_, u8>(bvh.corners()))))
    .read("starts", Data::U32(starts))
    // A difference, a product and a sum for each of two edges, and the same for the shifts. The sum of a cell and a
    // place in it is one more rounding.
    .output("positions", Expected::near(&expected, if pairs.is_empty() { 6.0 } else { 8.0 }, 0.0))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the bisection stops a step early",
        kernel: "radial/mesh_sample",
        shader: "radial/mesh_sample::sample_mesh",
        find: "while high - low > 1u",
        replace: "while high - low > 2u",
    },
    Canary {
        bug: "points pile up beyond the diagonal",
        kernel: "radial/mesh_sample",
        shader: "radial/mesh_sample::sample_mesh",
        find: "select(v, 1.0 - v, over)",
        replace: "v",
    },
    Canary {
        bug: "strata with gaps: a digit of the division lost",
        kernel: "radial/mesh_sample",
        shader: "radial/mesh_sample::sample_mesh",
        find: "rest = (rest << 8u) % n",
        replace: "rest = rest << 8u",
    },
    Canary {
        bug: "both of a pair moved",
        kernel: "radial/mesh_sample",
        shader: "radial/mesh_sample::sample_mesh",
        find: "if own > i {",
        replace: "if PAIRS {",
    },
    Canary {
        bug: "pairs share out half of the surface",
        kernel: "radial/mesh_sample",
        shader: "radial/mesh_sample::sample_mesh",
        find: "(i - first) / together",
        replace: "(i - first) / (2u * together)",
    },
];

pub fn cases() -> Vec<Case> {
    let config = MeshSampleConfig {
        triangles: 1,
        counts: [4, 3, 1],
        sigma: 0.01,
        surface_sigma: 0.0,
        pair_sigma: 0.0,
        cube: [0.0, 1.0],
        stream: 5,
        stratified: false,
    };
    // The second and the last triangle have no area.
    let mut flat = cube();
    flat.1.insert(1, [0, 0, 3]);
    flat.1.push([2, 2, 2]);
    let one = (vec![[0.5, 0.25, -1.0], [1.0, 0.0, 2.0], [-1.0, 0.5, 0.0]], vec![[0, 1, 2]]);
    let mut cases = Vec::new();
    for (points, state) in [
        (1, RandomState::new(3, 1)),
        (63, RandomState::new(u64::MAX, 2)),
        (257, RandomState::new(3, 1 << 40)),
    ] {
        cases.push(case(
            "torus",
            &torus(13, 7),
            MeshSampleConfig { counts: [points / 2, points / 3, points - points / 2 - points / 3], ..config },
            state,
        ));
        cases.push(case("cube", &flat, MeshSampleConfig { counts: [points, 0, 0], ..config }, state));
        cases.push(case("one triangle", &one, MeshSampleConfig { counts: [0, points, 0], ..config }, state));
    }
    let far = MeshSampleConfig { counts: [0, 0, 65], cube: [-1000.0, 7.0], ..config };
    cases.push(case("anywhere", &one, far, RandomState::new(9, 9)));
    let parts = MeshSampleConfig { stratified: true, surface_sigma: 0.001, ..config };
    for (counts, state) in [([1, 1, 1], 7), ([67, 40, 33], 8), ([2, 300, 515], 9)] {
        cases.push(case(
            "torus",
            &torus(13, 7),
            MeshSampleConfig { counts, ..parts },
            RandomState::new(2, state),
        ));
    }
    let pairs = MeshSampleConfig { pair_sigma: 0.002, surface_sigma: 0.001, ..config };
    for (counts, stratified, state) in
        [([2, 2, 2], true, 10), ([66, 40, 34], true, 11), ([64, 30, 4], false, 12)]
    {
        let config = MeshSampleConfig { counts, stratified, ..pairs };
        cases.push(case("torus", &torus(13, 7), config, RandomState::new(4, state)));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each triangle gets its share of the points, and the points of each have its centre as their mean.
    #[test]
    fn points_are_uniform_over_the_area() {
        let vertices = vec![[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]];
        let bvh = MeshBvh::build(&vertices, &[[0, 1, 2], [0, 0, 1], [0, 1, 3]]).expect("a mesh");
        let starts = bvh.area_starts().expect("an area");
        let points = 40_000;
        let config = MeshSampleConfig {
            triangles: 3,
            counts: [points, 0, 0],
            sigma: 0.0,
            surface_sigma: 0.0,
            pair_sigma: 0.0,
            cube: [0.0, 1.0],
            stream: 0,
            stratified: false,
        };
        let all = reference(&config, &RandomState::new(1, 1), &bvh, &starts);
        let (upright, flat): (Vec<_>, Vec<_>) = all.chunks(3).partition(|p| p[2].0 > 0.0);
        // One quarter of the area; the standard deviation of the count is 87.
        assert!((flat.len() as f64 - 10_000.0).abs() < 400.0, "{}", flat.len());
        for (points, centre) in [(flat, [1.0 / 3.0, 1.0 / 3.0, 0.0]), (upright, [1.0 / 3.0, 0.0, 1.0])] {
            for d in 0..3 {
                let mean = points.iter().map(|p| p[d].0).sum::<f64>() / points.len() as f64;
                assert!((mean - centre[d]).abs() < 0.02, "{mean} {}", centre[d]);
            }
        }
    }

    /// In each octant of the cube there is an eighth of the points, to one; in order.
    #[test]
    fn strata_share_the_cube_out() {
        let mesh = cube();
        let bvh = MeshBvh::build(&mesh.0, &mesh.1).expect("a mesh");
        let starts = bvh.area_starts().expect("an area");
        let config = MeshSampleConfig {
            triangles: bvh.triangles(),
            counts: [0, 0, 1001],
            sigma: 0.0,
            surface_sigma: 0.0,
            pair_sigma: 0.0,
            cube: [0.0, 1.0],
            stream: 0,
            stratified: true,
        };
        let all = reference(&config, &RandomState::new(1, 1), &bvh, &starts);
        let octant = |p: &[(f64, f64)]| (0..3).fold(0, |bits, d| bits << 1 | usize::from(p[d].0 >= 0.5));
        let octants: Vec<usize> = all.chunks(3).map(octant).collect();
        assert!(octants.is_sorted());
        for o in 0..8 {
            let count = octants.iter().filter(|&&found| found == o).count() as i64;
            assert!((count - 125).abs() <= 1, "{count}");
        }
    }
}
