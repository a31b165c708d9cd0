//! A loaded model at work.

use std::time::Instant;

use pajamas_plugin_api::{
    Cancel, FinishReason, GenerateRequest, GenerateSummary, Memory, PluginError, Prompt, Result, Session,
    Signature, TextSignature, Timings, Token, TokenEvent, TokenSink, Usage, capability, codes,
};

use crate::model::Bigrams;
use crate::options::Options;

/// Holds no state between requests, so that any number may run at once.
pub struct BigramSession {
    model: Bigrams,
    options: Options,
}

impl BigramSession {
    /// A session over a model.
    pub fn new(model: Bigrams, options: Options) -> Self {
        Self { model, options }
    }

    fn ids(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let words = self.model.words().len();
        match prompt {
            Prompt::Tokens(ids) => match ids.iter().find(|id| **id as usize >= words) {
                Some(id) => Err(PluginError::invalid_input(format!(
                    "token {id} is outside the vocabulary of {words}"
                ))),
                None => Ok(ids.clone()),
            },
            Prompt::Text { text, .. } => text
                .split_whitespace()
                .map(|word| {
                    self.model.id(word, self.options.ignore_case).ok_or_else(|| {
                        PluginError::invalid_input(format!("the model does not know the word {word:?}"))
                            .help("the option `ignore_case` makes it less strict")
                    })
                })
                .collect(),
            _ => Err(PluginError::unsupported("this model", "prompts of this form")),
        }
    }

    fn word(&self, id: u32) -> &str {
        self.model.words().get(id as usize).map_or("", String::as_str)
    }
}

/// How much of `text` may be shown: up to a stop string, which is named, or up to what may become one.
fn cut(text: &str, stops: &[String]) -> (usize, Option<String>) {
    if let Some((at, stop)) =
        stops.iter().filter(|s| !s.is_empty()).filter_map(|s| Some((text.find(s.as_str())?, s))).min()
    {
        return (at, Some(stop.clone()));
    }
    let begins = |at: &usize| stops.iter().any(|s| s.starts_with(&text[*at..]));
    (text.char_indices().map(|(at, _)| at).find(begins).unwrap_or(text.len()), None)
}

impl Session for BigramSession {
    fn signature(&self) -> Signature {
        Signature {
            capabilities: vec![capability::GENERATE.into(), capability::TOKENIZE.into()],
            text: Some(TextSignature {
                architecture: "bigram".into(),
                vocab_size: self.model.words().len() as u32,
                context_length: self.options.context,
                context_train: 2,
                parameters: self.model.words().len() as u64,
                ..TextSignature::default()
            }),
            ..Signature::default()
        }
    }

    fn usage(&self) -> Vec<Memory> {
        vec![self.model.memory()]
    }

    fn generate(
        &self,
        request: &GenerateRequest,
        tokens: &mut dyn TokenSink,
        cancel: &Cancel,
    ) -> Result<GenerateSummary> {
        if let Some(name) = request.options.keys().next() {
            return Err(PluginError::invalid_input(format!("there is no request option `{name}`")));
        }
        let start = Instant::now();
        let prompt = self.ids(&request.prompt)?;
        let (used, context) = (prompt.len(), self.options.context as usize);
        let Some(room) = context.checked_sub(used) else {
            let message = format!("the prompt has {used} words; the context holds {context}");
            return Err(PluginError::new(codes::CONTEXT_LENGTH_EXCEEDED, message)
                .help("shorten the prompt, or raise the option `context`"));
        };
        let most = request.max_tokens.map_or(room, |n| room.min(n as usize));
        let prompt_ms = start.elapsed().as_secs_f64() * 1e3;

        let (mut count, mut stop_string, mut held) = (0, None, String::new());
        let mut last = prompt.last().copied();
        let finish_reason = loop {
            if cancel.is_cancelled() {
                break FinishReason::Cancelled;
            }
            if count == most {
                break FinishReason::Length;
            }
            let Some(id) = last.and_then(|word| self.model.next(word)) else { break FinishReason::Stop };
            (last, count) = (Some(id), count + 1);
            held.push(' ');
            held.push_str(self.word(id));
            let (ready, stop) = cut(&held, &request.stop);
            // The table leaves no choice: each word is certain.
            let logprob = if request.logprobs.is_some() { 0.0 } else { f32::NAN };
            let event = TokenEvent { id, text: &held[..ready], logprob, extras: "" };
            let flow = tokens.token(event);
            if let Some(stop) = stop {
                (stop_string, held) = (Some(stop), String::new());
                break FinishReason::Stop;
            }
            held.drain(..ready);
            if flow.is_break() {
                held.clear();
                break FinishReason::Cancelled;
            }
        };
        if let (Some(id), false) = (last, held.is_empty()) {
            // It might have become a stop string, and did not. The answer is over: a break changes nothing.
            let _ = tokens.token(TokenEvent { id, text: &held, logprob: f32::NAN, extras: "" });
        }
        let decode_ms = start.elapsed().as_secs_f64() * 1e3 - prompt_ms;
        Ok(GenerateSummary {
            finish_reason,
            stop_string,
            usage: Usage { prompt_tokens: used as u32, completion_tokens: count as u32, cached_tokens: 0 },
            timings: Timings { queue_ms: 0.0, prompt_ms, decode_ms },
        })
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<Token>> {
        let token = |id| Token { id, text: self.word(id).to_owned() };
        Ok(self.ids(prompt)?.into_iter().map(token).collect())
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String> {
        let ids = self.ids(&Prompt::Tokens(tokens.to_vec()))?;
        Ok(ids.into_iter().map(|id| self.word(id)).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn stop_strings_are_found_and_their_beginnings_held_back() {
        let stops = ["a b".to_owned(), "xy".to_owned()];
        assert_eq!(cut(" hello", &stops), (6, None));
        assert_eq!(cut(" hello a", &stops), (7, None));
        assert_eq!(cut(" hello a b", &stops), (7, Some("a b".into())));
        assert_eq!(cut(" xy a b", &stops), (1, Some("xy".into())));
        assert_eq!(cut(" é x", &stops), (4, None));
    }
}
