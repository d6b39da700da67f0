//! Reference and cases of `radial::compact_basis`.

use patchfield::radial::Differential;
use patchfield::radial::compact_basis::*;
use patchfield::{BufferView, Kernel};

use crate::canaries::Canary;
use crate::harness::{Approximate, Case, Expected, Random, Views};

type Term = (f64, f64);
type Vector = [Approximate; 3];

const ZERO: Approximate = Approximate { value: 0.0, error: 0.0 };
const NONE: Vector = [ZERO; 3];

/// An input, or a number of the formula.
fn number(value: f64) -> Approximate {
    Approximate::exact(value)
}

/// A number that is off by so many units of 2^-24 of `scale`.
fn rounded(value: f64, units: f64, scale: f64) -> Approximate {
    Approximate { value, error: units * scale }
}

fn power(x: Approximate, n: u32) -> Approximate {
    (1..n).fold(x, |product, _| product * x)
}

/// 0 if it is not positive.
fn positive(x: Approximate) -> Approximate {
    Approximate { value: x.value.max(0.0), ..x }
}

/// `phi(q)` with its first two derivatives.
fn kernel(kernel: CompactKernel, q: Approximate) -> [Approximate; 3] {
    let one = number(1.0);
    match kernel {
        CompactKernel::WendlandC4 => {
            let r = q.sqrt();
            let u = positive(one - r);
            let polynomial = q * (35.0 / 3.0) + r * 6.0 + one;
            [
                power(u, 6) * polynomial,
                power(u, 5) * (one + r * 5.0) * (-28.0 / 3.0),
                power(u, 4) * number(140.0),
            ]
        }
        CompactKernel::Gaussian { sharpness } | CompactKernel::InverseQuadratic { sharpness } => {
            let s = f64::from(sharpness);
            let k = match kernel {
                CompactKernel::Gaussian { .. } => {
                    let e = (q * -s).exp();
                    [e, e * -s, e * (s * s)]
                }
                _ => {
                    let i = one / (one + q * s);
                    [i, power(i, 2) * -s, power(i, 3) * (2.0 * s * s)]
                }
            };
            let u = positive(one - q);
            let window = [power(u, 3), power(u, 2) * -3.0, u * 6.0];
            [
                k[0] * window[0],
                k[1] * window[0] + k[0] * window[1],
                k[2] * window[0] + k[1] * window[1] * 2.0 + k[0] * window[2],
            ]
        }
    }
}

/// One basis at one point: `phi`, its gradient and its second derivatives by position, and the
/// derivatives of the first two by the radius. In cells.
struct Bump {
    node: usize,
    phi: Approximate,
    gradient: Vector,
    hessian: [Vector; 3],
    by_radius: Approximate,
    gradient_by_radius: Vector,
}

/// All bases of a level that a point sees.
fn bumps(config: &CompactBasisConfig, level: &LatticeLevel, p: Vector, shapes: &[f32]) -> Vec<Bump> {
    let dims = config.dims as usize;
    let along = (level.resolution + config.ring - 1) as usize;
    let cell: Vec<usize> =
        p[..dims].iter().map(|p| (p.value.floor() as usize).min(level.resolution as usize - 1)).collect();
    let ring = config.ring as usize;
    (0..ring.pow(dims as u32))
        .map(|k| {
            let at: Vec<usize> = (0..dims).map(|d| cell[d] + k / ring.pow(d as u32) % ring).collect();
            let node = level.first as usize + at.iter().rev().fold(0, |sum, a| sum * along + a);
            let mut radius = number(0.5 * config.ring as f64);
            let mut offset = NONE;
            for (d, &at) in at.iter().enumerate() {
                offset[d] = p[d] - number(at as f64 - 0.5 * (config.ring as f64 - 2.0));
            }
            if let Some(AdaptiveNodes { shift, octaves }) = config.adaptive {
                let raw = |i: usize| f64::from(shapes[node * (dims + 1) + i]);
                for (d, offset) in offset.iter_mut().enumerate().take(dims) {
                    // The error of tanh is absolute; 16 units stand for it and its argument.
                    *offset = *offset - rounded(f64::from(shift) * raw(d).tanh(), 16.0, f64::from(shift));
                }
                let v = raw(dims);
                let exponent = -f64::from(octaves) / (1.0 + (-v).exp());
                let value = (0.5 * config.ring as f64 - f64::from(shift)) * exponent.exp2();
                radius = rounded(value, 8.0 + 4.0 * v.abs(), value);
            }
            let inverse = number(1.0) / radius;
            let q = offset.map(|o| power(o * inverse, 2)).into_iter().fold(ZERO, |a, b| a + b);
            let [phi, first, second] = kernel(config.kernel, q);
            let square = power(inverse, 2);
            let mut bump = Bump {
                node,
                phi,
                gradient: NONE,
                hessian: [NONE; 3],
                by_radius: first * q * inverse * -2.0,
                gradient_by_radius: NONE,
            };
            for e in 0..dims {
                bump.gradient[e] = first * offset[e] * square * 2.0;
                bump.gradient_by_radius[e] = (second * q + first) * offset[e] * power(inverse, 3) * -4.0;
                for t in 0..dims {
                    let bent = second * offset[e] * offset[t] * square * square * 4.0;
                    bump.hessian[e][t] = if e == t { bent + first * square * 2.0 } else { bent };
                }
            }
            bump
        })
        .collect()
}

/// Inputs of a case.
#[derive(Clone)]
pub struct Inputs {
    pub positions: Vec<f32>,
    pub weights: Vec<f32>,
    pub frequencies: Vec<f32>,
    pub shapes: Vec<f32>,
    pub direction: Vec<f32>,
    pub dy: Vec<f32>,
}

/// Output, gradients of weights, shapes, positions.
pub fn reference(config: &CompactBasisConfig, inputs: &Inputs) -> [Vec<Term>; 4] {
    let (dims, features) = (config.dims as usize, config.features as usize);
    let (points, outputs) = (config.points as usize, config.outputs() as usize);
    let plane = points * outputs;
    let nodes = config.node_count().expect("fits") as usize;
    let mut y = vec![ZERO; config.output_count().expect("fits") as usize];
    let mut dweights = vec![ZERO; nodes * features];
    let mut dshapes = vec![ZERO; nodes * (dims + 1)];
    let mut dx = vec![ZERO; points * dims];
    let differential = config.differential;
    for (l, level) in config.level_table().expect("good").iter().enumerate() {
        let rate = f64::from(level.resolution);
        for n in 0..points {
            let x = &inputs.positions[n * dims..][..dims];
            let mut p = NONE;
            // Tangents of a, in cells, for one unit of each direction of x.
            let mut rates = [0.0; 3];
            for d in 0..dims {
                p[d] = number(f64::from(x[d].clamp(0.0, 1.0))) * rate;
                rates[d] = if (0.0..=1.0).contains(&x[d]) { rate } else { 0.0 };
            }
            let bumps = bumps(config, level, p, &inputs.shapes);
            let sum = |of: &dyn Fn(&Bump) -> Approximate| bumps.iter().fold(ZERO, |sum, b| sum + of(b));
            let (divisor, total) = if config.normalized {
                let total = sum(&|b| b.phi) + number(1e-4);
                (number(1.0) / total, std::array::from_fn(|d| sum(&|b| b.gradient[d])))
            } else {
                (number(1.0), NONE)
            };
            let activation = |bump: &Bump| -> (Approximate, Vector) {
                let a = bump.phi * divisor;
                (a, std::array::from_fn(|d| (bump.gradient[d] - a * total[d]) * divisor))
            };
            // sum_t G_t u_t, per feature, of the gradients G_t by a's tangents; and G_t itself.
            let row = n * outputs + l * features;
            let g = |t: usize, f: usize| -> Approximate {
                match differential {
                    Differential::Value => ZERO,
                    Differential::Jet => number(f64::from(inputs.dy[(1 + t) * plane + row + f])) * rates[t],
                    Differential::Along => {
                        let v = f64::from(inputs.direction[n * dims + t]);
                        number(f64::from(inputs.dy[row + f])) * (v * rates[t])
                    }
                }
            };
            let value_gradient = |f: usize| {
                if differential == Differential::Along { ZERO } else { number(f64::from(inputs.dy[row + f])) }
            };
            let mut upstream = Vec::new();
            for bump in &bumps {
                let (a, slope) = activation(bump);
                let (mut to_a, mut to_slope) = (ZERO, NONE);
                for f in 0..features {
                    let w = number(f64::from(inputs.weights[bump.node * features + f]));
                    let (wave, first, second) = if config.sinusoids {
                        let m = f64::from(inputs.frequencies[f]);
                        let (sin, cos) = ((a * m).sin(), (a * m).cos());
                        (sin, cos * m, sin * (-m * m))
                    } else {
                        (a, number(1.0), ZERO)
                    };
                    let at = row + f;
                    match differential {
                        Differential::Value => y[at] += w * wave,
                        Differential::Jet => {
                            y[at] += w * wave;
                            for t in 0..dims {
                                y[(1 + t) * plane + at] += w * first * slope[t] * rates[t];
                            }
                        }
                        Differential::Along => {
                            for t in 0..dims {
                                let v = f64::from(inputs.direction[n * dims + t]) * rates[t];
                                y[at] += w * first * slope[t] * v;
                            }
                        }
                    }
                    let dw = &mut dweights[bump.node * features + f];
                    *dw += value_gradient(f) * wave;
                    to_a += value_gradient(f) * w * first;
                    for t in 0..dims {
                        *dw += g(t, f) * first * slope[t];
                        to_a += g(t, f) * w * second * slope[t];
                        to_slope[t] += g(t, f) * w * first;
                    }
                }
                upstream.push((to_a, to_slope));
            }
            // Back through the quotient: to the sums, then to each basis.
            let (mut to_sum, mut to_total) = (ZERO, NONE);
            let mut through = Vec::new();
            for (bump, (to_a, to_slope)) in bumps.iter().zip(&upstream) {
                let (a, slope) = activation(bump);
                let mut all = *to_a;
                for t in 0..dims {
                    all += -(to_slope[t] * total[t] * divisor);
                    to_total[t] += -(to_slope[t] * a * divisor);
                    to_sum += -(to_slope[t] * slope[t] * divisor);
                }
                to_sum += -(all * a * divisor);
                through.push(all);
            }
            for ((bump, (_, to_slope)), through) in bumps.iter().zip(&upstream).zip(through) {
                let mut alpha = through * divisor;
                let mut beta: Vector = std::array::from_fn(|t| to_slope[t] * divisor);
                if config.normalized {
                    alpha += to_sum;
                    for (beta, total) in beta.iter_mut().zip(to_total) {
                        *beta += total;
                    }
                }
                let mut to_radius = alpha * bump.by_radius;
                for (&beta, slope) in beta.iter().zip(bump.gradient_by_radius) {
                    to_radius += beta * slope;
                }
                let shape = bump.node * (dims + 1);
                for e in 0..dims {
                    let mut to_offset = alpha * bump.gradient[e];
                    for (&beta, bend) in beta.iter().zip(bump.hessian[e]) {
                        to_offset += beta * bend;
                    }
                    dx[n * dims + e] += to_offset * rates[e];
                    if let Some(AdaptiveNodes { shift, .. }) = config.adaptive {
                        let u = f64::from(inputs.shapes[shape + e]);
                        let slope = f64::from(shift) / u.cosh().powi(2);
                        // 1 - tanh^2 is off by units of 1.
                        let slope = rounded(slope, 8.0, f64::from(shift));
                        dshapes[shape + e] += -(to_offset * slope);
                    }
                }
                if let Some(AdaptiveNodes { shift, octaves }) = config.adaptive {
                    let v = f64::from(inputs.shapes[shape + dims]);
                    let sigmoid = 1.0 / (1.0 + (-v).exp());
                    let most = 0.5 * f64::from(config.ring) - f64::from(shift);
                    let radius = most * (-f64::from(octaves) * sigmoid).exp2();
                    let slope = -radius * std::f64::consts::LN_2 * f64::from(octaves);
                    let slope = slope * sigmoid * (1.0 - sigmoid);
                    let slope = rounded(slope, 8.0 + 4.0 * v.abs(), slope.abs());
                    dshapes[shape + dims] += to_radius * slope;
                }
            }
        }
    }
    [y, dweights, dshapes, dx].map(|all| all.into_iter().map(Approximate::term).collect())
}

/// Random inputs, with points on the borders of cells and outside of the unit cube.
fn inputs(config: &CompactBasisConfig, size: f32, random: &mut Random) -> Inputs {
    let nodes = config.node_count().expect("fits") as usize;
    let (points, dims) = (config.points as usize, config.dims as usize);
    let mut positions = random.vec(points * dims, 0.0, 1.0);
    let border = 1.0 / config.base_resolution as f32;
    let special = [0.0, 1.0, border, -0.25, 1.5, 0.999_999_94, 0.5 * border];
    for (x, special) in positions.iter_mut().skip(3).step_by(5).zip(special) {
        *x = special;
    }
    Inputs {
        positions,
        weights: random.vec(nodes * config.features as usize, -1.0, 1.0),
        frequencies: (0..config.features).map(|f| 0.5 * 1.5f32.powi(f as i32)).collect(),
        shapes: random.vec(nodes * (dims + 1), -1.5, 1.5),
        direction: random.vec(points * dims, -1.0, 1.0),
        dy: random.vec(config.output_count().expect("fits") as usize, -size, size),
    }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the second derivative of the basis forgotten",
        kernel: "radial/compact_basis",
        shader: "radial/compact_basis::to_positions",
        find: "2.0 * bump.second * i * dot(bump.offset, v) * bump.offset + ",
        replace: "0.0 * bump.offset + ",
    },
    Canary {
        bug: "the gradient of the sum detached",
        kernel: "radial/compact_basis",
        shader: "radial/compact_basis::to_positions",
        find: "gradient += adjoint.w * seen.total.xyz;",
        replace: "gradient += 0.0 * seen.total.xyz;",
    },
    Canary {
        bug: "the last cell of a run left out",
        kernel: "radial/compact_basis",
        shader: "radial/compact_basis::to_weights",
        find: "lists[at + high.x - low.x + 1u]",
        replace: "lists[at + high.x - low.x]",
    },
    Canary {
        bug: "the sine's second derivative with the wrong sign",
        kernel: "radial/compact_basis",
        shader: "radial/compact_basis::to_positions",
        find: "-m * m * sine",
        replace: "m * m * sine",
    },
    Canary {
        bug: "a level overwrites the gradient of the one before",
        kernel: "radial/compact_basis",
        shader: "radial/compact_basis::to_positions",
        find: "if params.accumulate != 0u {",
        replace: "if params.accumulate > 99u {",
    },
    Canary {
        bug: "a missed barrier in the sum over a workgroup",
        kernel: "radial/compact_basis",
        shader: "radial/compact_basis::to_weights_together",
        find: "        workgroupBarrier();\n",
        replace: "",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(71);
    let base =
        CompactBasisConfig { base_resolution: 5, features: 4, to_positions: true, ..Default::default() };
    let jet = CompactBasisConfig { differential: Differential::Jet, ..base };
    let adaptive = Some(AdaptiveNodes::default());
    let gauss = CompactKernel::Gaussian { sharpness: 3.0 };
    let inverse = CompactKernel::InverseQuadratic { sharpness: 8.0 };
    let mut rows = vec![
        base,
        CompactBasisConfig { points: 63, ring: 3, kernel: inverse, ..base },
        CompactBasisConfig { points: 65, ring: 2, features: 12, normalized: true, ..base },
        CompactBasisConfig { points: 130, levels: 2, growth: 1.7, adaptive, sinusoids: true, ..base },
        CompactBasisConfig { points: 40, dims: 3, base_resolution: 3, kernel: gauss, ..base },
        CompactBasisConfig { points: 64, to_positions: false, ..base },
        CompactBasisConfig { points: 30, to_positions: false, adaptive, normalized: true, ..base },
        // One cell: every node sees every point, and sums are long.
        CompactBasisConfig { points: 700, base_resolution: 1, ..jet },
        // More rounds than Mesa's llvmpipe lets the loops of an invocation have, 65,535.
        CompactBasisConfig { points: 70_001, base_resolution: 1, to_positions: false, ..base },
        CompactBasisConfig { points: 40_003, base_resolution: 1, adaptive, ..base },
        CompactBasisConfig { points: 64, ..jet },
        CompactBasisConfig { points: 131, ring: 3, features: 8, sinusoids: true, normalized: true, ..jet },
        CompactBasisConfig { points: 70, levels: 3, growth: 1.4, adaptive, kernel: inverse, ..jet },
        CompactBasisConfig { points: 77, adaptive, kernel: gauss, sinusoids: true, normalized: true, ..jet },
        CompactBasisConfig {
            points: 50,
            dims: 3,
            base_resolution: 3,
            ring: 3,
            adaptive,
            sinusoids: true,
            normalized: true,
            ..jet
        },
        CompactBasisConfig { points: 33, dims: 3, base_resolution: 2, ..jet },
    ];
    let along = CompactBasisConfig { differential: Differential::Along, ..base };
    rows.extend([
        CompactBasisConfig { points: 100, features: 8, ..along },
        CompactBasisConfig {
            points: 65,
            adaptive,
            sinusoids: true,
            normalized: true,
            kernel: gauss,
            ..along
        },
        CompactBasisConfig { points: 20, dims: 3, base_resolution: 2, ring: 3, sinusoids: true, ..along },
    ]);
    let mut cases = Vec::new();
    for config in rows {
        cases.extend(all(config, 1.0, &mut random));
    }
    // Gradients of any size keep their digits.
    let small = CompactBasisConfig { points: 40, normalized: true, ..jet };
    cases.extend(all(small, 1e-18, &mut random));
    cases.extend(all(small, 1e18, &mut random));
    cases
}

/// The forward case of one row, and the backward cases of both variants.
fn all(config: CompactBasisConfig, size: f32, random: &mut Random) -> Vec<Case> {
    let inputs = inputs(&config, size, random);
    let [y, dweights, dshapes, dx] = reference(&config, &inputs);
    fn bound<'a>(config: &CompactBasisConfig, b: &Views<'a>) -> CompactBasisInputs<'a> {
        CompactBasisInputs {
            positions: b.get("positions"),
            weights: b.get("weights"),
            frequencies: config.sinusoids.then(|| b.get("frequencies")),
            shapes: config.adaptive.map(|_| b.get("shapes")),
            direction: (config.differential == Differential::Along).then(|| b.get("direction")),
        }
    }
    // The reference's running error covers each operation of its own order of sums. That of the
    // shader differs: partial sums are up to a few times as large.
    let ulps = 4.0;
    let with_inputs = |case: Case| {
        case.input("positions", &inputs.positions)
            .input("weights", &inputs.weights)
            .input("frequencies", &inputs.frequencies)
            .input("shapes", &inputs.shapes)
            .input("direction", &inputs.direction)
    };
    let name = format!("{config:?}, dy {size:e}");
    let case = Case::new("radial/compact_basis", format!("forward {name}"), move |context, b| {
        let args = CompactBasisForwardArgs { inputs: bound(&config, b), y: b["y"] };
        CompactBasisForward::new(context, config)?.prepare(&args)
    });
    // What is tiny may be flushed to zero.
    let absolute = f64::from(size) * 1e-30;
    let mut cases = vec![with_inputs(case).output("y", Expected::near(&y, ulps, 1e-30))];
    for variant in [CompactBasisVariant::Alone, CompactBasisVariant::Together] {
        let config = CompactBasisConfig { variant: Some(variant), ..config };
        let case =
            Case::new("radial/compact_basis", format!("backward {variant:?} {name}"), move |context, b| {
                let lists = CompactBasisLists::new(context, config)?;
                let backward = CompactBasisBackward::new(context, config)?;
                let list = context.create_storage("lists", u64::from(config.list_count()?) * 4)?;
                let list = BufferView::new(&list);
                let scratch = b.scratch(&lists)?;
                let args =
                    CompactBasisListsArgs { positions: b["positions"], lists: list, scratch: &scratch };
                let mut recording = lists.prepare(&args)?;
                recording.append(backward.prepare(&CompactBasisBackwardArgs {
                    inputs: bound(&config, b),
                    lists: list,
                    dy: b["dy"],
                    dweights: b["dweights"],
                    dshapes: config.adaptive.map(|_| b["dshapes"]),
                    dx: config.to_positions.then(|| b["dx"]),
                    scratch: &b.scratch(&backward)?,
                })?);
                Ok(recording)
            });
        let mut case = with_inputs(case)
            .input("dy", &inputs.dy)
            .output("dweights", Expected::near(&dweights, ulps, absolute));
        if config.adaptive.is_some() {
            case = case.output("dshapes", Expected::near(&dshapes, ulps, absolute));
        }
        if config.to_positions {
            case = case.output("dx", Expected::near(&dx, ulps, absolute));
        }
        cases.push(case);
    }
    cases
}

#[cfg(test)]
mod tests {
    use patchfield::Planned;

    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};

    /// The launches of a level write what those of the next read.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let config = CompactBasisConfig {
            base_resolution: 4,
            features: 4,
            levels: 2,
            points: 8,
            differential: Differential::Along,
            adaptive: Some(AdaptiveNodes::default()),
            to_positions: true,
            ..Default::default()
        };
        let kernel = CompactBasisBackward::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let all = buffers(&context);
        let [positions, weights, shapes, direction, lists, dy, dweights, dshapes, dx] = views(&all);
        let inputs = CompactBasisInputs {
            positions,
            weights,
            frequencies: None,
            shapes: Some(shapes),
            direction: Some(direction),
        };
        let good = CompactBasisBackwardArgs {
            inputs,
            lists,
            dy,
            dweights,
            dshapes: Some(dshapes),
            dx: Some(dx),
            scratch: &scratch,
        };
        assert!(kernel.prepare(&good).is_ok());
        for (other, name) in [(positions, "positions"), (direction, "direction"), (dweights, "dweights")] {
            assert_refused(kernel.prepare(&CompactBasisBackwardArgs { dx: Some(other), ..good }), "dx", name);
        }
        let args = CompactBasisBackwardArgs { dweights: weights, ..good };
        assert_refused(kernel.prepare(&args), "dweights", "weights");
        let args = CompactBasisBackwardArgs { dshapes: Some(shapes), ..good };
        assert_refused(kernel.prepare(&args), "dshapes", "shapes");
        let kernel = CompactBasisLists::new(&context, config).unwrap();
        let scratch = context.create_scratch(kernel.planned()).unwrap();
        let args = CompactBasisListsArgs { positions, lists: positions, scratch: &scratch };
        assert_refused(kernel.prepare(&args), "lists", "positions");
    }

    fn rows() -> Vec<CompactBasisConfig> {
        let base = CompactBasisConfig {
            base_resolution: 3,
            features: 4,
            points: 2,
            levels: 2,
            to_positions: true,
            adaptive: Some(AdaptiveNodes::default()),
            ..Default::default()
        };
        let kernels = [
            CompactKernel::WendlandC4,
            CompactKernel::Gaussian { sharpness: 2.0 },
            CompactKernel::InverseQuadratic { sharpness: 4.0 },
        ];
        let mut rows = Vec::new();
        for (i, kernel) in kernels.into_iter().enumerate() {
            for differential in [Differential::Value, Differential::Jet, Differential::Along] {
                for sinusoids in [false, true] {
                    let (dims, ring) = if i == 1 { (3, 3) } else { (2, 4) };
                    let normalized = sinusoids || i == 2;
                    rows.push(CompactBasisConfig {
                        dims,
                        ring,
                        kernel,
                        differential,
                        sinusoids,
                        normalized,
                        ..base
                    });
                }
            }
        }
        rows
    }

    fn inside(config: &CompactBasisConfig, random: &mut Random) -> Inputs {
        let mut inputs = inputs(config, 1.0, random);
        inputs.positions = random.vec(inputs.positions.len(), 0.05, 0.95);
        inputs.frequencies = vec![0.5, 1.0, 1.5, 2.0];
        inputs
    }

    /// The slope of `f` at element `i` of what `of` picks: fourth-order differences.
    fn slope(
        inputs: &Inputs,
        i: usize,
        of: fn(&mut Inputs) -> &mut Vec<f32>,
        f: &dyn Fn(&Inputs) -> f64,
    ) -> f64 {
        // Windows have a third derivative that jumps: steps must be short.
        let h = 1.0 / 65_536.0;
        let at = |steps: f32| {
            let mut moved = inputs.clone();
            // Exact in f32.
            of(&mut moved)[i] = (of(&mut moved)[i] * 4096.0).round() / 4096.0 + steps * h;
            f(&moved)
        };
        (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(h))
    }

    fn round(values: &mut [f32]) {
        for v in values {
            *v = (*v * 4096.0).round() / 4096.0;
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(72);
        for config in rows() {
            let mut inputs = inside(&config, &mut random);
            for values in [&mut inputs.positions, &mut inputs.weights, &mut inputs.shapes] {
                round(values);
            }
            let [_, dweights, dshapes, dx] = reference(&config, &inputs);
            let dy = inputs.dy.clone();
            let loss = move |inputs: &Inputs| -> f64 {
                let [y, ..] = reference(&config, inputs);
                y.iter().zip(&dy).map(|(y, &g)| y.0 * f64::from(g)).sum()
            };
            type Pick = fn(&mut Inputs) -> &mut Vec<f32>;
            let parts: [(&str, Pick, &[Term]); 3] = [
                ("position", |i| &mut i.positions, &dx),
                ("weight", |i| &mut i.weights, &dweights),
                ("shape", |i| &mut i.shapes, &dshapes),
            ];
            for (what, pick, gradient) in parts {
                let wanted = (0..gradient.len()).filter(|&i| what == "position" || gradient[i].1 > 0.0);
                for i in wanted.step_by(7.min(gradient.len() / 4)) {
                    let (slope, d) = (slope(&inputs, i, pick, &loss), gradient[i].0);
                    let size = gradient.iter().fold(1.0, |m: f64, g| m.max(g.0.abs()));
                    assert!((slope - d).abs() < 2e-5 * size, "{what} {i} of {config:?}: {slope} {d}");
                }
            }
        }
    }

    #[test]
    fn jets_are_the_derivatives_of_values_also_across_cells() {
        let mut random = Random::new(73);
        for config in rows().into_iter().filter(|c| c.differential == Differential::Jet) {
            let mut inputs = inside(&config, &mut random);
            // On a border of a cell, where the set of neighbours changes.
            inputs.positions[0] = 1.0 / 3.0;
            round(&mut inputs.positions[1..]);
            let value = CompactBasisConfig { differential: Differential::Value, ..config };
            let [jet, ..] = reference(&config, &inputs);
            let (dims, plane) = (config.dims as usize, (config.points * config.outputs()) as usize);
            for at in 0..plane {
                let of = |inputs: &Inputs| reference(&value, inputs)[0][at].0;
                let point = at / config.outputs() as usize;
                for axis in 0..dims {
                    let slope = slope(&inputs, point * dims + axis, |i| &mut i.positions, &of);
                    let tangent = jet[(1 + axis) * plane + at];
                    // The border itself is moved by the rounding to an exact step.
                    let bound =
                        if point * dims + axis == 0 { 2e-2 } else { 1e-4 } * (1.0 + tangent.1.min(50.0));
                    assert!((slope - tangent.0).abs() < bound, "{config:?} {at} {axis}: {slope} {tangent:?}");
                }
            }
        }
    }

    #[test]
    fn a_basis_ends_with_its_first_two_derivatives() {
        for kind in [
            CompactKernel::WendlandC4,
            CompactKernel::Gaussian { sharpness: 0.0 },
            CompactKernel::InverseQuadratic { sharpness: 5.0 },
        ] {
            let near = kernel(kind, number(1.0 - 1e-4));
            assert!(near[0].value.abs() < 1e-11 && near[1].value.abs() < 1e-6, "{kind:?} {near:?}");
            assert!(near[2].value.abs() < 1e-3, "{kind:?} {near:?}");
            assert!(kernel(kind, number(1.5)).iter().all(|d| d.value == 0.0));
        }
    }
}
