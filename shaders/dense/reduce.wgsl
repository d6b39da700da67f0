// Sum, mean, L2 norm and maximum over one axis, forward and backward.
//
//   x: [outer, n, inner]                          y: [outer, inner]
//   sum, mean:  y = scale sum_k x_k               dx_k = scale dy
//   L2 norm:    y = sqrt(sum_k x_k^2)             dx_k = x_k / y dy, and 0 where y = 0
//   maximum:    y = x_index, index = the first k  dx_k = dy where k = index, else 0
//               with the largest x_k; a NaN counts above everything, so it shows in y
//
// A pass reduces each of `parts` parts of the axis, `length` long: [outer, n, inner] becomes
// [outer, parts, inner]. A long axis takes several passes, the last one with one part.
//   columns: one invocation reduces a part; neighbours share their cache lines if inner is large.
//   rows:    one workgroup reduces a part, then a tree over its invocations: for a small inner.
// Sums go by runs of 32 elements, and a run's sum is added to the total: the error grows with
// 32 + length / 32 rather than with the length. The order is fixed, so results repeat.
// Maxima are compared as integers (see `rank`): WGSL's max swallows NaN.
// Workgroup memory: 8 WORKGROUP bytes.
// Versions: columns; rows (all lanes busy when there are few outputs).

struct Params {
    first_group: u32,
    groups: u32,
    n: u32,
    inner: u32,
    parts: u32,
    length: u32,   // of a part; the last one may be shorter
    count: u32,    // outputs of a pass, outer * parts * inner; elements of dx
    square: u32,   // forward: 1 to add squares
    root: u32,     // forward: 1 to take the root of the sum
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                    // [outer, n, inner]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;              // [outer, parts, inner]
@group(0) @binding(1) var<storage, read> x_bits: array<u32>;               // x, as bits
@group(0) @binding(2) var<storage, read_write> y_bits: array<u32>;         // y, as bits
@group(0) @binding(3) var<storage, read_write> index: array<u32>;          // [outer, parts, inner]
@group(0) @binding(4) var<storage, read> x_index: array<u32>;              // [outer, n, inner]: index of an earlier pass
@group(0) @binding(1) var<storage, read> dy: array<f32>;                   // [outer, inner]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;             // [outer, n, inner]
@group(0) @binding(3) var<storage, read> chosen: array<u32>;               // [outer, inner]
@group(0) @binding(3) var<storage, read> input: array<f32>;                // [outer, n, inner]
@group(0) @binding(4) var<storage, read> norm: array<f32>;                 // [outer, inner]

var<workgroup> sums: array<f32, WORKGROUP>;
var<workgroup> ranks: array<u32, WORKGROUP>;
var<workgroup> places: array<u32, WORKGROUP>;

// Where the part of output `i` begins in x, and how many elements it has.
struct Part {
    base: u32,
    first: u32,
    length: u32,
}

fn part(i: u32) -> Part {
    let column = i % params.inner;
    let p = (i / params.inner) % params.parts;
    let o = i / params.inner / params.parts;
    let first = p * params.length;
    return Part((o * params.n + first) * params.inner + column, first,
                min(params.length, params.n - first));
}

// The sum of the elements `start`, `start + step`, ... of a part.
fn partial_sum(p: Part, start: u32, step: u32) -> f32 {
    var total = 0.0;
    var k = start;
    while k < p.length {
        var run = 0.0;
        for (var j = 0u; j < 32u && k < p.length; j++) {
            let v = x[p.base + k * params.inner];
            run += select(v, v * v, params.square == 1u);
            k += step;
        }
        total += run;
    }
    return total;
}

fn finish(sum: f32) -> f32 {
    let scaled = sum * params.scale;
    if params.root == 1u {
        return sqrt(scaled);
    }
    return scaled;
}

@compute @workgroup_size(WORKGROUP)
fn sum_columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        y[i] = finish(partial_sum(part(i), 0u, 1u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    sums[local] = partial_sum(part(group), local, WORKGROUP);
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        y[group] = finish(sums[0]);
    }
}

// Orders floats as integers: -0 equals 0, NaN is the largest, nothing maps to 0.
fn rank(bits: u32) -> u32 {
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u {
        return 0xffffffffu;
    }
    if size == 0u {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits > 0x7fffffffu);
}

// (rank, k) of the first largest element among `start`, `start + step`, ...; rank 0 if there are none.
fn partial_max(p: Part, start: u32, step: u32) -> vec2<u32> {
    var best = vec2<u32>(0u, 0xffffffffu);
    for (var k = start; k < p.length; k += step) {
        let r = rank(x_bits[p.base + k * params.inner]);
        if r > best.x {
            best = vec2<u32>(r, k);
        }
    }
    return best;
}

@compute @workgroup_size(WORKGROUP)
fn max_columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let p = part(i);
        let k = partial_max(p, 0u, 1u).y;
        y_bits[i] = x_bits[p.base + k * params.inner];
        index[i] = p.first + k;
    }
}

// A later pass: the parts' maxima carry their own indices.
@compute @workgroup_size(WORKGROUP)
fn max_columns_again(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let p = part(i);
        let at = p.base + partial_max(p, 0u, 1u).y * params.inner;
        y_bits[i] = x_bits[at];
        index[i] = x_index[at];
    }
}

// The k of the first largest element of a workgroup's part, in places[0].
fn max_tree(p: Part, local: u32) {
    let mine = partial_max(p, local, WORKGROUP);
    ranks[local] = mine.x;
    places[local] = mine.y;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            let other = ranks[local + half];
            let better = other > ranks[local]
                || (other == ranks[local] && places[local + half] < places[local]);
            if better {
                ranks[local] = other;
                places[local] = places[local + half];
            }
        }
        workgroupBarrier();
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let p = part(group);
    max_tree(p, local);
    if local == 0u {
        y_bits[group] = x_bits[p.base + places[0] * params.inner];
        index[group] = p.first + places[0];
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_rows_again(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let p = part(group);
    max_tree(p, local);
    if local == 0u {
        let at = p.base + places[0] * params.inner;
        y_bits[group] = x_bits[at];
        index[group] = x_index[at];
    }
}

// Backward: one invocation an element of dx. The output that element `i` went into:
fn output_of(i: u32) -> u32 {
    return i / params.inner / params.n * params.inner + i % params.inner;
}

@compute @workgroup_size(WORKGROUP)
fn sum_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        dx[i] = dy[output_of(i)] * params.scale;
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let o = output_of(i);
        var gradient = 0.0;
        if (i / params.inner) % params.n == chosen[o] {
            gradient = dy[o];
        }
        dx[i] = gradient;
    }
}

@compute @workgroup_size(WORKGROUP)
fn norm_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let o = output_of(i);
        var gradient = 0.0;
        // By its bits: a NaN norm must not pass for zero.
        if (bitcast<u32>(norm[o]) & 0x7fffffffu) != 0u {
            gradient = input[i] / norm[o] * dy[o];
        }
        dx[i] = gradient;
    }
}
