// Which head a token speaks through, and how loudly: the weights of reversed attention
// (DependencyViT, arXiv 2304.03282).
//
//   p_h = softmax over heads of s_h / temperature      s: [rows, heads], row = a token
//   m = m_before sigmoid(z)                            z, m: [rows]; m_before is that of the layer before
//   w_h = p_h m
//   backward, dw given, and dm by other ways:
//     d = dm + sum over heads of dw_h p_h
//     dm_before = d sigmoid(z),  dz = d m_before sigmoid(z) sigmoid(-z)
//     ds_h = p_h m (dw_h - sum over heads of p dw) / temperature
//
// An invocation a row; heads are few. Sums go over heads in their order. A NaN or an infinity among
// a token's scores makes all of its shares NaN: found by its bits, since max and some drivers' exp
// swallow it. Workgroup memory: 0 bytes.

const NOT_A_NUMBER: u32 = 0x7fc00000u;

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,
    heads: u32,
    inverse_temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> s: array<f32>;                   // [rows, heads]
@group(0) @binding(2) var<storage, read> z: array<f32>;                   // [rows]
@group(0) @binding(3) var<storage, read> before: array<f32>;              // [rows]
@group(0) @binding(4) var<storage, read_write> p: array<f32>;             // [rows, heads]
@group(0) @binding(5) var<storage, read_write> m: array<f32>;             // [rows]
@group(0) @binding(6) var<storage, read_write> w: array<f32>;             // [rows, heads]
@group(0) @binding(1) var<storage, read> p_in: array<f32>;                // [rows, heads]
@group(0) @binding(4) var<storage, read> dw: array<f32>;                  // [rows, heads]
@group(0) @binding(5) var<storage, read> dm: array<f32>;                  // [rows]
@group(0) @binding(6) var<storage, read_write> ds: array<f32>;            // [rows, heads]
@group(0) @binding(7) var<storage, read_write> dz: array<f32>;            // [rows]
@group(0) @binding(8) var<storage, read_write> dbefore: array<f32>;       // [rows]

fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * WORKGROUP + local;
    if group >= params.groups || row >= params.rows {
        return;
    }
    let base = row * params.heads;
    var largest = s[base];
    var is_finite = true;
    for (var h = 0u; h < params.heads; h++) {
        let score = s[base + h];
        largest = max(largest, score);
        is_finite = is_finite && (bitcast<u32>(score) & 0x7f800000u) != 0x7f800000u;
    }
    var sum = 0.0;
    for (var h = 0u; h < params.heads; h++) {
        sum += exp((s[base + h] - largest) * params.inverse_temperature);
    }
    let message = before[row] * sigmoid(z[row]);
    m[row] = message;
    for (var h = 0u; h < params.heads; h++) {
        let quotient = exp((s[base + h] - largest) * params.inverse_temperature) / sum;
        let share = bitcast<f32>(select(NOT_A_NUMBER, bitcast<u32>(quotient), is_finite));
        p[base + h] = share;
        w[base + h] = share * message;
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * WORKGROUP + local;
    if group >= params.groups || row >= params.rows {
        return;
    }
    let base = row * params.heads;
    let gate = sigmoid(z[row]);
    var mean = 0.0;
    for (var h = 0u; h < params.heads; h++) {
        mean += dw[base + h] * p_in[base + h];
    }
    let d = mean + dm[row];
    dbefore[row] = d * gate;
    dz[row] = d * before[row] * gate * sigmoid(-z[row]);
    let scale = before[row] * gate * params.inverse_temperature;
    for (var h = 0u; h < params.heads; h++) {
        ds[base + h] = p_in[base + h] * (dw[base + h] - mean) * scale;
    }
}
