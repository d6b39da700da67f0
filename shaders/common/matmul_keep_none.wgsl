// Does not keep what goes into the activation.
fn keep(at: u32, count: u32, z: vec4<f32>) {}
