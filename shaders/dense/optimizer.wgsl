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
// One invocation updates one element. What changes from step to step is read from `step`, so that
// a recorded step can be submitted again. gradient_scale = 0 leaves everything as it is.
// Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,
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
@group(0) @binding(2) var<storage, read> gradient: array<f32>;              // [count]
@group(0) @binding(3) var<storage, read_write> parameter: array<f32>;       // [count]
@group(0) @binding(4) var<storage, read_write> moment1: array<f32>;         // [count]
@group(0) @binding(5) var<storage, read_write> moment2: array<f32>;         // [count]
@group(0) @binding(4) var<storage, read_write> moment2_only: array<f32>;    // [count]

// The element of this invocation, or `count` where there is nothing to do.
fn element(id: vec3<u32>, n: vec3<u32>, local: u32) -> u32 {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count || step[1] == 0.0 {
        return params.count;
    }
    // By bits: a NaN is not zero.
    if params.skip_zero != 0u && (bitcast<u32>(gradient[i]) & 0x7fffffffu) == 0u {
        return params.count;
    }
    return i;
}

// (parameter after decoupled decay, gradient after scale and coupled decay)
fn decayed(i: u32) -> vec2<f32> {
    let p = parameter[i];
    let g = gradient[i] * step[1];
    if params.decoupled != 0u {
        return vec2<f32>(p - rate() * params.weight_decay * p, g);
    }
    return vec2<f32>(p, g + params.weight_decay * p);
}

fn rate() -> f32 {
    return step[0] * params.rate;
}

@compute @workgroup_size(WORKGROUP)
fn adam(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = element(id, n, local);
    if i < params.count {
        let pg = decayed(i);
        let m = params.beta1 * moment1[i] + params.one_minus_beta1 * pg.y;
        let v = params.beta2 * moment2[i] + params.one_minus_beta2 * pg.y * pg.y;
        moment1[i] = m;
        moment2[i] = v;
        parameter[i] = pg.x - rate() * (m * step[2]) / (sqrt(v) * step[3] + params.epsilon);
    }
}

@compute @workgroup_size(WORKGROUP)
fn momentum(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = element(id, n, local);
    if i < params.count {
        let pg = decayed(i);
        let m = params.beta1 * moment1[i] + pg.y;
        moment1[i] = m;
        parameter[i] = pg.x - rate() * select(m, pg.y + params.beta1 * m, params.nesterov != 0u);
    }
}

@compute @workgroup_size(WORKGROUP)
fn descent(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = element(id, n, local);
    if i < params.count {
        let pg = decayed(i);
        parameter[i] = pg.x - rate() * pg.y;
    }
}

@compute @workgroup_size(WORKGROUP)
fn rmsprop(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = element(id, n, local);
    if i < params.count {
        let pg = decayed(i);
        let v = params.beta2 * moment2_only[i] + params.one_minus_beta2 * pg.y * pg.y;
        moment2_only[i] = v;
        parameter[i] = pg.x - rate() * pg.y / (sqrt(v) + params.epsilon);
    }
}
