// Activations of items of one element each; needs scalars.wgsl and activation.wgsl.

fn activate_each(x: Floats, p: f32) -> Floats {
    return activate(x, p);
}

fn derivative_each(x: Floats, p: f32) -> Floats {
    return activate_derivative(x, p);
}

fn second_derivative_each(x: Floats, p: f32) -> Floats {
    return activate_second_derivative(x, p);
}
