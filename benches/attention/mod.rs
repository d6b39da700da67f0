//! One file a kernel.

mod attention_statistics;
mod combine;
mod flash_attention;
mod head_selector;
mod hopfield;
mod learned_order;
mod patch;
mod position;
mod qkv;
mod query_pool;
mod reversed_attention;
mod rotary;
mod small_attention;
mod token_select;
mod transport;
mod window_attention;

pub const KERNELS: &[crate::Entry] = &[
    ("attention/attention_statistics", attention_statistics::bench),
    ("attention/combine", combine::bench),
    ("attention/flash_attention", flash_attention::bench),
    ("attention/head_selector", head_selector::bench),
    ("attention/hopfield", hopfield::bench),
    ("attention/learned_order", learned_order::bench),
    ("attention/patch", patch::bench),
    ("attention/position", position::bench),
    ("attention/qkv", qkv::bench),
    ("attention/query_pool", query_pool::bench),
    ("attention/reversed_attention", reversed_attention::bench),
    ("attention/rotary", rotary::bench),
    ("attention/small_attention", small_attention::bench),
    ("attention/token_select", token_select::bench),
    ("attention/transport", transport::bench),
    ("attention/window_attention", window_attention::bench),
];
