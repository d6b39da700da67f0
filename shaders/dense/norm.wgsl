// The global L2 norm of a list of gradients, and clipping by it (Pascanu et al. 2013, algorithm 1).
//
//   squares:  partial_sum[offset + g] = sum of the x_i^2 of invocation g, once a buffer
//   (sum.wgsl adds the partial sums of all buffers)
//   finish:   norm = |s| sqrt(sum), s = the gradient scale that lies in `step`;
//             scale = s min(1, max_norm / norm); 0, which skips the step, if norm is not finite
//
// An invocation of `squares` sums ITEMS items, WORKGROUP apart; an item is one element, or four
// (vectors.wgsl) where the count is a multiple of 4.
// Workgroup memory: 0 bytes.
// Versions of `squares`: a tree over the workgroup for every 1,024 elements (6 % of copy bandwidth on
// a CPU adapter, where barriers are dear); vec4s, no barrier (84 %).

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,      // f32s or vec4s
    offset: u32,     // where the partial sums of this buffer begin
    max_norm: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradient: array<Floats>;         // [count]
@group(0) @binding(2) var<storage, read_write> partial_sum: array<u32>;   // bits of f32
@group(0) @binding(1) var<storage, read> total: array<u32>;               // [1]
@group(0) @binding(2) var<storage, read_write> step: array<u32>;          // [8], see optimizer.wgsl

@compute @workgroup_size(WORKGROUP)
fn squares(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = Floats();
    var worst = Words();
    for (var k = 0u; k < ITEMS; k++) {
        // Beyond the end the last item is read again, and counts nothing.
        let i = (group * ITEMS + k) * WORKGROUP + local;
        let x = gradient[min(i, params.items - 1u)];
        sum += select(Floats(), x * x, i < params.items);
        worst = max(worst, magnitude(x));
    }
    partial_sum[params.offset + group * WORKGROUP + local] = item_sum(sum, worst);
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
