// Queries, keys and values that one linear layer gave, row by row side by side, taken apart; and put
// together again, which is the gradient.
//
//   split: q, k, v = x[:, 0], x[:, 1], x[:, 2]     x: [rows, 3, width]; q, k, v: [rows, width]
//   join:  x[:, 0], x[:, 1], x[:, 2] = q, k, v
//
// An invocation one item of each of the three; an item is one element, or four where the width is
// a multiple of 4. Any 32-bit words. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,     // of q
    width: u32,     // in items
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Words>;             // [rows, 3, width]
@group(0) @binding(2) var<storage, read_write> q: array<Words>;       // [rows, width]
@group(0) @binding(3) var<storage, read_write> k: array<Words>;       // [rows, width]
@group(0) @binding(4) var<storage, read_write> v: array<Words>;       // [rows, width]
@group(0) @binding(1) var<storage, read_write> x_out: array<Words>;   // [rows, 3, width]
@group(0) @binding(2) var<storage, read> q_in: array<Words>;          // [rows, width]
@group(0) @binding(3) var<storage, read> k_in: array<Words>;          // [rows, width]
@group(0) @binding(4) var<storage, read> v_in: array<Words>;          // [rows, width]

@compute @workgroup_size(WORKGROUP)
fn split(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.items {
        return;
    }
    let at = i + i / params.width * 2u * params.width;
    q[i] = x[at];
    k[i] = x[at + params.width];
    v[i] = x[at + 2u * params.width];
}

@compute @workgroup_size(WORKGROUP)
fn join(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.items {
        return;
    }
    let at = i + i / params.width * 2u * params.width;
    x_out[at] = q_in[i];
    x_out[at + params.width] = k_in[i];
    x_out[at + 2u * params.width] = v_in[i];
}
