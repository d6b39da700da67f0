use patchfield::attention::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let (tokens, heads, dim) = (196, 12, 64);
    let batch = b.elements() / 2 / (tokens * heads * dim);
    for pairs in [RotaryPairs::Interleaved, RotaryPairs::Halves] {
        let config = RotaryConfig {
            batch,
            tokens,
            heads,
            rotated: heads,
            dim,
            rotary: dim,
            pairs,
            layout: HeadLayout::TokensFirst,
            inverse: false,
        };
        let n = batch * tokens * heads * dim;
        let (x, y, table) = (b.noise(n)?, b.zeros(n)?, b.noise(tokens * 2 * dim)?);
        let [x, y, table] = [&x, &y, &table].map(BufferView::new);
        let shape = format!("[{batch}, {tokens}, {heads}, {dim}]");
        let kernel = Rotary::new(b.context(), config)?;
        b.row(&kernel, &format!("{pairs:?}"), shape, &RotaryArgs { x, table, y })?;
    }
    Ok(())
}
