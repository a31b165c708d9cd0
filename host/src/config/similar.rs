//! What requests are compared with by their meaning: examples, and the model that says how near they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::check_routes::Known;
use super::pattern::OneOrMany;
use super::quantity::{Period, Share};
use super::task::Task;
use super::text::Id;
use super::tree::Segment;

/// The most examples of a rule, and the most characters of one: all of them are embedded before the first request is compared.
const MOST_EXAMPLES: usize = 64;
const LONGEST_EXAMPLE: usize = 2000;

/// What the user said last means about the same as one of these examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Similar {
    /// The model that says how near two texts are, by its id: one that makes vectors of texts.
    pub model: Id,
    /// What such requests say: at most 64 texts of at most 2000 characters.
    pub examples: OneOrMany<String>,
    /// How near it must be to one of them, from 0 to 1, in place of `routing.similar.min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Share>,
}

/// How requests are compared with examples, where a rule asks for that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nearness {
    /// How near they must be, from 0 to 1, for a rule that does not say: the cosine of the angle between two vectors.
    pub min: Share,
    /// The longest that a request waits for the model that says so, its load included, and never longer than half of its own
    /// `timeout`; after that the rule is passed over.
    pub wait: Period,
}

impl Default for Nearness {
    fn default() -> Self {
        Self { min: Share::thousandths(750), wait: Period::seconds(5) }
    }
}

/// Reports what of a rule's examples does not fit together.
pub(super) fn check(check: &mut Check<'_>, at: &[Segment], whose: &str, similar: &Similar) {
    let below = |key: &str| [at, &[key.into()]].concat();
    let model = &similar.model;
    match check.config.model(model) {
        Some(model) => {
            let id = &model.id;
            if model.how_many_ways() > 1 {
                let message =
                    format!("{whose}: `{id}` has several ways to run, and vectors of two cannot be compared");
                let help = "make an entry for it with one format, precision, backend and device";
                check.report("config-conflict", &below("model"), message, help);
            }
            if let Some(task) = model.task.filter(|task| !task.covers(Task::Embed)) {
                let message = format!("{whose}: the model `{id}` is for the task `{task}`, not for embed");
                check.report("config-conflict", &below("model"), message, "name a model for `embed`");
            }
        }
        None if check.config.names().any(|name| *name == **model) => {
            let message =
                format!("{whose}: `{model}` is another name, and vectors of two models cannot be compared");
            check.report("config-conflict", &below("model"), message, "name the model itself, by its id");
        }
        None => check.unknown(
            &below("model"),
            "models",
            model,
            &format!("{whose}: there is no model `{model}` to compare with"),
        ),
    }
    let examples = &similar.examples;
    let mut refuse = |what: String, help: &str| {
        check.report("config-invalid-value", &below("examples"), format!("{whose}: {what}"), help);
    };
    if examples.len() > MOST_EXAMPLES {
        let count = examples.len();
        refuse(format!("{count} examples are more than {MOST_EXAMPLES}"), "keep those that differ most");
    }
    if examples.iter().any(|example| example.trim().is_empty()) {
        refuse("one of its `examples` is empty".to_owned(), "take it out");
    }
    if examples.iter().any(|example| example.chars().count() > LONGEST_EXAMPLE) {
        let what = format!("one of its `examples` is longer than {LONGEST_EXAMPLE} characters");
        refuse(what, "shorten it to what matters");
    }
}

/// Reports a model of a rule's examples that was looked at, and cannot say how near they are.
pub(super) fn check_known(check: &mut Check<'_>, known: &dyn Fn(&str) -> Known) {
    let config = check.config;
    for (index, rule) in config.routes.iter().enumerate() {
        let Some(similar) = &rule.when.similar else { continue };
        let (id, known) = (&similar.model, known(&similar.model));
        let at = ["routes".into(), index.into(), "when".into(), "similar".into(), "model".into()];
        if let Some(task) = known.task.filter(|task| !task.covers(Task::Embed)) {
            let message =
                format!("the rule `{}`: the model `{id}` is for the task `{task}`, not for embed", rule.id);
            check.report("config-conflict", &at, message, "name a model for `embed`");
        }
        if let Some(reason) = known.too_large {
            let message = format!("the rule `{}` can never apply: {reason}", rule.id);
            check.report("config-too-large", &at, message, "name a smaller model, or raise `memory.limit`");
        }
    }
}
