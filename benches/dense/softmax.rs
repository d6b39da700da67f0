use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    for n in [196, 4096, 1 << 16] {
        let rows = b.elements() / 4 / n;
        let config = SoftmaxConfig { rows, n, scale: 0.125, ..Default::default() };
        let (x, y, dy) = (b.noise(rows * n)?, b.zeros(rows * n)?, b.noise(rows * n)?);
        let [x, y, dy] = [&x, &y, &dy].map(BufferView::new);
        let shape = format!("[{rows}, {n}]");
        let forward = SoftmaxForward::new(&context, config)?;
        let scratch = forward.create_scratch()?;
        b.row(&forward, "forward", &shape, &SoftmaxForwardArgs { x, bias: None, y, scratch: &scratch })?;
        let backward = SoftmaxBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        b.row(&backward, "backward", &shape, &SoftmaxBackwardArgs { y, dy, dx: x, scratch: &scratch })?;
    }
    Ok(())
}
