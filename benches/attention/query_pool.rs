use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let config = QueryPoolConfig { batch: b.size(16, 256), ..Default::default() };
    let QueryPoolConfig { batch, patches, channels, queries, projections, outputs, .. } = config;
    let shape = format!("[{batch}, {patches}, {channels}], {queries} queries");
    let x = b.noise(batch * patches * channels)?;
    let (u, du) = (b.noise(queries * channels)?, b.zeros(queries * channels)?);
    let (weight, dweight) =
        (b.noise(projections * outputs * channels)?, b.zeros(projections * outputs * channels)?);
    let attention = b.zeros(batch * queries * patches)?;
    let pooled = b.zeros(batch * queries * channels)?;
    let (y, dy) = (b.zeros(batch * queries * outputs)?, b.noise(batch * queries * outputs)?);
    let [x, u, du, weight, dweight, attention, pooled, y, dy] =
        [&x, &u, &du, &weight, &dweight, &attention, &pooled, &y, &dy].map(BufferView::new);
    let forward = QueryPoolForward::new(&context, config)?;
    let scratch = forward.create_scratch()?;
    let args = QueryPoolForwardArgs {
        x,
        keys: None,
        queries: u,
        weight: Some(weight),
        mask: None,
        attention,
        pooled,
        y: Some(y),
        scratch: &scratch,
    };
    b.row(&forward, "forward", &shape, &args)?;
    let backward = QueryPoolBackward::new(&context, config)?;
    let scratch = backward.create_scratch()?;
    let args = QueryPoolBackwardArgs {
        x,
        keys: None,
        queries: u,
        weight: Some(weight),
        attention,
        pooled,
        dy,
        dqueries: du,
        dweight: Some(dweight),
        dx: None,
        dkeys: None,
        scratch: &scratch,
    };
    b.row(&backward, "backward, frozen", &shape, &args)
}
