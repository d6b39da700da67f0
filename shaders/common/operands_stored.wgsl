// Four elements of an operand of dense/matmul, f16 as `Storage` says.
alias Operand = vec4<Storage>;

fn operand(v: Operand) -> vec4<f32> {
    return vec4<f32>(v);
}
