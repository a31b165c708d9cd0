//! How speech is turned into text: what a caller may say, with the defaults of OpenAI's `whisper/transcribe.py`.

/// How speech is turned into text.
#[derive(Debug, Clone, PartialEq)]
pub struct Listening {
    /// Translates to English.
    pub translate: bool,
    /// The language spoken, by code or English name; found out from the first window when not given.
    pub language: Option<String>,
    /// Words that came before: names and terms to expect, or the end of an earlier part.
    pub prompt: Option<String>,
    /// Temperatures to try in turn, until the text is good enough; not empty.
    pub temperatures: Vec<f32>,
    /// A text that compresses better than this repeats itself: the next temperature is tried.
    pub compression_ratio: Option<f32>,
    /// A mean log-probability below this is too low: the next temperature is tried.
    pub logprob: Option<f32>,
    /// Where nobody speaks with a higher probability than this, and the log-probability is low, there is no text.
    pub no_speech: Option<f32>,
    /// Whether each window is told what was said before.
    pub condition_on_previous: bool,
    /// Beams to follow at temperature 0.
    pub beam_size: Option<u32>,
    /// Texts to draw above temperature 0, of which the likeliest is taken.
    pub best_of: Option<u32>,
    /// Of the random numbers.
    pub seed: Option<u64>,
    /// Whether times of single words are wanted.
    pub words: bool,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            translate: false,
            language: None,
            prompt: None,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            compression_ratio: Some(2.4),
            logprob: Some(-1.0),
            no_speech: Some(0.6),
            condition_on_previous: true,
            beam_size: None,
            best_of: None,
            seed: None,
            words: false,
        }
    }
}

impl Listening {
    /// One temperature for good; 0 stands for the usual ones, as in OpenAI's API.
    pub fn set_temperature(&mut self, temperature: f32) {
        if temperature > 0.0 {
            self.temperatures = vec![temperature];
        }
    }
}
