use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    for width in [192, 768] {
        let rows = b.elements() / 2 / width;
        let n = rows * width;
        let [x, residual, dy] = [b.noise(n)?, b.noise(n)?, b.noise(n)?];
        let [hidden, y] = [b.zeros(n)?, b.zeros(n)?];
        let (weight, bias, statistics) = (b.noise(width)?, b.noise(width)?, b.zeros(rows * 2)?);
        let (dweight, dbias) = (b.zeros(width)?, b.zeros(width)?);
        let view = BufferView::new;
        let shape = format!("[{rows}, {width}]");
        for with_residual in [false, true] {
            let config = LayerNormConfig { rows, width, residual: with_residual, ..Default::default() };
            let what = if with_residual { " of a sum" } else { "" };
            let forward = LayerNormForward::new(b.context(), config)?;
            let args = LayerNormForwardArgs {
                x: view(&x),
                residual: with_residual.then(|| view(&residual)),
                weight: Some(view(&weight)),
                bias: Some(view(&bias)),
                hidden: with_residual.then(|| view(&hidden)),
                y: view(&y),
                statistics: view(&statistics),
            };
            b.row(&forward, &format!("layer norm{what}"), &shape, &args)?;
            let backward = LayerNormBackward::new(b.context(), config)?;
            let args = LayerNormBackwardArgs {
                h: view(&x),
                statistics: view(&statistics),
                weight: Some(view(&weight)),
                dy: view(&dy),
                dhidden: with_residual.then(|| view(&residual)),
                dh: view(&hidden),
                dweight: Some(view(&dweight)),
                dbias: Some(view(&dbias)),
                scratch: &backward.create_scratch()?,
            };
            b.row(&backward, &format!("layer norm{what}, backward"), &shape, &args)?;
        }
    }
    Ok(())
}
