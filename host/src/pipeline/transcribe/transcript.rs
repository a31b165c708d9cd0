//! What was said, and when.

use pajamas_plugin_api::Usage;

/// What was said in a recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// Whether it is a translation to English.
    pub translated: bool,
    /// The code of the language spoken.
    pub language: String,
    /// Length of the recording in seconds.
    pub duration: f64,
    /// All of it.
    pub text: String,
    /// Its stretches.
    pub segments: Vec<Segment>,
    /// Tokens that the model was given.
    pub prompt_tokens: u32,
    /// Tokens that it wrote, those of rejected tries included.
    pub completion_tokens: u32,
}

/// A stretch of speech, with how sure the model is of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// From 0.
    pub id: u32,
    /// Where its window begins, in hundredths of a second.
    pub seek: u64,
    /// Where it begins, in seconds.
    pub start: f64,
    /// Where it ends, in seconds.
    pub end: f64,
    /// What was said, with the space that parts it from what came before.
    pub text: String,
    /// In the model's tokens, timestamps among them.
    pub tokens: Vec<u32>,
    /// The temperature that its window was accepted at.
    pub temperature: f32,
    /// The mean log-probability of its window's tokens.
    pub avg_logprob: f32,
    /// How much shorter its window's text becomes when it is compressed.
    pub compression_ratio: f32,
    /// How likely it is that nobody speaks in its window.
    pub no_speech_prob: f32,
}

impl Segment {
    /// The mean probability of a token: how sure the model is, in 0..=1.
    pub fn confidence(&self) -> f32 {
        self.avg_logprob.exp().clamp(0.0, 1.0)
    }
}

impl Transcript {
    /// Tokens given and written.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            ..Usage::default()
        }
    }

    /// The segments as subtitles in the SubRip format.
    pub fn srt(&self) -> String {
        let one = |(number, s): (usize, &Segment)| {
            format!(
                "{}\n{} --> {}\n{}\n\n",
                number + 1,
                clock(s.start, ','),
                clock(s.end, ','),
                line(&s.text)
            )
        };
        self.spoken().enumerate().map(one).collect()
    }

    /// The segments as subtitles in the WebVTT format.
    pub fn vtt(&self) -> String {
        let one =
            |s: &Segment| format!("{} --> {}\n{}\n\n", clock(s.start, '.'), clock(s.end, '.'), line(&s.text));
        format!("WEBVTT\n\n{}", self.spoken().map(one).collect::<String>())
    }

    fn spoken(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| !segment.text.trim().is_empty())
    }
}

/// Text of a subtitle: on one line, and without what its formats take for their own arrow.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("-->", "->")
}

/// `01:02:03,456`.
fn clock(seconds: f64, point: char) -> String {
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{:03}", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(texts: &[&str]) -> Transcript {
        let segment = |(id, text): (usize, &&str)| Segment {
            id: id as u32,
            seek: 0,
            start: 3599.5 + id as f64,
            end: 3600.25 + id as f64,
            text: (*text).to_owned(),
            tokens: Vec::new(),
            temperature: 0.0,
            avg_logprob: -0.5,
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
        };
        Transcript { segments: texts.iter().enumerate().map(segment).collect(), ..Transcript::default() }
    }

    #[test]
    fn subtitles_are_numbered_timed_and_on_one_line() {
        let said = transcript(&[" one\ntwo", " ", " a --> b"]);
        assert_eq!(
            said.srt(),
            "1\n00:59:59,500 --> 01:00:00,250\none two\n\n2\n01:00:01,500 --> 01:00:02,250\na -> b\n\n"
        );
        assert!(said.vtt().starts_with("WEBVTT\n\n00:59:59.500 --> 01:00:00.250\none two\n\n"));
        assert_eq!(transcript(&[]).vtt(), "WEBVTT\n\n");
    }
}
