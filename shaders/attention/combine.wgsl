// Rows times a weight each, and the gradients: what combines the outputs of experts, between
// gathers and sums of rows by index.
//
//   weigh:           y_sc = w_s x_sc                                     x, y: [rows, width], w: [rows]
//   weigh_backward:  dx_sc = w_s dy_sc,  dw_s = sum_c x_sc dy_sc         dx, dy: [rows, width], dw: [rows]
//
// weigh: one invocation an item (one element, or four). weigh_backward: one invocation a row adds up
// dw; a workgroup of 8 keeps the rows of few experts busy. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    rows: u32,
    width: u32,       // in items
    count: u32,       // items, or rows
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<f32>;               // [rows]
@group(0) @binding(2) var<storage, read> x: array<Floats>;                 // [rows, width]
@group(0) @binding(3) var<storage, read_write> y: array<Floats>;           // [rows, width]
@group(0) @binding(3) var<storage, read> dy: array<Floats>;                // [rows, width]
@group(0) @binding(4) var<storage, read_write> dx: array<Floats>;          // [rows, width]
@group(0) @binding(5) var<storage, read_write> dweight: array<f32>;        // [rows]

@compute @workgroup_size(64)
fn weigh(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * 64u + local;
    if group < params.groups && i < params.count {
        y[i] = weight[i / params.width] * x[i];
    }
}

@compute @workgroup_size(8)
fn weigh_backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let row = group * 8u + local;
    if group < params.groups && row < params.rows {
        let w = weight[row];
        var sum = Floats();
        for (var c = 0u; c < params.width; c++) {
            let i = row * params.width + c;
            let d = dy[i];
            sum += x[i] * d;
            dx[i] = w * d;
        }
        dweight[row] = lanes_sum(sum);
    }
}
