// Rotary positions (Su et al. 2021, section 3.2.2): the pairs of a head's first `rotary` elements are
// turned by angles of the token. The inverse turn is the gradient.
//
//   y_e = x_e cos_e + x_p(e) sin_e,  p(e) = the other element of the pair of e
//   table: [tokens, 2, rotary]: the cosine of each element's angle, then the sine with its sign
//   (minus for the first element of a pair)
//   x, y: [batch, tokens, heads, dim] or [batch, heads, tokens, dim]
//   pairs: (e, e + rotary / 2), or (2 k, 2 k + 1). Elements from `rotary` on, and heads from
//   `rotated` on, are copied.
//
// An invocation one item: one element, or four. Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,
    dim: u32,         // in items, as are rotary and half
    rotary: u32,
    half: u32,
    heads: u32,
    rotated: u32,
    tokens: u32,
    sign: f32,        // -1 for the inverse
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Floats>;            // [batch, tokens, heads, dim]
@group(0) @binding(2) var<storage, read> table: array<Floats>;        // [tokens, 2, rotary]
@group(0) @binding(3) var<storage, read_write> y: array<Floats>;      // as x

@compute @workgroup_size(WORKGROUP)
fn rotate(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.items {
        return;
    }
    let vector = i / params.dim;
    let e = i - vector * params.dim;
    var head = vector % params.heads;
    var token = vector / params.heads % params.tokens;
    if HEADS_FIRST {
        token = vector % params.tokens;
        head = vector / params.tokens % params.heads;
    }
    let v = x[i];
    if e >= params.rotary || head >= params.rotated {
        y[i] = v;
        return;
    }
    var other = v;
    if INTERLEAVED {
        other = swap(i, e, v);
    } else {
        other = x[select(i - params.half, i + params.half, e < params.half)];
    }
    let at = token * 2u * params.rotary + e;
    y[i] = v * table[at] + other * (params.sign * table[at + params.rotary]);
}
