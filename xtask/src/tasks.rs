//! The tasks: what they run, with which environment.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use super::{Result, Stop, adapters};

/// The folder that holds the workspace.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// `cargo` in the root of the workspace.
pub fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments.split_whitespace());
    command
}

/// Gives a command what drivers want: a runtime folder (else Mesa and the EGL loader complain).
pub fn prepare(command: &mut Command) {
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        let folder = target().join("runtime");
        let made = std::fs::create_dir_all(&folder);
        #[cfg(unix)]
        let made = made.and_then(|()| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))
        });
        if made.is_ok() {
            command.env("XDG_RUNTIME_DIR", folder);
        }
    }
}

/// Runs a command; its exit code becomes ours.
pub fn run(mut command: Command) -> Result {
    prepare(&mut command);
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            Err(Stop::new(code, format!("`{program} {}` ended with {status}", arguments.join(" "))))
        }
        Err(error) => Err(Stop::new(1, format!("`{program}`: {error}"))),
    }
}

/// Unit and doc tests, then every case on every adapter.
pub fn test(args: &[String], require: bool, install: bool) -> Result {
    if require {
        adapters::ensure_all(install)?;
    }
    adapters::ensure_one(install)?;
    let drivers = adapters::with_swiftshader();
    let equip = |mut command: Command| {
        if let Some(drivers) = &drivers {
            command.env("VK_DRIVER_FILES", drivers);
        }
        if require {
            command.env("PATCHFIELD_REQUIRE_GPU", "1");
        }
        command
    };
    // The binary is built beside the tests, with the same features: one build of wgpu serves both.
    run(equip(cargo("build --release --workspace --bins --tests")))?;
    run(equip(cargo("test --release --workspace --quiet")))?;
    let mut cases =
        Command::new(target().join("release").join(format!("kernels-tests{}", env::consts::EXE_SUFFIX)));
    cases.current_dir(root()).arg("--report").arg(target().join("report/tests.json"));
    if require {
        cases.args(["--min-adapters", "3"]);
    }
    cases.args(args);
    run(equip(cases))
}

/// The main example.
pub fn demo(args: &[String], install: bool) -> Result {
    adapters::ensure_one(install)?;
    let mut command = cargo("run --release --example fit_image --");
    // The example runs in the root of the workspace; a path is meant from where the user is.
    command.args(args.iter().map(|arg| match PathBuf::from(arg).canonicalize() {
        Ok(path) if !arg.starts_with('-') => path.into_os_string(),
        _ => arg.into(),
    }));
    run(command)
}

/// The benches.
pub fn bench(args: &[String], install: bool) -> Result {
    adapters::ensure_one(install)?;
    let mut command = cargo("bench");
    if !args.is_empty() {
        command.arg("--").args(args);
    }
    run(command)
}
