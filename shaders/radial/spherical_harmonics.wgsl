// Real spherical harmonics of degrees l < DEGREE as polynomials of a direction, forward and backward.
//
//   y[n, l^2 + l + m] = N Q_l^|m|(z) Re or Im (x + i y)^|m|     Re for m >= 0, Im for m < 0
//   N = 1 for m = 0, else sqrt(2); Q_l^m is P_l^m(z) / (1 - z^2)^(m/2), normalised, with the sign (-1)^m:
//     Q_0^0 = sqrt(1 / 4 pi),   Q_m^m = -sqrt((2 m + 1) / 2 m) Q_(m-1)^(m-1)
//     Q_l^m = a (z Q_(l-1)^m - b Q_(l-2)^m),   a^2 = (4 l^2 - 1) / (l^2 - m^2),
//     b^2 = ((l - 1)^2 - m^2) / (4 (l - 1)^2 - 1)
//   backward: the gradient of these polynomials in x, y and z, from
//     d/dx (x + i y)^m = m (x + i y)^(m-1),   d/dy = i d/dx,   dQ_l^m/dz by the same recurrence.
// The order and the signs are those of tiny-cuda-nn.
//
// One invocation computes one direction; it walks along the columns m, so that three values of
// a recurrence are all it holds. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,   // directions
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> directions: array<f32>;        // [count, 3]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;           // [count, DEGREE^2]
@group(0) @binding(2) var<storage, read> dy: array<f32>;                // [count, DEGREE^2]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;          // [count, 3]

const SQRT_2: f32 = 1.4142135623730951;
const Q00: f32 = 0.28209479177387814;

fn coefficient_a(l: u32, m: u32) -> f32 {
    return sqrt(f32(4u * l * l - 1u) / f32(l * l - m * m));
}

// For l >= m + 2; before that there is nothing to multiply.
fn coefficient_b(l: u32, m: u32) -> f32 {
    if l < m + 2u {
        return 0.0;
    }
    let k = l - 1u;
    return sqrt(f32(k * k - m * m) / f32(4u * k * k - 1u));
}

fn next_diagonal(q: f32, m: u32) -> f32 {
    return -q * sqrt(f32(2u * m + 3u) / f32(2u * m + 2u));
}

fn multiply(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count {
        return;
    }
    let xy = vec2<f32>(directions[3u * i], directions[3u * i + 1u]);
    let z = directions[3u * i + 2u];
    let first = i * DEGREE * DEGREE;
    var diagonal = Q00;
    var power = vec2<f32>(1.0, 0.0);
    for (var m = 0u; m < DEGREE; m++) {
        var q = diagonal;
        var before = 0.0;
        for (var l = m; l < DEGREE; l++) {
            let at = first + l * l + l;
            if m == 0u {
                y[at] = q;
            } else {
                y[at + m] = SQRT_2 * q * power.x;
                y[at - m] = SQRT_2 * q * power.y;
            }
            let next = coefficient_a(l + 1u, m) * (z * q - coefficient_b(l + 1u, m) * before);
            before = q;
            q = next;
        }
        power = multiply(power, xy);
        diagonal = next_diagonal(diagonal, m);
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
    let xy = vec2<f32>(directions[3u * i], directions[3u * i + 1u]);
    let z = directions[3u * i + 2u];
    let first = i * DEGREE * DEGREE;
    var sum = vec3<f32>();
    var diagonal = Q00;
    var power = vec2<f32>(1.0, 0.0);
    var lower = vec2<f32>();  // m (x + i y)^(m-1)
    for (var m = 0u; m < DEGREE; m++) {
        // (Q, dQ/dz)
        var q = vec2<f32>(diagonal, 0.0);
        var before = vec2<f32>();
        for (var l = m; l < DEGREE; l++) {
            let at = first + l * l + l;
            var g = vec2<f32>(dy[at], 0.0);
            if m > 0u {
                g = SQRT_2 * vec2<f32>(dy[at + m], dy[at - m]);
            }
            sum += vec3<f32>(q.x * dot(g, lower), q.x * (g.y * lower.x - g.x * lower.y), q.y * dot(g, power));
            let shifted = vec2<f32>(z * q.x, q.x + z * q.y);
            let next = coefficient_a(l + 1u, m) * (shifted - coefficient_b(l + 1u, m) * before);
            before = q;
            q = next;
        }
        lower = f32(m + 1u) * power;
        power = multiply(power, xy);
        diagonal = next_diagonal(diagonal, m);
    }
    dx[3u * i] = sum.x;
    dx[3u * i + 1u] = sum.y;
    dx[3u * i + 2u] = sum.z;
}
