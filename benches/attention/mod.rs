//! One file a kernel.

mod query_pool;

pub const KERNELS: &[crate::Entry] = &[("attention/query_pool", query_pool::bench)];
