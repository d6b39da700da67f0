// Elementwise activation, forward and backward.
//
//   forward:   y = a(x)                 x, y: [count]
//   backward:  dx = dy a'(x)            x is the pre-activation
//
// One invocation computes one element (scalar) or four (vec4, where `count` is a multiple of 4).
// Workgroup memory: 0 bytes.
// Versions: scalar; vec4 (half the time of scalar on a CPU adapter: one load for four elements).

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,      // elements, or vec4s
    parameter: f32,  // slope of the leaky ReLU, frequency of the sine
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                // [count]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;          // [count]
@group(0) @binding(1) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;               // [count]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;         // [count]
@group(0) @binding(2) var<storage, read> dy4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx4: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = linear_group(params.first_group, id, n) * WORKGROUP + local;
    if i < params.count {
        y[i] = activate(x[i], params.parameter);
    }
}

@compute @workgroup_size(WORKGROUP)
fn forward_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let i = linear_group(params.first_group, id, n) * WORKGROUP + local;
    if i < params.count {
        let v = x4[i];
        let p = params.parameter;
        y4[i] = vec4<f32>(activate(v.x, p), activate(v.y, p), activate(v.z, p), activate(v.w, p));
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = linear_group(params.first_group, id, n) * WORKGROUP + local;
    if i < params.count {
        dx[i] = dy[i] * activate_derivative(x[i], params.parameter);
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let i = linear_group(params.first_group, id, n) * WORKGROUP + local;
    if i < params.count {
        let v = x4[i];
        let p = params.parameter;
        dx4[i] = dy4[i] * vec4<f32>(activate_derivative(v.x, p), activate_derivative(v.y, p),
                                    activate_derivative(v.z, p), activate_derivative(v.w, p));
    }
}
