use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let gradient = b.noise(count)?;
    let step = b.upload(StepValues::new(1, 1e-3, [0.9, 0.999]).bytes())?;
    // A norm that is never reached: clipping again and again would end at denormals.
    let clip = Clip::new(&b.context().clone(), ClipConfig { counts: vec![count], max_norm: f32::MAX })?;
    let scratch = clip.create_scratch()?;
    let args = ClipArgs {
        gradients: &[BufferView::new(&gradient)],
        step: BufferView::new(&step),
        scratch: &scratch,
    };
    b.row(&clip, "clip", format!("[{count}]"), &args)
}
