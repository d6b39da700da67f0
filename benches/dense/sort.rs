use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.size(1 << 20, 1 << 24);
    let keys = b.random(count, Distribution::Bits)?;
    let (keys_out, order) = (b.zeros(count)?, b.zeros(count)?);
    let context = b.context().clone();
    for (what, payload) in [("keys", SortPayload::None), ("argsort", SortPayload::Indices)] {
        let config =
            SortConfig { key: SortKey::U32, count, payload, descending: false, bits: 32, variant: None };
        let sort = Sort::new(&context, config)?;
        let scratch = sort.create_scratch()?;
        let args = SortArgs {
            keys: BufferView::new(&keys),
            keys_out: BufferView::new(&keys_out),
            values: None,
            values_out: (payload != SortPayload::None).then(|| BufferView::new(&order)),
            scratch: &scratch,
        };
        b.row(&sort, what, format!("[{count}]"), &args)?;
    }
    Ok(())
}
