use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let context = b.context().clone();
    let config = HopfieldConfig {
        batch: b.size(4, 32),
        heads: 8,
        states: 64,
        patterns: 512,
        width: 64,
        update_steps_max: Some(3),
        epsilon: 0.0,
        keep: true,
        ..HopfieldConfig::default()
    };
    let HopfieldConfig { batch, heads, states, patterns, width, .. } = config;
    let shape = format!("[{batch}, {heads}, {states} in {patterns}, {width}], 3 updates");
    let of_state = batch * heads * states * width;
    let of_store = batch * heads * patterns * width;
    let (state, dstate, out, dout) =
        (b.noise(of_state)?, b.zeros(of_state)?, b.zeros(of_state)?, b.noise(of_state)?);
    let (stored, dstored) = (b.noise(of_store)?, b.zeros(of_store)?);
    let beta = b.upload(bytemuck::cast_slice(&vec![0.125f32; heads as usize]))?;
    let active = b.zeros(heads * 4)?;
    let [state, dstate, out, dout, stored, dstored, beta, active] =
        [&state, &dstate, &out, &dout, &stored, &dstored, &beta, &active].map(BufferView::new);
    let forward = HopfieldForward::new(&context, config)?;
    let kept = forward.create_scratch()?;
    let args =
        HopfieldForwardArgs { state, stored, values: None, beta, mask: None, out, active, scratch: &kept };
    b.row(&forward, "forward", &shape, &args)?;
    let backward = HopfieldBackward::new(&context, config)?;
    let scratch = backward.create_scratch()?;
    let args = HopfieldBackwardArgs {
        stored,
        values: None,
        beta,
        active,
        forward: &kept,
        dout,
        dstate,
        dstored: Some(dstored),
        dvalues: None,
        dbeta: None,
        scratch: &scratch,
    };
    b.row(&backward, "backward", &shape, &args)
}
