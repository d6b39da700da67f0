use patchfield::dense::{Distribution, InvertedIndex, InvertedIndexArgs, InvertedIndexConfig};
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Kernel, Result};

use crate::harness::Bench;

/// The published configuration for pictures: 4 neighbours and 32 features; points in rows, whose
/// neighbours lie around them.
pub fn bench(b: &mut Bench) -> Result<()> {
    let points = b.size(1 << 16, 1 << 18);
    let context = b.context().clone();
    let (centres, neighbours, features) = (2809, 4, 32);
    let (pairs, side) = (points * neighbours, f64::from(points).sqrt() as u32);
    // 53 x 53 centres on a grid: the four corners of a point's cell.
    let cell = |t: u32| (t * 52 / side).min(51);
    let table: Vec<u32> = (0..points)
        .flat_map(|n| [0, 1, 53, 54].map(|corner| cell(n / side % side) * 53 + cell(n % side) + corner))
        .collect();
    let m = log_spaced(0.125, 4096.0, features);
    let table = b.upload(bytemuck::cast_slice(&table))?;
    let m = b.upload(bytemuck::cast_slice(&m))?;
    let (phi, dphi) = (b.random(pairs, Distribution::Uniform)?, b.zeros(pairs)?);
    let (order, starts) = (b.zeros(pairs)?, b.zeros(centres + 1)?);
    let (weights, dweights) = (b.noise(centres * features)?, b.zeros(centres * features)?);
    let (y, dm) = (b.noise(points * features)?, b.zeros(features)?);
    let view = BufferView::new;

    let index = InvertedIndex::new(&context, InvertedIndexConfig { rows: centres, n: pairs })?;
    let scratch = index.create_scratch()?;
    context.run_blocking(&index.prepare(&InvertedIndexArgs {
        index: view(&table),
        order: view(&order),
        starts: view(&starts),
        scratch: &scratch,
    })?)?;

    let shape = format!("[{points}, {neighbours}, {features}] {centres} centres");
    let variants = [
        SinusoidCompositionVariant::Plain,
        SinusoidCompositionVariant::Subgroup,
        SinusoidCompositionVariant::Staged,
    ];
    for half_weights in [false, true] {
        for variant in variants {
            let config = SinusoidCompositionConfig {
                points,
                centres,
                neighbours,
                features,
                half_weights,
                variant: Some(variant),
                ..Default::default()
            };
            let Ok(kernel) = SinusoidCompositionForward::new(&context, config) else { continue };
            let args = SinusoidCompositionForwardArgs {
                phi: view(&phi),
                neighbours: view(&table),
                weights: view(&weights),
                frequencies: Some(view(&m)),
                y: view(&y),
            };
            let half = if half_weights { ", f16 weights" } else { "" };
            b.row(&kernel, &format!("features{half}"), &shape, &args)?;
            for (what, of_phi, of_weights, of_frequencies) in [
                ("to the weights", false, true, false),
                ("to phi", true, false, false),
                ("to the frequencies", false, false, true),
            ] {
                if half_weights && of_weights {
                    continue;
                }
                let gradients = SinusoidCompositionBackwardConfig {
                    forward: config,
                    phi: of_phi,
                    weights: of_weights,
                    frequencies: of_frequencies,
                };
                let kernel = SinusoidCompositionBackward::new(&context, gradients)?;
                let scratch = kernel.create_scratch()?;
                let args = SinusoidCompositionBackwardArgs {
                    phi: view(&phi),
                    neighbours: view(&table),
                    weights: view(&weights),
                    frequencies: Some(view(&m)),
                    order: view(&order),
                    starts: view(&starts),
                    dy: view(&y),
                    dphi: of_phi.then(|| view(&dphi)),
                    dweights: of_weights.then(|| view(&dweights)),
                    dfrequencies: of_frequencies.then(|| view(&dm)),
                    scratch: &scratch,
                };
                b.row(&kernel, &format!("{what}{half}"), &shape, &args)?;
            }
        }
    }
    Ok(())
}
