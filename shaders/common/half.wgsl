// f16 as bits in the low half of a word, in integers alone: needs no device feature, rounds to
// nearest even everywhere (WGSL leaves the rounding of its own conversion open), and keeps
// denormals, infinities and NaN.

// The f16 nearest to the f32 with these bits; 65,520 and above become infinity.
fn half_from_float_bits(bits: u32) -> u32 {
    let sign = (bits >> 16u) & 0x8000u;
    let a = bits & 0x7fffffffu;
    if a > 0x7f800000u {
        return sign | 0x7e00u | ((a >> 13u) & 0x3ffu);
    }
    if a >= 0x477ff000u {
        return sign | 0x7c00u;
    }
    if a >= 0x38800000u {
        return sign | ((a + 0xfffu + ((a >> 13u) & 1u) - 0x38000000u) >> 13u);
    }
    // Below 2^-14, in units of 2^-24. The shift is at least 14; from 25 on nothing is left.
    let shift = min(126u - (a >> 23u), 31u);
    let m = (a & 0x7fffffu) | 0x800000u;
    let h = m >> shift;
    let rest = m & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    return sign | (h + u32(rest > tie || (rest == tie && (h & 1u) == 1u)));
}

// The bits of the f32 equal to an f16; a signalling NaN becomes quiet.
fn half_to_float_bits(half: u32) -> u32 {
    let sign = (half & 0x8000u) << 16u;
    let e = (half >> 10u) & 31u;
    let m = half & 0x3ffu;
    if e == 0u {
        return sign | bitcast<u32>(f32(m) * 5.960464477539063e-8);
    }
    if e == 31u {
        return sign | 0x7f800000u | (m << 13u) | select(0u, 0x400000u, m != 0u);
    }
    return sign | ((e + 112u) << 23u) | (m << 13u);
}
