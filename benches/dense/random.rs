use patchfield::dense::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.size(1 << 22, 1 << 25);
    let (state, y) = (b.upload(RandomState::new(1, 2).bytes())?, b.zeros(count)?);
    let args = RandomArgs { state: BufferView::new(&state), y: BufferView::new(&y) };
    let context = b.context().clone();
    for (what, distribution) in [("uniform", Distribution::Uniform), ("normal", Distribution::Normal)] {
        let config = RandomConfig { count, distribution, scale: 1.0, stream: 0, first_block: 0 };
        b.row(&RandomFill::new(&context, config)?, what, format!("[{count}]"), &args)?;
    }
    let n = count / 4;
    let permutation = RandomPermutation::new(&context, PermutationConfig { rows: 1, n, stream: 0 })?;
    b.row(&permutation, "permutation", format!("[{n}]"), &args)
}
