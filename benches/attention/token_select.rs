use patchfield::attention::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    for (batch, tokens, keep) in [(b.size(256, 4096), 196, 164), (b.size(4, 64), 50_176, 12_544)] {
        let config = TokenSelectConfig { batch, tokens, keep, order: TokenOrder::Score };
        let (score, index, inverse) =
            (b.noise(batch * tokens)?, b.zeros(batch * keep)?, b.zeros(batch * tokens)?);
        let [score, index, inverse] = [&score, &index, &inverse].map(BufferView::new);
        let kernel = TokenSelect::new(b.context(), config)?;
        let shape = format!("[{batch}, {tokens}] to {keep}");
        b.row(&kernel, "by score", shape, &TokenSelectArgs { score, index, inverse })?;
    }
    Ok(())
}
