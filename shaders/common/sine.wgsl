// sin or cos alone, of Floats (scalars.wgsl or vectors.wgsl), at half the cost of sincos.wgsl: a
// reduction by pi leaves one polynomial. Any |x| up to 12,000 rad within 3.5 units of 2^-24; up to
// 50,000 rad within 2^-20. WGSL promises nothing outside [-pi, pi]. The first two parts of pi have so
// few bits that their products with the number of half turns are exact.

fn reduced(x: Floats, turns: Floats) -> Floats {
    return ((x - turns * 3.140625) - turns * 9.675025939941406e-4) - turns * 1.5099580252808664e-7;
}

// sin(r) for |r| <= pi / 2, negative where `flips` is odd (an integer below 2^22).
fn sine_polynomial(r: Floats, flips: Floats) -> Floats {
    let s = r * r;
    let p = s * (-0.16666656732559204 + s * (0.008333017118275166
        + s * (-1.9806608906947076e-4 + s * 2.6000395791925257e-6)));
    // In the sum the lowest bit of the integer is the lowest bit of the mantissa.
    let sign = bitcast<Words>(flips + 12582912.0) << Words(31u);
    return bitcast<Floats>(bitcast<Words>(r + r * p) ^ sign);
}

fn sine(x: Floats) -> Floats {
    let turns = round(x * 0.3183098861837907);
    return sine_polynomial(reduced(x, turns), turns);
}

// cos(x) = -(-1)^n sin(x - (n + 1/2) pi)
fn cosine(x: Floats) -> Floats {
    let turns = floor(x * 0.3183098861837907);
    return sine_polynomial(reduced(x, turns + 0.5), turns + 1.0);
}
