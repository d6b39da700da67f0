//! Patches of a picture as queries and keys of attention to what looks alike, without training.
//!
//! A head weighs by `exp(-|a - b|^2)` of two patches' features, each feature scaled to what it should tell. As a
//! score that is `<q, k>` with `q = (2 a, 1)` and `k = (b, -|b|^2)`: what is left out, `|a|^2`, is the same for all keys.

use image::RgbImage;
use patchfield::attention::{AttentionConfig, PatchGrid};

/// What each head looks at.
pub const HEADS: [&str; 4] = ["colour", "texture", "place", "all of these"];

/// Features of a patch: 3 of colour, 6 of texture, 2 of place.
const FEATURES: usize = 11;
/// With the key's own term.
const DIM: usize = FEATURES + 1;

/// Features of all patches.
pub struct Patches {
    height: u32,
    width: u32,
    /// `[patches, FEATURES]`; colour and texture have variance 1 over the picture.
    features: Vec<[f32; FEATURES]>,
}

impl Patches {
    /// The sides of the picture are whole patches.
    pub fn new(picture: &RgbImage, side: u32) -> Self {
        let (height, width) = (picture.height() / side, picture.width() / side);
        let patches = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let mut features: Vec<_> = patches.map(|(y, x)| describe(picture, side, y, x)).collect();
        // Scaled as a whole, so that grey pictures don't get loud colours.
        for group in [0..3, 3..9] {
            let mut sums = [0.0; FEATURES];
            let n = features.len() as f32;
            features.iter().for_each(|f| group.clone().for_each(|c| sums[c] += f[c] / n));
            let mut variance = 0.0;
            for f in &features {
                variance += group.clone().map(|c| (f[c] - sums[c]).powi(2) / n).sum::<f32>();
            }
            let factor = 1.0 / variance.sqrt().max(1e-3);
            for f in &mut features {
                group.clone().for_each(|c| f[c] = (f[c] - sums[c]) * factor);
            }
        }
        Self { height, width, features }
    }

    pub fn grid(&self) -> PatchGrid {
        PatchGrid { prefix: 0, height: self.height, width: self.width }
    }

    pub fn attention(&self) -> AttentionConfig {
        let n = self.height * self.width;
        let heads = HEADS.len() as u32;
        AttentionConfig {
            heads,
            queries: n,
            keys: n,
            head_dim: DIM as u32,
            scale: Some(1.0),
            ..Default::default()
        }
    }

    /// `[patches, heads, DIM]` each.
    pub fn queries_and_keys(&self) -> [Vec<f32>; 2] {
        // Per head, the factors of colour, texture and place.
        let factors = [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.6], [2.5, 1.5, 0.15]];
        let (mut q, mut k) = (Vec::new(), Vec::new());
        for features in &self.features {
            for [colour, texture, place] in factors {
                let factor = |c: usize| {
                    if c < 3 {
                        colour
                    } else if c < 9 {
                        texture
                    } else {
                        place
                    }
                };
                let scaled: Vec<f32> = features.iter().enumerate().map(|(c, f)| f * factor(c)).collect();
                q.extend(scaled.iter().map(|f| 2.0 * f));
                q.push(1.0);
                k.extend(&scaled);
                k.push(-scaled.iter().map(|f| f * f).sum::<f32>());
            }
        }
        [q, k]
    }
}

/// Mean colour as lightness and two differences; how lightness and colours vary; edges of four directions; place.
fn describe(picture: &RgbImage, side: u32, y: u32, x: u32) -> [f32; FEATURES] {
    let opponents = |x: u32, y: u32| {
        let [r, g, b] = picture.get_pixel(x, y).0.map(|v| f32::from(v) / 255.0);
        [(r + g + b) / 3.0, r - g, (r + g) / 2.0 - b]
    };
    let (mut sums, mut squares, mut edges) = ([0.0; 3], [0.0; 3], [0.0; 4]);
    for (v, u) in (y * side..(y + 1) * side).flat_map(|v| (x * side..(x + 1) * side).map(move |u| (v, u))) {
        let here = opponents(u, v);
        let right = opponents((u + 1).min(picture.width() - 1), v)[0] - here[0];
        let down = opponents(u, (v + 1).min(picture.height() - 1))[0] - here[0];
        // Half a turn is the same edge.
        let turn = (down.atan2(right) / std::f32::consts::PI).rem_euclid(1.0);
        edges[(turn * 4.0 + 0.5) as usize % 4] += right.hypot(down);
        for c in 0..3 {
            sums[c] += here[c];
            squares[c] += here[c] * here[c];
        }
    }
    let n = (side * side) as f32;
    let mean = sums.map(|s| s / n);
    let deviation = |c: usize| (squares[c] / n - mean[c] * mean[c]).max(0.0).sqrt();
    // Roots: a patch twice as rough is not twice as different.
    let [e0, e1, e2, e3] = edges.map(|e| (e / n).sqrt());
    let colours = deviation(1).hypot(deviation(2)).sqrt();
    let (light, far) = (deviation(0).sqrt(), [y as f32, x as f32]);
    [mean[0], mean[1], mean[2], light, colours, e0, e1, e2, e3, far[0], far[1]]
}
