//! Bad input of every kind: each is an error that names the argument and the numbers, and nothing is lost.
//! One table for kernels, one for files, one for the demo as a stranger runs it.
//!
//! (NaN among the pixels of a fit, and what `fit` refuses: `training.rs`.) Runs on the best adapter that
//! there is; without one it is a loud skip, and a failure when `PATCHFIELD_REQUIRE_GPU=1`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kernels_tests::harness::adapter::best_device;
use patchfield::dense::*;
use patchfield::dispatch::{Arg, Capabilities, Plan, Readback, Recording, Scratch};
use patchfield::models::{RadialField, RadialFieldConfig};
use patchfield::radial::*;
use patchfield::train::{Checkpoint, Tensor};
use patchfield::{BufferView, Context, Error, Kernel, Result};
use serde_json::{Value, json};

fn relu(count: u32) -> ActivationConfig {
    ActivationConfig { activation: Activation::Relu, count, variant: None }
}

fn forward<'a>(x: &'a wgpu::Buffer, y: &'a wgpu::Buffer) -> ActivationForwardArgs<'a> {
    ActivationForwardArgs { x: BufferView::new(x), y: BufferView::new(y) }
}

/// The error of a row and the words that must be in it.
fn check(row: &str, error: Error, fits: fn(&Error) -> bool, says: &[&str]) {
    let text = error.to_string();
    assert!(fits(&error), "{row}: {error:?}");
    for word in says {
        assert!(text.contains(word), "{row}: `{word}` is not in: {text}");
    }
}

/// Sizes that a configuration can be wrong in: refused by the plan, which needs no device.
#[test]
fn sizes() {
    use patchfield::attention::*;
    type Row = (&'static str, fn(&Capabilities) -> Result<Plan>, &'static [&'static str]);
    const BIG: u32 = 1 << 20;
    let zero: [Row; 11] = [
        ("activation", |c| ActivationForward::plan(&relu(0), c), &["`count` = 0"]),
        (
            "matmul m",
            |c| Matmul::plan(&MatmulConfig { m: 0, n: 1, k: 1, ..Default::default() }, c),
            &["`m` = 0"],
        ),
        (
            "matmul k",
            |c| Matmul::plan(&MatmulConfig { m: 1, n: 1, k: 0, ..Default::default() }, c),
            &["`k` = 0"],
        ),
        (
            "gather",
            |c| Gather::plan(&GatherConfig { rows: 0, n: 1, width: 1, variant: None }, c),
            &["`rows` = 0"],
        ),
        (
            "gather width",
            |c| Gather::plan(&GatherConfig { rows: 1, n: 1, width: 0, variant: None }, c),
            &["`width` = 0"],
        ),
        ("sort", |c| Sort::plan(&sort(0), c), &["`count` = 0"]),
        ("clip", |c| Clip::plan(&ClipConfig { counts: vec![4, 0], max_norm: 1.0 }, c), &["0"]),
        (
            "grid",
            |c| GridEncodingForward::plan(&GridEncodingConfig { points: 0, ..Default::default() }, c),
            &["`points` = 0"],
        ),
        (
            "grid levels",
            |c| GridEncodingForward::plan(&GridEncodingConfig { levels: 0, ..Default::default() }, c),
            &["`levels` = 0"],
        ),
        (
            "mlp",
            |c| FusedMlpForward::plan(&FusedMlpConfig { points: 0, ..Default::default() }, c),
            &["`points` = 0"],
        ),
        (
            "sine",
            |c| {
                let activation = Activation::Sine { frequency: f32::NAN };
                ActivationForward::plan(&ActivationConfig { activation, ..relu(4) }, c)
            },
            &["frequency", "NaN"],
        ),
    ];
    for (row, plan, says) in zero {
        let error = plan(&Capabilities::baseline()).map(|_| ()).expect_err(row);
        check(row, error, |e| matches!(e, Error::Config { .. } | Error::Shape { .. }), says);
    }
    let large: [Row; 5] = [
        (
            "matmul",
            |c| Matmul::plan(&MatmulConfig { m: BIG, n: BIG, k: 1, ..Default::default() }, c),
            &["1099511627776 elements"],
        ),
        (
            "gather",
            |c| Gather::plan(&GatherConfig { rows: 1, n: BIG, width: BIG, variant: None }, c),
            &["1099511627776 elements"],
        ),
        (
            "grid",
            |c| GridEncodingForward::plan(&GridEncodingConfig { points: u32::MAX, ..Default::default() }, c),
            &["elements", "below 2^32"],
        ),
        (
            "mlp",
            |c| FusedMlpForward::plan(&FusedMlpConfig { points: u32::MAX, ..Default::default() }, c),
            &["elements", "below 2^32"],
        ),
        (
            "a row of padding too many",
            |c| {
                let (grid, window) = ([1, 1, u32::MAX], [1, 1, 2]);
                let config =
                    WindowAttentionConfig { grid, window, heads: 1, head_dim: 1, ..Default::default() };
                WindowAttentionForward::plan(&config, c)
            },
            &["`q`", "4294967296 elements"],
        ),
    ];
    for (row, plan, says) in large {
        let error = plan(&Capabilities::baseline()).map(|_| ()).expect_err(row);
        check(row, error, |e| matches!(e, Error::IndexOverflow { .. }), says);
    }
    // A variant that the device cannot run, or the size cannot.
    let half = MatmulConfig { m: 8, n: 8, k: 8, half: true, ..Default::default() };
    let error = Matmul::plan(&half, &Capabilities::baseline()).unwrap_err();
    check("f16", error, |e| matches!(e, Error::FeatureMissing { .. }), &["SHADER_F16"]);
    let odd = ActivationConfig { variant: Some(ActivationVariant::Vec4), ..relu(5) };
    let error = ActivationForward::plan(&odd, &Capabilities::baseline()).unwrap_err();
    check("vec4 of 5", error, |e| matches!(e, Error::Config { .. }), &["variant"]);
    // The largest count that indices can hold is none of these.
    assert!(ActivationForward::plan(&relu(u32::MAX), &Capabilities::baseline()).is_ok());
}

/// Counts of any sizes: no panic where 64 bits are too few.
#[test]
fn counts_saturate() {
    use patchfield::attention::*;
    const MOST: u32 = u32::MAX;
    let attention = AttentionConfig { batch: MOST, heads: MOST, queries: MOST, ..Default::default() };
    assert_eq!(attention.lse_count(), u64::MAX);
    let pool = QueryPoolConfig {
        patches: MOST,
        channels: MOST,
        queries: MOST,
        projections: MOST,
        outputs: MOST,
        ..Default::default()
    };
    assert_eq!([pool.parameters(), pool.parameters_with_head(MOST)], [u64::MAX; 2]);
    assert_eq!([pool.multiply_adds(), pool.multiply_adds_projected_first()], [u64::MAX; 2]);
}

/// Sizes for which an invocation's loops would have more rounds than a CPU adapter's driver lets them
/// have: refused, where nothing else computes them.
#[test]
fn loops_that_a_driver_would_end() {
    use patchfield::attention::*;
    type Row = (&'static str, fn(&Capabilities) -> Result<Plan>, &'static [&'static str]);
    let rows: [Row; 16] = [
        (
            "reduce",
            |c| {
                ReduceForward::plan(
                    &ReduceConfig {
                        reduction: Reduction::Sum,
                        outer: 1,
                        n: 100_000,
                        inner: 3,
                        variant: Some(ReduceVariant::Columns),
                        part: Some(70_000),
                    },
                    c,
                )
            },
            &["`part` = 70000", "at most 56"],
        ),
        (
            "softmax",
            |c| {
                let variant = Some(SoftmaxVariant::Invocation);
                SoftmaxForward::plan(&SoftmaxConfig { n: 30_001, rows: 9, variant, ..Default::default() }, c)
            },
            &["`n` = 30001", "at most 20000"],
        ),
        (
            "cross-entropy",
            |c| {
                let variant = Some(CrossEntropyVariant::Invocation);
                let (rows, classes) = (3, 50_257);
                CrossEntropy::plan(
                    &CrossEntropyConfig { variant, ..CrossEntropyConfig::new(rows, classes) },
                    c,
                )
            },
            &["`classes` = 50257", "at most 20000"],
        ),
        (
            "slices of a sum",
            |c| {
                let variant = Some(MatmulVariant::Naive);
                Matmul::plan(&MatmulConfig { k: 1 << 30, variant, ..Default::default() }, c)
            },
            &["`k` = 1073741824", "at most 599995431"],
        ),
        (
            "cross-entropy",
            |c| {
                let (rows, classes) = (1, 6_000_000);
                CrossEntropy::plan(&CrossEntropyConfig::new(rows, classes), c)
            },
            &["`classes` = 6000000"],
        ),
        (
            "layer norm",
            |c| {
                LayerNormForward::plan(
                    &LayerNormConfig { rows: 1, width: 6_000_001, ..Default::default() },
                    c,
                )
            },
            &["`width` = 6000001"],
        ),
        (
            "token selection",
            |c| {
                let order = TokenOrder::Score;
                TokenSelect::plan(&TokenSelectConfig { batch: 1, tokens: 1 << 21, keep: 9, order }, c)
            },
            &["`tokens` = 2097152", "at most"],
        ),
        (
            "transport",
            |c| {
                let transport = TransportConfig { tokens: 1 << 18, experts: 2, nonzeros: 9, gamma: 0.1 };
                TransportObjective::plan(
                    &TransportObjectiveConfig { transport, dual: TransportDual::SemiDual },
                    c,
                )
            },
            &["`tokens` = 262144", "at most"],
        ),
        (
            "combine",
            |c| CombineBackward::plan(&CombineConfig { tokens: 2, slots: 2, width: 1_000_000 }, c),
            &["`width` = 1000000", "at most 240000"],
        ),
        (
            "head selector",
            |c| {
                HeadSelectorForward::plan(&HeadSelectorConfig { rows: 1, heads: 30_000, temperature: 1.0 }, c)
            },
            &["`heads` = 30000", "at most 20000"],
        ),
        (
            "Hopfield",
            |c| {
                HopfieldForward::plan(
                    &HopfieldConfig {
                        states: 5001,
                        patterns: 5001,
                        width: 1,
                        update_steps_max: Some(1),
                        ..Default::default()
                    },
                    c,
                )
            },
            &["`states` = 5001", "at most"],
        ),
        (
            "Hopfield",
            |c| {
                HopfieldForward::plan(
                    &HopfieldConfig { batch: 70_000, update_steps_max: Some(1), ..Default::default() },
                    c,
                )
            },
            &["`batch` = 70000", "at most 60000"],
        ),
        (
            "a bias that all share",
            |c| {
                let config = AttentionConfig {
                    batch: 10_000,
                    heads: 8,
                    bias: AttentionBias::Dense { share_batch: true, share_heads: true },
                    bias_gradient: true,
                    ..Default::default()
                };
                FlashAttentionBackward::plan(&config, c)
            },
            &["`batch` = 10000", "at most 6000"],
        ),
        (
            "mass of columns",
            |c| {
                let attention = AttentionConfig { heads: 30_000, ..Default::default() };
                AttentionColumnMass::plan(&AttentionColumnMassConfig { attention, weights: false }, c)
            },
            &["`heads` = 30000", "at most 20000"],
        ),
        (
            "rollout",
            |c| {
                let attention = AttentionConfig { heads: 30_000, ..Default::default() };
                AttentionRollout::plan(&AttentionRolloutConfig { attention, share: 0.5 }, c)
            },
            &["`heads` = 30000", "at most 20000"],
        ),
        (
            "a temperature of all heads",
            |c| {
                let config = AttentionConfig { heads: 70_000, temperature: true, ..Default::default() };
                FlashAttentionBackward::plan(&config, c)
            },
            &["`heads` = 70000", "at most 60000"],
        ),
    ];
    let gpu = Capabilities::baseline();
    let cpu = Capabilities { cpu: true, ..Capabilities::baseline() };
    for (row, plan, says) in rows {
        check(row, plan(&cpu).unwrap_err(), |e| matches!(e, Error::Config { .. }), says);
        plan(&gpu).unwrap_or_else(|error| panic!("{row}: {error}"));
    }
    // Where there is another way, it is taken.
    let softmax = SoftmaxForward::plan(&SoftmaxConfig { n: 50_257, rows: 64, ..Default::default() }, &cpu);
    assert_eq!(softmax.unwrap().variant, "parts");
    let norm = LayerNormConfig { rows: 2, width: 3 * 224 * 224, ..Default::default() };
    assert_eq!(LayerNormForward::plan(&norm, &cpu).unwrap().variant, "workgroup");
    // Results enough for a GPU without slices.
    let product = MatmulConfig { m: 1024, n: 1024, k: 100_000, ..Default::default() };
    assert_eq!(Matmul::plan(&product, &cpu).unwrap().launches.len(), 2);
    assert_eq!(Matmul::plan(&product, &gpu).unwrap().launches.len(), 1);
}

fn sort(count: u32) -> SortConfig {
    SortConfig {
        key: SortKey::U32,
        count,
        payload: SortPayload::Indices,
        descending: false,
        bits: 32,
        variant: None,
    }
}

/// Outputs that no launch of a kernel of several sees together with what they would overwrite.
#[test]
fn outputs_in_the_place_of_others() {
    let Some((device, queue)) = best_device() else { return };
    let context = Context::new(&device, &queue);
    let buffer: [wgpu::Buffer; 8] = std::array::from_fn(|_| context.create_storage("any", 4096).unwrap());
    let [a, b, c, d, e, f, g, h] = buffer.each_ref().map(BufferView::new);
    let refused = |result: Result<Recording>, what, other| {
        assert_eq!(result.map(drop), Err(Error::Aliased { what, other }));
    };

    let kernel =
        LayerNormBackward::new(&context, LayerNormConfig { rows: 9, width: 8, ..Default::default() });
    let (kernel, scratch) = with_scratch(kernel);
    let good = LayerNormBackwardArgs {
        h: a,
        statistics: b,
        weight: Some(c),
        dy: d,
        dhidden: None,
        dh: e,
        dweight: Some(f),
        dbias: Some(g),
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&LayerNormBackwardArgs { dweight: Some(e), ..good }), "dweight", "dh");
    refused(kernel.prepare(&LayerNormBackwardArgs { dbias: Some(f), ..good }), "dbias", "dweight");
    refused(kernel.prepare(&LayerNormBackwardArgs { dbias: Some(a), ..good }), "dbias", "h");

    let config = ConcatenateConfig { rows: 5, first: 4, second: 4, bias: true };
    let (kernel, scratch) = with_scratch(ConcatenateBackward::new(&context, config));
    let good = ConcatenateBackwardArgs { da: a, db: b, dy: c, dbias: Some(d), scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&ConcatenateBackwardArgs { dbias: Some(b), ..good }), "dbias", "db");

    let (kernel, scratch) = with_scratch(ElementwiseLoss::new(&context, LossConfig::new(Loss::Squared, 64)));
    let good =
        ElementwiseLossArgs { prediction: a, target: b, loss: c, gradient: Some(d), scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&ElementwiseLossArgs { loss: d, ..good }), "loss", "gradient");
    refused(kernel.prepare(&ElementwiseLossArgs { loss: b, ..good }), "loss", "target");

    let config = InvertedIndexConfig { rows: 7, n: 100 };
    let (kernel, scratch) = with_scratch(InvertedIndex::new(&context, config));
    let good = InvertedIndexArgs { index: a, order: b, starts: c, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&InvertedIndexArgs { starts: b, ..good }), "starts", "order");
    refused(kernel.prepare(&InvertedIndexArgs { order: a, ..good }), "order", "index");

    let config = ClipConfig { counts: vec![64, 64], max_norm: 1.0 };
    let (kernel, scratch) = with_scratch(Clip::new(&context, config));
    let good = ClipArgs { gradients: &[g, h], step: a, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&ClipArgs { step: h, ..good }), "step", "gradients");
}

/// The same of attention's kernels, and of what surrounds it.
#[test]
fn outputs_of_attention_in_the_place_of_others() {
    use patchfield::attention::*;
    let Some((device, queue)) = best_device() else { return };
    let context = Context::new(&device, &queue);
    let buffer: [wgpu::Buffer; 12] = std::array::from_fn(|_| context.create_storage("any", 1 << 14).unwrap());
    let [a, b, c, d, e, f, g, h, i, j, k, l] = buffer.each_ref().map(BufferView::new);
    let refused = |result: Result<Recording>, what, other| {
        assert_eq!(result.map(drop), Err(Error::Aliased { what, other }));
    };

    let config = SmallAttentionConfig {
        instances: 2,
        tokens: 3,
        heads: 1,
        head_dim: 4,
        mask: true,
        ..Default::default()
    };
    let (kernel, scratch) = with_scratch(SmallAttentionBackward::new(&context, config));
    let good = SmallAttentionBackwardArgs {
        q: a,
        k: b,
        v: c,
        mask: Some(d),
        o: e,
        lse: f,
        dout: g,
        dq: h,
        dk: i,
        dv: j,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&SmallAttentionBackwardArgs { dk: h, ..good }), "dk", "dq");
    refused(kernel.prepare(&SmallAttentionBackwardArgs { dv: e, ..good }), "dv", "o");
    refused(kernel.prepare(&SmallAttentionBackwardArgs { dq: f, ..good }), "dq", "lse");

    let config = WindowAttentionConfig {
        grid: [1, 5, 4],
        window: [1, 4, 4],
        heads: 1,
        head_dim: 4,
        ..Default::default()
    };
    let (kernel, scratch) = with_scratch(WindowAttentionForward::new(&context, config));
    let good =
        WindowAttentionForwardArgs { q: a, k: b, v: c, table: Some(d), o: e, lse: f, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&WindowAttentionForwardArgs { o: d, ..good }), "o", "table");
    let (kernel, scratch) = with_scratch(WindowAttentionBackward::new(&context, config));
    let good = WindowAttentionBackwardArgs {
        q: a,
        k: b,
        v: c,
        table: Some(d),
        o: e,
        lse: f,
        dout: g,
        dq: h,
        dk: i,
        dv: j,
        dtable: Some(k),
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&WindowAttentionBackwardArgs { dtable: Some(d), ..good }), "dtable", "table");
    refused(kernel.prepare(&WindowAttentionBackwardArgs { dtable: Some(h), ..good }), "dtable", "dq");

    let config = HopfieldConfig {
        batch: 2,
        states: 2,
        patterns: 3,
        width: 4,
        values: Some(4),
        update_steps_max: Some(2),
        mask: true,
        keep: true,
        ..Default::default()
    };
    let (kernel, kept) = with_scratch(HopfieldForward::new(&context, config));
    let good = HopfieldForwardArgs {
        state: a,
        stored: b,
        values: Some(c),
        beta: d,
        mask: Some(e),
        out: f,
        active: g,
        scratch: &kept,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&HopfieldForwardArgs { active: c, ..good }), "active", "values");
    refused(kernel.prepare(&HopfieldForwardArgs { active: e, ..good }), "active", "mask");
    refused(kernel.prepare(&HopfieldForwardArgs { out: a, ..good }), "out", "state");
    refused(kernel.prepare(&HopfieldForwardArgs { out: g, ..good }), "active", "out");
    let (kernel, scratch) = with_scratch(HopfieldBackward::new(&context, config));
    let good = HopfieldBackwardArgs {
        stored: b,
        values: Some(c),
        beta: d,
        active: g,
        forward: &kept,
        dout: h,
        dstate: i,
        dstored: Some(j),
        dvalues: Some(k),
        dbeta: Some(l),
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&HopfieldBackwardArgs { dvalues: Some(j), ..good }), "dvalues", "dstored");
    refused(kernel.prepare(&HopfieldBackwardArgs { dbeta: Some(i), ..good }), "dbeta", "dstate");
    refused(kernel.prepare(&HopfieldBackwardArgs { dstored: Some(c), ..good }), "dstored", "values");

    let config = QueryPoolConfig {
        batch: 2,
        patches: 3,
        channels: 4,
        queries: 2,
        projections: 2,
        outputs: 2,
        ..Default::default()
    };
    let (kernel, scratch) = with_scratch(QueryPoolForward::new(&context, config));
    let good = QueryPoolForwardArgs {
        x: a,
        keys: None,
        queries: b,
        weight: Some(c),
        mask: None,
        attention: d,
        pooled: e,
        y: Some(f),
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&QueryPoolForwardArgs { attention: c, ..good }), "attention", "weight");
    refused(kernel.prepare(&QueryPoolForwardArgs { y: Some(d), ..good }), "y", "attention");
    let (kernel, scratch) = with_scratch(QueryPoolBackward::new(&context, config));
    let good = QueryPoolBackwardArgs {
        x: a,
        keys: None,
        queries: b,
        weight: Some(c),
        attention: d,
        pooled: e,
        dy: g,
        dqueries: h,
        dweight: Some(i),
        dx: Some(j),
        dkeys: None,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&QueryPoolBackwardArgs { dweight: Some(d), ..good }), "dweight", "attention");
    refused(kernel.prepare(&QueryPoolBackwardArgs { dx: Some(h), ..good }), "dx", "dqueries");

    let transport = TransportConfig { tokens: 5, experts: 3, nonzeros: 2, gamma: 1.0 };
    let config = TransportObjectiveConfig { transport, dual: TransportDual::Dual };
    let (kernel, scratch) = with_scratch(TransportObjective::new(&context, config));
    let good = TransportObjectiveArgs {
        cost: a,
        a: b,
        b: c,
        alpha: d,
        beta: Some(e),
        plan: f,
        dalpha: g,
        value: h,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&TransportObjectiveArgs { dalpha: d, ..good }), "dalpha", "alpha");
    refused(kernel.prepare(&TransportObjectiveArgs { value: f, ..good }), "value", "plan");
    let config = TransportSolveConfig { transport, iterations: 2, ..Default::default() };
    let (kernel, scratch) = with_scratch(TransportSolve::new(&context, config));
    let good = TransportSolveArgs {
        cost: a,
        a: b,
        b: c,
        alpha: d,
        plan: e,
        dalpha: f,
        value: g,
        slot_token: h,
        slot_weight: i,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&TransportSolveArgs { alpha: a, ..good }), "alpha", "cost");
    refused(kernel.prepare(&TransportSolveArgs { slot_weight: g, ..good }), "slot_weight", "value");

    let config = LearnedOrderConfig { batch: 2, tokens: 3, frequencies: 4, lanes: None };
    let (kernel, scratch) = with_scratch(LearnedOrderBackward::new(&context, config));
    let good = LearnedOrderBackwardArgs {
        order: a,
        shift: b,
        frequency: c,
        de: d,
        dshift: e,
        dfrequency: f,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&LearnedOrderBackwardArgs { dfrequency: c, ..good }), "dfrequency", "frequency");
    refused(kernel.prepare(&LearnedOrderBackwardArgs { dfrequency: e, ..good }), "dfrequency", "dshift");

    let config = PatchEmbeddingConfig { patch: PatchConfig::square(1, 2, 4, 2), width: 3, bias: true };
    let (kernel, scratch) = with_scratch(PatchEmbeddingForward::new(&context, config));
    let good =
        PatchEmbeddingForwardArgs { image: a, weight: b, bias: Some(c), patches: d, y: e, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&PatchEmbeddingForwardArgs { patches: b, ..good }), "patches", "weight");
    refused(kernel.prepare(&PatchEmbeddingForwardArgs { y: a, ..good }), "y", "image");
    let (kernel, scratch) = with_scratch(PatchEmbeddingBackward::new(&context, config));
    let good = PatchEmbeddingBackwardArgs {
        patches: d,
        weight: b,
        dy: e,
        dweight: f,
        dbias: Some(g),
        dimage: Some([h, i]),
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    let dimage = Some([f, i]);
    refused(kernel.prepare(&PatchEmbeddingBackwardArgs { dimage, ..good }), "dimage", "dweight");
    refused(kernel.prepare(&PatchEmbeddingBackwardArgs { dbias: Some(d), ..good }), "dbias", "patches");

    let plain = AttentionConfig { heads: 2, queries: 3, keys: 3, head_dim: 4, ..Default::default() };
    let config = AttentionConfig { temperature: true, ..plain };
    let (kernel, scratch) = with_scratch(FlashAttentionBackward::new(&context, config));
    let inputs = AttentionInputs { temperature: Some(d), ..AttentionInputs::new(a, b, c) };
    let gradients = AttentionGradients { temperature: Some(k), ..AttentionGradients::new(h, i, j) };
    let good = FlashAttentionBackwardArgs {
        inputs,
        o: e,
        lse: f,
        d_o: g,
        d_lse: None,
        gradients,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    let wrong = |gradients| kernel.prepare(&FlashAttentionBackwardArgs { gradients, ..good });
    refused(wrong(AttentionGradients { dk: h, ..gradients }), "dk", "dq");
    refused(wrong(AttentionGradients { dv: e, ..gradients }), "dv", "o");
    let temperature = Some(d);
    refused(wrong(AttentionGradients { temperature, ..gradients }), "temperature gradient", "temperature");

    let inputs = AttentionInputs::new(a, b, c);
    let config = AttentionRowStatisticsConfig { attention: plain, grid: None };
    let (kernel, scratch) = with_scratch(AttentionRowStatistics::new(&context, config));
    let good = AttentionRowStatisticsArgs {
        inputs,
        lse: d,
        entropy: e,
        best: f,
        best_weight: g,
        distance: None,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&AttentionRowStatisticsArgs { best: a, ..good }), "best", "q");
    refused(kernel.prepare(&AttentionRowStatisticsArgs { best: d, ..good }), "best", "lse");
    let config = AttentionColumnMassConfig { attention: plain, weights: true };
    let (kernel, scratch) = with_scratch(AttentionColumnMass::new(&context, config));
    let good =
        AttentionColumnMassArgs { inputs, lse: d, weights: Some(e), mass: f, mean: g, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&AttentionColumnMassArgs { mean: e, ..good }), "mean", "weights");
    refused(kernel.prepare(&AttentionColumnMassArgs { mean: f, ..good }), "mean", "mass");
    let config = AttentionRolloutConfig { attention: plain, share: 0.5 };
    let (kernel, scratch) = with_scratch(AttentionRollout::new(&context, config));
    let good = AttentionRolloutArgs { inputs, lse: d, row: e, next: f, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&AttentionRolloutArgs { next: e, ..good }), "next", "row");
    refused(kernel.prepare(&AttentionRolloutArgs { next: b, ..good }), "next", "k");

    let (kernel, scratch) = with_scratch(ReversedAttentionForward::new(&context, plain));
    let good = ReversedAttentionForwardArgs { inputs, weights: d, o: e, lse: f, scratch: &scratch };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&ReversedAttentionForwardArgs { lse: c, ..good }), "lse", "v");
    refused(kernel.prepare(&ReversedAttentionForwardArgs { o: d, ..good }), "o", "weights");
    let (kernel, scratch) = with_scratch(ReversedAttentionBackward::new(&context, plain));
    let gradients = AttentionGradients::new(h, i, j);
    let good = ReversedAttentionBackwardArgs {
        inputs,
        weights: d,
        lse: f,
        d_o: g,
        gradients,
        d_weights: k,
        scratch: &scratch,
    };
    assert!(kernel.prepare(&good).is_ok());
    refused(kernel.prepare(&ReversedAttentionBackwardArgs { d_weights: h, ..good }), "d_weights", "dq");
    let gradients = AttentionGradients { dv: f, ..gradients };
    refused(kernel.prepare(&ReversedAttentionBackwardArgs { gradients, ..good }), "dv", "lse");
}

fn with_scratch<K: Kernel>(kernel: Result<K>) -> (K, Scratch) {
    let kernel = kernel.unwrap();
    let scratch = kernel.create_scratch().unwrap();
    (kernel, scratch)
}

/// After each error the same encoder takes a good record, finishes and submits; the host's handler
/// of errors hears nothing.
#[test]
fn buffers() {
    let Some((device, queue)) = best_device() else { return };
    let context = Context::new(&device, &queue);
    let reported = Arc::new(AtomicU32::new(0));
    let counter = reported.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let x = context.create_storage_with("x", &[-1.0f32; 256]).unwrap();
    let y = context.create_storage("y", 1024).unwrap();
    let long = context.create_storage("long", 4096).unwrap();
    let plain = context.create_buffer("plain", 1024, wgpu::BufferUsages::COPY_DST).unwrap();
    let kernel = ActivationForward::new(&context, relu(256)).unwrap();
    let to = |y| ActivationForwardArgs { x: BufferView::new(&x), y };
    let view = |offset, size| BufferView::range(&y, offset, size);
    type Fits = fn(&Error) -> bool;
    let rows: [(&str, ActivationForwardArgs<'_>, Fits, &[&str]); 7] = [
        (
            "read and written",
            forward(&x, &x),
            |e| matches!(e, Error::Aliased { .. }),
            &["`x`", "`y`", "separate"],
        ),
        ("usage", forward(&plain, &y), |e| matches!(e, Error::UsageMissing { .. }), &["`x`", "STORAGE"]),
        ("short", to(view(0, 1020)), |e| matches!(e, Error::BufferTooSmall { .. }), &["`y`", "1020", "1024"]),
        (
            "past the end",
            to(view(256, 1024)),
            |e| matches!(e, Error::OutOfBounds { .. }),
            &["`y`", "256", "1024"],
        ),
        (
            "offset overflows",
            to(view(u64::MAX - 3, 1024)),
            |e| matches!(e, Error::OutOfBounds { .. }),
            &["`y`"],
        ),
        (
            "offset of 4",
            to(BufferView::range(&long, 4, 1024)),
            |e| matches!(e, Error::Misaligned { .. }),
            &["`y`", "offset 4"],
        ),
        ("size of 1023", to(BufferView::range(&long, 0, 1023)), |_| true, &["`y`", "1023"]),
    ];
    let only_storage = context.create_buffer("still", 1024, wgpu::BufferUsages::STORAGE).unwrap();
    let still = Tensor::from_buffer(&only_storage, &[256]).unwrap().write(&context, &[0.0; 256]);
    assert_eq!(still, Err(Error::UsageMissing { what: "buffer", usage: "COPY_DST" }));
    assert!(matches!(context.write(&y, 1020, &[1; 5]), Err(Error::OutOfBounds { .. })));
    assert!(matches!(context.write(&y, 2, &[1; 4]), Err(Error::Misaligned { .. })));
    for (row, args, fits, says) in rows {
        let mut encoder = device.create_command_encoder(&Default::default());
        check(row, kernel.record(&mut encoder, &args).expect_err(row), fits, says);
        kernel.record(&mut encoder, &forward(&x, &y)).unwrap();
        let readback = Readback::record(&context, &mut encoder, BufferView::new(&y)).unwrap();
        queue.submit([encoder.finish()]);
        assert_eq!(readback.wait(Duration::from_secs(60)).unwrap(), vec![0; 1024], "{row}");
    }
    // A shader that the device refuses.
    let recording = kernel.prepare(&forward(&x, &y)).unwrap();
    let launch = recording.dispatches()[0].launch();
    let broken = launch.shader().source().replace("activate(x[i]", "activated(x[i]");
    let broken = Box::leak(Box::new(launch.shader().with_source("test/refused", broken.leak())));
    let args = [&x, &y].map(|buffer| Arg::words("x", BufferView::new(buffer), 256));
    let error = context.bind(&launch.with_shader(broken), &args).map(|_| ()).unwrap_err();
    check("refused", error, |e| matches!(e, Error::Shader { .. }), &["test/refused", "activated"]);
    // More memory than the device offers.
    let error = context.create_storage("huge", 1 << 50).unwrap_err();
    check(
        "huge",
        error,
        |e| matches!(e, Error::LimitExceeded { .. }),
        &["huge needs max_", "1125899906842624"],
    );
    assert_eq!(reported.load(Ordering::Relaxed), 0, "an error reached the host's handler");
}

#[test]
fn a_lost_device_is_an_error_and_the_callbacks_stay_the_hosts() {
    let Some((device, queue)) = best_device() else { return };
    let context = Context::new(&device, &queue);
    let told = Arc::new(AtomicU32::new(0));
    let (counter, for_context) = (told.clone(), context.clone());
    device.set_device_lost_callback(move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        for_context.mark_lost();
    });
    let x = context.create_storage_with("x", &[1.0f32; 64]).unwrap();
    let y = context.create_storage("y", 256).unwrap();
    let kernel = ActivationForward::new(&context, relu(64)).unwrap();
    // During: recorded and submitted, then lost before the result is read.
    let mut encoder = device.create_command_encoder(&Default::default());
    kernel.record(&mut encoder, &forward(&x, &y)).unwrap();
    let readback = Readback::record(&context, &mut encoder, BufferView::new(&y)).unwrap();
    device.destroy();
    queue.submit([encoder.finish()]);
    assert_eq!(readback.wait(Duration::from_secs(10)), Err(Error::DeviceLost));
    let _ = device.poll(wgpu::PollType::Poll);
    // After: every call says so.
    assert_eq!(kernel.prepare(&forward(&x, &y)).unwrap_err(), Error::DeviceLost);
    assert_eq!(context.create_storage("z", 4).unwrap_err(), Error::DeviceLost);
    assert_eq!(told.load(Ordering::Relaxed), 1, "the host's callback was not called");
    // Before: a context on a lost device refuses from the start once it is told.
    let late = Context::new(&device, &queue);
    late.mark_lost();
    assert_eq!(late.create_storage("z", 4).unwrap_err(), Error::DeviceLost);
}

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("patchfield-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A safetensors file with another header.
fn edited(whole: &[u8], edit: impl Fn(&mut Value)) -> Vec<u8> {
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    edit(&mut header);
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &whole[8 + length..]].concat()
}

#[test]
fn model_files() {
    let Some((device, queue)) = best_device() else { return };
    let context = Context::new(&device, &queue);
    let folder = Folder::new("models");
    let config = RadialFieldConfig::for_picture(16, 16, 3).with_table(2, 6);
    let path = folder.0.join("good.safetensors");
    RadialField::new(&context, config, 1).unwrap().save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    RadialField::load(&context, &path).unwrap();
    let metadata = |key: &'static str, value: &'static str| {
        edited(&whole, move |h| h["__metadata__"][key] = json!(value))
    };
    let nan = {
        let mut bytes = whole.clone();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    let length = |n: u64| [&n.to_le_bytes(), &whole[8..]].concat();
    let rows: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["not a whole safetensors file"]),
        ("half a length", whole[..4].to_vec(), &["not a whole safetensors file"]),
        ("truncated header", whole[..40].to_vec(), &["not a whole safetensors file"]),
        ("truncated data", whole[..whole.len() - 1].to_vec(), &["not a whole safetensors file"]),
        ("more data", [&whole[..], &[0; 4]].concat(), &["not a whole safetensors file"]),
        ("length of the header 2^64 - 1", length(u64::MAX), &["not a whole safetensors file"]),
        ("length of the header 2^40", length(1 << 40), &["not a whole safetensors file"]),
        ("not JSON", [&8u64.to_le_bytes()[..], b"{\"a\": 1,"].concat(), &["not a whole safetensors file"]),
        ("a picture", b"\x89PNG\r\n\x1a\n0000000000".to_vec(), &["not a whole safetensors file"]),
        (
            "overlapping tensors",
            edited(&whole, |h| {
                h["network.weights"]["data_offsets"][0] = json!(0);
            }),
            &["not a whole safetensors file"],
        ),
        (
            "past the end",
            edited(&whole, |h| {
                h["network.weights"]["data_offsets"][1] = json!(1u64 << 60);
            }),
            &["not a whole safetensors file"],
        ),
        (
            "shape that overflows",
            edited(&whole, |h| {
                h["network.weights"]["shape"] = json!([1u64 << 40, 1u64 << 40]);
            }),
            &["not a whole safetensors file"],
        ),
        (
            "another type",
            edited(&whole, |h| h["network.weights"]["dtype"] = json!("I32")),
            &["`network.weights`", "I32"],
        ),
        (
            "another shape",
            edited(&whole, |h| {
                let n = h["grid.table"]["shape"][0].as_u64().unwrap();
                h["grid.table"]["shape"] = json!([2, n / 2]);
            }),
            &["`grid.table`", "[2, "],
        ),
        (
            "another name",
            edited(&whole, |h| {
                let tensor = h["grid.table"].take();
                h.as_object_mut().unwrap().remove("grid.table");
                h["grid.tables"] = tensor;
            }),
            &["no tensor `grid.table`"],
        ),
        ("not finite", nan, &["NaN at ["]),
        (
            "no metadata",
            edited(&whole, |h| {
                h.as_object_mut().unwrap().remove("__metadata__");
            }),
            &["no `channels`"],
        ),
        ("levels that are no number", metadata("levels", "many"), &["`levels` = \"many\""]),
        ("levels below 0", metadata("levels", "-1"), &["`levels` = \"-1\""]),
        ("too many levels", metadata("levels", "4000000000"), &["`levels` = 4000000000"]),
        ("a table of 2^24", metadata("log2_table_size", "24"), &["grid"]),
        ("growth that is not a number", metadata("growth", "NaN"), &["`growth` = NaN"]),
        ("no channel", metadata("channels", "0"), &["`channels` = 0"]),
        ("odd width", metadata("width", "17"), &["`width` = 17"]),
    ];
    for (row, bytes, says) in rows {
        let path = folder.file("bad.safetensors", &bytes);
        let error = RadialField::load(&context, &path).map(|_| ()).expect_err(row);
        let named = matches!(&error, Error::Checkpoint { path: p, .. } if *p == path);
        assert!(
            named || matches!(error, Error::Config { .. } | Error::IndexOverflow { .. }),
            "{row}: {error:?}"
        );
        check(row, error, |_| true, says);
    }
    let missing = RadialField::load(&context, &folder.0.join("none.safetensors")).map(|_| ()).unwrap_err();
    check(
        "missing",
        missing,
        |e| matches!(e, Error::Checkpoint { .. }),
        &["none.safetensors", "cannot be read"],
    );
}

/// A device file that is always full stands for the disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_old_checkpoint() {
    let folder = Folder::new("full");
    let path = folder.0.join("kept.safetensors");
    let mut old = Checkpoint::new();
    old.insert("a", &[4], vec![1.0; 4]);
    old.save(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.0.join("kept.safetensors.partial")).unwrap();
    let mut new = Checkpoint::new();
    new.insert("a", &[4], vec![2.0; 4]);
    let error = new.save(&path).unwrap_err();
    check("full", error, |e| matches!(e, Error::Checkpoint { .. }), &["kept.safetensors", "No space left"]);
    assert_eq!(Checkpoint::load(&path).unwrap(), old);
    // With space again, the next one is written.
    new.save(&path).unwrap();
    assert_eq!(Checkpoint::load(&path).unwrap(), new);
}

/// The demo, as cargo builds it beside the tests.
fn demo() -> Option<PathBuf> {
    let deps = std::env::current_exe().unwrap();
    let folder = deps.ancestors().nth(2).unwrap().join("examples");
    let path = folder.join(format!("fit_image{}", std::env::consts::EXE_SUFFIX));
    if path.exists() {
        return best_device().map(|_| path);
    }
    assert!(std::env::var("PATCHFIELD_REQUIRE_GPU").as_deref() != Ok("1"), "{} is not built", path.display());
    eprintln!("LOUD SKIP: {} is not built", path.display());
    None
}

fn run(demo: &Path, folder: &Folder, image: &Path, options: &str) -> Output {
    // In the folder: its report goes to target/report below.
    Command::new(demo)
        .current_dir(&folder.0)
        .arg(image)
        .args(["--out", "out", "--batch", "256", "--levels", "4", "--log2-table", "8"])
        .args(options.split_whitespace())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let pixel = |x, y| image::Rgb([(x * 16) as u8, (y * 16) as u8, (x * y) as u8]);
    let mut out = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(width, height, pixel).write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

/// A PNG that claims a size; the checksum of its header is right.
fn claims(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(1, 1);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = u32::MAX;
    for &byte in &bytes[12..29] {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

#[test]
fn pictures() {
    let Some(demo) = demo() else { return };
    let folder = Folder::new("pictures");
    let good = png(16, 16);
    let rows: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty.png", vec![], &["empty.png"]),
        ("text.png", b"This is not a picture, whatever its name says.".to_vec(), &["text.png"]),
        ("truncated.png", good[..good.len() / 2].to_vec(), &["truncated.png"]),
        ("huge.png", claims(100_000, 100_000), &["huge.png", "100000 x 100000", "1 gib"]),
        ("no-pixel.png", claims(0, 5), &["no-pixel.png"]),
        ("sizes.png", claims(u32::MAX, u32::MAX), &["sizes.png"]),
    ];
    for (name, bytes, says) in rows {
        let path = folder.file(name, &bytes);
        let output = run(&demo, &folder, &path, "--steps 10");
        let text = said(&output);
        eprintln!("{name}: {text}");
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.starts_with("error: ") && !text.contains("panicked"), "{name}: {text}");
        for word in says {
            assert!(text.to_lowercase().contains(word), "{name}: `{word}` is not in: {text}");
        }
    }
    let output = run(&demo, &folder, &folder.0.join("none.png"), "");
    assert!(said(&output).contains("none.png"), "{}", said(&output));
    // A folder for results that cannot be made, and an adapter that is not there.
    let image = folder.file("good.png", &good);
    for (options, word) in [
        ("--out good.png/out", "good.png"),
        ("--adapter there-is-none", "--adapter"),
        ("--resume", "checkpoint.safetensors"),
    ] {
        let output =
            Command::new(&demo).current_dir(&folder.0).arg(&image).args(options.split(' ')).output().unwrap();
        let text = said(&output);
        eprintln!("{options}: {text}");
        assert!(
            output.status.code() == Some(1) && text.starts_with("error: ") && text.contains(word),
            "{options}: {text}"
        );
    }
    // One pixel is a picture.
    let image = folder.file("pixel.png", &png(1, 1));
    let output = run(&demo, &folder, &image, "--steps 10");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_demo_loses_nothing() {
    let Some(demo) = demo() else { return };
    let folder = Folder::new("demo");
    let image = folder.file("good.png", &png(16, 16));
    let checkpoint = folder.0.join("out/checkpoint.safetensors");
    let succeed = |options: &str| {
        let output = run(&demo, &folder, &image, options);
        assert!(output.status.success(), "{options}: {}", said(&output));
    };
    succeed("--steps 20");
    let kept = std::fs::read(&checkpoint).unwrap();
    // A rate at which the loss is no number after a few steps: the checkpoint is the good one.
    let output = run(&demo, &folder, &image, "--steps 60 --resume --learning-rate 1e30 --checkpoint-every 1");
    let text = said(&output);
    assert!(output.status.code() == Some(1) && text.contains("not finite at step"), "{text}");
    assert!(text.contains("checkpoint.safetensors") && text.contains("learning rate"), "{text}");
    assert!(Checkpoint::load(&checkpoint).unwrap().is_finite());
    // A full disk, while the fit goes on from there.
    #[cfg(target_os = "linux")]
    {
        std::fs::write(&checkpoint, &kept).unwrap();
        let partial = folder.0.join("out/checkpoint.safetensors.partial");
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        let output = run(&demo, &folder, &image, "--steps 40 --resume");
        let text = said(&output);
        assert!(output.status.code() == Some(1) && text.contains("No space left"), "{text}");
        assert_eq!(std::fs::read(&checkpoint).unwrap(), kept);
        let picture = folder.0.join("out/fitted.png");
        std::fs::remove_file(&picture).unwrap();
        std::os::unix::fs::symlink("/dev/full", &picture).unwrap();
        let output = run(&demo, &folder, &image, "--steps 40 --resume");
        let text = said(&output);
        assert!(output.status.code() == Some(1) && text.contains("fitted.png"), "{text}");
        assert!(text.contains("No space left"), "{text}");
        std::fs::remove_file(&picture).unwrap();
    }
    succeed("--steps 40 --resume");
}

/// Interrupted once it has a checkpoint, and resumed: the same model as without the interruption.
#[cfg(unix)]
#[test]
fn an_interrupted_demo_goes_on() {
    let Some(demo) = demo() else { return };
    let image = png(16, 16);
    let (whole, parts) = (Folder::new("whole"), Folder::new("parts"));
    let [image_of_whole, image_of_parts] = [&whole, &parts].map(|folder| folder.file("good.png", &image));
    let options = "--steps 800 --checkpoint-every 20";
    assert!(run(&demo, &whole, &image_of_whole, options).status.success());
    let child = Command::new(&demo)
        .current_dir(&parts.0)
        .arg(&image_of_parts)
        .args(["--out", "out", "--batch", "256", "--levels", "4", "--log2-table", "8"])
        .args(options.split_whitespace())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = parts.0.join("out/checkpoint.safetensors");
    let started = Instant::now();
    while !checkpoint.exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    eprintln!("{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cancelled at step") && text.contains("--resume"), "{text}");
    assert!(!parts.0.join("out/model.safetensors").exists());
    let output = run(&demo, &parts, &image_of_parts, &format!("{options} --resume"));
    assert!(output.status.success(), "{}", said(&output));
    let model = |folder: &Folder| Checkpoint::load(&folder.0.join("out/model.safetensors")).unwrap();
    assert!(model(&whole) == model(&parts), "an interrupted and resumed fit differs");
}
