use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let (tokens, experts) = (b.size(4096, 16_384), b.size(16, 256));
    let nonzeros = 2 * tokens / experts;
    let transport = TransportConfig { tokens, experts, nonzeros, gamma: 1000.0 };
    let config = TransportObjectiveConfig { transport, dual: TransportDual::SemiDual };
    let shape = format!("[{experts}, {tokens}], {nonzeros} nonzeros");
    let (cost, alpha) = (b.noise(experts * tokens)?, b.noise(tokens)?);
    let a = b.upload(bytemuck::cast_slice(&vec![1.0 / tokens as f32; tokens as usize]))?;
    let e = b.upload(bytemuck::cast_slice(&vec![1.0 / experts as f32; experts as usize]))?;
    let (plan, dalpha, value) = (b.zeros(experts * tokens)?, b.zeros(tokens)?, b.zeros(experts + 1)?);
    let [cost, alpha, a, e, plan, dalpha, value] =
        [&cost, &alpha, &a, &e, &plan, &dalpha, &value].map(BufferView::new);
    let kernel = TransportObjective::new(&context, config)?;
    let scratch = kernel.create_scratch()?;
    let args =
        TransportObjectiveArgs { cost, a, b: e, alpha, beta: None, plan, dalpha, value, scratch: &scratch };
    b.row(&kernel, "objective", &shape, &args)
}
