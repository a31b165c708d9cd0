//! Turns texts into the tokens of a `tokenizer.json`.

mod batch;
#[cfg(target_arch = "wasm32")]
mod entropy;
mod vocabulary;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use batch::{Batch, Width};
pub use vocabulary::{Vocabulary, Wishes};

/// The stage `tokenize`.
#[derive(Debug)]
pub struct Tokenize {
    vocabulary: Vocabulary,
    template: Option<String>,
    width: Width,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    file: String,
    add_special_tokens: bool,
    parse_special: bool,
    max_length: Option<u32>,
    pad_to: Option<u32>,
    pad_token: Option<String>,
    template: Option<String>,
    dtype: Width,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file: "tokenizer.json".into(),
            add_special_tokens: true,
            parse_special: true,
            max_length: None,
            pad_to: None,
            pad_token: None,
            template: None,
            dtype: Width::I64,
        }
    }
}

/// The most texts of one run.
const MAX_TEXTS: usize = 4096;

impl Stage for Tokenize {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Turns texts into the tokens of a tokenizer.json: byte-level BPE, WordPiece, Unigram, with the special tokens \
             that its model was trained with.",
        )
        .input(Port::optional("text", Kind::Text, "one text"))
        .input(Port::optional("pair", Kind::Text, "a second text for models that compare two, beside `text`"))
        .input(Port::optional("segments", Kind::Segments, "several texts, instead of `text`"))
        .input(Port::optional("labels", Kind::Labels, "names of classes as texts, instead of `text`"))
        .output(Port::optional("tokens", Kind::Tokens, "the tokens of `text`, never filled up"))
        .output(Port::new("input_ids", Kind::Tensor, "the tokens of all texts, [texts, longest], filled up"))
        .output(Port::new("attention_mask", Kind::Tensor, "1 for what is a token, 0 for what fills up"))
        .output(Port::new("token_type_ids", Kind::Tensor, "1 for the second text of a pair, 0 elsewhere"))
        .options(json!({
            "file": {
                "type": "string", "default": defaults.file,
                "description": "which granted file is the tokenizer.json",
            },
            "add_special_tokens": {
                "type": "boolean", "default": defaults.add_special_tokens,
                "description": "whether the tokens that the model expects around a text are added",
            },
            "parse_special": {
                "type": "boolean", "default": defaults.parse_special,
                "description": "whether the name of a special token inside a text becomes that token; otherwise it is text as \
                                any other",
            },
            "max_length": {
                "type": "integer", "minimum": 1,
                "description": "the most tokens of a text, special ones counted: the rest is cut off; as the file says when not \
                                given",
            },
            "pad_to": {
                "type": "integer", "minimum": 1,
                "description": "how long `input_ids` is at least; shorter texts are filled up",
            },
            "pad_token": {
                "type": "string",
                "description": "the token that fills up; as the file says when not given",
            },
            "template": {
                "type": "string",
                "description": "a text with {} in it, into which each text is put: a photo of a {}",
            },
            "dtype": {
                "enum": ["i64", "i32"], "default": "i64",
                "description": "the element type of the tensors",
            },
        }))
    }

    fn create(options: Options, files: Files) -> Result<Self> {
        let Options {
            file,
            add_special_tokens,
            parse_special,
            max_length,
            pad_to,
            pad_token,
            template,
            dtype,
        } = options;
        if template.as_ref().is_some_and(|template| !template.contains("{}")) {
            return Err(Error::invalid_option("`template` has no {} into which a text could be put"));
        }
        let wishes = Wishes { add_special_tokens, parse_special, max_length, pad_to, pad_token };
        let vocabulary = Vocabulary::new(&file, files.get(&file)?, wishes)?;
        Ok(Self { vocabulary, template, width: dtype })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let text = inputs.text_opt("text")?;
        let pair = inputs.text_opt("pair")?;
        let segments = inputs.segments_opt("segments")?;
        let labels = inputs.labels_opt("labels")?;
        let single = text.is_some();
        let texts: Vec<String> = match (text, segments, labels) {
            (Some(text), None, None) => vec![text],
            (None, Some(segments), None) => segments.into_iter().map(|s| s.text).collect(),
            (None, None, Some(labels)) => {
                labels.into_iter().map(|l| l.label.unwrap_or_else(|| l.class_id.to_string())).collect()
            }
            _ => {
                return Err(Error::invalid_input(
                    "one of `text`, `segments` and `labels` is needed, and only one",
                ));
            }
        };
        if texts.len() > MAX_TEXTS {
            return Err(Error::invalid_input(format!(
                "{} texts: at most {MAX_TEXTS} are possible",
                texts.len()
            ))
            .with_help("send fewer at once"));
        }
        if pair.is_some() && !single {
            return Err(Error::invalid_input("`pair` is there without `text`"));
        }
        let mut batch = Batch::default();
        for text in texts {
            let text = match &self.template {
                Some(template) => template.replace("{}", &text),
                None => text,
            };
            batch.push(self.vocabulary.encode(&text, pair.as_deref())?);
        }
        let tokens = if single { batch.only() } else { None };
        let values = batch.tensors(self.vocabulary.padding(), self.width)?;
        Ok(match tokens {
            Some(tokens) => values.with("tokens", tokens),
            None => values,
        })
    }
}

export_stage!(Tokenize);

#[cfg(test)]
mod tests;
