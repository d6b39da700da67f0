//! Where the centres of a picture's radial bases stand, and their shapes (Chen et al. 2023, "NeuRBF",
//! section 3.2): weighted k-means of the pixels, with the gradient of the picture as the weight.

use super::picture::Picture;
use super::sampler::mix;
use crate::dispatch::{Context, Kernel, Planned, Result, check_shape};
use crate::radial::{NearestArgs, NearestConfig, NearestNeighbours};
use crate::train::Tensor;

/// Iterations of Lloyd's algorithm, as published.
const ITERATIONS: usize = 10;
/// Points whose nearest centre is searched in one go.
const TILE: u32 = 1 << 18;

/// Centres `[centres, 2]`, and the upper triangles of their inverse covariances `[centres, 3]`.
pub(super) struct Placement {
    pub centres: Vec<f32>,
    pub shapes: Vec<f32>,
}

/// The length of the Sobel gradient over all channels, borders repeated. A pixel whose gradient is
/// not finite counts as flat, and in a picture that is flat all pixels count the same.
fn importance(picture: &Picture) -> Vec<f64> {
    let (w, h, channels) = (picture.width as usize, picture.height as usize, picture.channels as usize);
    let at = |x: usize, y: usize, c: usize| f64::from(picture.data[(y * w + x) * channels + c]);
    let mut out = Vec::with_capacity(w * h);
    for y in 0..h {
        let (up, down) = (y.saturating_sub(1), (y + 1).min(h - 1));
        for x in 0..w {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(w - 1));
            let mut square = 0.0;
            for c in 0..channels {
                let row = |y| at(left, y, c) + 2.0 * at(x, y, c) + at(right, y, c);
                let column = |x| at(x, up, c) + 2.0 * at(x, y, c) + at(x, down, c);
                let (dx, dy) = (column(right) - column(left), row(down) - row(up));
                square += dx * dx + dy * dy;
            }
            out.push(if square.is_finite() { square.sqrt() } else { 0.0 });
        }
    }
    if out.iter().all(|&weight| weight == 0.0) {
        out.fill(1.0);
    }
    out
}

/// Finds the nearest centre of each point on the device.
struct Assignment<'a> {
    context: &'a Context,
    points: &'a [f32],
    tile: Tensor,
    centres: Tensor,
    indices: Tensor,
    nearest: NearestNeighbours,
}

impl<'a> Assignment<'a> {
    fn new(context: &'a Context, points: &'a [f32], centres: u32) -> Result<Self> {
        let n =
            crate::dispatch::count("points", &[u32::try_from(points.len() / 2).unwrap_or(u32::MAX), 2])? / 2;
        let tile = n.min(TILE);
        let config = NearestConfig { dims: 2, points: tile, centres, k: 1, distances: false, variant: None };
        Ok(Self {
            context,
            points,
            tile: Tensor::new(context, "points", &[tile, 2])?,
            centres: Tensor::new(context, "centres", &[centres, 2])?,
            indices: Tensor::new(context, "nearest", &[tile, 1])?,
            nearest: NearestNeighbours::new(context, config)?,
        })
    }

    #[cfg(feature = "blocking")]
    fn labels(&self, centres: &[f32]) -> Result<Vec<u32>> {
        self.centres.write(self.context, centres)?;
        let scratch = self.nearest.create_scratch()?;
        let recording = self.nearest.prepare(&NearestArgs {
            points: self.tile.view(),
            centres: self.centres.view(),
            indices: self.indices.view(),
            distances: None,
            scratch: &scratch,
        })?;
        let mut labels = Vec::with_capacity(self.points.len() / 2);
        for chunk in self.points.chunks(self.tile.len() as usize) {
            let mut padded = chunk.to_vec();
            padded.resize(self.tile.len() as usize, 0.0);
            self.tile.write(self.context, &padded)?;
            self.context.run_blocking(&recording)?;
            let found: Vec<u32> = self.context.read_blocking(self.indices.view())?;
            labels.extend_from_slice(&found[..chunk.len() / 2]);
        }
        Ok(labels)
    }
}

/// Places `count` centres over a picture that spans `+-extent`. The same seed gives the same centres.
#[cfg(feature = "blocking")]
pub(super) fn place(
    context: &Context,
    picture: &Picture,
    extent: [f64; 2],
    count: u32,
    seed: u64,
) -> Result<Placement> {
    let size = [f64::from(picture.width), f64::from(picture.height)];
    let all = importance(picture);
    let (mut points, mut weights) = (Vec::new(), Vec::new());
    for (i, &weight) in all.iter().enumerate().filter(|&(_, &weight)| weight > 0.0) {
        let pixel = [i % picture.width as usize, i / picture.width as usize];
        for d in 0..2 {
            points.push((((pixel[d] as f64 + 0.5) / size[d] * 2.0 - 1.0) * extent[d]) as f32);
        }
        weights.push(weight);
    }
    let point = |i: usize| [f64::from(points[2 * i]), f64::from(points[2 * i + 1])];

    // Seeds: pixels with a probability in proportion to the weight, with replacement.
    let mut total = 0.0;
    let sums: Vec<f64> = weights
        .iter()
        .map(|weight| {
            total += weight;
            total
        })
        .collect();
    let mut state = mix(seed ^ 0xce27);
    let mut centres: Vec<f64> = (0..count)
        .flat_map(|_| {
            state = mix(state);
            let t = (state >> 11) as f64 / (1u64 << 53) as f64 * total;
            point(sums.partition_point(|&sum| sum <= t).min(weights.len() - 1))
        })
        .collect();

    let assignment = Assignment::new(context, &points, count)?;
    let rounded = |centres: &[f64]| -> Vec<f32> { centres.iter().map(|&c| c as f32).collect() };
    for _ in 0..ITERATIONS {
        let labels = assignment.labels(&rounded(&centres))?;
        let mut sums = vec![[0.0; 3]; count as usize];
        for (i, &label) in labels.iter().enumerate() {
            let (x, w) = (point(i), weights[i]);
            let sum = &mut sums[label as usize];
            *sum = [sum[0] + w * x[0], sum[1] + w * x[1], sum[2] + w];
        }
        for (centre, sum) in centres.chunks_exact_mut(2).zip(&sums) {
            // A centre without pixels stays where it is.
            if sum[2] > 0.0 {
                (centre[0], centre[1]) = (sum[0] / sum[2], sum[1] / sum[2]);
            }
        }
    }
    let centres = rounded(&centres);
    let labels = assignment.labels(&centres)?;
    check_shape(labels.len() == weights.len(), "labels", "one a pixel", labels.len())?;
    let mut moments = vec![[0.0; 4]; count as usize];
    for (i, &label) in labels.iter().enumerate() {
        let (x, w, c) = (point(i), weights[i], label as usize);
        let u = [0, 1].map(|d| x[d] - f64::from(centres[2 * c + d]));
        let m = &mut moments[c];
        *m = [m[0] + w * u[0] * u[0], m[1] + w * u[0] * u[1], m[2] + w * u[1] * u[1], m[3] + w];
    }
    let shapes = moments.iter().flat_map(|m| inverse_covariance(*m, extent, size)).collect();
    Ok(Placement { centres, shapes })
}

/// From weighted second moments (xx, xy, yy, and the weight) to the upper triangle of the inverse of
/// the covariance over alpha = 0.5, clipped as published.
fn inverse_covariance(moments: [f64; 4], extent: [f64; 2], size: [f64; 2]) -> [f32; 3] {
    const ALPHA: f64 = 0.5;
    let [xx, xy, yy, weight] = moments;
    let [mut xx, mut xy, mut yy] =
        if weight > 0.0 { [xx, xy, yy].map(|m| m / weight / ALPHA) } else { [1e-10, 0.0, 1e-10] };
    let clip = |v: f64, d: usize| {
        let span = 2.0 * extent[d];
        v.clamp((span / size[d] / 200.0).powi(2), (span / 10.0).powi(2))
    };
    (xx, yy) = (clip(xx, 0), clip(yy, 1));
    let most = 0.999 * (xx * yy).sqrt();
    xy = xy.clamp(-most, most);
    let determinant = xx * yy - xy * xy;
    [yy, -xy, xx].map(|v| (v / determinant) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_inverses_within_the_published_bounds() {
        let k = inverse_covariance([2.0, 0.5, 1.0, 4.0], [8.0, 8.0], [256.0, 256.0]);
        // The covariance is (1, 0.25; 0.25, 0.5).
        let determinant = 0.4375;
        for (k, want) in k.iter().zip([0.5, -0.25, 1.0]) {
            assert!((f64::from(*k) - want / determinant).abs() < 1e-6);
        }
        // One pixel: the smallest. A wide line: the largest, and nearly singular.
        let smallest = (16.0f64 / 256.0 / 200.0).powi(-2);
        let k = inverse_covariance([0.0, 0.0, 0.0, 1.0], [8.0, 8.0], [256.0, 256.0]);
        assert!((f64::from(k[0]) / smallest - 1.0).abs() < 1e-6 && k[1] == 0.0);
        let k = inverse_covariance([900.0, 900.0, 900.0, 1.0], [8.0, 8.0], [256.0, 256.0]);
        assert!(k.iter().all(|k| k.is_finite()) && k[0] * k[2] > k[1] * k[1]);
    }

    #[test]
    fn importance_is_the_gradient() {
        let ramp = Picture::new(5, 4, 1, (0..20).map(|i| (i % 5) as f32).collect()).unwrap();
        let weights = importance(&ramp);
        assert_eq!(weights[7], 8.0);
        assert_eq!(weights[5], 4.0);
        let flat = Picture::new(3, 3, 1, vec![0.5; 9]).unwrap();
        assert_eq!(importance(&flat), [1.0; 9]);
        let mut broken = flat;
        broken.data[4] = f32::NAN;
        assert!(importance(&broken).iter().all(|w| w.is_finite()));
    }
}
