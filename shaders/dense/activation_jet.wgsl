// Activations of jets, forward and backward: a value z[0] with T tangents z[1], .., z[T] (its
// derivatives along T directions), as forward-mode differentiation carries them through a network.
//
//   s = z[0] + bias
//   forward:   y[0] = a(s),   y[t] = a'(s) z[t]
//   backward:  dz[0] = a'(s) dy[0] + a''(s) sum_t dy[t] z[t],   dz[t] = a'(s) dy[t]
//   with z, y, dz, dy: [B, 1 + T, N, F], bias: [B, F]
//
// The backward pass is exact for any loss of values and tangents: a loss of the gradient of a
// network with respect to its input needs nothing else. Where a is piecewise linear, a'' is 0.
// One invocation computes all planes of one element, or of four (where F is a multiple of 4).
// Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,      // B N F, or a fourth of it
    plane: u32,      // items of a plane, N F
    features: u32,   // items of a row, F
    tangents: u32,   // T
    parameter: f32,  // slope of the leaky ReLU, frequency of the sine
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> z: array<Floats>;           // [B, 1 + T, N, F]
@group(0) @binding(2) var<storage, read> bias: array<Floats>;        // [B, F]
@group(0) @binding(3) var<storage, read_write> y: array<Floats>;     // [B, 1 + T, N, F]
@group(0) @binding(3) var<storage, read> dy: array<Floats>;          // [B, 1 + T, N, F]
@group(0) @binding(4) var<storage, read_write> dz: array<Floats>;    // [B, 1 + T, N, F]

// Where the value of an item lies; its tangents follow, one plane apart.
fn value_of(item: u32) -> u32 {
    return item / params.plane * (1u + params.tangents) * params.plane + item % params.plane;
}

fn sum_at(item: u32, value: u32) -> Floats {
    var sum = z[value];
    if BIAS { sum += bias[item / params.plane * params.features + item % params.features]; }
    return sum;
}

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let item = linear_group(params.first_group, id, n) * WORKGROUP + local;
    if item >= params.items { return; }
    let value = value_of(item);
    let s = sum_at(item, value);
    y[value] = activate_each(s, params.parameter);
    if params.tangents == 0u { return; }
    let slope = derivative_each(s, params.parameter);
    for (var t = 1u; t <= params.tangents; t++) {
        let at = value + t * params.plane;
        y[at] = slope * z[at];
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let item = linear_group(params.first_group, id, n) * WORKGROUP + local;
    if item >= params.items { return; }
    let value = value_of(item);
    let s = sum_at(item, value);
    let slope = derivative_each(s, params.parameter);
    var along = Floats(0.0);
    for (var t = 1u; t <= params.tangents; t++) {
        let at = value + t * params.plane;
        along += dy[at] * z[at];
        dz[at] = slope * dy[at];
    }
    var total = slope * dy[value];
    if params.tangents > 0u { total += second_derivative_each(s, params.parameter) * along; }
    dz[value] = total;
}
