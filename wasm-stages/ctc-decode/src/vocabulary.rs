//! Token ids to tokens.

use pajamas_stage::{Error, Files, Result};
use serde_json::Value as Json;

/// The most tokens that a vocabulary may have.
const MAX_TOKENS: usize = 1 << 20;

/// The tokens by their ids; ids that the file leaves out have an empty token.
#[derive(Debug)]
pub struct Vocabulary(Vec<String>);

impl Vocabulary {
    /// From the option, or from a granted file.
    ///
    /// Errors: `invalid-option`, `file-not-granted`.
    pub fn find(option: Option<&Json>, file: Option<&str>, files: &Files) -> Result<Self> {
        let granted: Vec<&str> = files.iter().map(|(name, _)| name).collect();
        match (option, file, granted.as_slice()) {
            (Some(_), Some(_), _) => {
                Err(Error::invalid_option("`vocabulary` and `file` are given, and only one can be right"))
            }
            (Some(tokens), None, _) => Self::from_json(tokens),
            (None, Some(name), _) => Self::from_file(name, files),
            (None, None, [name]) => Self::from_file(name, files),
            (None, None, []) => Err(Error::invalid_option("there is no vocabulary")
                .with_help("grant a file such as vocab.json in the stage's `files`, or set `vocabulary`")),
            (None, None, several) => Err(Error::invalid_option("several files are granted")
                .with_help(format!("set `file` to one of {}", several.join(", ")))),
        }
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> &[String] {
        &self.0
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.0.iter().position(|t| t == token).and_then(|id| u32::try_from(id).ok())
    }

    fn from_file(name: &str, files: &Files) -> Result<Self> {
        Self::from_text(files.text(name)?)
            .map_err(|error| Error { message: format!("the file `{name}`: {}", error.message), ..error })
    }

    fn from_text(text: &str) -> Result<Self> {
        if text.trim_start().starts_with('{') {
            let json =
                serde_json::from_str(text).map_err(|e| Error::invalid_option(format!("no JSON: {e}")))?;
            return Self::from_json(&json);
        }
        let token = |(line, text): (usize, &str)| match text.rsplit_once([' ', '\t']) {
            // As sherpa and icefall write it, with the id behind the token.
            Some((token, id)) if id.parse() == Ok(line) => token.to_owned(),
            _ => text.to_owned(),
        };
        Self::of(text.lines().enumerate().map(token).collect())
    }

    fn from_json(json: &Json) -> Result<Self> {
        let wrong = |what: String| Error::invalid_option(what);
        match json {
            Json::Array(tokens) => {
                let token = |token: &Json| token.as_str().map(str::to_owned);
                let tokens =
                    tokens.iter().map(|t| token(t).ok_or_else(|| wrong(format!("{t} is not a token"))));
                Self::of(tokens.collect::<Result<_>>()?)
            }
            Json::Object(ids) => {
                let mut tokens = Vec::new();
                for (token, id) in ids {
                    let at =
                        id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < MAX_TOKENS);
                    let at = at.ok_or_else(|| {
                        wrong(format!("`{token}` has the id {id}: 0 to {MAX_TOKENS} are possible"))
                    })?;
                    if tokens.len() <= at {
                        tokens.resize(at + 1, String::new());
                    }
                    tokens[at].clone_from(token);
                }
                Self::of(tokens)
            }
            other => Err(wrong(format!("the vocabulary is {other}: a list or an object is needed"))),
        }
    }

    fn of(tokens: Vec<String>) -> Result<Self> {
        match tokens.len() {
            0 => Err(Error::invalid_option("there are no tokens in the vocabulary")),
            1..=MAX_TOKENS => Ok(Self(tokens)),
            n => Err(Error::invalid_option(format!("{n} tokens: at most {MAX_TOKENS} are possible"))),
        }
    }
}
