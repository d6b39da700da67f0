// What the kernels of radial/fused_mlp for subgroups of 8 share: an invocation has four points, whose
// inputs to a layer (up to 64 at a time) stay in registers. Of each row of weights it reads one vec4 in
// eight; the others reach it by shuffles with constant lanes.

// Sixteen vec4s of one point. Named, not an array: an array with a variable index is memory.
struct Block {
    v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>,
    v4: vec4<f32>, v5: vec4<f32>, v6: vec4<f32>, v7: vec4<f32>,
    v8: vec4<f32>, v9: vec4<f32>, v10: vec4<f32>, v11: vec4<f32>,
    v12: vec4<f32>, v13: vec4<f32>, v14: vec4<f32>, v15: vec4<f32>,
}

// Sixteen vec4s of each of an invocation's four points.
struct Blocks { a: Block, b: Block, c: Block, d: Block }

// One vec4 of each of them.
struct Four { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

// This lane's part of four rows of weights.
struct Part { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32> }

fn load_part(at: u32, row: u32) -> Part {
    let last = TOTAL4 - 1u;
    return Part(four(weights[min(at, last)]), four(weights[min(at + row, last)]),
                four(weights[min(at + 2u * row, last)]), four(weights[min(at + 3u * row, last)]));
}

fn add_product(m: mat4x4<f32>, v: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return fma(m[3], v.wwww, fma(m[2], v.zzzz, fma(m[1], v.yyyy, fma(m[0], v.xxxx, s))));
}

// Adds the products of a lane's four rows of weights, or of their transpose, with one vec4 a point.
fn add(s: Four, transposed: bool, part: Part, lane: u32,
       a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> Four {
    var m = mat4x4<f32>(subgroupShuffle(part.r0, lane), subgroupShuffle(part.r1, lane),
                        subgroupShuffle(part.r2, lane), subgroupShuffle(part.r3, lane));
    if !transposed { m = transpose(m); }
    return Four(add_product(m, a, s.a), add_product(m, b, s.b), add_product(m, c, s.c), add_product(m, d, s.d));
}

// Adds four outputs over a block of `count` vec4s: rows from `at` or, transposed, columns.
fn multiply(sums: Four, b: Blocks, count: u32, transposed: bool, at: u32, row: u32, lane: u32) -> Four {
    let next = select(1u, 4u * row, transposed);
    let low = load_part(at + lane * next, row);
    var high: Part;
    if count > 8u { high = load_part(at + (8u + lane) * next, row); }
    var s = sums;
    s = add(s, transposed, low, 0u, b.a.v0, b.b.v0, b.c.v0, b.d.v0);
    if count > 1u { s = add(s, transposed, low, 1u, b.a.v1, b.b.v1, b.c.v1, b.d.v1); }
    if count > 2u { s = add(s, transposed, low, 2u, b.a.v2, b.b.v2, b.c.v2, b.d.v2); }
    if count > 3u { s = add(s, transposed, low, 3u, b.a.v3, b.b.v3, b.c.v3, b.d.v3); }
    if count > 4u { s = add(s, transposed, low, 4u, b.a.v4, b.b.v4, b.c.v4, b.d.v4); }
    if count > 5u { s = add(s, transposed, low, 5u, b.a.v5, b.b.v5, b.c.v5, b.d.v5); }
    if count > 6u { s = add(s, transposed, low, 6u, b.a.v6, b.b.v6, b.c.v6, b.d.v6); }
    if count > 7u { s = add(s, transposed, low, 7u, b.a.v7, b.b.v7, b.c.v7, b.d.v7); }
    if count > 8u { s = add(s, transposed, high, 0u, b.a.v8, b.b.v8, b.c.v8, b.d.v8); }
    if count > 9u { s = add(s, transposed, high, 1u, b.a.v9, b.b.v9, b.c.v9, b.d.v9); }
    if count > 10u { s = add(s, transposed, high, 2u, b.a.v10, b.b.v10, b.c.v10, b.d.v10); }
    if count > 11u { s = add(s, transposed, high, 3u, b.a.v11, b.b.v11, b.c.v11, b.d.v11); }
    if count > 12u { s = add(s, transposed, high, 4u, b.a.v12, b.b.v12, b.c.v12, b.d.v12); }
    if count > 13u { s = add(s, transposed, high, 5u, b.a.v13, b.b.v13, b.c.v13, b.d.v13); }
    if count > 14u { s = add(s, transposed, high, 6u, b.a.v14, b.b.v14, b.c.v14, b.d.v14); }
    if count > 15u { s = add(s, transposed, high, 7u, b.a.v15, b.b.v15, b.c.v15, b.d.v15); }
    return s;
}
