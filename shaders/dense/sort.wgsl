// Stable radix sort of 32-bit keys, with or without a payload, from the least significant digit up.
//
//   key order:  u32; i32; f32 in IEEE 754's total order: -NaN, -inf, ..., -0, +0, ..., inf, NaN
//   keys, keys_out: [count]    values, values_out: [count], any 32-bit payload; or the first pass
//   makes the payload, 0 .. count - 1: then values_out is the argsort
//
// A pass sorts by one digit, of log2 BINS bits or less. A workgroup owns a block of WORKGROUP * ITEMS
// neighbours, an invocation ITEMS neighbours of it.
//   count_digits:  how often each digit occurs in each block         counts: [BINS, blocks]
//   (an exclusive prefix sum of `counts`, dense/scan, gives `offsets`: the place of the first
//   element of a block with a digit)
//   scatter*:      ranks the elements of a block by digit, then by place. STAGED: brings them into
//                  this order in workgroup memory, and writes each digit's run to its place;
//                  else writes them straight to their places
// Descending order flips all bits of the digit, so that equal keys keep their order there too.
// Nothing depends on which invocation comes first: the ranks come from sums, not from atomics.
// Workgroup memory: (BINS + 2) 4 WORKGROUP + 4 BINS bytes, and 8 WORKGROUP ITEMS if STAGED:
// 12.6 KiB staged (64 invocations, 16 items, 16 bins), 9.1 KiB direct (8, 512, 256).
// Versions: staged, where neighbours' writes go to neighbours: for GPUs; direct, with few long
// blocks and half as many passes: for CPU adapters, which access memory lane by lane anyway.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,
    blocks: u32,
    shift: u32,   // of the digit
    digits: u32,  // its mask, 1 to BINS - 1
    flip: u32,    // 0xffffffff to sort in descending order
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;                 // [count], as bits
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;         // [BINS, blocks]
@group(0) @binding(2) var<storage, read> offsets: array<u32>;              // [BINS, blocks]
@group(0) @binding(3) var<storage, read_write> keys_out: array<u32>;       // [count]
@group(0) @binding(4) var<storage, read_write> values_out: array<u32>;     // [count]
@group(0) @binding(5) var<storage, read> values: array<u32>;               // [count]

const BLOCK: u32 = WORKGROUP * ITEMS;
const STAGE: u32 = select(1u, BLOCK, STAGED);

var<workgroup> histogram: array<atomic<u32>, BINS>;
// How often each digit occurs among each invocation's elements, then the rank of the next such.
var<workgroup> ranks: array<u32, BINS * WORKGROUP>;
var<workgroup> prefix: array<u32, 2 * WORKGROUP>;
var<workgroup> starts: array<u32, BINS>;
var<workgroup> sorted_keys: array<u32, STAGE>;
var<workgroup> sorted_values: array<u32, STAGE>;

fn digit(key: u32) -> u32 {
    var ordered = key;
    if KEY == 1u {
        ordered = key ^ 0x80000000u;
    }
    if KEY == 2u {
        ordered = select(key | 0x80000000u, ~key, key > 0x7fffffffu);
    }
    return ((ordered ^ params.flip) >> params.shift) & params.digits;
}

@compute @workgroup_size(WORKGROUP)
fn count_digits(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    for (var d = local; d < BINS; d += WORKGROUP) {
        atomicStore(&histogram[d], 0u);
    }
    workgroupBarrier();
    for (var k = 0u; k < ITEMS; k++) {
        let i = group * BLOCK + k * WORKGROUP + local;
        if i < params.count {
            atomicAdd(&histogram[digit(keys[i])], 1u);
        }
    }
    workgroupBarrier();
    for (var d = local; d < BINS; d += WORKGROUP) {
        counts[d * params.blocks + group] = atomicLoad(&histogram[d]);
    }
}

// The sum of the values of all invocations before this one.
fn workgroup_prefix(value: u32, local: u32) -> u32 {
    prefix[local] = value;
    workgroupBarrier();
    var from_copy = 0u;
    for (var step = 1u; step < WORKGROUP; step *= 2u) {
        var sum = prefix[from_copy + local];
        if local >= step {
            sum += prefix[from_copy + local - step];
        }
        from_copy = WORKGROUP - from_copy;
        prefix[from_copy + local] = sum;
        workgroupBarrier();
    }
    return prefix[from_copy + local] - value;
}

// Fills `ranks` with the rank of each invocation's first element with each digit (its place in the
// whole array if not STAGED), and `starts` with the rank of the block's first.
fn rank_block(group: u32, local: u32) {
    for (var d = 0u; d < BINS; d++) {
        ranks[d * WORKGROUP + local] = 0u;
    }
    let first = group * BLOCK + local * ITEMS;
    for (var k = 0u; k < ITEMS; k++) {
        if first + k < params.count {
            ranks[digit(keys[first + k]) * WORKGROUP + local] += 1u;
        }
    }
    workgroupBarrier();
    var sum = 0u;
    for (var k = 0u; k < BINS; k++) {
        sum += ranks[local * BINS + k];
    }
    sum = workgroup_prefix(sum, local);
    for (var k = 0u; k < BINS; k++) {
        let tally = ranks[local * BINS + k];
        ranks[local * BINS + k] = sum;
        sum += tally;
    }
    workgroupBarrier();
    for (var d = local; d < BINS; d += WORKGROUP) {
        starts[d] = ranks[d * WORKGROUP];
    }
    workgroupBarrier();
    if !STAGED {
        for (var d = 0u; d < BINS; d++) {
            ranks[d * WORKGROUP + local] += offsets[d * params.blocks + group] - starts[d];
        }
    }
}

// The rank of the invocation's next element with this key.
fn next_rank(key: u32, local: u32) -> u32 {
    let slot = digit(key) * WORKGROUP + local;
    let rank = ranks[slot];
    ranks[slot] = rank + 1u;
    return rank;
}

// Where the block's element of rank j goes, in the whole array.
fn place(key: u32, j: u32, group: u32) -> u32 {
    let d = digit(key);
    return offsets[d * params.blocks + group] + (j - starts[d]);
}

@compute @workgroup_size(WORKGROUP)
fn scatter(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    rank_block(group, local);
    for (var k = 0u; k < ITEMS; k++) {
        let i = group * BLOCK + local * ITEMS + k;
        if i < params.count {
            let key = keys[i];
            let rank = next_rank(key, local);
            if STAGED {
                sorted_keys[rank] = key;
            } else {
                keys_out[rank] = key;
            }
        }
    }
    if STAGED {
        workgroupBarrier();
        for (var j = local; j < min(BLOCK, params.count - group * BLOCK); j += WORKGROUP) {
            let key = sorted_keys[j];
            keys_out[place(key, j, group)] = key;
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn scatter_values(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    rank_block(group, local);
    for (var k = 0u; k < ITEMS; k++) {
        let i = group * BLOCK + local * ITEMS + k;
        if i < params.count {
            let key = keys[i];
            let value = values[i];
            let rank = next_rank(key, local);
            if STAGED {
                sorted_keys[rank] = key;
                sorted_values[rank] = value;
            } else {
                keys_out[rank] = key;
                values_out[rank] = value;
            }
        }
    }
    if STAGED {
        workgroupBarrier();
        for (var j = local; j < min(BLOCK, params.count - group * BLOCK); j += WORKGROUP) {
            let key = sorted_keys[j];
            let at = place(key, j, group);
            keys_out[at] = key;
            values_out[at] = sorted_values[j];
        }
    }
}

// As scatter_values, with each element's own index as its value.
@compute @workgroup_size(WORKGROUP)
fn scatter_indices(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups {
        return;
    }
    rank_block(group, local);
    for (var k = 0u; k < ITEMS; k++) {
        let i = group * BLOCK + local * ITEMS + k;
        if i < params.count {
            let key = keys[i];
            let value = i;
            let rank = next_rank(key, local);
            if STAGED {
                sorted_keys[rank] = key;
                sorted_values[rank] = value;
            } else {
                keys_out[rank] = key;
                values_out[rank] = value;
            }
        }
    }
    if STAGED {
        workgroupBarrier();
        for (var j = local; j < min(BLOCK, params.count - group * BLOCK); j += WORKGROUP) {
            let key = sorted_keys[j];
            let at = place(key, j, group);
            keys_out[at] = key;
            values_out[at] = sorted_values[j];
        }
    }
}
