//! One file a kernel.

pub const KERNELS: &[crate::Entry] = &[];
