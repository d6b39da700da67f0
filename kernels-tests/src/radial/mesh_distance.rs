//! Reference and cases of `radial::mesh_distance`.

use std::f64::consts::PI;

use patchfield::Kernel;
use patchfield::radial::mesh_distance::*;
use patchfield::radial::{BvhDipole, MeshBvh};

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

type Point = [f64; 3];

/// Vertices and triangles.
pub type Mesh = (Vec<[f32; 3]>, Vec<[u32; 3]>);

/// Half a unit in the last place of 1.
const UNIT: f64 = 1.0 / 16_777_216.0;
/// A bound that says nothing: the quantity jumps there.
const ANYTHING: f64 = 1e9;

fn sub(a: Point, b: Point) -> Point {
    std::array::from_fn(|d| a[d] - b[d])
}

fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn length(a: Point) -> f64 {
    dot(a, a).sqrt()
}

/// The nearest point of a triangle, and whether it lies inside. By regions: the planes of the edges first,
/// then the edges; another way than the kernel's.
fn nearest_point(p: Point, [a, b, c]: [Point; 3]) -> (Point, bool) {
    let normal = cross(sub(b, a), sub(c, a));
    let size = dot(normal, normal);
    let within = |u: Point, v: Point| dot(cross(sub(v, u), sub(p, u)), normal) >= 0.0;
    if size > 0.0 && within(a, b) && within(b, c) && within(c, a) {
        let height = dot(sub(p, a), normal) / size;
        return (std::array::from_fn(|d| p[d] - height * normal[d]), true);
    }
    let mut best = (f64::MAX, a);
    for (u, v) in [(a, b), (b, c), (c, a)] {
        let edge = sub(v, u);
        let squared = dot(edge, edge);
        let t = if squared > 0.0 { (dot(sub(p, u), edge) / squared).clamp(0.0, 1.0) } else { 0.0 };
        let foot: Point = std::array::from_fn(|d| u[d] + t * edge[d]);
        let distance = length(sub(p, foot));
        if distance < best.0 {
            best = (distance, foot);
        }
    }
    (best.1, false)
}

/// What the kernel must give for one point.
struct Near {
    distance: f64,
    /// Scale of its rounding errors.
    magnitude: f64,
    gradient: Point,
    gradient_magnitude: f64,
    /// The nearest triangle, if there is one that no rounding can change.
    triangle: Option<u32>,
}

/// Distances are differences of coordinates relative to a corner, so that their errors scale with distance
/// plus size of the triangles (the longest edge twice). In a thin triangle the weights of the foot have
/// errors that grow with the square of the ratio of its edges to its height, but a candidate is always on
/// the triangle, and never farther than an edge, hence half a height.
fn near(p: Point, triangles: &[[Point; 3]]) -> Near {
    let feet: Vec<_> = triangles.iter().map(|&t| nearest_point(p, t)).collect();
    let distances: Vec<f64> = feet.iter().map(|f| length(sub(p, f.0))).collect();
    let best = (0..feet.len()).min_by(|&i, &j| distances[i].total_cmp(&distances[j])).unwrap_or(0);
    let distance = distances[best];
    let edge = |[a, b, c]: [Point; 3]| length(sub(b, a)).max(length(sub(c, b))).max(length(sub(a, c)));
    let longest = triangles.iter().map(|&t| edge(t)).fold(0.0, f64::max);
    let [a, b, c] = triangles[best];
    let twice_area = length(cross(sub(b, a), sub(c, a)));
    let own = edge(triangles[best]);
    // Of the foot's place: 16 units times the square of the ratio, at most half the height.
    let slip = if twice_area > 0.0 {
        let ratio = own * own / twice_area;
        (16.0 * UNIT * ratio * ratio * (distance + own)).min(0.5 * twice_area / own)
    } else {
        0.0
    };
    let base = distance + 2.0 * longest;
    let magnitude = base + ((distance * distance + slip * slip).sqrt() - distance) / UNIT;
    let offset = sub(p, feet[best].0);
    let close = |i: usize| distances[i] - distance < 64.0 * UNIT * magnitude;
    let apart = |i: usize| length(sub(feet[i].0, feet[best].0)) > 64.0 * UNIT * base;
    let jumps = (0..feet.len()).any(|i| close(i) && apart(i));
    let alone = (0..feet.len()).all(|i| i == best || !close(i));
    let gradient_magnitude =
        if jumps { ANYTHING } else { (1.0 + (base + slip / UNIT) / distance).min(ANYTHING) };
    Near {
        distance,
        magnitude,
        gradient: if distance > 0.0 { offset.map(|x| x / distance) } else { [0.0; 3] },
        gradient_magnitude,
        triangle: (alone && feet[best].1).then_some(best as u32),
    }
}

/// Solid angle over 4 pi, and the scale of its error: of an angle whose tangent is a quotient of two
/// numbers, each with an error relative to the product of the three lengths.
fn solid_angle(p: Point, corners: [Point; 3]) -> (f64, f64) {
    let [a, b, c] = corners.map(|corner| sub(corner, p));
    let (la, lb, lc) = (length(a), length(b), length(c));
    let determinant = dot(a, cross(b, c));
    let rest = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb;
    let (product, size) = (la * lb * lc, determinant.hypot(rest));
    if product == 0.0 {
        // A corner: the kernel's determinant is 0 too.
        return (0.0, 0.0);
    }
    // In the triangle's plane and inside of it the angle jumps from -2 pi to 2 pi; at a corner anything can come out.
    if size < 64.0 * UNIT * product || (rest < 0.0 && determinant.abs() < 64.0 * UNIT * product) {
        return (0.0, ANYTHING);
    }
    let angle = if determinant == 0.0 { 0.0 } else { determinant.atan2(rest) / (2.0 * PI) };
    (angle, angle.abs() + product / size / (2.0 * PI))
}

fn corners_of(bits: &[[u32; 4]; 3]) -> [Point; 3] {
    bits.map(|[x, y, z, _]| [x, y, z].map(|bits| f64::from(f32::from_bits(bits))))
}

/// The winding number through the tree, and the scale of its error. `None` where a distance is so close to
/// the limit of a dipole that rounding could decide the other way.
fn winding_by_tree(p: Point, bvh: &MeshBvh, beta: f64) -> Option<(f64, f64)> {
    fn visit(node: usize, p: Point, bvh: &MeshBvh, beta: f64, sum: &mut (f64, f64)) -> Option<()> {
        let BvhDipole { centre, radius, normal } = bvh.dipoles()[node];
        let d = sub(centre.map(f64::from), p);
        let (distance, reach) = (length(d), beta * f64::from(radius));
        // Positions of points far away cancel: the difference errs with the larger of both.
        if reach > 0.0 && (distance / reach - 1.0).abs() < 1e-5 {
            return None;
        }
        let leaves = bvh.leaves() as usize;
        if distance > reach {
            let normal = [normal[0], normal[1], normal[2]].map(f64::from);
            let size = distance.powi(3) * 4.0 * PI;
            sum.0 += dot(d, normal) / size;
            sum.1 += 8.0 * length(normal) * distance / size;
        } else if node < leaves {
            visit(2 * node, p, bvh, beta, sum)?;
            visit(2 * node + 1, p, bvh, beta, sum)?;
        } else {
            let all = bvh.corners().len();
            let start = |leaf: usize| leaf * (all / leaves) + leaf.min(all % leaves);
            for bits in &bvh.corners()[start(node - leaves)..start(node - leaves + 1)] {
                let (angle, scale) = solid_angle(p, corners_of(bits));
                *sum = (sum.0 + angle, sum.1 + scale);
            }
        }
        Some(())
    }
    let mut sum = (0.0, 0.0);
    visit(1, p, bvh, beta, &mut sum)?;
    Some(sum)
}

fn winding_exact(p: Point, triangles: &[[Point; 3]]) -> (f64, f64) {
    triangles.iter().map(|&t| solid_angle(p, t)).fold((0.0, 0.0), |s, t| (s.0 + t.0, s.1 + t.1))
}

fn f64s(p: [f32; 3]) -> Point {
    p.map(f64::from)
}

fn triangles_of((vertices, triangles): &Mesh) -> Vec<[Point; 3]> {
    triangles.iter().map(|t| t.map(|i| f64s(vertices[i as usize]))).collect()
}

/// A torus around z: `rings` times `sides` squares, halved.
pub fn torus(rings: u32, sides: u32) -> Mesh {
    let at = |r: u32, s: u32| {
        let (u, v) = (2.0 * PI * f64::from(r) / f64::from(rings), 2.0 * PI * f64::from(s) / f64::from(sides));
        let radius = 0.6 + 0.25 * v.cos();
        [radius * u.cos(), radius * u.sin(), 0.25 * v.sin()].map(|x| x as f32)
    };
    let vertices = (0..rings).flat_map(|r| (0..sides).map(move |s| at(r, s))).collect();
    let index = |r: u32, s: u32| r % rings * sides + s % sides;
    let square = |r, s| {
        let [a, b, c, d] = [index(r, s), index(r + 1, s), index(r + 1, s + 1), index(r, s + 1)];
        [[a, b, c], [a, c, d]]
    };
    let triangles = (0..rings).flat_map(|r| (0..sides).flat_map(move |s| square(r, s))).collect();
    (vertices, triangles)
}

/// The unit sphere: `rings` circles of latitude, `sides` meridians.
fn sphere(rings: u32, sides: u32) -> Mesh {
    let at = |r: u32, s: u32| {
        let (u, v) = (PI * f64::from(r) / f64::from(rings), 2.0 * PI * f64::from(s) / f64::from(sides));
        // Triangles at the poles are to have no area rather than 1e-16.
        let radius = if r.is_multiple_of(rings) { 0.0 } else { u.sin() };
        [radius * v.cos(), radius * v.sin(), u.cos()].map(|x| x as f32)
    };
    let vertices = (0..=rings).flat_map(|r| (0..sides).map(move |s| at(r, s))).collect();
    let index = |r: u32, s: u32| r * sides + s % sides;
    let square = |r, s| {
        let [a, b, c, d] = [index(r, s), index(r + 1, s), index(r + 1, s + 1), index(r, s + 1)];
        [[a, b, c], [a, c, d]]
    };
    let triangles = (0..rings).flat_map(|r| (0..sides).flat_map(move |s| square(r, s))).collect();
    (vertices, triangles)
}

/// Around the centre of a fine sphere no node can be left out, and which triangle is nearest depends on the direction;
/// with a large beta none is left out of the winding number either. More rounds than Mesa's llvmpipe lets an
/// invocation have: the walk is shared out over dispatches.
fn long_walks(random: &mut Random) -> [Case; 2] {
    let mesh = sphere(192, 288);
    let mut positions = vec![[0.0; 3], [0.0, 0.0, 0.3], [0.0, 0.0, -0.999], [0.0, 0.0, 1.5], [f32::NAN; 3]];
    positions.extend((0..36).map(|i| {
        let size = if i % 3 == 0 { 2.0 } else { 1e-3 };
        std::array::from_fn(|_| random.uniform(-size, size))
    }));
    let all_nodes = MeshSign::Approximate { beta: 1e6 };
    [MeshSign::None, all_nodes].map(|sign| case("sphere", &mesh, &positions, sign, MeshDistanceVariant::Bvh))
}

/// The cube [-1/2, 1/2]^3, outward.
pub fn cube() -> Mesh {
    let vertices = (0..8u32).map(|i| [0, 1, 2].map(|d| (i >> d & 1) as f32 - 0.5)).collect();
    let squares =
        [[0, 4, 6, 2], [1, 3, 7, 5], [0, 1, 5, 4], [2, 6, 7, 3], [0, 2, 3, 1], [4, 5, 7, 6]].into_iter();
    (vertices, squares.flat_map(|[a, b, c, d]| [[a, b, c], [a, c, d]]).collect())
}

/// Points so far away that products of three distances have no place in f32.
fn far_away() -> Vec<Case> {
    let positions: Vec<_> = (12..=18)
        .map(|power| 10f32.powi(power))
        .flat_map(|s| [[s, 0.3 * s, -0.7 * s], [0.0, 0.0, s], [-0.1 * s, -s, 0.2]])
        .collect();
    [
        (MeshSign::Exact, MeshDistanceVariant::Bvh),
        (MeshSign::Exact, MeshDistanceVariant::BruteForce),
        (MeshSign::Approximate { beta: 2.0 }, MeshDistanceVariant::Bvh),
    ]
    .map(|(sign, variant)| case("far from a cube", &cube(), &positions, sign, variant))
    .into()
}

/// Cubes of any size that a tree takes, from near and from far.
fn sizes(random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for power in [-8, -6, -3, 3, 6, 9] {
        let size = 10f32.powi(power);
        let (vertices, triangles) = cube();
        let mesh = (vertices.iter().map(|v| v.map(|x| size * x)).collect(), triangles);
        let positions: Vec<[f32; 3]> = (0..60)
            .map(|i| {
                let reach = size * 10f32.powi([0, 0, 3, 6, 9][i % 5]);
                std::array::from_fn(|_| reach * random.uniform(-1.5, 1.5))
            })
            .collect();
        for sign in [MeshSign::Exact, MeshSign::Approximate { beta: 2.0 }] {
            let name = format!("a cube of 1e{power}");
            cases.push(case(&name, &mesh, &positions, sign, MeshDistanceVariant::Bvh));
        }
    }
    cases
}

/// Triangles anywhere; some are lines, some are points, some share a vertex.
fn soup(n: u32, random: &mut Random) -> Mesh {
    let mut vertices: Vec<[f32; 3]> =
        (0..3 * n).map(|_| std::array::from_fn(|_| random.uniform(-1.0, 1.0))).collect();
    for t in 0..n as usize {
        let [a, b] = [vertices[3 * t], vertices[3 * t + 1]];
        match t % 8 {
            3 => vertices[3 * t + 2] = a,
            4 => vertices[3 * t + 2] = std::array::from_fn(|d| 0.5 * (a[d] + b[d])),
            5 => vertices[3 * t + 1..3 * t + 3].fill(a),
            6 => vertices[3 * t + 2] = std::array::from_fn(|d| b[d] + 1e-4 * (d as f32 - 1.0)),
            _ => {}
        }
    }
    (vertices, (0..n).map(|t| [3 * t, 3 * t + 1, 3 * t + 2]).collect())
}

/// A sliver a million times as long as it is high, one beside it, and a speck.
fn slivers() -> Mesh {
    let vertices = vec![
        [-1.0, 0.0, 0.1],
        [1.0, 1e-6, 0.1],
        [0.3, 2e-6, 0.1],
        [1.0, 0.7, -0.3],
        [-0.9, 0.69, -0.3],
        [0.1, 0.2, 0.3],
        [0.100_001, 0.2, 0.3],
        [0.1, 0.200_001, 0.3],
    ];
    (vertices, vec![[0, 1, 2], [1, 3, 4], [5, 6, 7], [0, 0, 3], [5, 5, 5]])
}

/// Points near and far, on vertices, on edges and in triangles.
fn points(n: usize, mesh: &Mesh, random: &mut Random) -> Vec<[f32; 3]> {
    let (vertices, triangles) = mesh;
    (0..n)
        .map(|i| {
            let t = triangles[random.below(triangles.len() as u32) as usize].map(|v| vertices[v as usize]);
            let [u, v] = [random.uniform(0.0, 0.5), random.uniform(0.0, 0.5)];
            let mix = |u: f32, v: f32| {
                std::array::from_fn(|d| t[0][d] + u * (t[1][d] - t[0][d]) + v * (t[2][d] - t[0][d]))
            };
            let strewn =
                |p: [f32; 3], size: f32, random: &mut Random| p.map(|x| x + random.uniform(-size, size));
            match i % 10 {
                0 => t[0],
                1 => mix(0.5, 0.0),
                2 => mix(u, v),
                3 | 4 => strewn(mix(u, v), 1e-2, random),
                5 => strewn([0.0; 3], 300.0, random),
                _ => strewn([0.0; 3], 1.0, random),
            }
        })
        .collect()
}

fn case(
    name: &str,
    mesh: &Mesh,
    positions: &[[f32; 3]],
    sign: MeshSign,
    variant: MeshDistanceVariant,
) -> Case {
    let bvh = MeshBvh::build(&mesh.0, &mesh.1).expect("a mesh");
    let triangles = triangles_of(mesh);
    let brute = variant == MeshDistanceVariant::BruteForce;
    let winding: Vec<Option<(f64, f64)>> = positions
        .iter()
        .map(|&p| match sign {
            _ if p.iter().any(|x| !x.is_finite()) => Some((f64::NAN, 0.0)),
            MeshSign::None => Some((0.0, 0.0)),
            MeshSign::Approximate { beta } if !brute => winding_by_tree(f64s(p), &bvh, beta.into()),
            _ => Some(winding_exact(f64s(p), &triangles)),
        })
        .collect();
    // What rounding could decide the other way is left out: dipoles at their limit, and signs where the number may be
    // on either side of 1/2.
    let keep: Vec<usize> = (0..positions.len())
        .filter(|&i| {
            winding[i].is_some_and(|(w, m)| {
                let sure = (w.abs() - 0.5).abs() > 64.0 * UNIT * m;
                sign == MeshSign::None || w.is_nan() || sure
            })
        })
        .collect();
    let positions: Vec<[f32; 3]> = keep.iter().map(|&i| positions[i]).collect();
    let winding: Vec<(f64, f64)> = keep.iter().filter_map(|&i| winding[i]).collect();

    let (mut distance, mut gradient, mut nearest) = (Vec::new(), Vec::new(), Vec::new());
    for (&p, &(w, _)) in positions.iter().zip(&winding) {
        if p.iter().any(|x| !x.is_finite()) {
            distance.push((f64::NAN, 0.0));
            gradient.extend([(f64::NAN, 0.0); 3]);
            nearest.push(Some(u32::MAX));
            continue;
        }
        let near = near(f64s(p), &triangles);
        let side = if w.abs() > 0.5 { -1.0 } else { 1.0 };
        distance.push((side * near.distance, near.magnitude));
        gradient.extend(near.gradient.map(|g| (side * g, near.gradient_magnitude)));
        nearest.push(near.triangle);
    }
    let indices: Option<Vec<u32>> = nearest.iter().copied().collect();
    let count = positions.len() as u32;
    let config = MeshDistanceConfig {
        points: count,
        triangles: bvh.triangles(),
        leaves: bvh.leaves(),
        sign,
        variant: Some(variant),
    };
    let signed = sign != MeshSign::None;
    let name = format!("{name}, {} triangles, {count} points, {sign:?}, {variant:?}", bvh.triangles());
    let words = |data: &[u8]| Data::U32(bytemuck::pod_collect_to_vec(data));
    let case = Case::new("radial/mesh_distance", name, move |context, b| {
        let kernel = MeshDistance::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&MeshDistanceArgs {
            positions: b["positions"],
            corners: b["corners"],
            boxes: b["boxes"],
            dipoles: b["dipoles"],
            winding: signed.then(|| b["winding"]),
            distance: b["distance"],
            gradient: b["gradient"],
            nearest: b["nearest"],
            scratch: &scratch,
        })
    })
    .input("positions", positions.as_flattened())
    .read("corners", words(bytemuck::cast_slice(bvh.corners())))
    .read("boxes", words(bytemuck::cast_slice(bvh.boxes())))
    .read("dipoles", words(bytemuck::cast_slice(bvh.dipoles())))
    // An offset takes 12 operations, its length 4 and the root 1.
    .output("distance", Expected::near(&distance, 17.0, 0.0))
    .output("gradient", Expected::near(&gradient, 20.0, 0.0));
    // The tree's boxes can hide a triangle that is nearer by a rounding error only, never another.
    let case = match indices {
        Some(indices) => case.output("nearest", Expected::Exact(indices)),
        None => case.update("nearest", Data::U32(vec![0; count as usize]), Expected::Any),
    };
    if !signed {
        return case;
    }
    // 32 operations an angle, and one addition a triangle or node.
    let terms = if brute || sign == MeshSign::Exact { triangles.len() } else { 4 * bvh.leaves() as usize };
    case.output("winding", Expected::near(&winding, 32.0 + terms.min(200) as f64, 0.0))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the farther child never seen",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::to_mesh",
        find: "select(0u, 1u, max(left, right) < best.squared)",
        replace: "0u",
    },
    Canary {
        bug: "the interior of triangles forgotten",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::to_mesh_signed",
        find: "v + w <= 1.0 && to_inner",
        replace: "v + w <= 0.5 && to_inner",
    },
    Canary {
        bug: "the last triangle of long leaves forgotten",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::winding",
        find: "+ min(leaf, params.long_leaves)",
        replace: "+ 0u * params.long_leaves",
    },
    Canary {
        bug: "a quadrant of the arctangent lost",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::winding",
        find: "arctangent2(determinant, rest)",
        replace: "arctangent2(determinant, abs(rest))",
    },
    Canary {
        bug: "a walk that goes on in the next dispatch has forgotten what it left out",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::to_mesh",
        find: "start = Walk(best, state[3u * i], state[3u * i + 1u]);",
        replace: "start = Walk(best, state[3u * i], 0u);",
    },
    Canary {
        bug: "the angles of the dispatch before forgotten",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::winding",
        find: "let angles = bitcast<f32>(angle_state[3u * i + 1u]);",
        replace: "let angles = 0.0;",
    },
    Canary {
        bug: "products of three lengths that overflow far from the mesh",
        kernel: "radial/mesh_distance",
        shader: "radial/mesh_distance::winding",
        find: "bitcast<f32>(0x7f000000u - min(bitcast<u32>(size) & 0x7f800000u, 0x7e800000u))",
        replace: "1.0",
    },
];

pub fn cases() -> Vec<Case> {
    use MeshDistanceVariant::{BruteForce, Bvh};
    let mut random = Random::new(57);
    let mut cases = Vec::new();
    let open = {
        let (vertices, mut triangles) = torus(17, 9);
        triangles.truncate(251);
        (vertices, triangles)
    };
    let single = (vec![[0.1, 0.2, 0.3], [0.9, 0.1, 0.4], [-0.2, 0.8, 0.0]], vec![[0, 1, 2]]);
    let meshes = [
        ("cube", cube(), 257),
        ("torus", torus(23, 11), 130),
        ("open torus", open, 191),
        ("one triangle", single, 65),
        ("soup", soup(5, &mut random), 63),
        ("soup", soup(61, &mut random), 127),
        ("slivers", slivers(), 129),
    ];
    let approximate = MeshSign::Approximate { beta: 2.0 };
    for (name, mesh, n) in &meshes {
        let mut p = points(*n, mesh, &mut random);
        p[n / 2] = [f32::NAN, 0.0, 0.0];
        p[n / 3] = [0.0, f32::INFINITY, 0.0];
        for variant in [Bvh, BruteForce] {
            for sign in [MeshSign::None, approximate, MeshSign::Exact] {
                cases.push(case(name, mesh, &p, sign, variant));
            }
        }
        // The index of the triangle, where there is but one.
        let triangles = triangles_of(mesh);
        let mut clear = points(4 * n, mesh, &mut random);
        clear.retain(|&p| near(f64s(p), &triangles).triangle.is_some());
        for variant in [Bvh, BruteForce] {
            if !clear.is_empty() {
                cases.push(case(&format!("{name}, indices"), mesh, &clear, MeshSign::None, variant));
            }
        }
    }
    cases.extend(long_walks(&mut random));
    cases.extend(far_away());
    cases.extend(sizes(&mut random));
    cases
}

#[cfg(test)]
mod tests {
    use patchfield::Planned;

    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};

    /// The winding numbers of the first launch are no boxes of the second.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let sign = MeshSign::Approximate { beta: 2.0 };
        let config = MeshDistanceConfig { points: 8, triangles: 12, leaves: 4, sign, variant: None };
        let kernel = MeshDistance::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let all = buffers(&context);
        let [positions, corners, boxes, dipoles, winding, distance, gradient, nearest] = views(&all);
        let good = MeshDistanceArgs {
            positions,
            corners,
            boxes,
            dipoles,
            winding: Some(winding),
            distance,
            gradient,
            nearest,
            scratch: &scratch,
        };
        assert!(kernel.prepare(&good).is_ok());
        let args = MeshDistanceArgs { winding: Some(boxes), ..good };
        assert_refused(kernel.prepare(&args), "winding", "boxes");
    }

    /// The distance to a triangle is least at the foot: no point of a fine lattice on it is nearer.
    #[test]
    fn feet_are_nearest() {
        let mut random = Random::new(58);
        for _ in 0..200 {
            let mut point = || f64s(std::array::from_fn(|_| random.uniform(-1.0, 1.0)));
            let (p, t) = (point(), [point(), point(), point()]);
            let distance = length(sub(p, nearest_point(p, t).0));
            let mut least = f64::MAX;
            for i in 0..=60 {
                for j in 0..=60 - i {
                    let (u, v) = (f64::from(i) / 60.0, f64::from(j) / 60.0);
                    let q =
                        std::array::from_fn(|d| t[0][d] + u * (t[1][d] - t[0][d]) + v * (t[2][d] - t[0][d]));
                    least = least.min(length(sub(p, q)));
                }
            }
            assert!(distance <= least + 1e-12 && least < distance + 0.05, "{distance} {least}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(59);
        let triangles = triangles_of(&torus(9, 7));
        for _ in 0..100 {
            let p = f64s(std::array::from_fn(|_| random.uniform(-1.0, 1.0)));
            let here = near(p, &triangles);
            if here.gradient_magnitude >= ANYTHING || here.distance < 1e-2 {
                continue;
            }
            for d in 0..3 {
                let at = |h: f64| {
                    let mut q = p;
                    q[d] += h;
                    near(q, &triangles).distance
                };
                let slope = (at(1e-7) - at(-1e-7)) / 2e-7;
                assert!((slope - here.gradient[d]).abs() < 1e-5, "{slope} {}", here.gradient[d]);
            }
        }
    }

    /// 1 inside and 0 outside of what is closed; an octant of a sphere's directions through one triangle.
    #[test]
    fn winding_numbers_of_known_meshes() {
        let cube = triangles_of(&cube());
        assert!((winding_exact([0.1, -0.2, 0.3], &cube).0 - 1.0).abs() < 1e-12);
        assert!(winding_exact([0.1, -0.2, 0.7], &cube).0.abs() < 1e-12);
        let octant = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        assert!((solid_angle([0.0; 3], octant).0 - 0.125).abs() < 1e-12);
        let torus = triangles_of(&torus(40, 20));
        assert!((winding_exact([0.6, 0.0, 0.1], &torus).0 - 1.0).abs() < 1e-12);
        assert!(winding_exact([0.0; 3], &torus).0.abs() < 1e-12);
    }

    /// Dipoles from twice the radius on: the sum errs by a few hundredths, and by less with larger beta.
    #[test]
    fn dipoles_come_near_the_exact_number() {
        let mut random = Random::new(60);
        let mesh = torus(64, 32);
        let bvh = MeshBvh::build(&mesh.0, &mesh.1).expect("a mesh");
        let triangles = triangles_of(&mesh);
        let mut worst = [0.0f64; 3];
        for p in points(400, &mesh, &mut random) {
            let exact = winding_exact(f64s(p), &triangles).0;
            for (worst, beta) in worst.iter_mut().zip([1.5, 2.0, 4.0]) {
                if let Some((w, _)) = winding_by_tree(f64s(p), &bvh, beta) {
                    *worst = worst.max((w - exact).abs());
                }
            }
        }
        eprintln!("worst errors for beta 1.5, 2, 4: {worst:?}");
        assert!(worst[1] < 0.1 && worst[2] < 0.02 && worst[0] > worst[2], "{worst:?}");
    }
}
