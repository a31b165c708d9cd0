//! What a request does with its model, once it has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pajamas_plugin_api::{Cancel, Signature};

use super::setup::Setup;
use super::{Events, Host};
use crate::config::{GrantedFile, Options, Step, Task};
use crate::error::{Error, Result};
use crate::models::{Lease, Spec};
use crate::pipeline::transcribe::{self, Transcriber, Vocabulary};
use crate::pipeline::{Input, Output, Params, Prepared, StepTime, Workshop, text, vision};
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
            Task::Generate | Task::Chat => text::generate(session, signature, input, params, events, cancel),
            Task::Embed => text::embed(session, signature, input, params, most, cancel),
            Task::Rerank => text::rerank(session, signature, input, most, cancel),
            Task::Transcribe => self.transcribe(input, params, cancel, events),
            task => {
                let Input::Values(values) = input else {
                    return Err(Error::new("invalid-input", format!("{task} works on values, not on text")));
                };
                let pipeline = self.pipeline(signature, &params.options)?;
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
            pipeline: &*self.pipeline(&lease.signature, &params.options)?,
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
    fn pipeline(&self, signature: &Signature, options: &Options) -> Result<Arc<Prepared>> {
        let Self { host, setup, task, spec, .. } = self;
        if let Some(pipeline) = setup.pipeline(*task, &spec.id).filter(|_| options.is_empty()) {
            return Ok(pipeline);
        }
        let steps = self.steps(signature)?;
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
            setup.keep(*task, &spec.id, &pipeline);
        }
        Ok(pipeline)
    }

    fn steps(&self, signature: &Signature) -> Result<Vec<Step>> {
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
            None if *task == Task::Transcribe => Ok(transcribe::default_steps(signature)),
            None => vision::default_steps(*task, signature, spec.labels.clone()),
        }
    }
}
