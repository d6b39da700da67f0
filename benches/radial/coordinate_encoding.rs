use patchfield::dense::Distribution;
use patchfield::radial::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let (points, dims) = (b.size(1 << 18, 1 << 20), 3);
    let context = b.context().clone();
    for (name, encoding) in [
        ("frequency", CoordinateEncoding::Frequency { frequencies: 10 }),
        ("one-blob", CoordinateEncoding::OneBlob { bins: 16 }),
    ] {
        let config = CoordinateEncodingConfig { encoding, points, dims };
        let outputs = encoding.outputs();
        let shape = format!("[{points}, {dims}, {outputs}]");
        let x = b.random(points * dims, Distribution::Uniform)?;
        let (y, dx) = (b.noise(points * dims * outputs)?, b.zeros(points * dims)?);
        let [x, y, dx] = [&x, &y, &dx].map(BufferView::new);
        let forward = CoordinateEncodingForward::new(&context, config)?;
        b.row(&forward, &format!("{name} forward"), &shape, &CoordinateEncodingForwardArgs { x, y })?;
        let backward = CoordinateEncodingBackward::new(&context, config)?;
        let args = CoordinateEncodingBackwardArgs { x, dy: y, dx };
        b.row(&backward, &format!("{name} backward"), &shape, &args)?;
    }
    Ok(())
}
