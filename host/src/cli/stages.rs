//! `pajamas stages`: the WASM stages: list, inspect, run.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Subcommand;
use pajamas_plugin_api::Cancel;
use serde_json::{Value as Json, json};

use super::session::cancel_on_interrupt;
use super::{Global, output};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::pipeline::encode;
use crate::stages::{GrantedFile, Limits, Origin, Stage, Stages as Library};
use crate::value::{Kind, Value, Values};

#[derive(Debug, Subcommand)]
pub enum Stages {
    /// Every stage found, and where it comes from
    List,
    /// What one stage takes, leaves and may be told
    Inspect {
        /// Its name, or a path that ends in .wasm
        stage: String,
    },
    /// Run one stage on files
    Run {
        /// Its name, or a path that ends in .wasm
        stage: String,
        /// An input: PORT=FILE, or PORT=@TEXT for the text itself; the only port may be left out
        #[arg(value_name = "[PORT=]FILE")]
        inputs: Vec<String>,
        /// The stage's options as JSON
        #[arg(long, default_value = "{}")]
        options: String,
        /// A file the stage may read: NAME=FILE
        #[arg(long, value_name = "NAME=FILE")]
        grant: Vec<String>,
        /// Run it so often, and say how many milliseconds the fastest run took
        #[arg(long, value_name = "TIMES")]
        repeat: Option<NonZeroU32>,
    },
}

impl Stages {
    pub fn run(self, global: &Global) -> Result<()> {
        let config = global.config()?;
        let library = Library::new(&config.stages)?;
        match self {
            Self::List => list(global, &library),
            Self::Inspect { stage } => inspect(global, &library, &stage),
            Self::Run { stage, inputs, options, grant, repeat } => {
                let limits = Limits {
                    memory: config.stages.limits.memory.as_usize(),
                    deadline: config.stages.limits.deadline.duration(),
                    output: config.stages.limits.output.as_usize(),
                };
                let run = Run {
                    global,
                    library: &library,
                    stage: library.get(&stage)?,
                    limits,
                    cancel: cancel_on_interrupt(),
                };
                run.print(&inputs, &options, &grant, repeat)
            }
        }
    }
}

fn list(global: &Global, library: &Library) -> Result<()> {
    for (name, origin) in library.catalog().list() {
        let stage = library.get(&name);
        let origin = match origin {
            Origin::BuiltIn => "built in".to_owned(),
            Origin::File(path) => path.display().to_string(),
        };
        match stage {
            Ok(stage) if global.json => {
                let d = stage.describe();
                output::json_line(
                    &json!({ "name": name, "version": d.version, "doc": d.doc, "origin": origin, "sha256": stage.sha256() }),
                )?;
            }
            Ok(stage) => {
                let d = stage.describe();
                output::line(&format!("{name:<16} {:<8} {origin:<10} {}", d.version, d.doc))?;
            }
            Err(error) if global.json => {
                output::json_line(&json!({ "name": name, "origin": origin, "error": error.code() }))?
            }
            Err(error) => {
                output::line(&format!("{name:<16} refused [{}]: {}", error.code(), error.message()))?
            }
        }
    }
    Ok(())
}

fn inspect(global: &Global, library: &Library, name: &str) -> Result<()> {
    let stage = library.get(name)?;
    let d = stage.describe();
    if global.json {
        return output::json_line(
            &json!({ "description": d, "sha256": stage.sha256(), "compiled_from_cache": stage.cached() }),
        );
    }
    output::line(&format!("{} {}\n{}\nsha256 {}", d.name, d.version, d.doc, stage.sha256()))?;
    for (title, ports) in [("takes", &d.inputs), ("leaves", &d.outputs)] {
        output::line(&format!("\n{title}"))?;
        for port in ports {
            let optional = if port.optional { " (optional)" } else { "" };
            output::line(&format!("  {:<12} {:<11}{} {}", port.name, port.kind.name(), port.doc, optional))?;
        }
    }
    let options = d.options_schema["properties"].as_object().cloned().unwrap_or_default();
    if !options.is_empty() {
        output::line("\noptions")?;
    }
    for (key, option) in options {
        let default = option.get("default").map(|v| format!(" [default: {v}]")).unwrap_or_default();
        output::line(&format!(
            "  {key:<14} {}{default}",
            option["description"].as_str().unwrap_or_default()
        ))?;
    }
    Ok(())
}

/// One stage, to be run alone.
struct Run<'r> {
    global: &'r Global,
    library: &'r Library,
    stage: Stage,
    limits: Limits,
    cancel: Cancel,
}

impl Run<'_> {
    /// Runs the stage on files, and prints what it leaves.
    fn print(
        &self,
        inputs: &[String],
        options: &str,
        grants: &[String],
        repeat: Option<NonZeroU32>,
    ) -> Result<()> {
        let options: Options = serde_json::from_str(options).map_err(|e| {
            Error::new("invalid-option", format!("--options: {e}")).help("write a JSON object")
        })?;
        let files = grants.iter().map(|grant| {
            let (name, path) = grant.split_once('=').unwrap_or(("labels", grant));
            Ok(GrantedFile { name: name.to_owned(), content: Arc::from(read(Path::new(path))?) })
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let mut values = Values::new();
        for input in inputs {
            let description = self.stage.describe();
            let only = description.inputs.first().map_or("bytes", |port| port.name.as_str());
            let (port, source) = match input.split_once('=') {
                Some((port, source)) if description.input(port).is_some() => (port, source),
                _ => (only, input.as_str()),
            };
            let kind = description.input(port).map_or(Kind::Bytes, |p| p.kind);
            values.put(port, self.value(kind, source)?);
        }
        let processor = self.stage.create(&Json::Object(options), &files, &self.limits)?;
        let mut left = Values::new();
        let mut fastest = f64::INFINITY;
        for _ in 0..repeat.map_or(1, NonZeroU32::get) {
            let started = Instant::now();
            left = processor.run(values.iter(), &self.limits, &self.cancel)?;
            fastest = fastest.min(started.elapsed().as_secs_f64() * 1e3);
        }
        for (name, value) in left.iter() {
            let shown = show(value);
            if self.global.json {
                output::json_line(&json!({ "name": name, "kind": value.kind().name(), "value": shown }))?;
            } else {
                output::line(&format!("{name:<12} {:<11}{shown}", value.kind().name()))?;
            }
        }
        match repeat {
            None => Ok(()),
            Some(_) if self.global.json => output::json_line(&json!({ "ms": fastest })),
            Some(times) => output::line(&format!("{fastest:.2} ms, the fastest of {times}")),
        }
    }

    /// A file as a value of the kind that the port wants: pictures and sound are decoded by the stages for it.
    fn value(&self, kind: Kind, source: &str) -> Result<Value> {
        match kind {
            Kind::Image => self.decoded("image-decode", "image", source),
            Kind::Audio => self.decoded("audio-decode", "audio", source),
            kind => decode(kind, source),
        }
    }

    fn decoded(&self, stage: &str, output: &str, source: &str) -> Result<Value> {
        let decoder = self.library.get(stage)?.create(&Json::Null, &[], &self.limits)?;
        let bytes = decode(Kind::Bytes, source)?;
        let mut left = decoder.run([("bytes", &bytes)], &self.limits, &self.cancel)?;
        left.take(output).ok_or_else(|| {
            Error::new("stage-output-invalid", format!("stage {stage}: it left no `{output}`"))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, &e))
}

/// A file as it is, or as text. Tensors and what models find come out of stages, not of files.
fn decode(kind: Kind, source: &str) -> Result<Value> {
    let bytes = match source.strip_prefix('@') {
        Some(text) => text.as_bytes().to_vec(),
        None => read(&PathBuf::from(source))?,
    };
    match kind {
        Kind::Text => String::from_utf8(bytes)
            .map(Value::Text)
            .map_err(|_| Error::new("invalid-input", format!("{source}: not UTF-8 text"))),
        Kind::Bytes => Ok(Value::Bytes(bytes)),
        Kind::Tokens => serde_json::from_slice(&bytes)
            .map(Value::Tokens)
            .map_err(|e| Error::new("invalid-input", format!("{source}: no JSON list of tokens: {e}"))),
        other => {
            Err(Error::new("unsupported", format!("a value of kind {other} cannot be read from a file"))
                .help("run the stages before it in a pipeline: `pajamas detect` and `pajamas classify` do"))
        }
    }
}

/// What a person wants to see of a value: all of small ones, the shape of large ones.
fn show(value: &Value) -> Json {
    match value {
        Value::Tensor(t) => {
            let first: Vec<f32> = t.as_f32().unwrap_or_default().iter().take(8).copied().collect();
            json!({ "dtype": t.dtype().name(), "shape": t.shape(), "first": first })
        }
        Value::Image(i) => json!({ "width": i.width, "height": i.height, "channels": i.channels }),
        Value::Audio(a) => {
            json!({ "sample_rate": a.sample_rate, "channels": a.channels, "samples": a.samples.len() })
        }
        Value::Text(text) => json!(text),
        Value::Tokens(tokens) => json!(tokens),
        Value::Detections(found) => encode::detections(found),
        Value::Labels(labels) => encode::labels(labels),
        Value::Segments(segments) => {
            segments.iter().map(|s| json!({ "start": s.start, "end": s.end, "text": s.text })).collect()
        }
        Value::Bytes(bytes) => json!({ "bytes": bytes.len() }),
    }
}
