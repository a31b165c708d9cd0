//! Reads text out of the scores of a CTC model.

mod greedy;
mod vocabulary;

use pajamas_stage::{
    Description, Error, Files, Kind, Port, Result, Segment, Stage, Tensor, Values, export_stage,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use greedy::{Heard, best_path};
use vocabulary::Vocabulary;

/// The stage `ctc-decode`.
#[derive(Debug)]
pub struct CtcDecode {
    vocabulary: Vocabulary,
    blank: u32,
    silent: Vec<bool>,
    delimiter: String,
    seconds_per_frame: f64,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    vocabulary: Option<Json>,
    file: Option<String>,
    blank: Json,
    skip: Vec<String>,
    delimiter: String,
    seconds_per_frame: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vocabulary: None,
            file: None,
            blank: "<pad>".into(),
            skip: ["<s>", "</s>", "<pad>", "<unk>"].map(String::from).to_vec(),
            delimiter: "|".into(),
            seconds_per_frame: 0.02,
        }
    }
}

impl Stage for CtcDecode {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Reads text out of the scores of a CTC model, as of the wav2vec 2.0 family: the likeliest token of each frame, \
             repetitions joined, blanks dropped; with the times of the words.",
        )
        .input(Port::new("tensor", Kind::Tensor, "a score for each token in each frame: [T, C] or [1, T, C]"))
        .output(Port::new("text", Kind::Text, "what was said"))
        .output(Port::new("tokens", Kind::Tokens, "the tokens, without blanks and repetitions"))
        .output(Port::new("segments", Kind::Segments, "the words with their times"))
        .options(json!({
            "vocabulary": {
                "oneOf": [
                    { "type": "array", "items": { "type": "string" } },
                    { "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } },
                ],
                "description": "the tokens in order, or token to id",
            },
            "file": {
                "type": "string",
                "description": "which granted file holds the vocabulary: vocab.json, or a token a line (an id may follow it); not \
                                needed when one file is granted",
            },
            "blank": {
                "type": ["string", "integer"], "default": defaults.blank,
                "description": "the blank: a token or its id",
            },
            "skip": {
                "type": "array", "items": { "type": "string" }, "default": defaults.skip,
                "description": "tokens that are no text",
            },
            "delimiter": {
                "type": "string", "default": defaults.delimiter,
                "description": "the token between two words",
            },
            "seconds_per_frame": {
                "type": "number", "exclusiveMinimum": 0, "default": defaults.seconds_per_frame,
                "description": "how long a frame of the model is",
            },
        }))
    }

    fn create(options: Options, files: Files) -> Result<Self> {
        let Options { vocabulary, file, blank, skip, delimiter, seconds_per_frame } = options;
        if !(seconds_per_frame > 0.0 && seconds_per_frame <= 60.0) {
            let what =
                format!("`seconds_per_frame` is {seconds_per_frame}: it must be above 0, and at most 60");
            return Err(Error::invalid_option(what));
        }
        let vocabulary = Vocabulary::find(vocabulary.as_ref(), file.as_deref(), &files)?;
        let blank = match &blank {
            Json::String(token) => vocabulary.id(token).ok_or_else(|| {
                Error::invalid_option(format!("the blank `{token}` is not in the vocabulary"))
                    .with_help("set `blank` to the token that the model was trained with, or to its id")
            })?,
            id => id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                Error::invalid_option(format!("`blank` is {id}: a token or an id is needed"))
            })?,
        };
        let silent = vocabulary.tokens().iter().map(|token| skip.contains(token)).collect();
        Ok(Self { vocabulary, blank, silent, delimiter, seconds_per_frame })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let tensor = inputs.tensor("tensor")?;
        let classes = self.classes(&tensor)?;
        let heard = best_path(&tensor.into_f32()?, classes, self.blank)?;
        let words = self.words(&heard);
        let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let tokens: Vec<u32> = heard.iter().map(|heard| heard.token).collect();
        Ok(Values::new().with("text", text).with("tokens", tokens).with("segments", words))
    }
}

impl CtcDecode {
    /// How many scores a frame has.
    fn classes(&self, tensor: &Tensor) -> Result<usize> {
        let classes = match tensor.shape.as_slice() {
            [_, classes] | [1, _, classes] => usize::try_from(*classes).unwrap_or(0),
            shape => {
                let what = format!("scores of shape {shape:?}: [T, C] or [1, T, C] are possible");
                return Err(Error::invalid_input(what));
            }
        };
        let tokens = self.vocabulary.tokens().len();
        if classes < tokens || classes <= self.blank as usize {
            let what = format!("{classes} scores a frame, for {tokens} tokens and the blank {}", self.blank);
            return Err(
                Error::invalid_input(what).with_help("grant the vocabulary that the model was trained with")
            );
        }
        Ok(classes)
    }

    /// The words between delimiters, each from its first frame to the one after its last.
    fn words(&self, heard: &[Heard]) -> Vec<Segment> {
        let seconds = |frame: usize| (frame as f64 * self.seconds_per_frame) as f32;
        let mut words: Vec<Segment> = Vec::new();
        let mut open = false;
        for Heard { token, first, end } in heard {
            let Some(text) = self.vocabulary.tokens().get(*token as usize) else { continue };
            if *text == self.delimiter {
                open = false;
            } else if !self.silent[*token as usize] {
                match words.last_mut().filter(|_| open) {
                    Some(word) => {
                        word.text.push_str(text);
                        word.end = seconds(*end);
                    }
                    None => {
                        words.push(Segment { start: seconds(*first), end: seconds(*end), text: text.clone() })
                    }
                }
                open = true;
            }
        }
        words
    }
}

export_stage!(CtcDecode);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    const VOCABULARY: [&str; 6] = ["<pad>", "<unk>", "|", "A", "B", "C"];

    fn scores(path: &[usize]) -> Tensor {
        let frame = |token: &usize| {
            (0..6).map(|class| if class == *token { 2.0 } else { -1.0 }).collect::<Vec<f32>>()
        };
        Tensor::f32(vec![1, path.len() as u64, 6], path.iter().flat_map(frame).collect()).unwrap()
    }

    fn run(options: Json, files: Files, tensor: Tensor) -> Result<Values> {
        testing::create::<CtcDecode>(&options, files)?.run(Values::new().with("tensor", tensor))
    }

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<CtcDecode>(
            [("vocab.json", r#"{"<pad>": 0, "A": 1}"#)].into_iter().collect(),
        );
    }

    #[test]
    fn words_and_their_times_are_read() {
        // pad A A pad A unk B | | C pad
        let tensor = scores(&[0, 3, 3, 0, 3, 1, 4, 2, 2, 5, 0]);
        let mut out = run(json!({"vocabulary": VOCABULARY}), Files::default(), tensor).unwrap();
        assert_eq!(out.text("text").unwrap(), "AAB C");
        assert_eq!(out.tokens("tokens").unwrap(), [3, 3, 1, 4, 2, 5]);
        let words = out.segments("segments").unwrap();
        assert_eq!((words[0].start, words[0].end, words[1].start, words[1].end), (0.02, 0.14, 0.18, 0.2));
    }

    #[test]
    fn vocabularies_come_from_options_and_files() {
        let text = |options: Json, files: Files| {
            run(options, files, scores(&[3, 4])).and_then(|mut o| o.text("text"))
        };
        let file = |content: &'static str| -> Files { [("vocab", content)].into_iter().collect() };
        let json = r#"{"C": 5, "B": 4, "A": 3, "|": 2, "<unk>": 1, "<pad>": 0}"#;
        assert_eq!(text(json!({}), file(json)), Ok("AB".into()));
        assert_eq!(text(json!({}), file("<pad>\n<unk>\n|\nA\nB\nC\n")), Ok("AB".into()));
        assert_eq!(text(json!({"blank": "<blk>"}), file("<blk> 0\nx 1\ny 2\nA 3\nB 4\n")), Ok("AB".into()));
        assert_eq!(
            text(json!({"vocabulary": {"<pad>": 0, "q": 3, "r": 4}}), Files::default()),
            Ok("qr".into())
        );
        assert_eq!(text(json!({"vocabulary": ["a"], "blank": 0}), Files::default()), Ok("".into()));
        for (options, content, code) in [
            (json!({}), "", "invalid-option"),
            (json!({}), "{\"A\": -1}", "invalid-option"),
            (json!({}), "{\"A\": 99999999}", "invalid-option"),
            (json!({}), "{broken", "invalid-option"),
            (json!({"blank": "gone"}), json, "invalid-option"),
            (json!({"blank": -1}), json, "invalid-option"),
            (json!({"file": "other"}), json, "file-not-granted"),
            (json!({"vocabulary": ["<pad>"], "file": "vocab"}), json, "invalid-option"),
        ] {
            assert_eq!(text(options.clone(), file(content)).unwrap_err().code, code, "{options} {content}");
        }
    }

    #[test]
    fn scores_that_do_not_fit_are_refused() {
        let refused =
            |tensor| run(json!({"vocabulary": VOCABULARY}), Files::default(), tensor).unwrap_err().code;
        assert_eq!(refused(Tensor::f32(vec![2, 5], vec![0.0; 10]).unwrap()), "invalid-input");
        assert_eq!(refused(Tensor::f32(vec![2, 1, 6], vec![0.0; 12]).unwrap()), "invalid-input");
        assert_eq!(refused(Tensor::f32(vec![1, 6], vec![f32::NAN; 6]).unwrap()), "invalid-input");
    }
}
