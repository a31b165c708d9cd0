//! What a prompt wants: code, maths, a translation. A small classifier, trained by `models/intent/train.py`.

mod features;
mod weights;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fingerprint;
use crate::config::Step;
use crate::error::Result;
use features::{Form, features};

/// The weights that the host has with it.
const BUILT_IN: &[u8] = include_bytes!("../../../../models/intent/model.safetensors");

/// What a prompt wants, as the classifier says. In whole numbers, which a record does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The likeliest label.
    pub label: String,
    /// Its share among all labels, in thousandths.
    pub share: u16,
    /// The fingerprint of the weights that say so.
    pub by: String,
    /// Microseconds that it took to say, where somebody measured.
    #[serde(default)]
    pub took: Option<u64>,
    /// The code of what kept stages from saying it; then there is no label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Softmax regression over hashed n-grams. Clones share the weights.
#[derive(Debug, Clone)]
pub struct Classifier(Arc<Weights>);

/// What was trained: logit = scale x (weight · features) + bias, for each label.
#[derive(Debug, Clone, PartialEq)]
struct Weights {
    form: Form,
    labels: Vec<String>,
    /// Of one label after the other, for each bucket.
    weights: Vec<i8>,
    scale: Vec<f32>,
    bias: Vec<f32>,
    /// What tells these weights from others.
    fingerprint: String,
}

impl Classifier {
    /// The most bytes of a file.
    pub const LARGEST: usize = weights::LARGEST;

    /// The one that the host has with it.
    ///
    /// # Errors
    /// `intent-model-invalid` if it was damaged when the host was built.
    pub fn built_in() -> Result<Self> {
        Self::new(BUILT_IN)
    }

    /// From the bytes of a file that `models/intent/train.py` wrote.
    ///
    /// # Errors
    /// `intent-model-invalid` with what is wrong.
    pub fn new(file: &[u8]) -> Result<Self> {
        Ok(Self(Arc::new(weights::read(file)?)))
    }

    /// All that a prompt may want.
    pub fn labels(&self) -> &[String] {
        &self.0.labels
    }

    /// What tells these weights from others.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// What a prompt wants.
    pub fn classify(&self, text: &str) -> Intent {
        let logits = self.0.logits(text);
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let all: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        let best = logits.iter().position(|logit| *logit == highest).unwrap_or_default();
        // Of the highest the exponential is 1. More than a thousand thousandths there are not.
        let share = (1000.0 / all).round().clamp(0.0, 1000.0) as u16;
        let label = self.0.labels.get(best).cloned().unwrap_or_default();
        Intent { label, share, by: self.0.fingerprint.clone(), took: None, code: None }
    }
}

/// Who says what prompts want.
#[derive(Debug, Clone)]
pub(super) enum Sense {
    /// Weights, which the router has itself.
    Weights(Classifier),
    /// Stages, which the host runs before it asks the router.
    Stages {
        /// What tells them from others.
        by: String,
    },
}

impl Sense {
    /// Stages, as the configuration has them.
    pub(super) fn stages(steps: &[Step]) -> Self {
        Self::Stages { by: fingerprint(json!(steps).to_string().as_bytes()) }
    }

    /// What tells it from others.
    pub(super) fn by(&self) -> &str {
        match self {
            Self::Weights(classifier) => classifier.fingerprint(),
            Self::Stages { by } => by,
        }
    }
}

impl Weights {
    fn logits(&self, text: &str) -> Vec<f32> {
        let found = features(&self.form, text);
        let rows = self.weights.chunks_exact(1 << self.form.bits);
        let classes = rows.zip(self.scale.iter().zip(&self.bias));
        classes
            .map(|(row, (scale, bias))| {
                let sum: f32 = found.iter().map(|(bucket, value)| f32::from(row[*bucket]) * value).sum();
                sum * scale + bias
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::config::INTENTS;

    #[test]
    fn the_built_in_one_knows_what_the_configuration_may_name() {
        assert_eq!(Classifier::built_in().unwrap().labels(), INTENTS);
    }

    /// The numbers that `train.py` wrote beside the weights.
    #[test]
    fn features_and_logits_are_those_of_the_training() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../../models/intent/golden.json")).unwrap();
        let classifier = Classifier::built_in().unwrap();
        let near = |found: f32, wanted: &Value, off: f64| {
            assert!((f64::from(found) - wanted.as_f64().unwrap()).abs() < off, "{found} and {wanted}");
        };
        let golden = golden.as_array().unwrap();
        assert!(golden.len() >= 6);
        for one in golden {
            let text = one["text"].as_str().unwrap();
            let found: std::collections::BTreeMap<usize, f32> =
                features(&classifier.0.form, text).into_iter().collect();
            assert_eq!(found.len() as u64, one["count"].as_u64().unwrap(), "{text}");
            near(found.values().sum(), &one["sum"], 2e-3);
            for (bucket, value) in one["buckets"].as_object().unwrap() {
                near(found[&bucket.parse().unwrap()], value, 2e-5);
            }
            let logits = classifier.0.logits(text);
            for (found, wanted) in logits.iter().zip(one["logits"].as_array().unwrap()) {
                near(*found, wanted, 2e-3);
            }
        }
    }

    /// What people write, as `models/intent/README.md` scores it: 348 and 345 of 360.
    #[test]
    fn what_people_write_reaches_the_score_of_the_card() {
        macro_rules! held_out {
            ($set:literal: $($label:literal)*) => {
                [$(($label, include_str!(concat!("../../../../models/intent/held-out/", $label, $set)))),*]
            };
        }
        let classifier = Classifier::built_in().unwrap();
        for set in [
            held_out!("-natural.txt": "chat" "code" "maths" "summarising" "tool-use" "translation"),
            held_out!("-fresh.txt": "chat" "code" "maths" "summarising" "tool-use" "translation"),
        ] {
            let (mut right, mut all) = (0, 0);
            for (label, prompts) in set {
                for prompt in prompts.lines().filter(|line| !line.trim().is_empty()) {
                    let logits = classifier.0.logits(&prompt.replace("\\n", "\n"));
                    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
                    right += usize::from(classifier.labels()[best] == label);
                    all += 1;
                }
            }
            assert_eq!(all, 360);
            assert!(right * 1000 >= all * 950, "{right} of {all}");
        }
    }

    #[test]
    fn plain_prompts_are_told_apart() {
        let classifier = Classifier::built_in().unwrap();
        for (text, label) in [
            ("Write a Python function that merges two sorted lists.", "code"),
            ("Translate \"good morning, everyone\" into French.", "translation"),
            ("What is 17% of 340?", "maths"),
        ] {
            let intent = classifier.classify(text);
            assert_eq!(intent.label, label, "{text}: {intent:?}");
            assert!(intent.share > 1000 / 6, "{intent:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_likeliest_label(text in "\\PC{0,3000}") {
            let classifier = Classifier::built_in().unwrap();
            let intent = classifier.classify(&text);
            prop_assert!(classifier.labels().contains(&intent.label) && (166..=1000).contains(&intent.share));
            prop_assert_eq!(classifier.classify(&text), intent);
        }
    }
}
