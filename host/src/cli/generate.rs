//! `pajamas generate`: continue texts.

use std::io::Read;
use std::ops::ControlFlow;

use clap::Args;
use pajamas_plugin_api::Prompt;
use serde_json::json;

use super::session::Session;
use super::text_options::TextOptions;
use super::{Global, output};
use crate::chat::Part;
use crate::config::Task;
use crate::error::{Error, Result};
use crate::pipeline::{Event, Input, Output, Request};

#[derive(Debug, Args)]
pub struct Generate {
    /// The texts to continue, each on its own; `-` or nothing reads one from standard input
    prompts: Vec<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// Continue these token ids instead of a text
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',', conflicts_with = "prompts")]
    prompt_tokens: Vec<u32>,
    /// Recognise special tokens such as `<|im_end|>` in the text
    #[arg(long)]
    special: bool,
    #[command(flatten)]
    text: TextOptions,
}

impl Generate {
    pub fn run(self, global: &Global) -> Result<()> {
        let prompts = self.prompts()?;
        let session = Session::start(global)?;
        for prompt in prompts {
            let request = Request {
                task: Task::Generate,
                model: self.model.clone(),
                input: Input::Prompt(prompt),
                params: self.text.params(),
            };
            answer(&session, request)?;
        }
        Ok(())
    }

    fn prompts(&self) -> Result<Vec<Prompt>> {
        if !self.prompt_tokens.is_empty() {
            return Ok(vec![Prompt::Tokens(self.prompt_tokens.clone())]);
        }
        let text = |text: String| Prompt::Text { text, add_special: true, parse_special: self.special };
        if self.prompts.is_empty() {
            return Ok(vec![text(standard_input()?)]);
        }
        self.prompts.iter().map(|p| Ok(text(if p == "-" { standard_input()? } else { p.clone() }))).collect()
    }
}

/// All of standard input as text.
pub fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| {
        Error::new("invalid-input", format!("standard input: {e}")).help("it must be UTF-8 text")
    })?;
    Ok(text)
}

/// Carries out a request for text: streams it, or prints one JSON object at its end. Gives the text back. What a model
/// thinks before it answers goes to standard error, for whoever watches.
pub fn answer(session: &Session, request: Request) -> Result<String> {
    let conversation = matches!(request.input, Input::Conversation(_));
    let (mut text, mut reasoning) = (String::new(), String::new());
    let mut tokens = Vec::new();
    let mut logprobs = Vec::new();
    let mut failed = None;
    let mut say = |piece: &str| {
        text.push_str(piece);
        failed = if session.json { None } else { output::piece(piece).err() };
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = session.run(request, &mut |event| {
        match event {
            Event::Token { id, text, logprob, .. } => {
                tokens.push(id);
                logprobs.extend(logprob);
                if !conversation {
                    return say(text);
                }
            }
            Event::Parts(parts) => {
                for part in parts {
                    match part {
                        Part::Content(text) => say(text)?,
                        Part::Reasoning(text) => {
                            reasoning.push_str(text);
                            output::aside(text);
                        }
                        // The command line offers no functions.
                        Part::Call { .. } | Part::Arguments { .. } => {}
                    }
                }
            }
            Event::Route(_) | Event::Loading { .. } | Event::Segment(_) | Event::Sound(_) => {}
        }
        ControlFlow::Continue(())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let outcome = result?;
    let Output::Text(summary) = &outcome.output else {
        return Err(Error::new("internal", "a request for text ended without one"));
    };
    if session.json {
        let mut object = json!({
            "text": text,
            "tokens": tokens,
            "finish_reason": summary.finish_reason,
            "usage": summary.usage,
            "timings": summary.timings,
        });
        if !reasoning.is_empty() {
            object["reasoning"] = json!(reasoning);
        }
        if !logprobs.is_empty() {
            object["logprobs"] = json!(logprobs);
        }
        output::json_line(&object)?;
    } else {
        output::line("")?;
    }
    if session.cancel.is_cancelled() {
        return Err(Error::new("cancelled", "stopped"));
    }
    Ok(text)
}
