// Eight floats as four 64-bit integers. On a CPU adapter each number of a load whose index differs between lanes
// goes through memory on its own, and one of 64 bits takes as long as one of 32.
fn floats_of(words: vec4<u64>) -> mat2x4<f32> {
    let even = bitcast<vec4<f32>>(vec4<u32>(words));
    let odd = bitcast<vec4<f32>>(vec4<u32>(words >> vec4<u32>(32u)));
    return mat2x4<f32>(vec4<f32>(even.x, odd.x, even.y, odd.y), vec4<f32>(even.z, odd.z, even.w, odd.w));
}
