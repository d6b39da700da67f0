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
mod head_selector;
mod learned_order;
mod patch;
mod position;
mod qkv;
mod rotary;
mod token_select;

pub const KERNELS: &[crate::Entry] = &[
    ("attention/head_selector", head_selector::bench),
    ("attention/learned_order", learned_order::bench),
    ("attention/patch", patch::bench),
    ("attention/position", position::bench),
    ("attention/qkv", qkv::bench),
    ("attention/rotary", rotary::bench),
    ("attention/token_select", token_select::bench),
];
