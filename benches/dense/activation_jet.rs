use patchfield::dense::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let (tangents, features) = (3, 64);
    let rows = b.elements() / ((1 + tangents) * features);
    for activation in [Activation::Softplus, Activation::Sine { frequency: 30.0 }] {
        let config = ActivationJetConfig { activation, batch: 1, tangents, rows, features, bias: true };
        let shape = format!("[{}, {rows}, {features}] {activation:?}", 1 + tangents);
        let n = config.count()?;
        let (z, bias, y, dz) = (b.noise(n)?, b.noise(features)?, b.noise(n)?, b.zeros(n)?);
        let [z, bias, y, dz] = [&z, &bias, &y, &dz].map(BufferView::new);
        let bias = Some(bias);
        let forward = ActivationJetForward::new(&context, config)?;
        b.row(&forward, "forward", &shape, &ActivationJetForwardArgs { z, bias, y })?;
        let backward = ActivationJetBackward::new(&context, config)?;
        b.row(&backward, "backward", &shape, &ActivationJetBackwardArgs { z, bias, dy: y, dz })?;
    }
    Ok(())
}
