// Random points on a mesh, near it and in a cube; point i depends on seed, step, stream and i alone.
//
//   the first `surface` points, then `near` of them, then the rest:
//     on the surface   a + u (b - a) + v (c - a): a triangle by its share of the area, (u, v) uniform in it;
//                      plus surface_sigma times a standard normal vector
//     near             the same with sigma
//     everywhere       low + size (u, v, w), uniform
//   from philox(counter = [2 i and 2 i + 1, stream, step0, step1], key = [seed0, seed1]).
//   PAIRS: point 2 j + 1 is point 2 j plus pair_sigma times a standard normal vector from words of its own.
//
// Word 0 chooses the triangle: the last one whose `starts` is not above it, found by bisection. A
// triangle's share of 2^32 is its share of the area, so that every adapter chooses the same one.
//
// STRATIFIED: word 0 of the k-th of n points (pairs) of a kind is drawn from the k-th of n equal parts of 2^32. On the
// surface these follow the order of the leaves. In the cube it is a place on a Morton curve: its upper 30 bits are those
// of a cell of 1024^3, and (u, v, w) is a place in that cell. So no region is left out by chance, and
// neighbours in memory are neighbours in space.
//
// One invocation computes one point. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    triangles: u32,
    surface: u32,      // points on the surface
    near: u32,         // points near it
    stream: u32,
    sigma: f32,
    low: f32,
    size: f32,
    surface_sigma: f32,
    pair_sigma: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;             // [4]: seed0, seed1, step0, step1
@group(0) @binding(2) var<storage, read> corners: array<vec4<u32>>;     // [triangles, 3]: xyz bits, index
@group(0) @binding(3) var<storage, read> starts: array<u32>;            // [triangles], rising from 0
@group(0) @binding(4) var<storage, read_write> positions: array<f32>;   // [points, 3]

fn words(block: u32) -> vec4<u32> {
    return philox4x32(vec4<u32>(block, params.stream, state[2], state[3]), vec2<u32>(state[0], state[1]));
}

// floor(2^32 k / n), k < n <= 2^24, by long division with digits of 8 bits.
fn part_start(k: u32, n: u32) -> u32 {
    var start = 0u;
    var rest = k;
    for (var digit = 0u; digit < 4u; digit++) {
        start = (start << 8u) | ((rest << 8u) / n);
        rest = (rest << 8u) % n;
    }
    return start;
}

fn stratified(k: u32, n: u32, word: u32) -> u32 {
    if n == 1u {
        return word;
    }
    let start = part_start(k, n);
    // The part after the last begins at 2^32, which is 0.
    let end = select(0u, part_start(min(k + 1u, n - 1u), n), k + 1u < n);
    return start + multiply_high(word, end - start);
}

// Every third bit from `first` on, counted from the highest.
fn third_bits(word: u32, first: u32) -> u32 {
    var bits = 0u;
    for (var level = 0u; level < 10u; level++) {
        bits = (bits << 1u) | ((word >> (31u - first - 3u * level)) & 1u);
    }
    return bits;
}

// The normal vector of point i.
fn shift(i: u32) -> vec3<f32> {
    let w = words(2u * i + 1u);
    return vec3<f32>(normal_pair(w.x, w.y), normal_pair(w.z, w.w).x);
}

fn choose(word: u32) -> u32 {
    var low = 0u;
    var high = params.triangles;   // starts[low] <= word < starts[high]
    while high - low > 1u {
        let middle = low + (high - low) / 2u;
        if starts[middle] <= word {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

fn on_surface(w: vec4<u32>) -> vec3<f32> {
    let at = choose(w.x);
    let a = bitcast<vec3<f32>>(corners[3u * at].xyz);
    let b = bitcast<vec3<f32>>(corners[3u * at + 1u].xyz);
    let c = bitcast<vec3<f32>>(corners[3u * at + 2u].xyz);
    // The other half of the parallelogram is turned over.
    let over = (w.y >> 8u) + (w.z >> 8u) > 0x1000000u;
    let u = uniform_from_bits(w.y);
    let v = uniform_from_bits(w.z);
    return a + select(u, 1.0 - u, over) * (b - a) + select(v, 1.0 - v, over) * (c - a);
}

@compute @workgroup_size(WORKGROUP)
fn sample_mesh(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let own = group * WORKGROUP + local;
    if group >= params.groups || own >= params.points {
        return;
    }
    // Points of a draw, and the first of this one.
    let together = select(1u, 2u, PAIRS);
    let i = own / together * together;
    var w = words(2u * i);
    var place = vec3<f32>(uniform_from_bits(w.x), uniform_from_bits(w.y), uniform_from_bits(w.z));
    if STRATIFIED {
        let is_on = i < params.surface;
        let is_near = !is_on && i < params.surface + params.near;
        let first = select(select(params.surface + params.near, params.surface, is_near), 0u, is_on);
        let rest = params.points - params.surface - params.near;
        let all = select(select(rest, params.near, is_near), params.surface, is_on);
        w.x = stratified((i - first) / together, all / together, w.x);
        let cell = vec3<f32>(vec3<u32>(third_bits(w.x, 0u), third_bits(w.x, 1u), third_bits(w.x, 2u)));
        place = (cell + vec3<f32>(uniform_from_bits(w.y), uniform_from_bits(w.z), uniform_from_bits(w.w))) / 1024.0;
    }
    var p = place * params.size + vec3<f32>(params.low);
    if i < params.surface + params.near {
        p = on_surface(w);
        let sigma = select(params.sigma, params.surface_sigma, i < params.surface);
        if sigma > 0.0 {
            p += sigma * shift(i);
        }
    }
    if own > i {
        p += params.pair_sigma * shift(own);
    }
    positions[3u * own] = p.x;
    positions[3u * own + 1u] = p.y;
    positions[3u * own + 2u] = p.z;
}
