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
        // One head: the time of a head is what is compared.
        ("", AttentionConfig { heads: b.size(1, 16), ..square(8192) }),
        ("", AttentionConfig { heads: 12, batch: b.size(1, 16), ..square(197) }),
        (", causal", AttentionConfig { causal: true, ..square(1024) }),
        (", bias", AttentionConfig { bias, bias_gradient: true, ..square(1024) }),
        (", f16", AttentionConfig { half: true, ..square(1024) }),
        (", few queries", AttentionConfig { queries: 32, keys: 8192, ..base }),
    ];
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
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
        let plain = what.is_empty() && queries.is_power_of_two();
        if plain {
            forwards.push((queries, b.last_seconds() / f64::from(heads)));
        }
        let backward = FlashAttentionBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args =
            FlashAttentionBackwardArgs { inputs, o, lse, d_o, d_lse: None, gradients, scratch: &scratch };
        b.row(&backward, &format!("backward{what}"), &shape, &args)?;
        if plain {
            backwards.push((queries, b.last_seconds() / f64::from(heads)));
        }
    }
    report_growth("forward", &forwards);
    report_growth("backward", &backwards);
    Ok(())
}

/// Prints how far the times of a head are from c N^2, with c the geometric mean of time / N^2, and the
/// exponent of N that fits them best.
fn report_growth(what: &str, times: &[(u32, f64)]) {
    let points: Vec<(f64, f64)> = times.iter().map(|&(n, t)| (f64::from(n).ln(), t.ln())).collect();
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let exponent = mean(&|p| (p.0 - x) * (p.1 - y)) / mean(&|p| (p.0 - x).powi(2));
    let c = mean(&|p| p.1 - 2.0 * p.0);
    println!("flash attention {what}: time grows as N^{exponent:.2}; of c N^2 it is, at");
    for (&(n, _), p) in times.iter().zip(&points) {
        println!("    N = {n:5}: {:6.1} %", 100.0 * (p.1 - 2.0 * p.0 - c).exp());
    }
}
