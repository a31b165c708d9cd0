//! The pipeline of a model of tensors for which the configuration has none: read from the model's signature and metadata and
//! from what lies beside its file, or an error that says what to write.

mod embedders;
mod heads;
mod names;
mod picture;

use pajamas_plugin_api::{Dim, Signature, TensorSpec};
use serde_json::Value as Json;

use crate::config::{GrantedFile, Options, StageStep, Step, Task};
use crate::error::{Error, Result};
use crate::value::{Label, Value};
use heads::Head;
use picture::Picture;

pub use embedders::{EMBEDDING, most_texts};

/// The most classes that a request may name.
const MOST_CLASSES: usize = 1000;

/// What lies beside a model's file and says how it is used.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// The artifact's file with the names of the classes.
    pub labels: Option<GrantedFile>,
    /// `tokenizer.json`.
    pub tokenizer: Option<GrantedFile>,
    /// `config.json` as transformers writes it; null where there is none.
    pub config: Json,
    /// `preprocessor_config.json`, likewise.
    pub preprocessor: Json,
    /// `1_Pooling/config.json` of the sentence-transformers, likewise.
    pub pooling: Json,
}

/// The steps of `task` for a model with this signature. `texts` says that it is to work on texts, where it could on both.
///
/// # Errors
/// `task-mismatch` for a model without tensors; `pipeline-unknown` with what was found in the signature and what to write
/// instead.
pub fn default_steps(task: Task, signature: &Signature, beside: &Beside, texts: bool) -> Result<Vec<Step>> {
    if signature.inputs.is_empty() {
        return Err(Error::new("task-mismatch", format!("the model takes no tensors, so it cannot {task}"))
            .help("choose a model that was made for pictures"));
    }
    if task == Task::Embed && texts {
        return embedders::of_texts(signature, beside);
    }
    let picture = Picture::of(signature, beside)
        .ok_or_else(|| unknown(task, signature, "an input of one RGB picture"))?;
    let mut steps = vec![stage("image-decode", Json::Null)];
    match task {
        Task::Detect | Task::Segment => {
            let head = Head::of(signature)
                .ok_or_else(|| unknown(task, signature, "an output [1, 4 + classes, boxes] as YOLOv8 has"))?;
            steps.extend(heads::detector(&picture, &head));
            if task == Task::Segment {
                let masks = heads::masks(&picture, &head);
                steps.push(masks.ok_or_else(|| {
                    unknown(task, signature, "a second output [1, M, height, width] with prototypes of masks")
                })?);
            }
            steps.extend(names::step(signature, beside, head.classes));
        }
        Task::Classify => {
            if let Some(more) = heads::zero_shot(&picture, signature, beside)? {
                steps.extend(more);
                return Ok(steps);
            }
            let classes = heads::classes(signature)
                .ok_or_else(|| unknown(task, signature, "an output [1, classes]"))?;
            steps.extend(heads::classifier(&picture, signature, beside));
            steps.extend(names::step(signature, beside, classes));
        }
        Task::Embed => steps.extend(embedders::of_pictures(&picture, signature, beside)?),
        other => {
            return Err(Error::new(
                "pipeline-unknown",
                format!("there is no usual pipeline for {other} yet"),
            )
            .help("write a [[pipelines]] entry and name it in the model's `pipeline`"));
        }
    }
    Ok(steps)
}

/// The classes that a request names, as a value for the stage that makes tokens of them: for models that know no classes but
/// texts.
///
/// # Errors
/// `invalid-option` for a list of anything else, and one that is too long.
pub fn named_classes(options: &Options) -> Result<Option<Value>> {
    let Some(names) = options.get("names") else { return Ok(None) };
    let wrong = || {
        Error::new("invalid-option", "`labels` must be a list of names")
            .help(format!("name 1 to {MOST_CLASSES} classes, each as a text"))
    };
    let names =
        names.as_array().filter(|names| (1..=MOST_CLASSES).contains(&names.len())).ok_or_else(wrong)?;
    let label = |(class_id, name): (u32, &Json)| {
        name.as_str().map(|name| Label { class_id, score: 0.0, label: Some(name.to_owned()) })
    };
    let labels = (0..).zip(names).map(label).collect::<Option<Vec<_>>>();
    Ok(Some(Value::Labels(labels.ok_or_else(wrong)?)))
}

fn stage(name: &str, options: Json) -> Step {
    Step::Stage(StageStep::new(name, options))
}

/// The size of a dimension, where it is fixed.
const fn size(dim: &Dim) -> Option<u64> {
    match dim {
        Dim::Fixed(n) => Some(*n),
        Dim::Dynamic(_) => None,
    }
}

fn unknown(task: Task, signature: &Signature, wanted: &str) -> Error {
    let ports = |specs: &[TensorSpec]| {
        let one = |s: &TensorSpec| {
            let dims: Vec<String> = s
                .shape
                .iter()
                .map(|d| match d {
                    Dim::Fixed(n) => n.to_string(),
                    Dim::Dynamic(name) => name.clone(),
                })
                .collect();
            format!("{} {}[{}]", s.name, s.dtype, dims.join(", "))
        };
        specs.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    Error::new(
        "pipeline-unknown",
        format!(
            "how to {task} with this model cannot be read from its signature: it takes {}; gives {}; {wanted} was looked for",
            ports(&signature.inputs),
            ports(&signature.outputs)
        ),
    )
    .help(
        "write a [[pipelines]] entry with its steps and name it in the model's `pipeline`:\n\
         [[pipelines]]\nid = \"mine\"\ntask = \"detect\"\nsteps = [{ stage = \"image-decode\" }, { stage = \"letterbox\" }, \
         { stage = \"image-normalize\" }, { model = true }, { stage = \"yolo-decode\" }, { stage = \"nms\" }]",
    )
}

#[cfg(test)]
mod tests;
