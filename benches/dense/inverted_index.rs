use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

/// Pairs of random rows; as many lists as a small field has centres, and as many as a large one.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let n = b.size(1 << 18, 1 << 20);
    for rows in [2809, 1 << 16] {
        let index: Vec<u32> = (0..n).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 7) % rows).collect();
        let index = b.upload(bytemuck::cast_slice(&index))?;
        let (order, starts) = (b.zeros(n)?, b.zeros(rows + 1)?);
        let kernel = InvertedIndex::new(&context, InvertedIndexConfig { rows, n })?;
        let scratch = kernel.create_scratch()?;
        let args = InvertedIndexArgs {
            index: BufferView::new(&index),
            order: BufferView::new(&order),
            starts: BufferView::new(&starts),
            scratch: &scratch,
        };
        b.row(&kernel, "lists", format!("[{n}] {rows} rows"), &args)?;
    }
    Ok(())
}
