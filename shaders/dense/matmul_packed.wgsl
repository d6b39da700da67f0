// Matrix product of packed operands, for CPU adapters with subgroups of 8: Y[b] = op(A[b]) op(B[b]), or
// slices of it. dense/matmul_pack has laid op(A) into panels of 32 rows and op(B) into panels of 64
// columns, dense/matmul_slices adds the epilogue where there is one.
//
// A workgroup is one subgroup and has 32 rows x 64 columns of Y: an invocation 32 rows x 2 x 4 columns.
// For four steps of k it reads four vec4s of A's panel, whose rows reach the others by shuffles with
// constant lanes, and eight of B's: 1,024 multiply-adds for 12 loads. A load is a loop over the lanes
// there and costs about 75 cycles, a shuffle about one. 48 or 64 rows need fewer loads, but their code
// no longer fits the instruction cache. Panels are read in order: neither a page nor a line is fetched
// for the sake of a part. Workgroup memory: 0 bytes.
//
// 1024^3 on lavapipe, percent of the ceiling with packing included (dense/matmul_subgroup): A B 30.1 (23.5),
// A^T B 29.6 (19.5), A B^T 31.6 (25.4).

struct Params {
    first_group: u32,
    groups: u32,
    m: u32,
    n: u32,
    k: u32,             // rounded up to a multiple of 4, as in the panels
    batch: u32,
    a_stride: u32,      // vec4s from one matrix of the batch to the next; 0: they share one
    b_stride: u32,
    slices: u32,        // parts of the sum over k, each with a Y of its own
    slice_k: u32,       // length of a part, a multiple of 16
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<Quad>;         // [matrices, panels, k, 32]
@group(0) @binding(2) var<storage, read> b: array<Quad>;         // [matrices, panels, k, 64]
@group(0) @binding(3) var<storage, read_write> y: array<Quad>;   // [slices, batch, m, n]

// Four rows of the result: the columns of each lane in the left and in the right half of the tile.
struct Rows {
    l0: vec4<f32>, l1: vec4<f32>, l2: vec4<f32>, l3: vec4<f32>,
    r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>,
}

fn product(b: mat4x4<f32>, v: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return fma(b[3], v.wwww, fma(b[2], v.zzzz, fma(b[1], v.yyyy, fma(b[0], v.xxxx, s))));
}

// Adds the products of the four rows of A that lane `owner` holds.
fn add_products(rows: Rows, a: mat4x4<f32>, left: mat4x4<f32>, right: mat4x4<f32>, owner: u32) -> Rows {
    let v = transpose(mat4x4<f32>(subgroupShuffle(a[0], owner), subgroupShuffle(a[1], owner),
                                  subgroupShuffle(a[2], owner), subgroupShuffle(a[3], owner)));
    return Rows(product(left, v[0], rows.l0), product(left, v[1], rows.l1),
                product(left, v[2], rows.l2), product(left, v[3], rows.l3),
                product(right, v[0], rows.r0), product(right, v[1], rows.r1),
                product(right, v[2], rows.r2), product(right, v[3], rows.r3));
}

struct Place { matrix: u32, row: u32, column: u32 }

fn put_row(p: Place, row: u32, left: vec4<f32>, right: vec4<f32>) {
    let at = ((p.matrix * params.m + row) * params.n + p.column) / 4u;
    if row < params.m && p.column < params.n { y[at] = quad_of(left); }
    if row < params.m && p.column + 32u < params.n { y[at + 8u] = quad_of(right); }
}

fn put_rows(p: Place, row: u32, s: Rows) {
    put_row(p, p.row + row, s.l0, s.r0);
    put_row(p, p.row + row + 1u, s.l1, s.r1);
    put_row(p, p.row + row + 2u, s.l2, s.r2);
    put_row(p, p.row + row + 3u, s.l3, s.r3);
}

@compute @workgroup_size(8)
fn packed(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(subgroup_invocation_id) lane: u32) {
    let group = linear_group(params.first_group, id, n);
    if group >= params.groups { return; }
    // Rows first: a panel of B stays in the cache while those of A pass by.
    let columns = (params.n + 63u) / 64u;
    let rows = (params.m + 31u) / 32u;
    let matrix = group / (rows * columns);
    let row = group % rows;
    let column = group / rows % columns;
    let first = matrix / params.batch * params.slice_k;
    let end = min(params.k, first + params.slice_k);
    var at_a = matrix % params.batch * params.a_stride + (row * params.k + first) * 8u + lane;
    var at_b = matrix % params.batch * params.b_stride + (column * params.k + first) * 16u + lane;
    var s0: Rows; var s1: Rows; var s2: Rows; var s3: Rows;
    var s4: Rows; var s5: Rows; var s6: Rows; var s7: Rows;
    for (var k = first; k < end; k += 4u) {
        let va = mat4x4<f32>(four(a[at_a]), four(a[at_a + 8u]), four(a[at_a + 16u]), four(a[at_a + 24u]));
        let left = mat4x4<f32>(four(b[at_b]), four(b[at_b + 16u]), four(b[at_b + 32u]), four(b[at_b + 48u]));
        let right = mat4x4<f32>(four(b[at_b + 8u]), four(b[at_b + 24u]), four(b[at_b + 40u]), four(b[at_b + 56u]));
        at_a += 32u;
        at_b += 64u;
        s0 = add_products(s0, va, left, right, 0u);
        s1 = add_products(s1, va, left, right, 1u);
        s2 = add_products(s2, va, left, right, 2u);
        s3 = add_products(s3, va, left, right, 3u);
        s4 = add_products(s4, va, left, right, 4u);
        s5 = add_products(s5, va, left, right, 5u);
        s6 = add_products(s6, va, left, right, 6u);
        s7 = add_products(s7, va, left, right, 7u);
    }
    let p = Place(matrix, row * 32u, column * 64u + 4u * lane);
    put_rows(p, 0u, s0);
    put_rows(p, 4u, s1);
    put_rows(p, 8u, s2);
    put_rows(p, 12u, s3);
    put_rows(p, 16u, s4);
    put_rows(p, 20u, s5);
    put_rows(p, 24u, s6);
    put_rows(p, 28u, s7);
}
