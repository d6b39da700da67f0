// The iterated retrieval of a modern Hopfield network, between its matrix products and softmaxes:
//
//   q_0 = beta_h state;  P_s = softmax(q_s Y^T);  q_s = beta_h P_(s-1) Y  while head h is active, else q_(s-1)
//
// The state xi_s = q_s / beta_h is never stored: only its scaled form enters the scores.
// Instances i = 0 .. B H - 1 have `length` items of q each; the head of one is (i / repeat) % heads.
//
// begin: q_0, and the first row of flags: all heads are active.      flags: [steps + 1, H]
// update: q_s from r = P_(s-1) Y.
// change: the Frobenius norm of what a step changed, for each instance: of P, or of the state.
// decide: the next row of flags: a head stays active while the change of some instance exceeds epsilon.
// route: backward through an update: dr = beta dq where the head was active, and dq to the step before
//   where it was not.
// scale_gradient: adds <q, dq> of an active head to its instance's share of the gradient of beta.
// scale_sum: dbeta_h = sum over the instances / beta_h.
//
// begin, update, route: one invocation an item (one element, or four). change, scale_gradient: one
// workgroup an instance, a larger one for long instances. decide, scale_sum: one invocation a head.
// Workgroup memory: 4 WORKGROUP bytes (change, scale_gradient).

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,         // items of all instances, or instances
    heads: u32,
    repeat: u32,
    batch: u32,
    length: u32,        // items of an instance
    modulus: u32,       // begin: items of the state, which repeat
    step: u32,
    flag: u32,          // change: 1 to divide by beta; scale_gradient: 1 to add to the share
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> beta: array<f32>;                 // [H]
// begin, update, route
@group(0) @binding(2) var<storage, read> state: array<Floats>;             // [H, Nq, D], or as q
@group(0) @binding(2) var<storage, read> r: array<Floats>;                 // as q
@group(0) @binding(2) var<storage, read> dq: array<Floats>;                // as q
@group(0) @binding(3) var<storage, read_write> q_out: array<Floats>;       // [instances, length]
@group(0) @binding(3) var<storage, read_write> dr: array<Floats>;          // as q
@group(0) @binding(4) var<storage, read_write> flags_out: array<u32>;      // [steps + 1, H]
@group(0) @binding(4) var<storage, read> flags: array<u32>;                // [steps + 1, H]
@group(0) @binding(5) var<storage, read> q_before: array<Floats>;          // as q
@group(0) @binding(5) var<storage, read_write> dq_before: array<Floats>;   // as q
// change, decide
@group(0) @binding(2) var<storage, read> now: array<Floats>;               // [instances, length]
@group(0) @binding(3) var<storage, read> before: array<Floats>;            // [instances, length]
@group(0) @binding(4) var<storage, read_write> change_out: array<u32>;     // [instances], bits of f32
@group(0) @binding(1) var<storage, read> changes: array<u32>;              // [instances], bits of f32
@group(0) @binding(2) var<storage, read_write> flags_both: array<u32>;     // [steps + 1, H]
// scale_gradient, scale_sum
@group(0) @binding(1) var<storage, read> q: array<Floats>;                 // [instances, length]
@group(0) @binding(3) var<storage, read_write> shares: array<f32>;         // [instances]
@group(0) @binding(2) var<storage, read> shares_in: array<f32>;            // [instances]
@group(0) @binding(3) var<storage, read_write> dbeta: array<f32>;          // [H]

fn head_of(instance: u32) -> u32 {
    return instance / params.repeat % params.heads;
}

// The instance of a head and an image.
fn instance_of(head: u32, image: u32) -> u32 {
    return select(image * params.heads + head, head * params.batch + image, params.repeat > 1u);
}

// Whether step params.step updates the head. Step 0 sets every state.
fn is_active(head: u32) -> bool {
    return params.step == 0u || flags[(max(params.step, 1u) - 1u) * params.heads + head] == 1u;
}

@compute @workgroup_size(64)
fn begin(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * 64u + local;
    if group < params.groups && i < params.count {
        q_out[i] = beta[head_of(i / params.length)] * state[i % params.modulus];
        if i < params.heads { flags_out[i] = 1u; }
    }
}

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * 64u + local;
    if group < params.groups && i < params.count {
        let head = head_of(i / params.length);
        if is_active(head) {
            q_out[i] = beta[head] * r[i];
        } else {
            q_out[i] = q_before[i];
        }
    }
}

@compute @workgroup_size(64)
fn route(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * 64u + local;
    if group < params.groups && i < params.count {
        let head = head_of(i / params.length);
        let d = dq[i];
        let on = is_active(head);
        dr[i] = select(Floats(), beta[head] * d, on);
        dq_before[i] = select(d, Floats(), on);
    }
}

var<workgroup> shared_value: array<f32, WORKGROUP>;

// Valid in invocation 0. All invocations must call it.
fn shared_sum(value: f32, local: u32) -> f32 {
    shared_value[local] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half { shared_value[local] += shared_value[local + half]; }
    }
    return shared_value[0];
}

@compute @workgroup_size(WORKGROUP)
fn change(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    var sums = Floats();
    for (var k = local; k < params.length; k += WORKGROUP) {
        let d = now[group * params.length + k] - before[group * params.length + k];
        sums += d * d;
    }
    let norm = sqrt(shared_sum(lanes_sum(sums), local));
    if local == 0u {
        let of_state = norm / beta[head_of(group)];
        change_out[group] = bitcast<u32>(select(norm, of_state, params.flag == 1u));
    }
}

@compute @workgroup_size(64)
fn decide(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let head = group * 64u + local;
    if group < params.groups && head < params.heads {
        // Norms are not negative: their bits have their order. One that is not finite holds nobody up.
        let epsilon = bitcast<u32>(params.epsilon);
        var goes_on = false;
        for (var image = 0u; image < params.batch; image++) {
            let bits = changes[instance_of(head, image)];
            goes_on = goes_on || (bits > epsilon && bits < 0x7f800000u);
        }
        let was = flags_both[(params.step - 1u) * params.heads + head];
        flags_both[params.step * params.heads + head] = select(0u, was, goes_on);
    }
}

@compute @workgroup_size(WORKGROUP)
fn scale_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    var sums = Floats();
    for (var k = local; k < params.length; k += WORKGROUP) {
        sums += q[group * params.length + k] * dq[group * params.length + k];
    }
    let sum = shared_sum(lanes_sum(sums), local);
    if local == 0u {
        var share = 0.0;
        if params.flag == 1u { share = shares[group]; }
        if is_active(head_of(group)) { share += sum; }
        shares[group] = share;
    }
}

@compute @workgroup_size(64)
fn scale_sum(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let head = group * 64u + local;
    if group < params.groups && head < params.heads {
        var sum = 0.0;
        for (var image = 0u; image < params.batch; image++) {
            sum += shares_in[instance_of(head, image)];
        }
        dbeta[head] = sum / beta[head];
    }
}
