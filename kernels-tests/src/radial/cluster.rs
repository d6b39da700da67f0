//! References and cases of `radial::cluster`.

use patchfield::radial::cluster::*;
use patchfield::{Kernel, Result};

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "radial/cluster";
const UNIT: f64 = 1.0 / 16_777_216.0;

/// Weighted points with their clusters and the clusters' centres.
#[derive(Debug, Clone)]
pub struct Clusters {
    pub config: ClusterConfig,
    pub positions: Vec<f32>,
    pub weights: Vec<f32>,
    pub labels: Vec<u32>,
    pub centres: Vec<f32>,
}

/// A point as seen from its centre.
struct Member {
    weight: f64,
    offset: Vec<f64>,
}

impl Clusters {
    fn members(&self) -> Vec<Vec<Member>> {
        let d = self.config.dims as usize;
        let mut members: Vec<Vec<Member>> = (0..self.config.clusters).map(|_| Vec::new()).collect();
        for ((x, &w), &label) in self.positions.chunks(d).zip(&self.weights).zip(&self.labels) {
            if !(w > 0.0 && w <= 1e27) || label >= self.config.clusters {
                continue;
            }
            let at = label as usize;
            let centre = &self.centres[at * d..][..d];
            let offset: Vec<f64> = x.iter().zip(centre).map(|(&x, &c)| f64::from(x) - f64::from(c)).collect();
            if offset.iter().all(|o| o.is_finite() && o.abs() <= 1e18) {
                members[at].push(Member { weight: w.into(), offset });
            }
        }
        members
    }

    /// The powers of two of a cluster, above its largest weight and its largest offset, and the
    /// sum of its weights.
    fn scale(members: &[Member]) -> (f64, f64, f64) {
        let above = |x: f64| if x > 0.0 { 2f64.powi(x.log2().floor() as i32 + 1) } else { 0.0 };
        let weight = members.iter().map(|m| m.weight).fold(0.0, f64::max);
        let offset = members.iter().flat_map(|m| &m.offset).fold(0.0, |a: f64, o| a.max(o.abs()));
        (
            above(weight).max(2f64.powi(-120)),
            above(offset).max(2f64.powi(-60)),
            members.iter().map(|m| m.weight).sum(),
        )
    }

    /// The mean of a product of offsets, and a bound of its error in units of 2^-24.
    fn mean(members: &[Member], product: impl Fn(&Member) -> f64, factors: i32) -> (f64, f64) {
        let (weight, offset, total) = Self::scale(members);
        let mean = members.iter().map(|m| m.weight * product(m)).sum::<f64>() / total;
        let magnitude = members.iter().map(|m| m.weight * product(m).abs()).sum::<f64>() / total;
        // Terms and weights are rounded to 2^-29 of the powers of two.
        let n = members.len() as f64;
        let fixed = 2f64.powi(-30) * n * weight / total;
        // Roundings: two for each offset and product; four for each of two sums turned to floats; five
        // of a division; two of the scale.
        (mean, magnitude * (2 * factors + 15) as f64 + fixed * (offset.powi(factors) + mean.abs()) / UNIT)
    }

    /// The moved centres, each with a bound of its error in units of 2^-24.
    pub fn moved(&self) -> Vec<(f64, f64)> {
        let d = self.config.dims as usize;
        let mut out = Vec::new();
        for (i, members) in self.members().iter().enumerate() {
            for axis in 0..d {
                let old = f64::from(self.centres[i * d + axis]);
                if members.is_empty() {
                    out.push((old, old.abs()));
                } else {
                    let (mean, bound) = Self::mean(members, |m| m.offset[axis], 1);
                    out.push((old + mean, (old + mean).abs() + bound));
                }
            }
        }
        out
    }

    /// The shapes, each entry with a bound of its error in units of 2^-24, and the counters: empty,
    /// clamped, indefinite.
    pub fn shapes(&self, config: &ClusterShapesConfig) -> (Vec<(f64, f64)>, [u32; 3]) {
        let d = self.config.dims as usize;
        let mut report = [0; 3];
        let mut out = Vec::new();
        let scale = f64::from(config.scale / config.alpha);
        for members in &self.members() {
            let mut s = vec![vec![0.0; d]; d];
            let mut bound = vec![vec![0.0; d]; d];
            for i in 0..d {
                for j in 0..d {
                    if members.is_empty() {
                        s[i][j] = if i == j { f64::from(1e-10f32 * config.scale) } else { 0.0 };
                    } else {
                        let (mean, error) = Self::mean(members, |m| m.offset[i] * m.offset[j], 2);
                        (s[i][j], bound[i][j]) = (mean * scale, error * scale);
                    }
                }
            }
            report[0] += u32::from(members.is_empty());
            let mut clamped = false;
            for i in 0..d {
                let kept = s[i][i].clamp(config.least[i].into(), config.most[i].into());
                // In f32, as the shader compares.
                clamped |= kept as f32 != s[i][i] as f32;
                if kept != s[i][i] {
                    bound[i][i] = 0.0;
                }
                s[i][i] = kept;
            }
            let deviation: Vec<f64> = (0..d).map(|i| s[i][i].sqrt()).collect();
            let mut r = vec![vec![1.0; d]; d];
            for i in 0..d {
                for j in 0..d {
                    if i != j {
                        let scaled = s[i][j] / (deviation[i] * deviation[j]);
                        let kept = scaled.clamp(-f64::from(0.999f32), f64::from(0.999f32));
                        clamped |= kept != scaled;
                        r[i][j] = kept;
                    }
                }
            }
            report[1] += u32::from(clamped);
            let cofactor = |a: f64| 1.0 - a * a;
            if d == 3 && determinant(&r) <= 1e-4 * (cofactor(r[0][1]) * cofactor(r[0][2])).sqrt() {
                report[2] += 1;
                (0..3).for_each(|i| (0..3).filter(|&j| j != i).for_each(|j| r[i][j] *= 0.5));
            }
            for i in 0..d {
                for j in 0..d {
                    s[i][j] = r[i][j] * deviation[i] * deviation[j];
                    // Two roots, a division and the closed form of the inverse.
                    bound[i][j] += 40.0 * deviation[i] * deviation[j];
                }
            }
            let k = inverse(&s);
            // A change E of the matrix changes the inverse by K E K, to first order.
            for i in 0..d {
                for j in i..d {
                    let mut error = 0.0;
                    for a in 0..d {
                        for b in 0..d {
                            error += (k[i][a] * bound[a][b] * k[b][j]).abs();
                        }
                    }
                    out.push((k[i][j], error));
                }
            }
        }
        (out, report)
    }
}

fn determinant(m: &[Vec<f64>]) -> f64 {
    let minor = |a: usize, b: usize| m[1][a] * m[2][b] - m[1][b] * m[2][a];
    m[0][0] * minor(1, 2) - m[0][1] * minor(0, 2) + m[0][2] * minor(0, 1)
}

/// By elimination.
fn inverse(m: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = m.len();
    let mut a = m.to_vec();
    let mut out: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
    for i in 0..n {
        let pivot = a[i][i];
        for j in 0..n {
            a[i][j] /= pivot;
            out[i][j] /= pivot;
        }
        for row in (0..n).filter(|&row| row != i) {
            let factor = a[row][i];
            for j in 0..n {
                a[row][j] -= factor * a[i][j];
                out[row][j] -= factor * out[i][j];
            }
        }
    }
    out
}

fn inputs(case: Case, clusters: &Clusters) -> Case {
    case.input("positions", &clusters.positions)
        .input("weights", &clusters.weights)
        .read("labels", Data::U32(clusters.labels.clone()))
}

fn means(clusters: &Clusters, what: &str) -> Case {
    let config = clusters.config;
    let case = Case::new(KERNEL, format!("means of {what}, {config:?}"), move |context, b| {
        let kernel = ClusterMeans::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&ClusterMeansArgs {
            positions: b["positions"],
            weights: b["weights"],
            labels: b["labels"],
            centres: b["centres"],
            scratch: &scratch,
        })
    });
    inputs(case, clusters).update(
        "centres",
        Data::F32(clusters.centres.clone()),
        Expected::near(&clusters.moved(), 1.0, 0.0),
    )
}

fn shapes(clusters: &Clusters, config: ClusterShapesConfig, what: &str) -> Case {
    let (expected, [empty, clamped, indefinite]) = clusters.shapes(&config);
    let case = Case::new(KERNEL, format!("shapes of {what}, {:?}", clusters.config), move |context, b| {
        let kernel = ClusterShapes::new(context, config)?;
        let scratch = b.scratch(&kernel)?;
        kernel.prepare(&ClusterShapesArgs {
            positions: b["positions"],
            weights: b["weights"],
            labels: b["labels"],
            centres: b["centres"],
            shapes: b["shapes"],
            report: b["report"],
            scratch: &scratch,
        })
    });
    inputs(case, clusters)
        .input("centres", &clusters.centres)
        .output("shapes", Expected::near(&expected, 1.0, 0.0))
        .update(
            "report",
            Data::U32(vec![7, 1, 10, 20, 30, 0, 0, 0]),
            Expected::Exact(vec![7, 1, 10 + empty, 20 + clamped, 30 + indefinite, 0, 0, 0]),
        )
}

fn random_clusters(dims: u32, points: u32, clusters: u32, spread: f32, random: &mut Random) -> Clusters {
    let n = points as usize;
    let centres = random.vec((clusters * dims) as usize, -2.0, 2.0);
    let labels: Vec<u32> = (0..n).map(|_| random.below(clusters)).collect();
    let mut positions = Vec::new();
    for &label in &labels {
        for axis in 0..dims {
            positions.push(centres[(label * dims + axis) as usize] + random.uniform(-spread, 1.3 * spread));
        }
    }
    let weights = random.vec(n, 0.0, 3.0);
    Clusters { config: ClusterConfig { dims, points, clusters }, positions, weights, labels, centres }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "a carry forgotten",
        kernel: KERNEL,
        shader: "radial/cluster::add_means",
        find: " + select(0u, 1u, before + low < before);",
        replace: ";",
    },
    Canary {
        bug: "an empty cluster's centre moved",
        kernel: KERNEL,
        shader: "radial/cluster::move_centres",
        find: "if weight == 0.0 {",
        replace: "if false {",
    },
    Canary {
        bug: "correlations clipped at another number",
        kernel: KERNEL,
        shader: "radial/cluster::make_shapes",
        find: "clamp(s / (a * b), -0.999, 0.999)",
        replace: "clamp(s / (a * b), -0.9991, 0.9991)",
    },
    Canary {
        bug: "the least variance of another axis",
        kernel: KERNEL,
        shader: "radial/cluster::make_shapes",
        find: "vec3<f32>(params.least_x, params.least_y, params.least_z)",
        replace: "vec3<f32>(params.least_x, params.least_x, params.least_x)",
    },
    Canary {
        bug: "xz and yy confused",
        kernel: KERNEL,
        shader: "radial/cluster::make_shapes",
        find: "shapes[6u * cluster + 2u] = others.y",
        replace: "shapes[6u * cluster + 2u] = others.z",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(45);
    let mut cases = Vec::new();
    let mut both = |clusters: &Clusters, clips: ([f32; 3], [f32; 3]), what: &str| {
        let (least, most) = clips;
        let config = ClusterShapesConfig { clusters: clusters.config, alpha: 0.5, scale: 1.0, least, most };
        cases.push(means(clusters, what));
        cases.push(shapes(clusters, config, what));
    };
    let wide = ([1e-6, 2e-6, 3e-6], [100.0, 90.0, 80.0]);
    let narrow = ([1e-3, 0.02, 0.3], [0.05, 0.2, 0.4]);
    for (dims, points, clusters) in
        [(1, 1, 1), (2, 1, 1), (3, 1, 2), (2, 64, 7), (3, 65, 9), (1, 257, 5), (2, 3000, 131), (3, 3001, 65)]
    {
        let made = random_clusters(dims, points, clusters, 0.5, &mut random);
        both(&made, wide, "some");
        both(&made, narrow, "clipped");
        let mut bad = random_clusters(dims, points, clusters, 0.01, &mut random);
        for i in (0..points as usize).step_by(3) {
            let wrong = [0.0, f32::NAN, -2.0, f32::INFINITY, 1e28];
            match i % 4 {
                0 => bad.weights[i] = wrong[i / 4 % 5],
                1 => bad.positions[i * dims as usize] = f32::NAN,
                2 => bad.labels[i] = clusters + i as u32,
                _ => bad.positions[(i + 1) * dims as usize - 1] = [f32::NEG_INFINITY, 1e19][i / 4 % 2],
            }
        }
        both(&bad, wide, "bad points");
    }
    // One cluster of many points, on both sides of its centre: sums beyond 32 bits.
    let mut many = random_clusters(2, 5000, 1, 3.0, &mut random);
    both(&many, wide, "one cluster");
    many.weights.iter_mut().for_each(|w| *w = 10f32.powf(*w * 5.0 - 9.0));
    both(&many, wide, "weights over 15 orders of magnitude");
    // Weights and offsets at the ends of what is taken.
    for (weight, offset) in [(1e-30, 1e-3), (1e26, 1e3), (1e-3, 1e-9), (1e20, 1e-12)] {
        let mut ends = random_clusters(3, 300, 4, 1.0, &mut random);
        ends.centres.iter_mut().for_each(|c| *c = 0.0);
        ends.positions.iter_mut().for_each(|x| *x *= offset);
        ends.weights.iter_mut().for_each(|w| *w *= weight);
        both(&ends, ([1e-17; 3], [1e17; 3]), &format!("weights near {weight:e}, offsets near {offset:e}"));
    }
    // On a line through the centre: correlations of 1, clipped.
    for dims in [2, 3] {
        let mut line = random_clusters(dims, 200, 6, 1.0, &mut random);
        for (i, x) in line.positions.chunks_mut(dims as usize).enumerate() {
            let centre = &line.centres[(line.labels[i] * dims) as usize..];
            let t = x[0] - centre[0];
            x.iter_mut().zip(centre).zip([1.0, -0.5, 0.25]).for_each(|((x, c), s)| *x = c + s * t);
        }
        both(&line, wide, "lines");
        // A clipped diagonal leaves no positive definite matrix behind in 3-D.
        both(&line, ([1e-6; 3], [0.4, 0.02, 1.0]), "clipped lines");
    }
    // In a plane that leans: two long axes are clipped, and the correlations with them grow to 1.
    let mut plane = random_clusters(3, 400, 3, 1.0, &mut random);
    for (i, x) in plane.positions.chunks_mut(3).enumerate() {
        let centre = &plane.centres[(plane.labels[i] * 3) as usize..];
        x[2] = centre[2] + (x[0] - centre[0]) - (x[1] - centre[1]);
    }
    both(&plane, ([1e-6; 3], [0.1, 0.1, 0.1]), "planes, clipped below their correlations");
    cases
}

/// What a configuration must refuse.
pub fn refused(context: &patchfield::Context) -> Vec<Result<()>> {
    let good = ClusterConfig { dims: 2, points: 4, clusters: 2 };
    let shapes = ClusterShapesConfig::with_clips(good, [4.0; 3], [256; 3]);
    let clusters = [
        ClusterConfig { dims: 4, ..good },
        ClusterConfig { points: 0, ..good },
        ClusterConfig { clusters: 0, ..good },
        ClusterConfig { clusters: u32::MAX / 13, ..good },
    ];
    let bad = [
        ClusterShapesConfig { alpha: 0.0, ..shapes },
        ClusterShapesConfig { scale: f32::NAN, ..shapes },
        ClusterShapesConfig { least: [0.0; 3], ..shapes },
        ClusterShapesConfig { least: [1.0; 3], most: [1.0, 0.5, 1.0], ..shapes },
        ClusterShapesConfig::with_clips(good, [f32::NAN; 3], [256; 3]),
    ];
    let clusters = clusters.map(|config| ClusterMeans::new(context, config).map(drop));
    clusters.into_iter().chain(bad.map(|config| ClusterShapes::new(context, config).map(drop))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_clips_of_a_picture() {
        let clusters = ClusterConfig { dims: 2, points: 65_536, clusters: 2776 };
        let shapes = ClusterShapesConfig::with_clips(clusters, [4.0, 4.0, 1.0], [256, 256, 1]);
        assert_eq!(shapes.least[0], ((4.0 / 256.0 / 2.0 / 100.0f64).powi(2)) as f32);
        assert_eq!(shapes.most[1], 0.4f64.powi(2) as f32);
    }
}
