// The buffers of attention/small_attention and attention/window_attention for any dimension of a head.
alias Element = Storage;
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
    return (row * params.heads + head) * D + 4u * c;
}

// Four elements of a row of a head; 0 where there is no such row, and beyond the last.
fn get_q(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE {
        let at = element(row, head, c);
        x.x = f32(q[at]);
        if 4u * c + 1u < D { x.y = f32(q[at + 1u]); }
        if 4u * c + 2u < D { x.z = f32(q[at + 2u]); }
        if 4u * c + 3u < D { x.w = f32(q[at + 3u]); }
    }
    return x;
}

fn get_k(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE {
        let at = element(row, head, c);
        x.x = f32(k[at]);
        if 4u * c + 1u < D { x.y = f32(k[at + 1u]); }
        if 4u * c + 2u < D { x.z = f32(k[at + 2u]); }
        if 4u * c + 3u < D { x.w = f32(k[at + 3u]); }
    }
    return x;
}

fn get_v(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE {
        let at = element(row, head, c);
        x.x = f32(v[at]);
        if 4u * c + 1u < D { x.y = f32(v[at + 1u]); }
        if 4u * c + 2u < D { x.z = f32(v[at + 2u]); }
        if 4u * c + 3u < D { x.w = f32(v[at + 3u]); }
    }
    return x;
}

fn get_dout(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE {
        let at = element(row, head, c);
        x.x = f32(dout[at]);
        if 4u * c + 1u < D { x.y = f32(dout[at + 1u]); }
        if 4u * c + 2u < D { x.z = f32(dout[at + 2u]); }
        if 4u * c + 3u < D { x.w = f32(dout[at + 3u]); }
    }
    return x;
}

fn get_o_in(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE {
        let at = element(row, head, c);
        x.x = f32(o_in[at]);
        if 4u * c + 1u < D { x.y = f32(o_in[at + 1u]); }
        if 4u * c + 2u < D { x.z = f32(o_in[at + 2u]); }
        if 4u * c + 3u < D { x.w = f32(o_in[at + 3u]); }
    }
    return x;
}

fn get_dout_in(row: u32, head: u32, c: u32) -> vec4<f32> {
    var x: vec4<f32>;
    if row != NONE {
        let at = element(row, head, c);
        x.x = f32(dout_in[at]);
        if 4u * c + 1u < D { x.y = f32(dout_in[at + 1u]); }
        if 4u * c + 2u < D { x.z = f32(dout_in[at + 2u]); }
        if 4u * c + 3u < D { x.w = f32(dout_in[at + 3u]); }
    }
    return x;
}

fn put_o(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        o[at] = Storage(x.x);
        if 4u * c + 1u < D { o[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { o[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { o[at + 3u] = Storage(x.w); }
    }
}

fn put_dq(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        dq[at] = Storage(x.x);
        if 4u * c + 1u < D { dq[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { dq[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { dq[at + 3u] = Storage(x.w); }
    }
}

fn put_dk(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        dk[at] = Storage(x.x);
        if 4u * c + 1u < D { dk[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { dk[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { dk[at + 3u] = Storage(x.w); }
    }
}

fn put_dv(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        dv[at] = Storage(x.x);
        if 4u * c + 1u < D { dv[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { dv[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { dv[at + 3u] = Storage(x.w); }
    }
}

fn put_dq_pad(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        dq_pad[at] = Storage(x.x);
        if 4u * c + 1u < D { dq_pad[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { dq_pad[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { dq_pad[at + 3u] = Storage(x.w); }
    }
}

fn put_dk_pad(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        dk_pad[at] = Storage(x.x);
        if 4u * c + 1u < D { dk_pad[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { dk_pad[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { dk_pad[at + 3u] = Storage(x.w); }
    }
}

fn put_dv_pad(row: u32, head: u32, c: u32, x: vec4<f32>) {
    if row != NONE {
        let at = element(row, head, c);
        dv_pad[at] = Storage(x.x);
        if 4u * c + 1u < D { dv_pad[at + 1u] = Storage(x.y); }
        if 4u * c + 2u < D { dv_pad[at + 2u] = Storage(x.z); }
        if 4u * c + 3u < D { dv_pad[at + 3u] = Storage(x.w); }
    }
}
