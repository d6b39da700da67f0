// Random numbers and random permutations; element i depends on seed, step, stream and i alone.
//
//   fill:         four elements an invocation, from philox(counter = [first_block + i / 4, stream,
//                 step0, step1], key = [seed0, seed1]); KIND 0 bits, 1 uniform in [0, 1), 2 uniform
//                 in [-1, 1), 3 standard normal (pairs from words 0, 1 and 2, 3); times `scale`
//   permutation:  one element an invocation: y[row, i] = permutation_row(i); the eight round keys of
//                 a row come from counters 2^31 + 2 row and 2^31 + 2 row + 1
//
// Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    count: u32,         // elements
    stream: u32,
    first_block: u32,
    n: u32,             // elements of a permutation
    side: u32,          // ceil(sqrt n)
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<u32>;         // [4]: seed0, seed1, step0, step1
@group(0) @binding(2) var<storage, read_write> y: array<u32>;       // [count], or [rows, n]

fn words(block: u32) -> vec4<u32> {
    return philox4x32(vec4<u32>(block, params.stream, state[2], state[3]), vec2<u32>(state[0], state[1]));
}

@compute @workgroup_size(WORKGROUP)
fn fill(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let block = group * WORKGROUP + local;
    // Blocks, not elements: four times a block may pass 2^32.
    if group >= params.groups || block > (params.count - 1u) / 4u {
        return;
    }
    var w = words(params.first_block + block);
    switch KIND {
        case 1u: {
            w = bitcast<vec4<u32>>(params.scale * vec4<f32>(uniform_from_bits(w.x), uniform_from_bits(w.y),
                                                            uniform_from_bits(w.z), uniform_from_bits(w.w)));
        }
        case 2u: {
            w = bitcast<vec4<u32>>(params.scale * vec4<f32>(symmetric_from_bits(w.x), symmetric_from_bits(w.y),
                                                            symmetric_from_bits(w.z), symmetric_from_bits(w.w)));
        }
        case 3u: {
            w = bitcast<vec4<u32>>(params.scale * vec4<f32>(normal_pair(w.x, w.y), normal_pair(w.z, w.w)));
        }
        default: {}
    }
    let i = block * 4u;
    let left = params.count - i;
    y[i] = w.x;
    if left > 1u { y[i + 1u] = w.y; }
    if left > 2u { y[i + 2u] = w.z; }
    if left > 3u { y[i + 3u] = w.w; }
}

@compute @workgroup_size(WORKGROUP)
fn permutation(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.count {
        return;
    }
    let row = i / params.n;
    let block = 0x80000000u + 2u * row;
    y[i] = permute(i % params.n, params.n, params.side, words(block), words(block + 1u));
}
