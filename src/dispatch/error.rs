//! The one error type of the crate.

use std::path::PathBuf;

/// What can go wrong, with the argument and the numbers that made it so.
///
/// Every check runs before the first command is recorded: on `Err` the caller's encoder is
/// untouched and still finishes and submits.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, size or rank does not fit what the kernel computes.
    #[error("`{what}`: expected {need}, got {got}")]
    Shape {
        /// The argument.
        what: &'static str,
        /// What would fit.
        need: String,
        /// What was given.
        got: String,
    },
    /// A configuration value outside its range.
    #[error("`{what}` = {got}: must be {need}")]
    Config {
        /// The field of the configuration.
        what: &'static str,
        /// The range that is allowed.
        need: String,
        /// What was given.
        got: String,
    },
    /// A view holds fewer bytes than the kernel reads or writes.
    #[error("`{what}` holds {have} bytes, but {need} are needed")]
    BufferTooSmall {
        /// The argument.
        what: &'static str,
        /// Bytes needed.
        need: u64,
        /// Bytes in the view.
        have: u64,
    },
    /// A view reaches past the end of its buffer.
    #[error("`{what}`: view of {size} bytes at offset {offset} ends past the buffer's {buffer} bytes")]
    OutOfBounds {
        /// The argument.
        what: &'static str,
        /// Offset of the view in bytes.
        offset: u64,
        /// Size of the view in bytes.
        size: u64,
        /// Size of the buffer in bytes.
        buffer: u64,
    },
    /// An offset or a size that is not a multiple of what the device demands.
    #[error("`{what}`: {quantity} {value} is not a multiple of {alignment} bytes")]
    Misaligned {
        /// The argument.
        what: &'static str,
        /// `"offset"` or `"size"`.
        quantity: &'static str,
        /// The offending value in bytes.
        value: u64,
        /// The alignment in bytes.
        alignment: u64,
    },
    /// One buffer is written and bound a second time in the same dispatch, or is an output of a
    /// kernel of some dispatches and another of its arguments.
    ///
    /// WebGPU forbids the first even for ranges that do not overlap: use separate buffers.
    #[error("`{what}` and `{other}` are the same buffer, and one of them is written; use separate buffers")]
    Aliased {
        /// The argument that is written.
        what: &'static str,
        /// The other argument.
        other: &'static str,
    },
    /// A buffer was created without a usage that the kernel needs.
    #[error("`{what}`: the buffer lacks the usage {usage}")]
    UsageMissing {
        /// The argument.
        what: &'static str,
        /// The missing usage.
        usage: &'static str,
    },
    /// A limit of the device (not of the adapter: see `Requirements`) is too low.
    #[error("{what} needs {limit} = {need}, but the device has {have}")]
    LimitExceeded {
        /// Who asks.
        what: &'static str,
        /// The name of the limit.
        limit: &'static str,
        /// What is needed.
        need: u64,
        /// What the device was created with.
        have: u64,
    },
    /// A variant was asked for that the device cannot run.
    #[error("{what} needs the device feature {feature}")]
    FeatureMissing {
        /// Who asks.
        what: &'static str,
        /// The name of the feature.
        feature: &'static str,
    },
    /// An index would not fit into 32 bits.
    #[error(
        "`{what}` has {elements} elements, which take {} bytes at 4 each; indices must stay below 2^32",
        elements.saturating_mul(4)
    )]
    IndexOverflow {
        /// The argument.
        what: &'static str,
        /// The number of elements (saturated at `u64::MAX`).
        elements: u64,
    },
    /// A shader or its pipeline was refused by the device.
    #[error("shader {shader}: {message}")]
    Shader {
        /// The kernel.
        shader: &'static str,
        /// The compiler's message; places are given as file and line of the shader sources.
        message: String,
    },
    /// The device could not allocate.
    #[error("out of memory: `{what}`{}", of_bytes(*bytes))]
    OutOfMemory {
        /// What was being allocated, or the shader that was being compiled.
        what: String,
        /// Its size in bytes; 0 if it is not known, as that of a shader.
        bytes: u64,
    },
    /// The device is lost; create a new one, and a new `Context` for it.
    #[error("the device is lost")]
    DeviceLost,
    /// A wait ended before the work did.
    #[error("timed out after {seconds} s waiting for the device")]
    Timeout {
        /// The time waited.
        seconds: f64,
    },
    /// The device reported an error that none of the checks foresaw.
    #[error("device: {0}")]
    Device(String),
    /// A loss or a parameter became NaN or infinite.
    #[error("`{what}` is not finite at step {step}; {hint}")]
    NonFinite {
        /// What is not finite.
        what: &'static str,
        /// The training step.
        step: u64,
        /// What can be done about it.
        hint: String,
    },
    /// A checkpoint or model file cannot be read or written.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The caller's callback asked to stop.
    #[error("cancelled at step {step}")]
    Cancelled {
        /// The training step.
        step: u64,
    },
}

/// The result type of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a message says of a size that may not be known.
fn of_bytes(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(" of {bytes} bytes") }
}

/// `Err(Config)` unless `ok`.
pub(crate) fn check_config(
    ok: bool,
    what: &'static str,
    need: &str,
    got: impl std::fmt::Debug,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Config { what, need: need.into(), got: format!("{got:?}") })
}

/// `Err(Shape)` unless `ok`.
pub(crate) fn check_shape(
    ok: bool,
    what: &'static str,
    need: impl Into<String>,
    got: impl std::fmt::Debug,
) -> Result<()> {
    if ok {
        return Ok(());
    }
    Err(Error::Shape { what, need: need.into(), got: format!("{got:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_if_it_is_known() {
        let error = |bytes| Error::OutOfMemory { what: "y".into(), bytes }.to_string();
        assert_eq!(error(64), "out of memory: `y` of 64 bytes");
        assert_eq!(error(0), "out of memory: `y`");
    }
}
