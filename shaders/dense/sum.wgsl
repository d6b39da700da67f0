// Sums of partial sums, as bits of f32: `out[g] = factor * sum of in[g SPAN ..]`, repeated until one
// is left. A sum that is not finite becomes NaN (see block_sum.wgsl).
//
// 256 invocations sum SPAN = 1024 values. Workgroup memory: 1,024 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,
    factor: f32,
}

const SPAN: u32 = 1024u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial_in: array<u32>;          // [count]
@group(0) @binding(2) var<storage, read_write> sum_out: array<u32>;       // [groups]

@compute @workgroup_size(256)
fn reduce(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = 0u;
    for (var k = 0u; k < SPAN / BLOCK; k++) {
        let i = group * SPAN + k * BLOCK + local;
        if i < params.count {
            sum = add_bits(sum, partial_in[i]);
        }
    }
    let total = block_sum(sum, local);
    if local == 0u {
        sum_out[group] = select(NOT_A_NUMBER, bitcast<u32>(bitcast<f32>(total) * params.factor), is_finite(total));
    }
}
