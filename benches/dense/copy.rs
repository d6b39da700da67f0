use patchfield::dense::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let shape = format!("[{count}]");
    let (x, y) = (b.noise(count)?, b.zeros(count)?);
    let (x, y) = (BufferView::new(&x), BufferView::new(&y));
    let context = b.context().clone();
    let variant = None;
    let fill = Fill::new(&context, FillConfig { count, value: 7, variant })?;
    b.row(&fill, "fill", &shape, &FillArgs { y })?;
    let copy = CopyWords::new(&context, CopyConfig { count, variant })?;
    b.row(&copy, "copy", &shape, &CopyArgs { x, y })?;
    for (what, conversion) in [("f32 to f16", Conversion::Narrow), ("f16 to f32", Conversion::Widen)] {
        let convert = Convert::new(&context, ConvertConfig { count, conversion, variant })?;
        b.row(&convert, what, &shape, &ConvertArgs { x, y })?;
    }
    // b = 0.5 keeps the sum finite over any number of runs.
    let add = Add::new(&context, AddConfig { count, a: 1.0, b: 0.5, variant })?;
    b.row(&add, "a x + b y", &shape, &AddArgs { x, y })
}
