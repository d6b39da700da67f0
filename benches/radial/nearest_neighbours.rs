use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

/// Pixels of a square picture in their order, and random points in space; centres at random, then
/// gathered around few places.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let in_space = b.size(1 << 16, 1 << 20);
    for (dims, points, centres, k) in [(2, 1 << 16, 2776, 4), (3, in_space, 12_280, 8)] {
        let at = if dims == 2 {
            let side = 256;
            let positions = b.zeros(points * 2)?;
            let pixels = PixelPositions::new(&context, PixelGrid { width: side, height: side })?;
            let args = PixelPositionsArgs { positions: BufferView::new(&positions) };
            context.run_blocking(&patchfield::Kernel::prepare(&pixels, &args)?)?;
            positions
        } else {
            b.noise(points * dims)?
        };
        let indices = b.zeros(points * k)?;
        // As far as the pixels reach.
        let reach = if dims == 2 { 2.0 } else { 1.0 };
        let mut noise: Vec<f32> = context.read_blocking(BufferView::new(&b.noise(centres * dims)?))?;
        noise.iter_mut().for_each(|x| *x *= reach);
        let uniform = b.upload(bytemuck::cast_slice(&noise))?;
        // Two of three centres within a hundredth of the field.
        for (i, centre) in noise.chunks_mut(dims as usize).enumerate().filter(|(i, _)| i % 3 > 0) {
            centre.iter_mut().for_each(|x| *x = *x * 0.01 + ((i % 7) as f32 * 0.25 - 0.75) * reach);
        }
        let clustered = b.upload(bytemuck::cast_slice(&noise))?;
        let shape = format!("[{points}, {dims}] of {centres}, k {k}");
        for (layout, centres_at) in [("uniform", &uniform), ("clustered", &clustered)] {
            for variant in [NearestVariant::Grid, NearestVariant::BruteForce] {
                if layout == "clustered" && variant == NearestVariant::BruteForce {
                    continue;
                }
                let variant = Some(variant);
                let config = NearestConfig { dims, points, centres, k, distances: false, variant };
                let kernel = NearestNeighbours::new(&context, config)?;
                let scratch = kernel.create_scratch()?;
                let args = NearestArgs {
                    points: BufferView::new(&at),
                    centres: BufferView::new(centres_at),
                    indices: BufferView::new(&indices),
                    distances: None,
                    scratch: &scratch,
                };
                b.row(&kernel, layout, &shape, &args)?;
            }
        }
    }
    Ok(())
}
