//! The command line of `kernels-tests`.

use std::path::PathBuf;

pub const HELP: &str = "\
kernels-tests [FILTER]     runs every case whose `kernel name` contains FILTER on every adapter, then the canaries
    --adapter NAME         only adapters whose name contains NAME
    --report FILE          writes the counts as JSON
    --min-adapters N       fails with fewer adapters
    --no-canaries          plants no bugs
kernels-tests shaders [FILTER]
                           no GPU: every permutation through naga to SPIR-V, HLSL, MSL and GLSL
kernels-tests browser [FILTER]
                           the same, and every permutation and a few cases of every kernel in a headless Chromium";

/// What was asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Args {
    /// Translate shaders instead of running cases.
    pub shaders: bool,
    /// Translate them, and replay cases in a browser.
    pub browser: bool,
    pub filter: String,
    pub adapter: String,
    pub report: Option<PathBuf>,
    pub min_adapters: usize,
    pub no_canaries: bool,
    pub help: bool,
}

impl Args {
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = words.into_iter();
        let mut first = true;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--adapter" => args.adapter = value()?,
                "--report" => args.report = Some(value()?.into()),
                "--min-adapters" => {
                    let text = value()?;
                    args.min_adapters = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
                }
                "--no-canaries" => args.no_canaries = true,
                "--help" | "-h" => args.help = true,
                "shaders" if first => args.shaders = true,
                "browser" if first => args.browser = true,
                flag if flag.starts_with("--") => return Err(format!("there is no option {flag}")),
                _ if args.filter.is_empty() => args.filter = word,
                _ => return Err(format!("one filter only, not also `{word}`")),
            }
            first = false;
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments() {
        let all = parse("dense --adapter gl --report a.json --min-adapters 3").unwrap();
        assert_eq!((all.filter.as_str(), all.adapter.as_str(), all.min_adapters), ("dense", "gl", 3));
        assert!(parse("shaders dense").unwrap().shaders);
        for wrong in ["a b", "--report", "--min-adapters x", "--what"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
