//! Finds Vulkan drivers, and makes sure that there is one.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::packages::{self, Manager};
use super::{Result, Stop};

/// Where distributions put the SwiftShader that Chromium carries.
const SWIFTSHADER: [&str; 4] = [
    "/usr/lib/chromium/vk_swiftshader_icd.json",
    "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
    "/usr/lib/chromium-browser/vk_swiftshader_icd.json",
    "/opt/google/chrome/vk_swiftshader_icd.json",
];

fn paths(variable: &str) -> Vec<PathBuf> {
    env::var_os(variable).map(|value| env::split_paths(&value).collect()).unwrap_or_default()
}

/// What the user names as drivers: `VK_DRIVER_FILES`, or `VK_ICD_FILENAMES`, its older name.
fn named() -> Option<Vec<PathBuf>> {
    ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(paths).into_iter().find(|paths| !paths.is_empty())
}

/// The driver manifests in a folder, or the manifest itself.
fn manifests(path: &Path) -> BTreeSet<PathBuf> {
    if path.is_file() {
        return [path.to_path_buf()].into();
    }
    let Ok(entries) = path.read_dir() else { return BTreeSet::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect()
}

/// The drivers that the Vulkan loader would find.
pub fn drivers() -> BTreeSet<PathBuf> {
    if let Some(named) = named() {
        return named.iter().flat_map(|path| manifests(path)).collect();
    }
    let mut roots: Vec<PathBuf> =
        ["/etc", "/usr/local/etc", "/usr/share", "/usr/local/share"].map(Into::into).into();
    roots.extend(paths("XDG_DATA_DIRS"));
    roots.extend(paths("XDG_CONFIG_DIRS"));
    roots.extend(env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    roots.iter().flat_map(|root| manifests(&root.join("vulkan/icd.d"))).collect()
}

/// Chromium's software Vulkan driver.
pub fn swiftshader() -> Option<PathBuf> {
    SWIFTSHADER.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The Vulkan loader that wgpu opens at run time.
fn has_loader() -> bool {
    let mut folders = paths("LD_LIBRARY_PATH");
    folders.extend(["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib64"].map(PathBuf::from));
    for root in ["/usr/lib", "/lib"] {
        let below = Path::new(root).read_dir().into_iter().flatten();
        folders.extend(below.filter_map(|entry| Some(entry.ok()?.path())));
    }
    folders.iter().any(|folder| folder.join("libvulkan.so.1").exists())
}

/// On Linux: installs Mesa's software Vulkan driver if there is no driver at all. Elsewhere the
/// system brings its own (Metal, DX12).
pub fn ensure_one(install: bool) -> Result {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    if let Some(named) = named() {
        if drivers().is_empty() {
            let named: Vec<_> = named.iter().map(|path| path.display().to_string()).collect();
            let message = "VK_DRIVER_FILES (or VK_ICD_FILENAMES) names only files that are not there: ";
            return Err(Stop::new(2, format!("{message}{}", named.join(", "))));
        }
    }
    if !drivers().is_empty() && (has_loader() || Manager::find().is_none()) {
        return Ok(());
    }
    println!(
        "This machine has no Vulkan driver. Mesa's software driver (lavapipe) runs everything here on the CPU."
    );
    packages::install(Manager::vulkan, install)?;
    if drivers().is_empty() {
        return Err(Stop::new(
            2,
            "there is still no Vulkan driver in /usr/share/vulkan/icd.d or /etc/vulkan/icd.d",
        ));
    }
    Ok(())
}

/// The three software adapters that the tests want: lavapipe, SwiftShader and Mesa's GL.
pub fn ensure_all(install: bool) -> Result {
    let lavapipe = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("lvp_icd"))
    };
    let egl = ["x86_64-linux-gnu/", "aarch64-linux-gnu/", "", "../lib64/"]
        .iter()
        .any(|folder| Path::new("/usr/lib").join(folder).join("libEGL_mesa.so.0").exists());
    let tools = ["spirv-val", "glslangValidator"].iter().all(|tool| packages::on_path(tool));
    if drivers().iter().any(lavapipe) && swiftshader().is_some() && egl && tools && has_loader() {
        return Ok(());
    }
    println!("--require: lavapipe, SwiftShader (in Chromium), GL, spirv-val or glslangValidator is missing.");
    packages::install(Manager::everything, install)
}

/// `VK_DRIVER_FILES` for a process that is to see SwiftShader beside the system's drivers; `None`
/// where the user has chosen, or where there is no SwiftShader.
pub fn with_swiftshader() -> Option<OsString> {
    if named().is_some() {
        return None;
    }
    let mut all = drivers();
    all.insert(swiftshader()?);
    env::join_paths(all).ok()
}
