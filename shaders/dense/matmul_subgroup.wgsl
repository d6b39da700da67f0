// Matrix product for CPU adapters with subgroups of 8 (formula and epilogue: dense/matmul.wgsl).
//
// A workgroup is one subgroup and has 16 rows x 64 columns of Y: an invocation 16 rows x 2 x 4 columns,
// in registers. For four steps of k it reads eight vec4s of op(B) and, of the 16 x 4 block of op(A)
// that all invocations need, two vec4s; the others reach it by shuffles with constant lanes. 512
// multiply-adds for 10 loads; a load costs about a hundred cycles there, a shuffle about one.
// Transposed operands are read as they lie, and turned in blocks of 4 x 4 in registers.
// Workgroup memory: 0 bytes.
//
// 1024^3 on lavapipe, percent of the ceiling: 32 columns 22.5, 64 columns 26.2; B transposed 27.6. There
// each row of op(B) lies in a page of its own; dense/matmul_packed is for products of that size.

struct Rows {
    r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>,
    r4: vec4<f32>, r5: vec4<f32>, r6: vec4<f32>, r7: vec4<f32>,
    r8: vec4<f32>, r9: vec4<f32>, r10: vec4<f32>, r11: vec4<f32>,
    r12: vec4<f32>, r13: vec4<f32>, r14: vec4<f32>, r15: vec4<f32>,
}

struct Place { matrix: u32, batch: u32, slice: u32, row: u32, column: u32 }

// Rows first: a strip of op(B) stays in the cache while op(A) passes by.
fn place(index: u32) -> Place {
    let columns = (params.n + 63u) / 64u;
    let rows = (params.m + 15u) / 16u;
    let matrix = index / (rows * columns);
    return Place(matrix, matrix % params.batch, matrix / params.batch, index % rows * 16u, index / rows % columns * 64u);
}

// This lane's part of op(A) for four steps of k: four steps of row `lane` (or lane + 8) or, where A is
// transposed, four rows of step lane / 4 (or lane / 4 + 2).
fn part_of_a(base: u32, row: u32, k: u32, end: u32, lane: u32, high: bool) -> vec4<f32> {
    if TRANSPOSE_A {
        let step = k + lane / 4u + select(0u, 2u, high);
        let first = row + lane % 4u * 4u;
        let count = select(0u, min(max(params.m, first) - first, 4u), step < end);
        return get_a(base + step * params.m + first, count);
    }
    let mine = row + lane + select(0u, 8u, high);
    return get_a(base + mine * params.k + k, select(0u, min(end - k, 4u), mine < params.m));
}

// Rows 4 g to 4 g + 3 of the block of op(A), as columns.
fn rows_of(low: vec4<f32>, high: vec4<f32>, g: u32) -> mat4x4<f32> {
    if TRANSPOSE_A {
        return transpose(mat4x4<f32>(subgroupShuffle(low, g), subgroupShuffle(low, 4u + g),
                                     subgroupShuffle(high, g), subgroupShuffle(high, 4u + g)));
    }
    let v = select(low, high, g > 1u);
    let first = g % 2u * 4u;
    return mat4x4<f32>(subgroupShuffle(v, first), subgroupShuffle(v, first + 1u),
                       subgroupShuffle(v, first + 2u), subgroupShuffle(v, first + 3u));
}

// Four steps of k of op(B) for this lane's four columns, as columns of the result.
fn part_of_b(base: u32, k: u32, end: u32, column: u32) -> mat4x4<f32> {
    if TRANSPOSE_B {
        let count = min(end - k, 4u);
        return transpose(mat4x4<f32>(
            get_b(base + column * params.k + k, select(0u, count, column < params.n)),
            get_b(base + (column + 1u) * params.k + k, select(0u, count, column + 1u < params.n)),
            get_b(base + (column + 2u) * params.k + k, select(0u, count, column + 2u < params.n)),
            get_b(base + (column + 3u) * params.k + k, select(0u, count, column + 3u < params.n))));
    }
    let count = min(max(params.n, column) - column, 4u);
    let at = base + k * params.n + column;
    return mat4x4<f32>(
        get_b(at, count),
        get_b(at + params.n, select(0u, count, k + 1u < end)),
        get_b(at + 2u * params.n, select(0u, count, k + 2u < end)),
        get_b(at + 3u * params.n, select(0u, count, k + 3u < end)));
}

fn product(b: mat4x4<f32>, v: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return fma(b[3], v.wwww, fma(b[2], v.zzzz, fma(b[1], v.yyyy, fma(b[0], v.xxxx, s))));
}

fn add_products(rows: Rows, b: mat4x4<f32>, low: vec4<f32>, high: vec4<f32>) -> Rows {
    var s = rows;
    let m0 = rows_of(low, high, 0u);
    s.r0 = product(b, m0[0], s.r0);
    s.r1 = product(b, m0[1], s.r1);
    s.r2 = product(b, m0[2], s.r2);
    s.r3 = product(b, m0[3], s.r3);
    let m1 = rows_of(low, high, 1u);
    s.r4 = product(b, m1[0], s.r4);
    s.r5 = product(b, m1[1], s.r5);
    s.r6 = product(b, m1[2], s.r6);
    s.r7 = product(b, m1[3], s.r7);
    let m2 = rows_of(low, high, 2u);
    s.r8 = product(b, m2[0], s.r8);
    s.r9 = product(b, m2[1], s.r9);
    s.r10 = product(b, m2[2], s.r10);
    s.r11 = product(b, m2[3], s.r11);
    let m3 = rows_of(low, high, 3u);
    s.r12 = product(b, m3[0], s.r12);
    s.r13 = product(b, m3[1], s.r13);
    s.r14 = product(b, m3[2], s.r14);
    s.r15 = product(b, m3[3], s.r15);
    return s;
}

fn put_row(p: Place, row: u32, column: u32, sum: vec4<f32>) {
    if row < params.m && column < params.n {
        put_result(p.matrix, row, column, min(4u, params.n - column), sum);
    }
}

@compute @workgroup_size(8)
fn subgroup(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    let p = place(group);
    let column = p.column + 4u * local;
    let a_base = p.batch * params.a_stride;
    let b_base = p.batch * params.b_stride;
    var s: Rows;
    var t: Rows;
    let end = min(params.k, (p.slice + 1u) * params.slice_k);
    for (var k = p.slice * params.slice_k; k < end; k += 4u) {
        let low = part_of_a(a_base, p.row, k, end, lane, false);
        let high = part_of_a(a_base, p.row, k, end, lane, true);
        s = add_products(s, part_of_b(b_base, k, end, column), low, high);
        t = add_products(t, part_of_b(b_base, k, end, column + 32u), low, high);
    }
    put_row(p, p.row + 0u, column, s.r0);
    put_row(p, p.row + 1u, column, s.r1);
    put_row(p, p.row + 2u, column, s.r2);
    put_row(p, p.row + 3u, column, s.r3);
    put_row(p, p.row + 4u, column, s.r4);
    put_row(p, p.row + 5u, column, s.r5);
    put_row(p, p.row + 6u, column, s.r6);
    put_row(p, p.row + 7u, column, s.r7);
    put_row(p, p.row + 8u, column, s.r8);
    put_row(p, p.row + 9u, column, s.r9);
    put_row(p, p.row + 10u, column, s.r10);
    put_row(p, p.row + 11u, column, s.r11);
    put_row(p, p.row + 12u, column, s.r12);
    put_row(p, p.row + 13u, column, s.r13);
    put_row(p, p.row + 14u, column, s.r14);
    put_row(p, p.row + 15u, column, s.r15);
    put_row(p, p.row + 0u, column + 32u, t.r0);
    put_row(p, p.row + 1u, column + 32u, t.r1);
    put_row(p, p.row + 2u, column + 32u, t.r2);
    put_row(p, p.row + 3u, column + 32u, t.r3);
    put_row(p, p.row + 4u, column + 32u, t.r4);
    put_row(p, p.row + 5u, column + 32u, t.r5);
    put_row(p, p.row + 6u, column + 32u, t.r6);
    put_row(p, p.row + 7u, column + 32u, t.r7);
    put_row(p, p.row + 8u, column + 32u, t.r8);
    put_row(p, p.row + 9u, column + 32u, t.r9);
    put_row(p, p.row + 10u, column + 32u, t.r10);
    put_row(p, p.row + 11u, column + 32u, t.r11);
    put_row(p, p.row + 12u, column + 32u, t.r12);
    put_row(p, p.row + 13u, column + 32u, t.r13);
    put_row(p, p.row + 14u, column + 32u, t.r14);
    put_row(p, p.row + 15u, column + 32u, t.r15);
}
