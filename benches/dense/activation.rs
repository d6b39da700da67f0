use patchfield::dense::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let shape = format!("[{count}]");
    let (x, dy, y) = (b.noise(count)?, b.noise(count)?, b.zeros(count)?);
    let [x, dy, y] = [&x, &dy, &y].map(BufferView::new);
    let context = b.context().clone();
    for (name, activation) in [
        ("ReLU", Activation::Relu),
        ("GELU", Activation::Gelu),
        ("SiLU", Activation::Silu),
        ("tanh", Activation::Tanh),
        ("sine", Activation::Sine { frequency: 30.0 }),
    ] {
        let config = ActivationConfig { activation, count, variant: None };
        let forward = ActivationForward::new(&context, config)?;
        b.row(&forward, &format!("{name} forward"), &shape, &ActivationForwardArgs { x, y })?;
        let backward = ActivationBackward::new(&context, config)?;
        b.row(&backward, &format!("{name} backward"), &shape, &ActivationBackwardArgs { x, dy, dx: y })?;
    }
    Ok(())
}
