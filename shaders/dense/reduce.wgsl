// Sum, mean, L2 norm and maximum over one axis, forward and backward.
//
//   x: [outer, n, inner]                          y: [outer, inner]
//   sum, mean:  y = scale sum_k x_k               dx_k = scale dy
//   L2 norm:    y = sqrt(sum_k x_k^2)             dx_k = x_k / y dy, and 0 where y = 0
//   maximum:    y = x_index, index = the first k  dx_k = dy where k = index, else 0
//               with the largest x_k; a NaN counts above everything, so it shows in y
//
// A pass reduces each of `parts` parts of the axis, `length` long: [outer, n, inner] becomes
// [outer, parts, inner].  A long axis takes several passes, the last one with one part.
//   columns: one invocation reduces a part; neighbours share their cache lines if inner is large.
//   along:   the same, of an axis of four neighbours an item.
//   rows:    one workgroup reduces a part, then a tree over its invocations: for a small inner.
// What is read at once is an item: one element, four columns (`inner` a multiple of 4, columns) or
// four neighbours of the axis (inner = 1, n and length multiples of 4: along, rows; then ALONG).
// n, inner and length count items.
// Sums go by runs of RUN items, and a run's sum is added to the total: the error grows with
// RUN + length / RUN rather than with the length. The order is fixed, so results repeat.
// A run reads without branches: beyond the end the last item again, which then counts nothing.
// Maxima are compared as integers (see `rank`): WGSL's max swallows NaN.
// Workgroup memory: 12 WORKGROUP bytes (rows).
// Versions, as percents of copy bandwidth on a CPU adapter: one element at a time in loops (forward
// 21 to 40, backward 10); straight-line runs of vec4s (along 80 to 100, columns 40 to 60); COLUMNS
// neighbouring items an invocation, so that a long stretch of each row is read (sums by columns 56 to
// 82); backward with products for divisions (40), then one look at the output for ITEMS items (sums
// 57 to 98, where a fill reaches 72; norm 78 to 82; maximum 48 to 63).

struct Params {
    first_group: u32,
    groups: u32,
    n: u32,
    inner: u32,
    parts: u32,
    length: u32,        // of a part; the last one may be shorter
    count: u32,         // outputs of a pass, outer * parts * inner; backward: invocations
    square: u32,        // forward: 1 to add squares
    root: u32,          // forward: 1 to take the root of the sum
    scale: f32,
    // Of the backward pass, with what divides by them (see `divide`).
    slab_rows: u32,
    slab: u32,
    slab_factor: u32,
    slab_shift: u32,
    inner_factor: u32,
    inner_shift: u32,
    chunks: u32,        // of an axis
    chunks_factor: u32,
    chunks_shift: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Floats>;                 // [outer, n, inner]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;              // [outer, parts, inner]
@group(0) @binding(2) var<storage, read_write> y_items: array<Floats>;     // the same
@group(0) @binding(1) var<storage, read> x_bits: array<Words>;             // x, as bits
@group(0) @binding(2) var<storage, read_write> y_bits: array<u32>;         // y, as bits
@group(0) @binding(2) var<storage, read_write> y_bits_items: array<Words>;
@group(0) @binding(3) var<storage, read_write> index: array<u32>;          // [outer, parts, inner]
@group(0) @binding(3) var<storage, read_write> index_items: array<Words>;
@group(0) @binding(4) var<storage, read> x_index: array<Words>;            // [outer, n, inner]: index of an earlier pass
@group(0) @binding(1) var<storage, read> dy: array<f32>;                   // [outer, inner]
@group(0) @binding(1) var<storage, read> dy_items: array<Floats>;
@group(0) @binding(2) var<storage, read_write> dx: array<Floats>;          // [outer, n, inner]
@group(0) @binding(3) var<storage, read> chosen: array<u32>;               // [outer, inner]
@group(0) @binding(3) var<storage, read> chosen_items: array<Words>;
@group(0) @binding(3) var<storage, read> input: array<Floats>;             // [outer, n, inner]
@group(0) @binding(4) var<storage, read> norm: array<f32>;                 // [outer, inner]
@group(0) @binding(4) var<storage, read> norm_items: array<Floats>;

var<workgroup> sums: array<f32, WORKGROUP>;
var<workgroup> ranks: array<u32, WORKGROUP>;
var<workgroup> places: array<u32, WORKGROUP>;
var<workgroup> values: array<u32, WORKGROUP>;

// Where the part of output `i` begins in x, and how many items it has.
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

// The sum of the items `start`, `start + step`, ... of a part.
fn partial_sum(p: Part, start: u32, step: u32) -> Floats {
    var total = Floats();
    for (var k = start; k < p.length; k += RUN * step) {
        var run = Floats();
        for (var j = 0u; j < RUN; j++) {
            let at = k + j * step;
            let v = x[p.base + min(at, p.length - 1u) * params.inner];
            run += select(Floats(), select(v, v * v, params.square == 1u), at < p.length);
        }
        total += run;
    }
    return total;
}

fn finish(sum: Floats) -> Floats {
    let scaled = sum * params.scale;
    return select(scaled, sqrt(scaled), params.root == 1u);
}

fn finish_one(sum: f32) -> f32 {
    let scaled = sum * params.scale;
    return select(scaled, sqrt(scaled), params.root == 1u);
}

@compute @workgroup_size(WORKGROUP)
fn sum_columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let last = params.count - 1u;
    let i = group * WORKGROUP * COLUMNS + local;
    var parts: array<Part, COLUMNS>;
    var totals: array<Floats, COLUMNS>;
    var runs: array<Floats, COLUMNS>;
    for (var c = 0u; c < COLUMNS; c++) {
        parts[c] = part(min(i + c * WORKGROUP, last));
    }
    for (var k = 0u; k < params.length; k += RUN) {
        // Set by hand: Chromium 156 on SwiftShader does not clear an array that is declared in a loop.
        for (var c = 0u; c < COLUMNS; c++) { runs[c] = Floats(); }
        for (var m = k; m < k + RUN; m += UNROLL) {
            for (var j = 0u; j < UNROLL; j++) {
                for (var c = 0u; c < COLUMNS; c++) {
                    let length = parts[c].length;
                    let v = x[parts[c].base + min(m + j, length - 1u) * params.inner];
                    runs[c] += select(Floats(), select(v, v * v, params.square == 1u), m + j < length);
                }
            }
        }
        for (var c = 0u; c < COLUMNS; c++) {
            totals[c] += runs[c];
        }
    }
    for (var c = 0u; c < COLUMNS; c++) {
        if i + c * WORKGROUP <= last {
            y_items[i + c * WORKGROUP] = finish(totals[c]);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_along(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        y[i] = finish_one(lanes_sum(partial_sum(part(i), 0u, 1u)));
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    sums[local] = lanes_sum(partial_sum(part(group), local, WORKGROUP));
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        y[group] = finish_one(sums[0]);
    }
}

// Orders floats as integers: -0 equals 0, NaN is the largest, nothing maps to 0.
fn rank(bits: Words) -> Words {
    let size = bits & Words(0x7fffffffu);
    let ordered = choose(bits | Words(0x80000000u), ~bits, bits > Words(0x7fffffffu));
    let with_nan = choose(ordered, Words(0xffffffffu), size > Words(0x7f800000u));
    return choose(with_nan, Words(0x80000000u), size == Words(0u));
}

// The first largest of some elements, lane by lane: rank 0 if there are none.
struct Best {
    rank: Words,
    place: Words,
    bits: Words,
}

fn better(best: Best, bits: Words, place: Words, counts: bool) -> Best {
    let r = select(Words(0u), rank(bits), counts);
    let take = r > best.rank;
    return Best(choose(best.rank, r, take), choose(best.place, place, take), choose(best.bits, bits, take));
}

// Of the items `start`, `start + step`, ... of a part; a place is the element's along the axis.
fn partial_max(p: Part, start: u32, step: u32) -> Best {
    var best = Best(Words(0u), Words(0xffffffffu), Words(0u));
    for (var k = start; k < p.length; k += RUN * step) {
        for (var j = 0u; j < RUN; j++) {
            let at = k + j * step;
            let place = p.first + at;
            best = better(best, x_bits[p.base + min(at, p.length - 1u) * params.inner],
                          select(Words(place), place * WIDTH + LANE, ALONG), at < p.length);
        }
    }
    return best;
}

// A later pass: the parts' maxima carry their own places.
fn partial_max_again(p: Part, start: u32, step: u32) -> Best {
    var best = Best(Words(0u), Words(0xffffffffu), Words(0u));
    for (var k = start; k < p.length; k += RUN * step) {
        for (var j = 0u; j < RUN; j++) {
            let at = k + j * step;
            let i = p.base + min(at, p.length - 1u) * params.inner;
            best = better(best, x_bits[i], x_index[i], at < p.length);
        }
    }
    return best;
}

// (rank, place, bits) of the first largest of all lanes.
fn best_lane(best: Best) -> vec3<u32> {
    let largest = lanes_max(best.rank);
    let place = ~lanes_max(choose(Words(0u), ~best.place, best.rank == Words(largest)));
    let bits = lanes_max(choose(Words(0u), best.bits, best.place == Words(place)));
    return vec3<u32>(largest, place, bits);
}

fn put_columns(i: u32, best: Best) {
    y_bits_items[i] = best.bits;
    index_items[i] = best.place;
}

fn put_along(i: u32, best: Best) {
    let b = best_lane(best);
    y_bits[i] = b.z;
    index[i] = b.y;
}

// The first largest of a workgroup's part. All invocations must call it.
fn put_rows(group: u32, local: u32, best: Best) {
    let mine = best_lane(best);
    ranks[local] = mine.x;
    places[local] = mine.y;
    values[local] = mine.z;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            let other = ranks[local + half];
            let take = other > ranks[local]
                || (other == ranks[local] && places[local + half] < places[local]);
            if take {
                ranks[local] = other;
                places[local] = places[local + half];
                values[local] = values[local + half];
            }
        }
        workgroupBarrier();
    }
    if local == 0u {
        y_bits[group] = values[0];
        index[group] = places[0];
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        put_columns(i, partial_max(part(i), 0u, 1u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_along(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        put_along(i, partial_max(part(i), 0u, 1u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    put_rows(group, local, partial_max(part(group), local, WORKGROUP));
}

@compute @workgroup_size(WORKGROUP)
fn max_columns_again(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        put_columns(i, partial_max_again(part(i), 0u, 1u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_along_again(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        put_along(i, partial_max_again(part(i), 0u, 1u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_rows_again(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    put_rows(group, local, partial_max_again(part(group), local, WORKGROUP));
}

// ---- backward: an invocation ITEMS items of one column, slab_rows apart ----
//
// A chunk is ITEMS * slab_rows rows [n] of all columns, and slab = slab_rows * inner invocations
// share it: what they read of the output they read once, and neighbours write neighbours.

fn multiply_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

// i / d by products and shifts (Granlund and Montgomery 1994, figure 4.1), exact for all i: a CPU
// divides one lane at a time. shift = ceil(log2 d), factor = floor(2^32 (2^shift - d) / d) + 1.
fn divide(i: u32, factor: u32, shift: u32) -> u32 {
    let t = multiply_high(i, factor);
    return (t + ((i - t) >> min(shift, 1u))) >> (max(shift, 1u) - 1u);
}

// Where invocation `i` begins.
struct Source {
    item: u32,
    k: u32,
    output: u32,
}

fn source(i: u32) -> Source {
    let chunk = divide(i, params.slab_factor, params.slab_shift);
    let p = i - chunk * params.slab;
    let row = divide(p, params.inner_factor, params.inner_shift);
    let column = p - row * params.inner;
    let o = divide(chunk, params.chunks_factor, params.chunks_shift);
    let k = (chunk - o * params.chunks) * params.slab_rows * ITEMS + row;
    return Source((o * params.n + k) * params.inner + column, k, o * params.inner + column);
}

fn max_gradient(k: u32, place: Words, g: Floats) -> Floats {
    return select(Floats(), g, select(Words(k), k * WIDTH + LANE, ALONG) == place);
}

// 0 where the norm is, by its bits: a NaN norm must not pass for zero.
fn norm_gradient(v: Floats, size: Floats, g: Floats) -> Floats {
    return select(v / size * g, Floats(), magnitude(size) == Words(0u));
}

@compute @workgroup_size(WORKGROUP)
fn sum_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let s = source(i);
        let g = dy_items[s.output] * params.scale;
        for (var j = 0u; j < ITEMS; j++) {
            let k = s.k + j * params.slab_rows;
            let at = s.item + j * params.slab;
            if k < params.n {
                dx[at] = g;
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn sum_backward_along(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let s = source(i);
        let g = Floats(dy[s.output] * params.scale);
        for (var j = 0u; j < ITEMS; j++) {
            let k = s.k + j * params.slab_rows;
            let at = s.item + j * params.slab;
            if k < params.n {
                dx[at] = g;
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let s = source(i);
        let g = dy_items[s.output];
        let place = chosen_items[s.output];
        for (var j = 0u; j < ITEMS; j++) {
            let k = s.k + j * params.slab_rows;
            let at = s.item + j * params.slab;
            if k < params.n {
                dx[at] = max_gradient(k, place, g);
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn max_backward_along(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let s = source(i);
        let g = Floats(dy[s.output]);
        let place = Words(chosen[s.output]);
        for (var j = 0u; j < ITEMS; j++) {
            let k = s.k + j * params.slab_rows;
            let at = s.item + j * params.slab;
            if k < params.n {
                dx[at] = max_gradient(k, place, g);
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn norm_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let s = source(i);
        let g = dy_items[s.output];
        let size = norm_items[s.output];
        for (var j = 0u; j < ITEMS; j++) {
            let k = s.k + j * params.slab_rows;
            let at = s.item + j * params.slab;
            if k < params.n {
                dx[at] = norm_gradient(input[at], size, g);
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn norm_backward_along(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group < params.groups && i < params.count {
        let s = source(i);
        let g = Floats(dy[s.output]);
        let size = Floats(norm[s.output]);
        for (var j = 0u; j < ITEMS; j++) {
            let k = s.k + j * params.slab_rows;
            let at = s.item + j * params.slab;
            if k < params.n {
                dx[at] = norm_gradient(input[at], size, g);
            }
        }
    }
}
