use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let (x, y, index) = (b.noise(count)?, b.zeros(count / 256)?, b.zeros(count / 256)?);
    let dx = b.zeros(count)?;
    let [x, y, index, dx] = [&x, &y, &index, &dx].map(BufferView::new);
    let context = b.context().clone();
    let m = count / 1024;
    for (reduction, [outer, n, inner]) in [
        (Reduction::Sum, [1, count, 1]),
        (Reduction::Sum, [m, 1024, 1]),
        (Reduction::Sum, [1, 1024, m]),
        (Reduction::L2Norm, [m, 1024, 1]),
        (Reduction::Max, [m, 1024, 1]),
        (Reduction::Max, [1, 1024, m]),
    ] {
        let config = ReduceConfig { reduction, outer, n, inner, variant: None, part: None };
        let shape = format!("[{outer}, {n}, {inner}]");
        let forward = ReduceForward::new(&context, config)?;
        let scratch = forward.create_scratch()?;
        let index = (reduction == Reduction::Max).then_some(index);
        let args = ReduceForwardArgs { x, y, index, scratch: &scratch };
        b.row(&forward, &format!("{reduction:?} forward"), &shape, &args)?;
        let backward = ReduceBackward::new(&context, config)?;
        let norm = reduction == Reduction::L2Norm;
        let args = ReduceBackwardArgs { dy: y, x: norm.then_some(x), y: norm.then_some(y), index, dx };
        // The L2 norm binds y as dy as well: both are only read.
        b.row(&backward, &format!("{reduction:?} backward"), &shape, &args)?;
    }
    Ok(())
}
