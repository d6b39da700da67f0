//! What the library's kernels tell about layers of attention.

use patchfield::attention::*;
use patchfield::train::Tensor;
use patchfield::{BufferView, Context, Kernel as _, Planned as _, Result};

/// One layer's scores.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub attention: AttentionConfig,
    pub inputs: AttentionInputs<'a>,
    pub lse: BufferView<'a>,
}

/// Means over the patches of one head.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// In nats.
    pub entropy: f64,
    /// In patches.
    pub distance: f64,
    /// The share of a patch's attention to itself, and to its eight neighbours.
    pub itself: f64,
    pub neighbours: f64,
}

/// The heads of a layer.
pub fn heads(context: &Context, layer: &Layer<'_>, grid: PatchGrid) -> Result<Vec<Head>> {
    let Layer { attention, inputs, lse } = *layer;
    let tensor = |n: u32| Tensor::new(context, "statistics", &[n]);
    let rows = attention.heads * attention.queries;
    let (entropy, best, best_weight, distance) = (tensor(rows)?, tensor(rows)?, tensor(rows)?, tensor(rows)?);
    let mass = tensor(attention.heads * grid.hops())?;
    let config = AttentionRowStatisticsConfig { attention, grid: Some(grid) };
    let kernel = AttentionRowStatistics::new(context, config)?;
    let mut recording = kernel.prepare(&AttentionRowStatisticsArgs {
        inputs,
        lse,
        entropy: entropy.view(),
        best: best.view(),
        best_weight: best_weight.view(),
        distance: Some(distance.view()),
        scratch: &kernel.create_scratch()?,
    })?;
    let kernel = AttentionHops::new(context, AttentionHopsConfig { attention, grid })?;
    let scratch = kernel.create_scratch()?;
    let args = AttentionHopsArgs { inputs, lse, mass: mass.view(), scratch: &scratch };
    recording.append(kernel.prepare(&args)?);
    context.run_blocking(&recording)?;
    let [entropy, distance, mass] = [&entropy, &distance, &mass].map(|tensor| tensor.read(context));
    let (entropy, distance, mass) = (entropy?, distance?, mass?);
    let patches = f64::from(grid.height * grid.width);
    let mean = |values: &[f32], h: u32| {
        let first = (h * attention.queries + grid.prefix) as usize;
        let end = ((h + 1) * attention.queries) as usize;
        values[first..end].iter().map(|&v| f64::from(v)).sum::<f64>() / patches
    };
    let ring = |h: u32, k: u32| {
        let rings = &mass[(h * grid.hops()) as usize..((h + 1) * grid.hops()) as usize];
        rings.get(k as usize).map_or(0.0, |&m| f64::from(m)) / patches
    };
    let head = |h: u32| Head {
        entropy: mean(&entropy, h),
        distance: mean(&distance, h),
        itself: ring(h, 0),
        neighbours: ring(h, 1),
    };
    Ok((0..attention.heads).map(head).collect())
}

/// The row vector after all layers, from the last to the first.
pub fn rollout(context: &Context, layers: &[Layer<'_>], start: &[f32], share: f32) -> Result<Vec<f32>> {
    let mut row = Tensor::from_slice(context, "row", &[start.len() as u32], start)?;
    for &Layer { attention, inputs, lse } in layers.iter().rev() {
        let next = Tensor::new(context, "row", row.shape())?;
        let kernel = AttentionRollout::new(context, AttentionRolloutConfig { attention, share })?;
        let scratch = kernel.create_scratch()?;
        let (row_view, next_view) = (row.view(), next.view());
        let args = AttentionRolloutArgs { inputs, lse, row: row_view, next: next_view, scratch: &scratch };
        context.run_blocking(&kernel.prepare(&args)?)?;
        row = next;
    }
    row.read(context)
}

/// The dependency mask of the patches, `[patches, patches]`: row j holds what each patch i gives to j, as the mean of
/// all layers and heads.
pub fn mask(context: &Context, layers: &[Layer<'_>], grid: PatchGrid) -> Result<Vec<f32>> {
    let n = (grid.height * grid.width) as usize;
    let mut mask = vec![0.0; n * n];
    for &Layer { attention, inputs, lse } in layers {
        let columns = [grid.prefix, attention.queries];
        let share = 1.0 / (layers.len() * attention.heads as usize) as f32;
        // As many rows as a binding holds.
        let row_bytes = 4 * u64::from(attention.heads) * n as u64;
        let limits = &context.capabilities().limits;
        let most_bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let most = (most_bytes / row_bytes).clamp(1, n as u64);
        for first in (0..n as u32).step_by(most as usize) {
            let rows = [first, (first + most as u32).min(n as u32)];
            let count = rows[1] - rows[0];
            let rows = rows.map(|row| grid.prefix + row);
            let kernel = AttentionTile::new(context, AttentionTileConfig { attention, rows, columns })?;
            let scratch = kernel.create_scratch()?;
            let weights = Tensor::new(context, "weights", &[attention.heads, count, n as u32])?;
            let args = AttentionTileArgs { inputs, lse, weights: weights.view(), scratch: &scratch };
            context.run_blocking(&kernel.prepare(&args)?)?;
            for head in weights.read(context)?.chunks(count as usize * n) {
                for (i, row) in (first as usize..).zip(head.chunks(n)) {
                    row.iter().enumerate().for_each(|(j, p)| mask[j * n + i] += share * p);
                }
            }
        }
    }
    Ok(mask)
}
