// Random numbers from a counter: Philox4x32-10 (Salmon et al. 2011, section 3.3) and what is made of
// its words by integer arithmetic alone, so that every adapter gives the same bits.

// The upper half of the 64-bit product.
fn multiply_high(a: u32, b: u32) -> u32 {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    return a1 * b1 + (middle >> 16u) + (other >> 16u);
}

fn philox4x32(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = seed;
    for (var round = 0u; round < 10u; round++) {
        let high0 = multiply_high(0xd2511f53u, c.x);
        let high1 = multiply_high(0xcd9e8d57u, c.z);
        c = vec4<u32>(high1 ^ c.y ^ k.x, 0xcd9e8d57u * c.z, high0 ^ c.w ^ k.y, 0xd2511f53u * c.x);
        k = k + vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// [0, 1) in steps of 2^-24.
fn uniform_from_bits(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604644775390625e-8;
}

// [-1, 1) in steps of 2^-23.
fn symmetric_from_bits(bits: u32) -> f32 {
    return f32(i32(bits >> 8u) - 8388608) * 1.1920928955078125e-7;
}

// sqrt(-2 ln((bits | [bits = 0]) / 2^32)) with 28 bits after the point: the radius of Box and Muller (1958).
fn normal_radius(bits: u32) -> u32 {
    let x = max(bits, 1u);
    let zeros = countLeadingZeros(x);
    // x = 2^(31 - zeros) (1 + f), f with 32 bits. log2(1 + f) = f (c1 - f (c2 - ...)), error 4e-9.
    let f = (x << zeros) << 1u;
    var log2 = 9839946u;
    log2 = 60545955u - multiply_high(f, log2);
    log2 = 174654698u - multiply_high(f, log2);
    log2 = 326658758u - multiply_high(f, log2);
    log2 = 473079330u - multiply_high(f, log2);
    log2 = 609200486u - multiply_high(f, log2);
    log2 = 773041995u - multiply_high(f, log2);
    log2 = 1032609095u - multiply_high(f, log2);
    log2 = 1549078679u - multiply_high(f, log2);
    log2 = 3098163993u - multiply_high(f, log2);
    log2 = multiply_high(f, log2);
    // -log2 u with 26 bits, then its product with 2 ln 2 (31 bits), with 26 bits.
    let square = multiply_high(((zeros + 1u) << 26u) - (log2 >> 5u), 2977044472u) << 1u;
    if square == 0u {
        return 0u;
    }
    // t in [1, 4) with 30 bits; 1 / sqrt(t) with 31 bits by a parabola and three Newton steps.
    let shift = countLeadingZeros(square) & 30u;
    let t = square << shift;
    let slope = 210317221u - multiply_high(t, 102219160u);
    var y = (176405649u - multiply_high(t, slope)) << 4u;
    for (var i = 0u; i < 3u; i++) {
        let h = 805306368u - multiply_high(t, multiply_high(y, y));
        y = multiply_high(y, h << 2u) << 1u;
    }
    return (multiply_high(t, y) << 1u) >> (shift >> 1u);
}

// sin(pi / 2 x), x with 32 bits in [0, 1), result with 31 bits: x (a1 - x^2 (a3 - ...)), error 3e-11.
fn quarter_sine(x: u32) -> u32 {
    let s = multiply_high(x, x);
    var a = 7370u;
    a = 344144u - multiply_high(s, a);
    a = 10053783u - multiply_high(s, a);
    a = 171138563u - multiply_high(s, a);
    a = 1387197332u - multiply_high(s, a);
    a = 3373259426u - multiply_high(s, a);
    return multiply_high(x, a);
}

// Two independent standard normal numbers in steps of 2^-21, within +-6.67.
fn normal_pair(a: u32, b: u32) -> vec2<f32> {
    let radius = normal_radius(a);
    let x = b << 2u;
    let sine = i32((multiply_high(radius, quarter_sine(x)) + 32u) >> 6u);
    let cosine = i32((multiply_high(radius, quarter_sine(~x)) + 32u) >> 6u);
    var pair = vec2<i32>(cosine, sine);
    switch b >> 30u {
        case 1u: { pair = vec2<i32>(-sine, cosine); }
        case 2u: { pair = vec2<i32>(-cosine, -sine); }
        case 3u: { pair = vec2<i32>(sine, -cosine); }
        default: {}
    }
    return vec2<f32>(pair) * 4.76837158203125e-7;
}

// A bijection of the words (finaliser of MurmurHash3).
fn scramble(word: u32) -> u32 {
    var h = word;
    h = (h ^ (h >> 16u)) * 0x85ebca6bu;
    h = (h ^ (h >> 13u)) * 0xc2b2ae35u;
    return h ^ (h >> 16u);
}

// Where a random permutation of 0 .. n - 1 sends i < n, in constant time and memory: a generalised
// Feistel network of eight rounds over side^2 >= n places, walked until it lands below n (Black and
// Rogaway 2002, sections 3 and 4). side = ceil(sqrt n), so that few walks take a second step: a
// cycle is at most side^2 - n + 1 steps away from the set, below 1024 for n < 200,000, and beyond
// that a chance of 1/200 each makes 1024 failures impossible in practice.
fn permute(i: u32, n: u32, side: u32, key0: vec4<u32>, key1: vec4<u32>) -> u32 {
    var place = i;
    for (var walk = 0u; walk < 1024u; walk++) {
        var left = place / side;
        var right = place % side;
        for (var round = 0u; round < 4u; round++) {
            left = (left + scramble(right + key0[round]) % side) % side;
            right = (right + scramble(left + key1[round]) % side) % side;
        }
        place = left * side + right;
        if place < n {
            break;
        }
    }
    return place;
}
