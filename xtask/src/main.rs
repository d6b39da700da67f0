//! `cargo xtask`: set-up, tests, the demo and the benches, with nothing but std, so that it starts at once.

mod adapters;
mod packages;
mod portability;
mod tasks;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask test [FILTER] [--require]   unit tests, doc tests, and every case (whose name contains FILTER) on every
                                        adapter; writes target/report/tests.json.
                                        --require: lavapipe, SwiftShader and GL must all be there; installs them
cargo xtask demo [IMAGE] [ARGS..]       fits a neural field to a picture; without IMAGE to one made by computation
cargo xtask bench [ARGS..]              the roofline, then every kernel; writes target/report/bench.json
cargo xtask portability [ARGS..]        every shader and kernel in a headless Chromium
cargo xtask help                        this text

--no-install, with any of them: install nothing; without a Vulkan driver that is an error (exit code 2).
On Linux without a Vulkan driver the others print the command that installs Mesa's software driver, and run it.";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let take = |args: &mut Vec<String>, flag: &str| {
        let before = args.len();
        args.retain(|arg| arg != flag);
        args.len() < before
    };
    let install = !take(&mut args, "--no-install");
    let task = if args.is_empty() { "help".to_string() } else { args.remove(0) };
    let result = match task.as_str() {
        "test" => {
            let require = take(&mut args, "--require");
            tasks::test(&args, require, install)
        }
        "demo" => tasks::demo(&args, install),
        "bench" => tasks::bench(&args, install),
        "portability" => portability::run_all(&args, install),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(Stop::new(2, format!("there is no task `{other}`\n\n{HELP}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if !stop.message.is_empty() {
                eprintln!("xtask: {}", stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}

/// Why a task ended early, and the exit code.
pub struct Stop {
    code: u8,
    message: String,
}

impl Stop {
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

pub type Result<T = ()> = std::result::Result<T, Stop>;
