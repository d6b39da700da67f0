// Four elements of an operand of dense/matmul, f32.
alias Operand = Quad;

fn operand(q: Operand) -> vec4<f32> {
    return four(q);
}
