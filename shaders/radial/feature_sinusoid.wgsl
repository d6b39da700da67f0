// Sinusoid composition of the first hidden layer (Chen et al. 2023, "NeuRBF", equation 8), with a
// fixed frequency for each neuron.
//
//   forward:   y[n, f]  = x + sin(m_f x)                x = x[n, f]
//   backward:  dx[n, f] = dy[n, f] (1 + m_f cos(m_f x))
//
// One invocation an element, or four where F is a multiple of 4. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,   // in Floats
    width: u32,   // F, in Floats
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Stored>;             // [N, F]
@group(0) @binding(2) var<storage, read> frequencies: array<Stored>;   // [F]
@group(0) @binding(3) var<storage, read_write> y: array<Stored>;       // [N, F]
@group(0) @binding(3) var<storage, read> dy: array<Stored>;            // [N, F]
@group(0) @binding(4) var<storage, read_write> dx: array<Stored>;      // [N, F]

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count { return; }
    let v = unpacked(x[i]);
    y[i] = packed(v + sine(v * unpacked(frequencies[i % params.width])));
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count { return; }
    let m = unpacked(frequencies[i % params.width]);
    dx[i] = packed(unpacked(dy[i]) * (1.0 + m * cosine(unpacked(x[i]) * m)));
}
