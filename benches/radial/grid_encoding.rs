use patchfield::dense::Distribution;
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let points = b.size(1 << 16, 1 << 20);
    let context = b.context().clone();
    for (dims, log2_table_size) in [(2, 15), (3, 19)] {
        let config = GridEncodingConfig { dims, log2_table_size, points, ..Default::default() };
        let shape = format!("[{points}, {dims}] 16 levels, 2^{log2_table_size}");
        let positions = b.random(points * dims, Distribution::Uniform)?;
        let table = b.noise(config.parameter_count()?)?;
        let dtable = b.zeros(config.parameter_count()?)?;
        let encoded = b.noise(points * config.outputs())?;
        let dx = b.zeros(points * dims)?;
        let [positions, table, dtable, encoded, dx] =
            [&positions, &table, &dtable, &encoded, &dx].map(BufferView::new);
        let forward = GridEncodingForward::new(&context, config)?;
        b.row(&forward, "forward", &shape, &GridEncodingForwardArgs { positions, table, encoded })?;
        let backward = GridEncodingBackwardTable::new(&context, config)?;
        let scratch = backward.create_scratch()?;
        let args = GridEncodingBackwardTableArgs { positions, dy: encoded, dtable, scratch: &scratch };
        b.row(&backward, "backward to the table", &shape, &args)?;
        let backward = GridEncodingBackwardInput::new(&context, config)?;
        let args = GridEncodingBackwardInputArgs { positions, table, dy: encoded, dx };
        b.row(&backward, "backward to the input", &shape, &args)?;
    }
    Ok(())
}
