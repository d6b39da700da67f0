// Filling, copying, converting and adding whole arrays.
//
//   fill:     y = value                     any 32-bit words, y: [count]
//   copy:     y = x                         any 32-bit words, x, y: [count]
//   narrow:   y = f16(x)                    x: [count] f32, y: [count] f16, two to a word
//   widen:    y = f32(x)                    x: [count] f16, y: [count] f32
//   add:      y = a x + b y                 f32; where b = 0, y is not read: no NaN survives
//
// One invocation computes one element (scalar; a word of two for narrow and widen) or four (vec4,
// where `count` is a multiple of 4). Words are moved as integers, so that NaN payloads survive.
// Workgroup memory: 0 bytes.
// Versions: scalar; vec4 (a fourth of the loads and stores).

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,   // what the invocations do one each of: elements, words of two halves, or vec4s
    count: u32,   // elements
    value: u32,   // fill
    a: f32,       // add
    b: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> filled: array<u32>;         // [count]
@group(0) @binding(1) var<storage, read_write> filled4: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<u32>;                    // [count], or [count / 2] words of two halves
@group(0) @binding(1) var<storage, read> x2: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> x4: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;              // as x
@group(0) @binding(2) var<storage, read_write> y2: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> term: array<f32>;                 // [count]
@group(0) @binding(1) var<storage, read> term4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;          // [count]
@group(0) @binding(2) var<storage, read_write> total4: array<vec4<f32>>;

// The item of this invocation; `items` or more where there is nothing to do.
fn item(id: vec3<u32>, n: vec3<u32>, local: u32) -> u32 {
    let group = linear_group(params.first_group, id, n);
    return select(params.items, group * WORKGROUP + local, group < params.groups);
}

@compute @workgroup_size(WORKGROUP)
fn fill(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        filled[i] = params.value;
    }
}

@compute @workgroup_size(WORKGROUP)
fn fill_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        filled4[i] = vec4<u32>(params.value);
    }
}

@compute @workgroup_size(WORKGROUP)
fn copy(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        y[i] = x[i];
    }
}

@compute @workgroup_size(WORKGROUP)
fn copy_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        y4[i] = x4[i];
    }
}

fn pack(low: u32, high: u32) -> u32 {
    return half_from_float_bits(low) | (half_from_float_bits(high) << 16u);
}

@compute @workgroup_size(WORKGROUP)
fn narrow(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        // An odd count leaves half a word, which becomes 0.
        var high = 0u;
        if 2u * i + 1u < params.count {
            high = x[2u * i + 1u];
        }
        y[i] = pack(x[2u * i], high);
    }
}

@compute @workgroup_size(WORKGROUP)
fn narrow_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        let v = x4[i];
        y2[i] = vec2<u32>(pack(v.x, v.y), pack(v.z, v.w));
    }
}

@compute @workgroup_size(WORKGROUP)
fn widen(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        let word = x[i];
        y[2u * i] = half_to_float_bits(word & 0xffffu);
        if 2u * i + 1u < params.count {
            y[2u * i + 1u] = half_to_float_bits(word >> 16u);
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn widen_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        let v = x2[i];
        y4[i] = vec4<u32>(half_to_float_bits(v.x & 0xffffu), half_to_float_bits(v.x >> 16u),
                          half_to_float_bits(v.y & 0xffffu), half_to_float_bits(v.y >> 16u));
    }
}

@compute @workgroup_size(WORKGROUP)
fn add(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        var sum = params.a * term[i];
        if params.b != 0.0 {
            sum += params.b * total[i];
        }
        total[i] = sum;
    }
}

@compute @workgroup_size(WORKGROUP)
fn add_vec4(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item(id, n, local);
    if i < params.items {
        var sum = params.a * term4[i];
        if params.b != 0.0 {
            sum += params.b * total4[i];
        }
        total4[i] = sum;
    }
}
