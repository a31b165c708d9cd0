//! `pajamas calibrate`: which columns of a model's matrices matter.

use std::path::PathBuf;

use clap::Args;
use pajamas_plugin_api::Cancel;
use serde_json::Value;

use super::convert::mb;
use super::session::cancel_on_interrupt;
use super::watcher::Watcher;
use super::{Global, output, source};
use crate::error::{Error, Result};
use crate::plugins::Plugins;
use crate::quantize::{Calibration, calibrate};

#[derive(Debug, Args)]
pub struct Calibrate {
    /// A Hugging Face model's folder, a GGUF file, an artifact, or the id of a repository, `org/name[@revision]`, which is
    /// fetched first (see `pajamas pull`)
    #[arg(required_unless_present_any = ["show", "merge", "domains"])]
    model: Option<PathBuf>,
    #[command(flatten)]
    text: TextOptions,
    /// The importance matrix to write (GGUF, as llama-imatrix writes it)
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["show", "domains"])]
    output: Option<PathBuf>,
    /// Say what a matrix holds: the columns of llama-imatrix --show-statistics
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "merge", "output", "domains"])]
    show: Option<PathBuf>,
    /// Add matrices of one model; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "domains"])]
    merge: Vec<PathBuf>,
    /// Name the domains that the plugin brings along
    #[arg(long, conflicts_with_all = ["model", "output"])]
    domains: bool,
}

/// The text that a model is calibrated with, and how.
#[derive(Debug, Args)]
pub struct TextOptions {
    /// A text file; may be given several times
    #[arg(long = "text", value_name = "FILE")]
    pub texts: Vec<PathBuf>,
    /// Texts that the plugin brings along, their part to calibrate with; `pajamas calibrate --domains` names them
    #[arg(long = "domain", value_name = "NAME,…", value_delimiter = ',')]
    pub of_domains: Vec<String>,
    /// The most pieces of text [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub chunks: Option<u64>,
    /// Tokens of a piece [default: 512, or the model's context]
    #[arg(long, value_name = "N")]
    pub chunk_size: Option<u32>,
    /// Go on where a run was stopped
    #[arg(long)]
    pub resume: bool,
    /// Leave experts that few tokens reach as they are, instead of giving them more text
    #[arg(long)]
    pub no_balance: bool,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
}

impl TextOptions {
    /// What is to be calibrated with it.
    pub fn calibration(self, source: PathBuf, output: PathBuf) -> Calibration {
        Calibration {
            source,
            output,
            texts: self.texts,
            domains: self.of_domains,
            hold_out: false,
            chunks: self.chunks,
            chunk_size: self.chunk_size,
            threads: self.threads,
            resume: self.resume,
            balance: !self.no_balance,
        }
    }
}

impl Calibrate {
    pub fn run(self, global: &Global) -> Result<()> {
        let plugins = Plugins::load(&global.config()?.plugins);
        if self.domains {
            let names = calibrate::domains(&plugins)?;
            return match global.json {
                true => output::json_line(&names),
                false => names.iter().try_for_each(|name| output::line(name)),
            };
        }
        if let Some(file) = &self.show {
            return show(global, &calibrate::statistics(file, &plugins)?);
        }
        let Some(file) = self.output else {
            return Err(Error::new("invalid-option", "no file to write is named").help("give --output FILE"));
        };
        let made = match self.model {
            None => calibrate::merge(&self.merge, &file, &plugins)?,
            Some(model) => {
                let cancel = cancel_on_interrupt();
                let model = source::find(global, &model, &cancel)?;
                run(global, &self.text.calibration(model, file), &plugins, &cancel)?
            }
        };
        show_made(global, &made)
    }
}

/// Calibrates, with a bar.
pub fn run(global: &Global, calibration: &Calibration, plugins: &Plugins, cancel: &Cancel) -> Result<Value> {
    let mut watcher = Watcher::new(global.json);
    let made = calibration.run(
        plugins,
        &mut |fraction, what| {
            let name = if what.contains("experts") { "balancing" } else { "calibrating" };
            watcher.show(name, fraction, what)
        },
        cancel,
    );
    watcher.clear();
    made
}

/// What became of a calibration, or of a merge.
pub fn show_made(global: &Global, made: &Value) -> Result<()> {
    if global.json {
        return output::json_line(made);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let there = if made["skipped"] == true { ", was there already" } else { "" };
    let identity = &made["calibration"];
    let from = match identity["tokens"].as_u64() {
        Some(tokens) => format!(", {tokens} tokens of {}", text(&identity["name"])),
        None => String::new(),
    };
    let size = mb(made["bytes"].as_u64().unwrap_or(0));
    output::line(&format!(
        "{}  {size:.1} MB, {} tensors{from}{there}",
        text(&made["output"]),
        made["tensors"]
    ))?;
    let resumed = made["resumed"].as_u64().unwrap_or(0);
    if resumed > 0 {
        output::line(&format!("  went on after {resumed} of {} pieces", made["chunks"]))?;
    }
    show_experts(&made["experts"])
}

/// How well experts are known; nothing of models without any.
fn show_experts(experts: &Value) -> Result<()> {
    let (before, after) = match experts.get("before") {
        Some(before) => (Some(before), &experts["after"]),
        None => (None, experts),
    };
    let Some(all) = after["experts"].as_u64() else { return Ok(()) };
    let few = |of: &Value| of["few"].as_u64().unwrap_or(0);
    let extra = experts["extra_chunks"].as_u64().unwrap_or(0);
    output::line(&match before.filter(|_| extra > 0) {
        Some(before) => format!(
            "  {all} experts: fewer than 64 tokens reached {}, {} after {extra} more pieces",
            few(before),
            few(after)
        ),
        None => format!("  {all} experts: fewer than 64 tokens reached {}", few(after)),
    })?;
    let never: Vec<&str> =
        after["never"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match never.is_empty() {
        true => Ok(()),
        false => output::line(&format!("  never reached: {}", never.join("; "))),
    }
}

/// llama-imatrix's columns.
fn show(global: &Global, answer: &Value) -> Result<()> {
    if global.json {
        return output::json_line(answer);
    }
    output::line(&format!(
        "{:>5}  {:<20} {:>12} {:>9} {:>12} {:>9} {:>9} {:>8} {:>7} {:>9} {:>8} {:>7} {:>7}",
        "layer",
        "tensor",
        "Σ(act²)",
        "min",
        "max",
        "μ",
        "σ",
        "% active",
        "N",
        "entropy",
        "% entropy",
        "% ZD",
        "cosine"
    ))?;
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    for row in answer["statistics"].as_array().into_iter().flatten() {
        let layer = row["layer"].as_u64().map_or_else(|| "-".to_owned(), |layer| layer.to_string());
        output::line(&format!(
            "{layer:>5}  {:<20} {:>12.2} {:>9.4} {:>12.4} {:>9.2} {:>9.2} {:>8.2} {:>7} {:>9.4} {:>9.2} {:>7.2} {:>7.4}",
            row["tensor"].as_str().unwrap_or_default(),
            number(row, "sum"),
            number(row, "min"),
            number(row, "max"),
            number(row, "mean"),
            number(row, "deviation"),
            number(row, "active_percent"),
            number(row, "columns"),
            number(row, "entropy"),
            number(row, "entropy_percent"),
            number(row, "z_percent"),
            number(row, "cosine"),
        ))?;
    }
    output::line("")?;
    output::line(&format!("{:>5}  {:>12} {:>7} {:>7}", "layer", "μΣ(act²)", "% μZD", "μcosine"))?;
    for row in answer["layers"].as_array().into_iter().flatten() {
        output::line(&format!(
            "{:>5}  {:>12.2} {:>7.4} {:>7.4}",
            row["layer"],
            number(row, "sum"),
            number(row, "z_percent"),
            number(row, "cosine")
        ))?;
    }
    show_experts(&answer["experts"])
}
