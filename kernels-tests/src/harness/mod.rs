//! The harness: one table of cases, run on every adapter of the machine.
//!
//! Before a run outputs and scratch are poisoned with NaN and every buffer is fenced by guards;
//! afterwards guards and inputs must be untouched, outputs must agree with the f64 reference
//! element by element, and a second run must give the same bits.

pub mod adapter;
pub mod approximate;
pub mod case;
pub mod compare;
pub mod random;
pub mod run;

pub use approximate::Approximate;
pub use case::{Case, Data, Expected, Input, Views};
pub use random::Random;
