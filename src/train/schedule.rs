//! Learning rate schedules, in f64 on the host.

/// The learning rate as a function of the step, as a factor of the base rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// From 1 at step 0 to `floor` at step `steps`, along half a cosine; `floor` from then on.
    Cosine {
        /// Length in steps.
        steps: u64,
        /// The last factor.
        floor: f64,
    },
    /// Times `factor` at `start`, and again after each `every` steps.
    Step {
        /// First step of the decay.
        start: u64,
        /// Steps between two decays.
        every: u64,
        /// What each multiplies with.
        factor: f64,
    },
    /// From 1 at step 0 to `floor` at step `steps`, exponentially.
    Exponential {
        /// Length in steps.
        steps: u64,
        /// The last factor, above 0.
        floor: f64,
    },
    /// Linear from 0 over `warmup` steps, then half a cosine down to `floor` at step `steps`.
    WarmupCosine {
        /// Steps of the rise.
        warmup: u64,
        /// Length in steps, the rise included.
        steps: u64,
        /// The last factor.
        floor: f64,
    },
}

impl Schedule {
    /// The factor at a step (from 0).
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        let cosine = |t: f64, floor: f64| {
            floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * t.clamp(0.0, 1.0)).cos())
        };
        match *self {
            Self::Constant => 1.0,
            Self::Cosine { steps, floor } => cosine(step as f64 / steps.max(1) as f64, floor),
            Self::Step { start, every, factor } => {
                let times = if step < start { 0 } else { (step - start) / every.max(1) + 1 };
                factor.powi(i32::try_from(times).unwrap_or(i32::MAX))
            }
            Self::Exponential { steps, floor } => {
                floor.powf((step as f64 / steps.max(1) as f64).clamp(0.0, 1.0))
            }
            Self::WarmupCosine { warmup, steps, floor } => {
                if step < warmup {
                    (step + 1) as f64 / warmup as f64
                } else {
                    cosine((step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64, floor)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_begin_and_end_where_they_say() {
        let cosine = Schedule::Cosine { steps: 100, floor: 0.01 };
        assert!((cosine.factor(0) - 1.0).abs() < 1e-12);
        assert!((cosine.factor(50) - 0.505).abs() < 1e-12);
        assert!((cosine.factor(1000) - 0.01).abs() < 1e-12);
        let step = Schedule::Step { start: 20, every: 10, factor: 0.5 };
        assert_eq!([step.factor(19), step.factor(20), step.factor(30)], [1.0, 0.5, 0.25]);
        let warmup = Schedule::WarmupCosine { warmup: 10, steps: 110, floor: 0.0 };
        assert_eq!([warmup.factor(0), warmup.factor(9), warmup.factor(10)], [0.1, 1.0, 1.0]);
        assert!((Schedule::Exponential { steps: 10, floor: 0.25 }.factor(5) - 0.5).abs() < 1e-12);
    }
}
