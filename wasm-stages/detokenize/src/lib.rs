//! Turns the tokens of a `tokenizer.json` into text.

#[cfg(target_arch = "wasm32")]
mod entropy;
mod times;
mod vocabulary;

use pajamas_stage::{Description, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use times::{Stretch, stretches};
pub use vocabulary::Vocabulary;

/// The stage `detokenize`.
#[derive(Debug)]
pub struct Detokenize {
    vocabulary: Vocabulary,
    skip_special_tokens: bool,
    timestamps: bool,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    file: String,
    skip_special_tokens: bool,
    timestamps: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: "tokenizer.json".into(), skip_special_tokens: true, timestamps: false }
    }
}

impl Stage for Detokenize {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Turns the tokens of a tokenizer.json into text. Whisper's tokens of time become segments.",
        )
        .input(Port::new("tokens", Kind::Tokens, "ids; those that the tokenizer does not know are left out"))
        .output(Port::new("text", Kind::Text, "the text"))
        .output(Port::optional(
            "segments",
            Kind::Segments,
            "the stretches between tokens of time, when there are any; one that has no end ends where it begins",
        ))
        .options(json!({
            "file": {
                "type": "string", "default": defaults.file,
                "description": "which granted file is the tokenizer.json",
            },
            "skip_special_tokens": {
                "type": "boolean", "default": defaults.skip_special_tokens,
                "description": "whether special tokens are left out",
            },
            "timestamps": {
                "type": "boolean", "default": defaults.timestamps,
                "description": "whether tokens of time, as <|1.20|>, stay in `text`",
            },
        }))
    }

    fn create(options: Options, files: Files) -> Result<Self> {
        let Options { file, skip_special_tokens, timestamps } = options;
        let vocabulary = Vocabulary::new(&file, files.get(&file)?)?;
        Ok(Self { vocabulary, skip_special_tokens, timestamps })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let tokens = inputs.tokens("tokens")?;
        let timed: Vec<(u32, Option<f32>)> =
            tokens.into_iter().map(|id| (id, self.vocabulary.time(id))).collect();
        let kept = timed.iter().filter(|(_, time)| self.timestamps || time.is_none()).map(|(id, _)| *id);
        let text = self.vocabulary.decode(kept, self.skip_special_tokens)?;
        let values = Values::new().with("text", text);
        let stretches = stretches(&timed);
        if stretches.is_empty() {
            return Ok(values);
        }
        let segments = stretches
            .into_iter()
            .map(|Stretch { start, end, tokens }| {
                let text = self.vocabulary.decode(tokens.into_iter(), self.skip_special_tokens)?;
                Ok(pajamas_stage::Segment { start, end, text })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(values.with("segments", segments))
    }
}

export_stage!(Detokenize);

#[cfg(test)]
mod tests;
