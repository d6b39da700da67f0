use patchfield::dense::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let shape = format!("[{count}]");
    let (gradient, parameter) = (b.noise(count)?, b.noise(count)?);
    let [moment1, moment2] = [b.zeros(count)?, b.zeros(count)?];
    let context = b.context().clone();
    for (name, method) in [
        ("adam", Method::default()),
        ("descent", Method::Descent { momentum: 0.0, nesterov: false }),
        ("momentum", Method::Descent { momentum: 0.9, nesterov: true }),
        ("rmsprop", Method::RmsProp { alpha: 0.99, epsilon: 1e-8 }),
    ] {
        let step = b.upload(StepValues::new(10, 1e-4, method.betas()).bytes())?;
        let optimizer = Optimizer::new(&context, OptimizerConfig::new(count, method))?;
        let [first, second] = method.moments();
        let args = OptimizerArgs {
            step: BufferView::new(&step),
            gradient: BufferView::new(&gradient),
            parameter: BufferView::new(&parameter),
            moment1: first.then(|| BufferView::new(&moment1)),
            moment2: second.then(|| BufferView::new(&moment2)),
        };
        b.row(&optimizer, name, &shape, &args)?;
    }
    Ok(())
}
