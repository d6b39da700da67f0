//! Which derivatives an encoding gives beside its value.

/// What an encoding with derivatives computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Differential {
    /// The value `e(x)`: `[N, features]`.
    #[default]
    Value,
    /// The value and its derivative along each axis, `[1 + dims, N, features]`: the tangents that
    /// [`SmoothMlpForward`](super::SmoothMlpForward) carries on.
    Jet,
    /// The derivative along one direction `v` for each point, `[N, features]`.
    ///
    /// With `v` the gradient of a loss with respect to the gradient `J^T dy` of the positions (as
    /// eikonal losses have it), this is the gradient of that loss with respect to `dy`; its backward
    /// pass gives those of the parameters and of the positions: the double backward pass.
    Along,
}

impl Differential {
    /// The value of the shaders' `DIFFERENTIAL`.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::Value => 0,
            Self::Jet => 1,
            Self::Along => 2,
        }
    }

    /// Planes of `[N, features]`.
    pub(super) fn planes(self, dims: u32) -> u32 {
        if self == Self::Jet { 1 + dims } else { 1 }
    }
}
