// Radial basis functions of the nearest centres, forward and backward (Chen et al. 2023, "NeuRBF",
// equations 4 to 6).
//
//   u = x_n - c_i for the K neighbours i of point n,   v = M_i u with the shape matrix M_i
//   t = u . v (M symmetric: the inverse covariance) or |v|^2 (M a general factor)
//   phi = the kernel function of t; the hat is the product of max(0, 1 - |v_d|) over the axes, the
//   cosine x . c / (|x| |c|)
//   forward:    y[n, j] = phi_j, or phi_j / (s + epsilon) with s the sum of phi over the neighbours; 0
//               where |s + epsilon| < 2^-126, as without neighbours and epsilon
//   backward:   dphi_j = dy_j / (s + epsilon), s held constant (DETACHED); with s differentiated (FULL)
//               dphi_j = (dy_j - sum_i dy_i y_i) / (s + epsilon)
//               dx = sum_j du_j,  dc = - sum of du over the points that have the centre as a
//               neighbour, dM likewise: dt u u^T (symmetric) or dv u^T
//
// Where a kernel is singular (markov, exp_sine, linear, inverse_linear, inverse_cubic have r = sqrt(t)
// in their slope's denominator) its gradients are 0 where t < 2^-100. Those of the hat are 0 on its
// ridges (v_d = 0) and from |v_d| = 1 on. Those of the cosine are 0 where |x|^2 |c|^2 < 2^-100, as is
// the cosine itself. A negative t, which only a shape that is not positive definite gives, counts as 0.
// A neighbour index that is not below the number of centres has phi = 0 and no gradient.
//
// SHAPE: 0 scalar s I, 1 diagonal, 2 symmetric (upper triangle, row by row), 3 general (row by row).
// forward, backward_points: one invocation a point. phi is evaluated again rather than kept.
// backward_centres: LANES invocations a centre share the pairs that its list has (dense::InvertedIndex)
// and add up in a fixed order. Workgroup memory: 5,120 bytes there where LANES > 1, else 0.

struct Params {
    first_group: u32,
    groups: u32,
    points: u32,
    centres: u32,
    neighbours: u32,  // of a point, K
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> positions: array<f32>;         // [N, DIMS]
@group(0) @binding(2) var<storage, read> centres: array<f32>;           // [C, DIMS]
@group(0) @binding(3) var<storage, read> shapes: array<f32>;            // [C, SHAPE_SIZE]
@group(0) @binding(4) var<storage, read> neighbours: array<u32>;        // [N, K]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;           // [N, K]
@group(0) @binding(5) var<storage, read> dy: array<f32>;                // [N, K]
@group(0) @binding(6) var<storage, read_write> dphi_out: array<f32>;    // [N, K]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;          // [N, DIMS]
@group(0) @binding(4) var<storage, read> dphi: array<f32>;              // [N, K]
@group(0) @binding(5) var<storage, read> order: array<u32>;             // [N K] pairs n K + j, by centre
@group(0) @binding(6) var<storage, read> starts: array<u32>;            // [C + 1]
@group(0) @binding(7) var<storage, read_write> dcentres: array<f32>;    // [C, DIMS]
@group(0) @binding(8) var<storage, read_write> dshapes: array<f32>;     // [C, SHAPE_SIZE]

const IVQ: u32 = 0u;
const IVMQ: u32 = 1u;
const GAUSS: u32 = 2u;
const SGAUSS2: u32 = 3u;
const NSGAUSS2: u32 = 4u;
const MARKOV: u32 = 5u;
const EXPSIN: u32 = 6u;
const QD: u32 = 7u;
const MQD: u32 = 8u;
const PHS1: u32 = 9u;
const PHS3: u32 = 10u;
const VEP: u32 = 11u;
const IVD: u32 = 12u;
const IVC: u32 = 13u;
const HAT: u32 = 14u;
const COSINE: u32 = 15u;

const SCALAR: u32 = 0u;
const DIAGONAL: u32 = 1u;
const SYMMETRIC: u32 = 2u;
const GENERAL: u32 = 3u;

const DETACHED: u32 = 1u;
const FULL: u32 = 2u;

// t below which a singular kernel's gradients, and the cosine, are 0: 2^-100.
const NEAREST: f32 = 7.888609052210118e-31;

fn position(n: u32) -> vec4<f32> {
    let at = n * DIMS;
    var v = vec4<f32>(positions[at], 0.0, 0.0, 0.0);
    if DIMS > 1u { v.y = positions[at + 1u]; }
    if DIMS > 2u { v.z = positions[at + 2u]; }
    if DIMS > 3u { v.w = positions[at + 3u]; }
    return v;
}

fn centre(i: u32) -> vec4<f32> {
    let at = i * DIMS;
    var v = vec4<f32>(centres[at], 0.0, 0.0, 0.0);
    if DIMS > 1u { v.y = centres[at + 1u]; }
    if DIMS > 2u { v.z = centres[at + 2u]; }
    if DIMS > 3u { v.w = centres[at + 3u]; }
    return v;
}

// Where the element (r, c), r <= c, of a shape is stored; SHAPE_SIZE where it is 0.
fn place(r: u32, c: u32) -> u32 {
    if c >= DIMS || (SHAPE < SYMMETRIC && r != c) { return SHAPE_SIZE; }
    switch SHAPE {
        case SCALAR: { return 0u; }
        case DIAGONAL: { return r; }
        case SYMMETRIC: { return r * (2u * DIMS - r - 1u) / 2u + c; }
        default: { return r * DIMS + c; }
    }
}

fn element(i: u32, r: u32, c: u32) -> f32 {
    var at = SHAPE_SIZE;
    if SHAPE == GENERAL {
        if r < DIMS && c < DIMS { at = r * DIMS + c; }
    } else {
        at = place(min(r, c), max(r, c));
    }
    if at >= SHAPE_SIZE { return 0.0; }
    return shapes[i * SHAPE_SIZE + at];
}

fn row(i: u32, r: u32) -> vec4<f32> {
    return vec4<f32>(element(i, r, 0u), element(i, r, 1u), element(i, r, 2u), element(i, r, 3u));
}

// Column r of the result is row r of the shape matrix.
fn shape(i: u32) -> mat4x4<f32> {
    return mat4x4<f32>(row(i, 0u), row(i, 1u), row(i, 2u), row(i, 3u));
}

// A point seen from a centre.
struct View {
    u: vec4<f32>,
    m: mat4x4<f32>,   // as `shape` gives it
    v: vec4<f32>,
    t: f32,
}

fn view(x: vec4<f32>, c: vec4<f32>, m: mat4x4<f32>) -> View {
    let u = x - c;
    let v = u * m;
    var t = select(dot(u, v), dot(v, v), SHAPE == GENERAL);
    // By its bits: a driver may make a maximum of a comparison, and a maximum swallows NaN.
    let bits = bitcast<u32>(t);
    t = select(t, 0.0, bits > 0x80000000u && bits <= 0xff800000u);
    return View(u, m, v, t);
}

// max(0, 1 - |v|), which unlike max keeps NaN.
fn hats(v: vec4<f32>) -> vec4<f32> {
    let a = abs(v);
    return select(1.0 - a, vec4<f32>(0.0), a >= vec4<f32>(1.0));
}

fn cosine(x: vec4<f32>, c: vec4<f32>) -> f32 {
    let square = dot(x, x) * dot(c, c);
    let far = !(square < NEAREST);
    return select(0.0, dot(x, c) / sqrt(select(1.0, square, far)), far);
}

fn phi_at(t: f32) -> f32 {
    switch FUNCTION {
        case IVQ: { return 1.0 / (1.0 + t); }
        case IVMQ: { return 1.0 / sqrt(1.0 + t); }
        case GAUSS: { return exp(-0.5 * t); }
        case SGAUSS2: { return exp(-0.25 * t * t); }
        case NSGAUSS2: { return exp(-t); }
        case MARKOV: { return exp(-sqrt(t)); }
        case EXPSIN: { return exp(-sin_cos(sqrt(t)).x); }
        case QD: { return 1.0 + t; }
        case MQD: { return sqrt(1.0 + t); }
        case PHS1: { return sqrt(t); }
        case PHS3: { return t * sqrt(t); }
        case VEP: { return 1.0 - t; }
        case IVD: { return 1.0 / (sqrt(t) + 1e-10); }
        default: { return 1.0 / (t * sqrt(t) + 1e-30); }
    }
}

fn phi_of(x: vec4<f32>, c: vec4<f32>, w: View) -> f32 {
    if FUNCTION == HAT {
        let h = hats(w.v);
        return (h.x * h.y) * (h.z * h.w);
    }
    if FUNCTION == COSINE { return cosine(x, c); }
    // Not every exp and sqrt keep NaN.
    return select(phi_at(w.t), w.t, is_nan(w.t));
}

// 1 / (s + epsilon), which is not finite where there is neither: 0 there.
fn scale_of(sum: f32) -> f32 {
    let divisor = sum + params.epsilon;
    return select(1.0 / divisor, 0.0, (bitcast<u32>(divisor) & 0x7fffffffu) < 0x00800000u);
}

// dphi d phi / d t, in two factors: next to a centre the product of those of inverse_cubic overflows, and what
// a gradient makes of it by a short u does not.
fn slope(dphi: f32, phi: f32, t: f32) -> vec2<f32> {
    let r = sqrt(t);
    var result = 0.0;
    var other = 1.0;
    switch FUNCTION {
        case IVQ: { result = -(dphi * phi) * phi; }
        case IVMQ: { result = -0.5 * (dphi * phi) * (phi * phi); }
        case GAUSS: { result = -0.5 * dphi * phi; }
        case SGAUSS2: { result = -0.5 * (dphi * phi) * t; }
        case NSGAUSS2: { result = -dphi * phi; }
        case MARKOV: { result = -(dphi * phi) * (0.5 / r); }
        case EXPSIN: { result = -(dphi * phi) * (0.5 / r) * sin_cos(r).y; }
        case QD: { result = dphi; }
        case MQD: { result = dphi * (0.5 / phi); }
        case PHS1: { result = dphi * (0.5 / r); }
        case PHS3: { result = 1.5 * dphi * r; }
        case VEP: { result = -dphi; }
        case IVD: { result = -(dphi * phi) * (phi * (0.5 / r)); }
        default: {
            result = -(dphi * phi);
            other = phi * 1.5 * r;
        }
    }
    let singular = FUNCTION == MARKOV || FUNCTION == EXPSIN || FUNCTION == PHS1 || FUNCTION == IVD || FUNCTION == IVC;
    return select(vec2<f32>(result, other), vec2<f32>(), singular && t < NEAREST);
}

// Gradients of one pair of a point and a centre.
struct Gradients {
    dx: vec4<f32>,
    dc: vec4<f32>,
    dm: mat4x4<f32>,  // column r: of row r of the shape matrix
}

fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

fn gradients(x: vec4<f32>, c: vec4<f32>, w: View, phi: f32, dphi: f32) -> Gradients {
    var g: Gradients;
    if FUNCTION == COSINE {
        let square = dot(x, x) * dot(c, c);
        if square < NEAREST { return g; }
        let length = sqrt(square);
        g.dx = dphi * (c / length - phi / dot(x, x) * x);
        g.dc = dphi * (x / length - phi / dot(c, c) * c);
        return g;
    }
    if FUNCTION == HAT {
        let h = hats(w.v);
        let others = h.yxxx * h.zzyy * h.wwwz;
        let inside = select(vec4<f32>(1.0), vec4<f32>(0.0), abs(w.v) >= vec4<f32>(1.0));
        let dv = -dphi * sign(w.v) * inside * others;
        g.dx = w.m * dv;
        g.dm = outer(dv, w.u);
    } else {
        let dt = slope(dphi, phi, w.t);
        let dv = 2.0 * dt.x * w.v;
        if SHAPE == GENERAL {
            g.dx = w.m * (dv * dt.y);
            g.dm = outer(dv, dt.y * w.u);
        } else {
            g.dx = dv * dt.y;
            g.dm = outer(dt.x * w.u, dt.y * w.u);
        }
    }
    g.dc = -g.dx;
    return g;
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    let x = position(point);
    let first = point * params.neighbours;
    var sum = 0.0;
    for (var j = 0u; j < params.neighbours; j++) {
        let i = neighbours[first + j];
        let own = min(i, params.centres - 1u);
        let c = centre(own);
        let phi = select(0.0, phi_of(x, c, view(x, c, shape(own))), i < params.centres);
        y[first + j] = phi;
        sum += phi;
    }
    if NORMALISATION > 0u {
        let scale = scale_of(sum);
        for (var j = 0u; j < params.neighbours; j++) { y[first + j] *= scale; }
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_points(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let point = group * WORKGROUP + local;
    if group >= params.groups || point >= params.points { return; }
    let x = position(point);
    let first = point * params.neighbours;
    var scale = 1.0;
    var mean = 0.0;
    if NORMALISATION > 0u {
        var sum = 0.0;
        var product = 0.0;
        for (var j = 0u; j < params.neighbours; j++) {
            let i = neighbours[first + j];
            let own = min(i, params.centres - 1u);
            let c = centre(own);
            let phi = select(0.0, phi_of(x, c, view(x, c, shape(own))), i < params.centres);
            sum += phi;
            product += dy[first + j] * phi;
        }
        scale = scale_of(sum);
        if NORMALISATION == FULL { mean = product * scale; }
    }
    var total = vec4<f32>(0.0);
    for (var j = 0u; j < params.neighbours; j++) {
        let i = neighbours[first + j];
        let own = min(i, params.centres - 1u);
        let c = centre(own);
        let w = view(x, c, shape(own));
        let present = i < params.centres;
        let d = select(0.0, (dy[first + j] - mean) * scale, present);
        dphi_out[first + j] = d;
        let g = gradients(x, c, w, phi_of(x, c, w), d);
        total += select(vec4<f32>(0.0), g.dx, present);
    }
    let at = point * DIMS;
    dx[at] = total.x;
    if DIMS > 1u { dx[at + 1u] = total.y; }
    if DIMS > 2u { dx[at + 2u] = total.z; }
    if DIMS > 3u { dx[at + 3u] = total.w; }
}

var<workgroup> shared_sums: array<vec4<f32>, 5u * WORKGROUP>;

fn put_shape(at: u32, r: u32, c: u32, value: f32) {
    let own = place(r, c);
    if own < SHAPE_SIZE { dshapes[at + own] = value; }
}

fn put_sums(i: u32, dc: vec4<f32>, m: mat4x4<f32>) {
    let at = i * DIMS;
    dcentres[at] = dc.x;
    if DIMS > 1u { dcentres[at + 1u] = dc.y; }
    if DIMS > 2u { dcentres[at + 2u] = dc.z; }
    if DIMS > 3u { dcentres[at + 3u] = dc.w; }
    let first = i * SHAPE_SIZE;
    if SHAPE == SCALAR {
        dshapes[first] = (m[0].x + m[1].y) + (m[2].z + m[3].w);
        return;
    }
    if SHAPE == GENERAL {
        put_row(first, 0u, m[0]);
        put_row(first, 1u, m[1]);
        put_row(first, 2u, m[2]);
        put_row(first, 3u, m[3]);
        return;
    }
    put_shape(first, 0u, 0u, m[0].x);
    put_shape(first, 1u, 1u, m[1].y);
    put_shape(first, 2u, 2u, m[2].z);
    put_shape(first, 3u, 3u, m[3].w);
    if SHAPE == SYMMETRIC {
        // An element off the diagonal stands at two places.
        put_shape(first, 0u, 1u, m[0].y + m[1].x);
        put_shape(first, 0u, 2u, m[0].z + m[2].x);
        put_shape(first, 0u, 3u, m[0].w + m[3].x);
        put_shape(first, 1u, 2u, m[1].z + m[2].y);
        put_shape(first, 1u, 3u, m[1].w + m[3].y);
        put_shape(first, 2u, 3u, m[2].w + m[3].z);
    }
}

fn put_row(first: u32, r: u32, v: vec4<f32>) {
    if r >= DIMS { return; }
    let at = first + r * DIMS;
    dshapes[at] = v.x;
    if DIMS > 1u { dshapes[at + 1u] = v.y; }
    if DIMS > 2u { dshapes[at + 2u] = v.z; }
    if DIMS > 3u { dshapes[at + 3u] = v.w; }
}

@compute @workgroup_size(WORKGROUP)
fn backward_centres(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let i = group * (WORKGROUP / LANES) + local / LANES;
    let lane = local % LANES;
    let own = min(i, params.centres - 1u);
    let c = centre(own);
    let m = shape(own);
    let pairs = params.points * params.neighbours;
    let end = min(starts[own + 1u], pairs);
    var dc = vec4<f32>(0.0);
    var dm = mat4x4<f32>();
    for (var at = starts[own] + lane; at < end; at += LANES) {
        let pair = min(order[at], pairs - 1u);
        let x = position(pair / params.neighbours);
        let w = view(x, c, m);
        let g = gradients(x, c, w, phi_of(x, c, w), dphi[pair]);
        dc += g.dc;
        dm = dm + g.dm;
    }
    if LANES > 1u {
        shared_sums[local] = dc;
        shared_sums[WORKGROUP + local] = dm[0];
        shared_sums[2u * WORKGROUP + local] = dm[1];
        shared_sums[3u * WORKGROUP + local] = dm[2];
        shared_sums[4u * WORKGROUP + local] = dm[3];
        for (var half = LANES / 2u; half > 0u; half = half >> 1u) {
            workgroupBarrier();
            if lane < half {
                for (var part = 0u; part < 5u; part++) {
                    let first = part * WORKGROUP + local;
                    shared_sums[first] += shared_sums[first + half];
                }
            }
        }
        workgroupBarrier();
        dc = shared_sums[local];
        dm = mat4x4<f32>(shared_sums[WORKGROUP + local], shared_sums[2u * WORKGROUP + local],
                         shared_sums[3u * WORKGROUP + local], shared_sums[4u * WORKGROUP + local]);
    }
    if lane == 0u && i < params.centres { put_sums(i, dc, dm); }
}
