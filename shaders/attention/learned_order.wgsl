// Sines and cosines of a learnable order of the patches (LOOPE, arXiv 2504.14386): each patch has a place
// on a curve, which the content of the image shifts.
//
//   X[b, n] = order[n] + shift[b, n]
//   E[b, n] = [sin(X W^T) | cos(X W^T)]              W: [frequencies]; E: [batch, tokens, 2 frequencies]
//   backward, T = dE_sin cos(X W^T) - dE_cos sin(X W^T):
//     dshift = sum over frequencies of T W,  dW = sum over batch and tokens of T X
//
// forward: an invocation one pair of E. rows: LANES invocations one row's dshift. columns: an
// invocation owns a frequency and adds up `block` rows; dense/reduce adds the blocks: no atomics.
// |X W| up to 50,000; the product is rounded to f32, which costs |X W| 2^-24 rad.
// Workgroup memory: 8 WORKGROUP bytes (rows with LANES > 1).

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,          // batch * tokens
    tokens: u32,
    frequencies: u32,
    block: u32,         // columns: rows of a block
    blocks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> order: array<f32>;                  // [tokens]
@group(0) @binding(2) var<storage, read> shift: array<f32>;                  // [batch, tokens]
@group(0) @binding(3) var<storage, read> frequency: array<f32>;              // [frequencies]
@group(0) @binding(4) var<storage, read_write> e: array<f32>;                // [batch, tokens, 2 frequencies]
@group(0) @binding(4) var<storage, read> de: array<f32>;                     // [batch, tokens, 2 frequencies]
@group(0) @binding(5) var<storage, read_write> dshift: array<f32>;           // [batch, tokens]
@group(0) @binding(5) var<storage, read_write> frequency_blocks: array<f32>; // [blocks, frequencies]

fn place(row: u32) -> f32 {
    return order[row % params.tokens] + shift[row];
}

// T of one row and frequency.
fn slope(row: u32, k: u32, x: f32) -> f32 {
    let wave = sin_cos(x * frequency[k]);
    let at = row * 2u * params.frequencies + k;
    return de[at] * wave.y - de[at + params.frequencies] * wave.x;
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.rows * params.frequencies {
        return;
    }
    let row = i / params.frequencies;
    let k = i - row * params.frequencies;
    let wave = sin_cos(place(row) * frequency[k]);
    let at = row * 2u * params.frequencies + k;
    e[at] = wave.x;
    e[at + params.frequencies] = wave.y;
}

@compute @workgroup_size(WORKGROUP)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let lane = local % LANES;
    let row = group * (WORKGROUP / LANES) + local / LANES;
    let at_row = min(row, params.rows - 1u);
    let x = place(at_row);
    var sum = 0.0;
    for (var k = lane; k < params.frequencies; k += LANES) {
        sum += slope(at_row, k, x) * frequency[k];
    }
    let total = row_sum(vec2<f32>(sum, 0.0), local).x;
    if row < params.rows && lane == 0u {
        dshift[row] = total;
    }
}

@compute @workgroup_size(WORKGROUP)
fn columns(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    let block = i / params.frequencies;
    if group >= params.groups || block >= params.blocks {
        return;
    }
    let k = i - block * params.frequencies;
    var sum = 0.0;
    let end = min((block + 1u) * params.block, params.rows);
    for (var row = block * params.block; row < end; row++) {
        let x = place(row);
        sum += slope(row, k, x) * x;
    }
    frequency_blocks[i] = sum;
}
