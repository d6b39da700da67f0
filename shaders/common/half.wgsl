// f16 as bits in the low half of a word, in integers alone: needs no device feature, rounds to
// nearest even everywhere (WGSL leaves the rounding of its own conversion open), and keeps
// denormals, infinities and NaN. Without branches: on CPU adapters each of
// them costs more than the few operations that it would save.

// The f16 nearest to the f32 with these bits; 65,520 and above become infinity.
fn half_from_float_bits(bits: u32) -> u32 {
    let a = bits & 0x7fffffffu;
    let not_a_number = 0x7e00u | ((a >> 13u) & 0x3ffu);
    let normal = (a + 0xfffu + ((a >> 13u) & 1u) - 0x38000000u) >> 13u;
    // Below 2^-14, in units of 2^-24: there the shift is at least 14, and from 25 on nothing is left.
    let shift = clamp(126u - (a >> 23u), 14u, 31u);
    let m = (a & 0x7fffffu) | 0x800000u;
    let tiny = (m + (1u << (shift - 1u)) - 1u + ((m >> shift) & 1u)) >> shift;
    var h = select(tiny, normal, a >= 0x38800000u);
    h = select(h, 0x7c00u, a >= 0x477ff000u);
    h = select(h, not_a_number, a > 0x7f800000u);
    return ((bits >> 16u) & 0x8000u) | h;
}

// The bits of the f32 equal to an f16; a signalling NaN becomes quiet.
fn half_to_float_bits(half: u32) -> u32 {
    let a = half & 0x7fffu;
    let m = half & 0x3ffu;
    let tiny = bitcast<u32>(f32(m) * 5.960464477539063e-8);
    var bits = select((a << 13u) + 0x38000000u, tiny, a < 0x400u);
    let special = 0x7f800000u | (m << 13u) | select(0u, 0x400000u, m != 0u);
    bits = select(bits, special, a >= 0x7c00u);
    return ((half & 0x8000u) << 16u) | bits;
}
