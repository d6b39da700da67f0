// Sums of partial sums: `out[g] = factor * sum of its part of in`, repeated until one is left. A sum
// that is not finite becomes NaN (see block_sum.wgsl).
//
// A workgroup sums 256 ITEMS items, which are one value each, or four where there are so many.
// Workgroup memory: 1,024 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,    // f32s or vec4s
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial_in: array<Floats>;       // [count]
@group(0) @binding(2) var<storage, read_write> sum_out: array<u32>;       // [groups]

@compute @workgroup_size(256)
fn reduce(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = Floats();
    var worst = Words();
    for (var k = 0u; k < ITEMS; k++) {
        // Beyond the end the last item is read again, and counts nothing.
        let i = (group * ITEMS + k) * BLOCK + local;
        let x = partial_in[min(i, params.items - 1u)];
        sum += select(Floats(), x, i < params.items);
        worst = max(worst, magnitude(x));
    }
    let total = block_sum(item_sum(sum, worst), local);
    if local == 0u {
        sum_out[group] = select(NOT_A_NUMBER, bitcast<u32>(bitcast<f32>(total) * params.factor), is_finite(total));
    }
}
