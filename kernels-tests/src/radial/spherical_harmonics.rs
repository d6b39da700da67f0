//! Reference and cases of `radial::spherical_harmonics`.

use std::f64::consts::PI;

use patchfield::Kernel;
use patchfield::radial::spherical_harmonics::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

fn factorial(n: u32) -> f64 {
    (1..=n).map(f64::from).product()
}

/// The `k`-th derivative of the Legendre polynomial of degree `l`, from its coefficients.
fn legendre(l: u32, k: u32, z: f64) -> f64 {
    (0..=l / 2)
        .filter(|j| l - 2 * j >= k)
        .map(|j| {
            let power = l - 2 * j;
            let sign = if j % 2 == 0 { 1.0 } else { -1.0 };
            let coefficient = sign * factorial(2 * l - 2 * j)
                / (f64::from(l).exp2() * factorial(j) * factorial(l - j) * factorial(power));
            coefficient * factorial(power) / factorial(power - k) * z.powi((power - k) as i32)
        })
        .sum()
}

/// Real and imaginary part of `(x + i y)^m`.
fn power(x: f64, y: f64, m: u32) -> (f64, f64) {
    (0..m).fold((1.0, 0.0), |(a, b), _| (a * x - b * y, a * y + b * x))
}

/// `Y_l^m` and its gradient.
fn reference(l: u32, m: i32, [x, y, z]: [f64; 3]) -> (f64, [f64; 3]) {
    let k = m.unsigned_abs();
    let sign = if k.is_multiple_of(2) { 1.0 } else { -1.0 };
    let two = if k == 0 { 1.0 } else { 2.0 };
    let norm = (two * f64::from(2 * l + 1) / (4.0 * PI) * factorial(l - k) / factorial(l + k)).sqrt() * sign;
    let (q, dq) = (norm * legendre(l, k, z), norm * legendre(l, k + 1, z));
    let (re, im) = power(x, y, k);
    let (below_re, below_im) = if k == 0 { (0.0, 0.0) } else { power(x, y, k - 1) };
    let k = f64::from(k);
    if m >= 0 {
        (q * re, [q * k * below_re, -q * k * below_im, dq * re])
    } else {
        (q * im, [q * k * below_im, q * k * below_re, dq * im])
    }
}

/// The scale of the rounding errors of `Y_l^m` and of its gradient on the sphere.
///
/// A step of the recurrence errs by a few units of the largest harmonic, `sqrt((2 l + 1) / 2 pi)`; later
/// steps carry it on, growing at most linearly, so l steps err by l^2 / 2 of it; the power has m
/// more; and the value itself is rounded. A derivative is at most l times as large, and at the poles l^2 / 2 times.
fn magnitude(l: u32) -> (f64, f64) {
    let largest = (f64::from(2 * l + 1) / (2.0 * PI)).sqrt();
    let n = f64::from(l) + 1.0;
    (largest * (1.0 + n * n / 2.0), largest * n * n * n)
}

fn directions(n: u32, random: &mut Random) -> Vec<f32> {
    let mut out: Vec<f32> = vec![0.0, 0.0, 1.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0];
    while out.len() < 3 * n as usize {
        let v: Vec<f32> = random.vec(3, -1.0, 1.0);
        let length = v.iter().map(|v| v * v).sum::<f32>().sqrt();
        if (0.1..1.0).contains(&length) {
            out.extend(v.iter().map(|v| v / length));
        }
    }
    // A single direction is not one of the poles.
    if n == 1 {
        return vec![0.48, -0.6, 0.64];
    }
    out.truncate(3 * n as usize);
    out
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the sign of the diagonal's step",
        kernel: "radial/spherical_harmonics",
        shader: "radial/spherical_harmonics::forward",
        find: "return -q * sqrt(f32(2u * m + 3u)",
        replace: "return q * sqrt(f32(2u * m + 3u)",
    },
    Canary {
        bug: "sine and cosine of an order swapped",
        kernel: "radial/spherical_harmonics",
        shader: "radial/spherical_harmonics::forward",
        find: "y[at + m] = SQRT_2 * q * power.x;
                y[at - m] = SQRT_2 * q * power.y;",
        replace: "y[at - m] = SQRT_2 * q * power.x;
                y[at + m] = SQRT_2 * q * power.y;",
    },
    Canary {
        bug: "the derivative by z without its first term",
        kernel: "radial/spherical_harmonics",
        shader: "radial/spherical_harmonics::backward",
        find: "vec2<f32>(z * q.x, q.x + z * q.y)",
        replace: "vec2<f32>(z * q.x, z * q.y)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut random = Random::new(43);
    for (points, degree) in [
        (65, 1),
        (63, 2),
        (127, 3),
        (1, 4),
        (257, 4),
        (64, 5),
        (33, 6),
        (101, 7),
        (1, 8),
        (515, 8),
        (4_194_307, 1),
    ] {
        let config = SphericalHarmonicsConfig { points, degree };
        let x = directions(points, &mut random);
        let dy = random.vec((points * degree * degree) as usize, -1.0, 1.0);
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        for (v, dy) in x.chunks(3).zip(dy.chunks((degree * degree) as usize)) {
            let v = [v[0].into(), v[1].into(), v[2].into()];
            let mut sum = [(0.0, 0.0); 3];
            let mut dy = dy.iter();
            for l in 0..degree {
                for m in -(l as i32)..=l as i32 {
                    let (value, slope) = reference(l, m, v);
                    let (of_value, of_slope) = magnitude(l);
                    y.push((value, of_value));
                    let g = dy.next().copied().map_or(0.0, f64::from);
                    for (sum, slope) in sum.iter_mut().zip(slope) {
                        *sum = (sum.0 + g * slope, sum.1 + g.abs() * of_slope);
                    }
                }
            }
            dx.extend(sum);
        }
        let name = format!("degree {degree}, {points}");
        // 8 units: a root of a quotient (about 4), and four operations around it.
        cases.push(
            Case::new("radial/spherical_harmonics", format!("forward {name}"), move |context, b| {
                let args = SphericalHarmonicsForwardArgs { directions: b["directions"], y: b["y"] };
                SphericalHarmonicsForward::new(context, config)?.prepare(&args)
            })
            .input("directions", &x)
            .output("y", Expected::near(&y, 8.0, 0.0)),
        );
        cases.push(
            Case::new("radial/spherical_harmonics", format!("backward {name}"), move |context, b| {
                let args =
                    SphericalHarmonicsBackwardArgs { directions: b["directions"], dy: b["dy"], dx: b["dx"] };
                SphericalHarmonicsBackward::new(context, config)?.prepare(&args)
            })
            .input("directions", &x)
            .input("dy", &dy)
            .output("dx", Expected::near(&dx, 8.0, 0.0)),
        );
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let h = 1e-6;
        for v in [[0.3, -0.5, 0.8], [0.0, 0.0, 1.0], [-0.6, 0.8, 0.0]] {
            for l in 0..8u32 {
                for m in -(l as i32)..=l as i32 {
                    let (_, gradient) = reference(l, m, v);
                    for d in 0..3 {
                        let (mut up, mut down) = (v, v);
                        up[d] += h;
                        down[d] -= h;
                        let slope = (reference(l, m, up).0 - reference(l, m, down).0) / (2.0 * h);
                        assert!((slope - gradient[d]).abs() < 1e-6, "{l} {m} {d}: {slope} {}", gradient[d]);
                    }
                }
            }
        }
    }

    /// The closed forms of the lowest degrees, with the signs of tiny-cuda-nn.
    #[test]
    fn low_degrees_have_their_closed_forms() {
        let [x, y, z] = [0.48, -0.6, 0.64];
        let expected = [
            (0, 0, 0.5 * (1.0 / PI).sqrt()),
            (1, -1, -(3.0 / (4.0 * PI)).sqrt() * y),
            (1, 0, (3.0 / (4.0 * PI)).sqrt() * z),
            (1, 1, -(3.0 / (4.0 * PI)).sqrt() * x),
            (2, -2, (15.0 / (4.0 * PI)).sqrt() * x * y),
            (2, -1, -(15.0 / (4.0 * PI)).sqrt() * y * z),
            (2, 0, (5.0 / (16.0 * PI)).sqrt() * (3.0 * z * z - 1.0)),
            (2, 1, -(15.0 / (4.0 * PI)).sqrt() * x * z),
            (2, 2, (15.0 / (16.0 * PI)).sqrt() * (x * x - y * y)),
            (3, -3, (35.0 / (32.0 * PI)).sqrt() * y * (y * y - 3.0 * x * x)),
        ];
        for (l, m, value) in expected {
            assert!((reference(l, m, [x, y, z]).0 - value).abs() < 1e-14, "{l} {m}");
        }
    }

    /// Orthonormal over the sphere, by the midpoint rule.
    #[test]
    fn orthonormal() {
        for (l, m) in [(0, 0), (3, -2), (5, 5), (7, 0), (7, 6)] {
            let mut sum = 0.0;
            let (rows, columns) = (400, 32);
            for i in 0..rows {
                let z = -1.0 + (2.0 * f64::from(i) + 1.0) / f64::from(rows);
                let r = (1.0 - z * z).sqrt();
                for j in 0..columns {
                    let angle = 2.0 * PI * f64::from(j) / f64::from(columns);
                    sum += reference(l, m, [r * angle.cos(), r * angle.sin(), z]).0.powi(2);
                }
            }
            sum *= 4.0 * PI / f64::from(rows * columns);
            assert!((sum - 1.0).abs() < 1e-3, "{l} {m}: {sum}");
        }
    }
}
