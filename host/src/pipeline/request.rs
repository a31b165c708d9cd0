//! What a caller asks for, and what comes back while it is carried out: the same for CLI and HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use pajamas_plugin_api::{Constraint, GenerateSummary, Prompt, Sampling, Usage};
use serde::Serialize;

use super::speak::{Chunk, Speaking, Speech};
use super::transcribe::{Listening, Segment, Transcript};
use crate::chat::{Conversation, Part};
use crate::config::{Options, Task};
pub use crate::models::Keep;
use crate::value::{Tensor, Values};

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked for.
    pub task: Task,
    /// Which model: an id of the configuration or a path; the task's default when not given.
    pub model: Option<String>,
    /// What it works on.
    pub input: Input,
    /// How.
    pub params: Params,
}

/// What a request works on.
#[derive(Debug, Clone)]
pub enum Input {
    /// A text to continue.
    Prompt(Prompt),
    /// A conversation to answer.
    Conversation(Conversation),
    /// Texts to embed.
    Texts(Vec<Prompt>),
    /// Values for the first stage of a pipeline, for example `bytes` of a picture.
    Values(Values),
}

/// How a request is carried out. What a task does not use is ignored.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// The most tokens to generate.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Log-probabilities wanted, and how many alternatives.
    pub logprobs: Option<u32>,
    /// Goes on past end-of-generation tokens: for measurements.
    pub ignore_eos: bool,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// Among requests that wait for a model, the highest goes first; its key's, or 0, when not given.
    pub priority: Option<i32>,
    /// Pooling of embeddings: `mean`, `cls`, `last`; `rank` scores pairs.
    pub pooling: Option<String>,
    /// Whether embeddings are scaled to length 1.
    pub normalize: bool,
    /// Options for the stages of the pipeline that know them, for example `confidence`.
    pub options: Options,
    /// How speech is turned into text.
    pub listening: Listening,
    /// How text is turned into speech.
    pub speaking: Speaking,
    /// How long the model stays in memory after, from now on.
    pub keep_alive: Option<Keep>,
    /// What only the choice of a model looks at.
    pub hints: Hints,
}

/// What of a request only the choice of a model looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// The request's id, where it has one.
    pub id: Option<String>,
    /// The name of the key that it was sent with.
    pub key: Option<String>,
    /// Its headers that rules look at, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The language that the client prefers, for example `de`.
    pub language: Option<String>,
    /// What the client says about it.
    pub metadata: BTreeMap<String, String>,
    /// The session that it belongs to.
    pub session: Option<String>,
    /// How long the answer may take, where the client said.
    pub deadline: Option<Duration>,
    /// Whether the caller wants the decision told.
    pub trace: bool,
}

impl Params {
    /// For one of several answers to the same question: with a seed of its own where a seed is given.
    #[must_use]
    pub fn for_answer(&self, index: u32) -> Self {
        let mut params = self.clone();
        params.sampling.seed = params.sampling.seed.map(|seed| seed.wrapping_add(index.into()));
        params
    }
}

/// What is told while a request is carried out.
#[derive(Debug)]
pub enum Event<'a> {
    /// The route was chosen.
    Route(&'a Route),
    /// The model is being loaded.
    Loading {
        /// How far, in 0..=1.
        fraction: f32,
        /// What is being done.
        message: &'a str,
    },
    /// A token was generated.
    Token {
        /// Its id.
        id: u32,
        /// The text it adds; may be empty.
        text: &'a str,
        /// Its log-probability, when asked for.
        logprob: Option<f32>,
        /// JSON with more, when asked for.
        extras: &'a str,
    },
    /// Parts of the answer to a conversation, as soon as it is certain what they are.
    Parts(&'a [Part]),
    /// A stretch of speech was written down, and stays as it is.
    Segment(&'a Segment),
    /// Some of what is spoken.
    Sound(&'a Chunk),
}

/// The choice of model, format, backend and device for one request, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The model's id.
    pub model: String,
    /// Why this model.
    pub reason: String,
    /// The format of its file.
    pub format: String,
    /// The backend, `plugin/backend`.
    pub backend: String,
    /// The device.
    pub device: String,
    /// Why not the other backends.
    pub rejected: Vec<crate::plugins::Rejection>,
    /// What led to the model: `asked`, `rule`, `default`, `only`, `path`, or `similar` for one that compares texts for a rule.
    pub by: &'static str,
    /// The rule that applied.
    pub rule: Option<String>,
    /// The model that it would have been.
    pub degraded_from: Option<String>,
    /// What is less about it: `model`, `precision`, `context`, `device`.
    pub degraded: Vec<String>,
    /// The policies that it does not keep, since no model does.
    pub breaks: Vec<String>,
    /// What the other server calls the model, when it runs on one.
    pub remote: Option<String>,
    /// The whole decision as JSON, for a caller who wants it.
    #[serde(skip)]
    pub trace: Option<serde_json::Value>,
}

/// How long one step of a pipeline took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTime {
    /// The stage's name, or `model`.
    pub step: String,
    /// How long.
    pub time: Duration,
}

/// What came out of a request.
#[derive(Debug)]
pub enum Output {
    /// A text was generated; its tokens were told as events.
    Text(GenerateSummary),
    /// Embeddings, f32, [texts, size].
    Embeddings(Tensor, Usage),
    /// The model's score of each pair.
    Scores(Vec<f32>, Usage),
    /// What was said in a recording.
    Transcript(Transcript),
    /// A text was spoken; its sound was told as events.
    Speech(Speech),
    /// All values of the pipeline: those that came in and those that its steps left.
    Values(Values),
}

/// A request carried out.
#[derive(Debug)]
pub struct Outcome {
    /// How it was routed.
    pub route: Route,
    /// What came out.
    pub output: Output,
    /// Where the time went, step by step.
    pub steps: Vec<StepTime>,
}
