//! `pajamas bench`: how fast a model is on this machine.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use clap::Args;
use pajamas_plugin_api::{Prompt, Sampling};
use serde_json::json;

use super::session::Session;
use super::vision::UNDER_WAY;
use super::{Global, output};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::pipeline::{Input, Output, Params, Request, StepTime};
use crate::value::{Value, Values};

#[derive(Debug, Args)]
pub struct Bench {
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: String,
    /// Measure a vision model on this picture; without it, a text model
    #[arg(long, value_name = "FILE")]
    image: Option<String>,
    /// The task of a vision model
    #[arg(long, default_value = "detect", value_parser = ["detect", "classify"])]
    task: String,
    /// Tokens of the prompt
    #[arg(short = 'p', long, default_value_t = 512)]
    prompt_tokens: u32,
    /// Tokens to generate
    #[arg(short = 'n', long, default_value_t = 64)]
    tokens: u32,
    /// How often
    #[arg(short, long, default_value_t = 5)]
    repeat: u32,
}

impl Bench {
    pub fn run(self, global: &Global) -> Result<()> {
        let session = Session::start(global)?;
        match self.image.clone() {
            Some(image) => self.picture(&session, &image),
            None => self.text(&session),
        }
    }

    /// One repetition to warm up, then the best of the rest: what the machine can do when nothing disturbs it.
    fn repeat<T>(&self, mut once: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
        once()?;
        (0..self.repeat.max(1)).map(|_| once()).collect()
    }

    fn text(&self, session: &Session) -> Result<()> {
        // Different ids each time, so that no cached prefix makes the prompt look fast.
        let mut round = 0;
        let runs = self.repeat(|| {
            round += 1;
            let ids = (0..self.prompt_tokens).map(|i| 10 + (i * 7 + round * 13) % 200).collect();
            let request = Request {
                task: Task::Generate,
                model: Some(self.model.clone()),
                input: Input::Prompt(Prompt::Tokens(ids)),
                params: Params {
                    max_tokens: Some(self.tokens.max(2)),
                    ignore_eos: true,
                    sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                    ..Params::default()
                },
            };
            match session.run(request, &mut |_| ControlFlow::Continue(()))?.output {
                Output::Text(summary) => Ok(summary),
                _ => Err(Error::new("internal", "a request for text ended without one")),
            }
        })?;
        let best = |rates: &mut dyn Iterator<Item = f64>| rates.fold(0.0, f64::max);
        let prompt =
            best(&mut runs.iter().map(|r| f64::from(r.usage.prompt_tokens) / r.timings.prompt_ms * 1e3));
        let decode = best(
            &mut runs
                .iter()
                .map(|r| f64::from(r.usage.completion_tokens.saturating_sub(1)) / r.timings.decode_ms * 1e3),
        );
        if session.json {
            return output::json_line(&json!({
                "model": self.model,
                "prompt_tokens": self.prompt_tokens,
                "tokens": self.tokens,
                "prompt_tokens_per_second": prompt,
                "decode_tokens_per_second": decode,
            }));
        }
        output::line(&format!("prompt  {:>6} tokens  {prompt:>10.1} tokens/s", self.prompt_tokens))?;
        output::line(&format!("decode  {:>6} tokens  {decode:>10.1} tokens/s", self.tokens))
    }

    fn picture(&self, session: &Session, image: &str) -> Result<()> {
        let bytes = std::fs::read(image).map_err(|e| Error::io(image, &e))?;
        let task = if self.task == "classify" { Task::Classify } else { Task::Detect };
        let once = || {
            let mut values = Values::new();
            values.put("bytes", Value::Bytes(bytes.clone()));
            let request = Request {
                task,
                model: Some(self.model.clone()),
                input: Input::Values(values),
                params: Params::default(),
            };
            let started = Instant::now();
            let outcome = session.run(request, &mut |_| ControlFlow::Continue(()))?;
            Ok((started.elapsed(), outcome))
        };
        let runs = self.repeat(once)?;
        let many = self.many(once)?;
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let Some((total, outcome)) = runs.iter().min_by_key(|(total, _)| *total) else { return Ok(()) };
        let (steps, backend) = (&outcome.steps, &outcome.route.backend);
        if session.json {
            let steps: Vec<_> = steps.iter().map(|s| json!({ "step": s.step, "ms": ms(s.time) })).collect();
            return output::json_line(&json!({
                "model": self.model,
                "backend": backend,
                "images_per_second": 1e3 / ms(*total),
                "images_per_second_of_many": many,
                "total_ms": ms(*total),
                "steps": steps,
            }));
        }
        for StepTime { step, time } in steps {
            output::line(&format!("{step:<18} {:>9.2} ms", ms(*time)))?;
        }
        let rate = 1e3 / ms(*total);
        output::line(&format!("{:<18} {:>9.2} ms   {rate:.1} images/s on {backend}", "total", ms(*total)))?;
        output::line(&format!("of many, {UNDER_WAY} at a time: {many:.1} images/s"))
    }

    /// Pictures per second when there are many, which `detect` looks at as it does here.
    fn many<T: Send>(&self, once: impl Fn() -> Result<T> + Sync) -> Result<f64> {
        let each = self.repeat.max(1);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let work = || (0..each).try_for_each(|_| once().map(drop));
            let others: Vec<_> = (0..UNDER_WAY).map(|_| scope.spawn(work)).collect();
            others.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        Ok(f64::from(each) * UNDER_WAY as f64 / started.elapsed().as_secs_f64())
    }
}
