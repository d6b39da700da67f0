// Encodings of single coordinates, forward and backward.
//
//   frequency (Mildenhall et al. 2020, eq. 4), K outputs a coordinate, in pairs:
//     y[n, d, k] = (sin(2^k pi x), cos(2^k pi x)),  k < K / 2
//     dx = sum over k of 2^k pi (dy_sin cos(2^k pi x) - dy_cos sin(2^k pi x))
//   one blob (Mueller et al. 2019, section 4.3), K bins: a blob of radius 1 / K around x, integrated over
//   each bin, on a circle of length 1:
//     y[n, d, b] = C(b + 1 - K x) - C(b - K x),  C(u) = Q(u - K) + Q(u) + Q(u + K)
//     Q(u) = 15/16 u (1 - 2/3 u^2 + 1/5 u^4) + 1/2 for |u| < 1, else 0 or 1: the integral of the quartic
//     kernel q(u) = 15/16 (1 - u^2)^2
//     dx = -K sum over b of dy_b (c(b + 1 - K x) - c(b - K x)),  c from q as C from Q
//
// forward: one invocation computes one pair of the frequency encoding, or one bin.
// backward: one invocation owns one coordinate.
// 2^k x is exact and so is its remainder modulo 2: only pi times the remainder is rounded, however
// large k is. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,    // invocations
    outputs: u32,  // K
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // [points, dims]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;     // [points, dims, K]
@group(0) @binding(2) var<storage, read> dy: array<f32>;          // [points, dims, K]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;    // [points, dims]

fn power_of_two(k: u32) -> f32 {
    return bitcast<f32>((127u + k) << 23u);
}

// (sin, cos) of 2^k pi x.
fn wave(k: u32, x: f32) -> vec2<f32> {
    let t = x * power_of_two(k);
    return sin_cos(3.1415926535897932 * (t - 2.0 * round(0.5 * t)));
}

fn integral(u: f32) -> f32 {
    let v = clamp(u, -1.0, 1.0);
    let s = v * v;
    return 0.9375 * v * (1.0 + s * (0.2 * s - 0.6666666666666667)) + 0.5;
}

fn quartic(u: f32) -> f32 {
    let s = 1.0 - min(u * u, 1.0);
    return 0.9375 * s * s;
}

// The bin's share of a blob at K x, `at` being the bin's left edge less K x.
fn blob(at: f32, bins: f32) -> f32 {
    var sum = 0.0;
    for (var turn = 0u; turn < 3u; turn++) {
        let u = at + (f32(turn) - 1.0) * bins;
        sum += integral(u + 1.0) - integral(u);
    }
    return sum;
}

fn blob_derivative(at: f32, bins: f32) -> f32 {
    var sum = 0.0;
    for (var turn = 0u; turn < 3u; turn++) {
        let u = at + (f32(turn) - 1.0) * bins;
        sum += quartic(u) - quartic(u + 1.0);
    }
    return bins * sum;
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count {
        return;
    }
    if FREQUENCY {
        let pairs = params.outputs / 2u;
        let v = wave(i % pairs, x[i / pairs]);
        y[2u * i] = v.x;
        y[2u * i + 1u] = v.y;
    } else {
        let bins = f32(params.outputs);
        y[i] = blob(f32(i % params.outputs) - bins * x[i / params.outputs], bins);
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count {
        return;
    }
    let v = x[i];
    let at = i * params.outputs;
    var sum = 0.0;
    if FREQUENCY {
        for (var k = 0u; k < params.outputs / 2u; k++) {
            let w = wave(k, v);
            let slope = dy[at + 2u * k] * w.y - dy[at + 2u * k + 1u] * w.x;
            sum += 3.1415926535897932 * power_of_two(k) * slope;
        }
    } else {
        let bins = f32(params.outputs);
        for (var b = 0u; b < params.outputs; b++) {
            sum += dy[at + b] * blob_derivative(f32(b) - bins * v, bins);
        }
    }
    dx[i] = sum;
}
