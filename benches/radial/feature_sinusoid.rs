use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let config = FeatureSinusoidConfig { points: b.size(1 << 16, 1 << 20), width: 64 };
    let n = config.points * config.width;
    let (x, dy, out) = (b.noise(n)?, b.noise(n)?, b.zeros(n)?);
    let m = b.upload(bytemuck::cast_slice(&log_spaced(1.0, 1000.0, config.width)))?;
    let [x, dy, out, frequencies] = [&x, &dy, &out, &m].map(BufferView::new);
    let context = b.context().clone();
    let shape = format!("[{}, 64]", config.points);
    let forward = FeatureSinusoidForward::new(&context, config)?;
    b.row(&forward, "forward", &shape, &FeatureSinusoidForwardArgs { x, frequencies, y: out })?;
    let backward = FeatureSinusoidBackward::new(&context, config)?;
    b.row(&backward, "backward", &shape, &FeatureSinusoidBackwardArgs { x, frequencies, dy, dx: out })
}
