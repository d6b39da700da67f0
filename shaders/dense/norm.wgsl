// The global L2 norm of a list of gradients, and clipping by it (Pascanu et al. 2013, algorithm 1).
//
//   squares:  partial_sum[offset + g] = sum of x_i^2 over SPAN = 1024 elements, once a buffer
//   (sum.wgsl adds the partial sums of all buffers)
//   finish:   norm = |s| sqrt(sum), s = the gradient scale that lies in `step`;
//             scale = s min(1, max_norm / norm); 0, which skips the step, if norm is not finite
//
// Workgroup memory: 1,024 bytes (`squares`).

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,
    offset: u32,     // where the partial sums of this buffer begin
    max_norm: f32,
}

const SPAN: u32 = 1024u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;            // [count]
@group(0) @binding(2) var<storage, read_write> partial_sum: array<u32>;   // bits of f32
@group(0) @binding(1) var<storage, read> total: array<u32>;               // [1]
@group(0) @binding(2) var<storage, read_write> step: array<u32>;          // [8], see optimizer.wgsl

@compute @workgroup_size(256)
fn squares(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = 0u;
    for (var k = 0u; k < SPAN / BLOCK; k++) {
        let i = group * SPAN + k * BLOCK + local;
        if i < params.count {
            let x = gradient[i];
            sum = add_bits(sum, select(NOT_A_NUMBER, bitcast<u32>(x * x), is_finite(bitcast<u32>(x))));
        }
    }
    let all = block_sum(sum, local);
    if local == 0u {
        partial_sum[params.offset + group] = all;
    }
}

@compute @workgroup_size(1)
fn finish(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>) {
    if linear_group(params.first_group, id, n) >= params.groups {
        return;
    }
    let scale = bitcast<f32>(step[1]);
    let norm = abs(scale) * sqrt(bitcast<f32>(total[0]));
    if !is_finite(total[0]) || !is_finite(step[1]) || !is_finite(bitcast<u32>(norm)) {
        step[1] = 0u;
        step[4] = NOT_A_NUMBER;
        return;
    }
    if norm > params.max_norm {
        step[1] = bitcast<u32>(scale * (params.max_norm / norm));
    }
    step[4] = bitcast<u32>(norm);
}
