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
        // Points of a small part of the field, row by row: many add to the same entries.
        let side = f64::from(points).powf(1.0 / f64::from(dims)).ceil() as u32;
        let place = |n: u32, d: u32| 0.4 + 0.1 * (n / side.pow(d) % side) as f32 / side as f32;
        let coherent: Vec<f32> = (0..points).flat_map(|n| (0..dims).map(move |d| place(n, d))).collect();
        let coherent = b.upload(bytemuck::cast_slice(&coherent))?;
        for (batch, positions) in [("random", positions), ("coherent", BufferView::new(&coherent))] {
            let sorted = [1, config.levels].map(|n| GridEncodingVariant::Sorted { levels_at_once: n });
            for variant in [GridEncodingVariant::FixedPoint, sorted[0], sorted[1]] {
                let at_once = match variant {
                    GridEncodingVariant::Sorted { levels_at_once } => {
                        format!(", {levels_at_once} levels at once")
                    }
                    GridEncodingVariant::FixedPoint => String::new(),
                };
                let config = GridEncodingConfig { variant: Some(variant), ..config };
                let backward = GridEncodingBackwardTable::new(&context, config)?;
                let scratch = backward.create_scratch()?;
                let args =
                    GridEncodingBackwardTableArgs { positions, dy: encoded, dtable, scratch: &scratch };
                b.row(&backward, &format!("to the table, {batch}{at_once}"), &shape, &args)?;
            }
        }
        let backward = GridEncodingBackwardInput::new(&context, config)?;
        let args = GridEncodingBackwardInputArgs { positions, table, dy: encoded, dx };
        b.row(&backward, "backward to the input", &shape, &args)?;
    }
    Ok(())
}
