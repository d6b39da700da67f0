//! Centres and shapes from a picture and from distances, each step of k-means against f64, started
//! from the device's step before; and pictures that leave nothing to weigh.

use kernels_tests::harness::Random;
use kernels_tests::harness::adapter::best_context;
use kernels_tests::radial::cluster::Clusters;
use kernels_tests::radial::nearest_neighbours::reference;
use patchfield::dense::RandomState;
use patchfield::radial::*;
use patchfield::{BufferView, Context, Kernel, Planned};

/// Centres, shapes and the report.
struct Outcome {
    centres: Vec<f32>,
    shapes: Vec<f32>,
    report: CentreReport,
}

fn run(
    context: &Context,
    config: CentreInitialisationConfig,
    values: &[f32],
    positions: Option<&[f32]>,
) -> Outcome {
    run_from(context, config, values, positions, &[])
}

/// With centres that are there before.
fn run_from(
    context: &Context,
    config: CentreInitialisationConfig,
    values: &[f32],
    positions: Option<&[f32]>,
    seeds: &[f32],
) -> Outcome {
    let kernel = CentreInitialisation::new(context, config).unwrap();
    let (n, d) = (u64::from(config.centres), u64::from(config.dims()));
    let values = context.create_storage_with("values", values).unwrap();
    let positions = positions.map(|p| context.create_storage_with("positions", p).unwrap());
    let state = context.create_storage("state", 16).unwrap();
    context.write(&state, 0, RandomState::new(3, 1).bytes()).unwrap();
    let centres = context.create_storage("centres", n * d * 4).unwrap();
    context.write(&centres, 0, bytemuck::cast_slice(seeds)).unwrap();
    let shapes = context.create_storage("shapes", n * d * (d + 1) / 2 * 4).unwrap();
    let report = context.create_storage("report", 32).unwrap();
    let scratch = kernel.create_scratch().unwrap();
    let args = CentreInitialisationArgs {
        values: BufferView::new(&values),
        positions: positions.as_ref().map(BufferView::new),
        state: BufferView::new(&state),
        centres: BufferView::new(&centres),
        shapes: BufferView::new(&shapes),
        report: BufferView::new(&report),
        scratch: &scratch,
    };
    let recording = kernel.prepare(&args).unwrap();
    assert_eq!(recording.dispatches().len(), kernel.planned().launches.len());
    context.run_blocking(&recording).unwrap();
    let read = |buffer, n: u64| context.read_blocking::<f32>(BufferView::range(buffer, 0, n * 4)).unwrap();
    let report = context.read_blocking::<CentreReport>(BufferView::new(&report)).unwrap()[0];
    Outcome { centres: read(&centres, n * d), shapes: read(&shapes, n * d * (d + 1) / 2), report }
}

/// The weights as the device has them.
fn weights(context: &Context, importance: Importance, values: &[f32]) -> Vec<f32> {
    let kernel = ImportanceWeights::new(context, importance).unwrap();
    let n = importance.points().unwrap();
    let values = context.create_storage_with("values", values).unwrap();
    let weights = context.create_storage("weights", u64::from(n) * 4).unwrap();
    let report = context.create_storage("report", 32).unwrap();
    let scratch = kernel.create_scratch().unwrap();
    let args = ImportanceArgs {
        values: BufferView::new(&values),
        weights: BufferView::new(&weights),
        report: BufferView::new(&report),
        scratch: &scratch,
    };
    context.run_blocking(&kernel.prepare(&args).unwrap()).unwrap();
    context.read_blocking(BufferView::range(&weights, 0, u64::from(n) * 4)).unwrap()
}

fn check(got: &[f32], want: &[(f64, f64)], what: &str) {
    for (i, (&got, &(value, bound))) in got.iter().zip(want).enumerate() {
        let off = (f64::from(got) - value).abs();
        assert!(off <= bound * 2f64.powi(-24), "{what} [{i}]: {got:e} instead of {value:e}");
    }
}

/// Follows k-means step by step; returns the outcome after the last.
fn follow(
    context: &Context,
    config: CentreInitialisationConfig,
    values: &[f32],
    positions: &[f32],
    extent: [f32; 3],
    resolution: [u32; 3],
) -> Outcome {
    let d = config.dims() as usize;
    let points = config.importance.points().unwrap();
    let weights = weights(context, config.importance, values);
    let given = matches!(config.points, FieldPoints::Positions { .. }).then_some(positions);
    let clusters = ClusterConfig { dims: config.dims(), points, clusters: config.centres };
    let mut costs = Vec::new();
    let mut before: Option<Clusters> = None;
    let mut last = None;
    for iterations in 0..=config.iterations {
        let outcome = run(context, CentreInitialisationConfig { iterations, ..config }, values, given);
        if let Some(before) = &before {
            check(&outcome.centres, &before.moved(), &format!("centres after step {iterations}"));
        } else {
            // Seeds are points that weigh something.
            for seed in outcome.centres.chunks(d) {
                let drawn = positions.chunks(d).zip(&weights).any(|(x, &w)| x == seed && w > 0.0);
                assert!(drawn, "a seed at {seed:?} is no point of any weight");
            }
        }
        let near: Vec<_> = positions.chunks(d).map(|x| reference(x, &outcome.centres, 1)[0]).collect();
        let distance = |(distance, _): &(u32, u32)| f64::from(f32::from_bits(*distance));
        costs.push(near.iter().zip(&weights).map(|(n, &w)| distance(n) * f64::from(w)).sum::<f64>());
        before = Some(Clusters {
            config: clusters,
            positions: positions.to_vec(),
            weights: weights.clone(),
            labels: near.iter().map(|near| near.1).collect(),
            centres: outcome.centres.clone(),
        });
        last = Some(outcome);
    }
    assert!(costs.windows(2).all(|pair| pair[1] <= pair[0] * 1.000_001), "the cost rises: {costs:?}");
    let (outcome, clusters) = (last.unwrap(), before.unwrap());
    let shapes = ClusterShapesConfig {
        alpha: config.alpha,
        scale: config.scale,
        ..ClusterShapesConfig::with_clips(clusters.config, extent, resolution)
    };
    let (expected, [empty, clamped, indefinite]) = clusters.shapes(&shapes);
    check(&outcome.shapes, &expected, "shapes");
    let report = outcome.report;
    assert_eq!((report.empty, report.clamped, report.indefinite), (empty, clamped, indefinite));
    outcome
}

fn picture(width: u32, height: u32) -> Vec<f32> {
    let pixel = |i: u32| {
        let (x, y) = ((i % width) as f32 / width as f32, (i / width) as f32 / height as f32);
        [x, 0.5 + 0.5 * (20.0 * x * y).sin(), if (x - 0.5).hypot(y - 0.5) < 0.3 { 1.0 } else { 0.2 }]
    };
    (0..width * height).flat_map(pixel).collect()
}

fn pixel_positions(width: u32, height: u32) -> Vec<f32> {
    let place = |i: u32, side: u32| (2 * i + 1) as f32 / 128.0 - side as f32 / 128.0;
    (0..width * height).flat_map(|i| [place(i % width, width), place(i / width, height)]).collect()
}

#[test]
fn every_step_agrees_with_f64_in_two_dimensions() {
    let Some(context) = best_context() else { return };
    let (width, height) = (61, 40);
    for centres in [1, 37, 200] {
        let config = CentreInitialisationConfig::for_picture(width, height, 3, centres);
        let extent = [width as f32 / 64.0, height as f32 / 64.0, 1.0];
        let positions = pixel_positions(width, height);
        let outcome =
            follow(&context, config, &picture(width, height), &positions, extent, [width, height, 1]);
        assert_eq!((outcome.report.unusable_weights, outcome.report.uniform), (0, 0));
    }
}

#[test]
fn every_step_agrees_with_f64_in_three_dimensions() {
    let Some(context) = best_context() else { return };
    let mut random = Random::new(46);
    let points = 3000;
    let positions = random.vec(3 * points as usize, -1.0, 1.0);
    let sphere = |x: &[f32]| (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]).sqrt() - 0.6;
    let distances: Vec<f32> = positions.chunks(3).map(sphere).collect();
    let (extent, resolution) = ([2.0; 3], [256; 3]);
    let config = CentreInitialisationConfig {
        importance: Importance::InverseDistance { points },
        points: FieldPoints::Positions { dims: 3, points, extent, resolution },
        centres: 150,
        seeds: CentreSeeds::Drawn,
        iterations: 4,
        alpha: 0.5,
        scale: 4.0,
        stream: 2,
    };
    follow(&context, config, &distances, &positions, extent, resolution);
}

#[test]
fn given_seeds_go_on_from_where_they_are() {
    let Some(context) = best_context() else { return };
    let (config, values) = (CentreInitialisationConfig::for_picture(48, 40, 3, 30), picture(48, 40));
    let after = |iterations| CentreInitialisationConfig { iterations, ..config };
    let [three, five] = [3, 5].map(|steps| run(&context, after(steps), &values, None));
    let given = CentreInitialisationConfig { seeds: CentreSeeds::Given, ..after(2) };
    let on = run_from(&context, given, &values, None, &three.centres);
    assert_eq!((on.centres, on.shapes), (five.centres, five.shapes));
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    let Some(context) = best_context() else { return };
    let config = CentreInitialisationConfig::for_picture(32, 24, 3, 20);
    let values = picture(32, 24);
    let [a, b] = [(); 2].map(|()| run(&context, config, &values, None));
    assert_eq!((&a.centres, &a.shapes), (&b.centres, &b.shapes));
    let other = run(&context, CentreInitialisationConfig { stream: 1, ..config }, &values, None);
    assert_ne!(a.centres, other.centres);
}

#[test]
fn pictures_with_nothing_to_weigh() {
    let Some(context) = best_context() else { return };
    // Width, height, centres, values: one pixel, one colour, more centres than pixels, all NaN.
    for (width, height, centres, values) in [
        (1, 1, 1, vec![0.5; 3]),
        (1, 1, 9, vec![f32::NAN; 3]),
        (20, 15, 40, vec![0.25; 900]),
        (3, 2, 50, picture(3, 2)),
        (8, 8, 10, vec![f32::NAN; 192]),
    ] {
        let config = CentreInitialisationConfig::for_picture(width, height, 3, centres);
        let outcome = run(&context, config, &values, None);
        let case = format!("{width} x {height}, {centres} centres");
        let side = [width as f32 / 128.0, height as f32 / 128.0];
        for centre in outcome.centres.chunks(2) {
            assert!(centre.iter().zip(side).all(|(c, side)| c.abs() <= side), "{case}: {centre:?}");
        }
        for k in outcome.shapes.chunks(3) {
            let determinant = k[0] * k[2] - k[1] * k[1];
            assert!(k[0] > 0.0 && determinant > 0.0 && determinant.is_finite(), "{case}: {k:?}");
        }
        let varied = values.windows(2).any(|pair| pair[0] != pair[1] && pair[0].is_finite());
        assert_eq!(outcome.report.uniform, u32::from(!varied), "{case}");
        let bad = if values[0].is_nan() { width * height } else { 0 };
        assert_eq!(outcome.report.unusable_weights, bad, "{case}");
        assert!(centres <= width * height || outcome.report.empty >= centres - width * height, "{case}");
    }
}

#[test]
fn a_picture_of_kernels_is_covered() {
    let Some(context) = best_context() else { return };
    let config = CentreInitialisationConfig::for_picture(256, 256, 3, 2776);
    let started = std::time::Instant::now();
    let outcome = run(&context, config, &picture(256, 256), None);
    eprintln!("256 x 256 pixels, 2,776 centres, 10 steps: {:?} with compilation", started.elapsed());
    // The clips bound the shapes: the eigenvalues of K lie within those of the extreme variances.
    let (least, most) = ((4.0f32 / 256.0 / 200.0).powi(2), 0.16f32);
    for k in outcome.shapes.chunks(3) {
        let trace = k[0] + k[2];
        assert!(trace >= 1.99 / most / (1.0 + 0.999), "{k:?}");
        assert!(trace <= 2.01 / least / (1.0 - 0.999f32 * 0.999), "{k:?}");
    }
    assert_eq!(outcome.report.indefinite, 0);
    assert!(outcome.report.empty < 400, "{:?}", outcome.report);
}

#[test]
fn what_is_refused() {
    let Some(context) = best_context() else { return };
    let good = CentreInitialisationConfig::for_picture(8, 8, 3, 5);
    let bad = [
        CentreInitialisationConfig { centres: 0, ..good },
        CentreInitialisationConfig { iterations: 10_001, ..good },
        CentreInitialisationConfig { alpha: 0.0, ..good },
        CentreInitialisationConfig { points: FieldPoints::Pixels { width: 8, height: 9 }, ..good },
        CentreInitialisationConfig::for_picture(0, 8, 3, 5),
        CentreInitialisationConfig::for_picture(70_000, 70_000, 3, 5),
    ];
    for config in bad {
        let error = CentreInitialisation::new(&context, config).map(drop).unwrap_err();
        eprintln!("{error}");
    }
    use kernels_tests::radial::{cluster, importance, nearest_neighbours, weighted_sample};
    let all = [
        cluster::refused(&context),
        importance::refused(&context),
        nearest_neighbours::refused(&context),
        weighted_sample::refused(&context),
    ];
    for result in all.into_iter().flatten() {
        eprintln!("{}", result.expect_err("must be refused"));
    }
}
