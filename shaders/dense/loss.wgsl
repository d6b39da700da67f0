// Mean losses, and in the same pass their gradients.
//
//   elementwise, d = prediction - target, mean over `count` elements:
//     0 squared            d^2                             2 d
//     1 absolute           |d|                             sign d (0 at 0)
//     2 Huber              d^2 / 2, or delta (|d| - delta / 2) beyond delta;  d clamped to +-delta
//     3 relative           |d| / (|target| + epsilon)      sign d / (|target| + epsilon)
//     4 relative squared   d^2 / (prediction^2 + epsilon)  2 d / (prediction^2 + epsilon): the
//                          denominator is held constant in the derivative
//   cross-entropy over logits [rows, classes]: log(sum_c exp z_c) - z_target, mean over `rows`;
//     gradient softmax(z)_c - [c = target]. A target that is not below `classes` skips its row.
//
//   gradient = factor * (the above), factor = scale / count.
//
// `elements`: 256 invocations sum SPAN = 1024 elements to one partial sum. `rows`: an invocation a
// row, 256 rows to one partial sum. `row`: a workgroup a row, its loss is the partial sum.
// sum.wgsl adds the partial sums.
// A NaN or an infinity in prediction, target or loss makes the loss NaN, and the gradient of that
// element (for cross-entropy: of that row) NaN; see block_sum.wgsl.
// Workgroup memory: 1,024 bytes (`row`: 2,048).

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,      // elements or rows
    classes: u32,
    factor: f32,     // of the gradient
    parameter: f32,  // delta or epsilon
}

const SPAN: u32 = 1024u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> prediction: array<f32>;          // [count] or [rows, classes]
@group(0) @binding(2) var<storage, read> target_value: array<f32>;        // [count]
@group(0) @binding(2) var<storage, read> target_class: array<u32>;        // [rows]
@group(0) @binding(3) var<storage, read_write> partial_sum: array<u32>;       // [groups], bits of f32
@group(0) @binding(4) var<storage, read_write> gradient: array<u32>;      // as prediction, bits of f32

// (loss, derivative) of one element, before the mean.
fn element(p: f32, t: f32) -> vec2<f32> {
    let d = p - t;
    let a = abs(d);
    switch LOSS {
        case 1u: { return vec2<f32>(a, sign(d)); }
        case 2u: {
            let delta = params.parameter;
            return vec2<f32>(select(0.5 * d * d, delta * (a - 0.5 * delta), a > delta), clamp(d, -delta, delta));
        }
        case 3u: {
            let scale = abs(t) + params.parameter;
            return vec2<f32>(a / scale, sign(d) / scale);
        }
        case 4u: {
            let scale = p * p + params.parameter;
            return vec2<f32>(d * d / scale, 2.0 * d / scale);
        }
        default: { return vec2<f32>(d * d, 2.0 * d); }
    }
}

fn finite_element(p: f32, t: f32, loss: f32) -> bool {
    return is_finite(bitcast<u32>(p)) && is_finite(bitcast<u32>(t)) && is_finite(bitcast<u32>(loss));
}

@compute @workgroup_size(256)
fn elements(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = 0u;
    for (var k = 0u; k < SPAN / BLOCK; k++) {
        let i = group * SPAN + k * BLOCK + local;
        if i < params.count {
            let p = prediction[i];
            let t = target_value[i];
            let e = element(p, t);
            sum = add_bits(sum, select(NOT_A_NUMBER, bitcast<u32>(e.x), finite_element(p, t, e.x)));
        }
    }
    let total = block_sum(sum, local);
    if local == 0u {
        partial_sum[group] = total;
    }
}

@compute @workgroup_size(256)
fn elements_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = 0u;
    for (var k = 0u; k < SPAN / BLOCK; k++) {
        let i = group * SPAN + k * BLOCK + local;
        if i < params.count {
            let p = prediction[i];
            let t = target_value[i];
            let e = element(p, t);
            let finite = finite_element(p, t, e.x);
            sum = add_bits(sum, select(NOT_A_NUMBER, bitcast<u32>(e.x), finite));
            gradient[i] = select(NOT_A_NUMBER, bitcast<u32>(params.factor * e.y), finite);
        }
    }
    let total = block_sum(sum, local);
    if local == 0u {
        partial_sum[group] = total;
    }
}

// ---- cross-entropy, an invocation a row ----

struct Row {
    maximum: f32,
    sum: f32,      // of exp(z - maximum)
    loss: u32,     // bits
}

fn read_row(row: u32, class_index: u32) -> Row {
    let base = row * params.classes;
    var finite = true;
    var maximum = prediction[base];
    for (var c = 0u; c < params.classes; c++) {
        let z = prediction[base + c];
        finite = finite && is_finite(bitcast<u32>(z));
        maximum = max(maximum, z);
    }
    var sum = 0.0;
    for (var c = 0u; c < params.classes; c++) {
        sum += exp(prediction[base + c] - maximum);
    }
    if !finite {
        return Row(0.0, 1.0, NOT_A_NUMBER);
    }
    if class_index >= params.classes {
        return Row(maximum, sum, 0u);
    }
    return Row(maximum, sum, bitcast<u32>(log(sum) + (maximum - prediction[base + class_index])));
}

@compute @workgroup_size(256)
fn rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let row = group * BLOCK + local;
    var loss = 0u;
    if row < params.count {
        loss = read_row(row, target_class[row]).loss;
    }
    let total = block_sum(loss, local);
    if local == 0u {
        partial_sum[group] = total;
    }
}

@compute @workgroup_size(256)
fn rows_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let row = group * BLOCK + local;
    var loss = 0u;
    if row < params.count {
        let class_index = target_class[row];
        let r = read_row(row, class_index);
        loss = r.loss;
        let finite = is_finite(loss);
        let factor = select(0.0, params.factor, class_index < params.classes);
        for (var c = 0u; c < params.classes; c++) {
            let i = row * params.classes + c;
            let g = exp(prediction[i] - r.maximum) / r.sum - select(0.0, 1.0, c == class_index);
            gradient[i] = select(NOT_A_NUMBER, bitcast<u32>(factor * g), finite);
        }
    }
    let total = block_sum(loss, local);
    if local == 0u {
        partial_sum[group] = total;
    }
}

// ---- cross-entropy, a workgroup a row ----

var<workgroup> row_max: array<f32, BLOCK>;

// Every invocation returns the same row.
fn share_row(row: u32, class_index: u32, local: u32) -> Row {
    let base = row * params.classes;
    var finite = true;
    var maximum = prediction[base];
    for (var c = local; c < params.classes; c += BLOCK) {
        let z = prediction[base + c];
        finite = finite && is_finite(bitcast<u32>(z));
        maximum = max(maximum, z);
    }
    row_max[local] = maximum;
    for (var stride = BLOCK / 2u; stride > 0u; stride = stride >> 1u) {
        workgroupBarrier();
        if local < stride {
            row_max[local] = max(row_max[local], row_max[local + stride]);
        }
    }
    workgroupBarrier();
    maximum = row_max[0];
    var sum = 0.0;
    for (var c = local; c < params.classes; c += BLOCK) {
        sum += exp(prediction[base + c] - maximum);
    }
    _ = block_sum(select(NOT_A_NUMBER, bitcast<u32>(sum), finite), local);
    workgroupBarrier();
    let total = block_bits[0];
    let exps = bitcast<f32>(total);
    if !is_finite(total) {
        return Row(0.0, 1.0, NOT_A_NUMBER);
    }
    if class_index >= params.classes {
        return Row(maximum, exps, 0u);
    }
    return Row(maximum, exps, bitcast<u32>(log(exps) + (maximum - prediction[base + class_index])));
}

@compute @workgroup_size(256)
fn row(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let r = share_row(group, target_class[group], local);
    if local == 0u {
        partial_sum[group] = r.loss;
    }
}

@compute @workgroup_size(256)
fn row_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let class_index = target_class[group];
    let r = share_row(group, class_index, local);
    let finite = is_finite(r.loss);
    let factor = select(0.0, params.factor, class_index < params.classes);
    for (var c = local; c < params.classes; c += BLOCK) {
        let i = group * params.classes + c;
        let g = exp(prediction[i] - r.maximum) / r.sum - select(0.0, 1.0, c == class_index);
        gradient[i] = select(NOT_A_NUMBER, bitcast<u32>(factor * g), finite);
    }
    if local == 0u {
        partial_sum[group] = r.loss;
    }
}
