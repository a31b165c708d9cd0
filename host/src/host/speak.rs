//! Speaking with a model that a request has.

use std::path::Path;

use pajamas_plugin_api::{Cancel, Prompt};

use super::Events;
use super::work::Work;
use crate::config::{GrantedFile, LocalPath};
use crate::error::{Error, Result};
use crate::models::Spec;
use crate::pipeline::speak::{Files, Speaker, encode};
use crate::pipeline::{Input, Output, Params, Prepared, StepTime, Workshop};
use crate::value::{Value, Values};

/// What transformers writes beside a voice, and the stage reads.
const OF_TRANSFORMERS: [&str; 3] = ["vocab.json", "config.json", "tokenizer_config.json"];

impl Work<'_> {
    pub(super) fn speak(
        &self,
        input: Input,
        params: &Params,
        cancel: &Cancel,
        events: &mut Events<'_>,
    ) -> Result<(Output, Vec<StepTime>)> {
        let Input::Prompt(Prompt::Text { text, .. }) = input else {
            return Err(Error::new("invalid-input", "a text is needed to speak it"));
        };
        let Self { host, setup, lease, .. } = self;
        let speaking = &params.speaking;
        // Who speaks, and how fast, is a matter of the stage that knows the voice.
        let mut options = params.options.clone();
        let voice = speaking.voice.as_deref().filter(|voice| !matches!(voice.trim(), "" | "default"));
        options.extend(voice.map(|voice| ("voice".to_owned(), voice.into())));
        options.extend(
            speaking.speed.filter(|speed| *speed != 1.0).map(|speed| ("speed".to_owned(), speed.into())),
        );
        let limits = setup.config.stages.limits;
        let read = |_: &GrantedFile| Err(Error::new("internal", "what writes sound reads no files"));
        let workshop = Workshop { stages: &host.stages, limits, read: &read };
        let speaker = Speaker {
            pipeline: &*self.pipeline(&options, false)?,
            writer: &Prepared::new(&encode(speaking), &crate::config::Options::new(), &workshop)?,
            session: &*lease.session,
            signature: &lease.signature,
            params: speaking,
            most: limits.output.get(),
        };
        let values = Values::from_iter([("text".to_owned(), Value::Text(text))]);
        let (speech, steps) = speaker.run(values, events, cancel)?;
        Ok((Output::Speech(speech), steps))
    }
}

/// The files of a voice that lie beside its model: piper's have the model's name, those of transformers their own, and may
/// lie in the folder above.
pub(super) fn voice_files(spec: &Spec) -> Files {
    let mut files = Files::new();
    let mut grant = |name: &str, path: &Path| {
        let there = path.is_file();
        if there {
            files.insert(name.to_owned(), GrantedFile::Local(LocalPath::new(path)));
        }
        there
    };
    let named = |end: &str| {
        let mut name = spec.file.clone().into_os_string();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    if !grant("voice.json", &named(".json"))
        && let Some(folder) =
            spec.folders().into_iter().find(|folder| folder.join(OF_TRANSFORMERS[0]).is_file())
    {
        for name in OF_TRANSFORMERS {
            grant(name, &folder.join(name));
        }
    }
    // Several voices may lie in one folder.
    let _ = grant("lexicon.txt", &named(".lexicon.txt"))
        || spec.folders().iter().any(|folder| grant("lexicon.txt", &folder.join("lexicon.txt")));
    files
}
