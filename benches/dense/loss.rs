use patchfield::dense::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Result};

use crate::harness::Bench;

pub fn bench(b: &mut Bench) -> Result<()> {
    let count = b.elements();
    let (prediction, target, gradient) = (b.noise(count)?, b.noise(count)?, b.zeros(count)?);
    let loss = b.zeros(1)?;
    let [prediction, target, gradient, loss] = [&prediction, &target, &gradient, &loss].map(BufferView::new);
    let weights = target;
    let context = b.context().clone();
    let losses = [
        ("squared", Loss::Squared, 0.0),
        ("absolute", Loss::Absolute, 0.0),
        ("huber", Loss::Huber { delta: 0.5 }, 0.0),
        ("relative", Loss::Relative { epsilon: 0.01 }, 0.0),
        ("relative of pairs", Loss::Relative { epsilon: 0.01 }, 16.0),
        ("binary cross-entropy", Loss::BinaryCrossEntropy, 0.0),
    ];
    for (name, function, pairs) in losses {
        let config = LossConfig { pairs, ..LossConfig::new(function, count) };
        let kernel = ElementwiseLoss::new(&context, config)?;
        let scratch = kernel.create_scratch()?;
        let args =
            ElementwiseLossArgs { prediction, target, loss, gradient: Some(gradient), scratch: &scratch };
        b.row(&kernel, &format!("{name} with gradient"), format!("[{count}]"), &args)?;
    }
    for classes in [10, 1000] {
        let rows = count / classes;
        let drawn: Vec<u32> = (0..rows).map(|row| row.wrapping_mul(0x9e37_79b9) % classes).collect();
        let class = b.upload(bytemuck::cast_slice(&drawn))?;
        for (name, target) in [
            ("cross-entropy with gradient", CrossEntropyTarget::Classes),
            ("cross-entropy of weights with gradient", CrossEntropyTarget::Weights),
        ] {
            let config = CrossEntropyConfig { target, ..CrossEntropyConfig::new(rows, classes) };
            let kernel = CrossEntropy::new(&context, config)?;
            let scratch = kernel.create_scratch()?;
            let by_class = target == CrossEntropyTarget::Classes;
            let target = if by_class { BufferView::new(&class) } else { weights };
            let args = CrossEntropyArgs {
                logits: prediction,
                target,
                loss,
                gradient: Some(gradient),
                scratch: &scratch,
            };
            b.row(&kernel, name, format!("[{rows}, {classes}]"), &args)?;
        }
    }
    Ok(())
}
