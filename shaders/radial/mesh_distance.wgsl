// Distance from points to a triangle mesh, its gradient, the nearest triangle, and the winding number.
//
//   distance[i]  = min over triangles |p - c|, c the nearest point of the triangle; `to_mesh_signed`: times -1
//                  where |winding| > 1/2
//   gradient[i]  = (p - c) / |p - c| with the same sign; 0 on the surface
//   nearest[i]   = the index of a triangle that c lies on
//   winding[i]   = sum over triangles of the solid angle / 4 pi (Jacobson et al. 2013), a solid angle as
//                  tan(w / 2) = det(a, b, c) / (|a||b||c| + (a.b)|c| + (b.c)|a| + (c.a)|b|)
//                  (van Oosterom and Strackee 1983); 0 where the point lies in the triangle's plane.
//
// The tree (mesh_bvh.rs) is complete: node 1 is the root, 2 k and 2 k + 1 are the children of k, and
// the LEAVES nodes of the last level share the triangles out in order. So it is walked without a
// stack. For distances the nearer child comes first; `trail` has a bit for each ancestor whose
// sibling is still to be seen (Laine 2010). For winding numbers the order does not matter, and the
// node after a subtree is known: (k + 1) without its trailing zeros. A node whose triangles lie within
// radius r around its centre counts as a dipole from the distance beta r on (Barill et al. 2018,
// order 1).
//
// One invocation computes one point. BRUTE_FORCE: all triangles, no tree; EXACT: no dipoles.
// A position that is not finite gives NaN, and NONE as its triangle. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    triangles: u32,
    leaves: u32,         // a power of 2
    leaf_triangles: u32, // floor(triangles / leaves)
    long_leaves: u32,    // the first of them have one triangle more
    beta: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> positions: array<f32>;             // [points, 3]
@group(0) @binding(2) var<storage, read> corners: array<vec4<u32>>;         // [triangles, 3]: xyz bits, index
@group(0) @binding(3) var<storage, read> boxes: array<vec4<f32>>;           // [2 leaves, 2]: low, high
@group(0) @binding(3) var<storage, read> dipoles: array<vec4<f32>>;         // [2 leaves, 2]: centre and r, normal
@group(0) @binding(4) var<storage, read> winding_in: array<u32>;            // [points], bits of f32
@group(0) @binding(4) var<storage, read_write> winding_out: array<u32>;     // [points], bits of f32
@group(0) @binding(5) var<storage, read_write> distance_signed: array<u32>; // [points], bits of f32
@group(0) @binding(6) var<storage, read_write> gradient_signed: array<u32>; // [points, 3], bits of f32
@group(0) @binding(7) var<storage, read_write> nearest_signed: array<u32>;  // [points]
@group(0) @binding(4) var<storage, read_write> distances: array<u32>;        // [points], bits of f32
@group(0) @binding(5) var<storage, read_write> gradients: array<u32>;        // [points, 3], bits of f32
@group(0) @binding(6) var<storage, read_write> nearest: array<u32>;         // [points]

const NOT_A_NUMBER: u32 = 0x7fc00000u;
const NONE: u32 = 0xffffffffu;

fn position(i: u32) -> vec3<f32> {
    return vec3<f32>(positions[3u * i], positions[3u * i + 1u], positions[3u * i + 2u]);
}

fn is_finite(p: vec3<f32>) -> bool {
    let size = bitcast<vec3<u32>>(p) & vec3<u32>(0x7fffffffu);
    return max(max(size.x, size.y), size.z) < 0x7f800000u;
}

struct Triangle {
    a: vec3<f32>,
    b: vec3<f32>,
    c: vec3<f32>,
    index: u32,
}

fn triangle(at: u32) -> Triangle {
    let a = corners[3u * at];
    return Triangle(bitcast<vec3<f32>>(a.xyz), bitcast<vec3<f32>>(corners[3u * at + 1u].xyz),
                    bitcast<vec3<f32>>(corners[3u * at + 2u].xyz), a.w);
}

// The first triangle of a leaf; of the leaf after the last, their number.
fn leaf_start(leaf: u32) -> u32 {
    return leaf * params.leaf_triangles + min(leaf, params.long_leaves);
}

// ---- distance ----

struct Nearest {
    squared: f32,
    offset: vec3<f32>,   // p - c
    index: u32,
}

// From the nearest point of the segment [0, e] to p. An edge of length 0 is a point.
fn from_segment(p: vec3<f32>, e: vec3<f32>) -> vec3<f32> {
    return p - clamp(dot(p, e) / max(dot(e, e), 1e-37), 0.0, 1.0) * e;
}

// Keeps the nearer of `best` and the triangle. The candidates are a point of each edge, and one inside the
// triangle if its weights say so: each of them is on the triangle, however thin that may be.
fn nearer(best: Nearest, p: vec3<f32>, t: Triangle) -> Nearest {
    let u = p - t.a;
    let ab = t.b - t.a;
    let ac = t.c - t.a;
    var offset = from_segment(u, ab);
    var squared = dot(offset, offset);
    let second = from_segment(u, ac);
    let to_second = dot(second, second);
    if to_second < squared {
        offset = second;
        squared = to_second;
    }
    let third = from_segment(p - t.b, t.c - t.b);
    let to_third = dot(third, third);
    if to_third < squared {
        offset = third;
        squared = to_third;
    }
    let normal = cross(ab, ac);
    let size = dot(normal, normal);
    if size > 0.0 {
        let v = dot(cross(u, ac), normal) / size;
        let w = dot(cross(ab, u), normal) / size;
        let inner = u - v * ab - w * ac;
        let to_inner = dot(inner, inner);
        if v >= 0.0 && w >= 0.0 && v + w <= 1.0 && to_inner < squared {
            offset = inner;
            squared = to_inner;
        }
    }
    if squared < best.squared {
        return Nearest(squared, offset, t.index);
    }
    return best;
}

fn to_box(p: vec3<f32>, node: u32) -> f32 {
    let d = max(max(boxes[2u * node].xyz - p, p - boxes[2u * node + 1u].xyz), vec3<f32>());
    return dot(d, d);
}

fn nearest_of_range(start: Nearest, p: vec3<f32>, first: u32, end: u32) -> Nearest {
    var best = start;
    for (var at = first; at < end; at++) {
        best = nearer(best, p, triangle(at));
    }
    return best;
}

fn nearest_triangle(p: vec3<f32>) -> Nearest {
    var best = Nearest(3e38, vec3<f32>(), NONE);
    if BRUTE_FORCE {
        return nearest_of_range(best, p, 0u, params.triangles);
    }
    var node = 1u;
    var trail = 0u;
    loop {
        var inside = false;   // whether a child is to be seen next
        if node < params.leaves {
            let left = to_box(p, 2u * node);
            let right = to_box(p, 2u * node + 1u);
            if min(left, right) < best.squared {
                inside = true;
                node = 2u * node + select(0u, 1u, right < left);
                trail = 2u * trail + select(0u, 1u, max(left, right) < best.squared);
            }
        } else {
            let leaf = node - params.leaves;
            best = nearest_of_range(best, p, leaf_start(leaf), leaf_start(leaf + 1u));
        }
        if !inside {
            if trail == 0u {
                break;
            }
            let up = countTrailingZeros(trail);
            node = (node >> up) ^ 1u;
            trail = (trail >> up) ^ 1u;
        }
    }
    return best;
}

struct Result {
    distance: u32,
    gradient: vec3<u32>,
    nearest: u32,
}

// `inward`: -1 or 1.
fn result(p: vec3<f32>, inward: f32) -> Result {
    if !is_finite(p) {
        return Result(NOT_A_NUMBER, vec3<u32>(NOT_A_NUMBER), NONE);
    }
    let best = nearest_triangle(p);
    let d = sqrt(best.squared);
    var g = vec3<f32>();
    if d > 0.0 {
        g = best.offset * (inward / d);
    }
    return Result(bitcast<u32>(inward * d), bitcast<vec3<u32>>(g), best.index);
}

@compute @workgroup_size(WORKGROUP)
fn to_mesh(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let r = result(position(i), 1.0);
    distances[i] = r.distance;
    gradients[3u * i] = r.gradient.x;
    gradients[3u * i + 1u] = r.gradient.y;
    gradients[3u * i + 2u] = r.gradient.z;
    nearest[i] = r.nearest;
}

@compute @workgroup_size(WORKGROUP)
fn to_mesh_signed(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let inner = abs(bitcast<f32>(winding_in[i])) > 0.5;
    let r = result(position(i), select(1.0, -1.0, inner));
    distance_signed[i] = r.distance;
    gradient_signed[3u * i] = r.gradient.x;
    gradient_signed[3u * i + 1u] = r.gradient.y;
    gradient_signed[3u * i + 2u] = r.gradient.z;
    nearest_signed[i] = r.nearest;
}

// ---- winding number ----

// Solid angles of triangles, halved.
fn half_angles(p: vec3<f32>, first: u32, end: u32) -> f32 {
    var sum = 0.0;
    for (var at = first; at < end; at++) {
        let t = triangle(at);
        let a = t.a - p;
        let b = t.b - p;
        let c = t.c - p;
        let determinant = dot(a, cross(b, c));
        let la = length(a);
        let lb = length(b);
        let lc = length(c);
        let rest = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb;
        if determinant != 0.0 {
            sum += arctangent2(determinant, rest);
        }
    }
    return sum;
}

fn winding_number(p: vec3<f32>) -> f32 {
    if BRUTE_FORCE || EXACT {
        return half_angles(p, 0u, params.triangles) * 0.15915494309189535;
    }
    var angles = 0.0;
    var far = 0.0;
    var node = 1u;
    loop {
        let centre = dipoles[2u * node];
        let d = centre.xyz - p;
        let squared = dot(d, d);
        let reach = params.beta * centre.w;
        if squared > reach * reach {
            far += dot(d, dipoles[2u * node + 1u].xyz) / (squared * sqrt(squared));
        } else if node < params.leaves {
            node = 2u * node;
            continue;
        } else {
            let leaf = node - params.leaves;
            angles += half_angles(p, leaf_start(leaf), leaf_start(leaf + 1u));
        }
        node = node + 1u;
        node = node >> countTrailingZeros(node);
        if node == 1u {
            break;
        }
    }
    return angles * 0.15915494309189535 + far * 0.07957747154594767;
}

@compute @workgroup_size(WORKGROUP)
fn winding(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    let p = position(i);
    if is_finite(p) {
        winding_out[i] = bitcast<u32>(winding_number(p));
    } else {
        winding_out[i] = NOT_A_NUMBER;
    }
}
