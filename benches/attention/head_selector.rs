use patchfield::attention::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let config = HeadSelectorConfig { rows: b.elements() / 32, ..Default::default() };
    let HeadSelectorConfig { rows, heads, .. } = config;
    let n = rows * heads;
    let [scores, dw] = [b.noise(n)?, b.noise(n)?];
    let [before, z, dm] = [b.noise(rows)?, b.noise(rows)?, b.noise(rows)?];
    let [shares, weights] = [b.zeros(n)?, b.zeros(n)?];
    let [message, dz] = [b.zeros(rows)?, b.zeros(rows)?];
    let view = BufferView::new;
    let shape = format!("[{rows}, {heads}]");
    let forward = HeadSelectorForward::new(b.context(), config)?;
    let args = HeadSelectorForwardArgs {
        s: view(&scores),
        z: view(&z),
        before: view(&before),
        p: view(&shares),
        m: view(&message),
        w: view(&weights),
    };
    b.row(&forward, "forward", &shape, &args)?;
    let backward = HeadSelectorBackward::new(b.context(), config)?;
    let args = HeadSelectorBackwardArgs {
        p: view(&shares),
        z: view(&z),
        before: view(&before),
        dw: view(&dw),
        dm: view(&dm),
        ds: view(&weights),
        dz: view(&dz),
        dbefore: view(&message),
    };
    b.row(&backward, "backward", &shape, &args)
}
