// Activations of items of four elements each; needs vectors.wgsl and activation.wgsl.

fn activate_each(x: Floats, p: f32) -> Floats {
    return Floats(activate(x.x, p), activate(x.y, p),
                  activate(x.z, p), activate(x.w, p));
}

fn derivative_each(x: Floats, p: f32) -> Floats {
    return Floats(activate_derivative(x.x, p), activate_derivative(x.y, p),
                  activate_derivative(x.z, p), activate_derivative(x.w, p));
}

fn second_derivative_each(x: Floats, p: f32) -> Floats {
    return Floats(activate_second_derivative(x.x, p), activate_second_derivative(x.y, p),
                  activate_second_derivative(x.z, p), activate_second_derivative(x.w, p));
}
