use patchfield::dense::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    for width in [24, 768] {
        let (a, c) = (b.elements() / 4 / 32 / width, 32);
        let (x, y) = (b.noise(a * c * width)?, b.zeros(a * c * width)?);
        let kernel = SwapAxes::new(&context, SwapAxesConfig { a, b: c, width })?;
        let args = SwapAxesArgs { x: BufferView::new(&x), y: BufferView::new(&y) };
        b.row(&kernel, "swap", format!("[{a}, {c}, {width}]"), &args)?;
    }
    Ok(())
}
