//! `cargo xtask portability`.

use std::env;
use std::process::Command;

use super::tasks::{cargo, root, run, target};
use super::{Result, adapters};

/// Every shader through every translator and a browser, and cases of every kernel on every adapter
/// and in the browser.
pub fn run_all(args: &[String], install: bool) -> Result {
    adapters::ensure_all(install)?;
    run(cargo("build --release --workspace --bins --tests"))?;
    let name = format!("kernels-tests{}", env::consts::EXE_SUFFIX);
    let mut command = Command::new(target().join("release").join(name));
    command.current_dir(root()).arg("browser").args(args);
    command.arg("--report").arg(target().join("report/portability.json"));
    if let Some(drivers) = adapters::with_swiftshader() {
        command.env("VK_DRIVER_FILES", drivers);
    }
    run(command)
}
