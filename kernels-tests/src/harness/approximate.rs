//! Numbers with the error that f32 arithmetic would give them: first-order running error analysis.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// An f64 value and a bound of the error of the same computation in f32, in units of 2^-24. An
/// operation passes on its operands' errors by its derivative, and adds its own rounding.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Approximate {
    pub value: f64,
    pub error: f64,
}

impl Approximate {
    /// An input.
    pub fn exact(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// A function's value, from its derivative and its own error.
    fn of(self, value: f64, derivative: f64, own: f64) -> Self {
        Self { value, error: self.error * derivative.abs() + own }
    }

    /// WGSL inherits the error of `1 / inverseSqrt`.
    pub fn sqrt(self) -> Self {
        let v = self.value.sqrt();
        if v == 0.0 { Self::exact(0.0) } else { self.of(v, 0.5 / v, 4.0 * v) }
    }

    /// WGSL allows 3 + 2 |x| units in the last place.
    pub fn exp(self) -> Self {
        let v = self.value.exp();
        self.of(v, v, v * 2.0 * (3.0 + 2.0 * self.value.abs()))
    }

    /// The library's own sine: 2 units of 1.
    pub fn sin(self) -> Self {
        self.of(self.value.sin(), self.value.cos(), 2.0)
    }

    pub fn cos(self) -> Self {
        self.of(self.value.cos(), self.value.sin(), 2.0)
    }

    pub fn abs(self) -> Self {
        Self { value: self.value.abs(), ..self }
    }

    /// Value and magnitude for `Expected::near`.
    pub fn term(self) -> (f64, f64) {
        (self.value, self.error + self.value.abs())
    }
}

impl From<f32> for Approximate {
    fn from(value: f32) -> Self {
        Self::exact(value.into())
    }
}

impl Add for Approximate {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        let value = self.value + b.value;
        Self { value, error: self.error + b.error + value.abs() }
    }
}

impl AddAssign for Approximate {
    fn add_assign(&mut self, b: Self) {
        *self = *self + b;
    }
}

impl Neg for Approximate {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, ..self }
    }
}

impl Sub for Approximate {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        self + -b
    }
}

impl Mul for Approximate {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        let value = self.value * b.value;
        Self { value, error: self.value.abs() * b.error + b.value.abs() * self.error + value.abs() }
    }
}

impl Mul<f64> for Approximate {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        self * Self::exact(factor)
    }
}

impl Div for Approximate {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let value = self.value / b.value;
        let error = (self.error + value.abs() * b.error) / b.value.abs();
        // WGSL allows 2.5 units in the last place.
        Self { value, error: error + 5.0 * value.abs() }
    }
}

impl std::iter::Sum for Approximate {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |a, b| a + b)
    }
}
