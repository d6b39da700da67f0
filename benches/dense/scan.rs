use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let (x, y) = (b.noise(count)?, b.zeros(count)?);
    let context = b.context().clone();
    for element in [ScanElement::F32, ScanElement::U32] {
        let config = ScanConfig { element, count, exclusive: false, reverse: false };
        let scan = Scan::new(&context, config)?;
        let scratch = scan.create_scratch()?;
        let args = ScanArgs { x: BufferView::new(&x), y: BufferView::new(&y), scratch: &scratch };
        b.row(&scan, &format!("{element:?}"), format!("[{count}]"), &args)?;
    }
    Ok(())
}
