//! Cases and references of `patchfield::dense`.

pub mod activation;
pub mod activation_jet;
pub mod concatenate;
pub mod copy;
pub mod gather;
pub mod inverted_index;
pub mod layer_norm;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod random;
pub mod reduce;
pub mod scan;
pub mod softmax;
pub mod sort;
pub mod swap_axes;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(activation::cases());
    all.extend(activation_jet::cases());
    all.extend(concatenate::cases());
    all.extend(copy::cases());
    all.extend(gather::cases());
    all.extend(inverted_index::cases());
    all.extend(layer_norm::cases());
    all.extend(linear::cases());
    all.extend(loss::cases());
    all.extend(matmul::cases());
    all.extend(norm::cases());
    all.extend(optimizer::cases());
    all.extend(random::cases());
    all.extend(reduce::cases());
    all.extend(scan::cases());
    all.extend(softmax::cases());
    all.extend(sort::cases());
    all.extend(swap_axes::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    activation::CANARIES,
    activation_jet::CANARIES,
    concatenate::CANARIES,
    copy::CANARIES,
    gather::CANARIES,
    inverted_index::CANARIES,
    layer_norm::CANARIES,
    linear::CANARIES,
    loss::CANARIES,
    matmul::CANARIES,
    norm::CANARIES,
    optimizer::CANARIES,
    random::CANARIES,
    reduce::CANARIES,
    scan::CANARIES,
    softmax::CANARIES,
    sort::CANARIES,
    swap_axes::CANARIES,
];
