//! Attention over patches, forward and backward, without the `N x N` matrix.
