//! Reference and cases of `dense::optimizer`.

use patchfield::Kernel;
use patchfield::dense::optimizer::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

/// A value and the sum of the magnitudes of its terms.
type Term = (f64, f64);

/// `[parameter, moment1, moment2]` of one element after a step, in f64.
pub fn reference(config: &OptimizerConfig, step: &StepValues, g: f32, [p, m, v]: [f32; 3]) -> [Term; 3] {
    let wide = |x: f32| f64::from(x);
    let (p, m, v) = (wide(p), wide(m), wide(v));
    if step.gradient_scale == 0.0 || (config.skip_zero_gradient && g == 0.0) {
        return [(p, p.abs()), (m, m.abs()), (v, v)];
    }
    let decay = wide(config.weight_decay);
    let lr = wide(step.learning_rate) * wide(config.rate);
    let scaled = wide(g) * wide(step.gradient_scale);
    let decoupled = matches!(config.method, Method::Adam { decoupled: true, .. });
    let (p, size) = if decoupled { (p - lr * decay * p, p.abs() * (1.0 + lr * decay)) } else { (p, p.abs()) };
    let (g, g_size) =
        if decoupled { (scaled, scaled.abs()) } else { (scaled + decay * p, scaled.abs() + decay * p.abs()) };
    let descend = |u: f64, u_size: f64| (p - lr * u, size + lr.abs() * u_size);
    match config.method {
        Method::Adam { betas, epsilon, .. } => {
            let [b1, b2] = betas.map(wide);
            let next = b1 * m + (1.0 - b1) * g;
            let next_size = b1 * m.abs() + (1.0 - b1) * g_size;
            let second = b2 * v + (1.0 - b2) * g * g;
            let second_size = b2 * v + (1.0 - b2) * g_size * g_size;
            let root = second.sqrt() * wide(step.bias2) + wide(epsilon);
            // sqrt halves the relative error of the second moment.
            let update_size =
                (next_size + next.abs() * 0.5 * second_size / second.max(1e-300)) * wide(step.bias1) / root;
            let update = next * wide(step.bias1) / root;
            [descend(update, update_size), (next, next_size), (second, second_size)]
        }
        Method::Descent { momentum, nesterov } => {
            let b = wide(momentum);
            let (next, next_size) = (b * m + g, b * m.abs() + g_size);
            let (u, u_size) =
                if nesterov && b != 0.0 { (g + b * next, g_size + b * next_size) } else { (next, next_size) };
            [descend(u, u_size), (next, next_size), (v, v)]
        }
        Method::RmsProp { alpha, epsilon } => {
            let a = wide(alpha);
            let second = a * v + (1.0 - a) * g * g;
            let second_size = a * v + (1.0 - a) * g_size * g_size;
            let root = second.sqrt() + wide(epsilon);
            let u_size = (g_size + g.abs() * 0.5 * second_size / second.max(1e-300)) / root;
            [descend(g / root, u_size), (m, m.abs()), (second, second_size)]
        }
    }
}

fn case(config: OptimizerConfig, step: StepValues, poison: bool, random: &mut Random) -> Case {
    let n = config.count as usize;
    let mut g = random.vec(n, -2.0, 2.0);
    for i in (0..n).step_by(3) {
        g[i] = if i.is_multiple_of(2) { 0.0 } else { -0.0 };
    }
    if n >= 8 {
        // A vec4 of nothing else.
        g[4..8].fill(0.0);
    }
    if poison {
        g[n / 2] = f32::NAN;
    }
    let p = random.vec(n, -1.0, 1.0);
    let m = random.vec(n, -0.5, 0.5);
    let v = random.vec(n, 1e-4, 0.5);
    let mut out = [Vec::new(), Vec::new(), Vec::new()];
    for i in 0..n {
        let mut row = reference(&config, &step, g[i], [p[i], m[i], v[i]]);
        for term in &mut row {
            term.1 = if term.0.is_nan() { 0.0 } else { term.1 };
        }
        for (out, term) in out.iter_mut().zip(row) {
            out.push(term);
        }
    }
    let words: Vec<f32> = bytemuck::pod_collect_to_vec(step.bytes());
    let has = config.method.moments();
    let name = format!("{config:?}, scale {}, poison {poison}", step.gradient_scale);
    // 12 units: at most six operations, a square root and a division (2.5 each in WGSL).
    let near = |terms: &[Term]| Expected::near(terms, 12.0, 0.0);
    let mut case = Case::new("dense/optimizer", name, move |context, b| {
        Optimizer::new(context, config)?.prepare(&OptimizerArgs {
            step: b["step"],
            gradient: b["gradient"],
            parameter: b["parameter"],
            moment1: has[0].then(|| b["moment1"]),
            moment2: has[1].then(|| b["moment2"]),
        })
    })
    .input("step", &words)
    .input("gradient", &g)
    .update("parameter", Data::F32(p), near(&out[0]));
    if has[0] {
        case = case.update("moment1", Data::F32(m), near(&out[1]));
    }
    if has[1] {
        case = case.update("moment2", Data::F32(v), near(&out[2]));
    }
    case
}

const METHODS: [Method; 7] = [
    Method::Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: false },
    Method::Adam { betas: [0.9, 0.95], epsilon: 1e-8, decoupled: true },
    Method::Adam { betas: [0.9, 0.99], epsilon: 1e-15, decoupled: false },
    Method::Descent { momentum: 0.0, nesterov: false },
    Method::Descent { momentum: 0.9, nesterov: false },
    Method::Descent { momentum: 0.9, nesterov: true },
    Method::RmsProp { alpha: 0.99, epsilon: 1e-8 },
];

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "the other moment's decay",
        kernel: "dense/optimizer",
        shader: "dense/optimizer::adam",
        find: "params.one_minus_beta1 * g;",
        replace: "params.one_minus_beta2 * g;",
    },
    Canary {
        bug: "epsilon inside the root",
        kernel: "dense/optimizer",
        shader: "dense/optimizer::rmsprop",
        find: "g / (sqrt(v) + params.epsilon)",
        replace: "g / sqrt(v + params.epsilon)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(21);
    let mut cases = Vec::new();
    for method in METHODS {
        let plain = |n| OptimizerConfig::new(n, method);
        let step = |t, lr| StepValues::new(t, lr, method.betas());
        for n in [1, 255, 256, 257, 1009, 1020, 1024, 1028] {
            cases.push(case(plain(n), step(1, 1e-2), false, &mut random));
        }
        let decayed = OptimizerConfig { weight_decay: 0.05, rate: 0.5, ..plain(515) };
        cases.push(case(decayed, step(1000, 1e-3), false, &mut random));
        cases.push(case(OptimizerConfig { count: 516, ..decayed }, step(9, 1e-3), false, &mut random));
        let scalars = OptimizerConfig { variant: Some(OptimizerVariant::Scalar), ..plain(1024) };
        cases.push(case(scalars, step(2, 1e-2), false, &mut random));
        let skipping = OptimizerConfig { skip_zero_gradient: true, ..decayed };
        cases.push(case(skipping, step(7, 1e-2), false, &mut random));
        // Every third gradient is 0: a vec4 has some of both kinds.
        cases.push(case(OptimizerConfig { count: 516, ..skipping }, step(7, 1e-2), false, &mut random));
        cases.push(case(OptimizerConfig { count: 516, ..skipping }, step(2, 0.1), true, &mut random));
        let clipped = StepValues { gradient_scale: 0.037, ..step(3, 0.1) };
        cases.push(case(plain(300), clipped, false, &mut random));
        let skipped = StepValues { gradient_scale: 0.0, ..step(3, 0.1) };
        cases.push(case(decayed, skipped, true, &mut random));
        cases.push(case(skipping, step(2, 0.1), true, &mut random));
    }
    // A second row of the grid would need 16,776,961 elements: too many here; the fold is tested with
    // other kernels that address their groups in the same way.
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_values_are_those_of_the_paper() {
        let one = StepValues::new(1, 1e-3, [0.9, 0.999]);
        assert!((one.bias1 - 10.0).abs() < 1e-5);
        assert!((one.bias2 - 1000f32.sqrt()).abs() < 1e-3);
        let late = StepValues::new(u64::MAX, 1e-3, [0.9, 0.999]);
        assert_eq!([late.bias1, late.bias2], [1.0, 1.0]);
        assert_eq!(StepValues::new(0, 1.0, [0.5, 0.5]), StepValues::new(1, 1.0, [0.5, 0.5]));
    }

    /// The first step of Adam moves by the learning rate against the gradient's sign.
    #[test]
    fn first_step_of_adam() {
        let config = OptimizerConfig::new(1, Method::default());
        let step = StepValues::new(1, 0.25, config.method.betas());
        let [p, m, v] = reference(&config, &step, -3.0, [1.0, 0.0, 0.0]);
        assert!((p.0 - 1.25).abs() < 1e-6 && (m.0 + 0.3).abs() < 1e-6 && (v.0 - 0.009).abs() < 1e-6);
    }
}
