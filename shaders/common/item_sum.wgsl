// The sum of some items that an invocation adds by itself, with "not finite" carried along as in
// block_sum.wgsl, but tested once: `worst` is the largest magnitude of what went in, as bits, whose
// order is that of the magnitudes, then infinity, then NaN.

const INFINITY: u32 = 0x7f800000u;

// As bits; NaN if a term or the sum is not finite.
fn item_sum(sum: Floats, worst: Words) -> u32 {
    let bits = bitcast<u32>(lanes_sum(sum));
    return select(NOT_A_NUMBER, bits, lanes_max(worst) < INFINITY && is_finite(bits));
}
