//! Vectors from models that know tensors alone: of pictures, and of texts that a stage makes tokens of.

use pajamas_plugin_api::{Cancel, Prompt, Usage};

use super::work::Work;
use crate::error::{Error, Result};
use crate::pipeline::vision::{EMBEDDING, most_texts};
use crate::pipeline::{Input, Output, Params, StepTime};
use crate::value::{Segment, Tensor, TensorData, Value, Values};

impl Work<'_> {
    /// The vectors of a picture or of texts, each of length 1.
    pub(super) fn embed(
        &self,
        input: Input,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<(Output, Vec<StepTime>)> {
        if params.pooling.is_some() {
            return Err(Error::new(
                "invalid-option",
                "how this model's vectors are pooled is a matter of its pipeline",
            )
            .help("write a [[pipelines]] entry with the stage pool, or leave the pooling out"));
        }
        let session = &*self.lease.session;
        let prompts = match input {
            Input::Values(values) => {
                let pipeline = self.pipeline(&params.options, false)?;
                let (mut values, steps) = pipeline.run(values, session, &self.lease.signature, cancel)?;
                return Ok((Output::Embeddings(vectors(&mut values)?, Usage::default()), steps));
            }
            Input::Texts(prompts) => prompts,
            Input::Prompt(prompt) => vec![prompt],
            Input::Conversation(_) => return Err(Error::new("invalid-input", "texts are needed")),
        };
        let texts = prompts.into_iter().map(text).collect::<Result<Vec<_>>>()?;
        let pipeline = self.pipeline(&params.options, true)?;
        let (mut rows, mut times, mut usage) = (Vec::new(), Vec::new(), Usage::default());
        let mut size = 0;
        for batch in texts.chunks(most_texts(&self.lease.signature)) {
            let mut values = Values::new();
            values.put("segments", Value::Segments(batch.to_vec()));
            let (mut left, steps) = pipeline.run(values, session, &self.lease.signature, cancel)?;
            usage.prompt_tokens = usage.prompt_tokens.saturating_add(tokens(&left));
            let (shape, data) = vectors(&mut left)?.into_parts();
            size = shape.last().copied().unwrap_or(0);
            match data {
                TensorData::F32(data) if shape == [batch.len() as u64, size] => rows.extend_from_slice(&data),
                _ => {
                    let what = format!("`{EMBEDDING}` is {shape:?} for {} texts", batch.len());
                    return Err(Error::new("pipeline-incomplete", what));
                }
            }
            add(&mut times, steps);
        }
        let vectors = Tensor::new(vec![texts.len() as u64, size], TensorData::F32(rows.into()))?;
        Ok((Output::Embeddings(vectors, usage), times))
    }
}

fn text(prompt: Prompt) -> Result<Segment> {
    match prompt {
        Prompt::Text { text, .. } => Ok(Segment { start: 0.0, end: 0.0, text }),
        _ => Err(Error::new("invalid-input", "this model takes texts, and not tokens")
            .help("send the text: a stage makes the tokens that the model knows")),
    }
}

fn vectors(values: &mut Values) -> Result<Tensor> {
    match values.take(EMBEDDING) {
        Some(Value::Tensor(tensor)) => Ok(tensor),
        _ => Err(Error::new("pipeline-incomplete", format!("the pipeline left no tensor `{EMBEDDING}`"))
            .help("give the output of its last stage that name, with `outputs`")),
    }
}

/// How many tokens the texts had, without what filled them up.
fn tokens(values: &Values) -> u32 {
    match values.get("attention_mask") {
        Some(Value::Tensor(mask)) => match mask.data() {
            TensorData::I64(mask) => mask.iter().filter(|counts| **counts != 0).count() as u32,
            TensorData::I32(mask) => mask.iter().filter(|counts| **counts != 0).count() as u32,
            _ => 0,
        },
        _ => 0,
    }
}

/// Adds the times of another batch to those of the same steps.
fn add(times: &mut Vec<StepTime>, more: Vec<StepTime>) {
    if times.len() != more.len() {
        *times = more;
        return;
    }
    for (time, more) in times.iter_mut().zip(more) {
        time.time += more.time;
    }
}
