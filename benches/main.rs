//! `cargo bench`: the adapter's own ceilings first, then every kernel beside them.
//!
//! `cargo bench -- [FILTER] [--adapter NAME] [--quick] [--peers]`

mod args;
mod attention;
mod dense;
mod harness;
mod radial;
mod roofline;

use std::process::ExitCode;

use harness::{Bench, report};
use patchfield::dispatch::Requirements;
use patchfield::{Context, Result};

/// The benches of one kernel.
type Entry = (&'static str, fn(&mut Bench) -> Result<()>);

fn main() -> ExitCode {
    let args = match args::Args::parse(std::env::args().skip(1)) {
        Ok(args) if args.help => {
            println!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(args) => args,
        Err(message) => {
            eprintln!("{message}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// A device on the adapter, with all that the kernels can use.
fn open(name: &str) -> std::result::Result<Context, String> {
    let (_, adapter) = harness::adapter::find(name)?;
    let descriptor = Requirements::for_adapter(&adapter).device_descriptor();
    let (device, queue) =
        pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| error.to_string())?;
    Ok(Context::new(&device, &queue))
}

fn run(args: &args::Args) -> std::result::Result<(), String> {
    let context = open(&args.adapter)?;
    println!("adapter: {}", context.capabilities().adapter);
    let mut bench = Bench::new(&context, args.quick).map_err(|e| e.to_string())?;
    println!("clock: {}", bench.clock());
    println!("ceilings, measured again beside every sample below:\n{}", bench.ceilings());
    for (kernel, entry) in [dense::KERNELS, attention::KERNELS, radial::KERNELS].concat() {
        if !kernel.contains(&args.filter) {
            continue;
        }
        bench.begin(kernel);
        if let Err(error) = entry(&mut bench) {
            println!("LOUD SKIP: {kernel}: {error}");
        }
    }
    let (adapter, mut rows) = bench.finish();
    if args.peers {
        report::measure_peers(&adapter, &mut rows)?;
    }
    report::print(&rows);
    report::write(&adapter, &rows)
}
