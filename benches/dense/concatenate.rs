use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let rows = b.size(1 << 18, 1 << 20);
    let config = ConcatenateConfig { rows, first: 4, second: 32, bias: true };
    let (a, c, y) = (b.noise(rows * 4)?, b.noise(rows * 32)?, b.noise(rows * 36)?);
    let (bias, dbias) = (b.noise(36)?, b.zeros(36)?);
    let [a, c, y, bias, dbias] = [&a, &c, &y, &bias, &dbias].map(BufferView::new);
    let context = b.context().clone();
    let shape = format!("[{rows}, 4 + 32]");
    let args = ConcatenateForwardArgs { a, b: c, bias: Some(bias), y };
    b.row(&ConcatenateForward::new(&context, config)?, "forward", &shape, &args)?;
    let backward = ConcatenateBackward::new(&context, config)?;
    let scratch = backward.create_scratch()?;
    let args = ConcatenateBackwardArgs { dy: y, da: a, db: c, dbias: Some(dbias), scratch: &scratch };
    b.row(&backward, "backward", &shape, &args)
}
