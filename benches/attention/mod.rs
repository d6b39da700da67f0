//! One file a kernel.

mod hopfield;
mod query_pool;

pub const KERNELS: &[crate::Entry] =
    &[("attention/hopfield", hopfield::bench), ("attention/query_pool", query_pool::bench)];
