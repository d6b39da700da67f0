//! Cases and references of `patchfield::dense`.

pub mod activation;
pub mod activation_jet;
pub mod concatenate;
pub mod copy;
pub mod gather;
pub mod inverted_index;
pub mod linear;
pub mod loss;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod random;
pub mod reduce;
pub mod scan;
pub mod sort;

pub fn cases() -> Vec<crate::harness::Case> {
    let mut all = Vec::new();
    all.extend(activation::cases());
    all.extend(activation_jet::cases());
    all.extend(concatenate::cases());
    all.extend(inverted_index::cases());
    all.extend(linear::cases());
    all.extend(loss::cases());
    all.extend(matmul::cases());
    all.extend(norm::cases());
    all.extend(optimizer::cases());
    all.extend(random::cases());
    all.extend(copy::cases());
    all.extend(reduce::cases());
    all.extend(scan::cases());
    all.extend(sort::cases());
    all.extend(gather::cases());
    all
}

pub const CANARIES: &[&[crate::canaries::Canary]] = &[
    activation::CANARIES,
    activation_jet::CANARIES,
    concatenate::CANARIES,
    gather::CANARIES,
    inverted_index::CANARIES,
    loss::CANARIES,
    matmul::CANARIES,
    norm::CANARIES,
    optimizer::CANARIES,
    random::CANARIES,
    reduce::CANARIES,
    scan::CANARIES,
    sort::CANARIES,
];
