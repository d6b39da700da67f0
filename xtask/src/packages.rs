//! Installs packages of the distribution; never without printing the command first.

use std::env;
use std::process::Command;

use super::{Result, Stop};

/// A package manager that is here.
#[derive(Clone, Copy)]
pub enum Manager {
    Apt,
    Dnf,
    Pacman,
}

impl Manager {
    pub fn find() -> Option<Self> {
        let known = [("apt-get", Self::Apt), ("dnf", Self::Dnf), ("pacman", Self::Pacman)];
        known.into_iter().find(|(program, _)| on_path(program)).map(|(_, manager)| manager)
    }

    /// The Vulkan loader and Mesa's software driver.
    pub fn vulkan(self) -> &'static str {
        match self {
            Self::Apt => "libvulkan1 mesa-vulkan-drivers",
            Self::Dnf => "vulkan-loader mesa-vulkan-drivers",
            Self::Pacman => "vulkan-icd-loader vulkan-swrast",
        }
    }

    /// Everything that the tests can use: a second Vulkan driver and a browser, GL, and tools
    /// that check shaders.
    pub fn everything(self) -> &'static str {
        match self {
            Self::Apt => {
                "libvulkan1 mesa-vulkan-drivers libegl1 libegl-mesa0 libgles2 libgl1-mesa-dri chromium spirv-tools glslang-tools"
            }
            Self::Dnf => {
                "vulkan-loader mesa-vulkan-drivers mesa-libEGL mesa-dri-drivers libglvnd-gles chromium spirv-tools glslang"
            }
            Self::Pacman => "vulkan-icd-loader vulkan-swrast mesa libglvnd chromium spirv-tools glslang",
        }
    }

    fn commands(self, packages: &str) -> Vec<String> {
        match self {
            Self::Apt => vec![
                "apt-get update".into(),
                format!("apt-get install -y --no-install-recommends {packages}"),
            ],
            Self::Dnf => vec![format!("dnf install -y {packages}")],
            Self::Pacman => vec![format!("pacman -Sy --needed --noconfirm {packages}")],
        }
    }
}

pub fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// Prints the commands that install the packages, then runs them, unless `run` is false: then
/// that is an error.
pub fn install(packages: fn(Manager) -> &'static str, run: bool) -> Result {
    let Some(manager) = Manager::find() else {
        let message =
            "found none of apt-get, dnf and pacman: please install Mesa's software Vulkan driver (lavapipe)";
        return Err(Stop::new(2, message));
    };
    let prefix = if is_root() { "" } else { "sudo " };
    let commands =
        manager.commands(packages(manager)).into_iter().map(|command| format!("{prefix}{command}"));
    let commands: Vec<String> = commands.collect();
    println!("To install what is missing:");
    commands.iter().for_each(|command| println!("    {command}"));
    if !run {
        return Err(Stop::new(2, "--no-install was given: nothing was installed; the commands are above"));
    }
    for command in &commands {
        println!("+ {command}");
        let words: Vec<&str> = command.split_whitespace().collect();
        let status =
            Command::new(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(Stop::new(2, format!("`{command}` ended with {status}"))),
            Err(error) => return Err(Stop::new(2, format!("`{command}`: {error}"))),
        }
    }
    Ok(())
}
