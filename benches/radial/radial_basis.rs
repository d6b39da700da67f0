use patchfield::dense::{Distribution, InvertedIndex, InvertedIndexArgs, InvertedIndexConfig};
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Kernel, Result};

use crate::harness::Bench;

/// The published configuration for pictures: 4 neighbours, inverse quadratic, symmetric, 32 features;
/// points in rows, whose neighbours lie around them.
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
    let place = |n: u32| [(n % side) as f32 / side as f32 * 52.0, (n / side) as f32 / side as f32 * 52.0];
    let positions: Vec<f32> = (0..points).flat_map(place).collect();
    let grid: Vec<f32> = (0..centres).flat_map(|i| [(i % 53) as f32, (i / 53) as f32]).collect();
    let round: Vec<f32> = (0..centres).flat_map(|_| [1.0, 0.2, 1.5]).collect();
    let m = log_spaced(0.125, 4096.0, features);
    let table = b.upload(bytemuck::cast_slice(&table))?;
    let positions = b.upload(bytemuck::cast_slice(&positions))?;
    let grid = b.upload(bytemuck::cast_slice(&grid))?;
    let round = b.upload(bytemuck::cast_slice(&round))?;
    let m = b.upload(bytemuck::cast_slice(&m))?;
    let phi = b.random(pairs, Distribution::Uniform)?;
    let (dphi, dkernel, dx) = (b.noise(pairs)?, b.zeros(pairs)?, b.zeros(points * 2)?);
    let (order, starts) = (b.zeros(pairs)?, b.zeros(centres + 1)?);
    let (dcentres, dshapes) = (b.zeros(centres * 2)?, b.zeros(centres * 3)?);
    let (weights, dweights) = (b.noise(centres * features)?, b.zeros(centres * features)?);
    let (y, dm) = (b.noise(points * features)?, b.zeros(features)?);
    let view = BufferView::new;

    let index = InvertedIndex::new(&context, InvertedIndexConfig { rows: centres, n: pairs })?;
    let scratch = index.create_scratch()?;
    let args = InvertedIndexArgs {
        index: view(&table),
        order: view(&order),
        starts: view(&starts),
        scratch: &scratch,
    };
    context.run_blocking(&index.prepare(&args)?)?;
    b.row(&index, "inverted lists", format!("[{pairs}] {centres} centres"), &args)?;

    let shape = format!("[{points}, {neighbours}] {centres} centres");
    let config = RadialBasisConfig { points, centres, neighbours, ..Default::default() };
    let args = RadialBasisForwardArgs {
        positions: view(&positions),
        centres: view(&grid),
        shapes: view(&round),
        neighbours: view(&table),
        phi: view(&dkernel),
    };
    b.row(&RadialBasisForward::new(&context, config)?, "phi", &shape, &args)?;
    let args = RadialBasisBackwardArgs {
        positions: view(&positions),
        centres: view(&grid),
        shapes: view(&round),
        neighbours: view(&table),
        dphi: view(&dphi),
        dkernel: view(&dkernel),
        dpositions: view(&dx),
        centre_gradients: Some(RadialCentreGradients {
            order: view(&order),
            starts: view(&starts),
            dcentres: view(&dcentres),
            dshapes: view(&dshapes),
        }),
    };
    b.row(&RadialBasisBackward::new(&context, config)?, "phi, backward", &shape, &args)?;

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
