use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let (tokens, width) = (b.size(4096, 16_384), 768);
    let slots = 2 * tokens;
    let config = CombineConfig { tokens, slots, width };
    let shape = format!("{slots} slots to [{tokens}, {width}]");
    let token: Vec<u32> = (0..slots).map(|s| s.wrapping_mul(2_654_435_761) % tokens).collect();
    let token = b.upload(bytemuck::cast_slice(&token))?;
    let (x, dx, weight, dweight) =
        (b.noise(slots * width)?, b.zeros(slots * width)?, b.noise(slots)?, b.zeros(slots)?);
    let (y, dy) = (b.zeros(tokens * width)?, b.noise(tokens * width)?);
    let [token, x, dx, weight, dweight, y, dy] =
        [&token, &x, &dx, &weight, &dweight, &y, &dy].map(BufferView::new);
    let forward = CombineForward::new(&context, config)?;
    let scratch = forward.create_scratch()?;
    b.row(&forward, "forward", &shape, &CombineForwardArgs { x, weight, token, y, scratch: &scratch })?;
    let backward = CombineBackward::new(&context, config)?;
    let scratch = backward.create_scratch()?;
    let args = CombineBackwardArgs { x, weight, token, dy, dx, dweight, scratch: &scratch };
    b.row(&backward, "backward", &shape, &args)?;
    let config = WeighConfig { rows: tokens, width };
    let shape = format!("[{tokens}, {width}]");
    b.row(&WeighForward::new(&context, config)?, "weigh", &shape, &WeighForwardArgs { x, weight, y })?;
    let args = WeighBackwardArgs { x, weight, dy, dx, dweight };
    b.row(&WeighBackward::new(&context, config)?, "weigh, backward", &shape, &args)
}
