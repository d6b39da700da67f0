use patchfield::attention::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let (tokens, width, prefix) = (197, 192, 1);
    let batch = b.elements() / 2 / (tokens * width);
    let config = AddPositionConfig { batch, tokens, width, prefix };
    let all = batch * tokens * width;
    let [x, y] = [b.noise(all)?, b.noise(all)?];
    let [table, before] = [b.noise(tokens * width)?, b.noise(width)?];
    let view = BufferView::new;
    let shape = format!("[{batch}, {tokens}, {width}]");
    let forward = AddPosition::new(b.context(), config)?;
    let args = AddPositionArgs { x: view(&x), prefix: Some(view(&before)), table: view(&table), y: view(&y) };
    b.row(&forward, "forward", &shape, &args)?;
    let backward = AddPositionBackward::new(b.context(), config)?;
    let args = AddPositionBackwardArgs { dy: view(&y), dtable: view(&table), dx: view(&x) };
    b.row(&backward, "backward", &shape, &args)
}
