use patchfield::dense::{Distribution, RandomState};
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

/// A picture of noise, with ten steps of k-means.
pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    for side in [256, b.size(512, 2048)] {
        let centres = side * side / 24;
        let config = CentreInitialisationConfig::for_picture(side, side, 3, centres);
        let kernel = CentreInitialisation::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        let picture = b.random(side * side * 3, Distribution::Uniform)?;
        let state = b.upload(RandomState::new(1, 0).bytes())?;
        let [centre_places, shapes, report] = [2 * centres, 3 * centres, 8].map(|words| b.zeros(words));
        let (centre_places, shapes, report) = (centre_places?, shapes?, report?);
        let args = CentreInitialisationArgs {
            values: BufferView::new(&picture),
            positions: None,
            state: BufferView::new(&state),
            centres: BufferView::new(&centre_places),
            shapes: BufferView::new(&shapes),
            report: BufferView::new(&report),
            scratch: &scratch,
        };
        b.row(&kernel, "picture", format!("[{side}, {side}, 3], {centres} centres"), &args)?;
    }
    Ok(())
}
