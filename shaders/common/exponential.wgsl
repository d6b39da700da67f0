// Exponentials to base 2 that keep NaN: not every exp2 and log2 does, and a comparison of a value with itself
// may be optimised away.

const LOG2_E: f32 = 1.4426950408889634;
const LN_2: f32 = 0.6931471805599453;
// Stands for minus infinity outside: the log-sum-exp of nothing.
const SENTINEL: f32 = -1.0e30;

fn is_nan(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u;
}

fn are_nan(values: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(values) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

// exp2(d).
fn exponential(d: f32) -> f32 {
    return select(exp2(d), d, is_nan(d));
}

fn exponentials(d: vec4<f32>) -> vec4<f32> {
    return select(exp2(d), d, are_nan(d));
}

// The same for a score minus its row's log-sum-exp: at most 1 whatever was rounded.
fn probability(d: f32) -> f32 {
    return select(exp2(select(d, 0.0, d > 0.0)), d, is_nan(d));
}

fn probabilities(d: vec4<f32>) -> vec4<f32> {
    return select(exp2(select(d, vec4<f32>(), d > vec4<f32>())), d, are_nan(d));
}

// The natural log-sum-exp from the largest score and the sum of exp2(score - largest).
fn log_sum(largest: f32, sum: f32) -> f32 {
    return select(select(LN_2 * (largest + log2(sum)), sum, is_nan(sum)), SENTINEL, sum == 0.0);
}
