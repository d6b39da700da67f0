use patchfield::attention::*;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let batch = b.elements() / 2 / (3 * 224 * 224);
    let n = batch * 3 * 224 * 224;
    let [image, tokens] = [b.noise(n)?, b.zeros(n)?];
    let [image, tokens] = [&image, &tokens].map(BufferView::new);
    let interleaved = PatchConfig {
        image: ImageLayout::Interleaved,
        token: PatchLayout::ChannelsLast,
        ..PatchConfig::square(batch, 3, 224, 16)
    };
    for (name, config) in [
        ("patches of 16", PatchConfig::square(batch, 3, 224, 16)),
        ("patches of 16, interleaved", interleaved),
        ("patches of 14", PatchConfig::square(batch, 3, 224, 14)),
        ("patches of 1", PatchConfig::square(batch, 3, 224, 1)),
    ] {
        let shape = format!("[{batch}, 3, 224, 224]");
        let cut = Patchify::new(b.context(), config)?;
        b.row(&cut, &format!("patchify, {name}"), &shape, &PatchArgs { image, tokens })?;
        let join = Unpatchify::new(b.context(), config)?;
        b.row(&join, &format!("unpatchify, {name}"), &shape, &PatchArgs { image: tokens, tokens: image })?;
    }
    Ok(())
}
