// Prefix sums of u32 or f32 of any length.
//
//   inclusive:  y_i = x_0 + ... + x_i            exclusive:  y_i = x_0 + ... + x_(i-1)
//   reverse:    the same from the other end; reversed it is the forward's own gradient
//   x, y: [count]
//
// A workgroup owns a block of WORKGROUP * ITEMS elements, an invocation ITEMS neighbours of it.
//   sums:        the sum of each block                              sums: [blocks]
//   scan:        the prefix sums of a single block
//   scan_blocks: those of every block, from the prefix sum of `sums` before it
// `sums` is scanned by the same two shaders, level upon level. No block waits for another, which
// WGSL does not promise to work. The order of the additions is fixed: f32 results repeat.
// Workgroup memory: 8 WORKGROUP bytes.
// Versions: one. It reads x twice and writes y once, where scanning first and adding the offsets
// after would write twice.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,
    exclusive: u32,
    reverse: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;             // [count]
@group(0) @binding(2) var<storage, read_write> y: array<Element>;       // [count]; of `sums`: [blocks]
@group(0) @binding(3) var<storage, read> offsets: array<Element>;       // [blocks], exclusive

// Two copies: a step of the scan reads one and writes the other, with one barrier a step.
var<workgroup> shared_sums: array<Element, 2 * WORKGROUP>;

fn place(i: u32) -> u32 {
    return select(i, params.count - 1u - i, params.reverse == 1u);
}

fn own_sum(first: u32) -> Element {
    var sum = Element();
    for (var k = 0u; k < ITEMS; k++) {
        if first + k < params.count {
            sum += x[place(first + k)];
        }
    }
    return sum;
}

// The sum of the values of all invocations before this one.
fn workgroup_prefix(value: Element, local: u32) -> Element {
    shared_sums[local] = value;
    workgroupBarrier();
    var from_copy = 0u;
    for (var step = 1u; step < WORKGROUP; step *= 2u) {
        var sum = shared_sums[from_copy + local];
        if local >= step {
            sum = shared_sums[from_copy + local - step] + sum;
        }
        from_copy = WORKGROUP - from_copy;
        shared_sums[from_copy + local] = sum;
        workgroupBarrier();
    }
    var before = Element();
    if local > 0u {
        before = shared_sums[from_copy + local - 1u];
    }
    return before;
}

fn scan_block(group: u32, local: u32, offset: Element) {
    let first = (group * WORKGROUP + local) * ITEMS;
    var sum = offset + workgroup_prefix(own_sum(first), local);
    for (var k = 0u; k < ITEMS; k++) {
        if first + k < params.count {
            let at = place(first + k);
            let next = sum + x[at];
            if params.exclusive == 1u {
                y[at] = sum;
            } else {
                y[at] = next;
            }
            sum = next;
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn sums(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    shared_sums[local] = own_sum((group * WORKGROUP + local) * ITEMS);
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if local < half {
            shared_sums[local] += shared_sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        y[group] = shared_sums[0];
    }
}

@compute @workgroup_size(WORKGROUP)
fn scan(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    scan_block(group, local, Element());
}

@compute @workgroup_size(WORKGROUP)
fn scan_blocks(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    scan_block(group, local, offsets[group]);
}
