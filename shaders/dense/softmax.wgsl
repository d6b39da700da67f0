// Softmax and log-softmax over the last axis, forward and backward.
//
//   z_rk = scale x_rk + bias_bk,  b = (r / bias_repeat) % bias_rows      x: [rows, n], bias: [bias_rows, n]
//   softmax:      y_k = exp(z_k - max z) / sum_j exp(z_j - max z)   dx_k = scale y_k (dy_k - sum_j y_j dy_j)
//   log-softmax:  y_k = z_k - max z - log(sum_j exp(z_j - max z))   dx_k = scale (dy_k - exp(y_k) sum_j dy_j)
//
// Where the bias is MASKED (-1e30) or less, the element is masked: it takes no part, whatever x holds,
// its y is 0 (log-softmax: MASKED) and its dx 0. A row that is masked throughout is no special case.
// A logit of LOWEST or less counts as masked too. An x that is not finite makes its row NaN.
//
// rows: one invocation a row, for short rows and CPU adapters; three passes, the later ones cached.
// row: one workgroup a row of up to HELD WORKGROUP items, which stay in registers: x is read once.
// part, merge: longer rows in parts of that length. `part` leaves each part's maximum and sum, `merge`
//   joins those of its row and writes its part.
// An item is one element, or four where n is a multiple of 4; n and length count items.
// Workgroup memory: 4 WORKGROUP bytes (row, part and their backward).

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,
    n: u32,
    parts: u32,         // of a row
    length: u32,        // of a part; the last one may be shorter
    bias_rows: u32,
    bias_repeat: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Floats>;                 // [rows, n]
@group(0) @binding(2) var<storage, read> bias: array<Floats>;              // [bias_rows, n]
@group(0) @binding(3) var<storage, read_write> y_bits: array<Words>;       // [rows, n], bits of f32
@group(0) @binding(3) var<storage, read_write> parts_out: array<vec2<u32>>; // [rows, parts]: maximum, sum; bits
@group(0) @binding(4) var<storage, read> parts_in: array<vec2<u32>>;       // [rows, parts]
// backward
@group(0) @binding(1) var<storage, read> y: array<Floats>;                 // [rows, n]
@group(0) @binding(2) var<storage, read> dy: array<Floats>;                // [rows, n]
@group(0) @binding(3) var<storage, read_write> dx: array<Floats>;          // [rows, n]
@group(0) @binding(3) var<storage, read_write> dots_out: array<f32>;       // [rows, parts]
@group(0) @binding(4) var<storage, read> dots_in: array<f32>;              // [rows, parts]

const MASKED: f32 = -1e30;
const LOWEST: f32 = -3e38;
const INFINITY: u32 = 0x7f800000u;
const NOT_A_NUMBER: u32 = 0x7fc00000u;

var<workgroup> shared_value: array<f32, WORKGROUP>;

fn bias_row(row: u32) -> u32 {
    return row / params.bias_repeat % params.bias_rows;
}

// z, and LOWEST where it is masked.
fn logit(row: u32, bias_at: u32, k: u32) -> Floats {
    let z = params.scale * x[row * params.n + k];
    if BIAS {
        let b = bias[bias_at * params.n + k];
        return select(z + b, Floats(LOWEST), b <= Floats(MASKED));
    }
    return z;
}

// exp(z - maximum), 0 where z is masked. Below -200 the exponential is 0 in f32, and z - maximum may overflow.
fn term(z: Floats, maximum: f32) -> Floats {
    return select(exp(max(z - maximum, Floats(-200.0))), Floats(), z <= Floats(LOWEST));
}

// y as bits. `norm` is 1 / sum, or log sum for log-softmax.
fn output(z: Floats, maximum: f32, norm: f32, is_finite: bool) -> Words {
    var v: Floats;
    if LOG {
        v = select(max(z - maximum - norm, Floats(0.9 * MASKED)), Floats(MASKED), z <= Floats(LOWEST));
    } else {
        v = term(z, maximum) * norm;
    }
    return select(Words(NOT_A_NUMBER), bitcast<Words>(v), is_finite);
}

fn norm_of(sum: f32) -> f32 {
    if LOG { return log(max(sum, 1.0)); }
    // The largest term is 1, unless all are masked.
    return 1.0 / max(sum, 1.0);
}

// dx from y, dy and the row's dot product.
fn slope(v: Floats, d: Floats, dot: f32) -> Floats {
    if LOG {
        // Some drivers take the exponential of NaN for infinity.
        let e = select(exp(v), v, magnitude(v) >= Words(INFINITY));
        return select(params.scale * (d - e * dot), Floats(), v <= Floats(MASKED));
    }
    return params.scale * (v * (d - dot));
}

// What the dot product adds up.
fn product(v: Floats, d: Floats) -> Floats {
    if LOG { return select(d, Floats(), v <= Floats(MASKED)); }
    return v * d;
}

// ---- an invocation a row ----

@compute @workgroup_size(WORKGROUP)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let r = group * WORKGROUP + local;
    if group >= params.groups || r >= params.rows { return; }
    let b = bias_row(r);
    var largest = Floats(LOWEST);
    var worst = Words();
    for (var k = 0u; k < params.n; k++) {
        let z = logit(r, b, k);
        largest = max(largest, z);
        worst = max(worst, magnitude(z));
    }
    let maximum = lanes_largest(largest);
    let finite = lanes_max(worst) < INFINITY;
    var sums = Floats();
    for (var k = 0u; k < params.n; k++) {
        sums += term(logit(r, b, k), maximum);
    }
    let norm = norm_of(lanes_sum(sums));
    for (var k = 0u; k < params.n; k++) {
        y_bits[r * params.n + k] = output(logit(r, b, k), maximum, norm, finite);
    }
}

@compute @workgroup_size(WORKGROUP)
fn rows_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let r = group * WORKGROUP + local;
    if group >= params.groups || r >= params.rows { return; }
    var sums = Floats();
    for (var k = 0u; k < params.n; k++) {
        let i = r * params.n + k;
        sums += product(y[i], dy[i]);
    }
    let dot = lanes_sum(sums);
    for (var k = 0u; k < params.n; k++) {
        let i = r * params.n + k;
        dx[i] = slope(y[i], dy[i], dot);
    }
}

// ---- a workgroup a row, or a part of one ----

// The largest over the workgroup, for all of it.
fn shared_max(value: f32, local: u32) -> f32 {
    shared_value[local] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_value[local] = max(shared_value[local], shared_value[local + half]); }
    }
    workgroupBarrier();
    let largest = shared_value[0];
    workgroupBarrier();
    return largest;
}

fn shared_sum(value: f32, local: u32) -> f32 {
    shared_value[local] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_value[local] += shared_value[local + half]; }
    }
    workgroupBarrier();
    return shared_value[0];
}

struct Place { row: u32, first: u32, end: u32 }

fn place(group: u32) -> Place {
    let first = group % params.parts * params.length;
    return Place(group / params.parts, first, min(first + params.length, params.n));
}

struct Held { z: array<Floats, HELD>, maximum: f32, sum: f32, is_finite: bool }

// The logits of a part, their maximum, and the sum of their terms. All invocations must call it.
fn hold(p: Place, local: u32) -> Held {
    var held: Held;
    let b = bias_row(p.row);
    var largest = Floats(LOWEST);
    var worst = Words();
    for (var j = 0u; j < HELD; j++) {
        let k = p.first + j * WORKGROUP + local;
        let z = select(Floats(LOWEST), logit(p.row, b, min(k, p.end - 1u)), k < p.end);
        held.z[j] = z;
        largest = max(largest, z);
        worst = max(worst, magnitude(z));
    }
    // 1 where something is not finite: a float's maximum cannot carry that.
    let faults = shared_max(select(0.0, 1.0, lanes_max(worst) >= INFINITY), local);
    held.is_finite = faults == 0.0;
    held.maximum = shared_max(lanes_largest(largest), local);
    var sums = Floats();
    for (var j = 0u; j < HELD; j++) {
        sums += term(held.z[j], held.maximum);
    }
    held.sum = shared_sum(lanes_sum(sums), local);
    return held;
}

@compute @workgroup_size(WORKGROUP)
fn row(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group);
    let held = hold(p, local);
    let norm = norm_of(held.sum);
    for (var j = 0u; j < HELD; j++) {
        let k = j * WORKGROUP + local;
        if k < p.end {
            y_bits[p.row * params.n + k] = output(held.z[j], held.maximum, norm, held.is_finite);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn part(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let held = hold(place(group), local);
    if local == 0u {
        let sum = select(NOT_A_NUMBER, bitcast<u32>(held.sum), held.is_finite);
        parts_out[group] = vec2<u32>(bitcast<u32>(held.maximum), sum);
    }
}

@compute @workgroup_size(WORKGROUP)
fn merge(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group);
    let base = p.row * params.parts;
    var maximum = LOWEST;
    var finite = true;
    for (var i = 0u; i < params.parts; i++) {
        let part = parts_in[base + i];
        finite = finite && part.y < INFINITY;
        maximum = max(maximum, bitcast<f32>(part.x));
    }
    var sum = 0.0;
    for (var i = 0u; i < params.parts; i++) {
        let part = parts_in[base + i];
        sum += bitcast<f32>(part.y) * exp(max(bitcast<f32>(part.x) - maximum, -200.0));
    }
    let norm = norm_of(sum);
    let b = bias_row(p.row);
    for (var k = p.first + local; k < p.end; k += WORKGROUP) {
        y_bits[p.row * params.n + k] = output(logit(p.row, b, k), maximum, norm, finite);
    }
}

// The dot product of a part. All invocations must call it.
fn part_dot(p: Place, local: u32) -> f32 {
    var sums = Floats();
    for (var k = p.first + local; k < p.end; k += WORKGROUP) {
        let i = p.row * params.n + k;
        sums += product(y[i], dy[i]);
    }
    return shared_sum(lanes_sum(sums), local);
}

fn put_part(p: Place, dot: f32, local: u32) {
    for (var k = p.first + local; k < p.end; k += WORKGROUP) {
        let i = p.row * params.n + k;
        dx[i] = slope(y[i], dy[i], dot);
    }
}

@compute @workgroup_size(WORKGROUP)
fn row_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group);
    put_part(p, part_dot(p, local), local);
}

@compute @workgroup_size(WORKGROUP)
fn part_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let dot = part_dot(place(group), local);
    if local == 0u { dots_out[group] = dot; }
}

@compute @workgroup_size(WORKGROUP)
fn merge_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group);
    var dot = 0.0;
    for (var i = 0u; i < params.parts; i++) {
        dot += dots_in[p.row * params.parts + i];
    }
    put_part(p, dot, local);
}
