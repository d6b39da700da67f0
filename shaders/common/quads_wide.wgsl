// Four floats in a buffer as two 64-bit integers, in the place of quads.wgsl: see common/wide.wgsl. On lavapipe with
// AVX2, times before and after: products of 1024^3 217 and 134 ms, 64-64x2-64 for 32,768 points 70 and 50 ms forward and
// 209 and 135 backward, Adam over 2^24 322 and 224 ms.
alias Quad = vec2<u64>;

fn four(q: Quad) -> vec4<f32> {
    let even = bitcast<vec2<f32>>(vec2<u32>(q));
    let odd = bitcast<vec2<f32>>(vec2<u32>(q >> vec2<u32>(32u)));
    return vec4<f32>(even.x, odd.x, even.y, odd.y);
}

fn quad_of(v: vec4<f32>) -> Quad {
    return vec2<u64>(bitcast<vec2<u32>>(v.xz)) | (vec2<u64>(bitcast<vec2<u32>>(v.yw)) << vec2<u32>(32u));
}
