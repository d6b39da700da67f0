//! `kernels-tests [FILTER]`: runs every case on every adapter, then plants bugs that must be found.

use std::process::ExitCode;
use std::time::Instant;

use kernels_tests::args::{Args, HELP};
use kernels_tests::harness::adapter::{self, Adapter};
use kernels_tests::harness::{Case, run};
use kernels_tests::report::Report;
use kernels_tests::{browser, canaries, translation};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) if args.help => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(args) => args,
        Err(message) => {
            eprintln!("{message}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let mut cases = kernels_tests::cases();
    cases.retain(|case| format!("{} {}", case.kernel, case.name).contains(&args.filter));
    let good = if args.shaders {
        translation::check_all(&cases, args.report.as_deref())
    } else if args.browser {
        browser::check_all(&cases, args.report.as_deref())
    } else {
        run_cases(&args, &cases)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_cases(args: &Args, cases: &[Case]) -> bool {
    let mut adapters = adapter::all();
    adapters.retain(|adapter| adapter.name.contains(&args.adapter));
    let mut report = Report::default();
    // Most of the time goes into drivers that compile on one core: the adapters take one each.
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> =
            adapters.iter().map(|adapter| scope.spawn(|| run_adapter(adapter, cases))).collect();
        running.into_iter().map(|thread| thread.join().expect("a case panicked")).collect()
    });
    for (position, (adapter, outcomes)) in adapters.iter().zip(outcomes).enumerate() {
        report.adapters.push((adapter.name.clone(), patchfield::dispatch::describe(&adapter.info)));
        for (case, outcome) in cases.iter().zip(&outcomes) {
            report.add(position, case.kernel, outcome);
        }
    }
    let mut good = true;
    // A filter by kernel runs its canaries too; a filter by case would hide what they need.
    if !args.no_canaries && !adapters.is_empty() {
        let cases = kernels_tests::cases();
        for canary in canaries::all().iter().filter(|c| c.kernel.contains(&args.filter)) {
            report.canaries_planted += 1;
            match canaries::hunt(&adapters, &cases, canary) {
                Ok(_) => report.canaries_found += 1,
                Err(why) => {
                    good = false;
                    println!("CANARY LIVES: {} in {}: {why}", canary.bug, canary.shader);
                }
            }
        }
    }
    if let Some(path) = &args.report {
        if let Err(error) = report.write(path) {
            eprintln!("{}: {error}", path.display());
            good = false;
        }
    }
    println!("\n{}", report.table());
    println!("{} of {} canaries found", report.canaries_found, report.canaries_planted);
    let required = std::env::var("PATCHFIELD_REQUIRE_GPU").is_ok_and(|value| value == "1");
    if adapters.is_empty() {
        println!("LOUD SKIP: no adapter: not one case ran");
        good &= !required;
    }
    if adapters.len() < args.min_adapters {
        println!("FAILED: {} adapters, {} were asked for", adapters.len(), args.min_adapters);
        good = false;
    }
    let total = report.total();
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    good && total.failed == 0
}

/// One outcome a case.
fn run_adapter(adapter: &Adapter, cases: &[Case]) -> Vec<run::Outcome> {
    let start = Instant::now();
    let outcomes = cases
        .iter()
        .map(|case| {
            let outcome = run::run(&adapter.context, case, None);
            if let run::Outcome::Failed(why) = &outcome {
                println!("FAILED {} on {}: {}: {why}", case.kernel, adapter.name, case.name);
            }
            outcome
        })
        .collect();
    let info = patchfield::dispatch::describe(&adapter.info);
    println!("{}: {info}\n  {} cases, {:.1} s", adapter.name, cases.len(), start.elapsed().as_secs_f64());
    outcomes
}
