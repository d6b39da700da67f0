use patchfield::dense::Distribution;
use patchfield::dispatch::Planned;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let points = b.size(1 << 15, 1 << 19);
    let context = b.context().clone();
    for (dims, log2_table_size) in [(2, 15), (3, 19)] {
        let interpolation = Interpolation::Smoothstep;
        let grid = GridEncodingConfig { dims, log2_table_size, points, interpolation, ..Default::default() };
        let config = GridEncodingJetConfig { grid, differential: Differential::Jet };
        let shape = format!("[{points}, {dims}] 16 levels, 2^{log2_table_size}");
        let positions = b.random(points * dims, Distribution::Uniform)?;
        let (table, dtable) = (b.noise(grid.parameter_count()?)?, b.zeros(grid.parameter_count()?)?);
        let (encoded, dx) = (b.noise(config.output_count()?)?, b.zeros(points * dims)?);
        let [positions, table, dtable, encoded, dx] =
            [&positions, &table, &dtable, &encoded, &dx].map(BufferView::new);
        let direction = None;
        let forward = GridEncodingJetForward::new(&context, config)?;
        let args = GridEncodingJetForwardArgs { positions, table, direction, encoded };
        b.row(&forward, "forward", &shape, &args)?;
        let to_input = GridEncodingJetBackwardInput::new(&context, config)?;
        let args = GridEncodingJetBackwardInputArgs { positions, table, direction, dy: encoded, dx };
        b.row(&to_input, "to the input", &shape, &args)?;
        let to_table = GridEncodingJetBackwardTable::new(&context, config)?;
        let scratch = to_table.create_scratch()?;
        let args =
            GridEncodingJetBackwardTableArgs { positions, direction, dy: encoded, dtable, scratch: &scratch };
        b.row(&to_table, "to the table", &shape, &args)?;
    }
    Ok(())
}
