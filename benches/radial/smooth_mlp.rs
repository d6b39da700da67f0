use patchfield::dense::Activation;
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let points = b.size(1 << 13, 1 << 17);
    let soft = SmoothMlpConfig {
        tangents: 3,
        points,
        inputs: 32,
        width: 64,
        layers: 2,
        outputs: 1,
        activation: Activation::Softplus,
        ..Default::default()
    };
    let fields = SmoothMlpConfig { batch: 256, points: points / 64, width: 32, ..Default::default() };
    let rows = [(soft, "value and gradient, 64 x 2"), (fields, "256 fields side by side, 32 x 3")];
    for (config, name) in rows {
        let rows = config.batch * config.points * (1 + config.tangents);
        let parameters: Vec<_> = config
            .layer_sizes()
            .into_iter()
            .map(|(i, o)| Ok((b.noise(config.batch * i * o)?, b.noise(config.batch * o)?)))
            .collect::<Result<_>>()?;
        let layers: Vec<_> = parameters
            .iter()
            .map(|(weight, bias)| SmoothLayer { weight: weight.into(), bias: bias.into() })
            .collect();
        let gradients: Vec<_> = parameters
            .iter()
            .map(|(weight, bias)| {
                Ok((b.zeros((weight.size() / 4) as u32)?, b.zeros((bias.size() / 4) as u32)?))
            })
            .collect::<Result<_>>()?;
        let gradients: Vec<_> = gradients
            .iter()
            .map(|(weight, bias): &(wgpu::Buffer, wgpu::Buffer)| SmoothLayer {
                weight: weight.into(),
                bias: bias.into(),
            })
            .collect();
        let (x, y) = (b.noise(rows * config.inputs)?, b.noise(rows * config.outputs)?);
        let dx = b.zeros(rows * config.inputs)?;
        let [x, y, dx] = [&x, &y, &dx].map(BufferView::new);
        let kept = config.create_kept(&context)?;
        let shape = format!("[{rows}, {}] {name}", config.inputs);
        let forward = SmoothMlpForward::new(&context, config)?;
        let scratch = forward.create_scratch()?;
        let args = SmoothMlpForwardArgs { x, layers: &layers, y, kept: &kept, scratch: &scratch };
        b.row(&forward, "forward", &shape, &args)?;
        let backward = SmoothMlpBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args = SmoothMlpBackwardArgs {
            x,
            layers: &layers,
            kept: &kept,
            dy: y,
            dx: Some(dx),
            gradients: &gradients,
            scratch: &scratch,
        };
        b.row(&backward, "backward", &shape, &args)?;
    }
    Ok(())
}
