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
// `elements`: an invocation sums ITEMS items, WORKGROUP apart, to one partial sum; an item is one
// element, or four (vectors.wgsl) where `count` is a multiple of 4. `rows`: an invocation a row, 256
// rows to one partial sum. `row`: a workgroup a row, its loss is the partial sum.
// sum.wgsl adds the partial sums.
// A NaN or an infinity in prediction, target or loss makes the loss NaN, and the gradient of that
// element (for cross-entropy: of that row) NaN; see block_sum.wgsl.
// Workgroup memory: `elements` none, `rows` 1,024 bytes, `row` 2,048.
// Versions of `elements`: a tree over the workgroup for every 1,024 elements (15 % of copy bandwidth
// on a CPU adapter, where barriers are dear); vec4s, no barrier, finiteness tested once an
// invocation (64 to 87 %).

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,      // `elements`: f32s or vec4s
    rows: u32,
    classes: u32,
    factor: f32,     // of the gradient
    parameter: f32,  // delta or epsilon
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> prediction: array<Floats>;       // [count]
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [rows, classes]
@group(0) @binding(2) var<storage, read> target_value: array<Floats>;     // [count]
@group(0) @binding(2) var<storage, read> target_class: array<u32>;        // [rows]
@group(0) @binding(3) var<storage, read_write> partial_sum: array<u32>;   // bits of f32
@group(0) @binding(4) var<storage, read_write> gradient_items: array<Words>;  // [count], bits of f32
@group(0) @binding(4) var<storage, read_write> gradient: array<u32>;      // [rows, classes], bits of f32

// Of one item, before the mean.
struct Element {
    loss: Floats,
    slope: Floats,   // the derivative
}

fn element(p: Floats, t: Floats) -> Element {
    let d = p - t;
    let a = abs(d);
    switch LOSS {
        case 1u: { return Element(a, sign(d)); }
        case 2u: {
            let delta = Floats(params.parameter);
            return Element(select(0.5 * d * d, delta * (a - 0.5 * delta), a > delta), clamp(d, -delta, delta));
        }
        case 3u: {
            let scale = abs(t) + params.parameter;
            return Element(a / scale, sign(d) / scale);
        }
        case 4u: {
            let scale = p * p + params.parameter;
            return Element(d * d / scale, 2.0 * d / scale);
        }
        default: { return Element(d * d, 2.0 * d); }
    }
}

@compute @workgroup_size(WORKGROUP)
fn elements(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
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
        let at = min(i, params.items - 1u);
        let p = prediction[at];
        let t = target_value[at];
        sum += select(Floats(), element(p, t).loss, i < params.items);
        worst = max(worst, max(magnitude(p), magnitude(t)));
    }
    partial_sum[group * WORKGROUP + local] = item_sum(sum, worst);
}

@compute @workgroup_size(WORKGROUP)
fn elements_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    var sum = Floats();
    var worst = Words();
    for (var k = 0u; k < ITEMS; k++) {
        let i = (group * ITEMS + k) * WORKGROUP + local;
        let at = min(i, params.items - 1u);
        let p = prediction[at];
        let t = target_value[at];
        let e = element(p, t);
        sum += select(Floats(), e.loss, i < params.items);
        let size = max(max(magnitude(p), magnitude(t)), magnitude(e.loss));
        worst = max(worst, size);
        if i < params.items {
            gradient_items[i] = choose(Words(NOT_A_NUMBER), bitcast<Words>(params.factor * e.slope),
                                       size < Words(INFINITY));
        }
    }
    partial_sum[group * WORKGROUP + local] = item_sum(sum, worst);
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
    var maximum = logits[base];
    for (var c = 0u; c < params.classes; c++) {
        let z = logits[base + c];
        finite = finite && is_finite(bitcast<u32>(z));
        maximum = max(maximum, z);
    }
    var sum = 0.0;
    for (var c = 0u; c < params.classes; c++) {
        sum += exp(logits[base + c] - maximum);
    }
    if !finite {
        return Row(0.0, 1.0, NOT_A_NUMBER);
    }
    if class_index >= params.classes {
        return Row(maximum, sum, 0u);
    }
    return Row(maximum, sum, bitcast<u32>(log(sum) + (maximum - logits[base + class_index])));
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
    if row < params.rows {
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
    if row < params.rows {
        let class_index = target_class[row];
        let r = read_row(row, class_index);
        loss = r.loss;
        let finite = is_finite(loss);
        let factor = select(0.0, params.factor, class_index < params.classes);
        for (var c = 0u; c < params.classes; c++) {
            let i = row * params.classes + c;
            let g = exp(logits[i] - r.maximum) / r.sum - select(0.0, 1.0, c == class_index);
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
    var maximum = logits[base];
    for (var c = local; c < params.classes; c += BLOCK) {
        let z = logits[base + c];
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
        sum += exp(logits[base + c] - maximum);
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
    return Row(maximum, exps, bitcast<u32>(log(exps) + (maximum - logits[base + class_index])));
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
        let g = exp(logits[i] - r.maximum) / r.sum - select(0.0, 1.0, c == class_index);
        gradient[i] = select(NOT_A_NUMBER, bitcast<u32>(factor * g), finite);
    }
    if local == 0u {
        partial_sum[group] = r.loss;
    }
}
