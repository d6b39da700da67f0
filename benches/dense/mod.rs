//! One file a kernel.

mod activation;
mod activation_jet;
mod copy;
mod gather;
mod linear;
mod loss;
mod matmul;
mod norm;
mod optimizer;
mod random;
mod reduce;
mod scan;
mod sort;

pub const KERNELS: &[crate::Entry] = &[
    ("dense/copy", copy::bench),
    ("dense/matmul", matmul::bench),
    ("dense/linear", linear::bench),
    ("dense/activation", activation::bench),
    ("dense/activation_jet", activation_jet::bench),
    ("dense/optimizer", optimizer::bench),
    ("dense/loss", loss::bench),
    ("dense/norm", norm::bench),
    ("dense/reduce", reduce::bench),
    ("dense/scan", scan::bench),
    ("dense/sort", sort::bench),
    ("dense/gather", gather::bench),
    ("dense/random", random::bench),
];
