//! `pajamas speak`: say a text.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pajamas_plugin_api::Prompt;
use serde_json::json;

use super::generate::standard_input;
use super::session::Session;
use super::{Global, output};
use crate::artifact::write_whole;
use crate::config::Task;
use crate::error::{Error, Result};
use crate::pipeline::speak::{self, SPEEDS, Speaking};
use crate::pipeline::{Event, Input, Output, Params, Request};

#[derive(Debug, Args)]
pub struct Speak {
    /// What to say; `-` reads it from standard input
    text: String,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// Who speaks, by name or number, of a model with several voices
    #[arg(long, value_name = "NAME")]
    voice: Option<String>,
    /// How fast: 2 takes half as long
    #[arg(long, value_name = "0.25..4", value_parser = speed)]
    speed: Option<f32>,
    /// How the sound is written [default: as the file's name ends, else wav]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Samples a second [default: the voice's own, 24000 for pcm]
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(8000..=192_000))]
    rate: Option<u32>,
    /// The file to write [default: standard output, each sentence as soon as it is spoken]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How sound is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A WAV file
    Wav,
    /// A FLAC file
    Flac,
    /// Bare samples: 16 bits, little-endian
    Pcm,
}

fn speed(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(speed) if SPEEDS.contains(&speed) => Ok(speed),
        _ => Err(format!("a number from {} to {} is needed", SPEEDS.start(), SPEEDS.end())),
    }
}

impl Speak {
    pub fn run(self, global: &Global) -> Result<()> {
        let format = self.format()?;
        if self.output.is_none() {
            if std::io::stdout().is_terminal() {
                return Err(Error::new("invalid-option", "sound is not written to a terminal")
                    .help("name a file with --output, or hand it on: pajamas speak … | aplay"));
            }
            if global.json {
                return Err(Error::new(
                    "invalid-option",
                    "with --json standard output is for what is told of the sound",
                )
                .help("name a file for the sound with --output"));
            }
        }
        let text = if self.text == "-" { standard_input()? } else { self.text };
        let speaking = Speaking { voice: self.voice, speed: self.speed, format, sample_rate: self.rate };
        let session = Session::start(global)?;
        let request = Request {
            task: Task::Speak,
            model: self.model,
            input: Input::Prompt(Prompt::text(text)),
            params: Params { speaking, ..Params::default() },
        };
        let (mut sound, mut broken) = (Vec::new(), None);
        let to_file = self.output.is_some();
        let outcome = session.run(request, &mut |event| {
            let Event::Sound(chunk) = event else { return ControlFlow::Continue(()) };
            if to_file {
                sound.extend_from_slice(&chunk.bytes);
                return ControlFlow::Continue(());
            }
            match output::bytes(&chunk.bytes) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    broken = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(error) = broken {
            return Err(error);
        }
        let Output::Speech(speech) = outcome?.output else {
            return Err(Error::new("internal", "speaking ended without speech"));
        };
        let Some(file) = self.output else { return Ok(()) };
        speak::known_length(format, &mut sound);
        write_whole(&file, |opened| opened.write_all(&sound))?;
        let seconds = (speech.seconds() * 1000.0).round() / 1000.0;
        if global.json {
            return output::json_line(&json!({
                "file": file,
                "format": format.name(),
                "sample_rate": speech.sample_rate,
                "seconds": seconds,
                "sentences": speech.sentences,
                "bytes": sound.len(),
            }));
        }
        output::aside(&format!("{}: {seconds:.1} s\n", file.display()));
        Ok(())
    }

    /// How the sound is written: as was said, or as the file's name says.
    fn format(&self) -> Result<speak::Format> {
        if let Some(format) = self.format {
            return Ok(match format {
                Format::Wav => speak::Format::Wav,
                Format::Flac => speak::Format::Flac,
                Format::Pcm => speak::Format::Pcm,
            });
        }
        let end = self.output.as_ref().and_then(|file| file.extension()).and_then(|end| end.to_str());
        match end.map(str::to_ascii_lowercase).as_deref() {
            None => Ok(speak::Format::Wav),
            Some("raw") => Ok(speak::Format::Pcm),
            Some(end) => speak::Format::of(end).ok_or_else(|| {
                Error::new("format-unsupported", format!("speech is not written as .{end}"))
                    .help("let the file's name end in .wav, .flac or .pcm, or say --format")
            }),
        }
    }
}
