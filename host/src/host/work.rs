//! What a request does with its model, once it has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pajamas_plugin_api::Cancel;

use super::setup::Setup;
use super::speak::voice_files;
use super::{Events, Host};
use crate::config::{GrantedFile, LocalPath, Options, Step, Task};
use crate::error::{Error, Result};
use crate::models::{Lease, Spec};
use crate::pipeline::speak;
use crate::pipeline::transcribe::{self, Transcriber, Vocabulary};
use crate::pipeline::vision::{self, Beside};
use crate::pipeline::{Input, Output, Params, Prepared, StepTime, Workshop, text};
use crate::value::{Value, Values};

/// A request that has its model.
pub(super) struct Work<'w> {
    pub(super) host: &'w Host,
    pub(super) setup: &'w Setup,
    pub(super) task: Task,
    pub(super) spec: &'w Spec,
    pub(super) lease: &'w Lease,
}

impl Work<'_> {
    pub(super) fn carry_out(
        &self,
        input: Input,
        params: &Params,
        cancel: &Cancel,
        events: &mut Events<'_>,
    ) -> Result<(Output, Vec<StepTime>)> {
        let (session, signature) = (&*self.lease.session, &self.lease.signature);
        let most = self.setup.config.stages.limits.output.get();
        match self.task {
            Task::Generate | Task::Chat => {
                text::generate(session, signature, input, params, most, events, cancel)
            }
            Task::Embed if signature.inputs.is_empty() => {
                text::embed(session, signature, input, params, most, cancel)
            }
            Task::Embed => self.embed(input, params, cancel),
            Task::Rerank => text::rerank(session, signature, input, most, cancel),
            Task::Transcribe => self.transcribe(input, params, cancel, events),
            Task::Speak => self.speak(input, params, cancel, events),
            task => {
                let Input::Values(mut values) = input else {
                    return Err(Error::new("invalid-input", format!("{task} works on values, not on text")));
                };
                if let Some(classes) = vision::named_classes(&params.options)? {
                    values.put("labels", classes);
                }
                let pipeline = self.pipeline(&params.options, false)?;
                let (values, steps) = pipeline.run(values, session, signature, cancel)?;
                Ok((Output::Values(values), steps))
            }
        }
    }

    fn transcribe(
        &self,
        input: Input,
        params: &Params,
        cancel: &Cancel,
        events: &mut Events<'_>,
    ) -> Result<(Output, Vec<StepTime>)> {
        let Input::Values(values) = input else {
            return Err(Error::new("invalid-input", "a recording is needed, not text"));
        };
        let Self { setup, spec, lease, .. } = self;
        let vocabulary = match setup.vocabulary(&spec.id) {
            Some(vocabulary) => vocabulary,
            None => {
                let vocabulary = Arc::new(Vocabulary::read(&spec.folders())?);
                setup.learn(&spec.id, &vocabulary);
                vocabulary
            }
        };
        let prompt = params.listening.prompt.as_deref().filter(|prompt| !prompt.trim().is_empty());
        let transcriber = Transcriber {
            pipeline: &*self.pipeline(&params.options, false)?,
            vocabulary: &vocabulary,
            session: &*lease.session,
            signature: &lease.signature,
            params: &params.listening,
            prompt: prompt.map_or_else(|| Ok(Vec::new()), |text| self.tokens(text, &vocabulary, cancel))?,
        };
        let (transcript, steps) = transcriber.run(values, events, cancel)?;
        Ok((Output::Transcript(transcript), steps))
    }

    /// The tokens of a user's words, by the stage that reads them.
    fn tokens(&self, text: &str, vocabulary: &Vocabulary, cancel: &Cancel) -> Result<Vec<u32>> {
        let read =
            |_: &GrantedFile| std::fs::read(&vocabulary.file).map_err(|e| Error::io(&vocabulary.file, &e));
        let limits = self.setup.config.stages.limits;
        let workshop = Workshop { stages: &self.host.stages, limits, read: &read };
        let tokenize = Prepared::new(&transcribe::tokenize(), &Options::new(), &workshop)?;
        // Words stand after a space.
        let values = Values::from_iter([("text".to_owned(), Value::Text(format!(" {}", text.trim())))]);
        let (mut values, _) = tokenize.run_stages(0..1, values, cancel)?;
        match values.take("tokens") {
            Some(Value::Tokens(tokens)) => Ok(tokens),
            _ => Err(Error::new("pipeline-incomplete", "the stage tokenize left no `tokens`")),
        }
    }

    /// The pipeline of the model, made once unless the request has options of its own.
    pub(super) fn pipeline(&self, options: &Options, texts: bool) -> Result<Arc<Prepared>> {
        let Self { host, setup, task, spec, .. } = self;
        if let Some(pipeline) = setup.pipeline(*task, texts, &spec.id).filter(|_| options.is_empty()) {
            return Ok(pipeline);
        }
        let steps = self.steps(texts)?;
        let read = |file: &GrantedFile| {
            let path = match file {
                GrantedFile::Artifact(inside) => spec.folder().join(inside),
                GrantedFile::Local(path) => PathBuf::from(path.as_ref() as &Path),
            };
            std::fs::read(&path).map_err(|e| Error::io(&path, &e))
        };
        let workshop = Workshop { stages: &host.stages, limits: setup.config.stages.limits, read: &read };
        let pipeline = Arc::new(Prepared::new(&steps, options, &workshop)?);
        if options.is_empty() {
            setup.keep(*task, texts, &spec.id, &pipeline);
        }
        Ok(pipeline)
    }

    fn steps(&self, texts: bool) -> Result<Vec<Step>> {
        let Self { setup, task, spec, .. } = self;
        match spec.pipeline.as_deref().and_then(|id| setup.config.pipeline(id)) {
            Some(pipeline) if pipeline.task == *task => Ok(pipeline.steps.clone()),
            Some(pipeline) => Err(Error::new(
                "task-mismatch",
                format!(
                    "the pipeline `{}` of `{}` is for {}, not for {task}",
                    &*pipeline.id, spec.id, pipeline.task
                ),
            )),
            None if *task == Task::Transcribe => Ok(transcribe::default_steps(&self.lease.signature)),
            None if *task == Task::Speak => speak::default_steps(&self.lease.signature, voice_files(spec)),
            None => vision::default_steps(*task, &self.lease.signature, &beside(spec), texts),
        }
    }
}

/// What lies beside the model's file, or in the folder above: some exports keep the graphs in a folder of their own.
fn beside(spec: &Spec) -> Beside {
    let folders = [spec.file.parent().unwrap_or(Path::new(".")), spec.folder()];
    let outer = folders[0].parent().filter(|_| folders[0].file_name().is_some_and(|name| name == "onnx"));
    let find =
        |name: &str| folders.into_iter().chain(outer).map(|f| f.join(name)).find(|file| file.is_file());
    let json = |name: &str| {
        let text = find(name).filter(|file| is_small(file)).and_then(|file| std::fs::read(file).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    };
    Beside {
        labels: spec.labels.clone(),
        tokenizer: find("tokenizer.json").map(|file| GrantedFile::Local(LocalPath::new(file))),
        config: json("config.json"),
        preprocessor: json("preprocessor_config.json"),
        pooling: json("1_Pooling/config.json"),
    }
}

/// Whether a file can be one of those that describe a model.
fn is_small(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.len() <= 16 << 20)
}
