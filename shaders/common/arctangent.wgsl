// atan2(y, x) within 6 units of 2^-24 of its value (WGSL grants 4096): the argument is brought into
// [0, tan(pi / 8)], where atan(t) = t + t^3 (...), relative error 2e-8. (0, 0) gives 0.
fn arctangent2(y: f32, x: f32) -> f32 {
    let a = abs(x);
    let b = abs(y);
    let low = min(a, b);
    let high = max(a, b);
    if high == 0.0 {
        return 0.0;
    }
    // atan(low / high) = pi / 4 + atan((low - high) / (low + high)).
    let above = low > 0.41421356 * high;
    let t = select(low, low - high, above) / select(high, low + high, above);
    let s = t * t;
    let p = s * (-0.3333294913858178 + s * (0.19977710024330267
        + s * (-0.13877678722335252 + s * 0.08053722655425773)));
    var angle = select(0.0, 0.7853981633974483, above) + (t + t * p);
    angle = select(angle, 1.5707963267948966 - angle, b > a);
    angle = select(angle, 3.141592653589793 - angle, x < 0.0);
    return select(angle, -angle, y < 0.0);
}
