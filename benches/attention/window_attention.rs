use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    // The first and third stage of NeRF-MAE's Swin-S, and the first of Swin-T on a picture of 224^2.
    for (grid, window, shift, heads) in
        [([40; 3], [4; 3], [2; 3], 3), ([10; 3], [4; 3], [2; 3], 12), ([1, 56, 56], [1, 7, 7], [0, 3, 3], 3)]
    {
        let config = WindowAttentionConfig { grid, window, shift, heads, ..Default::default() };
        let cells: u32 = grid.iter().product();
        let count = (cells + u32::from(config.is_padded())) * heads * config.head_dim;
        let shape = format!("{grid:?} by {window:?}, {heads} heads of {}", config.head_dim);
        let (q, k, v) = (b.noise(count)?, b.noise(count)?, b.noise(count)?);
        let (o, dout, dq) = (b.zeros(count)?, b.noise(count)?, b.zeros(count)?);
        let (dk, dv, lse) = (b.zeros(count)?, b.zeros(count)?, b.zeros(cells * heads)?);
        let table = b.noise(config.table_entries() * heads)?;
        let dtable = b.zeros(config.table_entries() * heads)?;
        let [q, k, v, o, dout, dq, dk, dv, lse] =
            [&q, &k, &v, &o, &dout, &dq, &dk, &dv, &lse].map(BufferView::new);
        let table = Some(BufferView::new(&table));
        let forward = WindowAttentionForward::new(&context, config)?;
        let scratch = forward.create_scratch()?;
        let args = WindowAttentionForwardArgs { q, k, v, table, o, lse, scratch: &scratch };
        b.row(&forward, "forward", &shape, &args)?;
        let backward = WindowAttentionBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args = WindowAttentionBackwardArgs {
            q,
            k,
            v,
            table,
            o,
            lse,
            dout,
            dq,
            dk,
            dv,
            dtable: Some(BufferView::new(&dtable)),
            scratch: &scratch,
        };
        b.row(&backward, "backward", &shape, &args)?;
    }
    Ok(())
}
