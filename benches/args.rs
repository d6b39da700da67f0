//! The command line.

pub const HELP: &str = "\
cargo bench -- [FILTER]    every kernel whose name contains FILTER, as a table and in target/report/bench.json
    --adapter NAME         an adapter whose name contains NAME; else the first GPU, else lavapipe, else any
    --quick                fewer and shorter samples
    --peers                the peers too (benches/peers is built first: that takes minutes)";

/// What was asked for.
#[derive(Debug, Default)]
pub struct Args {
    pub filter: String,
    pub adapter: String,
    pub quick: bool,
    pub peers: bool,
    pub help: bool,
}

impl Args {
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--adapter" => args.adapter = words.next().ok_or("--adapter needs a value")?,
                "--quick" => args.quick = true,
                "--peers" => args.peers = true,
                "--help" | "-h" => args.help = true,
                // What cargo itself adds.
                "--bench" => {}
                _ if word.starts_with('-') => return Err(format!("there is no option `{word}`")),
                _ => args.filter = word,
            }
        }
        Ok(args)
    }
}
