//! Reference and cases of `radial::sinusoid_composition`.

use half::f16;
use patchfield::dense::{InvertedIndex, InvertedIndexArgs, InvertedIndexConfig};
use patchfield::radial::sinusoid_composition::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "radial/sinusoid_composition";

type Term = (f64, f64);

fn add(to: &mut Term, value: f64, magnitude: f64) {
    *to = (to.0 + value, to.1 + magnitude);
}

#[derive(Clone)]
struct Inputs {
    phi: Vec<f32>,
    neighbours: Vec<u32>,
    weights: Vec<f32>,
    frequencies: Vec<f32>,
    dy: Vec<f32>,
}

/// Output, and the gradients of phi, weights and frequencies. Magnitudes take the error of a sine of
/// m phi, |m phi| + 3 units, as a multiple of one unit.
fn reference(config: &SinusoidCompositionConfig, inputs: &Inputs) -> [Vec<Term>; 4] {
    let (k, features) = (config.neighbours as usize, config.features as usize);
    let mut y = vec![(0.0, 0.0); inputs.dy.len()];
    let mut dphi = vec![(0.0, 0.0); inputs.phi.len()];
    let mut dweights = vec![(0.0, 0.0); inputs.weights.len()];
    let mut dfrequencies = vec![(0.0, 0.0); features];
    for (pair, &own) in inputs.phi.iter().enumerate() {
        let n = pair / k;
        let centre = inputs.neighbours[pair] as usize;
        let present = centre < config.centres as usize;
        let row = centre.min(config.centres as usize - 1) * features;
        let phi = f64::from(own);
        for f in 0..features {
            let w = f64::from(inputs.weights[row + f]);
            let g = f64::from(inputs.dy[n * features + f]);
            let (psi, slope, m, angle) = if config.sinusoid {
                let m = f64::from(inputs.frequencies[f]);
                ((m * phi).sin(), m * (m * phi).cos(), m, (m * phi).abs() + 3.0)
            } else {
                (phi, 1.0, 1.0, 1.0)
            };
            // Without a sine psi is exact.
            let size = if config.sinusoid { angle } else { phi.abs() };
            add(&mut y[n * features + f], w * psi, w.abs() * size);
            add(&mut dphi[pair], g * w * slope, (g * w * m).abs() * angle);
            if present {
                add(&mut dweights[row + f], g * psi, g.abs() * size);
                let of_m = g * w * phi * (m * phi).cos();
                add(&mut dfrequencies[f], of_m, (g * w * phi).abs() * angle);
            }
        }
    }
    [y, dphi, dweights, dfrequencies]
}

fn inputs(config: &SinusoidCompositionConfig, random: &mut Random) -> Inputs {
    let SinusoidCompositionConfig { points, centres, neighbours, features, .. } = *config;
    let pairs = (points * neighbours) as usize;
    let mut phi = random.vec(pairs, 0.0, 1.0);
    let mut table: Vec<u32> = (0..pairs).map(|_| random.below(centres)).collect();
    for i in (0..pairs).filter(|i| i % 13 == 5) {
        table[i] = [centres, u32::MAX][i % 2];
        phi[i] = 0.0;
    }
    // Centre 1, where there is one, is nobody's neighbour.
    table.iter_mut().filter(|i| **i == 1).for_each(|i| *i = 0);
    let mut weights = random.vec((centres * features) as usize, -1.0, 1.0);
    if config.half_weights {
        weights.iter_mut().for_each(|w| *w = f16::from_f32(*w).to_f32());
    }
    let frequencies = log_spaced(0.125, 4096.0, features);
    Inputs {
        phi,
        neighbours: table,
        weights,
        frequencies,
        dy: random.vec((points * features) as usize, -1.0, 1.0),
    }
}

fn stored(config: &SinusoidCompositionConfig, weights: &[f32]) -> Data {
    if config.half_weights { Data::f16(weights) } else { Data::F32(weights.to_vec()) }
}

// Rounding of m phi (the magnitude counts it once), of a term (3), and half a unit for each addition.
fn bound(additions: u32) -> f64 {
    4.0 + 0.5 * f64::from(additions)
}

fn forward(config: SinusoidCompositionConfig, inputs: &Inputs, expected: &[Term]) -> Case {
    Case::new(KERNEL, format!("forward {config:?}"), move |context, b| {
        SinusoidCompositionForward::new(context, config)?.prepare(&SinusoidCompositionForwardArgs {
            phi: b["phi"],
            neighbours: b["neighbours"],
            weights: b["weights"],
            frequencies: config.sinusoid.then(|| b["frequencies"]),
            y: b["y"],
        })
    })
    .input("phi", &inputs.phi)
    .read("neighbours", Data::U32(inputs.neighbours.clone()))
    .read("weights", stored(&config, &inputs.weights))
    .input("frequencies", &inputs.frequencies)
    .output("y", Expected::near(expected, bound(config.neighbours), 1.2e-38))
}

fn backward(config: SinusoidCompositionBackwardConfig, inputs: &Inputs, expected: &[Vec<Term>; 4]) -> Case {
    let forward = config.forward;
    let pairs = forward.points * forward.neighbours;
    let [_, dphi, dweights, dfrequencies] = expected;
    let mut case = Case::new(KERNEL, format!("backward {config:?}"), move |context, b| {
        let lists = InvertedIndexConfig { rows: forward.centres, n: pairs };
        let index = InvertedIndex::new(context, lists)?;
        let mut recording = index.prepare(&InvertedIndexArgs {
            index: b["neighbours"],
            order: b["order"],
            starts: b["starts"],
            scratch: &b.scratch(&index)?,
        })?;
        let kernel = SinusoidCompositionBackward::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        recording.append(kernel.prepare(&SinusoidCompositionBackwardArgs {
            phi: b["phi"],
            neighbours: b["neighbours"],
            weights: b["weights"],
            frequencies: forward.sinusoid.then(|| b["frequencies"]),
            order: b["order"],
            starts: b["starts"],
            dy: b["dy"],
            dphi: config.phi.then(|| b["dphi"]),
            dweights: config.weights.then(|| b["dweights"]),
            dfrequencies: config.frequencies.then(|| b["dfrequencies"]),
            scratch: &scratch,
        })?);
        Ok(recording)
    })
    .input("phi", &inputs.phi)
    .read("neighbours", Data::U32(inputs.neighbours.clone()))
    .read("weights", stored(&forward, &inputs.weights))
    .input("frequencies", &inputs.frequencies)
    .input("dy", &inputs.dy)
    .update("order", Data::U32(vec![7; pairs as usize]), Expected::Any)
    .update("starts", Data::U32(vec![7; forward.centres as usize + 1]), Expected::Any);
    if config.phi {
        case = case.output("dphi", Expected::near(dphi, bound(forward.features), 1.2e-38));
    }
    // A list is at most all pairs long.
    if config.weights {
        case = case.output("dweights", Expected::near(dweights, bound(forward.points), 1.2e-38));
    }
    if config.frequencies {
        let additions = bound(forward.points + forward.centres);
        case = case.output("dfrequencies", Expected::near(dfrequencies, additions, 1.2e-38));
    }
    case
}

const VARIANTS: [SinusoidCompositionVariant; 3] = [
    SinusoidCompositionVariant::Plain,
    SinusoidCompositionVariant::Subgroup,
    SinusoidCompositionVariant::Staged,
];

/// The sine by itself: one point a multiple of a quarter turn, weight and neighbour 1, up to 5,000 rad,
/// where m phi = phi is exact and nothing but the sine is tested. In r + r p(r^2), |r p| <= 0.571 has
/// four roundings and that of its last term, the sum one more, r itself none that matters: 3.5 units.
fn sine_alone(variant: SinusoidCompositionVariant, random: &mut Random) -> [Case; 2] {
    let turns = (0..3200).map(|i| (f64::from(i) * std::f64::consts::FRAC_PI_2) as f32);
    let angles: Vec<f32> = turns.chain(random.vec(1000, -5000.0, 5000.0)).collect();
    let config = SinusoidCompositionConfig {
        points: angles.len() as u32,
        neighbours: 1,
        features: 1,
        variant: Some(variant),
        ..Default::default()
    };
    let n = angles.len();
    let exact = |f: fn(f64) -> f64| -> Vec<Term> { angles.iter().map(|&a| (f(a.into()), 1.0)).collect() };
    let inputs = Inputs {
        phi: angles.clone(),
        neighbours: vec![0; n],
        weights: vec![1.0],
        frequencies: vec![1.0],
        dy: vec![1.0; n],
    };
    let y = exact(f64::sin);
    let mut forward = forward(config, &inputs, &y);
    forward.expected = vec![("y", Expected::near(&y, 3.5, 0.0))];
    let gradients =
        SinusoidCompositionBackwardConfig { forward: config, phi: true, weights: false, frequencies: false };
    let cosines = exact(f64::cos);
    let mut backward = backward(gradients, &inputs, &[y, cosines.clone(), Vec::new(), Vec::new()]);
    backward.expected.retain(|(name, _)| *name != "dphi");
    backward.expected.push(("dphi", Expected::near(&cosines, 3.5, 0.0)));
    [forward, backward]
}

/// All points have the same centre: a list longer than the 65,535 rounds after which a driver ends loops.
fn one_long_list(variant: SinusoidCompositionVariant, features: u32) -> Case {
    let forward = SinusoidCompositionConfig {
        points: 70_000,
        neighbours: 1,
        features,
        variant: Some(variant),
        ..Default::default()
    };
    let n = forward.points as usize;
    let inputs = Inputs {
        phi: vec![0.5; n],
        neighbours: vec![0; n],
        weights: vec![1.0; features as usize],
        frequencies: vec![1.0; features as usize],
        dy: vec![1.0; n * features as usize],
    };
    let gradients =
        SinusoidCompositionBackwardConfig { forward, phi: false, weights: true, frequencies: true };
    backward(gradients, &inputs, &reference(&forward, &inputs))
}

/// A point whose bases and gradient are NaN spoils its own centres, and no other.
fn one_bad_point(variant: SinusoidCompositionVariant, random: &mut Random) -> Case {
    let forward = SinusoidCompositionConfig {
        points: 41,
        centres: 60,
        neighbours: 3,
        features: 32,
        variant: Some(variant),
        ..Default::default()
    };
    let mut inputs = inputs(&forward, random);
    inputs.phi[3 * 17..][..3].fill(f32::NAN);
    inputs.phi[3 * 30] = f32::INFINITY;
    inputs.dy[32 * 17..][..32].fill(f32::NAN);
    let gradients =
        SinusoidCompositionBackwardConfig { forward, phi: true, weights: true, frequencies: false };
    backward(gradients, &inputs, &reference(&forward, &inputs))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "another centre's weights",
        kernel: KERNEL,
        shader: "radial/sinusoid_composition::forward",
        find: "row_of(first + j) + item",
        replace: "row_of(first) + item",
    },
    Canary {
        bug: "the last pair of each list left out",
        kernel: KERNEL,
        shader: "radial/sinusoid_composition::weight_gradient",
        find: "at < end; at += LANES",
        replace: "at + 1u < end; at += LANES",
    },
    Canary {
        bug: "the first neighbour's phi for the second",
        kernel: KERNEL,
        shader: "radial/sinusoid_composition::backward_phi",
        find: "let phi_b = phi[b];
    let phi_c = phi[c];
    let phi_d = phi[d];
    var s",
        replace: "let phi_b = phi[a];
    let phi_c = phi[c];
    let phi_d = phi[d];
    var s",
    },
    Canary {
        bug: "the weight left out of a frequency's gradient",
        kernel: KERNEL,
        shader: "radial/sinusoid_composition::frequency_gradient",
        find: "unpacked(weights_in[at]) * total",
        replace: "total",
    },
    Canary {
        bug: "the row of the point before, whether or not it is the same",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_subgroup::forward",
        find: "start != row.start",
        replace: "row.start == 0xffffffffu",
    },
    Canary {
        bug: "a neighbouring lane's phi for the last of eight pairs",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_subgroup::frequency_gradient",
        find: "subgroupShuffle(own, 7u), item",
        replace: "subgroupShuffle(own, 6u), item",
    },
    Canary {
        bug: "the last pair of a list that is not whole eights left out",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_subgroup::weight_gradient",
        find: "for (; at < end; at++) {",
        replace: "for (; at + 1u < end; at++) {",
    },
    Canary {
        bug: "a point's sum not begun anew",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_wide::forward",
        find: "s.point += 1u;
        s.sum = mat2x4<f32>();",
        replace: "s.point += 1u;",
    },
    Canary {
        bug: "the halves of eight features in the other order",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_wide::forward",
        find: "words_of(s.sum)",
        replace: "words_of(mat2x4<f32>(s.sum[1], s.sum[0]))",
    },
    Canary {
        bug: "the sides of rows read as 64-bit integers not added up",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_wide::weight_gradient",
        find: "if LANES <= 4u {",
        replace: "if LANES <= 2u {",
    },
    Canary {
        bug: "a pair of the next list counted",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_wide::frequency_gradient",
        find: "let is_there = at + lane < end;",
        replace: "let is_there = at + lane <= end;",
    },
    Canary {
        bug: "0 times the NaN of a pair that is not there",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_wide::weight_gradient",
        find: "select(0.0, phi[pair], is_there)",
        replace: "phi[pair]",
    },
    Canary {
        bug: "the gradient of the point before",
        kernel: "radial/sinusoid_composition",
        shader: "radial/sinusoid_composition_wide::backward_phi",
        find: "if start != row.start { row = Row(start, floats_of(dy[",
        replace: "if row.start == 0xffffffffu { row = Row(start, floats_of(dy[",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(43);
    let mut cases = Vec::new();
    // points, centres, neighbours, features, sinusoid, half_weights
    let rows = [
        (1, 1, 1, 1, true, false),
        (7, 3, 4, 32, true, false),
        (65, 29, 4, 32, true, false),
        (130, 2, 4, 32, true, false),
        (21, 5, 3, 8, true, false),
        (21, 5, 5, 64, true, false),
        (9, 40, 3, 36, true, false),
        (63, 11, 5, 7, true, false),
        (17, 5, 32, 68, true, false),
        (33, 9, 8, 5, false, false),
        (64, 21, 9, 16, false, false),
        (50, 12, 4, 32, true, true),
        (31, 12, 2, 12, false, true),
    ];
    for (points, centres, neighbours, features, sinusoid, half_weights) in rows {
        let base = SinusoidCompositionConfig {
            points,
            centres,
            neighbours,
            features,
            sinusoid,
            half_weights,
            variant: None,
        };
        let inputs = inputs(&base, &mut random);
        let expected = reference(&base, &inputs);
        for variant in VARIANTS {
            let config = SinusoidCompositionConfig { variant: Some(variant), ..base };
            // The forward pass of the staged variant is the plain one's.
            if variant != SinusoidCompositionVariant::Staged {
                cases.push(forward(config, &inputs, &expected[0]));
            }
            let gradients = SinusoidCompositionBackwardConfig {
                forward: config,
                phi: true,
                weights: true,
                frequencies: sinusoid,
            };
            cases.push(backward(gradients, &inputs, &expected));
        }
        let only = SinusoidCompositionBackwardConfig {
            forward: base,
            phi: false,
            weights: !half_weights,
            frequencies: half_weights && sinusoid,
        };
        if only.weights || only.frequencies {
            cases.push(backward(only, &inputs, &expected));
        }
    }
    for variant in VARIANTS {
        cases.extend(sine_alone(variant, &mut random));
        cases.extend([1, 8].map(|features| one_long_list(variant, features)));
        cases.push(one_bad_point(variant, &mut random));
    }
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> [Result<()>; 5] {
    let good = SinusoidCompositionConfig::default();
    let new = |config| SinusoidCompositionForward::new(context, config).map(drop);
    let none =
        SinusoidCompositionBackwardConfig { forward: good, phi: false, weights: false, frequencies: false };
    [
        new(SinusoidCompositionConfig { neighbours: 0, ..good }),
        new(SinusoidCompositionConfig { features: 0, ..good }),
        new(SinusoidCompositionConfig { features: 6, half_weights: true, ..good }),
        new(SinusoidCompositionConfig { points: u32::MAX, ..good }),
        SinusoidCompositionBackward::new(context, none).map(drop),
    ]
}

#[cfg(test)]
mod tests {
    use patchfield::Planned;

    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};

    /// The gradient of the weights is written before the weights are read for that of the frequencies.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let forward = SinusoidCompositionConfig { points: 8, centres: 3, ..Default::default() };
        let config =
            SinusoidCompositionBackwardConfig { forward, phi: true, weights: true, frequencies: true };
        let kernel = SinusoidCompositionBackward::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let all = buffers(&context);
        let [phi, neighbours, weights, m, order, starts, dy, dphi, dweights, dm] = views(&all);
        let good = SinusoidCompositionBackwardArgs {
            phi,
            neighbours,
            weights,
            frequencies: Some(m),
            order,
            starts,
            dy,
            dphi: Some(dphi),
            dweights: Some(dweights),
            dfrequencies: Some(dm),
            scratch: &scratch,
        };
        assert!(kernel.prepare(&good).is_ok());
        let args = SinusoidCompositionBackwardArgs { dweights: Some(weights), ..good };
        assert_refused(kernel.prepare(&args), "dweights", "weights");
        let args = SinusoidCompositionBackwardArgs { dphi: Some(order), ..good };
        assert_refused(kernel.prepare(&args), "dphi", "order");
        let args = SinusoidCompositionBackwardArgs { dfrequencies: Some(dphi), ..good };
        assert_refused(kernel.prepare(&args), "dfrequencies", "dphi");
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(44);
        for sinusoid in [true, false] {
            let config = SinusoidCompositionConfig {
                points: 4,
                centres: 3,
                neighbours: 2,
                features: 5,
                sinusoid,
                half_weights: false,
                variant: None,
            };
            let mut given = inputs(&config, &mut random);
            given.frequencies = vec![0.125, 0.5, 1.0, 3.0, 8.0];
            let [_, dphi, dweights, dfrequencies] = reference(&config, &given);
            let loss = |given: &Inputs| -> f64 {
                let [y, ..] = reference(&config, given);
                y.iter().zip(&given.dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
            };
            type Pick = fn(&mut Inputs) -> &mut Vec<f32>;
            let picks: [(Pick, &[Term]); 3] = [
                (|i| &mut i.phi, &dphi),
                (|i| &mut i.weights, &dweights),
                (|i| &mut i.frequencies, &dfrequencies),
            ];
            for (pick, gradient) in &picks[..if sinusoid { 3 } else { 2 }] {
                for (at, gradient) in gradient.iter().enumerate() {
                    let h = 1.0 / 4096.0;
                    let (mut up, mut down) = (given.clone(), given.clone());
                    pick(&mut up)[at] += h;
                    pick(&mut down)[at] -= h;
                    let step = f64::from(pick(&mut up)[at]) - f64::from(pick(&mut down)[at]);
                    let slope = (loss(&up) - loss(&down)) / step;
                    assert!((slope - gradient.0).abs() < 1e-4, "[{at}]: {slope} {}", gradient.0);
                }
            }
        }
    }

    #[test]
    fn frequencies_are_spaced_by_a_factor() {
        let m = log_spaced(0.125, 4096.0, 32);
        assert_eq!((m[0], m[31], m.len()), (0.125, 4096.0, 32));
        assert!(m.windows(2).all(|w| (w[1] / w[0] - 2f32.powf(15.0 / 31.0)).abs() < 1e-5));
        assert_eq!(log_spaced(3.0, 5.0, 1), [3.0]);
    }
}
