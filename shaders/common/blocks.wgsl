// Blocks of 4 x 4 results in registers.
//
// They have names, and no loop indexes them: an array that a loop indexes is kept in memory by GPU compilers
// that do not unroll the loop, and a product then runs at a tenth of its speed.

// sum + a b^T; row r of a block is its column r of the matrix type.
fn add_outer(sum: mat4x4<f32>, a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(fma(a.xxxx, b, sum[0]), fma(a.yyyy, b, sum[1]), fma(a.zzzz, b, sum[2]), fma(a.wwww, b, sum[3]));
}
