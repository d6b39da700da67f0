//! The vision transformer as a whole: its gradients, its bits, its files, and that smaller patches
//! see more.

use std::ops::ControlFlow;

use kernels_tests::harness::Random;
use kernels_tests::harness::adapter::best_context;
use patchfield::models::{
    BlockAttention, FitConfig, Pool, Positions, Progress, Prune, Pruning, VisionTrainingConfig,
    VisionTransformer, VisionTransformerConfig,
};
use patchfield::train::{Checkpoint, Schedule, Tape, Tensor, UpdateConfig};
use patchfield::{Context, Error};

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
    let Some(context) = best_context() else { return };
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
    let Some(context) = best_context() else { return };
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

/// A picture, `[channels, side, side]`, and its class, one of four.
type Draw = fn(&mut Random) -> (Vec<f32>, u32);

/// The pixels of a stroke of this direction, one of four, from (x, y) on; those outside the picture are left out.
fn stroke([x, y]: [i32; 2], direction: u32, length: i32, side: i32) -> impl Iterator<Item = usize> {
    let (sx, sy) = [(1, 0), (0, 1), (1, 1), (1, -1)][direction as usize];
    let inside = move |&(x, y): &(i32, i32)| (0..side).contains(&x) && (0..side).contains(&y);
    (0..length)
        .map(move |k| (x + k * sx, y + k * sy))
        .filter(inside)
        .map(move |(x, y)| (y * side + x) as usize)
}

/// Strokes of one of four directions, strewn over noise: `[side, side]`, and which direction.
fn strokes([side, count, length]: [i32; 3], random: &mut Random) -> (Vec<f32>, u32) {
    let class = random.below(4);
    let mut image = random.vec((side * side) as usize, -0.3, 0.3);
    for _ in 0..count {
        let start = [0; 2].map(|_| random.below(side as u32) as i32);
        let light = random.uniform(0.5, 1.0);
        stroke(start, class, length, side).for_each(|at| image[at] += light);
    }
    (image, class)
}

/// Eight strokes of six pixels on 32 x 32.
fn bold(random: &mut Random) -> (Vec<f32>, u32) {
    strokes([32, 8, 6], random)
}

/// Four strokes of three pixels on 16 x 16.
fn fine(random: &mut Random) -> (Vec<f32>, u32) {
    strokes([16, 4, 3], random)
}

/// Four strokes of three pixels of any direction on 8 x 8, in three channels. Each pixel of a stroke has one of two
/// complementary colours, at random; the class is which two: red and cyan, green and magenta, blue and yellow, or
/// white and black.
fn mottled(random: &mut Random) -> (Vec<f32>, u32) {
    const SIDE: i32 = 8;
    const AREA: usize = (SIDE * SIDE) as usize;
    let class = random.below(4);
    let colour = |channel: usize| if class == 3 || class as usize == channel { 1.0 } else { -1.0 };
    let mut image = random.vec(3 * AREA, -0.5, 0.5);
    for _ in 0..4 {
        let start = [0; 2].map(|_| random.below(SIDE as u32) as i32);
        let (direction, light) = (random.below(4), random.uniform(0.5, 1.0));
        for at in stroke(start, direction, 3, SIDE) {
            let light = if random.below(2) == 0 { light } else { -light };
            (0..3).for_each(|channel| image[channel * AREA + at] += light * colour(channel));
        }
    }
    (image, class)
}

fn drawn(draw: Draw, n: usize, random: &mut Random) -> (Vec<f32>, Vec<u32>) {
    let (mut images, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let (image, class) = draw(random);
        images.extend(image);
        classes.push(class);
    }
    (images, classes)
}

fn batch(n: usize, random: &mut Random) -> (Vec<f32>, Vec<u32>) {
    drawn(bold, n, random)
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

/// Trains on ever new images, 16 a step; the loss over images never seen.
fn train(
    context: &Context,
    config: VisionTransformerConfig,
    draw: Draw,
    steps: u64,
    seed: u64,
) -> (VisionTransformer, f64) {
    let model = VisionTransformer::new(context, config, seed).unwrap();
    let update = UpdateConfig { weight_decay: 0.01, ..UpdateConfig::default() };
    let training = VisionTrainingConfig { update, ..Default::default() };
    let mut trainer = model.trainer(16, 0, &training).unwrap();
    let schedule = Schedule::WarmupCosine { warmup: steps / 10, steps, floor: 0.05 };
    let mut random = Random::new(seed);
    for step in 0..steps {
        let (images, classes) = drawn(draw, 16, &mut random);
        trainer.step(&images, &classes, (4e-3 * schedule.factor(step)) as f32).unwrap();
    }
    let (images, classes) = drawn(draw, 512, &mut Random::new(1_000_003));
    let loss = cross_entropy(&model.logits(&images).unwrap(), &classes);
    (model, loss)
}

#[test]
fn it_learns_and_repeats_and_is_read_again_bit_by_bit() {
    let Some(context) = best_context() else { return };
    let (first, loss) = train(&context, small(4), bold, 60, 1);
    // ln 4 = 1.39 is the loss of one who knows nothing.
    assert!(loss < 1.2, "{loss}");
    let (second, again) = train(&context, small(4), bold, 60, 1);
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
    let Some(context) = best_context() else { return };
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
    let Some(context) = best_context() else { return };
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
    let Some(context) = best_context() else { return };
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

/// Share of right answers over images never seen.
fn accuracy(model: &VisionTransformer, draw: Draw) -> f64 {
    let (images, classes) = drawn(draw, 1024, &mut Random::new(1_000_004));
    let logits = model.logits(&images).unwrap();
    let best = |row: &[f32]| (0..4u32).max_by(|&a, &b| row[a as usize].total_cmp(&row[b as usize]));
    let right = logits.chunks(4).zip(&classes).filter(|(row, class)| best(row) == Some(**class)).count();
    right as f64 / classes.len() as f64
}

/// Reversed attention learns, and its lite form, which leaves out 16 % of the tokens after each block, loses little
/// by it.
#[test]
fn reversed_attention_learns_and_its_lite_form_keeps_up() {
    let Some(context) = best_context() else { return };
    let whole = VisionTransformerConfig {
        heads: 4,
        attention: BlockAttention::Reversed { temperature: 0.1 },
        qkv_bias: false,
        ..small(4)
    };
    let lite = VisionTransformerConfig { pruning: Some(Pruning { every: 1, ..Default::default() }), ..whole };
    assert_eq!(lite.tokens_of_blocks(64).unwrap(), [64, 53, 42]);
    let [whole, lite] = [whole, lite].map(|config| {
        let (model, loss) = train(&context, config, bold, 120, 1);
        (loss, accuracy(&model, bold))
    });
    println!("loss and accuracy of all tokens {whole:.5?}, of the lite form {lite:.5?}");
    // By chance ln 4 = 1.39 and 25 %.
    assert!(whole.0 < 0.9 && lite.0 < 0.9, "{whole:?} {lite:?}");
    assert!(lite.1 > whole.1 - 0.03, "{whole:?} {lite:?}");
}

/// For pictures of this size, with positions that turn queries and keys.
fn turned(side: u32, patch: u32) -> VisionTransformerConfig {
    VisionTransformerConfig { image: [side; 2], heads: 2, positions: Positions::Rotary, ..small(patch) }
}

/// The loss over images never seen falls by a tenth or more from each patch size to the next, all else the same.
fn losses_fall<const N: usize>(
    context: &Context,
    patches: [u32; N],
    draw: Draw,
    steps: u64,
    config: impl Fn(u32) -> VisionTransformerConfig,
) {
    // The whole of it takes minutes on a CPU.
    let whole = std::env::var("PATCHFIELD_LONG_TESTS").as_deref() == Ok("1");
    for seed in 1..=if whole { 3 } else { 1 } {
        let losses = patches.map(|patch| train(context, config(patch), draw, steps, seed).1);
        println!("seed {seed}: patches of {patches:?}, test losses {losses:.3?}");
        assert!(losses.windows(2).all(|pair| pair[1] < 0.9 * pair[0]), "seed {seed}: {losses:?}");
    }
}

/// The loss over images never seen falls at every halving of the patch (arXiv 2502.03738, at the size of a toy).
///
/// Strokes of three pixels: no model knows them all before the end, and what tells one direction from another is
/// smaller than a patch of 8. Positions turn queries and keys, so that a pattern is learned for all places at
/// once. With a table of relative biases the losses fall, too (1.35, 0.41, 0.14); with sines and cosines that are
/// added patches of 2 stay behind those of 4 (0.86 and 0.53): there each place is learned for itself, and small
/// patches have many. It is not shown for single pixels: after these 300 steps they know nothing with any of
/// these positions, in windows of 4 x 4, or from larger first values of the biases (1.38; by chance ln 4 = 1.39),
/// nor after 1,200 with turned ones. A single number may say too little for attention to begin with: while biases
/// are 0, a layer norm leaves nothing of it but its sign. Colours help: of red strokes on grey noise (8 x 8, edges
/// joined) single pixels learn something, 0.93 after 300 steps and 0.87 after 900, of white ones nothing, 1.39; but
/// patches of 2 are far ahead, 0.11 and 0.06. What single pixels see best is in [`single_pixels_see_most`]. All
/// these are of the first seed.
#[test]
fn smaller_patches_see_more() {
    let Some(context) = best_context() else { return };
    losses_fall(&context, [8, 4, 2], fine, 300, |patch| turned(16, patch));
}

/// The same down to single pixels, where it is colours that count.
///
/// A pixel of a stroke has either colour of its pair equally often: on average all pictures are grey, and in each
/// channel alone all classes look the same. No weighted sum tells them apart, only whether channels go together or
/// against each other within a pixel. Of a single pixel that is a function of three numbers, one and the same for
/// all pixels. A patch of p x p must be asked at p x p places at once, by the same few neurons, and each place is
/// learned from one in p x p of the examples. All but the patch is the same: width, steps, pictures, rate. A count
/// of colours would do, neither directions nor neighbours matter: this does not show that single pixels find
/// shapes (see [`smaller_patches_see_more`]).
///
/// Seeds 1 to 3: 1.27, 0.82, 0.05, 0.02; 1.24, 0.75, 0.07, 0.02; 1.27, 0.83, 0.07, 0.01; by chance 1.39.
#[test]
fn single_pixels_see_most() {
    let Some(context) = best_context() else { return };
    let config = |patch| VisionTransformerConfig { channels: 3, ..turned(8, patch) };
    losses_fall(&context, [8, 4, 2, 1], mottled, 300, config);
}

#[test]
fn bad_input_is_refused_by_name() {
    let Some(context) = best_context() else { return };
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
