use patchfield::dense::Distribution;
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let points = b.size(1 << 14, 1 << 18);
    let plain = CompactBasisConfig { base_resolution: 64, features: 16, points, ..Default::default() };
    let jet = CompactBasisConfig { differential: Differential::Jet, ..plain };
    let space = CompactBasisConfig { dims: 3, base_resolution: 24, ring: 3, ..jet };
    let waves = CompactBasisConfig {
        sinusoids: true,
        normalized: true,
        adaptive: Some(AdaptiveNodes::default()),
        to_positions: true,
        ..jet
    };
    for (config, name) in
        [(plain, "values"), (jet, "jets"), (space, "jets, ring 3"), (waves, "jets of adaptive sinusoids")]
    {
        let nodes = config.node_count()?;
        let dims = config.dims;
        let positions = b.random(points * dims, Distribution::Uniform)?;
        let (weights, dweights) = (b.noise(nodes * config.features)?, b.zeros(nodes * config.features)?);
        let (shapes, dshapes) = (b.noise(nodes * (dims + 1))?, b.zeros(nodes * (dims + 1))?);
        let (frequencies, dx) = (b.noise(config.features)?, b.zeros(points * dims)?);
        let (y, lists) = (b.noise(config.output_count()?)?, b.zeros(config.list_count()?)?);
        let [positions, weights, dweights, shapes, dshapes, frequencies, dx, y, lists] =
            [&positions, &weights, &dweights, &shapes, &dshapes, &frequencies, &dx, &y, &lists]
                .map(BufferView::new);
        let inputs = CompactBasisInputs {
            positions,
            weights,
            frequencies: Some(frequencies),
            shapes: Some(shapes),
            direction: None,
        };
        let shape = format!("[{points}, {dims}] to {} features, {nodes} nodes, {name}", config.features);
        let forward = CompactBasisForward::new(&context, config)?;
        b.row(&forward, "forward", &shape, &CompactBasisForwardArgs { inputs, y })?;
        let kernel = CompactBasisLists::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        b.row(&kernel, "lists", &shape, &CompactBasisListsArgs { positions, lists, scratch: &scratch })?;
        let backward = CompactBasisBackward::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args = CompactBasisBackwardArgs {
            inputs,
            lists,
            dy: y,
            dweights,
            dshapes: Some(dshapes),
            dx: Some(dx),
            scratch: &scratch,
        };
        b.row(&backward, "backward", &shape, &args)?;
    }
    Ok(())
}
