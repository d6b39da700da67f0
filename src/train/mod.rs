//! The training core: tensors, a tape, named parameters, schedules and checkpoints.
//!
//! It is small on purpose. A [`Tensor`] is a buffer and a shape. A [`Tape`] records each
//! operation's forward pass and keeps what its backward pass needs; [`Tape::backward`] appends the
//! backward passes in reverse, through the same kernels. The result is a
//! [`Recording`](crate::Recording) that a training loop encodes again at every step.

pub mod checkpoint;
mod field_operations;
pub mod ops;
mod parameters;
mod schedule;
mod tape;
mod tensor;
mod update;

pub use checkpoint::Checkpoint;
#[cfg(feature = "blocking")]
pub(crate) use checkpoint::Difference;
pub use field_operations::{CompactBasisOperands, Input, compact_basis, smooth_mlp};
pub use parameters::Parameters;
pub use schedule::Schedule;
pub use tape::{Gradients, Tape, Variable};
pub use tensor::Tensor;
pub use update::{Update, UpdateConfig, Updated};
