//! Grids of workgroups, and what a launch costs.

use super::error::{Error, Result};

/// The grid for `groups` workgroups in a row, folded into two dimensions where one is too short.
///
/// The shader rebuilds the linear index as `first_group + id.x + id.y * num_workgroups.x`, and
/// leaves where it is not below `groups`.
pub(crate) fn fold(what: &'static str, groups: u32, limits: &wgpu::Limits) -> Result<[u32; 3]> {
    let side = limits.max_compute_workgroups_per_dimension.max(1);
    if groups <= side {
        return Ok([groups, u32::from(groups > 0), u32::from(groups > 0)]);
    }
    let rows = groups.div_ceil(side);
    if rows > side {
        return Err(Error::LimitExceeded {
            what,
            limit: "max_compute_workgroups_per_dimension (squared)",
            need: u64::from(groups),
            have: u64::from(side) * u64::from(side),
        });
    }
    Ok([groups.div_ceil(rows), rows, 1])
}

/// The least work that a launch can be done with: the yardstick of the benches and of the chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations (a fused multiply-add counts two).
    pub flops: u64,
    /// Bytes that must be read and written at the least, each once.
    pub bytes: u64,
}

impl Cost {
    /// From counts that may be large.
    #[must_use]
    pub fn new(flops: u64, bytes: u64) -> Self {
        Self { flops, bytes }
    }

    /// One number for both: a byte takes about as long as ten operations on today's devices.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.flops.max(self.bytes.saturating_mul(10))
    }
}

impl std::ops::Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { flops: self.flops.saturating_add(other.flops), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |a, b| a + b)
    }
}
