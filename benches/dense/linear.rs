use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let (rows, inputs, outputs) = (b.size(1024, 8192), 256, 1024);
    let config = LinearConfig {
        rows,
        inputs,
        outputs,
        bias: true,
        activation: Activation::Gelu,
        keep: true,
        variant: None,
    };
    let shape = format!("[{rows}, {inputs}] to {outputs}, GELU");
    let (x, dx) = (b.noise(rows * inputs)?, b.zeros(rows * inputs)?);
    let (weight, dweight) = (b.noise(inputs * outputs)?, b.zeros(inputs * outputs)?);
    let (bias, dbias) = (b.noise(outputs)?, b.zeros(outputs)?);
    let (y, kept, dy) = (b.zeros(rows * outputs)?, b.zeros(rows * outputs)?, b.noise(rows * outputs)?);
    let [x, dx, weight, dweight, bias, dbias, y, kept, dy] =
        [&x, &dx, &weight, &dweight, &bias, &dbias, &y, &kept, &dy].map(BufferView::new);
    let forward = LinearForward::new(&context, config)?;
    let scratch = forward.create_scratch()?;
    let args = LinearForwardArgs { x, weight, bias: Some(bias), y, kept: Some(kept), scratch: &scratch };
    b.row(&forward, "forward", &shape, &args)?;
    let backward = LinearBackward::new(&context, config)?;
    let scratch = backward.create_scratch()?;
    let args = LinearBackwardArgs {
        x,
        weight,
        kept: Some(kept),
        dy,
        dx: Some(dx),
        dweight,
        dbias: Some(dbias),
        scratch: &scratch,
    };
    b.row(&backward, "backward", &shape, &args)
}
