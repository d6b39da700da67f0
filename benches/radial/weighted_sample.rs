use patchfield::dense::{Distribution, RandomState};
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

/// Few draws, which are the tree of sums above all, and as many as there are points.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let points = b.size(1 << 20, 1 << 24);
    let weights = b.random(points, Distribution::Uniform)?;
    let (positions, samples) = (b.noise(2 * points)?, b.zeros(2 * points)?);
    let state = b.upload(RandomState::new(1, 0).bytes())?;
    let view = BufferView::new;
    for draws in [points / 64, points] {
        let config = WeightedSampleConfig { dims: 2, points, draws, stream: 0 };
        let kernel = WeightedSample::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        let args = WeightedSampleArgs {
            weights: view(&weights),
            positions: view(&positions),
            state: view(&state),
            samples: view(&samples),
            scratch: &scratch,
        };
        b.row(&kernel, "draws", format!("{draws} of [{points}, 2]"), &args)?;
    }
    Ok(())
}
