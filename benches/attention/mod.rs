//! One file a kernel.

mod flash_attention;
mod reversed_attention;

pub const KERNELS: &[crate::Entry] = &[
    ("attention/flash_attention", flash_attention::bench),
    ("attention/reversed_attention", reversed_attention::bench),
];
