//! How text is turned into speech: what a caller may say.

/// How fast speech may be asked for, as OpenAI's API has it.
pub const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;

/// The rate of bare samples that say no rate themselves: OpenAI's, which its clients play them with.
const BARE_RATE: u32 = 24_000;

/// How text is turned into speech.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Speaking {
    /// Who speaks, by name or number; the model's first voice when not given.
    pub voice: Option<String>,
    /// How fast: 2 takes half as long; 1 when not given.
    pub speed: Option<f32>,
    /// How the sound is written.
    pub format: Format,
    /// Samples a second; the voice's own when not given, but 24 000 of bare samples.
    pub sample_rate: Option<u32>,
}

/// How sound is written: with 16 bits a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A WAV file.
    #[default]
    Wav,
    /// A FLAC file, which is written when all of it is spoken.
    Flac,
    /// Bare little-endian samples.
    Pcm,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Wav, Self::Flac, Self::Pcm];

    /// The word used by callers and as the end of a file's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Flac => "flac",
            Self::Pcm => "pcm",
        }
    }

    /// The format with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl Speaking {
    /// The rate that the sound is brought to; `None` leaves it as the voice makes it.
    pub fn rate(&self) -> Option<u32> {
        self.sample_rate.or((self.format == Format::Pcm).then_some(BARE_RATE))
    }
}
