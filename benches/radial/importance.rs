use patchfield::dense::Distribution;
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

/// A picture of noise, its rows in bands, and as many distances and weights as it has pixels.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let side = b.size(1024, 4096);
    let points = side * side;
    let values = b.random(points * 3, Distribution::Uniform)?;
    let (weights, positions, report) = (b.zeros(points)?, b.zeros(2 * points)?, b.zeros(8)?);
    let view = BufferView::new;
    for (what, importance, shape) in [
        (
            "sobel",
            Importance::Sobel { width: side, height: side, channels: 3 },
            format!("[{side}, {side}, 3]"),
        ),
        ("inverse distance", Importance::InverseDistance { points }, format!("[{points}]")),
        ("given", Importance::Given { points }, format!("[{points}]")),
    ] {
        let kernel = ImportanceWeights::new(&context, importance)?;
        let scratch = kernel.create_scratch()?;
        let args = ImportanceArgs {
            values: view(&values),
            weights: view(&weights),
            report: view(&report),
            scratch: &scratch,
        };
        b.row(&kernel, what, shape, &args)?;
    }
    let rows = side / 4;
    let config = SobelBandConfig { width: side, height: side, channels: 3, first_row: rows, rows };
    let args = SobelBandArgs { values: view(&values), raw: view(&weights) };
    b.row(&SobelBand::new(&context, config)?, "a band", format!("[{rows}, {side}, 3]"), &args)?;
    let kernel = PixelPositions::new(&context, PixelGrid { width: side, height: side })?;
    let args = PixelPositionsArgs { positions: view(&positions) };
    b.row(&kernel, "pixel positions", format!("[{side}, {side}]"), &args)
}
