//! `pajamas transcribe`: write down what is said in recordings.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::session::Session;
use super::vision::{each_file, read};
use super::{Global, output};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::pipeline::transcribe::{Listening, Transcript};
use crate::pipeline::{Event, Input, Output, Params, Request, encode};
use crate::value::{Value, Values};

#[derive(Debug, Args)]
pub struct Transcribe {
    /// The recordings; `-` reads one from standard input
    #[arg(required = true)]
    files: Vec<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// How the transcript is written; --json writes OpenAI's `verbose_json`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The language spoken, by code or English name [default: what the first half minute sounds like]
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    /// Translate to English
    #[arg(long)]
    translate: bool,
    /// Words that came before, or names to expect
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// 0 takes the likeliest words and tries others where those are not good enough; above, words are drawn
    #[arg(long, value_name = "0..1", value_parser = temperature)]
    temperature: Option<f32>,
    /// How many beams to follow at temperature 0
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    beam_size: Option<u32>,
    /// How many texts to draw above temperature 0, of which the likeliest is taken
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    best_of: Option<u32>,
    /// Hear each half minute without what was said before
    #[arg(long)]
    no_context: bool,
    /// Makes drawn words repeatable
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// How a transcript is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The words
    #[default]
    Text,
    /// SubRip subtitles
    Srt,
    /// WebVTT subtitles
    Vtt,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("a number from 0 to 1 is needed".to_owned()),
    }
}

impl Transcribe {
    pub fn run(self, global: &Global) -> Result<()> {
        let mut listening = Listening {
            translate: self.translate,
            language: self.language,
            prompt: self.prompt,
            condition_on_previous: !self.no_context,
            beam_size: self.beam_size,
            best_of: self.best_of,
            seed: self.seed,
            ..Listening::default()
        };
        if let Some(temperature) = self.temperature {
            listening.set_temperature(temperature);
        }
        let (model, format, as_json) = (self.model, self.format, global.json);
        let count = self.files.len();
        let session = Session::start(global)?;
        each_file(global, self.files, "recording", |number, name| {
            let params =
                Params { listening: listening.clone(), options: Options::new(), ..Params::default() };
            let values = Values::from_iter([("bytes".to_owned(), Value::Bytes(read(name)?))]);
            let input = Input::Values(values);
            let request = Request { task: Task::Transcribe, model: model.clone(), input, params };
            // Words are written as they come, where nothing else is to be written.
            let flowing = format == Format::Text && !as_json && count == 1;
            let mut page = Page { flowing, begun: false, broken: None };
            let progress = Progress { name, number, count };
            let outcome = session.run(request, &mut |event| match event {
                Event::Segment(segment) => {
                    progress.tell(segment.end);
                    page.write(&segment.text)
                }
                _ => ControlFlow::Continue(()),
            });
            progress.clear();
            if let Some(error) = page.broken {
                return Err(error);
            }
            match outcome.map_err(|error| error.within(name))?.output {
                Output::Transcript(_) if flowing => output::line(""),
                Output::Transcript(transcript) if as_json => {
                    let mut object = json!({ "file": name });
                    if let (Some(object), Some(said)) =
                        (object.as_object_mut(), encode::transcript(&transcript).as_object_mut())
                    {
                        object.append(said);
                    }
                    output::json_line(&object)
                }
                Output::Transcript(transcript) => print(name, &transcript, format, count > 1),
                _ => Err(Error::new("internal", "transcribe ended without a transcript")),
            }
        })
    }
}

fn print(name: &str, transcript: &Transcript, format: Format, named: bool) -> Result<()> {
    match format {
        Format::Text if named => output::line(&format!("{name}: {}", transcript.text)),
        Format::Text => output::line(&transcript.text),
        Format::Srt => output::piece(&transcript.srt()),
        Format::Vtt => output::piece(&transcript.vtt()),
    }
}

/// A text that is written while it is heard.
struct Page {
    flowing: bool,
    begun: bool,
    broken: Option<Error>,
}

impl Page {
    fn write(&mut self, text: &str) -> ControlFlow<()> {
        let text = if self.begun { text } else { text.trim_start() };
        if !self.flowing || text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.begun = true;
        match output::piece(text) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.broken = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}

/// How far a recording is, of how many, where somebody watches and the words themselves do not show it.
struct Progress<'p> {
    name: &'p str,
    number: usize,
    count: usize,
}

impl Progress<'_> {
    fn tell(&self, seconds: f64) {
        if self.count > 1 {
            let Self { name, number, count } = self;
            output::aside(&format!("\r\x1b[K{number}/{count} {name}: {seconds:.0} s"));
        }
    }

    fn clear(&self) {
        if self.count > 1 && std::io::stderr().is_terminal() {
            output::aside("\r\x1b[K");
        }
    }
}
