//! A stage that says what a prompt wants by the words in it, for the tests of the router.

// Natively there is nothing that could use it.
#![cfg(target_arch = "wasm32")]

use std::collections::BTreeMap;

use pajamas_stage::{Description, Files, Kind, Label, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

/// Words by what they tell.
struct Intent {
    words: Vec<(String, Vec<String>)>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    words: BTreeMap<String, Vec<String>>,
}

impl Stage for Intent {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Says what a prompt wants by the words in it.",
        )
        .input(Port::new("text", Kind::Text, "the prompt"))
        .output(Port::new("labels", Kind::Labels, "the share of each label among all words that were found"))
        .options(json!({
            "words": {
                "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } },
                "description": "label to words that tell it",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        Ok(Self { words: options.words.into_iter().collect() })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let text = inputs.text("text")?.to_lowercase();
        assert!(!text.contains("break the stage"), "asked to break");
        let found: Vec<usize> = self
            .words
            .iter()
            .map(|(_, words)| words.iter().filter(|w| text.contains(w.as_str())).count())
            .collect();
        let all = found.iter().sum::<usize>().max(1) as f32;
        let labels = (0..).zip(self.words.iter().zip(found)).map(|(class_id, ((name, _), found))| Label {
            class_id,
            score: found as f32 / all,
            label: Some(name.clone()),
        });
        Ok(Values::new().with("labels", labels.collect::<Vec<_>>()))
    }
}

export_stage!(Intent);
