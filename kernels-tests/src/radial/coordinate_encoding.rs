//! Reference and cases of `radial::coordinate_encoding`.

use std::f64::consts::PI;

use patchfield::Kernel;
use patchfield::radial::coordinate_encoding::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

/// Integral of the quartic kernel, and the kernel.
fn quartic(u: f64) -> (f64, f64) {
    if u <= -1.0 {
        (0.0, 0.0)
    } else if u >= 1.0 {
        (1.0, 0.0)
    } else {
        let value = 15.0 / 16.0 * u * (1.0 - 2.0 / 3.0 * u * u + u.powi(4) / 5.0) + 0.5;
        (value, 15.0 / 16.0 * (1.0 - u * u).powi(2))
    }
}

/// Output `j` of a coordinate and its derivative: value, derivative, and the scales of their errors.
fn reference(encoding: CoordinateEncoding, x: f64, j: u32) -> [(f64, f64); 2] {
    match encoding {
        CoordinateEncoding::Frequency { .. } => {
            let rate = PI * f64::from(j / 2).exp2();
            let (sine, cosine) = (rate * x).sin_cos();
            // The sine's argument is at most pi; its rounding moves the sine by as much: pi units.
            if j.is_multiple_of(2) {
                [(sine, PI), (rate * cosine, rate * PI)]
            } else {
                [(cosine, PI), (-rate * sine, rate * PI)]
            }
        }
        CoordinateEncoding::OneBlob { bins } => {
            let k = f64::from(bins);
            let (mut value, mut slope) = (0.0, 0.0);
            for turn in [-k, 0.0, k] {
                let at = f64::from(j) - k * x + turn;
                value += quartic(at + 1.0).0 - quartic(at).0;
                slope += k * (quartic(at).1 - quartic(at + 1.0).1);
            }
            // u is a difference of numbers up to 2 k; the integral's slope is at most 15/16, and the kernel's
            // at most 1.44. Two of them and their own rounding.
            let rounding = 2.0 * k * (x.abs() + 2.0) + 2.0;
            [(value, rounding), (slope, 1.5 * k * rounding)]
        }
    }
}

fn inputs(encoding: CoordinateEncoding, n: usize, random: &mut Random) -> Vec<f32> {
    let low = if matches!(encoding, CoordinateEncoding::Frequency { .. }) { -1.0 } else { 0.0 };
    let mut x = random.vec(n, low, 1.0);
    for (x, special) in x.iter_mut().step_by(3).zip([0.5, 0.0, 1.0, 0.25, 0.999_999_94, low, 1e-7, 1e-30]) {
        *x = special;
    }
    x
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the derivative of one blob's neighbour",
        kernel: "radial/coordinate_encoding",
        shader: "radial/coordinate_encoding::backward",
        find: "blob_derivative(f32(b) - bins * v, bins)",
        replace: "blob_derivative(f32(b) + 1.0 - bins * v, bins)",
    },
    Canary {
        bug: "no blob around the end",
        kernel: "radial/coordinate_encoding",
        shader: "radial/coordinate_encoding::forward",
        find: "for (var turn = 0u; turn < 3u; turn++) {
        let u = at + (f32(turn) - 1.0) * bins;
        sum += integral",
        replace: "for (var turn = 1u; turn < 3u; turn++) {
        let u = at + (f32(turn) - 1.0) * bins;
        sum += integral",
    },
    Canary {
        bug: "sine and cosine swapped in the gradient",
        kernel: "radial/coordinate_encoding",
        shader: "radial/coordinate_encoding::backward",
        find: "dy[at + 2u * k] * w.y - dy[at + 2u * k + 1u] * w.x",
        replace: "dy[at + 2u * k] * w.x - dy[at + 2u * k + 1u] * w.y",
    },
];

pub fn cases() -> Vec<Case> {
    use CoordinateEncoding::{Frequency, OneBlob};
    let mut cases = Vec::new();
    let mut random = Random::new(41);
    let rows = [
        (Frequency { frequencies: 1 }, 1, 1),
        (Frequency { frequencies: 4 }, 63, 3),
        (Frequency { frequencies: 10 }, 257, 2),
        (Frequency { frequencies: 24 }, 101, 3),
        (OneBlob { bins: 2 }, 1, 1),
        (OneBlob { bins: 3 }, 65, 2),
        (OneBlob { bins: 32 }, 64, 3),
        (OneBlob { bins: 1024 }, 5, 1),
        // More workgroups than one row of the grid holds.
        (Frequency { frequencies: 1 }, 4_194_307, 1),
    ];
    for (encoding, points, dims) in rows {
        let config = CoordinateEncodingConfig { encoding, points, dims };
        let x = inputs(encoding, (points * dims) as usize, &mut random);
        let outputs = encoding.outputs();
        let dy = random.vec(x.len() * outputs as usize, -1.0, 1.0);
        let mut y = Vec::new();
        let mut dx = Vec::new();
        for (&x, dy) in x.iter().zip(dy.chunks(outputs as usize)) {
            let mut sum = (0.0, 0.0);
            for (j, &g) in dy.iter().enumerate() {
                let [value, slope] = reference(encoding, x.into(), j as u32);
                y.push(value);
                let g = f64::from(g);
                sum = (sum.0 + g * slope.0, sum.1 + g.abs() * slope.1);
            }
            dx.push(sum);
        }
        let name = format!("{encoding:?}, [{points}, {dims}]");
        // Forward: the argument 1 unit of pi, the sine 2 of 1; the blob 2 roundings of u, 8 of each integral.
        cases.push(
            Case::new("radial/coordinate_encoding", format!("forward {name}"), move |context, b| {
                let args = CoordinateEncodingForwardArgs { x: b["x"], y: b["y"] };
                CoordinateEncodingForward::new(context, config)?.prepare(&args)
            })
            .input("x", &x)
            .output("y", Expected::near(&y, 4.0, 1e-37)),
        );
        // And one unit for each output added; the terms of a sum average their errors: a quarter.
        let ulps = 4.0 + f64::from(outputs) / 4.0;
        cases.push(
            Case::new("radial/coordinate_encoding", format!("backward {name}"), move |context, b| {
                let args = CoordinateEncodingBackwardArgs { x: b["x"], dy: b["dy"], dx: b["dx"] };
                CoordinateEncodingBackward::new(context, config)?.prepare(&args)
            })
            .input("x", &x)
            .input("dy", &dy)
            .output("dx", Expected::near(&dx, ulps, 0.0)),
        );
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let h = 1e-6;
        for encoding in
            [CoordinateEncoding::Frequency { frequencies: 5 }, CoordinateEncoding::OneBlob { bins: 8 }]
        {
            for x in [0.02, 0.31, 0.5, 0.77, 0.98] {
                for j in 0..encoding.outputs() {
                    let at = |x| reference(encoding, x, j)[0].0;
                    let slope = (at(x + h) - at(x - h)) / (2.0 * h);
                    let d = reference(encoding, x, j)[1].0;
                    assert!((slope - d).abs() < 1e-5, "{encoding:?} {j} at {x}: {slope} {d}");
                }
            }
        }
    }

    #[test]
    fn blobs_add_up_to_one_around_the_circle() {
        for bins in [2, 3, 16] {
            for x in [0.0, 0.01, 0.4, 0.99, 1.0] {
                let sum: f64 =
                    (0..bins).map(|j| reference(CoordinateEncoding::OneBlob { bins }, x, j)[0].0).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{bins} {x}: {sum}");
            }
        }
    }
}
