//! The sections of the file that stand many times: models and pipelines.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::isolation::Isolation;
use super::pattern::OneOrMany;
use super::quantity::{ByteSize, Period};
use super::remote::{Cost, Remote};
use super::sections::{Limits, Options};
use super::task::Task;
use super::text::{BackendChoice, DeviceChoice, GrantedFile, Id, LocalPath};

/// A model: a file, an artifact or another server's, with what to do with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What callers name it by; unique.
    pub id: Id,
    /// One line for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Its artifact: a folder with `manifest.json`. Either this, `path` or `remote`.
    #[serde(default)]
    pub artifact: Option<LocalPath>,
    /// A single model file, `.gguf` or `.onnx`, or an artifact folder. Either this, `artifact` or `remote`.
    #[serde(default)]
    pub path: Option<LocalPath>,
    /// A model of another server with OpenAI's API. Either this, `artifact` or `path`.
    #[serde(default)]
    pub remote: Option<Remote>,
    /// What a million of its tokens cost, in whatever money you count; 0 when not set.
    #[serde(default)]
    pub cost: Cost,
    /// What it does; known from the artifact or the file when not set.
    #[serde(default)]
    pub task: Option<Task>,
    /// The pipeline that carries the task out; the task's own when not set.
    #[serde(default)]
    pub pipeline: Option<Id>,
    /// The backend that runs it; of several the one that is predicted to answer first.
    #[serde(default)]
    pub backend: OneOrMany<BackendChoice>,
    /// The device it runs on; of several the one where it is predicted to answer first.
    #[serde(default)]
    pub device: OneOrMany<DeviceChoice>,
    /// Whether it runs in a process of its own.
    #[serde(default)]
    pub isolation: Isolation,
    /// The format to take of an artifact that has several, for example `gguf`; of several that are named the one that is
    /// predicted to answer first.
    #[serde(default)]
    pub format: Option<OneOrMany<String>>,
    /// The precision to take of an artifact that has several, for example `q4_k_m`; several are steps of a ladder, the best
    /// first.
    #[serde(default)]
    pub precision: Option<OneOrMany<String>>,
    /// A file with a Jinja template for conversations, in place of the model's own. It is read when the model is loaded.
    #[serde(default)]
    pub chat_template: Option<LocalPath>,
    /// The backend's options.
    #[serde(default)]
    pub options: Options,
    /// Load it at start rather than at the first request.
    #[serde(default)]
    pub preload: bool,
    /// When it is loaded at start, let it compute something small as well, so that its first request is as fast as the rest.
    #[serde(default)]
    pub warm: bool,
    /// How long it stays in memory after its last request; in place of `memory.ttl`.
    #[serde(default)]
    pub ttl: Option<Period>,
    /// It stays in memory when others need the room, and whatever its `ttl`, once it was loaded.
    #[serde(default)]
    pub pin: bool,
    /// The entry that it is one of the ways to run, where that names several.
    #[serde(skip)]
    pub way_of: Option<Id>,
}

impl Model {
    /// Where it lies: `artifact` or `path`, of which a checked configuration has exactly one unless it has `remote`.
    pub fn location(&self) -> Option<&Path> {
        self.artifact.as_deref().or(self.path.as_deref())
    }
}

/// Stages before a model, the model, stages after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// What models name it by; unique.
    pub id: Id,
    /// One line for people.
    #[serde(default)]
    pub description: Option<String>,
    /// What it carries out.
    pub task: Task,
    /// What is done, in order; exactly one step is the model.
    pub steps: Vec<Step>,
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WrittenStep", into = "WrittenStep")]
#[schemars(with = "WrittenStep")]
pub enum Step {
    /// A WASM component.
    Stage(StageStep),
    /// The model that the pipeline was chosen for.
    Model(Wiring),
}

impl Step {
    /// How the step's ports are connected.
    pub fn wiring(&self) -> &Wiring {
        match self {
            Self::Stage(stage) => &stage.wiring,
            Self::Model(wiring) => wiring,
        }
    }

    /// The stage's name, when it is one.
    pub fn stage(&self) -> Option<&str> {
        match self {
            Self::Stage(stage) => Some(&stage.stage),
            Self::Model(_) => None,
        }
    }
}

/// A stage of a pipeline, with what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageStep {
    /// The stage's name.
    pub stage: String,
    /// Its options, after its own schema.
    pub options: Options,
    /// The files it may read, by the name that the stage knows them by.
    pub files: BTreeMap<String, GrantedFile>,
    /// What it may use, where that differs from `stages.limits`.
    pub limits: StepLimits,
    /// How its ports are connected.
    pub wiring: Wiring,
}

impl StageStep {
    /// A step of this stage with these options, an object: it reads no files, and its ports are connected by their names.
    pub fn new(stage: &str, options: serde_json::Value) -> Self {
        let options = match options {
            serde_json::Value::Object(options) => options,
            _ => Options::new(),
        };
        let (files, limits, wiring) = (BTreeMap::new(), StepLimits::default(), Wiring::default());
        Self { stage: stage.to_owned(), options, files, limits, wiring }
    }
}

/// Which values of the pipeline a step's ports take and give. A port that is not named is connected to the value of
/// its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Input port to the name of the value it takes.
    pub inputs: BTreeMap<String, String>,
    /// Output port to the name of the value it gives.
    pub outputs: BTreeMap<String, String>,
}

impl Wiring {
    /// The value that the input port takes.
    pub fn input<'p>(&'p self, port: &'p str) -> &'p str {
        self.inputs.get(port).map_or(port, String::as_str)
    }

    /// The value that the output port gives.
    pub fn output<'p>(&'p self, port: &'p str) -> &'p str {
        self.outputs.get(port).map_or(port, String::as_str)
    }
}

/// What one run of a stage may use, as far as its step says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepLimits {
    /// In place of `stages.limits.memory`.
    pub memory: Option<ByteSize>,
    /// In place of `stages.limits.deadline`.
    pub deadline: Option<Period>,
    /// In place of `stages.limits.output`.
    pub output: Option<ByteSize>,
}

impl StepLimits {
    /// The step's limits, completed by the defaults.
    pub fn or(self, defaults: Limits) -> Limits {
        Limits {
            memory: self.memory.unwrap_or(defaults.memory),
            deadline: self.deadline.unwrap_or(defaults.deadline),
            output: self.output.unwrap_or(defaults.output),
        }
    }
}

/// A step as it stands in the file: `{ stage = "…", … }` or `{ model = true, … }`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Step")]
struct WrittenStep {
    /// The stage's name. Either this or `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    /// `true`: here the model runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    model: bool,
    /// The stage's options.
    #[serde(skip_serializing_if = "Options::is_empty")]
    options: Options,
    /// The files the stage may read, by the name that the stage knows them by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, GrantedFile>,
    /// What the stage may use, where that differs from `stages.limits`.
    limits: StepLimits,
    /// Input port to value, where the names differ.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    inputs: BTreeMap<String, String>,
    /// Output port to value, where the names differ.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    outputs: BTreeMap<String, String>,
}

impl TryFrom<WrittenStep> for Step {
    type Error = &'static str;

    fn try_from(step: WrittenStep) -> Result<Self, Self::Error> {
        let wiring = Wiring { inputs: step.inputs, outputs: step.outputs };
        match (step.stage, step.model) {
            (Some(stage), false) => {
                let WrittenStep { options, files, limits, .. } = step;
                Ok(Self::Stage(StageStep { stage, options, files, limits, wiring }))
            }
            (None, true) => {
                let plain =
                    step.options.is_empty() && step.files.is_empty() && step.limits == StepLimits::default();
                if plain {
                    Ok(Self::Model(wiring))
                } else {
                    Err(
                        "the model's step has only `inputs` and `outputs`: its options stand in its [[models]] entry",
                    )
                }
            }
            (Some(_), true) => Err("a step is either a stage or the model: remove `stage` or `model`"),
            (None, false) => Err("a step is a stage or the model: write `stage = \"…\"` or `model = true`"),
        }
    }
}

impl From<Step> for WrittenStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Stage(StageStep { stage, options, files, limits, wiring: Wiring { inputs, outputs } }) => {
                Self { stage: Some(stage), model: false, options, files, limits, inputs, outputs }
            }
            Step::Model(Wiring { inputs, outputs }) => {
                Self { model: true, inputs, outputs, ..Self::default() }
            }
        }
    }
}
