//! Counts of a run: the table for people, the JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::harness::run::Outcome;

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

/// What ran so far.
#[derive(Debug, Default)]
pub struct Report {
    /// Short name and description of each adapter.
    pub adapters: Vec<(String, String)>,
    /// By kernel and the adapter's position.
    counts: BTreeMap<(String, usize), Count>,
    /// Skipped cases by adapter, kernel and reason.
    skips: BTreeMap<(usize, String, String), usize>,
    pub canaries_planted: usize,
    pub canaries_found: usize,
}

impl Report {
    /// Counts a case on an adapter, by its position.
    pub fn add(&mut self, adapter: usize, kernel: &str, outcome: &Outcome) {
        let count = self.counts.entry((kernel.into(), adapter)).or_default();
        match outcome {
            Outcome::Passed => count.passed += 1,
            Outcome::Failed(_) => count.failed += 1,
            Outcome::Skipped(why) => {
                count.skipped += 1;
                *self.skips.entry((adapter, kernel.into(), why.clone())).or_default() += 1;
            }
        }
    }

    pub fn total(&self) -> Count {
        self.counts.values().fold(Count::default(), |sum, count| Count {
            passed: sum.passed + count.passed,
            failed: sum.failed + count.failed,
            skipped: sum.skipped + count.skipped,
        })
    }

    /// Kernels x adapters, each cell passed / failed / skipped, then every reason for a skip.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let width = self.counts.keys().map(|(kernel, _)| kernel.len()).max().unwrap_or(0).max(24);
        let cell = |count: &Count| format!("{} / {} / {}", count.passed, count.failed, count.skipped);
        let _ = write!(out, "{:width$}", "passed / failed / skipped");
        for (name, _) in &self.adapters {
            let _ = write!(out, "  {name:>18}");
        }
        let mut kernels: Vec<&String> = self.counts.keys().map(|(kernel, _)| kernel).collect();
        kernels.dedup();
        for kernel in kernels {
            let _ = write!(out, "\n{kernel:width$}");
            for adapter in 0..self.adapters.len() {
                let count = self.counts.get(&(kernel.clone(), adapter)).map_or_else(String::new, cell);
                let _ = write!(out, "  {count:>18}");
            }
        }
        out.push('\n');
        for ((adapter, kernel, why), count) in &self.skips {
            let name = &self.adapters[*adapter].0;
            let _ = writeln!(out, "LOUD SKIP: {count} of {kernel} on {name}: {why}");
        }
        out
    }

    pub fn json(&self) -> serde_json::Value {
        let total = self.total();
        let adapters: Vec<_> = self.adapters.iter().map(|(name, info)| format!("{name}: {info}")).collect();
        serde_json::json!({
            "adapters": adapters,
            "cases": total.passed + total.failed + total.skipped,
            "failed": total.failed,
            "skipped": total.skipped,
            "canaries_planted": self.canaries_planted,
            "canaries_found": self.canaries_found,
        })
    }

    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        write_json(path, &self.json())
    }
}

/// Writes a report, and the folder for it.
pub fn write_json(path: &Path, json: &serde_json::Value) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, format!("{json:#}\n"))
}
