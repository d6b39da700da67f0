//! Numbers that carry the scale of their rounding error along.

use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// A value in f64, and a magnitude: if each operation rounds to 2^-24 of its result, then a chain of
/// `n` of them is off by at most `n 2^-24` magnitudes, to first order.
///
/// Every operation passes the error of its operands on by its derivatives; the magnitude is at
/// least the value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rounded {
    pub value: f64,
    pub magnitude: f64,
}

impl Rounded {
    pub const ZERO: Self = Self { value: 0.0, magnitude: 0.0 };

    /// An input.
    pub fn new(value: f64) -> Self {
        Self { value, magnitude: value.abs() }
    }

    /// `f(x)` with its derivative there; `scale` is the error of `f` itself in units.
    pub fn map(self, value: f64, slope: f64, scale: f64) -> Self {
        Self { value, magnitude: value.abs() * scale + slope.abs() * self.magnitude }
    }

    /// A number without an error: an integer, a half.
    pub fn exact(value: f64) -> Self {
        Self { value, magnitude: 0.0 }
    }

    pub fn term(self) -> (f64, f64) {
        (self.value, self.magnitude.max(self.value.abs()))
    }

    pub fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        if root == 0.0 { Self::ZERO } else { self.map(root, 0.5 / root, 1.0) }
    }

    /// `exp` is good to 3 + 2 |x| units in WGSL.
    pub fn exp(self) -> Self {
        let e = self.value.exp();
        self.map(e, e, 4.0 + 2.0 * self.value.abs())
    }

    pub fn inverse(self) -> Self {
        // Division is good to 2.5 units.
        self.map(1.0 / self.value, 1.0 / (self.value * self.value), 3.0)
    }

    /// With an error relative to 1, not to the result.
    pub fn sin_cos(self) -> (Self, Self) {
        let (sin, cos) = self.value.sin_cos();
        let of = |value: f64, slope: f64| Self { value, magnitude: 2.0 + slope.abs() * self.magnitude };
        (of(sin, cos), of(cos, sin))
    }

    /// 0 if it is not positive.
    pub fn positive(self) -> Self {
        Self { value: self.value.max(0.0), magnitude: self.magnitude }
    }

    pub fn powi(self, n: i32) -> Self {
        let slope = f64::from(n) * self.value.powi(n - 1);
        self.map(self.value.powi(n), slope, f64::from(n))
    }
}

impl Add for Rounded {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let value = self.value + other.value;
        Self { value, magnitude: (self.magnitude + other.magnitude).max(value.abs()) }
    }
}

impl AddAssign for Rounded {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Rounded {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, ..self }
    }
}

impl Sub for Rounded {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Rounded {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let value = self.value * other.value;
        let passed = self.magnitude * other.value.abs() + self.value.abs() * other.magnitude;
        Self { value, magnitude: passed.max(value.abs()) }
    }
}

impl Mul<f64> for Rounded {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self { value: self.value * factor, magnitude: self.magnitude * factor.abs() }
    }
}
