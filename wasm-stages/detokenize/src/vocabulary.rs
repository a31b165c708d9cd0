//! As much of a `tokenizer.json` as turning tokens into text needs: names and the decoder. Merges, by far the larger part,
//! are passed over, because the file is read for each run.

use std::collections::BTreeMap;
use std::fmt;

use pajamas_stage::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::{Decoder, DecoderWrapper};

use crate::times;

/// Seconds between two of Whisper's tokens of time.
const TICK: f64 = 0.02;

/// The last of Whisper's tokens that is no time, and how many times follow: 0 to 30 seconds.
const NO_TIMES: (&str, u32) = ("<|notimestamps|>", 1501);

/// Tokens by their ids, and how they become a text.
#[derive(Debug)]
pub struct Vocabulary {
    names: Names,
    added: BTreeMap<u32, Added>,
    decoder: Option<DecoderWrapper>,
    /// The first of the tokens of time that the file does not list.
    unlisted_times: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    /// Not read at once: of what is not JSON the library makes a panic.
    #[serde(default)]
    decoder: Option<serde_json::Value>,
    model: Model,
}

#[derive(Debug, Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Debug, Deserialize)]
struct Model {
    vocab: Names,
}

impl Vocabulary {
    /// Reads the file `name`.
    ///
    /// # Errors
    /// `tokenizer-invalid` with the reason.
    pub fn new(name: &str, file: &[u8]) -> Result<Self> {
        let unreadable = |error: serde_json::Error| {
            Error::new("tokenizer-invalid", format!("{name} cannot be read: {error}"))
                .with_help("save the tokenizer again with `save_pretrained`, or fetch the file anew")
        };
        let File { added_tokens, decoder, model } = serde_json::from_slice(file).map_err(unreadable)?;
        let decoder = decoder.map(DecoderWrapper::deserialize).transpose().map_err(unreadable)?;
        let no_times = added_tokens.iter().find(|token| token.content == NO_TIMES.0);
        let first = no_times.and_then(|token| token.id.checked_add(1));
        let added: BTreeMap<u32, Added> = added_tokens.into_iter().map(|token| (token.id, token)).collect();
        let unlisted_times = first.filter(|id| !added.contains_key(id) && model.vocab.get(*id).is_none());
        Ok(Self { names: model.vocab, added, decoder, unlisted_times })
    }

    /// The text of tokens; those that are unknown are left out.
    pub fn decode(&self, ids: impl Iterator<Item = u32>, skip_special: bool) -> Result<String> {
        let names = ids.filter_map(|id| match self.added.get(&id) {
            Some(token) => (!(skip_special && token.special)).then(|| token.content.clone()),
            None => self.names.get(id).map(str::to_owned),
        });
        let names: Vec<String> = names.collect();
        match &self.decoder {
            Some(decoder) => decoder.decode(names).map_err(|error| {
                Error::new("tokenizer-invalid", format!("the tokens cannot be turned into text: {error}"))
            }),
            None => Ok(names.join(" ")),
        }
    }

    /// The seconds that a token of Whisper's stands for, if it stands for a time. Some files end with the token before
    /// the first of them.
    pub fn time(&self, id: u32) -> Option<f32> {
        if let Some(first) = self.unlisted_times {
            return id
                .checked_sub(first)
                .filter(|tick| *tick < NO_TIMES.1)
                .map(|tick| (f64::from(tick) * TICK) as f32);
        }
        self.added.get(&id).and_then(|token| times::seconds(&token.content))
    }
}

/// The names of tokens, one after the other in one text.
#[derive(Debug, Default)]
struct Names {
    text: String,
    /// Id, start and end in `text`; sorted by id.
    spans: Vec<(u32, u32, u32)>,
}

impl Names {
    fn get(&self, id: u32) -> Option<&str> {
        let at = self.spans.binary_search_by_key(&id, |span| span.0).ok()?;
        let (_, start, end) = self.spans[at];
        self.text.get(start as usize..end as usize)
    }

    fn push<E: serde::de::Error>(&mut self, id: u32, name: &str) -> Result<(), E> {
        let start = self.text.len();
        self.text.push_str(name);
        let place = |at: usize| u32::try_from(at).map_err(|_| E::custom("more than 4 GB of names"));
        self.spans.push((id, place(start)?, place(self.text.len())?));
        Ok(())
    }

    fn sorted(mut self) -> Self {
        self.spans.sort_unstable();
        self
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tokens with their ids, or a list of tokens with their scores")
    }

    /// As BPE, WordPiece and WordLevel have it.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = Names::default();
        while let Some(Text(name)) = map.next_key()? {
            names.push(map.next_value()?, &name)?;
        }
        Ok(names.sorted())
    }

    /// As Unigram has it: a token's id is its place.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
        let mut names = Names::default();
        let mut id = 0;
        while let Some((Text(name), _)) = seq.next_element::<(Text<'_>, IgnoredAny)>()? {
            names.push(id, &name)?;
            id += 1;
        }
        Ok(names)
    }
}

/// A text, borrowed from the file where it has no escapes.
#[derive(Deserialize)]
struct Text<'t>(#[serde(borrow)] std::borrow::Cow<'t, str>);
