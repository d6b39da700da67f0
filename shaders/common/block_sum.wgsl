// Sums over a workgroup of 256 invocations that carry "not finite" along. A partial sum travels as
// its bits, and becomes the quiet NaN below as soon as one term is NaN or infinite: compilers may
// assume that floats are neither, so nothing but the bits can be trusted. Order fixed: repeatable.
// Workgroup memory: 1,024 bytes.

const NOT_A_NUMBER: u32 = 0x7fc00000u;
const BLOCK: u32 = 256u;

var<workgroup> block_bits: array<u32, BLOCK>;

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

fn add_bits(a: u32, b: u32) -> u32 {
    let sum = bitcast<u32>(bitcast<f32>(a) + bitcast<f32>(b));
    return select(NOT_A_NUMBER, sum, is_finite(a) && is_finite(b) && is_finite(sum));
}

// The sum over the workgroup, valid in invocation 0. All invocations must call it.
fn block_sum(bits: u32, local: u32) -> u32 {
    block_bits[local] = bits;
    for (var stride = BLOCK / 2u; stride > 0u; stride = stride >> 1u) {
        workgroupBarrier();
        if local < stride {
            block_bits[local] = add_bits(block_bits[local], block_bits[local + stride]);
        }
    }
    return block_bits[0];
}
