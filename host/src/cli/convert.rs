//! `pajamas convert`: from a source model to an artifact.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::session::cancel_on_interrupt;
use super::solving::Solving;
use super::watcher::Watcher;
use super::{Global, output, source};
use crate::error::{Error, Result};
use crate::plugins::Plugins;
use crate::quantize::{self, Form, Job, Made, Planned};

#[derive(Debug, Args)]
pub struct Convert {
    /// A Hugging Face model's folder, a GGUF file, an artifact, or the id of a repository, `org/name[@revision]`, which is
    /// fetched first (see `pajamas pull`)
    model: PathBuf,
    /// The formats to make, separated by commas
    #[arg(short, long, value_name = "FORMAT,…", value_delimiter = ',', default_value = "gguf")]
    formats: Vec<String>,
    /// The precision of each format in their order, separated by colons; several of one format by commas:
    /// `Q4_K_M,Q8_0:4bit`
    #[arg(short, long, value_name = "PRECISION:…")]
    precision: String,
    /// The artifact's folder; forms that it has already stay
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Say what would be written, with exact sizes, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// The type of tensors whose name a pattern is found in, for example `attn_v=q8_0`; may be given several times
    #[arg(long = "override", value_name = "REGEX=TYPE")]
    overrides: Vec<String>,
    /// The type of the token embeddings
    #[arg(long, value_name = "TYPE")]
    token_embedding_type: Option<String>,
    /// The type of the output's tensor
    #[arg(long, value_name = "TYPE")]
    output_tensor_type: Option<String>,
    /// Every matrix in the precision's own type, without a mixture
    #[arg(long)]
    pure: bool,
    /// An importance matrix, as `pajamas calibrate` or llama-imatrix writes it (GGUF)
    #[arg(long, value_name = "FILE")]
    imatrix: Option<String>,
    /// What decides on the types of tensors: `preset`, llama.cpp's mixtures, or, with the same bytes, `architecture`, how
    /// the model is built, or `solve`, what is measured to matter, which is kept only if it measures better than the preset
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    #[command(flatten)]
    solving: Solving,
    /// With `--strategy solve`: a text file to measure on, of which the last fifth judges what comes out; may be given
    /// several times
    #[arg(long = "text", value_name = "FILE")]
    texts: Vec<PathBuf>,
    /// With `--strategy solve`: texts that the plugin brings along to measure on; `pajamas calibrate --domains` names them
    /// [default: general, unless a text is named]
    #[arg(long = "domain", value_name = "NAME,…", value_delimiter = ',')]
    of_domains: Vec<String>,
    /// Convert weights that are not finite, too
    #[arg(long)]
    allow_nan: bool,
    /// Quantize what is quantized already, which loses twice
    #[arg(long)]
    allow_requantize: bool,
    /// Another option of a quantizer, its value as JSON or text; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    option: Vec<String>,
}

impl Convert {
    pub fn run(self, global: &Global) -> Result<()> {
        let plugins = Plugins::load(&global.config()?.plugins);
        let mut options = self.options()?;
        self.solving.into_options(&self.texts, &self.of_domains, &mut options);
        let mut job = Job {
            forms: quantize::forms(&self.formats, &self.precision)?,
            options,
            source: self.model,
            output: self.output,
        };
        let cancel = cancel_on_interrupt();
        // A precision that does not exist is not worth hours of downloading.
        if let Some(format) = source::format_of(&job.source)? {
            job.check_for(format, &plugins)?;
        }
        job.source = source::find(global, &job.source, &cancel)?;
        if self.dry_run {
            return show_plan(global, &job, &job.plan(&plugins)?);
        }
        let mut watcher = Watcher::new(global.json);
        let made = job.run(&plugins, &mut watcher.of_forms(), &cancel);
        watcher.clear();
        for form in &made? {
            show_made(global, &job, form)?;
        }
        Ok(())
    }

    fn options(&self) -> Result<Map<String, Value>> {
        let mut options = Map::new();
        for option in &self.option {
            let (key, value) = option.split_once('=').ok_or_else(|| {
                Error::new("invalid-option", format!("--option {option}: there is no `=`"))
                    .help("write --option KEY=VALUE")
            })?;
            options.insert(key.into(), serde_json::from_str(value).unwrap_or_else(|_| value.into()));
        }
        let set = [
            ("threads", self.threads.map(Value::from)),
            ("overrides", (!self.overrides.is_empty()).then(|| json!(self.overrides))),
            ("token_embedding_type", self.token_embedding_type.clone().map(Value::from)),
            ("output_tensor_type", self.output_tensor_type.clone().map(Value::from)),
            ("pure", self.pure.then(|| true.into())),
            ("imatrix", self.imatrix.clone().map(Value::from)),
            ("strategy", self.strategy.clone().map(Value::from)),
            ("allow_nan", self.allow_nan.then(|| true.into())),
            ("allow_requantize", self.allow_requantize.then(|| true.into())),
        ];
        options.extend(set.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        Ok(options)
    }
}

fn show_plan(global: &Global, job: &Job, planned: &[Planned]) -> Result<()> {
    for one in planned {
        if global.json {
            output::json_line(one)?;
            continue;
        }
        let Form { format, precision } = &one.form;
        for file in &one.plan.files {
            let path = job.output.join(format).join(precision).join(&file.path);
            output::line(&format!("{format} {precision}  {}  {} bytes", path.display(), file.bytes))?;
        }
        output::line(&format!("  needs {:.0} MB of memory beside the source", mb(one.plan.peak_memory)))?;
        one.plan.notes.iter().try_for_each(|note| output::line(&format!("  {note}")))?;
    }
    Ok(())
}

pub(super) fn show_made(global: &Global, job: &Job, made: &Made) -> Result<()> {
    if global.json {
        return output::json_line(made);
    }
    output::line(&summary(&job.output, made))?;
    let notes = made.report.get("notes").and_then(Value::as_array).into_iter().flatten();
    notes.filter_map(Value::as_str).try_for_each(|note| output::line(&format!("  {note}")))
}

/// A form that was made, in one line.
pub(super) fn summary(output: &Path, made: &Made) -> String {
    let Form { format, precision } = &made.form;
    let bits = made.report.get("bits_per_weight").and_then(Value::as_f64);
    let bits = bits.map_or_else(String::new, |bits| format!(", {bits:.2} bits a weight"));
    let there = if made.skipped { ", was there already" } else { "" };
    let size = mb(made.files.iter().map(|file| file.bytes).sum());
    let place = match made.files.as_slice() {
        [only] => output.join(&only.path).display().to_string(),
        several => {
            let folder = output.join(format).join(precision);
            format!("{} ({} files)", folder.display(), several.len())
        }
    };
    format!("{format} {precision}  {place}  {size:.1} MB{bits}{there}")
}

pub(super) fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
