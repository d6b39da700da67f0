// The rows of two matrices side by side, plus a bias, and the transpose.
//
//   concatenate:  y_r = [a_r, b_r] + bias        a: [rows, A], b: [rows, B], y: [rows, A + B]
//   split:        [da_r, db_r] = dy_r            (dbias, the sum of dy over the rows, is dense/reduce)
//
// One invocation an element of y, or four where A and B are multiples of 4. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,     // of y, in Floats
    first: u32,     // A and B, in Floats
    second: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<Stored>;             // [rows, A]
@group(0) @binding(2) var<storage, read> b: array<Stored>;             // [rows, B]
@group(0) @binding(3) var<storage, read> bias: array<Stored>;          // [A + B]; without BIAS not read
@group(0) @binding(4) var<storage, read_write> y: array<Stored>;       // [rows, A + B]
@group(0) @binding(1) var<storage, read> dy: array<Stored>;            // [rows, A + B]
@group(0) @binding(2) var<storage, read_write> da: array<Stored>;      // [rows, A]
@group(0) @binding(3) var<storage, read_write> db: array<Stored>;      // [rows, B]

@compute @workgroup_size(WORKGROUP)
fn concatenate(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count { return; }
    let width = params.first + params.second;
    let row = i / width;
    let column = i % width;
    var v: Floats;
    if column < params.first {
        v = unpacked(a[row * params.first + column]);
    } else {
        v = unpacked(b[row * params.second + column - params.first]);
    }
    if BIAS { v += unpacked(bias[column]); }
    y[i] = packed(v);
}

@compute @workgroup_size(WORKGROUP)
fn split(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count { return; }
    let width = params.first + params.second;
    let row = i / width;
    let column = i % width;
    if column < params.first {
        da[row * params.first + column] = dy[i];
    } else {
        db[row * params.second + column - params.first] = dy[i];
    }
}
