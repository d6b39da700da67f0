//! `kernels-tests [FILTER]`: runs every case (whose name contains FILTER) on every adapter.

use std::process::ExitCode;

use kernels_tests::harness::{adapter, run};

fn main() -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let adapters = adapter::all();
    let cases = kernels_tests::cases();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for adapter in &adapters {
        println!("{}: {}", adapter.name, patchfield::dispatch::describe(&adapter.info));
        let start = std::time::Instant::now();
        for case in cases.iter().filter(|c| format!("{} {}", c.kernel, c.name).contains(&filter)) {
            match run::run(&adapter.context, case, None) {
                run::Outcome::Passed => passed += 1,
                run::Outcome::Skipped(why) => {
                    skipped += 1;
                    println!("SKIPPED {} on {}: {}: {why}", case.kernel, adapter.name, case.name);
                }
                run::Outcome::Failed(why) => {
                    failed += 1;
                    println!("FAILED {} on {}: {}: {why}", case.kernel, adapter.name, case.name);
                }
            }
        }
        println!("  {:.1} s", start.elapsed().as_secs_f64());
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
