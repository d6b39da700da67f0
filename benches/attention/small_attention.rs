use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    // DuoFormer's regions; windows of 49 tokens; a masked autoencoder's small decoder.
    for (instances, tokens, heads, head_dim) in [(49, 86, 12, 64), (64, 49, 3, 32), (8, 128, 6, 32)] {
        let instances = b.size(instances, instances * 8);
        let config = SmallAttentionConfig { instances, tokens, heads, head_dim, ..Default::default() };
        let count = instances * tokens * heads * head_dim;
        let shape = format!("[{instances}, {tokens}, {heads}, {head_dim}]");
        let (q, k, v) = (b.noise(count)?, b.noise(count)?, b.noise(count)?);
        let (o, dout, dq) = (b.zeros(count)?, b.noise(count)?, b.zeros(count)?);
        let (dk, dv, lse) = (b.zeros(count)?, b.zeros(count)?, b.zeros(instances * tokens * heads)?);
        let [q, k, v, o, dout, dq, dk, dv, lse] =
            [&q, &k, &v, &o, &dout, &dq, &dk, &dv, &lse].map(BufferView::new);
        let mask = None;
        let forward = SmallAttentionForward::new(&context, config)?;
        b.row(&forward, "forward", &shape, &SmallAttentionForwardArgs { q, k, v, mask, o, lse })?;
        let backward = SmallAttentionBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let scratch = &scratch;
        let args = SmallAttentionBackwardArgs { q, k, v, mask, o, lse, dout, dq, dk, dv, scratch };
        b.row(&backward, "backward", &shape, &args)?;
    }
    Ok(())
}
