//! A `tokenizer.json`, read by Hugging Face's own library.

use pajamas_stage::{Error, Result};
use serde::Deserialize;
use serde_json::Value as Json;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{
    Encoding, PaddingDirection, PaddingParams, PaddingStrategy, PostProcessor, Tokenizer, TruncationParams,
};

/// The longest that texts are filled up to, and cut off at.
const MAX_LENGTH: u32 = 1 << 20;

/// How texts become tokens, as far as it is not the file that says it.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Whether the tokens that a model expects around a text are added.
    pub add_special_tokens: bool,
    /// Whether the names of special tokens inside a text become those tokens.
    pub parse_special: bool,
    /// The most tokens of a text.
    pub max_length: Option<u32>,
    /// The fewest that a row of the tensors has.
    pub pad_to: Option<u32>,
    /// The token that fills up.
    pub pad_token: Option<String>,
}

/// What is looked at before the library reads a file, for it panics where these are wrong. All else is passed over.
#[derive(Deserialize)]
struct Described {
    /// Has only to be JSON.
    #[serde(default, rename = "decoder")]
    _decoder: Option<Json>,
    #[serde(default)]
    post_processor: Option<Json>,
}

/// A token that a template puts around texts without saying which it is.
fn undefined(processor: &Json) -> Option<&Json> {
    if let Some(parts) = processor["processors"].as_array() {
        return parts.iter().find_map(undefined);
    }
    let pieces = ["single", "pair"].into_iter().filter_map(|part| processor[part].as_array()).flatten();
    let defined = |id: &Json| id.as_str().is_none_or(|id| processor["special_tokens"][id].is_object());
    pieces.map(|piece| &piece["SpecialToken"]["id"]).find(|id| !defined(id))
}

/// A tokenizer, ready.
#[derive(Debug)]
pub struct Vocabulary {
    tokenizer: Tokenizer,
    add_special_tokens: bool,
    padding: Padding,
}

/// How rows are brought to one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// The token that fills up.
    pub id: u32,
    /// Its type.
    pub type_id: u32,
    /// Whether it is put before the text.
    pub left: bool,
    /// The fewest tokens of a row.
    pub at_least: usize,
    /// Rows are as long as a multiple of it.
    pub multiple_of: usize,
}

/// Names of tokens that fill up, in the order in which they are looked for where the file says nothing.
const PADDINGS: [&str; 5] = ["<pad>", "[PAD]", "<|endoftext|>", "<|end_of_text|>", "</s>"];

impl Vocabulary {
    /// Reads the file `name`.
    ///
    /// # Errors
    /// `tokenizer-invalid` with the reason; `invalid-option` for lengths that cannot be and a token that is not there.
    pub fn new(name: &str, file: &[u8], wishes: Wishes) -> Result<Self> {
        // There are no threads in a stage.
        set_parallelism(false);
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::new("tokenizer-invalid", format!("{name} cannot be read: {error}"))
                .with_help("save the tokenizer again with `save_pretrained`, or fetch the file anew")
        };
        let described: Described = serde_json::from_slice(file).map_err(|error| unreadable(&error))?;
        if let Some(token) = described.post_processor.as_ref().and_then(undefined) {
            return Err(unreadable(&format_args!("its template names {token}, which it does not define")));
        }
        let mut tokenizer = Tokenizer::from_bytes(file).map_err(|error| unreadable(&error))?;
        tokenizer.set_encode_special_tokens(!wishes.parse_special);
        let padding = padding(&tokenizer, &wishes)?;
        // Texts are filled up here, where all of them are known.
        tokenizer.with_padding(None);
        truncate(&mut tokenizer, &wishes)?;
        Ok(Self { tokenizer, add_special_tokens: wishes.add_special_tokens, padding })
    }

    /// The tokens of a text, or of two.
    ///
    /// # Errors
    /// `invalid-option` when so few tokens are allowed that there is no room for a pair.
    pub fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoding> {
        if let (Some(_), Some(truncation)) = (pair, self.tokenizer.get_truncation()) {
            fits(truncation.max_length, special(&self.tokenizer, self.add_special_tokens, true))?;
        }
        let encoded = match pair {
            Some(pair) => self.tokenizer.encode((text, pair), self.add_special_tokens),
            None => self.tokenizer.encode(text, self.add_special_tokens),
        };
        encoded.map_err(|error| {
            Error::new("tokenizer-invalid", format!("the text cannot be tokenized: {error}"))
        })
    }

    /// How rows are brought to one length.
    pub const fn padding(&self) -> Padding {
        self.padding
    }
}

fn padding(tokenizer: &Tokenizer, wishes: &Wishes) -> Result<Padding> {
    let known = tokenizer.get_padding();
    let id = match (&wishes.pad_token, known) {
        (Some(token), _) => tokenizer.token_to_id(token).ok_or_else(|| {
            Error::invalid_option(format!("`pad_token` is {token:?}, which the tokenizer does not know"))
        })?,
        (None, Some(PaddingParams { pad_id, .. })) => *pad_id,
        (None, None) => PADDINGS.iter().find_map(|token| tokenizer.token_to_id(token)).unwrap_or(0),
    };
    let fixed = known.and_then(|padding| match padding.strategy {
        PaddingStrategy::Fixed(length) => u32::try_from(length).ok(),
        PaddingStrategy::BatchLongest => None,
    });
    let at_least = wishes.pad_to.or(fixed).unwrap_or(0);
    let multiple_of = known.and_then(|padding| padding.pad_to_multiple_of).unwrap_or(1).max(1);
    if at_least > MAX_LENGTH || multiple_of > MAX_LENGTH as usize || wishes.pad_to == Some(0) {
        return Err(Error::invalid_option(format!("texts are filled up to 1 to {MAX_LENGTH} tokens")));
    }
    Ok(Padding {
        id,
        type_id: known.map_or(0, |padding| padding.pad_type_id),
        left: known.is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left)),
        at_least: at_least as usize,
        multiple_of,
    })
}

fn truncate(tokenizer: &mut Tokenizer, wishes: &Wishes) -> Result<()> {
    let file = tokenizer.get_truncation().cloned();
    let params = match (wishes.max_length, file) {
        (Some(length), file) => {
            TruncationParams { max_length: length as usize, stride: 0, ..file.unwrap_or_default() }
        }
        (None, Some(file)) => file,
        (None, None) => return Ok(()),
    };
    // The library subtracts without a look at what is left.
    let added = special(tokenizer, wishes.add_special_tokens, false);
    fits(params.max_length, added)?;
    tokenizer.with_truncation(Some(params)).map_err(|error| Error::invalid_option(error.to_string()))?;
    Ok(())
}

/// How many tokens the model expects around a text, or a pair.
fn special(tokenizer: &Tokenizer, wanted: bool, pair: bool) -> usize {
    let added = || tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
    if wanted { added() } else { 0 }
}

fn fits(max_length: usize, added: usize) -> Result<()> {
    if max_length > added && max_length <= MAX_LENGTH as usize {
        return Ok(());
    }
    Err(Error::invalid_option(format!(
        "texts of at most {max_length} tokens: more than the {added} special ones and no more than {MAX_LENGTH} are possible"
    ))
    .with_help("set `max_length`"))
}
