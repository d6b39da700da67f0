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
// One invocation computes one point. A walk ends after `rounds` nodes and is kept: in `state` the node that comes
// next (0 when there is none) and the trail, or the sums of angles; in the outputs the nearest triangle so
// far. The next dispatch goes on with it (Mesa's llvmpipe ends all loops of an invocation after 65,535 rounds,
// and around the centre of a fine sphere no node can be left out). Sums are the same as in one go.
//
// BRUTE_FORCE: all triangles, no tree; EXACT: no dipoles.
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
    rounds: u32,         // nodes of a walk, at most, in this dispatch
    resumed: u32,        // whether walks have begun before
    more: u32,           // dispatches that follow
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> positions: array<f32>;             // [points, 3]
@group(0) @binding(2) var<storage, read> corners: array<vec4<u32>>;         // [triangles, 3]: xyz bits, index
@group(0) @binding(3) var<storage, read> boxes: array<vec4<f32>>;           // [2 leaves, 2]: low, high
@group(0) @binding(3) var<storage, read> dipoles: array<vec4<f32>>;         // [2 leaves, 2]: centre and r, normal
@group(0) @binding(5) var<storage, read_write> angle_state: array<u32>;     // [points, 3]: node, angles, far
@group(0) @binding(4) var<storage, read> winding_in: array<u32>;            // [points], bits of f32
@group(0) @binding(4) var<storage, read_write> winding_out: array<u32>;     // [points], bits of f32
@group(0) @binding(5) var<storage, read_write> distance_signed: array<u32>; // [points], bits of f32
@group(0) @binding(6) var<storage, read_write> gradient_signed: array<u32>; // [points, 3], bits of f32
@group(0) @binding(7) var<storage, read_write> nearest_signed: array<u32>;  // [points]
@group(0) @binding(8) var<storage, read_write> state_signed: array<u32>;    // [points, 3]: node, trail
@group(0) @binding(4) var<storage, read_write> distances: array<u32>;       // [points], bits of f32
@group(0) @binding(5) var<storage, read_write> gradients: array<u32>;       // [points, 3], bits of f32
@group(0) @binding(6) var<storage, read_write> nearest: array<u32>;         // [points]
@group(0) @binding(7) var<storage, read_write> state: array<u32>;           // [points, 3]: node, trail

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

struct Walk {
    best: Nearest,
    node: u32,    // the next; 0: there is none
    trail: u32,
}

// A walk that has not begun.
fn fresh() -> Walk {
    return Walk(Nearest(3e38, vec3<f32>(), NONE), 1u, 0u);
}

fn walk_on(start: Walk, p: vec3<f32>) -> Walk {
    var best = start.best;
    if BRUTE_FORCE {
        return Walk(nearest_of_range(best, p, 0u, params.triangles), 0u, 0u);
    }
    var node = start.node;
    var trail = start.trail;
    for (var round = 0u; round < params.rounds && node != 0u; round++) {
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
            let up = countTrailingZeros(trail);
            if trail == 0u {
                node = 0u;
            } else {
                node = (node >> up) ^ 1u;
                trail = (trail >> up) ^ 1u;
            }
        }
    }
    return Walk(best, node, trail);
}

struct Result {
    distance: u32,   // of a walk that is not at its end, squared
    gradient: vec3<u32>,
    nearest: u32,
    node: u32,
    trail: u32,
}

// `inward`: -1 or 1.
fn result(start: Walk, p: vec3<f32>, inward: f32) -> Result {
    if !is_finite(p) {
        return Result(NOT_A_NUMBER, vec3<u32>(NOT_A_NUMBER), NONE, 0u, 0u);
    }
    let walk = walk_on(start, p);
    let best = walk.best;
    if walk.node != 0u {
        return Result(bitcast<u32>(best.squared), bitcast<vec3<u32>>(best.offset), best.index, walk.node, walk.trail);
    }
    let d = sqrt(best.squared);
    var g = vec3<f32>();
    if d > 0.0 {
        g = best.offset * (inward / d);
    }
    return Result(bitcast<u32>(inward * d), bitcast<vec3<u32>>(g), best.index, 0u, 0u);
}

@compute @workgroup_size(WORKGROUP)
fn to_mesh(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    var start = fresh();
    if params.resumed != 0u {
        if state[3u * i] == 0u {
            return;
        }
        let offset = vec3<u32>(gradients[3u * i], gradients[3u * i + 1u], gradients[3u * i + 2u]);
        let best = Nearest(bitcast<f32>(distances[i]), bitcast<vec3<f32>>(offset), nearest[i]);
        start = Walk(best, state[3u * i], state[3u * i + 1u]);
    }
    let r = result(start, position(i), 1.0);
    distances[i] = r.distance;
    gradients[3u * i] = r.gradient.x;
    gradients[3u * i + 1u] = r.gradient.y;
    gradients[3u * i + 2u] = r.gradient.z;
    nearest[i] = r.nearest;
    if params.more > 0u {
        state[3u * i] = r.node;
        state[3u * i + 1u] = r.trail;
    }
}

@compute @workgroup_size(WORKGROUP)
fn to_mesh_signed(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    var start = fresh();
    if params.resumed != 0u {
        if state_signed[3u * i] == 0u {
            return;
        }
        let offset =
            vec3<u32>(gradient_signed[3u * i], gradient_signed[3u * i + 1u], gradient_signed[3u * i + 2u]);
        let best = Nearest(bitcast<f32>(distance_signed[i]), bitcast<vec3<f32>>(offset), nearest_signed[i]);
        start = Walk(best, state_signed[3u * i], state_signed[3u * i + 1u]);
    }
    let inner = abs(bitcast<f32>(winding_in[i])) > 0.5;
    let r = result(start, position(i), select(1.0, -1.0, inner));
    distance_signed[i] = r.distance;
    gradient_signed[3u * i] = r.gradient.x;
    gradient_signed[3u * i + 1u] = r.gradient.y;
    gradient_signed[3u * i + 2u] = r.gradient.z;
    nearest_signed[i] = r.nearest;
    if params.more > 0u {
        state_signed[3u * i] = r.node;
        state_signed[3u * i + 1u] = r.trail;
    }
}

// ---- winding number ----

// The power of two that brings a length near 1. Angles do not change with it, and products of three
// lengths neither overflow nor vanish.
fn scale_of(size: f32) -> f32 {
    return bitcast<f32>(0x7f000000u - min(bitcast<u32>(size) & 0x7f800000u, 0x7e800000u));
}

// Solid angles of triangles, halved.
fn half_angles(p: vec3<f32>, first: u32, end: u32) -> f32 {
    var sum = 0.0;
    for (var at = first; at < end; at++) {
        let t = triangle(at);
        let sides = max(max(abs(t.a - p), abs(t.b - p)), abs(t.c - p));
        let scale = scale_of(max(max(sides.x, sides.y), sides.z));
        let a = scale * (t.a - p);
        let b = scale * (t.b - p);
        let c = scale * (t.c - p);
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

// A sum that is not at its end, and the node that comes next; 0: it is.
struct Sum {
    angles: f32,   // halved
    far: f32,
    node: u32,
}

fn sum_on(start: Sum, p: vec3<f32>) -> Sum {
    if BRUTE_FORCE || EXACT {
        return Sum(half_angles(p, 0u, params.triangles), 0.0, 0u);
    }
    var angles = start.angles;
    var far = start.far;
    var node = start.node;
    for (var round = 0u; round < params.rounds && node != 0u; round++) {
        let centre = dipoles[2u * node];
        let d = centre.xyz - p;
        let squared = dot(d, d);
        let reach = params.beta * centre.w;
        var down = false;
        if squared > reach * reach {
            far += dot(d, dipoles[2u * node + 1u].xyz) / (squared * sqrt(squared));
        } else if node < params.leaves {
            down = true;
        } else {
            let leaf = node - params.leaves;
            angles += half_angles(p, leaf_start(leaf), leaf_start(leaf + 1u));
        }
        if down {
            node = 2u * node;
        } else {
            node = (node + 1u) >> countTrailingZeros(node + 1u);
            node = select(node, 0u, node == 1u);
        }
    }
    return Sum(angles, far, node);
}

@compute @workgroup_size(WORKGROUP)
fn winding(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.points {
        return;
    }
    var sum = Sum(0.0, 0.0, 1u);
    if params.resumed != 0u {
        let angles = bitcast<f32>(angle_state[3u * i + 1u]);
        sum = Sum(angles, bitcast<f32>(angle_state[3u * i + 2u]), angle_state[3u * i]);
        if sum.node == 0u {
            return;
        }
    }
    let p = position(i);
    if is_finite(p) {
        sum = sum_on(sum, p);
        winding_out[i] = bitcast<u32>(sum.angles * 0.15915494309189535 + sum.far * 0.07957747154594767);
    } else {
        sum.node = 0u;
        winding_out[i] = NOT_A_NUMBER;
    }
    if params.more > 0u {
        angle_state[3u * i] = sum.node;
        angle_state[3u * i + 1u] = bitcast<u32>(sum.angles);
        angle_state[3u * i + 2u] = bitcast<u32>(sum.far);
    }
}
