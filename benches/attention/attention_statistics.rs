use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    // The tokens of a picture in ViT-Tiny, and more.
    for (heads, side, head_dim) in [(3, 14, 64), (b.size(1, 12), b.size(32, 64), 64)] {
        let n = side * side + 1;
        let attention = AttentionConfig { heads, queries: n, keys: n, head_dim, ..Default::default() };
        let grid = PatchGrid { prefix: 1, height: side, width: side };
        let shape = format!("{heads} x {n} x {head_dim}");
        let (q, k, lse) =
            (b.noise(heads * n * head_dim)?, b.noise(heads * n * head_dim)?, b.zeros(heads * n)?);
        let (entropy, best, best_weight) = (b.zeros(heads * n)?, b.zeros(heads * n)?, b.zeros(heads * n)?);
        let (distance, mass) = (b.zeros(heads * n)?, b.zeros(heads * n)?);
        let (row, next) = (b.noise(n)?, b.zeros(n)?);
        let inputs = AttentionInputs::new((&q).into(), (&k).into(), (&k).into());
        let lse = BufferView::new(&lse);

        let kernel = AttentionLse::new(&context, attention)?;
        let scratch = kernel.create_scratch()?;
        b.row(&kernel, "log-sum-exp", &shape, &AttentionLseArgs { inputs, lse, scratch: &scratch })?;
        let config = AttentionRowStatisticsConfig { attention, grid: Some(grid) };
        let kernel = AttentionRowStatistics::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        let args = AttentionRowStatisticsArgs {
            inputs,
            lse,
            entropy: (&entropy).into(),
            best: (&best).into(),
            best_weight: (&best_weight).into(),
            distance: Some((&distance).into()),
            scratch: &scratch,
        };
        b.row(&kernel, "rows", &shape, &args)?;
        let config = AttentionColumnMassConfig { attention, weights: false };
        let kernel = AttentionColumnMass::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        let args = AttentionColumnMassArgs {
            inputs,
            lse,
            weights: None,
            mass: (&mass).into(),
            mean: (&next).into(),
            scratch: &scratch,
        };
        b.row(&kernel, "columns", &shape, &args)?;
        let kernel = AttentionRollout::new(&context, AttentionRolloutConfig { attention, share: 0.5 })?;
        let scratch = kernel.create_scratch()?;
        let args =
            AttentionRolloutArgs { inputs, lse, row: (&row).into(), next: (&next).into(), scratch: &scratch };
        b.row(&kernel, "rollout", &shape, &args)?;
        let kernel = AttentionHops::new(&context, AttentionHopsConfig { attention, grid })?;
        let scratch = kernel.create_scratch()?;
        let args = AttentionHopsArgs { inputs, lse, mass: (&mass).into(), scratch: &scratch };
        b.row(&kernel, "hops", &shape, &args)?;
    }
    Ok(())
}
