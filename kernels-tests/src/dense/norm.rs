//! Reference and cases of `dense::norm`.

use patchfield::Kernel;
use patchfield::dense::norm::*;
use patchfield::dense::optimizer::StepValues;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// `(gradient scale, norm)` after clipping, in f64. A norm that is not finite gives scale 0, norm NaN.
pub fn reference(gradients: &[Vec<f32>], scale: f32, max_norm: f32) -> (f64, f64) {
    let squares: f64 = gradients.iter().flatten().map(|&g| f64::from(g).powi(2)).sum();
    let norm = f64::from(scale).abs() * squares.sqrt();
    // The squares are summed in f32.
    if !norm.is_finite() || squares > f64::from(f32::MAX) {
        return (0.0, f64::NAN);
    }
    (f64::from(scale) * (f64::from(max_norm) / norm).min(1.0), norm)
}

const NAMES: [&str; 4] = ["gradient 0", "gradient 1", "gradient 2", "gradient 3"];

fn case(
    counts: &[u32],
    range: f32,
    scale: f32,
    max_norm: f32,
    bad: Option<f32>,
    random: &mut Random,
) -> Case {
    let mut gradients: Vec<Vec<f32>> =
        counts.iter().map(|&n| random.vec(n as usize, -range, range)).collect();
    if let (Some(bad), Some(last)) = (bad, gradients.last_mut()) {
        let at = last.len() / 2;
        last[at] = bad;
    }
    let step = StepValues { gradient_scale: scale, ..StepValues::new(3, 0.5, [0.9, 0.99]) };
    let (clipped, norm) = reference(&gradients, scale, max_norm);
    let mut words: Vec<f32> = bytemuck::pod_collect_to_vec(step.bytes());
    let mut expected: Vec<(f64, f64)> = words.iter().map(|&w| (w.into(), f64::from(w).abs())).collect();
    expected[1] = (clipped, clipped.abs());
    expected[4] = (norm, if norm.is_nan() { 0.0 } else { norm });
    words[4] = 77.0;
    let config = ClipConfig { counts: counts.to_vec(), max_norm };
    let name = format!("{counts:?}, range {range}, scale {scale}, max {max_norm}, {bad:?}");
    let buffers = counts.len();
    let mut case = Case::new("dense/norm", name, move |context, b| {
        let kernel = Clip::new(context, config.clone())?;
        let scratch = b.scratch(&kernel)?;
        let gradients: Vec<_> = NAMES[..buffers].iter().map(|name| b[name]).collect();
        kernel.prepare(&ClipArgs { gradients: &gradients, step: b["step"], scratch: &scratch })
    });
    for (name, data) in NAMES.into_iter().zip(&gradients) {
        case = case.input(name, data);
    }
    // Every square is positive: at most 8 + 2 additions on the way to a partial sum, 4 + 2 + 8 in
    // each of two reductions, and one square make 39 units, halved by the square root; then a square
    // root and a division (2.5 each), 3 products.
    case.update("step", Data::F32(words), Expected::near(&expected, 28.0, 0.0))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "one buffer's partial sums over another's",
        kernel: "dense/norm",
        shader: "dense/norm::squares",
        find: "partial_sum[params.offset + group",
        replace: "partial_sum[group",
    },
    Canary {
        bug: "the scale of the gradients left out",
        kernel: "dense/norm",
        shader: "dense/norm::finish",
        find: "let norm = abs(scale) * sqrt",
        replace: "let norm = sqrt",
    },
    Canary {
        bug: "the last item counted twice",
        kernel: "dense/norm",
        shader: "dense/norm::squares",
        find: "select(Floats(), x * x, i < params.items)",
        replace: "select(Floats(), x * x, i <= params.items)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(31);
    let mut cases = Vec::new();
    for counts in [&[1][..], &[255], &[256], &[257], &[1024], &[1025, 1], &[3, 4099, 64, 997], &[8192, 8196]]
    {
        for max_norm in [0.1, 1e6] {
            cases.push(case(counts, 1.0, 1.0, max_norm, None, &mut random));
        }
        cases.push(case(counts, 100.0, 1.0 / 128.0, 1.0, None, &mut random));
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        cases.push(case(&[70, 1500], 1.0, 1.0, 1.0, Some(bad), &mut random));
    }
    // 65,792 partial sums: two reductions.
    cases.push(case(&[1_048_577, 5], 0.01, 1.0, 1.0, None, &mut random));
    cases
}
