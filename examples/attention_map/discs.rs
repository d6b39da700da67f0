//! A small vision transformer for a task that it can only do by looking: of what colour is the disc?

use std::sync::atomic::{AtomicBool, Ordering};

use image::{Rgb, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use patchfield::models::{VisionTrainingConfig, VisionTransformer, VisionTransformerConfig};
use patchfield::train::Schedule;
use patchfield::{Context, Result};

use super::draw::planes;

const SIDE: u32 = 32;
const BATCH: usize = 32;
const COLOURS: [[u8; 3]; 4] = [[230, 70, 60], [70, 190, 90], [80, 110, 240], [230, 200, 60]];

/// Numbers of a sequence that a seed begins (Steele et al. 2014, SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 32) * u64::from(n) >> 32) as u32
    }
}

/// Grey noise, specks of all colours, and one disc, whose colour is the class.
fn example(random: &mut Random) -> (RgbImage, u32) {
    let mut picture = RgbImage::from_fn(SIDE, SIDE, |_, _| Rgb([(80 + random.below(60)) as u8; 3]));
    let mut disc = |x: u32, y: u32, radius: f32, colour: [u8; 3]| {
        for (u, v, pixel) in picture.enumerate_pixels_mut() {
            if (u as f32 - x as f32).hypot(v as f32 - y as f32) <= radius {
                *pixel = Rgb(colour);
            }
        }
    };
    for _ in 0..24 {
        let (x, y, colour) = (random.below(SIDE), random.below(SIDE), random.below(4));
        disc(x, y, 1.3, COLOURS[colour as usize]);
    }
    let class = random.below(4);
    let (x, y) = (6 + random.below(SIDE - 12), 6 + random.below(SIDE - 12));
    disc(x, y, 5.0, COLOURS[class as usize]);
    (picture, class)
}

/// Pictures that no training has seen.
pub fn picture(number: u64) -> RgbImage {
    example(&mut Random(u64::MAX / 2 + number)).0
}

fn batch(random: &mut Random, n: usize) -> (Vec<f32>, Vec<u32>) {
    let (mut images, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let (picture, class) = example(random);
        images.extend(planes(&picture, 3));
        classes.push(class);
    }
    (images, classes)
}

/// Trains for some steps or until it is stopped, and says how often it is right.
pub fn train(context: &Context, steps: u64, stop: &AtomicBool) -> Result<VisionTransformer> {
    let config = VisionTransformerConfig {
        image: [SIDE; 2],
        channels: 3,
        patch: 4,
        width: 48,
        depth: 3,
        heads: 3,
        hidden: 96,
        classes: 4,
        ..VisionTransformerConfig::default()
    };
    let model = VisionTransformer::new(context, config, 1)?;
    let mut trainer = model.trainer(BATCH as u32, 1, &VisionTrainingConfig::default())?;
    let schedule = Schedule::WarmupCosine { warmup: steps / 10, steps, floor: 0.05 };
    let mut random = Random(0);
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}") {
        bar.set_style(style);
    }
    for step in 0..steps {
        if stop.swap(false, Ordering::Relaxed) {
            break;
        }
        let (images, classes) = batch(&mut random, BATCH);
        trainer.step(&images, &classes, (2e-3 * schedule.factor(step)) as f32)?;
        if step % 20 == 19 {
            bar.set_message(format!("loss {:.3}", trainer.loss().read(context)?[0]));
        }
        bar.inc(1);
    }
    bar.finish();
    let (images, classes) = batch(&mut Random(1 << 40), 256);
    let logits = model.logits(&images)?;
    let right = logits.chunks(4).zip(&classes).filter(|(row, class)| {
        let best = (0..4).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best == Some(**class as usize)
    });
    stop.store(true, Ordering::Relaxed);
    println!("trained    {} steps; right in {} of 256 new pictures", trainer.steps(), right.count());
    Ok(model)
}
