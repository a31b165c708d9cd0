//! `pajamas stages`: the WASM stages: list, inspect, run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::session::cancel_on_interrupt;
use super::{Global, output};
use crate::config::Options;
use crate::error::{Error, Result};
use crate::pipeline::encode;
use crate::stages::{GrantedFile, Limits, Origin, Stages as Library};
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
    },
}

impl Stages {
    pub fn run(self, global: &Global) -> Result<()> {
        let config = global.config()?;
        let library = Library::new(&config.stages)?;
        match self {
            Self::List => list(global, &library),
            Self::Inspect { stage } => inspect(global, &library, &stage),
            Self::Run { stage, inputs, options, grant } => {
                let limits = Limits {
                    memory: config.stages.limits.memory.as_usize(),
                    deadline: config.stages.limits.deadline.duration(),
                    output: config.stages.limits.output.as_usize(),
                };
                run(global, &library, &stage, &inputs, &options, &grant, &limits)
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

fn run(
    global: &Global,
    library: &Library,
    name: &str,
    inputs: &[String],
    options: &str,
    grants: &[String],
    limits: &Limits,
) -> Result<()> {
    let options: Options = serde_json::from_str(options)
        .map_err(|e| Error::new("invalid-option", format!("--options: {e}")).help("write a JSON object"))?;
    let stage = library.get(name)?;
    let files = grants.iter().map(|grant| {
        let (name, path) = grant.split_once('=').unwrap_or(("labels", grant));
        Ok(GrantedFile { name: name.to_owned(), content: Arc::from(read(Path::new(path))?) })
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut values = Values::new();
    for input in inputs {
        let only = stage.describe().inputs.first().map_or("bytes", |port| port.name.as_str()).to_owned();
        let (port, source) = match input.split_once('=') {
            Some((port, source)) if stage.describe().input(port).is_some() => (port.to_owned(), source),
            _ => (only, input.as_str()),
        };
        let kind = stage.describe().input(&port).map_or(Kind::Bytes, |p| p.kind);
        values.put(port, decode(kind, source)?);
    }
    let processor = stage.create(&Json::Object(options), &files, limits)?;
    let left = processor.run(values.iter(), limits, &cancel_on_interrupt())?;
    for (name, value) in left.iter() {
        let shown = show(value);
        if global.json {
            output::json_line(&json!({ "name": name, "kind": value.kind().name(), "value": shown }))?;
        } else {
            output::line(&format!("{name:<12} {:<11}{shown}", value.kind().name()))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, &e))
}

/// A file as a value of the kind that the port wants. Pictures, sound and tensors come out of stages, not of files.
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
