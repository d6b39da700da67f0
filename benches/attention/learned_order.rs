use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let (tokens, frequencies) = (196, 96);
    let batch = b.elements() / 4 / (tokens * 2 * frequencies);
    let config = LearnedOrderConfig { batch, tokens, frequencies, lanes: None };
    let rows = batch * tokens;
    let [order, frequency, shift] = [b.noise(tokens)?, b.noise(frequencies)?, b.noise(rows)?];
    let [e, dshift, dfrequency] = [b.noise(rows * 2 * frequencies)?, b.zeros(rows)?, b.zeros(frequencies)?];
    let view = BufferView::new;
    let (order, frequency, shift, e) = (view(&order), view(&frequency), view(&shift), view(&e));
    let shape = format!("[{batch}, {tokens}, {}]", 2 * frequencies);
    let forward = LearnedOrderForward::new(b.context(), config)?;
    b.row(&forward, "forward", &shape, &LearnedOrderForwardArgs { order, shift, frequency, e })?;
    let backward = LearnedOrderBackward::new(b.context(), config)?;
    let args = LearnedOrderBackwardArgs {
        order,
        shift,
        frequency,
        de: e,
        dshift: view(&dshift),
        dfrequency: view(&dfrequency),
        scratch: &backward.create_scratch()?,
    };
    b.row(&backward, "backward", &shape, &args)
}
