//! One file a kernel.

mod activation;
mod activation_jet;
mod concatenate;
mod copy;
mod gather;
mod inverted_index;
mod layer_norm;
mod linear;
mod loss;
mod matmul;
mod norm;
mod optimizer;
mod random;
mod reduce;
mod scan;
mod softmax;
mod sort;
mod swap_axes;

pub const KERNELS: &[crate::Entry] = &[
    ("dense/concatenate", concatenate::bench),
    ("dense/copy", copy::bench),
    ("dense/matmul", matmul::bench),
    ("dense/layer_norm", layer_norm::bench),
    ("dense/linear", linear::bench),
    ("dense/activation", activation::bench),
    ("dense/activation_jet", activation_jet::bench),
    ("dense/optimizer", optimizer::bench),
    ("dense/loss", loss::bench),
    ("dense/norm", norm::bench),
    ("dense/reduce", reduce::bench),
    ("dense/scan", scan::bench),
    ("dense/softmax", softmax::bench),
    ("dense/sort", sort::bench),
    ("dense/swap_axes", swap_axes::bench),
    ("dense/gather", gather::bench),
    ("dense/inverted_index", inverted_index::bench),
    ("dense/random", random::bench),
];
