//! Reference and cases of `radial::radial_basis`.

use patchfield::dense::{InvertedIndex, InvertedIndexArgs, InvertedIndexConfig};
use patchfield::radial::radial_basis::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Approximate as A, Case, Data, Expected, Random};

const KERNEL: &str = "radial/radial_basis";

type Vector = [A; 4];
type Matrix = [[A; 4]; 4];

fn dot(a: &Vector, b: &Vector) -> A {
    (0..4).map(|d| a[d] * b[d]).sum()
}

fn times(m: &Matrix, u: &Vector) -> Vector {
    std::array::from_fn(|r| dot(&m[r], u))
}

fn transposed_times(m: &Matrix, v: &Vector) -> Vector {
    std::array::from_fn(|c| (0..4).map(|r| m[r][c] * v[r]).sum())
}

fn scaled(s: A, v: &Vector) -> Vector {
    v.map(|v| s * v)
}

fn outer(a: &Vector, b: &Vector) -> Matrix {
    a.map(|a| scaled(a, b))
}

fn number(v: f64) -> A {
    A::exact(v)
}

/// Where an element of the matrix is stored.
fn place(shape: RadialShape, dims: usize, r: usize, c: usize) -> Option<usize> {
    let (low, high) = (r.min(c), r.max(c));
    if high >= dims {
        return None;
    }
    match shape {
        RadialShape::Scalar => (r == c).then_some(0),
        RadialShape::Diagonal => (r == c).then_some(r),
        RadialShape::Symmetric => Some((0..low).map(|row| dims - row).sum::<usize>() + high - low),
        RadialShape::General => Some(r * dims + c),
    }
}

/// A point seen from a centre.
struct Pair {
    x: Vector,
    c: Vector,
    u: Vector,
    m: Matrix,
    v: Vector,
    t: A,
    phi: A,
}

const NEAREST: f64 = 7.888_609_052_210_118e-31;

fn hats(v: &Vector) -> Vector {
    v.map(|v| if v.value.abs() >= 1.0 { number(0.0) } else { number(1.0) - v.abs() })
}

fn phi(function: RadialFunction, x: &Vector, c: &Vector, v: &Vector, t: A) -> A {
    type F = RadialFunction;
    let one = number(1.0);
    match function {
        F::InverseQuadratic => one / (one + t),
        F::InverseMultiquadric => one / (one + t).sqrt(),
        F::Gaussian => (number(-0.5) * t).exp(),
        F::SuperGaussian => (number(-0.25) * t * t).exp(),
        F::SquaredGaussian => (-t).exp(),
        F::Markov => (-t.sqrt()).exp(),
        F::ExponentialSine => (-t.sqrt().sin()).exp(),
        F::Quadratic => one + t,
        F::Multiquadric => (one + t).sqrt(),
        F::Linear => t.sqrt(),
        F::Cubic => t * t.sqrt(),
        F::Parabola => one - t,
        F::InverseLinear => one / (t.sqrt() + number(f64::from(1e-10f32))),
        F::InverseCubic => one / (t * t.sqrt() + number(f64::from(1e-30f32))),
        F::Hat => hats(v).into_iter().fold(one, |a, b| a * b),
        F::Cosine => {
            let square = dot(x, x) * dot(c, c);
            if square.value < NEAREST { number(0.0) } else { dot(x, c) / square.sqrt() }
        }
    }
}

/// `dphi d phi / d t`.
fn slope(function: RadialFunction, dphi: A, phi: A, t: A) -> A {
    type F = RadialFunction;
    let singular =
        matches!(function, F::Markov | F::ExponentialSine | F::Linear | F::InverseLinear | F::InverseCubic);
    if singular && t.value < NEAREST {
        return number(0.0);
    }
    let r = t.sqrt();
    let half = number(0.5);
    match function {
        F::InverseQuadratic => -(dphi * phi * phi),
        F::InverseMultiquadric => -(half * dphi * phi * phi * phi),
        F::Gaussian => -(half * dphi * phi),
        F::SuperGaussian => -(half * dphi * phi * t),
        F::SquaredGaussian => -(dphi * phi),
        F::Markov => -(dphi * phi * half / r),
        F::ExponentialSine => -(dphi * phi * half / r * r.cos()),
        F::Quadratic => dphi,
        F::Multiquadric => dphi * half / phi,
        F::Linear => dphi * half / r,
        F::Cubic => number(1.5) * dphi * r,
        F::Parabola => -dphi,
        F::InverseLinear => -(dphi * phi * phi * half / r),
        F::InverseCubic => -(dphi * phi * phi * number(1.5) * r),
        F::Hat | F::Cosine => unreachable!(),
    }
}

/// Gradients of x, c and the matrix.
fn gradients(config: &RadialBasisConfig, pair: &Pair, dphi: A) -> (Vector, Vector, Matrix) {
    let Pair { x, c, u, m, v, t, phi } = pair;
    let zero = number(0.0);
    if config.function == RadialFunction::Cosine {
        let (xx, cc) = (dot(x, x), dot(c, c));
        if (xx * cc).value < NEAREST {
            return Default::default();
        }
        let length = (xx * cc).sqrt();
        let each = |a: &Vector, b: &Vector, aa: A| -> Vector {
            std::array::from_fn(|d| dphi * (b[d] / length - *phi / aa * a[d]))
        };
        return (each(x, c, xx), each(c, x, cc), Matrix::default());
    }
    let (dx, dm) = if config.function == RadialFunction::Hat {
        let h = hats(v);
        let dv = std::array::from_fn(|d| {
            let sign = if v[d].value == 0.0 { 0.0 } else { v[d].value.signum() };
            if v[d].value.abs() >= 1.0 || sign == 0.0 {
                return zero;
            }
            let others = (0..4).filter(|&o| o != d).fold(number(-sign), |a, o| a * h[o]);
            dphi * others
        });
        (transposed_times(m, &dv), outer(&dv, u))
    } else {
        let dt = slope(config.function, dphi, *phi, *t);
        if config.shape == RadialShape::General {
            let dv = scaled(number(2.0) * dt, v);
            (transposed_times(m, &dv), outer(&dv, u))
        } else {
            (scaled(number(2.0) * dt, v), outer(&scaled(dt, u), u))
        }
    };
    (dx, dx.map(|d| -d), dm)
}

/// What goes in.
#[derive(Clone)]
struct Inputs {
    positions: Vec<f32>,
    centres: Vec<f32>,
    shapes: Vec<f32>,
    neighbours: Vec<u32>,
    dphi: Vec<f32>,
}

/// What comes out: phi, and the gradients of phi before normalisation, positions, centres, shapes.
#[derive(Default)]
struct Outputs {
    phi: Vec<A>,
    dkernel: Vec<A>,
    dpositions: Vec<A>,
    dcentres: Vec<A>,
    dshapes: Vec<A>,
}

fn vector(data: &[f32], i: usize, dims: usize) -> Vector {
    std::array::from_fn(|d| if d < dims { data[i * dims + d].into() } else { number(0.0) })
}

fn see(config: &RadialBasisConfig, inputs: &Inputs, n: usize, i: usize) -> Pair {
    let dims = config.dims as usize;
    let size = config.shape.size(config.dims) as usize;
    let (x, c) = (vector(&inputs.positions, n, dims), vector(&inputs.centres, i, dims));
    let u: Vector = std::array::from_fn(|d| x[d] - c[d]);
    let m: Matrix = std::array::from_fn(|r| {
        std::array::from_fn(|column| {
            place(config.shape, dims, r, column).map_or(number(0.0), |at| inputs.shapes[i * size + at].into())
        })
    });
    let v = times(&m, &u);
    let mut t = if config.shape == RadialShape::General { dot(&v, &v) } else { dot(&u, &v) };
    if t.value < 0.0 {
        t.value = 0.0;
    }
    let phi = phi(config.function, &x, &c, &v, t);
    Pair { x, c, u, m, v, t, phi }
}

fn reference(config: &RadialBasisConfig, inputs: &Inputs) -> Outputs {
    let (dims, k) = (config.dims as usize, config.neighbours as usize);
    let size = config.shape.size(config.dims) as usize;
    let centres = config.centres as usize;
    let mut out = Outputs {
        dcentres: vec![number(0.0); centres * dims],
        dshapes: vec![number(0.0); centres * size],
        ..Outputs::default()
    };
    for n in 0..config.points as usize {
        let own: Vec<usize> = inputs.neighbours[n * k..][..k].iter().map(|&i| i as usize).collect();
        let pairs: Vec<Option<Pair>> =
            own.iter().map(|&i| (i < centres).then(|| see(config, inputs, n, i))).collect();
        let raw: Vec<A> = pairs.iter().map(|p| p.as_ref().map_or(number(0.0), |p| p.phi)).collect();
        let dy: Vec<A> = inputs.dphi[n * k..][..k].iter().map(|&v| v.into()).collect();
        let sum: A = raw.iter().copied().sum();
        let scale = match config.normalisation {
            RadialNormalisation::None => number(1.0),
            _ => {
                let divisor = sum + number(config.epsilon.into());
                let is_none = divisor.value.abs() < f64::from(f32::MIN_POSITIVE);
                if is_none { number(0.0) } else { number(1.0) / divisor }
            }
        };
        out.phi.extend(raw.iter().map(|&phi| phi * scale));
        let mean = match config.normalisation {
            RadialNormalisation::Full => raw.iter().zip(&dy).map(|(&a, &b)| a * b).sum::<A>() * scale,
            _ => number(0.0),
        };
        let mut dx = Vector::default();
        for (j, pair) in pairs.iter().enumerate() {
            let Some(pair) = pair else {
                out.dkernel.push(number(0.0));
                continue;
            };
            let dphi = (dy[j] - mean) * scale;
            out.dkernel.push(dphi);
            let (own_dx, dc, dm) = gradients(config, pair, dphi);
            for d in 0..dims {
                dx[d] += own_dx[d];
                let at = &mut out.dcentres[own[j] * dims + d];
                *at += dc[d];
            }
            for (r, row) in dm.iter().enumerate() {
                for (c, &value) in row.iter().enumerate() {
                    if let Some(place) = place(config.shape, dims, r, c) {
                        let at = &mut out.dshapes[own[j] * size + place];
                        *at += value;
                    }
                }
            }
        }
        out.dpositions.extend(&dx[..dims]);
    }
    out
}

fn inputs(config: &RadialBasisConfig, random: &mut Random) -> Inputs {
    let RadialBasisConfig { dims, centres, neighbours, points, shape, .. } = *config;
    let (n, k, d) = (points as usize, neighbours as usize, dims as usize);
    let own_centres = random.vec((centres * dims) as usize, -0.5, 0.5);
    let mut positions = random.vec(n * d, -0.5, 0.5);
    let mut table: Vec<u32> = (0..n * k).map(|_| random.below(centres)).collect();
    let mut shapes = Vec::new();
    for _ in 0..centres {
        let factor = random.vec(d * d, -1.2, 1.2);
        match shape {
            RadialShape::General => shapes.extend(factor),
            RadialShape::Symmetric => {
                for r in 0..d {
                    for c in r..d {
                        let product: f32 = (0..d).map(|i| factor[i * d + r] * factor[i * d + c]).sum();
                        shapes.push(product + if r == c { 0.3 } else { 0.0 });
                    }
                }
            }
            _ => shapes.extend(random.vec(shape.size(dims) as usize, 0.2, 2.5)),
        }
    }
    for i in (0..n * k).step_by(11) {
        // On the centre itself: where singular kernels have no slope.
        let c = table[i] as usize;
        positions[i / k * d..][..d].copy_from_slice(&own_centres[c * d..][..d]);
    }
    for i in (7..n * k).step_by(19) {
        table[i] = [centres, centres + 1, u32::MAX][i % 3];
    }
    if config.function == RadialFunction::Cosine {
        positions[..d].fill(0.0);
    }
    Inputs { positions, centres: own_centres, shapes, neighbours: table, dphi: random.vec(n * k, -1.0, 1.0) }
}

// The references carry first-order bounds of the errors; second-order terms, other orders of addition
// and products that are rounded where the reference adds nothing are within as much again.
const BOUND: f64 = 2.0;

fn near(values: &[A]) -> Expected {
    let terms: Vec<_> = values.iter().map(|v| v.term()).collect();
    // Denormal results may be flushed to 0.
    Expected::near(&terms, BOUND, 1.2e-38)
}

fn forward(config: RadialBasisConfig, name: &str, inputs: &Inputs, out: &Outputs) -> Case {
    Case::new(KERNEL, format!("forward {name}{config:?}"), move |context, b| {
        RadialBasisForward::new(context, config)?.prepare(&RadialBasisForwardArgs {
            positions: b["positions"],
            centres: b["centres"],
            shapes: b["shapes"],
            neighbours: b["neighbours"],
            phi: b["phi"],
        })
    })
    .input("positions", &inputs.positions)
    .input("centres", &inputs.centres)
    .input("shapes", &inputs.shapes)
    .read("neighbours", Data::U32(inputs.neighbours.clone()))
    .output("phi", near(&out.phi))
}

fn backward(config: RadialBasisConfig, name: &str, inputs: &Inputs, out: &Outputs) -> Case {
    let n = config.points * config.neighbours;
    Case::new(KERNEL, format!("backward {name}{config:?}"), move |context, b| {
        let index = InvertedIndex::new(context, InvertedIndexConfig { rows: config.centres, n })?;
        let mut recording = index.prepare(&InvertedIndexArgs {
            index: b["neighbours"],
            order: b["order"],
            starts: b["starts"],
            scratch: &b.scratch(&index)?,
        })?;
        recording.append(RadialBasisBackward::new(context, config)?.prepare(&RadialBasisBackwardArgs {
            positions: b["positions"],
            centres: b["centres"],
            shapes: b["shapes"],
            neighbours: b["neighbours"],
            dphi: b["dphi"],
            dkernel: b["dkernel"],
            dpositions: b["dpositions"],
            centre_gradients: Some(RadialCentreGradients {
                order: b["order"],
                starts: b["starts"],
                dcentres: b["dcentres"],
                dshapes: b["dshapes"],
            }),
        })?);
        Ok(recording)
    })
    .input("positions", &inputs.positions)
    .input("centres", &inputs.centres)
    .input("shapes", &inputs.shapes)
    .read("neighbours", Data::U32(inputs.neighbours.clone()))
    .input("dphi", &inputs.dphi)
    .update("order", Data::U32(vec![7; n as usize]), Expected::Any)
    .update("starts", Data::U32(vec![7; config.centres as usize + 1]), Expected::Any)
    .output("dkernel", near(&out.dkernel))
    .output("dpositions", near(&out.dpositions))
    .output("dcentres", near(&out.dcentres))
    .output("dshapes", near(&out.dshapes))
}

fn both(config: RadialBasisConfig, random: &mut Random) -> [Case; 2] {
    let inputs = inputs(&config, random);
    let out = reference(&config, &inputs);
    [forward(config, "", &inputs, &out), backward(config, "", &inputs, &out)]
}

/// The hat where it bends: on its ridges, at its foot, and just beside; in numbers that f32 holds exactly.
fn bends(shape: RadialShape, random: &mut Random) -> [Case; 2] {
    let steps = [-1.25f32, -1.0, -0.75, 0.0, 0.25, 0.5, 1.0, 2.0];
    let config = RadialBasisConfig {
        function: RadialFunction::Hat,
        shape,
        normalisation: RadialNormalisation::None,
        points: 64,
        centres: 2,
        neighbours: 2,
        ..Default::default()
    };
    let positions = (0..64).flat_map(|i| [steps[i % 8], 0.5 * steps[i / 8] + 0.25]).collect();
    let one: &[f32] = match shape {
        RadialShape::Scalar => &[1.0],
        RadialShape::Diagonal => &[1.0, 2.0],
        RadialShape::Symmetric => &[1.0, 0.0, 2.0],
        RadialShape::General => &[1.0, 0.0, 0.0, 2.0],
    };
    let inputs = Inputs {
        positions,
        centres: vec![0.0, 0.25, 0.5, 0.0],
        shapes: [one, one].concat(),
        neighbours: [0, 1].repeat(64),
        dphi: random.vec(128, -1.0, 1.0),
    };
    let out = reference(&config, &inputs);
    [forward(config, "at the bends ", &inputs, &out), backward(config, "at the bends ", &inputs, &out)]
}

/// Points without a neighbour, and no epsilon in the divisor: neither bases nor gradients.
fn no_neighbours(normalisation: RadialNormalisation, random: &mut Random) -> [Case; 2] {
    let config =
        RadialBasisConfig { normalisation, epsilon: 0.0, points: 41, centres: 7, ..Default::default() };
    let mut inputs = inputs(&config, random);
    let k = config.neighbours as usize;
    for n in [0, 17, 40] {
        inputs.neighbours[n * k..][..k].fill(u32::MAX);
    }
    let out = reference(&config, &inputs);
    let name = "without neighbours ";
    [forward(config, name, &inputs, &out), backward(config, name, &inputs, &out)]
}

/// The steepest function next to its centre: its slope in t is no number of f32, its gradients are.
fn next_to_the_centre(shape: RadialShape, random: &mut Random) -> [Case; 2] {
    let offsets = [1e-12f32, 4e-12, 4e-10, 1e-9, 3e-9, 1e-8, 2e-8, 3e-8];
    let config = RadialBasisConfig {
        function: RadialFunction::InverseCubic,
        shape,
        normalisation: RadialNormalisation::None,
        points: 8,
        neighbours: 1,
        ..Default::default()
    };
    let one: &[f32] = if shape == RadialShape::General { &[1.0, 0.0, 0.0, 1.0] } else { &[1.0, 0.0, 1.0] };
    let inputs = Inputs {
        positions: offsets.iter().flat_map(|&r| [0.8 * r, -0.6 * r]).collect(),
        centres: vec![0.0; 2],
        shapes: one.to_vec(),
        neighbours: vec![0; 8],
        dphi: random.vec(8, -1.0, 1.0),
    };
    let out = reference(&config, &inputs);
    let name = "next to the centre ";
    [forward(config, name, &inputs, &out), backward(config, name, &inputs, &out)]
}

/// All points have the same centre: a list longer than the 65,535 rounds after which a driver ends loops.
fn one_long_list() -> Case {
    let points = 70_000;
    let config = RadialBasisConfig {
        function: RadialFunction::Gaussian,
        normalisation: RadialNormalisation::None,
        dims: 1,
        neighbours: 1,
        points,
        ..Default::default()
    };
    let n = points as usize;
    let inputs = Inputs {
        positions: vec![0.5; n],
        centres: vec![0.25],
        shapes: vec![1.0],
        neighbours: vec![0; n],
        dphi: vec![1.0; n],
    };
    backward(config, "one long list ", &inputs, &reference(&config, &inputs))
}

/// NaN in a position, a centre and a shape stays in the rows that see it.
fn not_finite(function: RadialFunction, random: &mut Random) -> Case {
    let config = RadialBasisConfig { function, points: 40, centres: 9, ..Default::default() };
    let mut inputs = inputs(&config, random);
    inputs.positions[4] = f32::NAN;
    inputs.centres[5] = f32::NAN;
    inputs.shapes[12] = f32::NAN;
    for (i, index) in inputs.neighbours.iter_mut().enumerate() {
        *index = (i % 9) as u32;
    }
    let mut out = reference(&config, &inputs);
    let k = config.neighbours as usize;
    for (n, phi) in out.phi.iter_mut().enumerate() {
        let row = &inputs.neighbours[n / k * k..][..k];
        let shaped = function != RadialFunction::Cosine && row.contains(&4);
        if n / k == 2 || row.contains(&2) || shaped {
            *phi = number(f64::NAN);
        }
    }
    forward(config, "with NaN ", &inputs, &out)
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "another point's neighbour",
        kernel: KERNEL,
        shader: "radial/radial_basis::forward",
        find: "let i = neighbours[first + j];",
        replace: "let i = neighbours[max(first, 1u) - 1u + j];",
    },
    Canary {
        bug: "no epsilon in the divisor",
        kernel: KERNEL,
        shader: "radial/radial_basis::forward",
        find: "let divisor = sum + params.epsilon;",
        replace: "let divisor = sum;",
    },
    Canary {
        bug: "the sum held constant where it must not be",
        kernel: KERNEL,
        shader: "radial/radial_basis::backward_points",
        find: "NORMALISATION == FULL",
        replace: "NORMALISATION > FULL",
    },
    Canary {
        bug: "the gradient of a centre with the sign of the point's",
        kernel: KERNEL,
        shader: "radial/radial_basis::backward_centres",
        find: "g.dc = -g.dx;",
        replace: "g.dc = g.dx;",
    },
    Canary {
        bug: "a shape transposed",
        kernel: KERNEL,
        shader: "radial/radial_basis::forward",
        find: "let v = u * m;",
        replace: "let v = m * u;",
    },
    Canary {
        bug: "no rule where a kernel is singular",
        kernel: KERNEL,
        shader: "radial/radial_basis::backward_points",
        find: "singular && t < NEAREST",
        replace: "singular && t < -1.0",
    },
    Canary {
        bug: "an element off the diagonal counted once",
        kernel: KERNEL,
        shader: "radial/radial_basis::backward_centres",
        find: "m[0].y + m[1].x",
        replace: "m[0].y",
    },
    Canary {
        bug: "the hat's slope outside of it",
        kernel: KERNEL,
        shader: "radial/radial_basis::backward_points",
        find: "abs(w.v) >= vec4<f32>(1.0));
        let dv",
        replace: "abs(w.v) >= vec4<f32>(2.0));
        let dv",
    },
    Canary {
        bug: "a NaN left to exp, which may swallow it",
        kernel: KERNEL,
        shader: "radial/radial_basis::forward",
        find: "select(phi_at(w.t), w.t, is_nan(w.t))",
        replace: "phi_at(w.t)",
    },
    Canary {
        bug: "a division by the sum of no neighbours",
        kernel: KERNEL,
        shader: "radial/radial_basis::forward",
        find: "(bitcast<u32>(divisor) & 0x7fffffffu) < 0x00800000u",
        replace: "false",
    },
    Canary {
        bug: "the slope of the inverse cubic as one number, which overflows",
        kernel: KERNEL,
        shader: "radial/radial_basis::backward_points",
        find: "result = -(dphi * phi);
            other = phi * 1.5 * r;",
        replace: "result = -(dphi * phi) * (phi * 1.5 * r);",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(41);
    let mut cases = Vec::new();
    let base =
        RadialBasisConfig { points: 67, centres: 23, neighbours: 5, epsilon: 1e-3, ..Default::default() };
    let mut add = |config| cases.extend(both(config, &mut random));
    for function in RadialFunction::ALL {
        add(RadialBasisConfig { function, ..base });
    }
    let shapes = [RadialShape::Scalar, RadialShape::Diagonal, RadialShape::Symmetric, RadialShape::General];
    let full = RadialNormalisation::Full;
    let none = RadialNormalisation::None;
    for shape in shapes {
        for dims in 1..=4 {
            add(RadialBasisConfig { shape, dims, normalisation: full, neighbours: 3, ..base });
        }
        add(RadialBasisConfig {
            shape,
            dims: 3,
            function: RadialFunction::Hat,
            normalisation: none,
            neighbours: 8,
            ..base
        });
    }
    for (function, shape, dims, normalisation) in [
        (RadialFunction::Cosine, RadialShape::Scalar, 3, none),
        (RadialFunction::Markov, RadialShape::General, 4, full),
        (RadialFunction::InverseCubic, RadialShape::Diagonal, 3, full),
    ] {
        add(RadialBasisConfig { function, shape, dims, normalisation, ..base });
    }
    // Sizes; lists that are empty, and longer than the lanes.
    for (points, centres, neighbours, lanes) in [
        (1, 1, 1, Some(1)),
        (63, 64, 4, Some(64)),
        (64, 65, 32, Some(2)),
        (65, 129, 1, Some(32)),
        (257, 3, 2, Some(64)),
    ] {
        add(RadialBasisConfig { points, centres, neighbours, lanes, ..base });
    }
    for shape in shapes {
        cases.extend(bends(shape, &mut random));
    }
    cases.push(one_long_list());
    for function in [
        RadialFunction::InverseQuadratic,
        RadialFunction::Hat,
        RadialFunction::Cosine,
        RadialFunction::Gaussian,
        RadialFunction::SuperGaussian,
        RadialFunction::SquaredGaussian,
        RadialFunction::Markov,
        RadialFunction::ExponentialSine,
        RadialFunction::InverseMultiquadric,
        RadialFunction::Multiquadric,
        RadialFunction::Linear,
    ] {
        cases.push(not_finite(function, &mut random));
    }
    for normalisation in [RadialNormalisation::Detached, full] {
        cases.extend(no_neighbours(normalisation, &mut random));
    }
    for shape in [RadialShape::Symmetric, RadialShape::General] {
        cases.extend(next_to_the_centre(shape, &mut random));
    }
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> [Result<()>; 5] {
    let good = RadialBasisConfig::default();
    let new = |config| RadialBasisForward::new(context, config).map(drop);
    [
        new(RadialBasisConfig { dims: 5, ..good }),
        new(RadialBasisConfig { centres: 0, ..good }),
        new(RadialBasisConfig { neighbours: 33, ..good }),
        new(RadialBasisConfig { epsilon: f32::NAN, ..good }),
        new(RadialBasisConfig { lanes: Some(3), ..good }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::adapter::best_context;
    use crate::radial::aliased::{assert_refused, buffers, views};

    /// What the first launch writes is no list that the second reads.
    #[test]
    fn an_output_that_another_launch_reads_is_refused() {
        let Some(context) = best_context() else { return };
        let config = RadialBasisConfig { points: 8, centres: 3, ..Default::default() };
        let kernel = RadialBasisBackward::new(&context, config).unwrap();
        let all = buffers(&context);
        let [
            positions,
            centres,
            shapes,
            neighbours,
            dphi,
            dkernel,
            dpositions,
            order,
            starts,
            dcentres,
            dshapes,
        ] = views(&all);
        let prepare = |order, dcentres| {
            kernel.prepare(&RadialBasisBackwardArgs {
                positions,
                centres,
                shapes,
                neighbours,
                dphi,
                dkernel,
                dpositions,
                centre_gradients: Some(RadialCentreGradients { order, starts, dcentres, dshapes }),
            })
        };
        assert!(prepare(order, dcentres).is_ok());
        assert_refused(prepare(dkernel, dcentres), "dkernel", "order");
        assert_refused(prepare(dpositions, dcentres), "dpositions", "order");
        assert_refused(prepare(order, dpositions), "dcentres", "dpositions");
    }

    /// `sum_n,j dphi y`, with the sum of a detached normalisation held at what `frozen` gives.
    fn loss(config: &RadialBasisConfig, inputs: &Inputs, frozen: Option<&Inputs>) -> f64 {
        let out = reference(config, inputs);
        let k = config.neighbours as usize;
        let sums = |inputs: &Inputs, n: usize| -> f64 {
            inputs.neighbours[n * k..][..k]
                .iter()
                .filter(|&&i| i < config.centres)
                .map(|&i| see(config, inputs, n, i as usize).phi.value)
                .sum::<f64>()
                + f64::from(config.epsilon)
        };
        let scale = |n: usize| frozen.map_or(1.0, |frozen| sums(inputs, n) / sums(frozen, n));
        out.phi
            .iter()
            .zip(&inputs.dphi)
            .enumerate()
            .map(|(i, (y, &g))| y.value * f64::from(g) * scale(i / k))
            .sum()
    }

    fn check(config: &RadialBasisConfig, random: &mut Random) {
        // Away from the singular points, and from the bends of the hat.
        let bent = |given: &Inputs| {
            given.neighbours.iter().enumerate().filter(|&(_, &i)| i < config.centres).any(|(pair, &i)| {
                let v = see(config, given, pair / config.neighbours as usize, i as usize).v;
                let dims = config.dims as usize;
                v[..dims].iter().any(|v| v.value.abs() < 0.01 || (v.value.abs() - 1.0).abs() < 0.01)
            })
        };
        let given = loop {
            let mut given = inputs(config, random);
            for (i, x) in given.positions.iter_mut().enumerate() {
                *x += 0.03 + 0.01 * (i % 3) as f32;
            }
            if config.function != RadialFunction::Hat || !bent(&given) {
                break given;
            }
        };
        let out = reference(config, &given);
        let frozen = (config.normalisation == RadialNormalisation::Detached).then_some(&given);
        type Pick = fn(&mut Inputs) -> &mut Vec<f32>;
        let picks: [(Pick, &Vec<A>); 3] = [
            (|i| &mut i.positions, &out.dpositions),
            (|i| &mut i.centres, &out.dcentres),
            (|i| &mut i.shapes, &out.dshapes),
        ];
        for (which, (pick, gradient)) in picks.into_iter().enumerate() {
            for (at, gradient) in gradient.iter().enumerate() {
                let moved = |h: f32| {
                    let mut given = given.clone();
                    pick(&mut given)[at] += h;
                    (f64::from(pick(&mut given)[at]), loss(config, &given, frozen))
                };
                // Steps that f32 can hold: fourth-order differences, since they cannot be small.
                let h = 1.0 / 2048.0;
                let [a, b, c, d] = [-2.0 * h, -h, h, 2.0 * h].map(moved);
                let slope = (8.0 * (c.1 - b.1) - (d.1 - a.1)) / (12.0 * (c.0 - b.0) / 2.0);
                let size = 1e-3 * (1.0 + gradient.value.abs());
                let off = (slope - gradient.value).abs();
                assert!(off < size, "{config:?} {which} [{at}]: {slope} {}", gradient.value);
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(42);
        let shapes =
            [RadialShape::Scalar, RadialShape::Diagonal, RadialShape::Symmetric, RadialShape::General];
        for function in RadialFunction::ALL {
            for (i, shape) in shapes.into_iter().enumerate() {
                for normalisation in
                    [RadialNormalisation::None, RadialNormalisation::Detached, RadialNormalisation::Full]
                {
                    // Poles are for the test below. The hat may have a sum near 0.
                    let pole =
                        matches!(function, RadialFunction::InverseCubic | RadialFunction::InverseLinear);
                    let hat = function == RadialFunction::Hat;
                    if pole || hat && normalisation != RadialNormalisation::None {
                        continue;
                    }
                    let config = RadialBasisConfig {
                        function,
                        shape,
                        normalisation,
                        dims: i as u32 + 1,
                        epsilon: 0.1,
                        points: 3,
                        centres: 4,
                        neighbours: 3,
                        lanes: None,
                    };
                    check(&config, &mut random);
                }
            }
        }
    }

    #[test]
    fn slopes_of_steep_kernels_agree_with_finite_differences() {
        let zero = Vector::default();
        for function in RadialFunction::ALL {
            if matches!(function, RadialFunction::Hat | RadialFunction::Cosine) {
                continue;
            }
            for t in [0.01, 0.3, 1.0, 4.0] {
                let h = 1e-5 * t;
                let at = |t: f64| phi(function, &zero, &zero, &zero, number(t)).value;
                let slope_there = slope(function, number(1.0), number(at(t)), number(t)).value;
                let difference = (at(t + h) - at(t - h)) / (2.0 * h);
                assert!((slope_there / difference - 1.0).abs() < 1e-6, "{function:?} {t}");
            }
        }
    }
}
