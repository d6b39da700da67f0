// sin and cos of any |x| up to 50,000 rad within 2 ulp of 1: WGSL promises nothing outside
// [-pi, pi]. Cody-Waite reduction by pi/2 in three parts (the first two have so few bits that
// their product with the quadrant is exact), then polynomials on [-pi/4, pi/4].
fn sin_cos(x: f32) -> vec2<f32> {
    let quadrant = round(x * 0.6366197723675814);
    let r = ((x - quadrant * 1.5703125) - quadrant * 4.837512969970703e-4) - quadrant * 7.549790126404332e-8;
    let s = r * r;
    let sine = r + r * s * (-0.1666666716337204
        + s * (0.008333329111337662 + s * (-0.00019839299784507602 + s * 2.717904408200411e-6)));
    let cosine = 1.0 - 0.5 * s + s * s * (0.04166664555668831
        + s * (-0.0013887303648516536 + s * 2.443098128424026e-5));
    let q = u32(i32(quadrant)) & 3u;
    let swapped = (q & 1u) == 1u;
    let a = select(sine, cosine, swapped);
    let b = select(cosine, sine, swapped);
    return vec2<f32>(
        select(a, -a, (q & 2u) != 0u),
        select(b, -b, q == 1u || q == 2u),
    );
}
