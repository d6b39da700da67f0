//! What kernels of several parts share.

use crate::dense::{Matmul, MatmulArgs, MatmulConfig};
use crate::dispatch::{BufferView, Context, Kernel, Planned, Recording, Result, Scratch, check_shape};

/// A matrix product as a step of another kernel.
pub(super) struct Product {
    kernel: Matmul,
    /// Scratch buffers that it needs.
    pub scratch: usize,
}

impl Product {
    pub fn new(context: &Context, config: MatmulConfig) -> Result<Self> {
        let kernel = Matmul::new(context, config)?;
        let scratch = kernel.planned().scratch.len();
        Ok(Self { kernel, scratch })
    }

    pub fn prepare<'a>(
        &self,
        a: BufferView<'a>,
        b: BufferView<'a>,
        y: BufferView<'a>,
        scratch: &'a Scratch,
    ) -> Result<Recording> {
        self.kernel.prepare(&MatmulArgs { a, b, bias: None, y, kept: None, scratch })
    }
}

/// `Err` unless the buffer is there exactly where the configuration has it.
pub(super) fn given<'a>(
    what: &'static str,
    wanted: bool,
    view: Option<BufferView<'a>>,
) -> Result<Option<BufferView<'a>>> {
    let need = if wanted { "a buffer" } else { "none, as configured" };
    check_shape(wanted == view.is_some(), what, need, view.map(|view| view.size))?;
    Ok(view)
}
