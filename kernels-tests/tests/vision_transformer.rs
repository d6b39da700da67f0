//! The vision transformer as a whole: its gradients, its bits, its files, and that smaller patches
//! see more.

use kernels_tests::harness::{Random, adapter};
use patchfield::dispatch::preference;
use patchfield::models::{Pool, Positions, VisionTransformer, VisionTransformerConfig};
use patchfield::train::{Checkpoint, Schedule, UpdateConfig};
use patchfield::{Context, Error};

fn context() -> Option<Context> {
    let mut all = adapter::all();
    all.sort_by_key(|a| preference(&a.info));
    let first = all.into_iter().next();
    assert!(first.is_some() || std::env::var("PATCHFIELD_REQUIRE_GPU").as_deref() != Ok("1"), "no adapter");
    if first.is_none() {
        eprintln!("LOUD SKIP: no adapter");
    }
    first.map(|a| a.context)
}

fn tiny(pool: Pool, positions: Positions) -> VisionTransformerConfig {
    VisionTransformerConfig {
        image: [4, 6],
        channels: 2,
        patch: 2,
        width: 8,
        depth: 2,
        heads: 2,
        hidden: 12,
        classes: 3,
        pool,
        positions,
        epsilon: 1e-6,
    }
}

/// In f64, as is the mean over the batch.
fn cross_entropy(logits: &[f32], classes: &[u32]) -> f64 {
    let n = logits.len() / classes.len();
    let loss = |row: &[f32], class: u32| {
        let z: Vec<f64> = row.iter().map(|&v| v.into()).collect();
        kernels_tests::dense::loss::cross_entropy(&z, class as usize).0
    };
    let sum: f64 = logits.chunks(n).zip(classes).map(|(row, &class)| loss(row, class)).sum();
    sum / classes.len() as f64
}

#[test]
fn gradients_agree_with_finite_differences() {
    let Some(context) = context() else { return };
    for (pool, positions) in [(Pool::ClassToken, Positions::Learned), (Pool::Mean, Positions::SinCos)] {
        let model = VisionTransformer::new(&context, tiny(pool, positions), 3).unwrap();
        let mut random = Random::new(4);
        // Away from the first values, where biases are 0 and norms are 1.
        for (_, tensor) in model.parameters().iter() {
            let mut values = tensor.read(&context).unwrap();
            values.iter_mut().for_each(|v| *v += random.uniform(-0.3, 0.3));
            tensor.write(&context, &values).unwrap();
        }
        let images = random.vec(3 * 2 * 4 * 6, -1.0, 1.0);
        let classes = [2, 0, 1];
        let mut trainer = model.trainer(3, &UpdateConfig::default()).unwrap();
        // A rate of 0 leaves the parameters alone.
        trainer.step(&images, &classes, 0.0).unwrap();
        let loss = f64::from(trainer.loss().read(&context).unwrap()[0]);
        let logits = model.logits(&images).unwrap();
        assert!((loss - cross_entropy(&logits, &classes)).abs() < 1e-5);
        for ((name, tensor), gradient) in model.parameters().iter().zip(trainer.gradients().unwrap()) {
            let (values, gradient) = (tensor.read(&context).unwrap(), gradient.read(&context).unwrap());
            // Along the gradient itself, and along a random direction.
            for along in [gradient.clone(), random.vec(gradient.len(), -1.0, 1.0)] {
                let size = along.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                if size < 1e-6 {
                    continue;
                }
                let step = 0.003;
                let at = |by: f64| {
                    let moved: Vec<f32> = values
                        .iter()
                        .zip(&along)
                        .map(|(&v, &a)| (f64::from(v) + by * f64::from(a) / size) as f32)
                        .collect();
                    tensor.write(&context, &moved).unwrap();
                    cross_entropy(&model.logits(&images).unwrap(), &classes)
                };
                // Four points: the error is of the fourth order in the step. A loss of logits in f32 is known to
                // about 3e-7, which 18 / 12 of its differences over the step show as 1.5e-4.
                let slope =
                    (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
                tensor.write(&context, &values).unwrap();
                let want: f64 =
                    gradient.iter().zip(&along).map(|(&g, &a)| f64::from(g) * f64::from(a) / size).sum();
                assert!(
                    (slope - want).abs() < 1.5e-4 + 2e-3 * want.abs(),
                    "{pool:?}, {name}: {slope} by differences, {want} by the tape"
                );
            }
        }
    }
}

/// Short strokes of one of four directions, strewn over noise: `[32, 32]`, and which direction.
fn strokes(random: &mut Random) -> (Vec<f32>, u32) {
    let class = random.below(4);
    let (sx, sy) = [(1, 0), (0, 1), (1, 1), (1, -1)][class as usize];
    let mut image = random.vec(32 * 32, -0.3, 0.3);
    for _ in 0..8 {
        let (x, y) = (random.below(32) as i32, random.below(32) as i32);
        let light = random.uniform(0.5, 1.0);
        for (x, y) in (0..6).map(|k| (x + k * sx, y + k * sy)) {
            if (0..32).contains(&x) && (0..32).contains(&y) {
                image[(y * 32 + x) as usize] += light;
            }
        }
    }
    (image, class)
}

fn batch(n: usize, random: &mut Random) -> (Vec<f32>, Vec<u32>) {
    let (mut images, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let (image, class) = strokes(random);
        images.extend(image);
        classes.push(class);
    }
    (images, classes)
}

fn small(patch: u32) -> VisionTransformerConfig {
    VisionTransformerConfig {
        image: [32; 2],
        channels: 1,
        patch,
        width: 32,
        depth: 2,
        heads: 1,
        hidden: 64,
        classes: 4,
        pool: Pool::Mean,
        positions: Positions::Learned,
        epsilon: 1e-6,
    }
}

/// Trains on ever new images; the loss over images never seen.
fn train(context: &Context, patch: u32, steps: u64, size: usize, seed: u64) -> (VisionTransformer, f64) {
    let model = VisionTransformer::new(context, small(patch), seed).unwrap();
    let update = UpdateConfig { weight_decay: 0.01, ..UpdateConfig::default() };
    let mut trainer = model.trainer(size as u32, &update).unwrap();
    let schedule = Schedule::WarmupCosine { warmup: steps / 10, steps, floor: 0.05 };
    let mut random = Random::new(seed);
    for step in 0..steps {
        let (images, classes) = batch(size, &mut random);
        trainer.step(&images, &classes, (4e-3 * schedule.factor(step)) as f32).unwrap();
    }
    let (images, classes) = batch(256, &mut Random::new(1_000_003));
    let loss = cross_entropy(&model.logits(&images).unwrap(), &classes);
    (model, loss)
}

#[test]
fn it_learns_and_repeats_and_is_read_again_bit_by_bit() {
    let Some(context) = context() else { return };
    let (first, loss) = train(&context, 4, 60, 16, 1);
    // ln 4 = 1.39 is the loss of one who knows nothing.
    assert!(loss < 1.2, "{loss}");
    let (second, again) = train(&context, 4, 60, 16, 1);
    assert_eq!(loss.to_bits(), again.to_bits());
    for ((name, a), (_, b)) in first.parameters().iter().zip(second.parameters().iter()) {
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(a.read(&context).unwrap()), bits(b.read(&context).unwrap()), "{name}");
    }
    let path = std::env::temp_dir().join(format!("patchfield-{}-vit.safetensors", std::process::id()));
    first.save(&path).unwrap();
    let loaded = VisionTransformer::load(&context, &path).unwrap();
    assert_eq!(loaded.config(), first.config());
    let (images, _) = batch(3, &mut Random::new(8));
    assert_eq!(loaded.logits(&images).unwrap(), first.logits(&images).unwrap());
    // A file of another shape is refused by name.
    let other = VisionTransformerConfig { width: 16, ..small(4) };
    let file = Checkpoint::load(&path).unwrap();
    let error = VisionTransformer::from_tensors(&context, other, &file, &path).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn smaller_patches_see_more() {
    let Some(context) = context() else { return };
    // The whole of it takes minutes on a CPU: three seeds, and 256 tokens an image.
    let whole = std::env::var("PATCHFIELD_LONG_TESTS").as_deref() == Ok("1");
    let (seeds, patches): (_, &[u32]) = if whole { (1..=3, &[8, 4, 2]) } else { (1..=1, &[8, 4]) };
    // Of models half as wide, or of far more steps, those with patches of 4 and 2 draw level: both have
    // then learned all there is, or those with patches of 2 not enough yet.
    for seed in seeds {
        let losses: Vec<f64> = patches.iter().map(|&p| train(&context, p, 100, 16, seed).1).collect();
        println!("seed {seed}: patches of {patches:?}, test losses {losses:.3?}");
        assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "seed {seed}: {losses:?}");
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let Some(context) = context() else { return };
    let refused = |config: VisionTransformerConfig, what: &str| {
        let error = VisionTransformer::new(&context, config, 0).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    let good = small(8);
    refused(VisionTransformerConfig { patch: 5, ..good }, "`patch`");
    refused(VisionTransformerConfig { patch: 0, ..good }, "`patch`");
    refused(VisionTransformerConfig { heads: 5, ..good }, "`width`");
    refused(VisionTransformerConfig { depth: 0, ..good }, "`depth`");
    refused(VisionTransformerConfig { classes: 0, ..good }, "`classes`");
    refused(VisionTransformerConfig { width: 30, positions: Positions::SinCos, ..good }, "`width`");
    refused(VisionTransformerConfig { hidden: u32::MAX, ..good }, "parameter");
    let model = VisionTransformer::new(&context, good, 0).unwrap();
    assert!(model.logits(&[0.0; 1000]).is_err());
    assert!(model.logits(&[]).is_err());
    assert!(model.trainer(0, &UpdateConfig::default()).is_err());
    let mut trainer = model.trainer(2, &UpdateConfig::default()).unwrap();
    let images = vec![0.0; 2048];
    assert!(trainer.step(&images, &[0, 4], 1e-3).is_err());
    assert!(trainer.step(&images, &[0], 1e-3).is_err());
    assert!(trainer.step(&images[..5], &[0, 1], 1e-3).is_err());
    // A picture that is not finite skips the step: its loss is NaN, the parameters stay.
    let before = model.logits(&images).unwrap();
    let mut bad = images.clone();
    bad[77] = f32::NAN;
    trainer.step(&bad, &[0, 1], 1e-3).unwrap();
    assert!(trainer.loss().read(&context).unwrap()[0].is_nan());
    assert_eq!(model.logits(&images).unwrap(), before);
}
