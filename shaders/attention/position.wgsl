// Learned (or fixed) positions added to tokens, with tokens put before them.
//
//   y[b, t] = prefix[t] + table[t]       for t < prefix
//   y[b, t] = x[b, t - prefix] + table[t]  else
//   x: [batch, tokens - prefix, width]; prefix: [prefix, width]; table: [tokens, width];
//   y: [batch, tokens, width]
//   backward: dtable[t] = sum over b of dy[b, t], whose first rows are the gradient of `prefix`;
//             dx[b, t - prefix] = dy[b, t]
//
// forward: an invocation one item of y. backward: an invocation owns an item of the table and walks the
// images of a launch: no atomics. An item is one element, or four where the width is a multiple of 4.
// Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,       // of the launch
    end: u32,         // backward: where the launch's images end
    first: u32,       // and where they begin
    image: u32,       // items of one image's y, and of the table
    prefix: u32,      // items of the tokens before
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Floats>;               // [batch, tokens - prefix, width]
@group(0) @binding(2) var<storage, read> prefix: array<Floats>;          // [prefix, width]
@group(0) @binding(3) var<storage, read> table: array<Floats>;           // [tokens, width]
@group(0) @binding(4) var<storage, read_write> y: array<Floats>;         // [batch, tokens, width]
@group(0) @binding(1) var<storage, read> dy: array<Floats>;              // [batch, tokens, width]
@group(0) @binding(2) var<storage, read_write> dtable: array<Floats>;    // [tokens, width]
@group(0) @binding(3) var<storage, read_write> dx: array<Floats>;        // [batch, tokens - prefix, width]

@compute @workgroup_size(WORKGROUP)
fn forward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.items {
        return;
    }
    let b = i / params.image;
    let at = i - b * params.image;
    if at < params.prefix {
        y[i] = prefix[at] + table[at];
    } else {
        y[i] = x[i - (b + 1u) * params.prefix] + table[at];
    }
}

@compute @workgroup_size(WORKGROUP)
fn backward(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let at = group * WORKGROUP + local;
    if group >= params.groups || at >= params.items {
        return;
    }
    var sum = Floats();
    if params.first > 0u { sum = dtable[at]; }
    for (var b = params.first; b < params.end; b++) {
        let i = b * params.image + at;
        let g = dy[i];
        sum += g;
        if at >= params.prefix {
            dx[i - (b + 1u) * params.prefix] = g;
        }
    }
    dtable[at] = sum;
}
