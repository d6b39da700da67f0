// Two axes swapped, rows kept whole:  y_jic = x_ijc      x: [a, b, width], y: [b, a, width], any words
//
// One invocation moves one element (a vec4 of it, where width is a multiple of 4); neighbours write
// neighbours. Its own inverse, with a and b swapped. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    a: u32,
    b: u32,
    width: u32,       // in Words
    count: u32,       // of Words
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Words>;                  // [a, b, width]
@group(0) @binding(2) var<storage, read_write> y: array<Words>;            // [b, a, width]

@compute @workgroup_size(64)
fn swap(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let t = group * 64u + local;
    if group < params.groups && t < params.count {
        let row = t / params.width;
        let c = t - row * params.width;
        let j = row / params.a;
        let i = row - j * params.a;
        y[t] = x[(i * params.b + j) * params.width + c];
    }
}
