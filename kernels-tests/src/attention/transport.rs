//! Reference and cases of `attention::transport`.

use patchfield::Kernel;
use patchfield::attention::transport::*;

use crate::canaries::Canary;
use crate::harness::{Case, Data, Expected, Random};

const KERNEL: &str = "attention/transport";

type Term = (f64, f64);

/// A transport's numbers in f64; cost and plan are `[m, n]`.
#[derive(Debug, Clone)]
pub struct Problem {
    pub config: TransportConfig,
    pub cost: Vec<f64>,
    pub a: Vec<f64>,
    pub b: Vec<f64>,
}

/// What belongs to some potentials.
#[derive(Debug)]
pub struct Evaluation {
    pub plan: Vec<Term>,
    pub value: Term,
    pub dalpha: Vec<Term>,
    pub dbeta: Vec<Term>,
}

/// The places of the `k` largest; of equal ones the first.
pub fn top_k(s: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..s.len()).collect();
    order.sort_by(|&i, &j| s[j].total_cmp(&s[i]).then(i.cmp(&j)));
    order.truncate(k);
    order
}

/// `theta` with `sum [u - theta]+ = mass`, by sorting.
pub fn threshold(u: &[f64], mass: f64) -> f64 {
    let mut sorted = u.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut theta) = (0.0, f64::INFINITY);
    for (i, &v) in sorted.iter().enumerate() {
        sum += v;
        let t = (sum - mass) / (i + 1) as f64;
        if v > t {
            theta = t;
        }
    }
    theta
}

impl Problem {
    /// The dual if there is `beta`, else the semi-dual. `round` makes the scores what f32 makes of them.
    pub fn evaluate(&self, alpha: &[f64], beta: Option<&[f64]>, round: fn(f64) -> f64) -> Evaluation {
        let (n, gamma) = (self.config.tokens as usize, f64::from(self.config.gamma));
        let mut out = Evaluation {
            plan: vec![(0.0, 0.0); self.cost.len()],
            value: (0.0, 0.0),
            dalpha: self.a.iter().map(|&a| (a, a)).collect(),
            dbeta: self.b.iter().map(|&b| (b, b)).collect(),
        };
        let mut add = |v: f64, size: f64| out.value = (out.value.0 + v, out.value.1 + size.abs());
        alpha.iter().zip(&self.a).for_each(|(alpha, a)| add(alpha * a, alpha * a));
        if let Some(beta) = beta {
            beta.iter().zip(&self.b).for_each(|(beta, b)| add(beta * b, beta * b));
        }
        for (j, cost) in self.cost.chunks(n).enumerate() {
            let s: Vec<f64> =
                (0..n).map(|i| round(round(alpha[i] - cost[i]) + beta.map_or(0.0, |beta| beta[j]))).collect();
            let chosen = top_k(&s, self.config.slots() as usize);
            let u: Vec<f64> = chosen.iter().map(|&i| s[i]).collect();
            let theta = if beta.is_some() { 0.0 } else { threshold(&u, gamma * self.b[j]) };
            // theta is a mean of what lies above it, less the mass, measured from the largest.
            let size = if beta.is_some() { 0.0 } else { 2.0 * u[0].abs() + 2.0 * (u[0] - theta) };
            for &i in &chosen {
                // What costs infinitely much gets nothing, and adds nothing.
                if s[i] == f64::NEG_INFINITY {
                    continue;
                }
                let t = (s[i] - theta).max(0.0) / gamma;
                // One that rounding could bring above the threshold has an error too.
                let error = t + (s[i].abs() + size) / gamma;
                out.plan[j * n + i] = (t, error);
                let share = if beta.is_some() { 0.5 * t * s[i] } else { t * (s[i] - 0.5 * gamma * t) };
                add(-share, share.abs() + t * s[i].abs() + error * (s[i].abs() + gamma * t));
                out.dalpha[i] = (out.dalpha[i].0 - t, out.dalpha[i].1 + error);
                out.dbeta[j] = (out.dbeta[j].0 - t, out.dbeta[j].1 + error);
            }
        }
        out
    }

    /// The potentials after the ascent of `TransportSolve`.
    pub fn solve(&self, iterations: u32, step: f64) -> Vec<f64> {
        let n = self.config.tokens as usize;
        let (mut point, mut iterate, mut t) = (vec![0.0; n], vec![0.0; n], 1.0f64);
        let (mut best, mut least) = (vec![0.0; n], f64::INFINITY);
        for i in 0..iterations {
            let part = f64::from(i) / f64::from(iterations);
            let length = step * f64::from(self.config.gamma) * (2.0 - 2.0 * part).min(1.0);
            let gradient: Vec<f64> = self.evaluate(&point, None, |v| v).dalpha.iter().map(|d| d.0).collect();
            let lack = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            if lack < least {
                (best, least) = (point.clone(), lack);
            }
            let moved: Vec<f64> = point.iter().zip(&gradient).map(|(p, g)| p + length * g).collect();
            let uphill: f64 = (0..n).map(|i| gradient[i] * (moved[i] - iterate[i])).sum();
            if uphill < 0.0 {
                t = 1.0;
            }
            let next = 0.5 * (1.0 + (1.0 + 4.0 * t * t).sqrt());
            let factor = (t - 1.0) / next;
            point = (0..n).map(|i| moved[i] + factor * (moved[i] - iterate[i])).collect();
            (iterate, t) = (moved, next);
        }
        best
    }
}

fn squared_distances(n: usize, m: usize, random: &mut Random) -> Vec<f32> {
    let (x, z) = (random.vec(2 * n, -2.0, 2.0), random.vec(2 * m, -2.0, 2.0));
    z.chunks(2)
        .flat_map(|z| x.chunks(2).map(move |x| (x[0] - z[0]).powi(2) + (x[1] - z[1]).powi(2)))
        .collect()
}

/// The numbers of `numpy.random.RandomState(0).randn(n)`, of which the published test makes its points:
/// a Mersenne Twister and the polar method.
fn published_normal(n: usize) -> Vec<f64> {
    let mut state = [0u32; 624];
    for i in 1..624u32 {
        let before = state[i as usize - 1];
        state[i as usize] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i);
    }
    let mut at = 624;
    let mut bits = || {
        if at == 624 {
            for i in 0..624 {
                let y = (state[i] & 0x8000_0000) | (state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                state[i] = state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            at = 0;
        }
        let mut y = state[at];
        at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    };
    let mut symmetric = || {
        let (high, low) = (f64::from(bits() >> 5), f64::from(bits() >> 6));
        2.0 * (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0 - 1.0
    };
    let mut out = Vec::new();
    while out.len() < n {
        let (x, y) = (symmetric(), symmetric());
        let r = x * x + y * y;
        if r < 1.0 && r > 0.0 {
            let factor = (-2.0 * r.ln() / r).sqrt();
            out.extend([factor * y, factor * x]);
        }
    }
    out.truncate(n);
    out
}

/// The problem of the published tests: 100 points to themselves.
pub fn published_problem() -> (Problem, [Vec<f32>; 3]) {
    let x: Vec<f32> = published_normal(200).iter().map(|&v| v as f32).collect();
    let cost: Vec<f32> = x
        .chunks(2)
        .flat_map(|z| x.chunks(2).map(move |x| (x[0] - z[0]).powi(2) + (x[1] - z[1]).powi(2)))
        .collect();
    let mass = vec![0.01; 100];
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect();
    let (a, b) = (wide(&mass), wide(&mass));
    (Problem { config: published(), cost: wide(&cost), a, b }, [cost, mass.clone(), mass])
}

/// Uniform masses, and costs of points in the plane, of tokens and of experts.
pub fn problem(config: TransportConfig, random: &mut Random) -> (Problem, [Vec<f32>; 3]) {
    let [n, m] = [config.tokens, config.experts].map(|v| v as usize);
    let cost = squared_distances(n, m, random);
    let (a, b) = (vec![1.0 / n as f32; n], vec![1.0 / m as f32; m]);
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect();
    (Problem { config, cost: wide(&cost), a: wide(&a), b: wide(&b) }, [cost, a, b])
}

/// What the costs are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Costs {
    Random,
    /// Few values, so that the last place is often shared.
    Ties,
    /// Every third is infinite.
    Infinite,
}

fn objective_case(
    [tokens, experts, nonzeros]: [u32; 3],
    gamma: f32,
    dual: TransportDual,
    costs: Costs,
    random: &mut Random,
) -> Case {
    let transport = TransportConfig { tokens, experts, nonzeros, gamma };
    let config = TransportObjectiveConfig { transport, dual };
    let (mut problem, [mut cost, a, b]) = problem(transport, random);
    let mut alpha = random.vec(tokens as usize, -1.0, 1.0);
    let mut beta = random.vec(experts as usize, -0.5, 1.0);
    match costs {
        Costs::Random => {}
        Costs::Ties => {
            for v in cost.iter_mut().chain(&mut alpha).chain(&mut beta) {
                *v = (*v * 2.0).round() * 0.5;
            }
        }
        Costs::Infinite => cost.iter_mut().skip(1).step_by(3).for_each(|c| *c = f32::INFINITY),
    }
    problem.cost = cost.iter().map(|&c| c.into()).collect();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let has_beta = dual == TransportDual::Dual;
    let wide_beta = wide(&beta);
    let out = problem.evaluate(&wide(&alpha), has_beta.then_some(&wide_beta[..]), |v| f64::from(v as f32));
    let mut value = vec![out.value];
    value.extend(out.dbeta);
    // Sums of k survivors for theta, n for a row or the objective, and about ten operations.
    let ulps = 12.0 + 2.0 * f64::from(nonzeros.min(tokens) + tokens + experts).sqrt();
    let name = format!("{config:?} costs {costs:?}");
    let case = Case::new(KERNEL, name, move |context, b| {
        let kernel = TransportObjective::new(context, config)?;
        kernel.prepare(&TransportObjectiveArgs {
            cost: b["cost"],
            a: b["a"],
            b: b["b"],
            alpha: b["alpha"],
            beta: has_beta.then(|| b["beta"]),
            plan: b["plan"],
            dalpha: b["dalpha"],
            value: b["value"],
            scratch: &b.scratch(&kernel)?,
        })
    })
    .input("cost", &cost)
    .input("a", &a)
    .input("b", &b)
    .input("alpha", &alpha)
    .output("plan", Expected::near(&out.plan, ulps, 0.0))
    .output("dalpha", Expected::near(&out.dalpha, ulps, 0.0))
    .output("value", Expected::near(&value, ulps, 0.0));
    if has_beta { case.input("beta", &beta) } else { case }
}

/// A NaN whose sign bit is set among the potentials: it is the largest of each column and, as the only
/// nonzero there may be, goes through; no other token notices.
fn poisoned(dual: TransportDual, random: &mut Random) -> Case {
    let transport = TransportConfig { tokens: 70, experts: 3, nonzeros: 1, gamma: 0.5 };
    let config = TransportObjectiveConfig { transport, dual };
    let (_, [cost, a, b]) = problem(transport, random);
    let mut alpha = random.vec(70, -1.0, 1.0);
    alpha[66] = f32::from_bits(0xffc0_0000);
    let has_beta = dual == TransportDual::Dual;
    let nan = (f64::NAN, 0.0);
    let mut plan = vec![(0.0, 0.0); cost.len()];
    plan.iter_mut().skip(66).step_by(70).for_each(|t| *t = nan);
    let mut dalpha: Vec<Term> = a.iter().map(|&a| (a.into(), a.into())).collect();
    dalpha[66] = nan;
    let case = Case::new(KERNEL, format!("a NaN in one potential {config:?}"), move |context, b| {
        let kernel = TransportObjective::new(context, config)?;
        kernel.prepare(&TransportObjectiveArgs {
            cost: b["cost"],
            a: b["a"],
            b: b["b"],
            alpha: b["alpha"],
            beta: has_beta.then(|| b["beta"]),
            plan: b["plan"],
            dalpha: b["dalpha"],
            value: b["value"],
            scratch: &b.scratch(&kernel)?,
        })
    })
    .input("cost", &cost)
    .input("a", &a)
    .input("b", &b)
    .input("alpha", &alpha)
    .output("plan", Expected::near(&plan, 0.0, 0.0))
    .output("dalpha", Expected::near(&dalpha, 1.0, 0.0))
    .output("value", Expected::near(&[nan; 4], 0.0, 0.0));
    if has_beta { case.input("beta", &random.vec(3, -0.5, 1.0)) } else { case }
}

/// The solver: what the row sums lack, and the objective. With as many nonzeros as tokens the plan is
/// unique, and is compared.
fn solve_case((problem, data): (Problem, [Vec<f32>; 3]), iterations: u32, lack: f64) -> Case {
    let transport = problem.config;
    let config = TransportSolveConfig { transport, iterations, ..TransportSolveConfig::default() };
    let [cost, a, b] = data;
    let alpha = problem.solve(iterations, f64::from(config.step));
    let out = problem.evaluate(&alpha, None, |v| v);
    let worst = out.dalpha.iter().fold(0.0f64, |m, d| m.max(d.0.abs()));
    assert!(worst <= lack, "{config:?}: the reference lacks {worst}");
    let zeros = vec![(0.0, 0.0); transport.tokens as usize];
    let mut value = vec![(out.value.0, out.value.1)];
    value.extend(vec![(0.0, 0.0); transport.experts as usize]);
    let slots = (transport.experts * transport.slots()) as usize;
    let unique = transport.nonzeros >= transport.tokens;
    let case = Case::new(KERNEL, format!("{config:?}"), move |context, b| {
        let kernel = TransportSolve::new(context, config)?;
        kernel.prepare(&TransportSolveArgs {
            cost: b["cost"],
            a: b["a"],
            b: b["b"],
            alpha: b["alpha"],
            plan: b["plan"],
            dalpha: b["dalpha"],
            value: b["value"],
            slot_token: b["slot_token"],
            slot_weight: b["slot_weight"],
            scratch: &b.scratch(&kernel)?,
        })
    })
    .input("cost", &cost)
    .input("a", &a)
    .input("b", &b)
    .update("alpha", Data::F32(vec![0.0; a.len()]), Expected::Any)
    .update("slot_token", Data::U32(vec![0; slots]), Expected::Any)
    .update("slot_weight", Data::F32(vec![0.0; slots]), Expected::Any)
    // The tolerance of the published tests is 1e-3.
    .output("dalpha", Expected::near(&zeros, 0.0, lack))
    // The objective is flat at its maximum: what the potentials are off by does not show.
    .output("value", Expected::near(&value, 64.0, 1e-5));
    if unique {
        let plan: Vec<Term> = out.plan.iter().map(|t| (t.0, t.0)).collect();
        case.output("plan", Expected::near(&plan, 0.0, 2.0 * lack))
    } else {
        case.update("plan", Data::F32(vec![0.0; cost.len()]), Expected::Any)
    }
}

/// The problem of the published tests: 100 points of a normal distribution to themselves, two nonzeros.
pub fn published() -> TransportConfig {
    TransportConfig { tokens: 100, experts: 100, nonzeros: 2, gamma: 1.0 }
}

/// Bugs that the cases must find.
pub const CANARIES: &[Canary] = &[
    Canary {
        bug: "of equal candidates the last",
        kernel: KERNEL,
        shader: "attention/transport::columns",
        find: "return (1u << (4u * params.index_digits)) - 1u - i;",
        replace: "return i;",
    },
    Canary {
        bug: "negative numbers in the order of their bits",
        kernel: KERNEL,
        shader: "attention/transport::columns",
        find: "select(bits | 0x80000000u, ~bits, bits >= 0x80000000u)",
        replace: "bits ^ 0x80000000u",
    },
    Canary {
        bug: "the simplex projection stops after one step",
        kernel: KERNEL,
        shader: "attention/transport::columns",
        find: "turn < 64u",
        replace: "turn < 1u",
    },
    Canary {
        bug: "a NaN with its sign among the smallest",
        kernel: KERNEL,
        shader: "attention/transport::columns",
        find: "if (bits & 0x7fffffffu) > 0x7f800000u { return 0xffffffffu; }",
        replace: "",
    },
    Canary {
        bug: "0 times what costs infinitely much",
        kernel: KERNEL,
        shader: "attention/transport::columns",
        find: "select(of_token, 0.0, s <= LOWEST)",
        replace: "of_token * select(1.0, 0.0, s <= LOWEST)",
    },
];

pub fn cases() -> Vec<Case> {
    let mut random = Random::new(91);
    let mut cases = Vec::new();
    for dual in [TransportDual::Dual, TransportDual::SemiDual] {
        for (shape, gamma, costs) in [
            ([1, 1, 1], 1.0, Costs::Random),
            ([63, 3, 1], 0.5, Costs::Random),
            ([64, 5, 7], 2.0, Costs::Ties),
            ([65, 2, 64], 10.0, Costs::Random),
            ([17, 70, 40], 1.0, Costs::Random),
            ([257, 4, 100], 3.0, Costs::Ties),
            ([1009, 3, 129], 0.1, Costs::Random),
            ([4099, 2, 512], 100.0, Costs::Ties),
        ] {
            cases.push(objective_case(shape, gamma, dual, costs, &mut random));
        }
    }
    cases.push(solve_case(published_problem(), 60, 1e-3));
    for (tokens, experts, nonzeros, gamma, lack) in [(24, 4, 24, 1.0, 1e-6), (31, 7, 12, 5.0, 1e-3)] {
        let config = TransportConfig { tokens, experts, nonzeros, gamma };
        cases.push(solve_case(problem(config, &mut random), 120, lack));
    }
    for dual in [TransportDual::Dual, TransportDual::SemiDual] {
        // All tokens may be chosen, and more than cost little.
        for shape in [[70, 3, 70], [70, 3, 60]] {
            cases.push(objective_case(shape, 2.0, dual, Costs::Infinite, &mut random));
        }
        cases.push(poisoned(dual, &mut random));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_finite_differences() {
        let mut random = Random::new(92);
        let (problem, _) = published_problem();
        let draw = |random: &mut Random| -> Vec<f64> {
            random.vec(100, 0.0, 1.0).iter().map(|&v| v.into()).collect()
        };
        let (alpha, beta) = (draw(&mut random), draw(&mut random));
        for beta in [None, Some(&beta[..])] {
            let out = problem.evaluate(&alpha, beta, |v| v);
            let h = 1e-6;
            for i in 0..100 {
                let moved = |v: &[f64], h: f64| {
                    let mut v = v.to_vec();
                    v[i] += h;
                    v
                };
                let at = |h| problem.evaluate(&moved(&alpha, h), beta, |v| v).value.0;
                assert!(((at(h) - at(-h)) / (2.0 * h) - out.dalpha[i].0).abs() < 1e-7);
                if let Some(beta) = beta {
                    let at = |h| problem.evaluate(&alpha, Some(&moved(beta, h)), |v| v).value.0;
                    assert!(((at(h) - at(-h)) / (2.0 * h) - out.dbeta[i].0).abs() < 1e-7);
                }
            }
        }
        // The plan is the gradient of the optimal value by the cost: of the semi-dual at fixed potentials.
        let out = problem.evaluate(&alpha, None, |v| v);
        for i in (0..10_000).step_by(97) {
            let at = |h: f64| {
                let mut problem = problem.clone();
                problem.cost[i] += h;
                problem.evaluate(&alpha, None, |v| v).value.0
            };
            assert!(((at(1e-6) - at(-1e-6)) / 2e-6 - out.plan[i].0).abs() < 1e-7);
        }
    }

    #[test]
    fn the_published_problem_is_solved_to_its_tolerance() {
        let start = published_normal(5);
        // As numpy prints them.
        let known = [1.764_052_35, 0.400_157_21, 0.978_737_98, 2.240_893_2, 1.867_557_99];
        assert!(start.iter().zip(known).all(|(a, b)| (a - b).abs() < 1e-8), "{start:?}");
        let (problem, _) = published_problem();
        for iterations in [30, 60, 100, 200, 400] {
            let out = problem.evaluate(&problem.solve(iterations, 0.5), None, |v| v);
            assert!(out.dalpha.iter().chain(&out.dbeta).all(|d| d.0.abs() < 1e-3), "{iterations}");
            for column in out.plan.chunks(100) {
                assert!(column.iter().filter(|t| t.0 > 0.0).count() <= 2);
            }
        }
    }

    #[test]
    fn one_nonzero_is_an_assignment_and_all_are_quadratic_transport() {
        let mut random = Random::new(94);
        let config = TransportConfig { tokens: 5, experts: 5, nonzeros: 1, gamma: 0.01 };
        let (problem, _) = problem(config, &mut random);
        // The least cost over all 120 permutations.
        fn least(cost: &[f64], j: usize, taken: u32) -> f64 {
            if j == 5 {
                return 0.0;
            }
            (0..5)
                .filter(|i| taken & 1 << i == 0)
                .map(|i| cost[j * 5 + i] + least(cost, j + 1, taken | 1 << i))
                .fold(f64::INFINITY, f64::min)
        }
        let want = least(&problem.cost, 0, 0) / 5.0;
        let out = problem.evaluate(&problem.solve(4000, 0.5), None, |v| v);
        assert!((out.value.0 - want).abs() < 0.01 * want + 0.01, "{} {want}", out.value.0);
        // With all nonzeros: no gap between the primal and the dual.
        let quadratic = Problem { config: TransportConfig { nonzeros: 5, gamma: 1.0, ..config }, ..problem };
        let out = quadratic.evaluate(&quadratic.solve(2000, 0.3), None, |v| v);
        let primal: f64 = out.plan.iter().zip(&quadratic.cost).map(|(t, c)| t.0 * c + 0.5 * t.0 * t.0).sum();
        assert!(out.dalpha.iter().chain(&out.dbeta).all(|d| d.0.abs() < 1e-9));
        assert!((primal - out.value.0).abs() < 1e-9, "{primal} {}", out.value.0);
    }
}
