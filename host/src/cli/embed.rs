//! `pajamas embed`: texts or pictures to vectors.

use std::ops::ControlFlow;

use clap::Args;
use pajamas_plugin_api::Prompt;
use serde_json::{Value as Json, json};

use super::generate::standard_input;
use super::session::Session;
use super::vision::look_at;
use super::{Global, output, pictures};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::pipeline::{Input, Output, Params, Request};
use crate::value::Tensor;

#[derive(Debug, Args)]
pub struct Embed {
    /// The texts; without any, each line of standard input is one
    texts: Vec<String>,
    /// Pictures instead of texts: files, folders and patterns as `*.jpg`
    #[arg(long, num_args = 1.., value_name = "PICTURE", conflicts_with = "texts")]
    images: Vec<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// How the vectors of the tokens become one [default: the model's own way]
    #[arg(long, value_parser = ["mean", "cls", "last"])]
    pooling: Option<String>,
    /// Scale each vector to length 1
    #[arg(long)]
    normalize: bool,
}

impl Embed {
    pub fn run(self, global: &Global) -> Result<()> {
        if !self.images.is_empty() {
            return self.of_pictures(global);
        }
        let texts: Vec<String> = match self.texts.is_empty() {
            true => standard_input()?.lines().map(str::to_owned).filter(|l| !l.is_empty()).collect(),
            false => self.texts,
        };
        if texts.is_empty() {
            return Err(Error::new("invalid-input", "there is no text to embed"));
        }
        let session = Session::start(global)?;
        let request = Request {
            task: Task::Embed,
            model: self.model,
            input: Input::Texts(texts.into_iter().map(Prompt::text).collect()),
            params: Params { pooling: self.pooling, normalize: self.normalize, ..Params::default() },
        };
        let outcome = session.run(request, &mut |_| ControlFlow::Continue(()))?;
        let Output::Embeddings(tensor, _) = outcome.output else {
            return Err(Error::new("internal", "a request for embeddings ended without them"));
        };
        print(&tensor, session.json, &json!({}))
    }

    fn of_pictures(self, global: &Global) -> Result<()> {
        let images = pictures::find(&self.images)?;
        let session = Session::start(global)?;
        let progress = pictures::progress(images.len());
        for name in images {
            let outcome = look_at(&session, Task::Embed, self.model.clone(), &name, &Options::new())?;
            let Output::Embeddings(tensor, _) = outcome.output else {
                return Err(Error::new("internal", "a request for embeddings ended without them"));
            };
            progress.suspend(|| print(&tensor, session.json, &json!({ "image": name })))?;
            progress.inc(1);
        }
        Ok(())
    }
}

/// Prints each vector on a line of its own, as JSON beside `fields`.
fn print(tensor: &Tensor, as_json: bool, fields: &Json) -> Result<()> {
    let size = tensor.shape().last().copied().unwrap_or(1).max(1) as usize;
    for embedding in tensor.as_f32().unwrap_or_default().chunks(size) {
        if as_json {
            let mut object = fields.clone();
            object["embedding"] = json!(embedding);
            output::json_line(&object)?;
        } else {
            let numbers: Vec<String> = embedding.iter().map(f32::to_string).collect();
            output::line(&numbers.join(" "))?;
        }
    }
    Ok(())
}
