use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let side = b.size(1024, 4096);
    let square = MatmulConfig { m: side, n: side, k: side, ..Default::default() };
    let rows = [
        ("A B", square),
        ("A^T B", MatmulConfig { transpose_a: true, ..square }),
        ("A B^T", MatmulConfig { transpose_b: true, ..square }),
        ("f16 A B", MatmulConfig { half: true, ..square }),
        ("A B", MatmulConfig { m: 512, n: 512, k: 512, ..square }),
        ("A B", MatmulConfig { m: 257, n: 509, k: 383, ..square }),
        ("A^T B", MatmulConfig { m: 64, n: 64, k: 64 * side, transpose_a: true, ..square }),
        ("A B", MatmulConfig { m: 196, n: 196, k: 64, batch: 12, ..square }),
    ];
    for (what, config) in rows {
        if config.half && !context.capabilities().f16 {
            continue;
        }
        let MatmulConfig { m, n, k, batch, .. } = config;
        let shape = match batch {
            1 => format!("{m} x {n} x {k}"),
            _ => format!("{batch} of {m} x {n} x {k}"),
        };
        // Any bits do for f16, and the same number of them is more than enough.
        let (x, y) = (b.noise(batch * m * k)?, b.noise(batch * k * n)?);
        let z = b.zeros(batch * m * n)?;
        let [x, y, z] = [&x, &y, &z].map(BufferView::new);
        let kernel = Matmul::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        let args = MatmulArgs { a: x, b: y, bias: None, y: z, kept: None, scratch: &scratch };
        b.row(&kernel, what, shape, &args)?;
    }
    Ok(())
}
