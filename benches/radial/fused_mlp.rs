use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let points = b.size(1 << 15, 1 << 20);
    let context = b.context().clone();
    for (inputs, width, layers, outputs) in [(64, 64, 2, 64), (32, 64, 2, 3), (32, 16, 2, 3), (32, 128, 4, 3)]
    {
        let points = if width == 128 { points / 4 } else { points };
        let keep =
            FusedMlpConfig { inputs, width, layers, outputs, points, keep: true, ..Default::default() };
        let config = FusedMlpConfig { keep: false, ..keep };
        let shape = format!("[{points}] {inputs}-{width}x{layers}-{outputs}");
        let weights = b.noise(config.weight_count())?;
        let dweights = b.zeros(config.weight_count())?;
        let (x, dx) = (b.noise(points * inputs)?, b.zeros(points * inputs)?);
        let (y, kept) = (b.noise(points * outputs)?, b.zeros(config.kept_count() as u32)?);
        let [weights, dweights, x, dx, y, kept] =
            [&weights, &dweights, &x, &dx, &y, &kept].map(BufferView::new);
        let args = FusedMlpForwardArgs { weights, x, y, kept };
        b.row(&FusedMlpForward::new(&context, config)?, "forward", &shape, &args)?;
        b.row(&FusedMlpForward::new(&context, keep)?, "forward, keeping", &shape, &args)?;
        let backward = FusedMlpBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args = FusedMlpBackwardArgs { weights, x, kept, dy: y, dweights, dx, scratch: &scratch };
        b.row(&backward, "backward", &shape, &args)?;
    }
    Ok(())
}
