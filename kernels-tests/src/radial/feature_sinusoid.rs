//! Reference and cases of `radial::feature_sinusoid`.

use patchfield::Kernel;
use patchfield::radial::feature_sinusoid::*;
use patchfield::radial::log_spaced;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "radial/feature_sinusoid";

/// `(y, dy / dx)` in f64.
pub fn reference(x: f64, m: f64) -> (f64, f64) {
    (x + (m * x).sin(), 1.0 + m * (m * x).cos())
}

fn both(points: u32, width: u32, random: &mut Random) -> [Case; 2] {
    let config = FeatureSinusoidConfig { points, width };
    let n = (points * width) as usize;
    let m = log_spaced(1.0, 1000.0, width);
    let x = random.vec(n, -4.0, 4.0);
    let dy = random.vec(n, -1.0, 1.0);
    let (mut y, mut dx) = (Vec::new(), Vec::new());
    for (i, (&x, &g)) in x.iter().zip(&dy).enumerate() {
        let (x, m, g) = (f64::from(x), f64::from(m[i % width as usize]), f64::from(g));
        let (value, slope) = reference(x, m);
        // The rounding of m x, 3.5 units of a sine, and a sum.
        let angle = (m * x).abs() + 3.5;
        y.push((value, value.abs() + angle));
        dx.push((g * slope, g.abs() * (m * (angle + 2.0) + 2.0)));
    }
    let name = format!("{points}x{width}");
    let forward = Case::new(KERNEL, format!("forward {name}"), move |context, b| {
        let args = FeatureSinusoidForwardArgs { x: b["x"], frequencies: b["frequencies"], y: b["y"] };
        FeatureSinusoidForward::new(context, config)?.prepare(&args)
    })
    .input("x", &x)
    .input("frequencies", &m)
    .output("y", Expected::near(&y, 1.0, 0.0));
    let backward = Case::new(KERNEL, format!("backward {name}"), move |context, b| {
        let args = FeatureSinusoidBackwardArgs {
            x: b["x"],
            frequencies: b["frequencies"],
            dy: b["dy"],
            dx: b["dx"],
        };
        FeatureSinusoidBackward::new(context, config)?.prepare(&args)
    })
    .input("x", &x)
    .input("frequencies", &m)
    .input("dy", &dy)
    .output("dx", Expected::near(&dx, 1.0, 0.0));
    [forward, backward]
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the slope of the sine without its frequency",
        kernel: KERNEL,
        shader: "radial/feature_sinusoid::backward",
        find: "1.0 + m * cosine",
        replace: "1.0 + cosine",
    },
    Canary {
        bug: "one frequency for all",
        kernel: KERNEL,
        shader: "radial/feature_sinusoid::forward",
        find: "frequencies[i % params.width]",
        replace: "frequencies[0]",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(45);
    let shapes = [(1, 1), (1, 255), (37, 7), (16, 64), (17, 64), (257, 4), (61, 12)];
    shapes.into_iter().flat_map(|(points, width)| both(points, width, &mut random)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_agree_with_finite_differences() {
        for (x, m) in [(0.3, 1.0), (-1.2, 7.0), (0.0, 100.0), (2.0, 0.5)] {
            let h = 1e-7;
            let slope = (reference(x + h, m).0 - reference(x - h, m).0) / (2.0 * h);
            assert!((slope - reference(x, m).1).abs() < 1e-5 * m, "{x} {m}");
        }
    }
}
