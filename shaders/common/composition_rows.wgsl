// Rows of features that radial/sinusoid_composition reads.
@group(0) @binding(3) var<storage, read> weights: array<Stored>;            // [C, ITEMS]
@group(0) @binding(5) var<storage, read> dy: array<Floats>;                 // [N, ITEMS]
