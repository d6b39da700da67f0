// Layer norm (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019) over the last axis, forward and
// backward, with the addition of a residual stream before it.
//
//   h = x + residual (or x);  m = mean h (RMS norm: 0);  s = 1 / sqrt(mean (h - m)^2 + epsilon)
//   z = (h - m) s;  y = z weight + bias
//   backward, g = dy weight:
//     dh = s (g - mean g - z mean(g z)) + dhidden     (RMS norm: without mean g)
//     dweight = sum over rows of dy z,  dbias = sum over rows of dy
//   h, x, y, dy, dh: [rows, width]; weight, bias: [width]; statistics: [rows, 2], m and s.
//
// The variance is taken of the differences from the mean, in a second reading: nothing cancels.
// forward, backward: LANES invocations share a row, WORKGROUP / LANES rows a workgroup; with one
// lane there is no barrier. An item is one element, or four where the width is a multiple of 4.
// columns: an invocation owns one item of the width and adds up `block` rows; COLUMNS of them lie side
// by side, WORKGROUP / COLUMNS blocks a workgroup. dense/reduce adds the blocks: no atomics.
// A variance that is not finite makes the row NaN.
// Workgroup memory: 8 WORKGROUP bytes (forward, backward with LANES > 1).

const NOT_A_NUMBER: u32 = 0x7fc00000u;

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,
    width: u32,       // in items
    block: u32,       // columns: rows of a block
    blocks: u32,
    inverse_width: f32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Floats>;                    // [rows, width]
@group(0) @binding(2) var<storage, read> weight: array<Floats>;               // [width]
@group(0) @binding(3) var<storage, read> bias: array<Floats>;                 // [width]
@group(0) @binding(4) var<storage, read_write> y: array<Floats>;              // [rows, width]
@group(0) @binding(5) var<storage, read_write> statistics: array<f32>;        // [rows, 2]
@group(0) @binding(6) var<storage, read> residual: array<Floats>;             // [rows, width]
@group(0) @binding(7) var<storage, read_write> hidden: array<Floats>;         // [rows, width]
@group(0) @binding(1) var<storage, read> h: array<Floats>;                    // [rows, width]
@group(0) @binding(2) var<storage, read> known: array<f32>;                   // [rows, 2], statistics
@group(0) @binding(3) var<storage, read> dy: array<Floats>;                   // [rows, width]
@group(0) @binding(4) var<storage, read> scale: array<Floats>;                // [width], weight
@group(0) @binding(5) var<storage, read> dhidden: array<Floats>;              // [rows, width]
@group(0) @binding(6) var<storage, read_write> dh: array<Floats>;             // [rows, width]
@group(0) @binding(4) var<storage, read_write> weight_blocks: array<Floats>;  // [blocks, width]
@group(0) @binding(5) var<storage, read_write> bias_blocks: array<Floats>;    // [blocks, width]

fn inverse_deviation(square_sum: f32) -> f32 {
    let variance = square_sum * params.inverse_width;
    let is_finite = (bitcast<u32>(variance) & 0x7f800000u) != 0x7f800000u;
    let inverse = 1.0 / sqrt(variance + params.epsilon);
    return bitcast<f32>(select(NOT_A_NUMBER, bitcast<u32>(inverse), is_finite));
}

fn affine(z: Floats, i: u32) -> Floats {
    switch AFFINE {
        case 1u: { return z * weight[i]; }
        case 2u: { return z * weight[i] + bias[i]; }
        default: { return z; }
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let lane = local % LANES;
    let row = group * (WORKGROUP / LANES) + local / LANES;
    let base = min(row, params.rows - 1u) * params.width;
    var mean = 0.0;
    if !RMS {
        var sum = Floats();
        for (var i = lane; i < params.width; i += LANES) {
            sum += x[base + i];
        }
        mean = row_sum(vec2<f32>(lanes_sum(sum), 0.0), local).x * params.inverse_width;
    }
    var squares = Floats();
    for (var i = lane; i < params.width; i += LANES) {
        let d = x[base + i] - mean;
        squares += d * d;
    }
    let s = inverse_deviation(row_sum(vec2<f32>(lanes_sum(squares), 0.0), local).x);
    if row >= params.rows {
        return;
    }
    for (var i = lane; i < params.width; i += LANES) {
        y[base + i] = affine((x[base + i] - mean) * s, i);
    }
    if lane == 0u {
        statistics[2u * row] = mean;
        statistics[2u * row + 1u] = s;
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward_residual(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let lane = local % LANES;
    let row = group * (WORKGROUP / LANES) + local / LANES;
    let is_row = row < params.rows;
    let base = min(row, params.rows - 1u) * params.width;
    // Each lane reads again only what it wrote itself; rows beyond the last write nothing.
    var sum = Floats();
    if is_row {
        for (var i = lane; i < params.width; i += LANES) {
            let v = x[base + i] + residual[base + i];
            hidden[base + i] = v;
            sum += v;
        }
    }
    var mean = 0.0;
    if !RMS {
        mean = row_sum(vec2<f32>(lanes_sum(sum), 0.0), local).x * params.inverse_width;
    }
    var squares = Floats();
    if is_row {
        for (var i = lane; i < params.width; i += LANES) {
            let d = hidden[base + i] - mean;
            squares += d * d;
        }
    }
    let s = inverse_deviation(row_sum(vec2<f32>(lanes_sum(squares), 0.0), local).x);
    if !is_row {
        return;
    }
    for (var i = lane; i < params.width; i += LANES) {
        y[base + i] = affine((hidden[base + i] - mean) * s, i);
    }
    if lane == 0u {
        statistics[2u * row] = mean;
        statistics[2u * row + 1u] = s;
    }
}

// dy weight.
fn weighted(at: u32, i: u32) -> Floats {
    if AFFINE == 0u {
        return dy[at];
    }
    return dy[at] * scale[i];
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let lane = local % LANES;
    let row = group * (WORKGROUP / LANES) + local / LANES;
    let at_row = min(row, params.rows - 1u);
    let base = at_row * params.width;
    let mean = known[2u * at_row];
    let s = known[2u * at_row + 1u];
    var sum = Floats();
    var products = Floats();
    for (var i = lane; i < params.width; i += LANES) {
        let g = weighted(base + i, i);
        sum += g;
        products += g * ((h[base + i] - mean) * s);
    }
    let means = row_sum(vec2<f32>(lanes_sum(sum), lanes_sum(products)), local) * params.inverse_width;
    if row >= params.rows {
        return;
    }
    let mean_g = select(means.x, 0.0, RMS);
    for (var i = lane; i < params.width; i += LANES) {
        let z = (h[base + i] - mean) * s;
        var d = (weighted(base + i, i) - mean_g - z * means.y) * s;
        if SKIP {
            d += dhidden[base + i];
        }
        dh[base + i] = d;
    }
}

@compute @workgroup_size(WORKGROUP)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let strips = (params.width + COLUMNS - 1u) / COLUMNS;
    let column = group % strips * COLUMNS + local % COLUMNS;
    let block = group / strips * (WORKGROUP / COLUMNS) + local / COLUMNS;
    if group >= params.groups || column >= params.width || block >= params.blocks {
        return;
    }
    var dweight = Floats();
    var dbias = Floats();
    let end = min((block + 1u) * params.block, params.rows);
    for (var row = block * params.block; row < end; row++) {
        let at = row * params.width + column;
        let g = dy[at];
        dweight += g * ((h[at] - known[2u * row]) * known[2u * row + 1u]);
        dbias += g;
    }
    weight_blocks[block * params.width + column] = dweight;
    bias_blocks[block * params.width + column] = dbias;
}
