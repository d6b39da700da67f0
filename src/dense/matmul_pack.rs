//! Operands of large matrix products laid into panels (`shaders/dense/matmul_pack.wgsl`).

use crate::dispatch::{Capabilities, Constants, Cost, Launch, Result, Shader, count, read, shader, write};

macro_rules! pack {
    ($operands:ident) => {
        shader!(
            "dense/matmul_pack",
            "pack",
            [index, quads, $operands],
            [read("x").vec4(), write("panels").vec4()]
        )
    };
}

/// Of f32 and of f16.
static PACK: [Shader; 2] = [pack!(operands), pack!(operands_stored)];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    k: u32,
    width: u32,
    matrices: u32,
}

/// `matrices` operands of `k` rows and `width` columns each, as the product sees them.
pub(super) struct Operand {
    pub k: u32,
    pub width: u32,
    pub matrices: u32,
    /// Stored as `[width, k]`.
    pub along_k: bool,
    pub half: bool,
    /// Columns of a panel.
    pub panel: u32,
}

impl Operand {
    /// f32 of the panels of one matrix.
    pub fn stride(&self) -> Result<u32> {
        count("panels", &[self.width.div_ceil(self.panel), self.k.next_multiple_of(4), self.panel])
    }

    /// f32 of all panels.
    pub fn elements(&self) -> Result<u32> {
        count("panels", &[self.matrices, self.stride()?])
    }

    /// Its cost is that of another way to the same product: the product needs none of it.
    pub fn launch(&self, caps: &Capabilities) -> Result<Launch> {
        let params = Params { k: self.k, width: self.width, matrices: self.matrices };
        let constants = Constants::new()
            .float("Storage", self.half)
            .bool("ALONG_K", self.along_k)
            .u32("PANEL", self.panel);
        let groups = u64::from(self.elements()?).div_ceil(16 * 64);
        Launch::new(&PACK[usize::from(self.half)], constants, &params, groups, caps, Cost::new(0, 0))
    }
}
