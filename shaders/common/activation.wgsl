// Activations a(x) and their derivatives a'(x) and a''(x). Needs sincos.wgsl, and from the prelude
// ACTIVATION: 0 identity, 1 ReLU, 2 leaky ReLU, 3 GELU (erf), 4 SiLU, 5 sigmoid, 6 softplus, 7 tanh,
// 8 sine, 9 exp. `p` is the slope of the leaky ReLU or the frequency of the sine.

// erfc(z) for z >= 0, relative error 2e-7 beside that of exp: exp(-z^2) t R(t), t = 2 / (2 + z).
fn erfc_positive(z: f32) -> f32 {
    let t = 2.0 / (2.0 + z);
    var r = 0.04319543391466141;
    r = r * t - 0.23473359644412994;
    r = r * t + 0.493694931268692;
    r = r * t - 0.4549739956855774;
    r = r * t + 0.13217703998088837;
    r = r * t - 0.059211358428001404;
    r = r * t + 0.09346243739128113;
    r = r * t + 0.1753159761428833;
    r = r * t + 0.2468845695257187;
    r = r * t + 0.28209376335144043;
    r = r * t + 0.282094806432724;
    return exp(-z * z) * t * r;
}

// The normal distribution function, Phi(x) = erfc(-x / sqrt 2) / 2.
fn normal_cdf(x: f32) -> f32 {
    let tail = 0.5 * erfc_positive(min(abs(x) * 0.7071067811865476, 12.0));
    return select(1.0 - tail, tail, x < 0.0);
}

fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

// tanh saturates to 1 in f32 at |x| = 9.02; some drivers overflow inside tanh for large |x|.
fn tanh_bounded(x: f32) -> f32 {
    return tanh(clamp(x, -10.0, 10.0));
}

fn activate(x: f32, p: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return select(0.0, x, x > 0.0); }
        case 2u: { return select(p * x, x, x > 0.0); }
        case 3u: { return x * normal_cdf(x); }
        case 4u: { return x * sigmoid(x); }
        case 5u: { return sigmoid(x); }
        // log(1 + e^-|x|) loses nothing that f32 could show: the sum is at least log(2) for x >= 0.
        case 6u: { return max(x, 0.0) + log_1p(exp(-abs(x))); }
        case 7u: { return tanh_bounded(x); }
        case 8u: { return sin_cos(p * x).x; }
        case 9u: { return exp(x); }
        default: { return x; }
    }
}

// The derivative at the pre-activation x.
fn activate_derivative(x: f32, p: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return select(0.0, 1.0, x > 0.0); }
        case 2u: { return select(p, 1.0, x > 0.0); }
        case 3u: { return normal_cdf(x) + x * 0.3989422804014327 * exp(-0.5 * x * x); }
        case 4u: { return sigmoid(x) * (1.0 + x * sigmoid(-x)); }
        case 5u: { let s = sigmoid(x); return s * sigmoid(-x); }
        case 6u: { return sigmoid(x); }
        case 7u: { let c = tanh_bounded(x); return (1.0 - c) * (1.0 + c); }
        case 8u: { return p * sin_cos(p * x).y; }
        case 9u: { return exp(x); }
        default: { return 1.0; }
    }
}

// The second derivative at the pre-activation x; 0 at the kinks of the ReLUs.
fn activate_second_derivative(x: f32, p: f32) -> f32 {
    switch ACTIVATION {
        case 3u: { return 0.3989422804014327 * exp(-0.5 * x * x) * (2.0 - x * x); }
        case 4u: { return sigmoid(x) * sigmoid(-x) * (2.0 + x * (sigmoid(-x) - sigmoid(x))); }
        case 5u: { return sigmoid(x) * sigmoid(-x) * (sigmoid(-x) - sigmoid(x)); }
        case 6u: { return sigmoid(x) * sigmoid(-x); }
        case 7u: { let c = tanh_bounded(x); return -2.0 * c * (1.0 - c) * (1.0 + c); }
        case 8u: { return -p * p * sin_cos(p * x).x; }
        case 9u: { return exp(x); }
        default: { return 0.0; }
    }
}

// log(1 + e) for e in [0, 1], relative error 2e-7: series of atanh below 1/8.
fn log_1p(e: f32) -> f32 {
    let s = e / (2.0 + e);
    let s2 = s * s;
    let series = 2.0 * s * (1.0 + s2 * (0.3333333333 + s2 * (0.2 + s2 * 0.1428571429)));
    return select(log(1.0 + e), series, e < 0.125);
}
