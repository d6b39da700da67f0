//! Pictures in host memory: what image fields are fitted to, and what they render.

use crate::dispatch::{Result, check_shape};

/// A picture of f32 values, `[height, width, channels]`, usually in `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Values of a pixel.
    pub channels: u32,
    /// Row by row.
    pub data: Vec<f32>,
}

impl Picture {
    /// Checks that there is at least one pixel and that the number of values fits.
    pub fn new(width: u32, height: u32, channels: u32, data: Vec<f32>) -> Result<Self> {
        let picture = Self { width, height, channels, data };
        picture.check_size().map(|()| picture)
    }

    pub(super) fn check_size(&self) -> Result<()> {
        let shape = [self.height, self.width, self.channels];
        let n = crate::dispatch::count("picture", &shape)?;
        check_shape(n > 0, "picture", "at least one pixel and one channel", shape)?;
        let have = self.data.len();
        check_shape(have == n as usize, "picture data", format!("{n} values"), have)
    }

    /// Whether it can be fitted.
    #[cfg(feature = "blocking")]
    pub(super) fn check(&self) -> Result<()> {
        self.check_size()?;
        let bad = self.data.iter().position(|value| !value.is_finite());
        let got = bad.map_or(String::new(), |i| {
            let pixel = i as u32 / self.channels;
            format!("{} in row {}, column {}", self.data[i], pixel / self.width, pixel % self.width)
        });
        check_shape(bad.is_none(), "picture data", "finite values", got)
    }

    #[cfg(feature = "blocking")]
    pub(super) fn fingerprint(&self) -> u64 {
        let sizes = [self.width, self.height, self.channels];
        super::fit::fingerprint(sizes.into_iter().chain(self.data.iter().map(|value| value.to_bits())))
    }

    /// Mean squared error against another picture of the same shape; `other` is clamped to `[0, 1]`.
    #[must_use]
    pub fn mean_squared_error(&self, other: &Self) -> f64 {
        let sum: f64 = self
            .data
            .iter()
            .zip(&other.data)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b.clamp(0.0, 1.0))).powi(2))
            .sum();
        sum / self.data.len() as f64
    }

    /// Peak signal-to-noise ratio in dB for a peak of 1: `-10 log10(mean squared error)`.
    #[must_use]
    pub fn psnr(&self, other: &Self) -> f64 {
        -10.0 * self.mean_squared_error(other).log10()
    }
}
