//! The small dispatcher: it composes shaders, compiles pipelines, checks buffers and records.
//!
//! The way of one dispatch: a kernel's `plan` (pure) makes [`Launch`]es; [`Context::bind`] checks
//! the caller's [`BufferView`]s against a launch and makes a [`Dispatch`]; a [`Recording`] of
//! dispatches is encoded into the caller's encoder or pass. Nothing is submitted here.

mod buffer;
mod capabilities;
mod context;
mod error;
mod grid;
mod kernel;
mod launch;
mod params;
mod pipeline;
mod readback;
mod recording;
mod scope;
mod shader;
mod timing;

pub use buffer::{Access, Arg, BufferView};
pub use capabilities::{Capabilities, Requirements, describe, preference};
pub use context::{Context, Scratch};
pub use error::{Error, Result};
pub use grid::Cost;
pub use kernel::{Kernel, Planned};
pub use launch::{Launch, Plan};
pub use readback::Readback;
pub use recording::{Dispatch, Recording};
pub use shader::{Binding, Common, Composed, Constants, Dialect, Shader, compose};
pub use timing::Timer;

pub(crate) use buffer::{check_apart, count};
pub(crate) use error::{check_config, check_shape};
pub(crate) use kernel::kernel;
pub(crate) use launch::check_workgroup;
pub(crate) use shader::{read, shader, write};
