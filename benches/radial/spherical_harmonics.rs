use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let (points, degree) = (b.size(1 << 18, 1 << 20), 4);
    let context = b.context().clone();
    let config = SphericalHarmonicsConfig { points, degree };
    let shape = format!("[{points}, {}]", config.outputs());
    let (directions, dx) = (b.noise(points * 3)?, b.zeros(points * 3)?);
    let y = b.noise(points * config.outputs())?;
    let [directions, y, dx] = [&directions, &y, &dx].map(BufferView::new);
    let forward = SphericalHarmonicsForward::new(&context, config)?;
    b.row(&forward, "forward", &shape, &SphericalHarmonicsForwardArgs { directions, y })?;
    let backward = SphericalHarmonicsBackward::new(&context, config)?;
    b.row(&backward, "backward", &shape, &SphericalHarmonicsBackwardArgs { directions, dy: y, dx })
}
