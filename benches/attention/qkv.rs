use patchfield::attention::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let width = 192;
    let rows = b.elements() / 4 / (3 * width);
    let config = QkvConfig { rows, width };
    let x = b.noise(3 * rows * width)?;
    let [q, k, v] = [b.zeros(rows * width)?, b.zeros(rows * width)?, b.zeros(rows * width)?];
    let [x, q, k, v] = [&x, &q, &k, &v].map(BufferView::new);
    let shape = format!("[{rows}, 3, {width}]");
    b.row(&SplitQkv::new(b.context(), config)?, "split", &shape, &QkvArgs { x, q, k, v })?;
    b.row(&JoinQkv::new(b.context(), config)?, "join", &shape, &QkvArgs { x, q, k, v })
}
