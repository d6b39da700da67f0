// The buffers of attention/small_attention and attention/window_attention where a head's dimension is a
// multiple of 4: one load instead of four.
alias Element = vec4<Storage>;
@group(0) @binding(1) var<storage, read> q: array<Element>;  // [rows + 1, heads, D]; row `rows` is unused
@group(0) @binding(2) var<storage, read> k: array<Element>;  // [rows + 1, heads, D]; row `rows` is padding's
@group(0) @binding(3) var<storage, read> v: array<Element>;  // [rows + 1, heads, D]
@group(0) @binding(5) var<storage, read> dout: array<Element>;  // [rows, heads, D]; forward: not read
@group(0) @binding(1) var<storage, read> o_in: array<Element>;  // [rows, heads, D]
@group(0) @binding(2) var<storage, read> dout_in: array<Element>;  // [rows, heads, D]
@group(0) @binding(7) var<storage, read_write> o: array<Element>;  // [rows, heads, D]
@group(0) @binding(7) var<storage, read_write> dq: array<Element>;  // as q
@group(0) @binding(7) var<storage, read_write> dk: array<Element>;  // as k
@group(0) @binding(8) var<storage, read_write> dv: array<Element>;  // as v
@group(0) @binding(2) var<storage, read_write> dq_pad: array<Element>;  // as q
@group(0) @binding(3) var<storage, read_write> dk_pad: array<Element>;  // as k
@group(0) @binding(4) var<storage, read_write> dv_pad: array<Element>;  // as v

fn element(row: u32, head: u32, c: u32) -> u32 {
    return (row * params.heads + head) * D4 + c;
}

// Four elements of a row of a head; 0 where there is no such row.
fn get_q(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE { x = vec4<f32>(q[element(row, head, c)]); }
    return x;
}

fn get_k(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE { x = vec4<f32>(k[element(row, head, c)]); }
    return x;
}

fn get_v(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE { x = vec4<f32>(v[element(row, head, c)]); }
    return x;
}

fn get_dout(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE { x = vec4<f32>(dout[element(row, head, c)]); }
    return x;
}

fn get_o_in(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE { x = vec4<f32>(o_in[element(row, head, c)]); }
    return x;
}

fn get_dout_in(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE { x = vec4<f32>(dout_in[element(row, head, c)]); }
    return x;
}

fn put_o(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { o[element(row, head, c)] = Element(x); }
}

fn put_dq(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { dq[element(row, head, c)] = Element(x); }
}

fn put_dk(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { dk[element(row, head, c)] = Element(x); }
}

fn put_dv(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { dv[element(row, head, c)] = Element(x); }
}

fn put_dq_pad(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { dq_pad[element(row, head, c)] = Element(x); }
}

fn put_dk_pad(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { dk_pad[element(row, head, c)] = Element(x); }
}

fn put_dv_pad(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE { dv_pad[element(row, head, c)] = Element(x); }
}
