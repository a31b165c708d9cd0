//! What a voice's own files say of it.

use pajamas_stage::{Error, Files, Result};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::alphabet::Alphabet;
use crate::lexicon::Lexicon;

/// The most bytes of a file that describes a voice, and of its lexicon.
const MOST_BYTES: usize = 4 << 20;
const MOST_LEXICON: usize = 64 << 20;
/// Samples a second that a voice may make.
const RATES: std::ops::RangeInclusive<u64> = 1000..=384_000;

/// A voice.
#[derive(Debug)]
pub struct Voice {
    pub alphabet: Alphabet,
    pub letters: Letters,
    /// How words are said, where the voice is given phonemes.
    pub lexicon: Option<Lexicon>,
    /// Samples a second.
    pub rate: u32,
    /// Noise, length, and noise of lengths.
    pub scales: [f32; 3],
    pub speakers: Speakers,
    /// Whether it speaks English.
    pub english: bool,
}

/// What the symbols of a voice stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// Phonemes of words.
    Phonemes,
    /// Characters, taken apart as NFD does.
    Apart,
    /// Characters in lower case, and no others than the voice knows.
    Lower {
        /// Romanian's letter is written as the training data has it.
        romanian: bool,
        /// Latin letters are wanted for whatever script.
        latin: bool,
    },
    /// Characters as they are.
    AsTheyAre,
}

/// Who may speak.
#[derive(Debug)]
pub struct Speakers {
    count: i64,
    names: Map<String, Json>,
}

#[derive(Deserialize)]
struct Piper {
    audio: PiperAudio,
    #[serde(default)]
    espeak: PiperEspeak,
    #[serde(default)]
    phoneme_type: Option<String>,
    #[serde(default)]
    inference: PiperScales,
    phoneme_id_map: Map<String, Json>,
    #[serde(default)]
    num_symbols: Option<u64>,
    #[serde(default)]
    num_speakers: Option<u64>,
    #[serde(default)]
    speaker_id_map: Option<Map<String, Json>>,
}

#[derive(Deserialize)]
struct PiperAudio {
    sample_rate: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PiperEspeak {
    voice: String,
}

#[derive(Deserialize)]
#[serde(default)]
struct PiperScales {
    noise_scale: f32,
    length_scale: f32,
    noise_w: f32,
}

impl Default for PiperScales {
    fn default() -> Self {
        Self { noise_scale: 0.667, length_scale: 1.0, noise_w: 0.8 }
    }
}

/// transformers' `config.json` of VITS.
#[derive(Deserialize)]
struct Config {
    sampling_rate: u64,
    #[serde(default)]
    vocab_size: Option<u64>,
    #[serde(default)]
    num_speakers: Option<u64>,
    #[serde(default)]
    noise_scale: Option<f32>,
    #[serde(default)]
    noise_scale_duration: Option<f32>,
    #[serde(default)]
    speaking_rate: Option<f32>,
}

/// transformers' `tokenizer_config.json` of VITS, with its own defaults.
#[derive(Deserialize)]
#[serde(default)]
struct Tokenizer {
    add_blank: bool,
    normalize: bool,
    phonemize: bool,
    is_uroman: bool,
    language: Option<String>,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self { add_blank: true, normalize: true, phonemize: true, is_uroman: false, language: None }
    }
}

impl Voice {
    /// Reads the granted files.
    ///
    /// Errors: `voice-invalid`; `unsupported` for phonemes that come from a program that is not here.
    pub fn read(files: &Files) -> Result<Self> {
        let has = |name: &str| files.iter().any(|(granted, _)| granted == name);
        let lexicon = match has("lexicon.txt") {
            true => Some(Lexicon(text(files, "lexicon.txt", MOST_LEXICON)?.to_owned())),
            false => None,
        };
        match (has("voice.json"), has("vocab.json")) {
            (true, false) => Self::of_piper(parse(files, "voice.json")?, lexicon),
            (false, true) => {
                let tokenizer =
                    if has("tokenizer_config.json") { parse(files, "tokenizer_config.json")? } else { Tokenizer::default() };
                Self::of_vits(&parse(files, "vocab.json")?, parse(files, "config.json")?, tokenizer, lexicon)
            }
            (true, true) => Err(Error::invalid_option(
                "both `voice.json` and `vocab.json` are granted, and only one can be the voice's",
            )),
            (false, false) => Err(Error::invalid_option("neither `voice.json` nor `vocab.json` is granted").with_help(
                "grant piper's VOICE.onnx.json as `voice.json`, or vocab.json, config.json and tokenizer_config.json of a VITS \
                 or MMS voice",
            )),
        }
    }

    fn of_piper(piper: Piper, lexicon: Option<Lexicon>) -> Result<Self> {
        let letters = match piper.phoneme_type.as_deref() {
            Some("text") => Letters::Apart,
            None | Some("espeak") => Letters::Phonemes,
            Some(other) => {
                let what = format!("the voice wants phonemes of the kind {other:?}");
                return Err(Error::new("unsupported", what)
                    .with_help("choose a voice with `phoneme_type` espeak or text"));
            }
        };
        let PiperScales { noise_scale, length_scale, noise_w } = piper.inference;
        Self {
            alphabet: Alphabet::of_piper(&piper.phoneme_id_map, piper.num_symbols)?,
            letters,
            lexicon,
            rate: rate(piper.audio.sample_rate)?,
            scales: [noise_scale, length_scale, noise_w],
            speakers: Speakers::new(piper.num_speakers, piper.speaker_id_map)?,
            english: piper.espeak.voice.starts_with("en"),
        }
        .checked()
    }

    fn of_vits(
        vocabulary: &Map<String, Json>,
        config: Config,
        tokenizer: Tokenizer,
        lexicon: Option<Lexicon>,
    ) -> Result<Self> {
        let language = tokenizer.language.as_deref().unwrap_or_default();
        let letters = match (tokenizer.phonemize, tokenizer.normalize) {
            (true, _) => Letters::Phonemes,
            (false, true) => Letters::Lower { romanian: language == "ron", latin: tokenizer.is_uroman },
            (false, false) => Letters::AsTheyAre,
        };
        let speaking = config.speaking_rate.unwrap_or(1.0);
        Self {
            alphabet: Alphabet::of_vocabulary(vocabulary, config.vocab_size, tokenizer.add_blank)?,
            letters,
            lexicon,
            rate: rate(config.sampling_rate)?,
            scales: [
                config.noise_scale.unwrap_or(0.667),
                1.0 / speaking,
                config.noise_scale_duration.unwrap_or(0.8),
            ],
            speakers: Speakers::new(config.num_speakers, None)?,
            english: language.starts_with("en"),
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        let [noise, length, noise_w] = self.scales;
        if !(length > 0.0 && [noise, length, noise_w].iter().all(|scale| scale.is_finite() && *scale >= 0.0))
        {
            return Err(invalid("its scales are not numbers from 0 up, with a length above 0"));
        }
        if self.letters == Letters::Phonemes && self.lexicon.is_none() {
            return Err(Error::new("lexicon-missing", "the voice is given phonemes, and no lexicon says those of words")
                .with_help(
                    "put a lexicon.txt beside the model, with a word, a tab and its phonemes on each line; or choose a voice \
                     that is given characters: of piper's those with `phoneme_type` text, and MMS",
                ));
        }
        Ok(self)
    }
}

impl Speakers {
    fn new(count: Option<u64>, names: Option<Map<String, Json>>) -> Result<Self> {
        let count = i64::try_from(count.unwrap_or(1).max(1)).unwrap_or(i64::MAX);
        let names = names.unwrap_or_default();
        if let Some((name, _)) =
            names.iter().find(|(_, id)| id.as_i64().is_none_or(|id| !(0..count).contains(&id)))
        {
            return Err(invalid(format!(
                "`speaker_id_map` gives {name:?} no number of its {count} speakers"
            )));
        }
        Ok(Self { count, names })
    }

    /// The number of who was asked for.
    ///
    /// Errors: `voice-unknown` with those that there are.
    pub fn number(&self, asked: Option<&str>) -> Result<i64> {
        let Some(asked) = asked.map(str::trim).filter(|asked| !asked.is_empty() && *asked != "default")
        else {
            return Ok(0);
        };
        if let Some(id) = self.names.get(asked).and_then(Json::as_i64) {
            return Ok(id);
        }
        if let Some(id) = asked.parse().ok().filter(|id| (0..self.count).contains(id)) {
            return Ok(id);
        }
        let shown: Vec<&str> = self.names.keys().take(20).map(String::as_str).collect();
        let more = if self.names.len() > shown.len() { ", …" } else { "" };
        let known = match (shown.is_empty(), self.count) {
            (true, 1) => "it speaks with one voice: leave `voice` out, or say `default`".to_owned(),
            (true, count) => format!("it has the voices 0 to {}", count - 1),
            (false, count) => format!("it has {}{more}, or 0 to {}", shown.join(", "), count - 1),
        };
        let asked: String = asked.chars().take(80).collect();
        Err(Error::new("voice-unknown", format!("the model has no voice {asked:?}")).with_help(known))
    }
}

fn rate(rate: u64) -> Result<u32> {
    u32::try_from(rate)
        .ok()
        .filter(|_| RATES.contains(&rate))
        .ok_or_else(|| invalid(format!("it makes {rate} samples a second: 1000 to 384000 are possible")))
}

fn text<'f>(files: &'f Files, name: &str, most: usize) -> Result<&'f str> {
    let bytes = files.get(name)?;
    if bytes.len() > most {
        return Err(invalid(format!("`{name}` has more than {most} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| invalid(format!("`{name}` is not UTF-8: {e}")))?;
    Ok(text.trim_start_matches('\u{feff}'))
}

fn parse<T: for<'a> Deserialize<'a>>(files: &Files, name: &str) -> Result<T> {
    serde_json::from_str(text(files, name, MOST_BYTES)?).map_err(|e| invalid(format!("`{name}`: {e}")))
}

/// A voice's own files are wrong.
pub fn invalid(what: impl Into<String>) -> Error {
    Error::new("voice-invalid", format!("the voice's files: {}", what.into()))
        .with_help("take the files again from where the voice came from")
}
