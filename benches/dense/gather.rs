use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let width = 64;
    let rows = b.elements() / width;
    let n = rows / 2;
    // Scattered, with repeats: the upper bits of a product with an odd constant.
    let index: Vec<u32> = (0..n)
        .map(|i| ((u64::from(i.wrapping_mul(0x9e37_79b9)) * u64::from(rows)) >> 32) as u32 / 3 * 3)
        .collect();
    let index = b.upload(bytemuck::cast_slice(&index))?;
    let (table, picked) = (b.noise(rows * width)?, b.noise(n * width)?);
    let [index, table, picked] = [&index, &table, &picked].map(BufferView::new);
    let context = b.context().clone();
    let shape = format!("[{n}] of [{rows}, {width}]");
    let config = GatherConfig { rows, n, width, variant: None };
    let gather = Gather::new(&context, config)?;
    b.row(&gather, "gather", &shape, &GatherArgs { x: table, index, y: picked })?;
    let scatter = ScatterAdd::new(&context, ScatterAddConfig { gather: config, accumulate: false })?;
    let scratch = scatter.create_scratch()?;
    let args = ScatterAddArgs { dy: picked, index, dx: table, scratch: &scratch };
    b.row(&scatter, "scatter-add", &shape, &args)
}
