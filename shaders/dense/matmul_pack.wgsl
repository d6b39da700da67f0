// Copies an operand of dense/matmul_packed into panels, so that the product reads memory in order.
//
// op(X) has `k` rows of `width` columns, both as the product sees them: X is [k, width] or, where it
// lies ALONG_K, [width, k]. A panel is PANEL columns wide: [panels, k, PANEL], in f32; what is outside
// of op(X) is zero, and k is rounded up to a multiple of 4.
// An invocation copies 4 x 4 elements: four loads and four stores. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    k: u32,
    width: u32,
    matrices: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Operand>;
@group(0) @binding(2) var<storage, read_write> panels: array<Quad>;

fn get_x(row: u32, column: u32, rows: u32, columns: u32, matrix: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if row < rows && column < columns { v = operand(x[((matrix * rows + row) * columns + column) / 4u]); }
    return v;
}

// Rows k to k + 3, columns column to column + 3 of op(X).
fn block(k: u32, column: u32, matrix: u32) -> mat4x4<f32> {
    if ALONG_K {
        return transpose(mat4x4<f32>(get_x(column, k, params.width, params.k, matrix),
                                     get_x(column + 1u, k, params.width, params.k, matrix),
                                     get_x(column + 2u, k, params.width, params.k, matrix),
                                     get_x(column + 3u, k, params.width, params.k, matrix)));
    }
    return mat4x4<f32>(get_x(k, column, params.k, params.width, matrix),
                       get_x(k + 1u, column, params.k, params.width, matrix),
                       get_x(k + 2u, column, params.k, params.width, matrix),
                       get_x(k + 3u, column, params.k, params.width, matrix));
}

@compute @workgroup_size(64)
fn pack(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let index = group * 64u + local;
    let quads = PANEL / 4u;
    let k4 = (params.k + 3u) / 4u;
    let panels_a_matrix = (params.width + PANEL - 1u) / PANEL;
    let quad = index % quads;
    let k = index / quads % k4;
    let panel = index / (quads * k4);
    let matrix = panel / panels_a_matrix;
    if group >= params.groups || matrix >= params.matrices { return; }
    let v = block(4u * k, panel % panels_a_matrix * PANEL + 4u * quad, matrix);
    let at = (panel * k4 + k) * PANEL + quad;
    panels[at] = quad_of(v[0]);
    panels[at + quads] = quad_of(v[1]);
    panels[at + 2u * quads] = quad_of(v[2]);
    panels[at + 3u * quads] = quad_of(v[3]);
}
