//! `cargo xtask portability`.

use super::{Result, Stop};

pub fn run(_args: &[String], _install: bool) -> Result {
    Err(Stop::new(2, "portability: not built yet"))
}
