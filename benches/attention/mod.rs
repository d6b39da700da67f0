//! One file a kernel.

mod combine;
mod hopfield;
mod query_pool;
mod transport;

pub const KERNELS: &[crate::Entry] = &[
    ("attention/combine", combine::bench),
    ("attention/hopfield", hopfield::bench),
    ("attention/query_pool", query_pool::bench),
    ("attention/transport", transport::bench),
];
