//! Cases and references of `patchfield::attention`.

pub mod attention_statistics;
pub mod combine;
pub mod flash_attention;
pub mod head_selector;
pub mod hopfield;
pub mod learned_order;
pub mod patch;
pub mod position;
pub mod qkv;
pub mod query_pool;
pub mod reversed_attention;
pub mod rotary;
pub mod small_attention;
pub mod token_select;
pub mod transport;
pub mod window_attention;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(attention_statistics::cases());
    all.extend(combine::cases());
    all.extend(flash_attention::cases());
    all.extend(head_selector::cases());
    all.extend(hopfield::cases());
    all.extend(learned_order::cases());
    all.extend(patch::cases());
    all.extend(position::cases());
    all.extend(qkv::cases());
    all.extend(query_pool::cases());
    all.extend(reversed_attention::cases());
    all.extend(rotary::cases());
    all.extend(small_attention::cases());
    all.extend(token_select::cases());
    all.extend(transport::cases());
    all.extend(window_attention::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    attention_statistics::CANARIES,
    combine::CANARIES,
    flash_attention::CANARIES,
    head_selector::CANARIES,
    hopfield::CANARIES,
    learned_order::CANARIES,
    patch::CANARIES,
    position::CANARIES,
    qkv::CANARIES,
    query_pool::CANARIES,
    reversed_attention::CANARIES,
    rotary::CANARIES,
    small_attention::CANARIES,
    token_select::CANARIES,
    transport::CANARIES,
    window_attention::CANARIES,
];
