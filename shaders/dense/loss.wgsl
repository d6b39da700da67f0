// Mean losses, and in the same pass their gradients.
//
//   elementwise, d = prediction - target, mean over `count` elements:
//     0 squared            d^2                             2 d
//     1 absolute           |d|                             sign d (0 at 0)
//     2 Huber              d^2 / 2, or delta (|d| - delta / 2) beyond delta;  d clamped to +-delta
//     3 relative           |d| / (|target| + epsilon)      sign d / (|target| + epsilon)
//     4 relative squared   d^2 / (prediction^2 + epsilon)  2 d / (prediction^2 + epsilon): the
//                          denominator is held constant in the derivative
//     5 binary cross-entropy   max(p, 0) - p t + log(1 + e^-|p|)   sigmoid(p) - t
//     PAIRS adds, of elements e = d_2i - d_(2i+1), pairs |e| / 2 to the loss of both, and pairs sign e to the
//     derivative of the first and -pairs sign e to that of the second. A vec4 holds two pairs.
//   cross-entropy over logits [rows, classes] against weights t of the classes, mean over `rows`:
//     sum_c t_c (log(sum_k exp z_k) - z_c), gradient softmax(z)_c sum_k t_k - t_c. The weights are
//       SOFT   given, as bits of f32, [rows, classes]: u, and smoothed:
//              t_c = (1 - smoothing) u_c + smoothing / classes sum_k u_k
//       else   1 of the target class, 0 of all others, u32 [rows], and smoothed if SMOOTH. A target
//              that is not below `classes` skips its row.
//
//   gradient = factor * (the above), factor = scale / count.
//
// `elements`: an invocation sums ITEMS items, WORKGROUP apart, to one partial sum; an item is one
// element, or four (vectors.wgsl) where `count` is a multiple of 4. `rows`: an invocation a row, 256
// rows to one partial sum. `row`: a workgroup a row, its loss is the partial sum.
// sum.wgsl adds the partial sums.
// A NaN or an infinity in prediction, target or loss makes the loss NaN, and the gradient of that
// element (of its pair; for cross-entropy: of that row) NaN; see block_sum.wgsl.
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
    pairs: f32,      // weight of what differs in a pair
    kept: f32,       // 1 - smoothing
    spread: f32,     // smoothing / classes
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> prediction: array<Floats>;       // [count]
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [rows, classes]
@group(0) @binding(2) var<storage, read> target_value: array<Floats>;     // [count]
@group(0) @binding(2) var<storage, read> target_bits: array<u32>;         // [rows], or [rows, classes] of f32
@group(0) @binding(3) var<storage, read_write> partial_sum: array<u32>;   // bits of f32
@group(0) @binding(4) var<storage, read_write> gradient_items: array<Words>;  // [count], bits of f32
@group(0) @binding(4) var<storage, read_write> gradient: array<u32>;      // [rows, classes], bits of f32

// Of one item, before the mean.
struct Element {
    loss: Floats,
    slope: Floats,   // the derivative
}

fn element(p: Floats, t: Floats) -> Element {
    let alone = single(p, t);
    if !PAIRS {
        return alone;
    }
    let d = p - t;
    let e = d - bitcast<Floats>(swap_pairs(bitcast<Words>(d)));
    return Element(alone.loss + 0.5 * params.pairs * abs(e), alone.slope + params.pairs * sign(e));
}

fn single(p: Floats, t: Floats) -> Element {
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
        case 5u: {
            let e = exp(-abs(p));
            let s = select(e, Floats(1.0), p >= Floats()) / (1.0 + e);
            return Element(max(p, Floats()) - p * t + log(1.0 + e), s - t);
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
        var size = max(max(magnitude(p), magnitude(t)), magnitude(e.loss));
        if PAIRS { size = max(size, swap_pairs(size)); }
        worst = max(worst, size);
        if i < params.items {
            gradient_items[i] = choose(Words(NOT_A_NUMBER), bitcast<Words>(params.factor * e.slope),
                                       size < Words(INFINITY));
        }
    }
    partial_sum[group * WORKGROUP + local] = item_sum(sum, worst);
}

// ---- cross-entropy ----

struct Row {
    maximum: f32,
    sum: f32,         // of exp(z - maximum)
    own: u32,         // the target class
    total: f32,       // of the weights
    loss: u32,        // bits
}

// Of a class before smoothing.
fn given_weight(row: u32, c: u32, own: u32) -> f32 {
    if SOFT {
        return bitcast<f32>(target_bits[row * params.classes + c]);
    }
    return select(0.0, 1.0, c == own);
}

fn class_weight(row: u32, c: u32, own: u32, total: f32) -> f32 {
    if !(SOFT || SMOOTH) {
        return select(0.0, 1.0, c == own);
    }
    return params.kept * given_weight(row, c, own) + params.spread * total;
}

// What a class adds to the loss beside log(sum). A class of no weight may be beyond all bounds.
fn class_loss(weight: f32, maximum: f32, z: f32) -> f32 {
    return select(0.0, weight * (maximum - z), weight != 0.0);
}

fn target_class(row: u32) -> u32 {
    if SOFT {
        return 0u;
    }
    return target_bits[row];
}

fn class_gradient(row: u32, c: u32, r: Row) -> u32 {
    let share = exp(logits[row * params.classes + c] - r.maximum) / r.sum;
    let g = r.total * share - class_weight(row, c, r.own, r.total);
    return select(NOT_A_NUMBER, bitcast<u32>(params.factor * g), is_finite(r.loss));
}

// ---- an invocation a row ----

fn read_row(row: u32) -> Row {
    let base = row * params.classes;
    let own = target_class(row);
    var finite = true;
    var maximum = logits[base];
    var total = select(0.0, 1.0, own < params.classes);
    if SOFT {
        total = 0.0;
    }
    for (var c = 0u; c < params.classes; c++) {
        let z = logits[base + c];
        finite = finite && is_finite(bitcast<u32>(z));
        maximum = max(maximum, z);
        if SOFT {
            let weight = target_bits[base + c];
            finite = finite && is_finite(weight);
            total += bitcast<f32>(weight);
        }
    }
    var sum = 0.0;
    var loss = 0.0;
    for (var c = 0u; c < params.classes; c++) {
        let z = logits[base + c];
        sum += exp(z - maximum);
        if SOFT || SMOOTH {
            loss += class_loss(class_weight(row, c, own, total), maximum, z);
        }
    }
    if !(SOFT || SMOOTH) {
        loss = select(0.0, maximum - logits[base + min(own, params.classes - 1u)], own < params.classes);
    }
    loss += total * log(sum);
    return Row(maximum, sum, own, total, select(NOT_A_NUMBER, bitcast<u32>(loss), finite));
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
        loss = read_row(row).loss;
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
        let r = read_row(row);
        loss = r.loss;
        for (var c = 0u; c < params.classes; c++) {
            gradient[row * params.classes + c] = class_gradient(row, c, r);
        }
    }
    let total = block_sum(loss, local);
    if local == 0u {
        partial_sum[group] = total;
    }
}

// ---- a workgroup a row ----

var<workgroup> row_max: array<f32, BLOCK>;

// The sum over the workgroup, valid in every invocation.
fn shared_sum(bits: u32, local: u32) -> u32 {
    _ = block_sum(bits, local);
    workgroupBarrier();
    let sum = block_bits[0];
    workgroupBarrier();
    return sum;
}

// Every invocation returns the same row.
fn share_row(row: u32, local: u32) -> Row {
    let base = row * params.classes;
    let own = target_class(row);
    var finite = true;
    var maximum = logits[base];
    var total = 0.0;
    for (var c = local; c < params.classes; c += BLOCK) {
        let z = logits[base + c];
        finite = finite && is_finite(bitcast<u32>(z));
        maximum = max(maximum, z);
        if SOFT {
            let weight = target_bits[base + c];
            finite = finite && is_finite(weight);
            total += bitcast<f32>(weight);
        }
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
    if SOFT {
        total = bitcast<f32>(shared_sum(bitcast<u32>(total), local));
    } else {
        total = select(0.0, 1.0, own < params.classes);
    }
    var sum = 0.0;
    var loss = 0.0;
    for (var c = local; c < params.classes; c += BLOCK) {
        let z = logits[base + c];
        sum += exp(z - maximum);
        if SOFT || SMOOTH {
            loss += class_loss(class_weight(row, c, own, total), maximum, z);
        }
    }
    let sum_bits = shared_sum(select(NOT_A_NUMBER, bitcast<u32>(sum), finite), local);
    if SOFT || SMOOTH {
        loss = bitcast<f32>(shared_sum(bitcast<u32>(loss), local));
    } else {
        loss = select(0.0, maximum - logits[base + min(own, params.classes - 1u)], own < params.classes);
    }
    let exps = bitcast<f32>(sum_bits);
    loss += total * log(exps);
    return Row(maximum, exps, own, total, select(NOT_A_NUMBER, bitcast<u32>(loss), is_finite(sum_bits)));
}

@compute @workgroup_size(256)
fn row(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    let r = share_row(group, local);
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
    let r = share_row(group, local);
    for (var c = local; c < params.classes; c += BLOCK) {
        gradient[group * params.classes + c] = class_gradient(group, c, r);
    }
    if local == 0u {
        partial_sum[group] = r.loss;
    }
}
