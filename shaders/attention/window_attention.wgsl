// What windowed attention needs beside small_attention: the table of relative biases spread over the pairs
// of tokens of a window, its gradient, and the gradients of padding's key and value.
//
//   bias(h, i, j) = table[((dx + wx - 1) (2 wy - 1) + dy + wy - 1) (2 wz - 1) + dz + wz - 1, h],  d = i - j
//   dtable[t, h] = the sum of dS over all windows and all pairs (i, j) of entry t
//
// `spread`: one invocation a block of four keys and a query, and then the same transposed; 2 tokens^2
// heads numbers, whatever the number of windows. `table_gradient`: one workgroup an entry and a head, adding the
// sums of the slices. `pad_gradient`: one workgroup a vec4 of a head's dk or dv.
// Sums have a fixed order. Workgroup memory: 256 bytes in table_gradient, 1,024 in pad_gradient.

@group(0) @binding(1) var<storage, read> table: array<f32>;                // [entries, heads]
@group(0) @binding(2) var<storage, read_write> bias_out: array<vec4<f32>>; // [2, heads, blocks, tokens], times log2(e)
@group(0) @binding(1) var<storage, read> sums_in: array<vec4<f32>>;        // as in small_attention.wgsl
@group(0) @binding(2) var<storage, read_write> dtable: array<f32>;         // [entries, heads]

const ENTRIES_Y: u32 = 2u * WINDOW_Y - 1u;
const ENTRIES_Z: u32 = 2u * WINDOW_Z - 1u;
const ENTRIES: u32 = (2u * WINDOW_X - 1u) * ENTRIES_Y * ENTRIES_Z;

// The bias of a pair; 0 for a token beyond the last.
fn pair_bias(i: u32, j: u32, head: u32) -> f32 {
    if j >= params.tokens || i >= params.tokens { return 0.0; }
    let dx = i / (WINDOW_Y * WINDOW_Z) + WINDOW_X - 1u - j / (WINDOW_Y * WINDOW_Z);
    let dy = i / WINDOW_Z % WINDOW_Y + WINDOW_Y - 1u - j / WINDOW_Z % WINDOW_Y;
    let dz = i % WINDOW_Z + WINDOW_Z - 1u - j % WINDOW_Z;
    return LOG2_E * table[((dx * ENTRIES_Y + dy) * ENTRIES_Z + dz) * params.heads + head];
}

@compute @workgroup_size(64)
fn spread(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let matrix = index / (params.blocks * params.tokens);
    if group >= params.groups || matrix >= 2u * params.heads { return; }
    let head = matrix % params.heads;
    let i = index % params.tokens;
    let x = index / params.tokens % params.blocks;
    let y = x + params.blocks;
    let z = y + params.blocks;
    let w = z + params.blocks;
    if matrix < params.heads {
        bias_out[index] = vec4<f32>(pair_bias(i, x, head), pair_bias(i, y, head), pair_bias(i, z, head), pair_bias(i, w, head));
    } else {
        bias_out[index] = vec4<f32>(pair_bias(x, i, head), pair_bias(y, i, head), pair_bias(z, i, head), pair_bias(w, i, head));
    }
}

var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn table_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let head = group / ENTRIES;
    let entry = group % ENTRIES;
    let dx = entry / (ENTRIES_Y * ENTRIES_Z);
    let dy = entry / ENTRIES_Z % ENTRIES_Y;
    let dz = entry % ENTRIES_Z;
    var sum = 0.0;
    for (var i = local; i < params.tokens; i += 64u) {
        // Wraps around to a large number where there is no such key.
        let x = i / (WINDOW_Y * WINDOW_Z) + WINDOW_X - 1u - dx;
        let y = i / WINDOW_Z % WINDOW_Y + WINDOW_Y - 1u - dy;
        let z = i % WINDOW_Z + WINDOW_Z - 1u - dz;
        if x < WINDOW_X && y < WINDOW_Y && z < WINDOW_Z {
            let j = (x * WINDOW_Y + y) * WINDOW_Z + z;
            let b = j % params.blocks;
            let r = j / params.blocks;
            for (var slice = 0u; slice < params.slices; slice++) {
                let v = sums_in[bias_sum(slice, head, b, i)];
                sum += select(select(v.x, v.y, r == 1u), select(v.z, v.w, r == 3u), r > 1u);
            }
        }
    }
    parts[local] = sum;
    for (var stride = 32u; stride > 0u; stride = stride >> 1u) {
        workgroupBarrier();
        if local < stride { parts[local] += parts[local + stride]; }
    }
    if local == 0u { dtable[entry * params.heads + head] = parts[0]; }
}

var<workgroup> pad_parts: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn pad_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let c = group % D4;
    let head = group / D4 % params.heads;
    let which = group / (D4 * params.heads);
    var sum: vec4<f32>;
    for (var at = local; at < params.slices * params.tokens; at += 64u) {
        sum += sums_in[pad_sum(at / params.tokens, head, at % params.tokens, which, c)];
    }
    pad_parts[local] = sum;
    for (var stride = 32u; stride > 0u; stride = stride >> 1u) {
        workgroupBarrier();
        if local < stride { pad_parts[local] += pad_parts[local + stride]; }
    }
    if local == 0u {
        if which == 0u {
            put_dk_pad(params.rows, head, c, pad_parts[0]);
            put_dq_pad(params.rows, head, c, vec4<f32>());
        } else {
            put_dv_pad(params.rows, head, c, pad_parts[0]);
        }
    }
}
