//! Attention over every pixel: heads of 64 columns, forward, backward and statistics in chunks, in memory that
//! grows with the tokens alone. One head of 4,096 tokens (64 x 64 pixels); with `PATCHFIELD_LONG=1` the 50,176 of
//! 224 x 224, and on a GPU twelve heads (`PATCHFIELD_HEADS` says how many elsewhere). Where twelve heads are more
//! than a binding can hold, they take turns in the same buffers.
//!
//! 256 random rows of every result are compared with f64. The rows of the gradients of keys and values need the
//! log-sum-exp and D of all queries: these are the device's own, whose rows were compared before.

use std::time::Instant;

use kernels_tests::harness::Random;
use kernels_tests::harness::adapter::best_context;
use patchfield::attention::*;
use patchfield::dispatch::Planned;
use patchfield::{BufferView, Context, Kernel, Recording};

const D: usize = 64;
const ROWS: usize = 256;
/// Work of a submission: a second of a slow device.
const CHUNK: u64 = 4 << 30;
/// Roundings of a score and of the sums, as in the cases of the kernel; twice as many backward.
const ULPS: f64 = 92.0;

fn submit(context: &Context, recording: &Recording) -> usize {
    let chunks = recording.chunks(context, CHUNK).unwrap();
    for chunk in &chunks {
        context.run_blocking(chunk).unwrap();
    }
    chunks.len()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Adds `weight * row`, and the size of it.
fn add(sums: &mut [(f64, f64)], weight: f64, size: f64, row: &[f32]) {
    for (sum, &x) in sums.iter_mut().zip(row) {
        *sum = (sum.0 + weight * f64::from(x), sum.1 + (size * f64::from(x)).abs());
    }
}

fn compare(what: &str, row: usize, got: &[f32], want: &[(f64, f64)], ulps: f64) {
    for (c, (&got, want)) in got.iter().zip(want).enumerate() {
        let bound = ulps / 16_777_216.0 * want.1;
        let off = (f64::from(got) - want.0).abs();
        assert!(off <= bound, "{what}[{row}][{c}]: {got} instead of {} (bound {bound:e})", want.0);
    }
}

fn is_long() -> bool {
    std::env::var("PATCHFIELD_LONG").as_deref() == Ok("1")
}

fn tokens() -> usize {
    if is_long() { 224 * 224 } else { 64 * 64 }
}

/// One head; one slice: more would keep a large GPU busier, and keep a result each.
fn one_head(n: usize) -> AttentionConfig {
    AttentionConfig { queries: n as u32, keys: n as u32, slices: Some(1), ..Default::default() }
}

#[test]
fn every_pixel_attends_to_every_pixel() {
    let Some(context) = best_context() else { return };
    let (caps, n) = (context.capabilities(), tokens());
    let heads: usize = match std::env::var("PATCHFIELD_HEADS") {
        Ok(heads) => heads.parse().expect("PATCHFIELD_HEADS is a number"),
        Err(_) if is_long() && !caps.cpu => 12,
        Err(_) => 1,
    };
    // The short loops of a CPU driver ask for two slices of the keys, and an output for each.
    let most = caps.limits.max_storage_buffer_binding_size as usize / (2 * n * D * 4);
    assert!(heads > 0 && most > 0, "{heads} heads, {most} at a time");
    let turns = heads.div_ceil(most);
    for turn in 0..turns {
        let heads = heads / turns + usize::from(turn < heads % turns);
        attend(&context, n, heads, 77 + turn as u64);
    }
}

fn attend(context: &Context, n: usize, heads: usize, seed: u64) {
    let rows = heads * n;
    let layout = AttentionLayout::HeadsTokens;
    let config = AttentionConfig {
        heads: heads as u32,
        q_layout: layout,
        k_layout: layout,
        v_layout: layout,
        o_layout: layout,
        ..one_head(n)
    };
    let mut random = Random::new(seed);
    let [q, k, v, x] = [2.0, 2.0, 1.0, 1.0].map(|size| random.vec(rows * D, -size, size));
    let mut bytes = 0u64;
    let mut buffer = |elements: usize| {
        bytes += elements as u64 * 4;
        context.create_storage("rows", elements as u64 * 4).unwrap()
    };
    let [q_at, k_at, v_at, x_at, o_at, dq_at, dk_at, dv_at] = [(); 8].map(|()| buffer(rows * D));
    let lse_at = buffer(rows);
    for (at, data) in [(&q_at, &q), (&k_at, &k), (&v_at, &v), (&x_at, &x)] {
        context.write(at, 0, bytemuck::cast_slice(data)).unwrap();
    }
    let inputs = AttentionInputs::new((&q_at).into(), (&k_at).into(), (&v_at).into());
    let (o, lse) = (BufferView::new(&o_at), BufferView::new(&lse_at));

    let forward = FlashAttentionForward::new(context, config).unwrap();
    let scratch = forward.create_scratch().unwrap();
    let recording =
        forward.prepare(&FlashAttentionForwardArgs { inputs, o, lse, scratch: &scratch }).unwrap();
    let start = Instant::now();
    let pieces = submit(context, &recording);
    let (forward_seconds, forward_cost) = (start.elapsed().as_secs_f64(), recording.cost());
    let backward = FlashAttentionBackward::new(context, config).unwrap();
    let scratch_back = backward.create_scratch().unwrap();
    let gradients = AttentionGradients::new((&dq_at).into(), (&dk_at).into(), (&dv_at).into());
    let recording = backward
        .prepare(&FlashAttentionBackwardArgs {
            inputs,
            o,
            lse,
            d_o: (&x_at).into(),
            d_lse: None,
            gradients,
            scratch: &scratch_back,
        })
        .unwrap();
    let start = Instant::now();
    let pieces_back = submit(context, &recording);
    let (backward_seconds, backward_cost) = (start.elapsed().as_secs_f64(), recording.cost());
    bytes += forward.planned().scratch_bytes() + backward.planned().scratch_bytes();
    let rate = |flops: u64, seconds: f64| flops as f64 / seconds * 1e-9;
    println!(
        "{heads} x {n} tokens on {}, {}: forward {forward_seconds:.2} s ({:.1} GFLOP/s, {pieces} submissions), \
         backward {backward_seconds:.2} s ({:.1} GFLOP/s, {pieces_back} submissions)",
        context.capabilities().adapter,
        forward.planned().variant,
        rate(forward_cost.flops, forward_seconds),
        rate(backward_cost.flops, backward_seconds),
    );
    let matrix = (rows * n * 4) as u64;
    println!("{bytes} bytes in buffers; the weights alone would take {matrix}");
    // All buffers grow with the tokens: eight tensors, an output for each of the two slices of keys that short
    // loops of a CPU driver ask for, and a few words for each row.
    assert!(bytes <= (rows * (10 * D + 18) * 4) as u64 + 4096, "{bytes}");

    let read = |view| -> Vec<f32> { context.read_blocking(BufferView::new(view)).unwrap() };
    let [o, lse, dq, dk, dv] = [&o_at, &lse_at, &dq_at, &dk_at, &dv_at].map(read);
    let row = |data: &[f32], i: usize| -> Vec<f32> { data[i * D..(i + 1) * D].to_vec() };
    let scale = f64::from(config.scale());
    // The magnitude of a score's error, in units of rounding; of L likewise, and of P relative to it.
    let size = |a: &[f32], b: &[f32]| -> f64 {
        scale * a.iter().zip(b).map(|(&a, &b)| f64::from((a * b).abs())).sum::<f64>()
    };
    let delta: Vec<f64> = (0..rows).map(|i| dot(&row(&x, i), &row(&o, i))).collect();
    let delta_size: Vec<f64> =
        (0..rows).map(|i| row(&x, i).iter().map(|&x| f64::from(x.abs())).sum::<f64>()).collect();
    for _ in 0..ROWS {
        let i = random.below(rows as u32) as usize;
        // The rows of its head.
        let head = i / n * n;
        let (own, own_x) = (row(&q, i), row(&x, i));
        let scores: Vec<f64> = (0..n).map(|j| scale * dot(&own, &row(&k, head + j))).collect();
        let m = scores.iter().copied().fold(f64::MIN, f64::max);
        let l = scores.iter().map(|s| (s - m).exp()).sum::<f64>().ln() + m;
        let e: f64 = (0..n).map(|j| (scores[j] - l).exp() * size(&own, &row(&k, head + j))).sum();
        compare("lse", i, &lse[i..=i], &[(l, 1.0 + e + l.abs())], ULPS);
        let mut out = vec![(0.0, 0.0); D];
        let weights: Vec<(f64, f64)> = (0..n)
            .map(|j| {
                let p = (scores[j] - l).exp();
                (p, p * (1.0 + size(&own, &row(&k, head + j)) + e + (scores[j] - l).abs() + l.abs()))
            })
            .collect();
        for (j, w) in weights.iter().enumerate() {
            add(&mut out, w.0, w.1, &row(&v, head + j));
        }
        compare("o", i, &o[i * D..(i + 1) * D], &out, ULPS);
        let exact: f64 = out.iter().zip(&own_x).map(|(o, &x)| o.0 * f64::from(x)).sum();
        let exact_size: f64 = out.iter().zip(&own_x).map(|(o, &x)| o.1 * f64::from(x.abs())).sum();
        let mut out = vec![(0.0, 0.0); D];
        for (j, w) in weights.iter().enumerate() {
            let (dp, dp_size) = (dot(&own_x, &row(&v, head + j)), delta_size[i]);
            add(
                &mut out,
                scale * w.0 * (dp - exact),
                scale * w.1 * (dp_size + exact_size),
                &row(&k, head + j),
            );
        }
        compare("dq", i, &dq[i * D..(i + 1) * D], &out, 2.0 * ULPS);
    }
    for _ in 0..ROWS {
        let j = random.below(rows as u32) as usize;
        let (own, own_v) = (row(&k, j), row(&v, j));
        let mut out_k = vec![(0.0, 0.0); D];
        let mut out_v = vec![(0.0, 0.0); D];
        for i in j / n * n..(j / n + 1) * n {
            let (q, x, l) = (row(&q, i), row(&x, i), f64::from(lse[i]));
            let s = scale * dot(&q, &own);
            let p = (s - l).exp();
            // L stands for the mean of the scores' errors, too.
            let p_size = p * (1.0 + 2.0 * size(&q, &own) + (s - l).abs() + 2.0 * l.abs());
            add(&mut out_v, p, p_size, &x);
            let ds = scale * p * (dot(&x, &own_v) - delta[i]);
            add(&mut out_k, ds, scale * p_size * 2.0 * delta_size[i], &q);
        }
        compare("dk", j, &dk[j * D..(j + 1) * D], &out_k, 2.0 * ULPS);
        compare("dv", j, &dv[j * D..(j + 1) * D], &out_v, 2.0 * ULPS);
    }
}

#[test]
fn every_pixel_attends_somewhere() {
    let Some(context) = best_context() else { return };
    let (n, mut random) = (tokens(), Random::new(76));
    let [q, k, v] = [2.0, 2.0, 1.0].map(|size| {
        let at = context.create_storage("rows", (n * D * 4) as u64).unwrap();
        context.write(&at, 0, bytemuck::cast_slice(&random.vec(n * D, -size, size))).unwrap();
        at
    });
    let [o, lse] = [n * D, n].map(|words| context.create_storage("rows", words as u64 * 4).unwrap());
    let inputs = AttentionInputs::new((&q).into(), (&k).into(), (&v).into());
    let forward = FlashAttentionForward::new(&context, one_head(n)).unwrap();
    let scratch = forward.create_scratch().unwrap();
    let args = FlashAttentionForwardArgs { inputs, o: (&o).into(), lse: (&lse).into(), scratch: &scratch };
    submit(&context, &forward.prepare(&args).unwrap());
    statistics(&context, one_head(n), inputs, (&lse).into());
}

/// What the weights say as a whole, and 32 random rows and columns of it against f64.
fn statistics(
    context: &Context,
    attention: AttentionConfig,
    inputs: AttentionInputs<'_>,
    lse: BufferView<'_>,
) {
    let n = attention.queries as usize;
    let side = n.isqrt() as u32;
    let grid = PatchGrid { prefix: 0, height: side, width: side };
    let buffer = |elements: usize| context.create_storage("statistics", elements as u64 * 4).unwrap();
    let [entropy, best, best_weight, distance, mass, mean, row, next] = [(); 8].map(|()| buffer(n));
    let hop_mass = buffer(side as usize);
    let mut start = vec![0.0f32; n];
    start[n / 2 + side as usize / 2] = 1.0;
    context.write(&row, 0, bytemuck::cast_slice(&start)).unwrap();
    let config = AttentionRowStatisticsConfig { attention, grid: Some(grid) };
    let rows = AttentionRowStatistics::new(context, config).unwrap();
    let columns =
        AttentionColumnMass::new(context, AttentionColumnMassConfig { attention, weights: false }).unwrap();
    let rollout = AttentionRollout::new(context, AttentionRolloutConfig { attention, share: 0.5 }).unwrap();
    let hops = AttentionHops::new(context, AttentionHopsConfig { attention, grid }).unwrap();
    let mut bytes = 4 * (8 * n as u64 + u64::from(side));
    let timer = Instant::now();
    let mut run = |name: &str, kernel: &dyn Planned, recording: &Recording| {
        bytes += kernel.planned().scratch_bytes();
        let start = Instant::now();
        let pieces = submit(context, recording);
        println!(
            "{name}, {}: {:.2} s, {pieces} submissions",
            kernel.planned().variant,
            start.elapsed().as_secs_f64()
        );
    };
    let scratch = rows.create_scratch().unwrap();
    let args = AttentionRowStatisticsArgs {
        inputs,
        lse,
        entropy: (&entropy).into(),
        best: (&best).into(),
        best_weight: (&best_weight).into(),
        distance: Some((&distance).into()),
        scratch: &scratch,
    };
    run("rows", &rows, &rows.prepare(&args).unwrap());
    let scratch = columns.create_scratch().unwrap();
    let (mass_view, mean) = (BufferView::new(&mass), BufferView::new(&mean));
    let args =
        AttentionColumnMassArgs { inputs, lse, weights: None, mass: mass_view, mean, scratch: &scratch };
    run("columns", &columns, &columns.prepare(&args).unwrap());
    let scratch = rollout.create_scratch().unwrap();
    let args =
        AttentionRolloutArgs { inputs, lse, row: (&row).into(), next: (&next).into(), scratch: &scratch };
    run("rollout", &rollout, &rollout.prepare(&args).unwrap());
    let scratch = hops.create_scratch().unwrap();
    let args = AttentionHopsArgs { inputs, lse, mass: (&hop_mass).into(), scratch: &scratch };
    run("hops", &hops, &hops.prepare(&args).unwrap());
    println!("statistics: {:.2} s, {bytes} bytes in buffers", timer.elapsed().as_secs_f64());
    assert!(bytes <= (n * 64 * 4) as u64, "{bytes}");

    let read = |view| -> Vec<f32> { context.read_blocking(BufferView::new(view)).unwrap() };
    let [entropy, best_weight, distance, mass, next] =
        [&entropy, &best_weight, &distance, &mass, &next].map(read);
    let best: Vec<u32> = context.read_blocking(BufferView::new(&best)).unwrap();
    let [q, k]: [Vec<f32>; 2] = [inputs.q, inputs.k].map(|view| context.read_blocking(view).unwrap());
    let lse: Vec<f32> = context.read_blocking(lse).unwrap();
    let sum = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>();
    // The error of a sum of weights that are off by some hundred roundings, as below, in this direction or that.
    let near = |what: &str, got: f64, want: f64| {
        assert!((got - want).abs() <= 1e-5 * want, "{what}: {got} instead of {want}");
    };
    near("mass", sum(&mass), n as f64);
    near("rings", sum(&read(&hop_mass)), n as f64);
    near("rollout", sum(&next), 1.0);
    let longest = f64::from(side - 1) * std::f64::consts::SQRT_2;
    assert!(entropy.iter().all(|&h| (0.0..=(n as f64).ln() + 1e-5).contains(&f64::from(h))));
    assert!(distance.iter().all(|&d| (0.0..=longest).contains(&f64::from(d))));

    let row = |data: &[f32], i: usize| -> Vec<f32> { data[i * D..(i + 1) * D].to_vec() };
    let scale = f64::from(attention.scale());
    let weight = |i: usize, j: usize| -> (f64, f64, f64) {
        let (q, k, l) = (row(&q, i), row(&k, j), f64::from(lse[i]));
        let d = scale * dot(&q, &k) - l;
        let size: f64 = q.iter().zip(&k).map(|(&a, &b)| scale * f64::from((a * b).abs())).sum();
        (d.exp(), d, size + d.abs() + l.abs())
    };
    let mut random = Random::new(78);
    for _ in 0..32 {
        let i = random.below(n as u32) as usize;
        let (mut h, mut far, mut highest) = ((0.0, 0.0), (0.0, 0.0), (f64::MIN, 0));
        for j in 0..n {
            let (p, d, size) = weight(i, j);
            h = (h.0 - p * d, h.1 + p * (d.abs() * (1.0 + size) + size));
            let (w, i, j) = (side as usize, i as f64, j as f64);
            let (dy, dx) = ((i / w as f64).floor() - (j / w as f64).floor(), i % w as f64 - j % w as f64);
            let length = dy.hypot(dx);
            far = (far.0 + p * length, far.1 + p * length * (7.0 + size));
            if d > highest.0 {
                highest = (d, j as usize);
            }
        }
        compare("entropy", i, &entropy[i..=i], &[h], ULPS);
        compare("distance", i, &distance[i..=i], &[far], ULPS);
        let (p, d, size) = weight(i, best[i] as usize);
        assert!(highest.0 - d <= 1e-5, "best[{i}]: {} instead of {}", best[i], highest.1);
        compare("best_weight", i, &best_weight[i..=i], &[(p, p * (1.0 + size))], ULPS);
        let sums = (0..n)
            .map(|j| weight(j, i))
            .fold((0.0, 0.0), |s, (p, _, size)| (s.0 + p, s.1 + p * (1.0 + size)));
        compare("mass", i, &mass[i..=i], &[sums], ULPS);
    }
}
