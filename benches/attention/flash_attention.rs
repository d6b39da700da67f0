use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let base = AttentionConfig { heads: b.size(4, 16), ..Default::default() };
    let square = |n| AttentionConfig { queries: n, keys: n, ..base };
    let bias = AttentionBias::Dense { share_batch: true, share_heads: false };
    let rows = [
        ("", square(256)),
        ("", square(512)),
        ("", square(1024)),
        ("", square(2048)),
        ("", square(4096)),
        ("", AttentionConfig { heads: 12, batch: b.size(1, 16), ..square(197) }),
        (", causal", AttentionConfig { causal: true, ..square(1024) }),
        (", bias", AttentionConfig { bias, bias_gradient: true, ..square(1024) }),
        (", f16", AttentionConfig { half: true, ..square(1024) }),
        (", few queries", AttentionConfig { queries: 32, keys: 8192, ..base }),
    ];
    for (what, config) in rows {
        if config.half && !context.capabilities().f16 {
            continue;
        }
        let AttentionConfig { batch, heads, queries, keys, head_dim, .. } = config;
        let shape = format!("{batch} x {heads} x {queries} x {keys} x {head_dim}");
        let (q_len, k_len) = (batch * heads * queries * head_dim, batch * heads * keys * head_dim);
        let (q, k, v) = (b.noise(q_len)?, b.noise(k_len)?, b.noise(k_len)?);
        let (o, d_o, lse) = (b.zeros(q_len)?, b.noise(q_len)?, b.zeros(batch * heads * queries)?);
        let (dq, dk, dv) = (b.zeros(q_len)?, b.zeros(k_len)?, b.zeros(k_len)?);
        let bias = (config.bias_gradient)
            .then(|| Ok((b.noise(config.bias_count() as u32)?, b.zeros(config.bias_count() as u32)?)))
            .transpose()?;
        let mut inputs = AttentionInputs::new((&q).into(), (&k).into(), (&v).into());
        let mut gradients = AttentionGradients::new((&dq).into(), (&dk).into(), (&dv).into());
        if let Some((bias, d_bias)) = &bias {
            inputs.bias = Some(BufferView::new(bias));
            gradients.bias = Some(BufferView::new(d_bias));
        }
        let (o, lse, d_o) = ((&o).into(), (&lse).into(), (&d_o).into());
        let forward = FlashAttentionForward::new(&context, config)?;
        let scratch = forward.create_scratch()?;
        let args = FlashAttentionForwardArgs { inputs, o, lse, scratch: &scratch };
        b.row(&forward, &format!("forward{what}"), &shape, &args)?;
        let backward = FlashAttentionBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args =
            FlashAttentionBackwardArgs { inputs, o, lse, d_o, d_lse: None, gradients, scratch: &scratch };
        b.row(&backward, &format!("backward{what}"), &shape, &args)?;
    }
    Ok(())
}
