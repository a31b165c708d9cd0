//! What the strategy `solve` is to meet, for the commands that quantize.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

/// The strategy's name.
pub const SOLVE: &str = "solve";

/// What `--strategy solve` is to meet.
#[derive(Debug, Args)]
pub struct Solving {
    /// With `--strategy solve`: the most bytes of the file, for example `1500000`, `1.5MB` or `2GiB`
    /// [default: those of the precision's preset]
    #[arg(long, value_name = "SIZE", conflicts_with = "target_kld")]
    target_size: Option<String>,
    /// With `--strategy solve`: the largest KL divergence from the original, in nats, met in as few bytes as it takes
    #[arg(long, value_name = "NATS")]
    target_kld: Option<f64>,
    /// With `--strategy solve`: windows of text to measure on [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    windows: Option<u64>,
}

impl Solving {
    /// Adds what is set to a quantizer's options, with the text to measure on.
    pub fn into_options(self, texts: &[PathBuf], domains: &[String], options: &mut Map<String, Value>) {
        let texts: Vec<_> = texts.iter().map(|path| path.to_string_lossy()).collect();
        let set = [
            ("target_size", self.target_size.map(Value::from)),
            ("target_kld", self.target_kld.map(Value::from)),
            ("texts", (!texts.is_empty()).then(|| json!(texts))),
            ("domains", (!domains.is_empty()).then(|| json!(domains))),
            ("windows", self.windows.map(Value::from)),
        ];
        options.extend(set.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
}
