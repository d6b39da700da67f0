// One step of an optimiser over one parameter tensor, in place.
//
//   g  = gradient * gradient_scale (+ weight_decay * parameter, unless decoupled)
//   adam (Kingma and Ba 2015, algorithm 1; decoupled: Loshchilov and Hutter 2019, algorithm 2):
//        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//        p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
//   momentum: m = beta1 m + g;  p = p - lr m, Nesterov: p - lr (g + beta1 m)
//   descent:  p = p - lr g
//   rmsprop:  v = beta2 v + (1 - beta2) g^2;  p = p - lr g / (sqrt(v) + epsilon)
//   decoupled decay, before all of these: p = p - lr weight_decay p
//
// One invocation updates one element, or four. What changes from step to step is read from `step`,
// so that a recorded step can be submitted again. gradient_scale = 0 leaves everything as it is.
// Workgroup memory: 0 bytes.
// Versions: scalar; vec4 (a fourth of the loads and stores: three times as fast on a CPU adapter).

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,           // elements, or vec4s
    skip_zero: u32,       // 1: elements whose gradient is exactly 0 are left alone
    decoupled: u32,       // 1: decay the parameter; 0: add the decay to the gradient
    nesterov: u32,
    rate: f32,            // factor of the learning rate
    weight_decay: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [8]: learning rate, gradient scale, 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t), gradient norm, 3 unused
@group(0) @binding(1) var<storage, read> step: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<Stored>;              // [count]
@group(0) @binding(3) var<storage, read_write> parameter: array<Stored>;       // [count]
@group(0) @binding(4) var<storage, read_write> moment1: array<Stored>;         // [count]
@group(0) @binding(5) var<storage, read_write> moment2: array<Stored>;         // [count]
@group(0) @binding(4) var<storage, read_write> moment2_only: array<Stored>;    // [count]

// The item of this invocation, or `items` or more where there is nothing to do.
fn item(id: vec3<u32>, n: vec3<u32>, local: u32) -> u32 {
    let group = linear_group(params.first_group, id, n);
    let here = group < params.groups && step[1] != 0.0;
    return select(params.items, group * WORKGROUP + local, here);
}

// 0 in each element that is to be left alone, by bits: a NaN is not zero.
fn live(g: Floats) -> Words {
    return (bitcast<Words>(g) & Words(0x7fffffffu)) | Words(1u - params.skip_zero);
}

// Whether an item can be left without a look at its moments; one element or four, it becomes four.
fn is_idle(bits: Words) -> bool {
    return all(vec4<u32>(bits) == vec4<u32>(0u));
}

fn rate() -> f32 {
    return step[0] * params.rate;
}

// The parameter after decoupled decay.
fn decayed(p: Floats) -> Floats {
    return select(p, p - rate() * params.weight_decay * p, params.decoupled != 0u);
}

// The gradient after scale and coupled decay.
fn full_gradient(g: Floats, p: Floats) -> Floats {
    let scaled = g * step[1];
    return select(scaled + params.weight_decay * p, scaled, params.decoupled != 0u);
}

@compute @workgroup_size(WORKGROUP)
fn adam(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i >= params.items { return; }
    let slope = unpacked(gradient[i]);
    let bits = live(slope);
    if is_idle(bits) { return; }
    let p = unpacked(parameter[i]);
    let g = full_gradient(slope, p);
    let m0 = unpacked(moment1[i]);
    let m = params.beta1 * m0 + params.one_minus_beta1 * g;
    let v0 = unpacked(moment2[i]);
    let v = params.beta2 * v0 + params.one_minus_beta2 * g * g;
    let next = decayed(p) - rate() * (m * step[2]) / (sqrt(v) * step[3] + params.epsilon);
    moment1[i] = packed(select(m, m0, bits == Words(0u)));
    moment2[i] = packed(select(v, v0, bits == Words(0u)));
    parameter[i] = packed(select(next, p, bits == Words(0u)));
}

@compute @workgroup_size(WORKGROUP)
fn momentum(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i >= params.items { return; }
    let slope = unpacked(gradient[i]);
    let bits = live(slope);
    if is_idle(bits) { return; }
    let p = unpacked(parameter[i]);
    let g = full_gradient(slope, p);
    let m0 = unpacked(moment1[i]);
    let m = params.beta1 * m0 + g;
    let next = decayed(p) - rate() * select(m, g + params.beta1 * m, params.nesterov != 0u);
    moment1[i] = packed(select(m, m0, bits == Words(0u)));
    parameter[i] = packed(select(next, p, bits == Words(0u)));
}

@compute @workgroup_size(WORKGROUP)
fn descent(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i >= params.items { return; }
    let slope = unpacked(gradient[i]);
    let bits = live(slope);
    if is_idle(bits) { return; }
    let p = unpacked(parameter[i]);
    let next = decayed(p) - rate() * full_gradient(slope, p);
    parameter[i] = packed(select(next, p, bits == Words(0u)));
}

@compute @workgroup_size(WORKGROUP)
fn rmsprop(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i >= params.items { return; }
    let slope = unpacked(gradient[i]);
    let bits = live(slope);
    if is_idle(bits) { return; }
    let p = unpacked(parameter[i]);
    let g = full_gradient(slope, p);
    let v0 = unpacked(moment2_only[i]);
    let v = params.beta2 * v0 + params.one_minus_beta2 * g * g;
    let next = decayed(p) - rate() * g / (sqrt(v) + params.epsilon);
    moment2_only[i] = packed(select(v, v0, bits == Words(0u)));
    parameter[i] = packed(select(next, p, bits == Words(0u)));
}
