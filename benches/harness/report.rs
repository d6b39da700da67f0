//! The table for people and the file for programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// One measurement.
pub struct Row {
    pub kernel: String,
    pub variant: String,
    pub shape: String,
    /// Median of one execution.
    pub seconds: f64,
    pub gflops: f64,
    pub gbytes_per_s: f64,
    /// Of the time that the ceilings allow.
    pub roof_percent: f64,
    /// A peer's name, and how many times its time is ours.
    pub peer: Option<(String, f64)>,
}

/// The table.
pub fn print(rows: &[Row]) {
    let wide =
        |text: fn(&Row) -> &str| rows.iter().map(|r| text(r).chars().count()).max().unwrap_or(0).max(7);
    let (a, b, c) = (wide(|r| &r.kernel), wide(|r| &r.variant), wide(|r| &r.shape));
    println!(
        "\n{:a$}  {:b$}  {:c$}  {:>10}  {:>9}  {:>8}  {:>6}",
        "kernel", "variant", "shape", "ms", "GFLOP/s", "GB/s", "% roof"
    );
    for row in rows {
        let Row { kernel, variant, shape, seconds, gflops, gbytes_per_s, roof_percent, peer } = row;
        let peer = peer.as_ref().map(|(name, ratio)| format!("  {ratio:.2} x {name}")).unwrap_or_default();
        println!(
            "{kernel:a$}  {variant:b$}  {shape:c$}  {:10.3}  {gflops:9.2}  {gbytes_per_s:8.2}  {roof_percent:6.1}{peer}",
            seconds * 1e3
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |path| root().join(path))
        .join("report")
}

/// `target/report/bench.json`.
pub fn write(adapter: &str, rows: &[Row]) -> Result<(), String> {
    let list: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "kernel": row.kernel,
                "variant": row.variant,
                "shape": row.shape,
                "adapter": adapter,
                "gflops": row.gflops,
                "gbytes_per_s": row.gbytes_per_s,
                "roof_percent": row.roof_percent,
                "peer": row.peer.as_ref().map(|(name, _)| name),
                "peer_ratio": row.peer.as_ref().map(|(_, ratio)| ratio),
            })
        })
        .collect();
    let path = folder().join("bench.json");
    let text = serde_json::to_string_pretty(&list).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(folder())
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

/// Runs `benches/peers` on the same adapter and puts its ratios beside the rows of the same shape.
pub fn measure_peers(adapter: &str, rows: &mut [Row]) -> Result<(), String> {
    let path = folder().join("peers.json");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root().join("benches/peers"))
        .args(["run", "--release", "--quiet", "--", "--adapter", adapter, "--report"])
        .arg(&path)
        .status()
        .map_err(|e| format!("benches/peers: {e}"))?;
    if !status.success() {
        return Err(format!("benches/peers ended with {status}"));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let peers: Vec<Value> = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    for row in rows {
        let same = |p: &&Value| {
            p["kernel"] == row.kernel.as_str()
                && p["shape"] == row.shape.as_str()
                && p["variant"] == row.variant.as_str()
        };
        row.peer =
            peers.iter().find(same).and_then(|p| Some((p["peer"].as_str()?.into(), p["ratio"].as_f64()?)));
    }
    Ok(())
}
