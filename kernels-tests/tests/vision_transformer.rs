//! The vision transformer as a whole: its gradients, its bits, its files, and that smaller patches
//! see more.

use std::ops::ControlFlow;

use kernels_tests::harness::{Random, adapter};
use patchfield::dispatch::preference;
use patchfield::models::{
    BlockAttention, FitConfig, Pool, Positions, Progress, Prune, Pruning, VisionTrainingConfig,
    VisionTransformer, VisionTransformerConfig,
};
use patchfield::train::{Checkpoint, Schedule, Tape, Tensor, UpdateConfig};
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

/// Six patches, in a grid of 2 x 3.
fn tiny() -> VisionTransformerConfig {
    VisionTransformerConfig {
        image: [4, 6],
        channels: 2,
        patch: 2,
        width: 8,
        depth: 2,
        heads: 2,
        hidden: 12,
        classes: 3,
        ..Default::default()
    }
}

/// Every attention, every kind of positions, every pool and pruning.
fn all_kinds() -> Vec<VisionTransformerConfig> {
    let mean = VisionTransformerConfig { pool: Pool::Mean, ..tiny() };
    let tuned = BlockAttention::Standard { temperature: true, head_scale: true, gate: true };
    let reversed = BlockAttention::Reversed { temperature: 0.5 };
    let windowed = |window, shift| BlockAttention::Windowed { window, shift };
    // Of six tokens four and two are left.
    let pruned = |keep| Some(Pruning { ratio: 0.33, every: 1, keep });
    let speaking = VisionTransformerConfig { attention: reversed, qkv_bias: false, ..mean };
    vec![
        tiny(),
        VisionTransformerConfig { positions: Positions::SinCos, attention: tuned, ..mean },
        VisionTransformerConfig { positions: Positions::Rotary, attention: tuned, ..tiny() },
        VisionTransformerConfig { positions: Positions::Relative, layer_scale: Some(0.5), ..tiny() },
        VisionTransformerConfig { positions: Positions::LearnedOrder, ..tiny() },
        VisionTransformerConfig { positions: Positions::Relative, attention: windowed(2, 1), ..mean },
        VisionTransformerConfig { positions: Positions::Rotary, attention: windowed(1, 0), ..mean },
        VisionTransformerConfig { layer_scale: Some(0.5), ..speaking },
        VisionTransformerConfig { positions: Positions::Rotary, ..speaking },
        VisionTransformerConfig { pruning: pruned(Prune::Received), ..speaking },
        VisionTransformerConfig { pruning: pruned(Prune::Sent), ..speaking },
        VisionTransformerConfig { pool: Pool::Queries(4), ..speaking },
        VisionTransformerConfig {
            pool: Pool::Queries(2),
            positions: Positions::Rotary,
            attention: BlockAttention::Hopfield { updates: 2 },
            ..tiny()
        },
        VisionTransformerConfig { positions: Positions::None, pruning: pruned(Prune::Received), ..mean },
    ]
}

/// Away from the first values, where biases are 0 and norms are 1.
fn scatter(context: &Context, model: &VisionTransformer, random: &mut Random) {
    for (_, tensor) in model.parameters().iter() {
        let mut values = tensor.read(context).unwrap();
        values.iter_mut().for_each(|v| *v += random.uniform(-0.3, 0.3));
        tensor.write(context, &values).unwrap();
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
    for config in all_kinds() {
        let kind = format!("{:?}, {:?}, {:?}", config.attention, config.positions, config.pruning);
        let model = VisionTransformer::new(&context, config, 3).unwrap();
        // Where pruning keeps other tokens the loss jumps: these values are not close to such a place.
        let mut random = Random::new(if config.pruning.is_some() { 7 } else { 4 });
        scatter(&context, &model, &mut random);
        let images = random.vec(3 * 2 * 4 * 6, -1.0, 1.0);
        let classes = [2, 0, 1];
        let mut trainer = model.trainer(3, 0, &VisionTrainingConfig::default()).unwrap();
        // A rate of 0 leaves the parameters alone.
        trainer.step(&images, &classes, 0.0).unwrap();
        let loss = f64::from(trainer.loss().read(&context).unwrap()[0]);
        let logits = model.logits(&images).unwrap();
        assert!((loss - cross_entropy(&logits, &classes)).abs() < 1e-5, "{kind}");
        let image = Tensor::from_slice(&context, "image", &[3, 2, 4, 6], &images).unwrap();
        let mut tape = Tape::new(&context);
        let logits = model.record(&mut tape, &image).unwrap().0.tensor().clone();
        let forward = tape.into_recording();
        for ((name, tensor), gradient) in model.parameters().iter().zip(trainer.gradients().unwrap()) {
            let (values, gradient) = (tensor.read(&context).unwrap(), gradient.read(&context).unwrap());
            // Along the gradient itself and a random direction at once.
            let norm = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let other = random.vec(gradient.len(), -1.0, 1.0);
            let sizes = [norm(&gradient).max(1e-9), norm(&other)];
            let along = |(&g, &o): (&f32, &f32)| f64::from(g) / sizes[0] + f64::from(o) / sizes[1];
            let along: Vec<f64> = gradient.iter().zip(&other).map(along).collect();
            let step = 0.003;
            let at = |by: f64| {
                let moved = values.iter().zip(&along).map(|(&v, &a)| (f64::from(v) + by * a) as f32);
                tensor.write(&context, &moved.collect::<Vec<_>>()).unwrap();
                context.run_blocking(&forward).unwrap();
                cross_entropy(&logits.read(&context).unwrap(), &classes)
            };
            // Four points: the error is of the fourth order in the step. A loss of logits in f32 is known to
            // about 3e-7, which 18 / 12 of its differences over the step show as 1.5e-4.
            let slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
            tensor.write(&context, &values).unwrap();
            let want: f64 = gradient.iter().zip(&along).map(|(&g, &a)| f64::from(g) * a).sum();
            assert!(
                (slope - want).abs() < 1.5e-4 + 2e-3 * want.abs(),
                "{kind}, {name}: {slope} by differences, {want} by the tape"
            );
        }
    }
}

/// Along the gradient of all parameters together the loss rises by the gradient's size, patches dropped, images
/// and labels mixed and smoothed.
#[test]
fn gradients_of_what_a_step_draws() {
    let Some(context) = context() else { return };
    let training = VisionTrainingConfig {
        label_smoothing: 0.1,
        patch_dropout: 0.34,
        patch_mix: 0.5,
        ..Default::default()
    };
    for pool in [Pool::ClassToken, Pool::Mean] {
        let model = VisionTransformer::new(&context, VisionTransformerConfig { pool, ..tiny() }, 3).unwrap();
        let mut random = Random::new(6);
        scatter(&context, &model, &mut random);
        let (images, classes) = (random.vec(3 * 2 * 4 * 6, -1.0, 1.0), [2, 0, 1]);
        // The first step of a new trainer draws the same each time.
        let first = |seed: u64| {
            let mut trainer = model.trainer(3, seed, &training).unwrap();
            trainer.step(&images, &classes, 0.0).unwrap();
            let loss = f64::from(trainer.loss().read(&context).unwrap()[0]);
            (loss, trainer)
        };
        let (loss, mut trainer) = first(5);
        assert_eq!(loss, first(5).0);
        assert_ne!(loss, first(6).0);
        let read = |tensor: &Tensor| tensor.read(&context).unwrap();
        let gradients: Vec<Vec<f32>> = trainer.gradients().unwrap().into_iter().map(read).collect();
        trainer.step(&images, &classes, 0.0).unwrap();
        assert_ne!(loss, f64::from(read(trainer.loss())[0]), "another step draws anew");
        let values: Vec<Vec<f32>> = model.parameters().iter().map(|(_, tensor)| read(tensor)).collect();
        let size = gradients.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let at = |by: f64| {
            for (((_, tensor), values), along) in model.parameters().iter().zip(&values).zip(&gradients) {
                let moved = |(&v, &a): (&f32, &f32)| (f64::from(v) + by * f64::from(a) / size) as f32;
                tensor.write(&context, &values.iter().zip(along).map(moved).collect::<Vec<_>>()).unwrap();
            }
            first(5).0
        };
        // As above; the loss itself is f32 here too.
        let step = 0.01;
        let slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
        assert!(
            (slope - size).abs() < 1.5e-4 + 2e-3 * size,
            "{pool:?}: {slope} by differences, {size} by the tape"
        );
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
        ..Default::default()
    }
}

/// Trains on ever new images; the loss over images never seen.
fn train(context: &Context, patch: u32, steps: u64, size: usize, seed: u64) -> (VisionTransformer, f64) {
    let model = VisionTransformer::new(context, small(patch), seed).unwrap();
    let update = UpdateConfig { weight_decay: 0.01, ..UpdateConfig::default() };
    let training = VisionTrainingConfig { update, ..Default::default() };
    let mut trainer = model.trainer(size as u32, 0, &training).unwrap();
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

/// A fit that is stopped and resumed gives the same bits as one that never was; a loss that is not finite
/// stops it, and the last checkpoint goes on.
#[test]
fn a_stopped_fit_goes_on_bit_by_bit() {
    let Some(context) = context() else { return };
    let path = std::env::temp_dir().join(format!("patchfield-{}-fit.safetensors", std::process::id()));
    let config = VisionTransformerConfig {
        attention: BlockAttention::Reversed { temperature: 0.1 },
        pruning: Some(Pruning { every: 1, ..Default::default() }),
        ..small(8)
    };
    let training = VisionTrainingConfig {
        label_smoothing: 0.1,
        patch_dropout: 0.25,
        patch_mix: 0.25,
        ..Default::default()
    };
    let fit = FitConfig {
        steps: 12,
        batch: 4,
        learning_rate: 2e-3,
        schedule: Schedule::WarmupCosine { warmup: 2, steps: 12, floor: 0.05 },
        seed: 9,
        report_every: 1,
        checkpoint: Some((path.clone(), 3)),
        resume: false,
    };
    // The batch of a step follows from its number.
    let next = |step: u64| Ok(batch(4, &mut Random::new(100 + step)));
    let bits = |model: &VisionTransformer| {
        let bits = |t: &Tensor| t.read(&context).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        model.parameters().iter().map(|(_, tensor)| bits(tensor)).collect::<Vec<_>>()
    };
    let whole = VisionTransformer::new(&context, config, 1).unwrap();
    let mut losses = Vec::new();
    let unsaved = FitConfig { checkpoint: None, ..fit.clone() };
    whole
        .fit(&training, &unsaved, next, |progress| {
            losses.push(progress.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(losses.len(), 12);

    let stopped = VisionTransformer::new(&context, config, 1).unwrap();
    let stop = |step| {
        move |p: &Progress| if p.step == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = stopped.fit(&training, &fit, next, stop(5)).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 5 }), "{error}");
    // A checkpoint is a model, too.
    let loaded = VisionTransformer::load(&context, &path).unwrap();
    assert_eq!(bits(&loaded), bits(&stopped));
    // From other first values; a picture that is not finite stops it at the eighth step.
    let resumed = VisionTransformer::new(&context, config, 2).unwrap();
    let on = FitConfig { resume: true, ..fit.clone() };
    let spoilt = |step: u64| {
        let (mut images, classes) = batch(4, &mut Random::new(100 + step));
        if step == 7 {
            // A whole picture: patches are dropped.
            images[..1024].fill(f32::NAN);
        }
        Ok((images, classes))
    };
    let error = resumed.fit(&training, &on, spoilt, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::NonFinite { step: 8, .. }), "{error}");
    assert!(error.to_string().contains("fit.safetensors"), "{error}");
    let again = VisionTransformer::new(&context, config, 3).unwrap();
    let mut rest = Vec::new();
    again
        .fit(&training, &on, next, |progress| {
            rest.push(progress.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    // The last good checkpoint was that of step 6.
    assert_eq!(rest, losses[6..]);
    assert_eq!(bits(&again), bits(&whole));
    let other = FitConfig { seed: 10, ..on };
    let error = again.fit(&training, &other, next, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    std::fs::remove_file(path).unwrap();
}

/// Retrieval without an update is attention, of whose parameters it has the same and beta.
#[test]
fn retrieval_without_updates_is_attention() {
    let Some(context) = context() else { return };
    let plain = VisionTransformer::new(&context, tiny(), 3).unwrap();
    let attention = BlockAttention::Hopfield { updates: 0 };
    let retrieving =
        VisionTransformer::new(&context, VisionTransformerConfig { attention, ..tiny() }, 4).unwrap();
    for (name, tensor) in plain.parameters().iter() {
        retrieving.parameters().get(name).unwrap().write(&context, &tensor.read(&context).unwrap()).unwrap();
    }
    let images = Random::new(5).vec(2 * 2 * 4 * 6, -1.0, 1.0);
    let [a, b] = [&plain, &retrieving].map(|model| model.logits(&images).unwrap());
    // Two blocks of a few dozen roundings, of logits near 1.
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
}

/// The lite form of DependencyViT-Tiny, at its own size: 224 x 224 pixels, 12 blocks, 69 tokens at the end.
#[test]
fn dependency_vit_lite_runs_at_its_own_size() {
    let Some(context) = context() else { return };
    let config = VisionTransformerConfig {
        pruning: Some(Pruning::default()),
        ..VisionTransformerConfig::dependency_tiny()
    };
    let tokens = config.tokens_of_blocks(config.tokens()).unwrap();
    assert_eq!([0, 3, 6, 9, 12].map(|block| tokens[block]), [196, 164, 132, 100, 69]);
    let model = VisionTransformer::new(&context, config, 1).unwrap();
    let logits = model.logits(&Random::new(2).vec(3 * 224 * 224, -1.0, 1.0)).unwrap();
    assert_eq!(logits.len(), 1000);
    assert!(logits.iter().all(|z| z.is_finite()));
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
    refused(VisionTransformerConfig { heads: 16, positions: Positions::Rotary, ..good }, "`heads`");
    refused(VisionTransformerConfig { width: 31, positions: Positions::LearnedOrder, ..good }, "`width`");
    refused(VisionTransformerConfig { layer_scale: Some(f32::NAN), ..good }, "`layer_scale`");
    let windowed = |window, shift| BlockAttention::Windowed { window, shift };
    refused(VisionTransformerConfig { attention: windowed(0, 0), ..good }, "`attention.window`");
    refused(VisionTransformerConfig { attention: windowed(2, 2), ..good }, "`attention.shift`");
    refused(VisionTransformerConfig { attention: windowed(2, 1), pool: Pool::ClassToken, ..good }, "`pool`");
    let turned = VisionTransformerConfig { positions: Positions::Rotary, attention: windowed(3, 1), ..good };
    refused(turned, "`positions`");
    let reversed = |temperature| BlockAttention::Reversed { temperature };
    refused(VisionTransformerConfig { attention: reversed(0.0), ..good }, "`attention.temperature`");
    refused(VisionTransformerConfig { attention: reversed(0.1), pool: Pool::ClassToken, ..good }, "`pool`");
    refused(VisionTransformerConfig { pool: Pool::Queries(5), ..good }, "`pool`");
    let hopfield = BlockAttention::Hopfield { updates: 65 };
    refused(VisionTransformerConfig { attention: hopfield, ..good }, "`attention.updates`");
    let attention = BlockAttention::Hopfield { updates: 1 };
    refused(VisionTransformerConfig { attention, positions: Positions::Relative, ..good }, "`positions`");
    let pruning = Some(Pruning { every: 1, ..Default::default() });
    let pruned = VisionTransformerConfig { pruning, ..good };
    refused(VisionTransformerConfig { pool: Pool::ClassToken, ..pruned }, "`pool`");
    refused(VisionTransformerConfig { attention: windowed(2, 1), ..pruned }, "`pruning`");
    refused(VisionTransformerConfig { attention, ..pruned }, "`pruning`");
    refused(VisionTransformerConfig { positions: Positions::Relative, ..pruned }, "`positions`");
    let with = |pruning| VisionTransformerConfig { pruning: Some(pruning), ..good };
    refused(with(Pruning { every: 0, ..Default::default() }), "`pruning.every`");
    refused(with(Pruning { every: 1, ratio: 0.6, ..Default::default() }), "`ratio`");
    refused(with(Pruning { keep: Prune::Sent, ..Default::default() }), "`pruning.keep`");
    let model = VisionTransformer::new(&context, good, 0).unwrap();
    assert!(model.logits(&[0.0; 1000]).is_err());
    assert!(model.logits(&[]).is_err());
    let plain = VisionTrainingConfig::default();
    assert!(model.trainer(0, 0, &plain).is_err());
    let training = |config: VisionTransformerConfig, training: VisionTrainingConfig, what: &str| {
        let model = VisionTransformer::new(&context, config, 0).unwrap();
        let error = model.trainer(2, 0, &training).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    training(good, VisionTrainingConfig { patch_dropout: 1.0, ..plain }, "`patch_dropout`");
    training(good, VisionTrainingConfig { patch_mix: f32::NAN, ..plain }, "`patch_mix`");
    training(good, VisionTrainingConfig { label_smoothing: -0.1, ..plain }, "`smoothing`");
    let rotary = VisionTransformerConfig { positions: Positions::Rotary, ..good };
    training(rotary, VisionTrainingConfig { patch_dropout: 0.5, ..plain }, "`patch_dropout`");
    let mut trainer = model.trainer(2, 0, &plain).unwrap();
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
