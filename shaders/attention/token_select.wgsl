// The `keep` tokens of each image with the largest scores, or with the smallest ranks, in the order
// of their indices. Ties go to the smaller index; a NaN counts above every number, -0 equals 0.
//
//   score: [batch, tokens]
//   index: [batch, keep]      where each kept token lies among all tokens of the batch
//   inverse: [batch, tokens]  where each token went among the kept ones of the batch, 2^32 - 1 if
//                             it was left out: what dense/gather reads as zeros. So a gather by
//                             `inverse` is the gradient of the gather by `index`.
//
// A workgroup an image. A radix search finds the key of the last kept token, eight bits at a time from
// the top; then blocks of 256 tokens are compacted by prefix sums, which count the larger keys and the
// ties at once, 16 bits each. Counts are integers: the order of the atomics does not matter.
// Workgroup memory: 2,056 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    tokens: u32,
    keep: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> score: array<u32>;               // [batch, tokens], bits
@group(0) @binding(2) var<storage, read_write> index: array<u32>;         // [batch, keep]
@group(0) @binding(3) var<storage, read_write> inverse: array<u32>;       // [batch, tokens]

const BLOCK: u32 = 256u;
const NONE: u32 = 0xffffffffu;

var<workgroup> histogram: array<atomic<u32>, BLOCK>;
var<workgroup> counts: array<u32, BLOCK>;
var<workgroup> found: u32;       // the digits of the last kept key so far
var<workgroup> wanted: u32;      // how many tokens with these digits are kept

// Larger means kept first.
fn key(bits: u32) -> u32 {
    if BY_RANK {
        return ~bits;
    }
    let size = bits & 0x7fffffffu;
    if size > 0x7f800000u {
        return 0xffffffffu;
    }
    if size == 0u {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits > 0x7fffffffu);
}

// Adds one digit to `found`.
fn search(first: u32, shift: u32, local: u32) {
    atomicStore(&histogram[local], 0u);
    workgroupBarrier();
    let digits = found;
    for (var t = local; t < params.tokens; t += BLOCK) {
        let k = key(score[first + t]);
        // Shifts stay below 32: the digits above are compared in two steps.
        if ((k >> shift) >> 8u) == digits {
            atomicAdd(&histogram[(k >> shift) & 255u], 1u);
        }
    }
    workgroupBarrier();
    if local == 0u {
        var left = wanted;
        var digit = 255u;
        for (; digit > 0u; digit--) {
            let n = atomicLoad(&histogram[digit]);
            if n >= left {
                break;
            }
            left -= n;
        }
        found = (digits << 8u) | digit;
        wanted = left;
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn choose(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let image = linear_group(params.first_group, id, n);
    if image >= params.groups {
        return;
    }
    let first = image * params.tokens;
    if local == 0u {
        found = 0u;
        wanted = params.keep;
    }
    workgroupBarrier();
    search(first, 24u, local);
    search(first, 16u, local);
    search(first, 8u, local);
    search(first, 0u, local);
    let last = found;
    let ties = wanted;
    // Kept with a larger key, and ties, before this block.
    var larger_before = 0u;
    var ties_before = 0u;
    for (var start = 0u; start < params.tokens; start += BLOCK) {
        let t = start + local;
        var mine = 0u;
        if t < params.tokens {
            let k = key(score[first + t]);
            mine = select(0u, 1u, k > last) | select(0u, 0x10000u, k == last);
        }
        counts[local] = mine;
        for (var reach = 1u; reach < BLOCK; reach *= 2u) {
            workgroupBarrier();
            var sum = counts[local];
            if local >= reach {
                sum += counts[local - reach];
            }
            workgroupBarrier();
            counts[local] = sum;
        }
        workgroupBarrier();
        let through = counts[local];
        let all = counts[BLOCK - 1u];
        // The next block writes to `counts`.
        workgroupBarrier();
        let larger = larger_before + (through & 0xffffu) - (mine & 0xffffu);
        let equal = ties_before + (through >> 16u) - (mine >> 16u);
        if t < params.tokens {
            let kept = (mine & 0xffffu) == 1u || (mine != 0u && equal < ties);
            let place = image * params.keep + larger + min(equal, ties);
            if kept {
                index[place] = first + t;
            }
            inverse[first + t] = select(NONE, place, kept);
        }
        larger_before += all & 0xffffu;
        ties_before += all >> 16u;
    }
}
