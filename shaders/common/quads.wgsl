// Four floats as they lie in a buffer. Where a load takes as long as it has numbers, the dispatcher puts
// quads_wide.wgsl in the place of this file.
alias Quad = vec4<f32>;

fn four(q: Quad) -> vec4<f32> {
    return q;
}

fn quad_of(v: vec4<f32>) -> Quad {
    return v;
}
