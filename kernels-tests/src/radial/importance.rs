//! Reference and cases of `radial::importance`.

use patchfield::radial::importance::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "radial/importance";

fn is_weight(w: f64) -> bool {
    (0.0..=f64::from(1e27f32)).contains(&w)
}

/// Weights before they are divided by their mean, and the magnitudes of their terms.
pub fn raw(importance: Importance, values: &[f32]) -> Vec<(f64, f64)> {
    let value = |i: usize| f64::from(values[i]);
    match importance {
        Importance::Sobel { width, height, channels } => {
            let (w, h, c) = (width as usize, height as usize, channels as usize);
            let pixel = |x: i64, y: i64, k: usize| {
                let (x, y) = (x.clamp(0, w as i64 - 1) as usize, y.clamp(0, h as i64 - 1) as usize);
                value((y * w + x) * c + k)
            };
            let weigh = |i: usize| {
                let (x, y) = ((i % w) as i64, (i / w) as i64);
                let (mut sum, mut magnitude) = (0.0, 0.0);
                for k in 0..c {
                    for axis in 0..2 {
                        let (mut s, mut m) = (0.0, 0.0);
                        for (side, smooth) in
                            [-1i64, 1].into_iter().flat_map(|a| [-1i64, 0, 1].map(|b| (a, b)))
                        {
                            let (dx, dy) = if axis == 0 { (side, smooth) } else { (smooth, side) };
                            let term = (2 - smooth.abs()) as f64 * pixel(x + dx, y + dy, k);
                            s += side as f64 * term;
                            m += term.abs();
                        }
                        sum += s * s;
                        magnitude += m * m;
                    }
                    if !pixel(x, y, k).is_finite() {
                        sum = f64::NAN;
                    }
                }
                (sum.sqrt() / 8.0, magnitude.sqrt() / 8.0)
            };
            (0..w * h).map(weigh).collect()
        }
        Importance::InverseDistance { points } => {
            let weigh = |i: usize| 1.0 / (value(i).abs() + 1e-9);
            let weigh = |i: usize| if value(i).is_finite() { weigh(i) } else { f64::NAN };
            (0..points as usize).map(|i| (weigh(i), weigh(i))).collect()
        }
        Importance::Given { points } => (0..points as usize).map(|i| (value(i), value(i))).collect(),
    }
}

fn case(importance: Importance, what: &str, values: Vec<f32>) -> Case {
    let mut weights = raw(importance, &values);
    let unusable = weights.iter().filter(|(w, _)| !is_weight(*w)).count() as u32;
    weights.iter_mut().filter(|(w, _)| !is_weight(*w)).for_each(|w| *w = (0.0, 0.0));
    let n = weights.len() as f64;
    let mean = weights.iter().map(|w| w.0).sum::<f64>() / n;
    let mean_magnitude = weights.iter().map(|w| w.1).sum::<f64>() / n;
    let uniform = mean == 0.0;
    let expected: Vec<_> = weights
        .iter()
        .map(
            |&(w, m)| {
                if uniform { (1.0, 1.0) } else { (w / mean, m / mean + w / mean * mean_magnitude / mean) }
            },
        )
        .collect();
    // Of a weight: 6 roundings of a derivative, then half of those of two squares and 2 sums a
    // channel, a root, a division. Of the mean: the same, and the sums of at most 64 on each level.
    let mut levels = 0.0;
    let mut nodes = weights.len();
    while nodes > 1 {
        levels += nodes.min(64) as f64;
        nodes = nodes.div_ceil(64);
    }
    let name = format!("{importance:?}, {what}");
    Case::new(KERNEL, name, move |context, b| {
        let kernel = ImportanceWeights::new(context, importance)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&ImportanceArgs {
            values: b["values"],
            weights: b["weights"],
            report: b["report"],
            scratch: &scratch,
        })
    })
    .input("values", &values)
    .output("weights", Expected::near(&expected, 24.0 + levels, 0.0))
    .output("report", Expected::Exact(vec![unusable, uniform.into(), 0, 0, 0, 0, 0, 0]))
}

/// A picture in bands of so many rows.
fn band_case(width: u32, height: u32, rows: u32, bad: Option<f32>, random: &mut Random) -> Case {
    let channels = 3;
    let mut values = random.vec((width * height * channels) as usize, 0.0, 1.0);
    if let Some(bad) = bad {
        values[(width * height / 2 * channels) as usize] = bad;
    }
    let whole = raw(Importance::Sobel { width, height, channels }, &values);
    let expected: Vec<_> = whole.iter().map(|&w| if is_weight(w.0) { w } else { (-1.0, 1.0) }).collect();
    let bands: Vec<SobelBandConfig> = (0..height)
        .step_by(rows as usize)
        .map(|first_row| {
            let rows = rows.min(height - first_row);
            SobelBandConfig { width, height, channels, first_row, rows }
        })
        .collect();
    const NAMES: [&str; 4] = ["band 0", "band 1", "band 2", "band 3"];
    let name = format!("{width} x {height} in bands of {rows} rows, {bad:?}");
    let all = bands.clone();
    let mut case = Case::new(KERNEL, name, move |context, b| {
        let mut recording = patchfield::Recording::new();
        for (band, name) in all.iter().zip(NAMES) {
            let kernel = SobelBand::new(context, *band)?;
            recording.append(kernel.prepare(&SobelBandArgs { values: b[name], raw: b["raw"] })?);
        }
        Ok(recording)
    });
    for (band, name) in bands.iter().zip(NAMES) {
        let row = (width * channels) as usize;
        let read = band.rows_read();
        case = case.input(name, &values[read.start as usize * row..read.end as usize * row]);
    }
    case.output("raw", Expected::near(&expected, 24.0, 0.0))
}

fn pixel_case(width: u32, height: u32) -> Case {
    let place = |i: u32, side: u32| ((f64::from(i) + 0.5) / 64.0 - f64::from(side) / 128.0) as f32;
    let positions = (0..width * height)
        .flat_map(|i| [place(i % width, width), place(i / width, height)])
        .map(f32::to_bits);
    Case::new(KERNEL, format!("positions of {width} x {height} pixels"), move |context, b| {
        let kernel = PixelPositions::new(context, PixelGrid { width, height })?;
        kernel.prepare(&PixelPositionsArgs { positions: b["positions"] })
    })
    .output("positions", Expected::Exact(positions.collect()))
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the edge reflected instead of continued",
        kernel: KERNEL,
        shader: "radial/importance::sobel",
        find: "let right = min(x + 1u, params.width - 1u);",
        replace: "let right = select(x + 1u, max(x, 1u) - 1u, x + 1u == params.width);",
    },
    Canary {
        bug: "a NaN pixel forgotten where it has no weight of its own",
        kernel: KERNEL,
        shader: "radial/importance::sobel",
        find: "if !is_finite(pixel(x, y, c)) {",
        replace: "if false {",
    },
    Canary {
        bug: "the row above a band taken for its first",
        kernel: KERNEL,
        shader: "radial/importance::sobel_band",
        find: "i + params.skipped * params.width",
        replace: "i",
    },
    Canary {
        bug: "the last child of a node left out",
        kernel: KERNEL,
        shader: "radial/weighted_sample::sum_weights",
        find: "min(CHILDREN, params.points - first)",
        replace: "min(CHILDREN - 1u, params.points - first)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(42);
    let mut cases = Vec::new();
    for (width, height, channels) in
        [(1, 1, 3), (1, 70, 1), (67, 1, 2), (2, 2, 4), (8, 8, 3), (13, 5, 3), (31, 37, 1), (65, 66, 3)]
    {
        let sobel = Importance::Sobel { width, height, channels };
        let n = (width * height * channels) as usize;
        cases.push(case(sobel, "noise", random.vec(n, 0.0, 1.0)));
        if n > 50 {
            let mut values = random.vec(n, 0.0, 1.0);
            values[n / 2] = f32::NAN;
            values[3] = f32::INFINITY;
            values[n - 1] = f32::NEG_INFINITY;
            values[n / 3] = 3e38;
            cases.push(case(sobel, "NaN, infinities and a huge pixel", values));
            cases.push(case(sobel, "one colour", vec![0.3; n]));
            let mut values = vec![0.25; n];
            values[n / 2] = 0.25 + 1.0 / 256.0;
            cases.push(case(sobel, "one pixel stands out", values));
        }
    }
    for points in [1, 63, 64, 65, 4097] {
        let distances = Importance::InverseDistance { points };
        let given = Importance::Given { points };
        let n = points as usize;
        let mut values = random.vec(n, -1.0, 1.0);
        values[n / 2] = 0.0;
        cases.push(case(distances, "one on the surface", values));
        cases.push(case(given, "plain", random.vec(n, 0.0, 5.0)));
        cases.push(case(given, "all zero", vec![0.0; n]));
        let mut values = random.vec(n, 0.0, 1e-6);
        for (i, bad) in [f32::NAN, -1.0, f32::INFINITY, 2e27, -0.0, 1e27].into_iter().enumerate() {
            if i * 11 < n {
                values[i * 11] = bad;
            }
        }
        cases.push(case(given, "bad ones", values.clone()));
        values.iter_mut().step_by(2).for_each(|x| *x = f32::NAN);
        cases.push(case(distances, "bad ones", values));
    }
    for (width, height, rows) in [(1, 1, 1), (13, 7, 2), (5, 4, 1), (67, 9, 4), (70, 3, 3)] {
        cases.push(band_case(width, height, rows, None, &mut random));
        cases.push(band_case(width, height, rows, Some(f32::NAN), &mut random));
    }
    cases.extend([pixel_case(1, 1), pixel_case(2, 3), pixel_case(97, 65)]);
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> Vec<Result<()>> {
    let good = SobelBandConfig { width: 4, height: 4, channels: 3, first_row: 0, rows: 4 };
    let band = |config| SobelBand::new(context, config).map(drop);
    vec![
        ImportanceWeights::new(context, Importance::Sobel { width: 0, height: 4, channels: 3 }).map(drop),
        ImportanceWeights::new(context, Importance::Sobel { width: 4, height: 4, channels: 0 }).map(drop),
        ImportanceWeights::new(context, Importance::Sobel { width: 70_000, height: 70_000, channels: 1 })
            .map(drop),
        ImportanceWeights::new(context, Importance::Given { points: 0 }).map(drop),
        band(SobelBandConfig { first_row: 3, rows: 2, ..good }),
        band(SobelBandConfig { rows: 0, ..good }),
        band(SobelBandConfig { first_row: u32::MAX, ..good }),
        PixelPositions::new(context, PixelGrid { width: 0, height: 1 }).map(drop),
    ]
}
