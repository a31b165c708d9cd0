//! Turns text into what a voice is given: the ids of its sentences, and the numbers beside them.

mod alphabet;
mod apart;
mod lexicon;
mod numbers;
mod reading;
mod sentences;
mod voice;

use pajamas_stage::{
    Description, Error, Files, Kind, Port, Result, Stage, Tensor, TensorData, Values, export_stage, logging,
};
use serde::Deserialize;
use serde_json::json;

use reading::Reader;
use voice::Voice;

/// The most characters that the option `max_characters` may allow.
const MOST_CHARACTERS: u32 = 1 << 20;
/// How slow and how fast speech may be asked for.
const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;

/// The stage `voice-text`.
#[derive(Debug)]
pub struct VoiceText {
    voice: Voice,
    speaker: i64,
    options: Options,
}

/// The stage's options.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    voice: Option<String>,
    speed: f32,
    max_characters: u32,
    max_sentence: u32,
    unknown: Unknown,
    numbers: bool,
}

/// What becomes of a word that the lexicon lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unknown {
    #[default]
    Refuse,
    Skip,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            voice: None,
            speed: 1.0,
            max_characters: 1 << 16,
            max_sentence: 400,
            unknown: Unknown::Refuse,
            numbers: true,
        }
    }
}

impl Stage for VoiceText {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        let tensor = |name, what| Port::new(name, Kind::Tensor, what);
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Turns text into what a voice is given, sentence by sentence. The voice's own files are granted: `voice.json`, \
             which is piper's VOICE.onnx.json, or `vocab.json`, `config.json` and `tokenizer_config.json` as transformers writes \
             them for VITS and MMS; with them `lexicon.txt` where the voice is given phonemes: a word, a tab or a space, and \
             its phonemes on each line.",
        )
        .input(Port::new("text", Kind::Text, "what is to be said"))
        .output(tensor("ids", "i64 [ids]: those of all sentences, one after the other"))
        .output(tensor("lengths", "i64 [sentences]: how many ids each has"))
        .output(tensor("rate", "i64 [1]: samples a second of what the voice makes"))
        .output(tensor("scales", "f32 [3]: noise scale, length scale and noise of lengths"))
        .output(tensor("noise_scale", "f32 [1]: the first of them"))
        .output(tensor("length_scale", "f32 [1]: the second, which is larger for slower speech"))
        .output(tensor("noise_w", "f32 [1]: the third"))
        .output(tensor("speaker", "i64 [1]: the number of who speaks"))
        .options(json!({
            "voice": {
                "type": ["string", "null"], "default": null,
                "description": "who speaks, by name or number, of a model with several voices; the first when not set",
            },
            "speed": {
                "type": "number", "minimum": SPEEDS.start(), "maximum": SPEEDS.end(), "default": defaults.speed,
                "description": "how fast: 2 takes half as long",
            },
            "max_characters": {
                "type": "integer", "minimum": 1, "maximum": MOST_CHARACTERS, "default": defaults.max_characters,
                "description": "the most characters that a text may have",
            },
            "max_sentence": {
                "type": "integer", "minimum": 20, "maximum": 4000, "default": defaults.max_sentence,
                "description": "a sentence of more characters is said in parts, cut at a comma or between words",
            },
            "unknown": {
                "type": "string", "enum": ["refuse", "skip"], "default": "refuse",
                "description": "what becomes of a word that the lexicon lacks and cannot spell: the text is refused, or the word \
                                left out",
            },
            "numbers": {
                "type": "boolean", "default": defaults.numbers,
                "description": "whether numbers are said as English words, by a voice for English that knows no digits",
            },
        }))
    }

    fn create(options: Options, files: Files) -> Result<Self> {
        if !SPEEDS.contains(&options.speed) {
            return Err(Error::invalid_option(format!(
                "`speed` is {}: {} to {} are possible",
                options.speed,
                SPEEDS.start(),
                SPEEDS.end()
            )));
        }
        if !(1..=MOST_CHARACTERS).contains(&options.max_characters)
            || !(20..=4000).contains(&options.max_sentence)
        {
            return Err(Error::invalid_option(format!(
                "`max_characters` must be 1 to {MOST_CHARACTERS}, and `max_sentence` 20 to 4000"
            )));
        }
        let voice = Voice::read(&files)?;
        let speaker = voice.speakers.number(options.voice.as_deref())?;
        Ok(Self { voice, speaker, options })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let text = inputs.text("text")?;
        let most = self.options.max_characters as usize;
        if text.chars().nth(most).is_some() {
            return Err(Error::new("text-too-long", format!("the text has more than {most} characters"))
                .with_help("say it in parts, or raise the option `max_characters` of the stage voice-text"));
        }
        let parts = sentences::split(&text, self.options.max_sentence as usize);
        if parts.is_empty() {
            return Err(Error::new(
                "text-empty",
                "there is nothing to say: the text has no letter and no digit",
            ));
        }
        let reader = Reader::new(&self.voice, self.options.numbers, self.options.unknown == Unknown::Skip);
        let read = reader.read(&parts)?;
        if !read.left_out.is_empty() {
            logging::warn(&format!("left out, since the voice does not know it: {}", read.left_out));
        }
        let (mut ids, mut lengths) = (Vec::new(), Vec::new());
        for sentence in read.sentences {
            lengths.push(sentence.len() as i64);
            ids.extend(sentence);
        }
        if ids.is_empty() {
            return Err(Error::new(
                "text-empty",
                "there is nothing to say: the voice knows none of the text's characters",
            )
            .with_help("write in the language and the letters that the voice was trained on"));
        }
        let row = |numbers: Vec<i64>| Tensor::new(vec![numbers.len() as u64], TensorData::I64(numbers));
        let scale = |scale: f32| Tensor::f32(vec![1], vec![scale]);
        let [noise, length, noise_w] = self.voice.scales;
        let length = length / self.options.speed;
        Ok(Values::new()
            .with("ids", row(ids)?)
            .with("lengths", row(lengths)?)
            .with("rate", row(vec![self.voice.rate.into()])?)
            .with("scales", Tensor::f32(vec![3], vec![noise, length, noise_w])?)
            .with("noise_scale", scale(noise)?)
            .with("length_scale", scale(length)?)
            .with("noise_w", scale(noise_w)?)
            .with("speaker", row(vec![self.speaker])?))
    }
}

export_stage!(VoiceText);

#[cfg(test)]
mod tests;
