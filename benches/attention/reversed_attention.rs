use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    // The tokens of a picture in DependencyViT's small model, and more.
    for (heads, n, head_dim) in [(12, 196, 32), (b.size(4, 16), 1024, 64)] {
        let config = AttentionConfig { heads, queries: n, keys: n, head_dim, ..Default::default() };
        let shape = format!("{heads} x {n} x {head_dim}");
        let len = heads * n * head_dim;
        let (q, k, v, o, d_o) = (b.noise(len)?, b.noise(len)?, b.noise(len)?, b.zeros(len)?, b.noise(len)?);
        let (dq, dk, dv) = (b.zeros(len)?, b.zeros(len)?, b.zeros(len)?);
        let (w, dw, lse) = (b.noise(heads * n)?, b.zeros(heads * n)?, b.zeros(heads * n)?);
        let [q, k, v, o, d_o, dq, dk, dv, weights, d_weights, lse] =
            [&q, &k, &v, &o, &d_o, &dq, &dk, &dv, &w, &dw, &lse].map(BufferView::new);
        let inputs = AttentionInputs::new(q, k, v);
        let gradients = AttentionGradients::new(dq, dk, dv);
        let forward = ReversedAttentionForward::new(&context, config)?;
        let scratch = forward.create_scratch()?;
        let args = ReversedAttentionForwardArgs { inputs, weights, o, lse, scratch: &scratch };
        b.row(&forward, "forward", &shape, &args)?;
        let backward = ReversedAttentionBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args = ReversedAttentionBackwardArgs {
            inputs,
            weights,
            lse,
            d_o,
            gradients,
            d_weights,
            scratch: &scratch,
        };
        b.row(&backward, "backward", &shape, &args)?;
    }
    Ok(())
}
