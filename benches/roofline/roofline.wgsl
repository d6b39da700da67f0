// The two ceilings of an adapter.
//
//   multiply_add:  chains of vec4 multiply-adds that do not depend on each other, in registers;
//                  one vec4 an invocation is stored at the end
//   copy:          y = x, ITEMS blocks of 16 bytes an invocation, WORKGROUP apart
//
// The host replaces BLOCK by a type, and the other words in capitals by statements, chain by chain: an array of
// accumulators would not be sure to stay in registers.

struct Params {
    turns: u32,
    count: u32,    // blocks to copy
    factor: f32,
    term: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<BLOCK>;
@group(0) @binding(2) var<storage, read_write> y: array<BLOCK>;

@compute @workgroup_size(WORKGROUP)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = vec4<f32>(params.factor);
    let term = vec4<f32>(params.term);
    let begin = vec4<f32>(f32(id.x));
    CHAINS_BEGIN
    for (var turn = 0u; turn < params.turns; turn++) {
        CHAINS_STEP
    }
    y[id.x] = CHAINS_SUM;
}

@compute @workgroup_size(WORKGROUP)
fn copy(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let first = (id.x + id.y * n.x) * WORKGROUP * ITEMS + local;
    if first + (ITEMS - 1u) * WORKGROUP < params.count {
        COPY_STEPS
    }
}
