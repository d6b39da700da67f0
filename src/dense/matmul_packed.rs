//! Matrix products of packed operands (`shaders/dense/matmul_packed.wgsl`).

use super::matmul::MatmulConfig;
use super::matmul_pack::Operand;
use crate::dispatch::{Capabilities, Constants, Cost, Launch, Result, Shader, read, shader, write};

static PACKED: Shader = shader!(
    "dense/matmul_packed",
    "packed",
    [index, quads],
    [read("a").vec4(), read("b").vec4(), write("y").vec4()]
);

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    batch: u32,
    a_stride: u32,
    b_stride: u32,
    slices: u32,
    slice_k: u32,
}

/// Two launches that pack A and B and one that multiplies them, and the bytes of the packed A and B.
/// The sums are neither scaled nor added to anything.
pub(super) fn plan(
    config: &MatmulConfig,
    slices: u32,
    slice_k: u32,
    cost: Cost,
    caps: &Capabilities,
) -> Result<(Vec<Launch>, Vec<u64>)> {
    let matrices = |shared: bool| if shared { 1 } else { config.batch };
    let a = Operand {
        k: config.k,
        width: config.m,
        matrices: matrices(config.share_a),
        along_k: !config.transpose_a,
        half: config.half,
        panel: 32,
    };
    let b = Operand {
        k: config.k,
        width: config.n,
        matrices: matrices(config.share_b),
        along_k: config.transpose_b,
        half: config.half,
        panel: 64,
    };
    let params = Params {
        m: config.m,
        n: config.n,
        k: config.k.next_multiple_of(4),
        batch: config.batch,
        a_stride: if config.share_a { 0 } else { a.stride()? / 4 },
        b_stride: if config.share_b { 0 } else { b.stride()? / 4 },
        slices,
        slice_k,
    };
    let tiles = u64::from(config.m.div_ceil(a.panel)) * u64::from(config.n.div_ceil(b.panel));
    let groups = u64::from(config.batch) * u64::from(slices) * tiles;
    let product = Launch::new(&PACKED, Constants::new().subgroups(), &params, groups, caps, cost)?;
    let bytes = |operand: &Operand| operand.elements().map(|elements| u64::from(elements) * 4);
    Ok((vec![a.launch(caps)?, b.launch(caps)?, product], vec![bytes(&a)?, bytes(&b)?]))
}
