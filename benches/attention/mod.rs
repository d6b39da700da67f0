//! One file a kernel.

mod small_attention;
mod window_attention;

pub const KERNELS: &[crate::Entry] = &[
    ("attention/small_attention", small_attention::bench),
    ("attention/window_attention", window_attention::bench),
];
