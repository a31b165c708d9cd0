//! `pajamas iq`: quantizing by importance, from a model and a text to an artifact.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use super::Global;
use super::calibrate::{TextOptions, run as calibrate, show_made as show_calibrated};
use super::convert::show_made;
use super::session::cancel_on_interrupt;
use super::solving::{SOLVE, Solving};
use super::source;
use super::watcher::Watcher;
use crate::error::Result;
use crate::plugins::Plugins;
use crate::quantize::{Calibration, Form, Job, calibrate::enter};

/// The artifact's folder for importance matrices.
const FOLDER: &str = "importance";

#[derive(Debug, Args)]
pub struct Iq {
    /// A Hugging Face model's folder, a GGUF file, an artifact, or the id of a repository, `org/name[@revision]`, which is
    /// fetched first (see `pajamas pull`)
    model: PathBuf,
    /// The precisions to make, separated by commas
    #[arg(short, long, value_name = "PRECISION,…", value_delimiter = ',', default_value = "IQ4_XS")]
    precision: Vec<String>,
    #[command(flatten)]
    text: TextOptions,
    /// The artifact's folder; forms that it has already stay
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What decides on the types of tensors: `preset`, llama.cpp's mixtures, `architecture`, how the model is built, or
    /// `solve`, what is measured to matter, on the same text
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    #[command(flatten)]
    solving: Solving,
}

impl Iq {
    pub fn run(mut self, global: &Global) -> Result<()> {
        let plugins = Plugins::load(&global.config()?.plugins);
        if self.text.texts.is_empty() && self.text.of_domains.is_empty() {
            self.text.of_domains.push("general".into());
        }
        let file = format!("{FOLDER}/{}.gguf", name(&self.text));
        let matrix = self.output.join(&file);
        let solves = self.strategy.as_deref() == Some(SOLVE);
        let mut options = options(&matrix, self.text.threads, self.strategy);
        let (texts, domains): (&[_], &[_]) =
            if solves { (&self.text.texts, &self.text.of_domains) } else { (&[], &[]) };
        self.solving.into_options(texts, domains, &mut options);
        let mut job = Job { source: self.model, output: self.output, forms: forms(&self.precision), options };
        let cancel = cancel_on_interrupt();
        if let Some(format) = source::format_of(&job.source)? {
            job.check_for(format, &plugins)?;
        }
        job.source = source::find(global, &job.source, &cancel)?;
        // A precision that does not exist is not worth hours of calibrating.
        job.check(&plugins)?;
        // What judges types that were solved for must be new to the importance, too.
        let text = self.text.calibration(job.source.clone(), matrix);
        let calibration = Calibration { hold_out: solves, ..text };
        show_calibrated(global, &calibrate(global, &calibration, &plugins, &cancel)?)?;

        let mut watcher = Watcher::new(global.json);
        let made = job.run(&plugins, &mut watcher.of_forms(), &cancel);
        watcher.clear();
        for form in &made? {
            show_made(global, &job, form)?;
        }
        enter(&job.output, &file)
    }
}

/// The matrix is named after its text, in letters that every file system knows.
fn name(text: &TextOptions) -> String {
    let files = text.texts.iter().filter_map(|path| path.file_stem()).map(|stem| stem.to_string_lossy());
    let names: Vec<String> =
        text.of_domains.iter().cloned().chain(files.map(|stem| stem.into_owned())).collect();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '-' };
    let name: String = names.join("+").chars().map(plain).take(100).collect();
    match name.trim_matches(['-', '.']) {
        "" => "text".into(),
        name => name.into(),
    }
}

fn forms(precisions: &[String]) -> Vec<Form> {
    let form = |precision: &String| Form { format: "gguf".into(), precision: precision.trim().to_owned() };
    precisions.iter().map(form).collect()
}

fn options(matrix: &std::path::Path, threads: Option<u32>, strategy: Option<String>) -> Map<String, Value> {
    let set = [
        ("imatrix", Some(Value::from(matrix.to_string_lossy().into_owned()))),
        ("threads", threads.map(Value::from)),
        ("strategy", strategy.map(Value::from)),
    ];
    set.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
