//! What every kernel offers.

use super::context::{Context, Scratch};
use super::error::Result;
use super::launch::Plan;
use super::recording::Recording;

/// A kernel that was planned for a device.
pub trait Planned {
    /// The context it was made for.
    fn context(&self) -> &Context;

    /// The variant, the dispatches and the scratch sizes.
    fn planned(&self) -> &Plan;

    /// Compiles its pipelines now rather than at the first recording.
    fn warm_up(&self) -> Result<()> {
        self.context().warm_up(self.planned())
    }

    /// The scratch buffers that it needs, newly made.
    fn create_scratch(&self) -> Result<Scratch> {
        self.context().create_scratch(self.planned())
    }
}

/// A kernel. It is made by its `new(&Context, Config)`, which plans once; recording checks the
/// buffers against the plan.
pub trait Kernel: Planned {
    /// The buffers of one call.
    type Args<'a>;

    /// Checks the buffers and binds them; records nothing.
    fn prepare(&self, args: &Self::Args<'_>) -> Result<Recording>;

    /// Records into an encoder, in a compute pass of its own. On `Err` the encoder is untouched.
    fn record(&self, encoder: &mut wgpu::CommandEncoder, args: &Self::Args<'_>) -> Result<()> {
        self.prepare(args)?.encode(encoder);
        Ok(())
    }

    /// Records into a pass of the caller's. On `Err` the pass is untouched.
    fn record_in(&self, pass: &mut wgpu::ComputePass<'_>, args: &Self::Args<'_>) -> Result<()> {
        self.prepare(args)?.encode_in(pass);
        Ok(())
    }
}

/// Declares a kernel type: context, configuration and plan, with `new`, `config` and `Planned`.
/// The type's own `plan(&Config, &Capabilities) -> Result<Plan>` stays to be written.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $config:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            context: $crate::dispatch::Context,
            config: $config,
            plan: $crate::dispatch::Plan,
        }

        impl $name {
            /// Plans for the context's device.
            pub fn new(context: &$crate::dispatch::Context, config: $config) -> $crate::dispatch::Result<Self> {
                let plan = Self::plan(&config, context.capabilities())?;
                Ok(Self { context: context.clone(), config, plan })
            }

            /// The configuration it was planned for.
            #[must_use]
            pub fn config(&self) -> &$config {
                &self.config
            }
        }

        impl $crate::dispatch::Planned for $name {
            fn context(&self) -> &$crate::dispatch::Context {
                &self.context
            }

            fn planned(&self) -> &$crate::dispatch::Plan {
                &self.plan
            }
        }
    };
}
pub(crate) use kernel;
