//! What a prompt wants, found out before the router decides: by the router's own weights, or by stages in the sandbox.

use std::sync::Arc;
use std::time::Instant;

use pajamas_plugin_api::Cancel;

use super::Host;
use super::setup::Setup;
use crate::config::{GrantedFile, Options};
use crate::error::{Error, Result};
use crate::pipeline::{Prepared, Workshop};
use crate::router::{Ask, Intent, Rules};
use crate::value::{Value, Values};

/// The ask with what its prompt wants, where a rule that may apply asks for that and the router's own weights say it: found
/// out once for a request.
pub fn sensed(rules: &Rules, mut ask: Ask) -> Ask {
    let Some(text) = ask.text.as_deref().filter(|_| rules.wants_intent(&ask)) else { return ask };
    let begun = Instant::now();
    let intent = rules.intent(text);
    let took = u64::try_from(begun.elapsed().as_micros()).ok();
    ask.intent = intent.map(|intent| Intent { took, ..intent });
    ask
}

impl Host {
    /// The same, where stages may say it. Blocks as long as these take, which their limits bound.
    pub fn sensed(&self, ask: Ask) -> Ask {
        self.sensed_for(&self.current.get(), ask, &Cancel::new())
    }

    /// The same for a request. Where the stages fail, the rules that ask are passed over, and the decision says why.
    pub(super) fn sensed_for(&self, setup: &Setup, mut ask: Ask, cancel: &Cancel) -> Ask {
        let Some(by) = setup.rules.sensed_by_stages() else { return sensed(&setup.rules, ask) };
        let Some(text) = ask.text.as_deref().filter(|_| setup.rules.wants_intent(&ask)) else { return ask };
        let begun = Instant::now();
        let (label, share, code) = match self.by_stages(setup, text, cancel) {
            Ok((label, share)) => (label, share, None),
            Err(error) => {
                let code = error.code();
                tracing::warn!(code, "rules with an intent are passed over: {}", error.message());
                (String::new(), 0, Some(code.to_owned()))
            }
        };
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        // The rest of its time is for the answer.
        ask.deadline = ask.deadline.map(|deadline| deadline.saturating_sub(took));
        ask.intent = Some(Intent { label, share, by: by.to_owned(), took: Some(took), code });
        ask
    }

    /// The likeliest label, and how sure the stages are of it, in thousandths.
    fn by_stages(&self, setup: &Setup, text: &str, cancel: &Cancel) -> Result<(String, u16)> {
        let steps = &setup.config.routing.intent.steps;
        let stages = match setup.intent.get() {
            Some(stages) => Arc::clone(stages),
            None => {
                let workshop =
                    Workshop { stages: &self.stages, limits: setup.config.stages.limits, read: &granted };
                let made = Arc::new(Prepared::new(steps, &Options::new(), &workshop)?);
                Arc::clone(setup.intent.get_or_init(|| made))
            }
        };
        let values = Values::from_iter([("text".to_owned(), Value::Text(text.to_owned()))]);
        let (mut values, _) = stages.run_stages(0..steps.len(), values, cancel)?;
        let Some(Value::Labels(labels)) = values.take("labels") else {
            return Err(Error::new("pipeline-incomplete", "the steps of `routing.intent` left no `labels`"));
        };
        let likeliest = labels.into_iter().max_by(|a, b| a.score.total_cmp(&b.score));
        let likeliest = likeliest.ok_or_else(|| {
            Error::new("pipeline-incomplete", "the steps of `routing.intent` left no label")
        })?;
        // A share; what a stage says beyond that is no surer.
        let share = (likeliest.score * 1000.0).round().clamp(0.0, 1000.0) as u16;
        Ok((likeliest.label.unwrap_or_else(|| likeliest.class_id.to_string()), share))
    }
}

/// A file that a step grants to its stage. There is no model whose files these could be.
fn granted(file: &GrantedFile) -> Result<Vec<u8>> {
    match file {
        GrantedFile::Local(path) => std::fs::read(&**path).map_err(|error| Error::io(path, &error)),
        GrantedFile::Artifact(name) => {
            let message = format!("`artifact:{name}`: the steps of `routing.intent` belong to no artifact");
            Err(Error::new("invalid-option", message).help("write the path of the file"))
        }
    }
}
