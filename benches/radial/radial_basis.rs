use patchfield::dense::{InvertedIndex, InvertedIndexArgs, InvertedIndexConfig};
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Kernel, Result};

use crate::harness::Bench;

/// The published configuration for pictures: 4 neighbours, inverse quadratic, symmetric;
/// points in rows, whose neighbours lie around them.
pub fn bench(b: &mut Bench) -> Result<()> {
    let points = b.size(1 << 16, 1 << 18);
    let context = b.context().clone();
    let (centres, neighbours) = (2809, 4);
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
    let table = b.upload(bytemuck::cast_slice(&table))?;
    let positions = b.upload(bytemuck::cast_slice(&positions))?;
    let grid = b.upload(bytemuck::cast_slice(&grid))?;
    let round = b.upload(bytemuck::cast_slice(&round))?;
    let (dphi, dkernel, dx) = (b.noise(pairs)?, b.zeros(pairs)?, b.zeros(points * 2)?);
    let (order, starts) = (b.zeros(pairs)?, b.zeros(centres + 1)?);
    let (dcentres, dshapes) = (b.zeros(centres * 2)?, b.zeros(centres * 3)?);
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

    Ok(())
}
