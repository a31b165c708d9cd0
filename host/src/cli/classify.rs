//! `pajamas classify`: say what pictures show.

use clap::Args;
use serde_json::json;

use super::vision::each_picture;
use super::{Global, output, pictures};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::pipeline::encode;
use crate::value::Value;

#[derive(Debug, Args)]
pub struct Classify {
    /// The pictures: files, folders and patterns as `*.jpg`; `-` reads one from standard input
    #[arg(required = true)]
    images: Vec<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// The number of classes to print, the likeliest first
    #[arg(short = 'k', long, value_name = "N")]
    top_k: Option<u32>,
    /// What the pictures may show, for a model that knows no classes but texts, as CLIP: `cat,dog`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    labels: Vec<String>,
    /// The text that each of these names is put into [default: a photo of a {}]
    #[arg(long, value_name = "TEXT", requires = "labels")]
    template: Option<String>,
}

impl Classify {
    pub fn run(self, global: &Global) -> Result<()> {
        let mut options = Options::new();
        if let Some(k) = self.top_k {
            options.insert("k".into(), json!(k));
        }
        if !self.labels.is_empty() {
            options.insert("names".into(), json!(self.labels));
        }
        if let Some(template) = self.template {
            options.insert("template".into(), json!(template));
        }
        let as_json = global.json;
        each_picture(
            global,
            Task::Classify,
            self.model,
            pictures::find(&self.images)?,
            options,
            |mut seen| {
                let Some(Value::Labels(labels)) = seen.values.take("labels") else {
                    return Err(Error::new("pipeline-incomplete", "the pipeline left no `labels`").help(
                        "a classification pipeline ends with stages that give `labels`, such as softmax-topk",
                    ));
                };
                if as_json {
                    return output::json_line(
                        &json!({ "image": seen.name, "classes": encode::labels(&labels) }),
                    );
                }
                output::line(&seen.name)?;
                for l in &labels {
                    let name = encode::label(l.label.as_deref(), l.class_id);
                    output::line(&format!("  {:>5.1} %   {name}", l.score * 100.0))?;
                }
                Ok(())
            },
        )
    }
}
