// Eight floats as four 64-bit integers. On a CPU adapter each number of a load or a store whose index differs between
// lanes goes through memory on its own, and one of 64 bits takes as long as one of 32.
fn floats_of(words: vec4<u64>) -> mat2x4<f32> {
    let even = bitcast<vec4<f32>>(vec4<u32>(words));
    let odd = bitcast<vec4<f32>>(vec4<u32>(words >> vec4<u32>(32u)));
    return mat2x4<f32>(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}

fn words_of(v: mat2x4<f32>) -> vec4<u64> {
    let even = vec4<u64>(bitcast<vec4<u32>>(vec4<f32>(v[0].xz, v[1].xz)));
    let odd = vec4<u64>(bitcast<vec4<u32>>(vec4<f32>(v[0].yw, v[1].yw)));
    return even | (odd << vec4<u32>(32u));
}
