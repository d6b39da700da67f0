//! Reference and cases of `attention::position`.

use patchfield::Kernel;
use patchfield::attention::position::*;

use crate::canaries::Canary;
use crate::harness::{Case, Expected, Random};

const KERNEL: &str = "attention/position";

/// Rows of the output, each as (which row of prefix or x it takes, row of the table).
fn sources(config: &AddPositionConfig) -> Vec<(Result<usize, usize>, usize)> {
    let [batch, tokens, prefix] = [config.batch, config.tokens, config.prefix].map(|n| n as usize);
    let row = |b, t| if t < prefix { Err(t) } else { Ok(b * (tokens - prefix) + t - prefix) };
    (0..batch).flat_map(|b| (0..tokens).map(move |t| (row(b, t), t))).collect()
}

fn case(config: AddPositionConfig, bad: Option<f32>, random: &mut Random) -> Case {
    let AddPositionConfig { batch, tokens, width, prefix } = config;
    let n = width as usize;
    let mut x = random.vec((batch * (tokens - prefix) * width) as usize, -1.0, 1.0);
    if let Some(bad) = bad {
        let at = x.len() / 2;
        x[at] = bad;
    }
    let before = random.vec((prefix * width) as usize, -1.0, 1.0);
    let table = random.vec((tokens * width) as usize, -1.0, 1.0);
    let dy = random.vec((batch * tokens * width) as usize, -1.0, 2.0);
    let mut y = Vec::new();
    let mut dx = vec![0; x.len()];
    let mut dtable = vec![(0.0, 0.0); table.len()];
    for (row, (from, t)) in sources(&config).into_iter().enumerate() {
        for c in 0..n {
            let v = match from {
                Err(p) => before[p * n + c],
                Ok(r) => x[r * n + c],
            };
            let (v, at) = (f64::from(v), f64::from(table[t * n + c]));
            y.push((v + at, v.abs() + at.abs()));
            let g = dy[row * n + c];
            if let Ok(r) = from {
                dx[r * n + c] = g.to_bits();
            }
            let sum = &mut dtable[t * n + c];
            *sum = (sum.0 + f64::from(g), sum.1 + f64::from(g).abs());
        }
    }
    let case = Case::new(KERNEL, format!("{config:?}, {bad:?}"), move |context, b| {
        let mut recording = AddPosition::new(context, config)?.prepare(&AddPositionArgs {
            x: b["x"],
            prefix: (prefix > 0).then(|| b["prefix"]),
            table: b["table"],
            y: b["y"],
        })?;
        let backward = AddPositionBackward::new(context, config)?;
        let args = AddPositionBackwardArgs { dy: b["dy"], dtable: b["dtable"], dx: b["dx"] };
        recording.append(backward.prepare(&args)?);
        Ok(recording)
    })
    .input("x", &x)
    .input("table", &table)
    .input("dy", &dy)
    // One addition; as many as there are images.
    .output("y", Expected::near(&y, 1.0, 0.0))
    .output("dx", Expected::Exact(dx))
    .output("dtable", Expected::near(&dtable, f64::from(batch), 0.0));
    if prefix > 0 { case.input("prefix", &before) } else { case }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the prefix counted once for all images",
        kernel: KERNEL,
        shader: "attention/position::forward",
        find: "y[i] = x[i - (b + 1u) * params.prefix]",
        replace: "y[i] = x[i - params.prefix]",
    },
    Canary {
        bug: "the table's gradient of the last image only",
        kernel: KERNEL,
        shader: "attention/position::backward",
        find: "sum += g;",
        replace: "sum = g;",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(61);
    let mut cases = Vec::new();
    for (batch, tokens, width, prefix) in [
        (1, 1, 1, 0),
        (3, 7, 9, 0),
        (2, 5, 3, 1),
        (4, 17, 12, 1),
        (1, 64, 4, 0),
        (5, 65, 8, 2),
        (70, 3, 63, 1),
        // More images than Mesa's llvmpipe lets an invocation walk through.
        (65_600, 2, 1, 1),
    ] {
        let config = AddPositionConfig { batch, tokens, width, prefix };
        cases.push(case(config, None, &mut random));
    }
    let config = AddPositionConfig { batch: 2, tokens: 9, width: 8, prefix: 1 };
    for bad in [f32::NAN, f32::INFINITY, 3e38, 1e-40] {
        cases.push(case(config, Some(bad), &mut random));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_transpose() {
        // The rows of y as a linear map of the rows of x and of the table, applied and transposed.
        let config = AddPositionConfig { batch: 3, tokens: 4, width: 1, prefix: 1 };
        let mut random = Random::new(62);
        let mut draw =
            |n: usize| -> Vec<f64> { random.vec(n, -1.0, 1.0).into_iter().map(f64::from).collect() };
        let (x, before, table, dy) = (draw(9), draw(1), draw(4), draw(12));
        let (mut forward, mut dx, mut dtable) = (0.0, [0.0; 9], [0.0; 4]);
        for (row, (from, t)) in sources(&config).into_iter().enumerate() {
            let v = from.map_or_else(|p| before[p], |r| x[r]);
            forward += dy[row] * (v + table[t]);
            if let Ok(r) = from {
                dx[r] += dy[row];
            }
            dtable[t] += dy[row];
        }
        // The prefix takes the first row of dtable.
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let backward = dot(&dx, &x) + dot(&dtable, &table) + dtable[0] * before[0];
        assert!((forward - backward).abs() < 1e-12);
    }
}
