// Images and volumes cut into patches, put together again, and mixed patch by patch.
//
//   patchify:    tokens[b, n, w] = image[b, at(n, w)]        each is the other's inverse, and so its
//   unpatchify:  image[b, at(n, w)] = tokens[b, n, w]        gradient
//   mix:         y[b, at(n, w)] = image[partner(b), at(n, w)] if rank(b, n) < replaced, else
//                image[b, at(n, w)]
//   mix_labels:  y[b, c] = (1 - share) label[b, c] + share label[partner(b), c], share = replaced / N
//   A partner that is not below the batch is the image itself.
//
//   image: [batch, channels, depth, height, width], or [batch, depth, height, width, channels]
//   tokens: [batch, N, P]; patches n row by row, P = patch volume * channels; in a token the channel is
//   the slowest index (as in the weights of a convolution) or the fastest (as in MAE)
//
// An invocation finds the place of one item, which costs divisions, and moves it for `images` images.
// An item is one element, or four where rows of patches are made of whole fours. Any 32-bit words.
// Workgroup memory: 0 bytes.

struct Params {
    first_group: u32,
    groups: u32,
    items: u32,             // of an image; mix_labels: all
    batch: u32,
    images: u32,            // of an invocation
    channels: u32,          // with strides of the image in items:
    channel_stride: u32,
    depth_stride: u32,
    height_stride: u32,
    width_stride: u32,
    patch_depth: u32,       // patch and grid; the fastest axis of a token in items
    patch_height: u32,
    patch_width: u32,
    grid_height: u32,
    grid_width: u32,
    token: u32,             // items of a token
    patches: u32,
    replaced: u32,
    share: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<Words>;             // [batch, ..]
@group(0) @binding(2) var<storage, read_write> tokens: array<Words>;      // [batch, N, P]
@group(0) @binding(1) var<storage, read> tokens_in: array<Words>;         // [batch, N, P]
@group(0) @binding(2) var<storage, read_write> image_out: array<Words>;   // [batch, ..]
@group(0) @binding(3) var<storage, read> partner: array<u32>;             // [batch]
@group(0) @binding(4) var<storage, read> rank: array<u32>;                // [batch, N]
@group(0) @binding(1) var<storage, read> label: array<f32>;               // [batch, classes]
@group(0) @binding(2) var<storage, read_write> label_out: array<f32>;     // [batch, classes]

// Where item `i` of an image's tokens lies in the image.
fn place(i: u32) -> u32 {
    let n = i / params.token;
    var w = i - n * params.token;
    var channel = 0u;
    if CHANNELS_LAST {
        channel = w % params.channels;
        w = w / params.channels;
    }
    let x = w % params.patch_width;
    w = w / params.patch_width;
    let y = w % params.patch_height;
    w = w / params.patch_height;
    let z = w % params.patch_depth;
    if !CHANNELS_LAST {
        channel = w / params.patch_depth;
    }
    let column = n % params.grid_width;
    let rows = n / params.grid_width;
    let row = rows % params.grid_height;
    let slice = rows / params.grid_height;
    return channel * params.channel_stride
        + (slice * params.patch_depth + z) * params.depth_stride
        + (row * params.patch_height + y) * params.height_stride
        + (column * params.patch_width + x) * params.width_stride;
}

// The item of an invocation and its first image.
struct Share {
    item: u32,
    first: u32,
    end: u32,
}

fn share(i: u32) -> Share {
    let part = i / params.items;
    let first = part * params.images;
    return Share(i - part * params.items, first, min(first + params.images, params.batch));
}

@compute @workgroup_size(WORKGROUP)
fn patchify(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let s = share(group * WORKGROUP + local);
    if group >= params.groups || s.first >= s.end {
        return;
    }
    let at = place(s.item);
    for (var b = s.first; b < s.end; b++) {
        tokens[b * params.items + s.item] = image[b * params.items + at];
    }
}

@compute @workgroup_size(WORKGROUP)
fn unpatchify(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let s = share(group * WORKGROUP + local);
    if group >= params.groups || s.first >= s.end {
        return;
    }
    let at = place(s.item);
    for (var b = s.first; b < s.end; b++) {
        image_out[b * params.items + at] = tokens_in[b * params.items + s.item];
    }
}

@compute @workgroup_size(WORKGROUP)
fn mix(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let s = share(group * WORKGROUP + local);
    if group >= params.groups || s.first >= s.end {
        return;
    }
    let at = place(s.item);
    let patch_index = s.item / params.token;
    for (var b = s.first; b < s.end; b++) {
        var other = b;
        if rank[b * params.patches + patch_index] < params.replaced && partner[b] < params.batch {
            other = partner[b];
        }
        image_out[b * params.items + at] = image[other * params.items + at];
    }
}

@compute @workgroup_size(WORKGROUP)
fn mix_labels(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let group = linear_group(params.first_group, id, n);
    let i = group * WORKGROUP + local;
    if group >= params.groups || i >= params.items {
        return;
    }
    let classes = params.token;
    let b = i / classes;
    var other = i;
    if partner[b] < params.batch {
        other = partner[b] * classes + i - b * classes;
    }
    label_out[i] = (1.0 - params.share) * label[i] + params.share * label[other];
}
