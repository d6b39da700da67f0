//! Operations on the tape: the gradient of each against finite differences of it, on tiny shapes.

use kernels_tests::dense::loss::weighted_cross_entropy;
use kernels_tests::harness::Random;
use kernels_tests::harness::adapter::best_context;
use patchfield::Context;
use patchfield::attention::*;
use patchfield::train::{Tape, Tensor, Variable, ops};

fn tensor(context: &Context, shape: &[u32], data: &[f32]) -> Tensor {
    Tensor::from_slice(context, "test", shape, data).unwrap()
}

/// A shape, and the range of its elements.
type Operand<'a> = (&'a [u32], [f32; 2]);

/// Compares the gradient of each operand of `f` with differences of `<dy, f>`, for a random `dy`: along the
/// gradient itself and along a random direction.
fn check(
    context: &Context,
    name: &str,
    operands: &[Operand<'_>],
    f: impl Fn(&mut Tape, &[Variable]) -> Variable,
) {
    let mut random = Random::new(name.len() as u64);
    let tensors: Vec<Tensor> = operands
        .iter()
        .map(|(shape, [low, high])| {
            tensor(context, shape, &random.vec(shape.iter().product::<u32>() as usize, *low, *high))
        })
        .collect();
    let record = |tape: &mut Tape| {
        let variables: Vec<_> = tensors.iter().map(|tensor| tape.variable(tensor)).collect();
        (f(tape, &variables), variables)
    };
    let mut tape = Tape::new(context);
    let (y, _) = record(&mut tape);
    let (forward, output) = (tape.into_recording(), y.tensor().clone());
    let weights = random.vec(output.len() as usize, -1.0, 1.0);
    let mut tape = Tape::new(context);
    let (y, variables) = record(&mut tape);
    let gradients = tape.backward(&y, &tensor(context, output.shape(), &weights)).unwrap();
    context.run_blocking(&gradients.recording).unwrap();
    // The sum of the products, and of their magnitudes.
    let value = || {
        context.run_blocking(&forward).unwrap();
        let y = output.read(context).unwrap();
        y.iter().zip(&weights).fold((0.0, 0.0), |sum, (&y, &w)| {
            let product = f64::from(y) * f64::from(w);
            (sum.0 + product, sum.1 + product.abs())
        })
    };
    for (i, (tensor, variable)) in tensors.iter().zip(&variables).enumerate() {
        let gradient = gradients.of(variable).unwrap().read(context).unwrap();
        let values = tensor.read(context).unwrap();
        let size = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        assert!(size(&gradient) > 1e-3, "{name}, operand {i}: no gradient to speak of");
        for along in [gradient.clone(), random.vec(gradient.len(), -1.0, 1.0)] {
            let (size, step) = (size(&along), 0.01);
            let at = |by: f64| {
                let moved = values
                    .iter()
                    .zip(&along)
                    .map(|(&v, &a)| (f64::from(v) + by * f64::from(a) / size) as f32);
                tensor.write(context, &moved.collect::<Vec<_>>()).unwrap();
                value()
            };
            // Four points: the error is of the fourth order in the step. Outputs in f32 after a few dozen
            // roundings are known to about 1e-6 of themselves.
            let (near, far) = ([at(step), at(-step)], [at(2.0 * step), at(-2.0 * step)]);
            let slope = (8.0 * (near[0].0 - near[1].0) - (far[0].0 - far[1].0)) / (12.0 * step);
            tensor.write(context, &values).unwrap();
            let want: f64 =
                gradient.iter().zip(&along).map(|(&g, &a)| f64::from(g) * f64::from(a) / size).sum();
            let bound = 1e-6 * near[0].1 * 1.5 / step + 1e-3 * want.abs();
            assert!(
                (slope - want).abs() < bound,
                "{name}, operand {i}: {slope} by differences, {want} by the tape, {bound} allowed"
            );
        }
    }
}

const UNIT: [f32; 2] = [-1.0, 1.0];
/// Of what must be positive.
const POSITIVE: [f32; 2] = [0.5, 1.5];

#[test]
fn attention_with_all_its_options() {
    let Some(context) = best_context() else { return };
    let mask = context.create_storage_with("mask", &[1u32, 1, 0, 1, 1, 1, 1, 1, 1, 0]).unwrap();
    let config = AttentionConfig {
        batch: 2,
        heads: 4,
        kv_heads: Some(2),
        queries: 6,
        keys: 5,
        head_dim: 3,
        value_dim: Some(2),
        bias: AttentionBias::Dense { share_batch: true, share_heads: false },
        ..Default::default()
    };
    let operands: [Operand<'_>; 7] = [
        (&[2, 6, 12], UNIT),
        (&[2, 5, 6], UNIT),
        (&[2, 5, 4], UNIT),
        (&[4, 6, 5], UNIT),
        (&[1], POSITIVE),
        (&[4], POSITIVE),
        (&[4], POSITIVE),
    ];
    check(&context, "attention with all", &operands, |tape, x| {
        let operands = ops::AttentionOperands {
            key_mask: Some(&mask),
            bias: Some(&x[3]),
            temperature: Some(&x[4]),
            head_scale: Some(&x[5]),
            gate: Some(&x[6]),
            ..ops::AttentionOperands::new(&x[0], &x[1], &x[2])
        };
        ops::attention(tape, &operands, &config).unwrap().o
    });
    let config = AttentionConfig {
        heads: 2,
        queries: 7,
        keys: 7,
        head_dim: 4,
        causal: true,
        bias: AttentionBias::Table { prefix: 1, height: 2, width: 3 },
        ..Default::default()
    };
    let qkv: Operand<'_> = (&[1, 7, 8], UNIT);
    check(&context, "a table, causal", &[qkv, qkv, qkv, (&[15, 2], UNIT)], |tape, x| {
        let operands =
            ops::AttentionOperands { bias: Some(&x[3]), ..ops::AttentionOperands::new(&x[0], &x[1], &x[2]) };
        ops::attention(tape, &operands, &config).unwrap().o
    });
    // A bias that the configuration says nothing of is an error, and so is half precision.
    let mut tape = Tape::new(&context);
    let x = tape.variable(&tensor(&context, &[1, 7, 8], &[0.5; 56]));
    let operands = ops::AttentionOperands { bias: Some(&x), ..ops::AttentionOperands::new(&x, &x, &x) };
    let plain = AttentionConfig { bias: AttentionBias::None, ..config };
    assert!(ops::attention(&mut tape, &operands, &plain).unwrap_err().to_string().contains("bias"));
    let half = AttentionConfig { half: true, ..plain };
    let operands = ops::AttentionOperands::new(&x, &x, &x);
    assert!(ops::attention(&mut tape, &operands, &half).unwrap_err().to_string().contains("`half`"));
}

#[test]
fn reversed_attention_and_what_it_stands_on() {
    let Some(context) = best_context() else { return };
    let config =
        AttentionConfig { batch: 2, heads: 2, queries: 5, keys: 6, head_dim: 4, ..Default::default() };
    let operands: [Operand<'_>; 6] = [
        (&[2, 5, 8], UNIT),
        (&[2, 6, 8], UNIT),
        (&[2, 5, 8], UNIT),
        (&[2, 2, 5], POSITIVE),
        (&[1], POSITIVE),
        (&[2], POSITIVE),
    ];
    check(&context, "reversed", &operands, |tape, x| {
        let operands = ops::AttentionOperands {
            temperature: Some(&x[4]),
            head_scale: Some(&x[5]),
            ..ops::AttentionOperands::new(&x[0], &x[1], &x[2])
        };
        ops::reversed_attention(tape, &operands, &x[3], &config).unwrap().o
    });
    let selected: [Operand<'_>; 3] = [(&[7, 3], UNIT), (&[7], UNIT), (&[7], POSITIVE)];
    check(&context, "messages", &selected, |tape, x| {
        let [m, w] = ops::head_selector(tape, &x[0], &x[1], Some(&x[2]), 0.5).unwrap();
        ops::weigh_rows(tape, &w, &m).unwrap()
    });
    check(&context, "weights of the first layer", &selected[..2], |tape, x| {
        ops::head_selector(tape, &x[0], &x[1], None, 0.5).unwrap()[1].clone()
    });
    check(&context, "messages alone", &selected[1..], |tape, x| {
        let s = tape.variable(&tensor(&context, &[7, 3], &[0.25; 21]));
        ops::head_selector(tape, &s, &x[0], Some(&x[1]), 0.5).unwrap()[0].clone()
    });
    check(&context, "heads first", &[(&[2, 5, 6], UNIT)], |tape, x| {
        ops::heads_first(tape, &x[0], 3).unwrap()
    });
    // Where it goes: [b, n, h, d] to [b, h, n, d], and back.
    let mut tape = Tape::new(&context);
    let values: Vec<f32> = (0..60u8).map(f32::from).collect();
    let x = tape.variable(&tensor(&context, &[2, 5, 6], &values));
    let y = ops::heads_first(&mut tape, &x, 3).unwrap();
    let back = ops::heads_last(&mut tape, &y).unwrap();
    context.run_blocking(&tape.into_recording()).unwrap();
    let y = y.tensor().read(&context).unwrap();
    assert_eq!([y[0], y[1], y[2], y[10], y[30]], [0.0, 1.0, 6.0, 2.0, 30.0]);
    assert_eq!(back.tensor().read(&context).unwrap(), values);
}

#[test]
fn retrieval_and_queries() {
    let Some(context) = best_context() else { return };
    let tokens: Operand<'_> = (&[2, 2, 5, 3], UNIT);
    let (beta, values): (Operand<'_>, Operand<'_>) = ((&[2], POSITIVE), (&[2, 2, 5, 4], UNIT));
    for updates in [0, 2] {
        let config = HopfieldConfig {
            batch: 2,
            heads: 2,
            states: 5,
            patterns: 5,
            width: 3,
            values: Some(4),
            update_steps_max: Some(updates),
            epsilon: 0.0,
            ..Default::default()
        };
        check(&context, "retrieval", &[tokens, tokens, values, beta], |tape, x| {
            let y = ops::hopfield(tape, [&x[0], &x[1], &x[2]], &x[3], config).unwrap();
            ops::heads_last(tape, &y).unwrap()
        });
    }
    let probing = QueryPoolConfig::efficient_probing(2, 5, 6, 3, 1).unwrap();
    let operands: [Operand<'_>; 3] = [(&[2, 5, 6], UNIT), (&[3, 6], UNIT), (&[3, 2, 6], UNIT)];
    check(&context, "probing", &operands, |tape, x| {
        ops::query_pool(tape, &x[0], &x[1], Some(&x[2]), probing).unwrap()
    });
    let plain = QueryPoolConfig { projections: 0, outputs: 0, ..probing };
    check(&context, "averages", &operands[..2], |tape, x| {
        ops::query_pool(tape, &x[0], &x[1], None, plain).unwrap()
    });
}

#[test]
fn windows_shifted_and_padded() {
    let Some(context) = best_context() else { return };
    let config = WindowAttentionConfig {
        batch: 2,
        grid: [1, 4, 5],
        window: [1, 3, 3],
        shift: [0, 1, 1],
        heads: 2,
        head_dim: 3,
        ..Default::default()
    };
    assert!(config.is_padded());
    let qkv: Operand<'_> = (&[41, 6], UNIT);
    let table = [config.table_entries(), 2];
    check(&context, "windows", &[qkv, qkv, qkv, (&table, UNIT)], |tape, x| {
        ops::window_attention(tape, [&x[0], &x[1], &x[2]], Some(&x[3]), config, &[40, 6]).unwrap()
    });
    let config = WindowAttentionConfig { grid: [1, 4, 4], window: [1, 2, 2], table: false, ..config };
    let qkv: Operand<'_> = (&[32, 6], UNIT);
    check(&context, "windows of four", &[qkv; 3], |tape, x| {
        ops::window_attention(tape, [&x[0], &x[1], &x[2]], None, config, &[2, 16, 6]).unwrap()
    });
}

#[test]
fn positions_and_choices_of_tokens() {
    let Some(context) = best_context() else { return };
    let angles = rotary_angles_2d([2, 3], 1, 2, 100.0).unwrap();
    let table = tensor(&context, &[7, 2, 4], &rotary_table(&angles, 4, RotaryPairs::Interleaved));
    let config = RotaryConfig {
        batch: 2,
        tokens: 7,
        heads: 6,
        rotated: 4,
        dim: 5,
        rotary: 4,
        pairs: RotaryPairs::Interleaved,
        layout: HeadLayout::TokensFirst,
        inverse: false,
    };
    check(&context, "rotary", &[(&[2, 7, 30], UNIT)], |tape, x| {
        ops::rotary(tape, &x[0], &table, config).unwrap()
    });
    let order = tensor(&context, &[6], &[0.0, 1.0, 3.0, 2.0, 4.0, 5.0]);
    check(&context, "a learned order", &[(&[2, 6], UNIT), (&[4], POSITIVE)], |tape, x| {
        ops::learned_order(tape, &order, &x[0], &x[1]).unwrap()
    });
    // Ranks: the third, the first and the last of one image, the first three of the other.
    let ranks = context.create_storage_with("rank", &[1u32, 4, 0, 3, 2, 2, 1, 0, 4, 3]).unwrap();
    let config = TokenSelectConfig { batch: 2, tokens: 5, keep: 3, order: TokenOrder::Rank };
    check(&context, "chosen", &[(&[2, 5, 4], UNIT)], |tape, x| {
        let chosen = ops::choose_tokens(tape, (&ranks).into(), config).unwrap();
        let y = ops::gather_rows(tape, &x[0], &chosen.index, &chosen.inverse, &[2, 3, 4]).unwrap();
        assert_eq!(y.tensor().shape(), [2, 3, 4]);
        y
    });
    check(&context, "weighed", &[(&[2, 5, 4], UNIT), (&[2, 5], UNIT)], |tape, x| {
        ops::weigh_rows(tape, &x[0], &x[1]).unwrap()
    });
}

/// Mass is kept, and it is that of the matrix.
#[test]
fn received_mass() {
    let Some(context) = best_context() else { return };
    let (batch, heads, n, d) = (2, 3, 6, 4);
    let config = AttentionConfig { batch, heads, queries: n, keys: n, head_dim: d, ..Default::default() };
    let mut random = Random::new(5);
    let mut draw = |shape: &[u32], low| {
        let data = random.vec(shape.iter().product::<u32>() as usize, low, 1.0);
        (tensor(&context, shape, &data), data)
    };
    let shape = [batch, n, heads * d];
    let ((q, of_q), (k, of_k), (w, of_w)) =
        (draw(&shape, -1.0), draw(&shape, -1.0), draw(&[batch, heads, n], 0.0));
    let mut tape = Tape::new(&context);
    let (q, k, w) = (tape.variable(&q), tape.variable(&k), tape.variable(&w));
    let operands = ops::AttentionOperands::new(&q, &k, &q);
    let lse = ops::reversed_attention(&mut tape, &operands, &w, &config).unwrap().lse;
    let weighed = ops::received_mass(&mut tape, &operands, &lse, Some(w.tensor()), &config).unwrap();
    let plain = ops::received_mass(&mut tape, &operands, &lse, None, &config).unwrap();
    context.run_blocking(&tape.into_recording()).unwrap();
    for (mass, weights) in [(weighed, Some(&of_w)), (plain, None)] {
        let mut want = vec![0.0; (batch * n) as usize];
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..n {
                    let row = |j: u32| ((b * n + j) * heads + h) * d;
                    let score = |j: u32| {
                        let dot = |c| {
                            f64::from(of_q[(row(i) + c) as usize]) * f64::from(of_k[(row(j) + c) as usize])
                        };
                        (0..d).map(dot).sum::<f64>() * 0.5
                    };
                    let sum: f64 = (0..n).map(|j| score(j).exp()).sum();
                    let weight = weights.map_or(1.0, |w| f64::from(w[((b * heads + h) * n + i) as usize]));
                    (0..n).for_each(|j| want[(b * n + j) as usize] += weight * score(j).exp() / sum);
                }
            }
        }
        let mass = mass.read(&context).unwrap();
        for (got, want) in mass.iter().zip(&want) {
            // Of about 20 terms, each known to some 10 roundings.
            assert!((f64::from(*got) - want).abs() < 2e-6 * want, "{got} {want}");
        }
        let all = weights.map_or(f64::from(batch * heads * n), |w| w.iter().map(|&w| f64::from(w)).sum());
        assert!((mass.iter().map(|&m| f64::from(m)).sum::<f64>() - all).abs() < 2e-6 * all);
    }
}

/// Images and labels are mixed by the same share, and the loss of mixed labels has the right gradient.
#[test]
fn mixed_images_have_mixed_labels() {
    let Some(context) = best_context() else { return };
    let patch = PatchConfig::square(2, 1, 4, 2);
    let image: Vec<f32> = (0..32).map(|i| if i < 16 { 1.0 } else { 2.0 }).collect();
    let (image, label) =
        (tensor(&context, &[2, 1, 4, 4], &image), tensor(&context, &[2, 3], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
    let partner = context.create_storage_with("partner", &[1u32, 0]).unwrap();
    let rank = context.create_storage_with("rank", &[3u32, 1, 0, 2, 0, 1, 2, 3]).unwrap();
    let mut tape = Tape::new(&context);
    let config = PatchMixConfig { patch, replaced: 1 };
    let [mixed, labels] = ops::mix_patches(&mut tape, &image, &label, &partner, &rank, config).unwrap();
    let z = [0.5, -1.0, 0.25, 1.5, 0.0, -0.75];
    let logits = tape.variable(&tensor(&context, &[2, 3], &z));
    let [loss, gradient] =
        ops::cross_entropy(&mut tape, &logits, ops::Target::Weights(&labels), 0.1).unwrap();
    context.run_blocking(&tape.into_recording()).unwrap();
    let mixed = mixed.read(&context).unwrap();
    // The third patch of the first image, the first of the second.
    let places =
        |image: usize, value: f32| (0..16).filter(|i| mixed[image * 16 + i] == value).collect::<Vec<_>>();
    assert_eq!(places(0, 2.0), [8, 9, 12, 13]);
    assert_eq!(places(1, 1.0), [0, 1, 4, 5]);
    assert_eq!(labels.read(&context).unwrap(), [0.75, 0.0, 0.25, 0.25, 0.0, 0.75]);
    let (mut want, mut slopes) = (0.0, Vec::new());
    for (z, weights) in z.chunks(3).zip([[0.75, 0.0, 0.25], [0.25, 0.0, 0.75]]) {
        let z: Vec<f64> = z.iter().map(|&z| z.into()).collect();
        let (loss, gradient) = weighted_cross_entropy(&z, &weights, 0.1);
        want += loss / 2.0;
        slopes.extend(gradient.into_iter().map(|g| g / 2.0));
    }
    assert!((f64::from(loss.read(&context).unwrap()[0]) - want).abs() < 1e-6);
    for (got, want) in gradient.read(&context).unwrap().iter().zip(slopes) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
    }
}
