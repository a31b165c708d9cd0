//! What a model's own files say: which tokens steer it, and what text its tokens stand for.
//!
//! `tokenizer.json` belongs to the model as its weights do, so it is read here and not in a stage; what users write goes
//! through the stage `tokenize`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The most bytes that a file beside a model may have: tokenizers of large vocabularies have some ten million.
const MOST_BYTES: u64 = 128 << 20;

/// The tokens of a model of Whisper's kind.
#[derive(Debug)]
pub struct Vocabulary {
    /// Where its `tokenizer.json` lies.
    pub file: PathBuf,
    /// `<|startoftranscript|>`
    pub start: u32,
    /// `<|endoftext|>`: text tokens are below it.
    pub end: u32,
    /// `<|transcribe|>`
    pub transcribe: Option<u32>,
    /// `<|translate|>`
    pub translate: Option<u32>,
    /// `<|startofprev|>`: what follows came before.
    pub previous: Option<u32>,
    /// `<|nospeech|>`
    pub no_speech: Option<u32>,
    /// `<|notimestamps|>`
    pub no_timestamps: Option<u32>,
    /// `<|0.00|>`: all from it on are timestamps, 0.02 s apart.
    pub timestamps: Option<u32>,
    /// The languages it knows, by code; none where it knows only English.
    pub languages: Vec<(String, u32)>,
    /// Tokens that are never said.
    pub suppress: Vec<u32>,
    /// Tokens that are not said first.
    pub begin_suppress: Vec<u32>,
    /// How many steps after its window's beginning the first word may begin.
    pub max_initial: u32,
    /// Tokens that prompt and answer may have together.
    pub context: usize,
    /// The bytes that each token stands for; none for special ones.
    bytes: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    r#type: Option<String>,
    vocab: HashMap<String, u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation {
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
    max_initial_timestamp_index: Option<u32>,
    is_multilingual: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Shape {
    max_target_positions: Option<usize>,
}

impl Vocabulary {
    /// Reads `tokenizer.json`, `generation_config.json` and `config.json` from the first of these folders that has the first.
    ///
    /// # Errors
    /// `tokenizer-missing`; `tokenizer-invalid` for files that are damaged or of another kind of model.
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let Some(folder) = folders.iter().find(|folder| folder.join("tokenizer.json").is_file()) else {
            let tried: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            let message = format!("there is no tokenizer.json in {}", tried.join(", nor in "));
            return Err(Error::new("tokenizer-missing", message)
                .help("put the model's tokenizer.json, generation_config.json and config.json beside it"));
        };
        let file = folder.join("tokenizer.json");
        let tokenizer: Tokenizer = parse(&file)?;
        let generation: Generation = optional(&folder.join("generation_config.json"))?;
        let shape: Shape = optional(&folder.join("config.json"))?;
        Self::of(file, tokenizer, generation, shape)
    }

    fn of(file: PathBuf, tokenizer: Tokenizer, generation: Generation, shape: Shape) -> Result<Self> {
        let invalid = |what: String| {
            Error::new("tokenizer-invalid", format!("{}: {what}", file.display()))
                .help("speech is transcribed by models of Whisper's kind, with their own tokenizer.json")
        };
        if tokenizer.model.r#type.as_deref().is_some_and(|kind| kind != "BPE") {
            return Err(invalid("it is no byte-level BPE".to_owned()));
        }
        let named: HashMap<&str, u32> =
            tokenizer.added_tokens.iter().map(|added| (added.content.as_str(), added.id)).collect();
        let token = |name: &str| {
            let id = named.get(format!("<|{name}|>").as_str());
            id.or_else(|| tokenizer.model.vocab.get(&format!("<|{name}|>"))).copied()
        };
        let needed = |name: &str| token(name).ok_or_else(|| invalid(format!("it has no token <|{name}|>")));
        let (start, end) = (needed("startoftranscript")?, needed("endoftext")?);
        let no_timestamps = token("notimestamps");
        let mut languages: Vec<(String, u32)> = named
            .iter()
            .filter_map(|(content, id)| {
                let word = content.strip_prefix("<|")?.strip_suffix("|>")?;
                let code = matches!(word.len(), 2 | 3) && word.bytes().all(|b| b.is_ascii_lowercase());
                code.then(|| (word.to_owned(), *id))
            })
            .collect();
        languages.sort_by_key(|(_, id)| *id);
        if generation.is_multilingual == Some(false) {
            languages.clear();
        }
        let ids = |ids: Option<Vec<i64>>| -> Vec<u32> {
            ids.unwrap_or_default().into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
        };
        let (transcribe, translate) = (token("transcribe"), token("translate"));
        let (previous, no_speech) = (token("startofprev"), token("nospeech").or_else(|| token("nocaptions")));
        let mut suppress = ids(generation.suppress_tokens);
        suppress.extend(
            [transcribe, translate, previous, token("startoflm"), no_speech, Some(start)]
                .into_iter()
                .flatten(),
        );
        suppress.sort_unstable();
        suppress.dedup();
        let mut begin_suppress = ids(generation.begin_suppress_tokens);
        if begin_suppress.is_empty() {
            begin_suppress.extend(tokenizer.model.vocab.get("\u{120}").copied());
            begin_suppress.push(end);
        }
        Ok(Self {
            start,
            end,
            transcribe,
            translate,
            previous,
            no_speech,
            no_timestamps,
            timestamps: token("0.00").or(no_timestamps.map(|id| id + 1)),
            languages,
            suppress,
            begin_suppress,
            max_initial: generation.max_initial_timestamp_index.unwrap_or(50),
            context: shape.max_target_positions.unwrap_or(448).max(8),
            bytes: bytes(&tokenizer).ok_or_else(|| invalid("its ids are far apart".to_owned()))?,
            file,
        })
    }

    /// The text of tokens, without special ones. Bytes that make no whole character become U+FFFD.
    pub fn text(&self, tokens: &[u32]) -> String {
        let known = tokens.iter().filter_map(|id| self.bytes.get(*id as usize));
        let bytes: Vec<u8> = known.flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The bytes of each token by its id; `None` when ids are so far apart that they are no vocabulary.
fn bytes(tokenizer: &Tokenizer) -> Option<Vec<Vec<u8>>> {
    const MOST_IDS: u32 = 1 << 22;
    let letters = alphabet();
    let decoded = |token: &str| -> Vec<u8> {
        let mut bytes = Vec::with_capacity(token.len());
        for letter in token.chars() {
            match letters.get(&letter) {
                Some(byte) => bytes.push(*byte),
                // A token outside the alphabet stands for itself.
                None => bytes.extend(letter.to_string().bytes()),
            }
        }
        bytes
    };
    let mut table = Vec::new();
    let mut put = |id: u32, bytes: Vec<u8>| {
        if id >= MOST_IDS {
            return None;
        }
        if table.len() <= id as usize {
            table.resize(id as usize + 1, Vec::new());
        }
        table[id as usize] = bytes;
        Some(())
    };
    for (token, id) in &tokenizer.model.vocab {
        put(*id, decoded(token))?;
    }
    for Added { id, content, special } in &tokenizer.added_tokens {
        put(
            *id,
            if *special || content.starts_with("<|") { Vec::new() } else { content.clone().into_bytes() },
        )?;
    }
    Some(table)
}

/// GPT-2's letters for bytes (`bytes_to_unicode` of its `encoder.py`): what is printable stands for itself, the rest for
/// the characters from U+0100 on.
fn alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut letters = HashMap::with_capacity(256);
    for byte in 0..=u8::MAX {
        if printable(byte) {
            letters.insert(char::from(byte), byte);
        } else {
            letters.extend(char::from_u32(next).map(|letter| (letter, byte)));
            next += 1;
        }
    }
    letters
}

fn parse<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T> {
    let bytes = read(file).map_err(|e| Error::io(file, &e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::new("tokenizer-invalid", format!("{}: {e}", file.display())))
}

fn optional<T: for<'a> Deserialize<'a> + Default>(file: &Path) -> Result<T> {
    if file.is_file() { parse(file) } else { Ok(T::default()) }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        ..=MOST_BYTES => Ok(bytes),
        _ => Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes"))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    fn folder(tokenizer: &serde_json::Value) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        dir
    }

    fn tokenizer() -> serde_json::Value {
        let special = |(at, name): (usize, &&str)| json!({ "id": 10 + at, "content": format!("<|{name}|>"), "special": true });
        let names = [
            "endoftext",
            "startoftranscript",
            "en",
            "haw",
            "transcribe",
            "translate",
            "startofprev",
            "nospeech",
            "notimestamps",
            "0.00",
            "0.02",
        ];
        json!({
            "added_tokens": names.iter().enumerate().map(special).collect::<Vec<_>>(),
            "model": { "type": "BPE", "vocab": { "a": 0, "Ġb": 1, "Ã": 2, "©": 3, "Ġ": 4 } },
        })
    }

    /// Text below 5, `<|endoftext|>` 10, timestamps from 19 on.
    pub(in super::super) fn tiny() -> Vocabulary {
        Vocabulary::read(&[folder(&tokenizer()).path().to_owned()]).unwrap()
    }

    #[test]
    fn a_tokenizer_says_which_tokens_steer() {
        let dir = folder(&tokenizer());
        let read = Vocabulary::read(&[dir.path().join("nowhere"), dir.path().to_owned()]).unwrap();
        assert_eq!((read.end, read.start, read.timestamps, read.no_timestamps), (10, 11, Some(19), Some(18)));
        assert_eq!(read.languages, [("en".to_owned(), 12), ("haw".to_owned(), 13)]);
        assert_eq!((read.suppress, read.begin_suppress), (vec![11, 14, 15, 16, 17], vec![4, 10]));
        std::fs::write(
            dir.path().join("generation_config.json"),
            r#"{"is_multilingual":false,"suppress_tokens":[1,-1]}"#,
        )
        .unwrap();
        let english = Vocabulary::read(&[dir.path().to_owned()]).unwrap();
        assert!(english.languages.is_empty() && english.suppress.contains(&1));
    }

    #[test]
    fn tokens_become_bytes_and_bytes_text() {
        let dir = folder(&tokenizer());
        let read = Vocabulary::read(&[dir.path().to_owned()]).unwrap();
        assert_eq!(read.text(&[19, 0, 1, 2, 3, 20, 10, 4_000_000]), "a bé");
        assert_eq!(read.text(&[2]), "\u{fffd}");
    }

    #[test]
    fn what_is_no_tokenizer_of_this_kind_is_refused() {
        let code = |tokenizer: &serde_json::Value| {
            Vocabulary::read(&[folder(tokenizer).path().to_owned()]).unwrap_err().code().to_owned()
        };
        let mut far = tokenizer();
        far["model"]["vocab"]["z"] = json!(u32::MAX);
        for wrong in [
            json!({}),
            json!({ "model": { "vocab": {} } }),
            json!({ "model": { "type": "Unigram", "vocab": {} } }),
            far,
        ] {
            assert_eq!(code(&wrong), "tokenizer-invalid", "{wrong}");
        }
        assert_eq!(Vocabulary::read(&[]).unwrap_err().code(), "tokenizer-missing");
    }
}
