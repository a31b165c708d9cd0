//! What comes back: chunks of a stream, and vectors. Nothing that another server says is believed before it was looked at.

use pajamas_plugin_api::{FinishReason, PluginError, Result, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::{in_stream, invalid};
use crate::chat::Part;
use crate::chat::native::Said;

/// Functions that one answer may call.
const MOST_CALLS: usize = 256;

/// What a chunk adds to the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// A token.
    Token(Said),
    /// A part of the answer to a conversation.
    Part(Part),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Counted>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    index: u32,
    delta: Option<Delta>,
    text: Option<String>,
    finish_reason: Option<String>,
    logprobs: Option<Likely>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    /// As newer servers call it.
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallDelta {
    index: Option<usize>,
    function: Option<FunctionDelta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionDelta {
    name: Option<String>,
    arguments: Option<String>,
}

/// How likely tokens were: of chats in `content`, of texts in lists side by side.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Likely {
    content: Option<Vec<LikelyToken>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LikelyToken {
    token: String,
    logprob: Option<f32>,
    top_logprobs: Option<Vec<LikelyOther>>,
}

/// A token that was likely in the place of another; how likely is passed on as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LikelyOther {
    token: String,
    logprob: Value,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Counted {
    prompt_tokens: u32,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u32>,
}

impl From<Counted> for Usage {
    fn from(counted: Counted) -> Self {
        let cached = counted.prompt_tokens_details.and_then(|details| details.cached_tokens);
        Self {
            prompt_tokens: counted.prompt_tokens,
            completion_tokens: counted.completion_tokens.unwrap_or(0),
            cached_tokens: cached.unwrap_or(0).min(counted.prompt_tokens),
        }
    }
}

/// An answer that is being read.
#[derive(Debug, Default)]
pub struct Answer {
    finish: Option<FinishReason>,
    usage: Option<Counted>,
    /// Tokens that came, for servers that do not count.
    tokens: u32,
    /// The calls so far.
    calls: usize,
}

impl Answer {
    /// Reads the data of one event.
    ///
    /// # Errors
    /// `remote-invalid`; what the server says when it breaks off.
    pub fn read(&mut self, data: &str) -> Result<Vec<Piece>> {
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|e| invalid(format_args!("an event of its stream: {e}")))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(in_stream(&error));
        }
        self.usage = chunk.usage.or(self.usage);
        let mut pieces = Vec::new();
        // One answer was asked for.
        for choice in chunk.choices.unwrap_or_default().into_iter().filter(|choice| choice.index == 0) {
            self.choice(choice, &mut pieces)?;
        }
        Ok(pieces)
    }

    fn choice(&mut self, choice: Choice, pieces: &mut Vec<Piece>) -> Result<()> {
        let Choice { delta, text, finish_reason, logprobs, .. } = choice;
        let mut parts = Vec::new();
        let mut said = text.unwrap_or_default();
        if let Some(Delta { content, reasoning_content, reasoning, refusal, tool_calls }) = delta {
            let words = |text: Option<String>| text.filter(|text| !text.is_empty());
            if let Some(text) = words(reasoning_content).or_else(|| words(reasoning)) {
                said += &text;
                parts.push(Part::Reasoning(text));
            }
            if let Some(text) = words(content).or_else(|| words(refusal)) {
                said += &text;
                parts.push(Part::Content(text));
            }
            for call in tool_calls.unwrap_or_default() {
                self.call(call, &mut said, &mut parts)?;
            }
        }
        let likely = logprobs.map(Likely::tokens).unwrap_or_default();
        let tokens = if likely.is_empty() && !said.is_empty() {
            vec![Said { text: said, logprob: None, extras: String::new() }]
        } else {
            likely
        };
        self.tokens = self.tokens.saturating_add(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        pieces.extend(tokens.into_iter().map(Piece::Token));
        pieces.extend(parts.into_iter().map(Piece::Part));
        if let Some(reason) = finish_reason {
            self.finish = Some(if reason == "length" { FinishReason::Length } else { FinishReason::Stop });
        }
        Ok(())
    }

    fn call(&mut self, call: CallDelta, said: &mut String, parts: &mut Vec<Part>) -> Result<()> {
        let FunctionDelta { name, arguments } = call.function.unwrap_or_default();
        let name = name.filter(|name| !name.is_empty());
        let latest = self.calls.saturating_sub(1);
        let index = call.index.unwrap_or(if name.is_some() { self.calls } else { latest });
        if index == self.calls {
            let Some(name) = name else { return Err(invalid("it calls a function without a name")) };
            if self.calls == MOST_CALLS {
                return Err(invalid(format_args!("it calls more than {MOST_CALLS} functions")));
            }
            self.calls += 1;
            *said += &name;
            parts.push(Part::Call { index, name });
        } else if index > self.calls {
            return Err(invalid(format_args!("its call {index} comes after call {latest}")));
        }
        if let Some(text) = arguments.filter(|text| !text.is_empty()) {
            *said += &text;
            parts.push(Part::Arguments { index, text });
        }
        Ok(())
    }

    /// Whether the server said why it ended.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Why it ended, and what it used.
    pub fn end(&self) -> (FinishReason, Usage) {
        let mut usage = self.usage.map(Usage::from).unwrap_or_default();
        if self.usage.is_none_or(|usage| usage.completion_tokens.is_none()) {
            usage.completion_tokens = self.tokens;
        }
        (self.finish.unwrap_or(FinishReason::Stop), usage)
    }
}

impl Likely {
    fn tokens(self) -> Vec<Said> {
        if let Some(content) = self.content {
            let one = |token: LikelyToken| {
                let top = token.top_logprobs.unwrap_or_default();
                let top = top.into_iter().map(|t| json!({ "text": t.token, "logprob": t.logprob }));
                said(token.token, token.logprob, top.collect())
            };
            return content.into_iter().map(one).collect();
        }
        let mut logprobs = self.token_logprobs.unwrap_or_default().into_iter();
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let token = |text| {
            let top = tops.next().flatten().unwrap_or_default();
            let top = top.into_iter().map(|(text, logprob)| json!({ "text": text, "logprob": logprob }));
            said(text, logprobs.next().flatten(), top.collect())
        };
        self.tokens.unwrap_or_default().into_iter().map(token).collect()
    }
}

fn said(text: String, logprob: Option<f32>, top: Vec<Value>) -> Said {
    let extras = if top.is_empty() { String::new() } else { json!({ "top_logprobs": top }).to_string() };
    Said { text, logprob, extras }
}

#[derive(Debug, Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
    usage: Option<Counted>,
}

#[derive(Debug, Deserialize)]
struct Embedding {
    index: Option<usize>,
    embedding: Vec<f32>,
}

/// Vectors of so many inputs, one after the other, with the length of each.
///
/// # Errors
/// `remote-invalid`.
pub fn embeddings(text: &str, inputs: usize) -> Result<(Vec<f32>, usize, Usage)> {
    let Embeddings { data, usage } =
        serde_json::from_str(text).map_err(|e| invalid(format_args!("its embeddings: {e}")))?;
    if data.len() != inputs {
        return Err(invalid(format_args!("{} embeddings of {inputs} inputs", data.len())));
    }
    let size = data.first().map_or(0, |first| first.embedding.len());
    let mut rows: Vec<Option<Vec<f32>>> = vec![None; inputs];
    for (place, Embedding { index, embedding }) in data.into_iter().enumerate() {
        if embedding.len() != size || size == 0 || !embedding.iter().all(|x| x.is_finite()) {
            return Err(invalid("its embeddings are of different sizes, or hold what is no number"));
        }
        match rows.get_mut(index.unwrap_or(place)) {
            Some(row @ None) => *row = Some(embedding),
            _ => return Err(invalid("two of its embeddings are of one input")),
        }
    }
    Ok((rows.into_iter().flatten().flatten().collect(), size, usage.map(Usage::from).unwrap_or_default()))
}

/// An answer that ends before its end.
pub fn interrupted() -> PluginError {
    PluginError::new(super::fault::INTERRUPTED, "the remote's answer ended before its end")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(text: &str) -> Piece {
        Piece::Token(Said { text: text.into(), logprob: None, extras: String::new() })
    }

    fn code<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().code
    }

    #[test]
    fn a_chat_comes_in_parts() {
        let mut answer = Answer::default();
        let first = answer.read(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#);
        assert_eq!(first.unwrap(), []);
        let thought = answer.read(r#"{"choices":[{"delta":{"reasoning":"hm"}}],"usage":null}"#).unwrap();
        assert_eq!(thought, [token("hm"), Piece::Part(Part::Reasoning("hm".into()))]);
        let said =
            answer.read(r#"{"choices":[{"delta":{"content":"Yes"}},{"index":1,"delta":{"content":"No"}}]}"#);
        assert_eq!(said.unwrap(), [token("Yes"), Piece::Part(Part::Content("Yes".into()))]);
        assert!(!answer.is_finished());
        answer.read(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#).unwrap();
        assert_eq!(answer.end(), (FinishReason::Length, Usage { completion_tokens: 2, ..Usage::default() }));
        let counted = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#;
        answer.read(counted).unwrap();
        let usage = Usage { prompt_tokens: 9, completion_tokens: 5, cached_tokens: 4 };
        assert_eq!(answer.end().1, usage);
    }

    #[test]
    fn calls_are_told_in_their_order() {
        let chunk = |call: Value| json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }).to_string();
        let mut answer = Answer::default();
        let parts = |pieces: Vec<Piece>| -> Vec<Part> {
            let part = |piece| if let Piece::Part(part) = piece { Some(part) } else { None };
            pieces.into_iter().filter_map(part).collect()
        };
        let begun = chunk(json!({ "index": 0, "id": "x", "function": { "name": "f", "arguments": "" } }));
        assert_eq!(parts(answer.read(&begun).unwrap()), [Part::Call { index: 0, name: "f".into() }]);
        let more = chunk(json!({ "index": 0, "function": { "arguments": "{}" } }));
        assert_eq!(parts(answer.read(&more).unwrap()), [Part::Arguments { index: 0, text: "{}".into() }]);
        let whole = chunk(json!({ "function": { "name": "g", "arguments": "1" } }));
        assert_eq!(parts(answer.read(&whole).unwrap())[0], Part::Call { index: 1, name: "g".into() });
        for wrong in [json!({ "index": 7, "function": { "name": "h" } }), json!({ "index": 2 })] {
            assert_eq!(code(answer.read(&chunk(wrong))), "remote-invalid");
        }
    }

    #[test]
    fn how_likely_tokens_were_is_read_in_both_forms() {
        let chat = r#"{"choices":[{"delta":{"content":"ab"},"logprobs":{"content":[
            {"token":"a","logprob":-0.5,"top_logprobs":[{"token":"a","logprob":-0.5}]},{"token":"b","logprob":-1}]}}]}"#;
        let pieces = Answer::default().read(chat).unwrap();
        let extras = r#"{"top_logprobs":[{"text":"a","logprob":-0.5}]}"#.to_owned();
        assert_eq!(pieces[0], Piece::Token(Said { text: "a".into(), logprob: Some(-0.5), extras }));
        assert_eq!(pieces.len(), 3);
        let text = r#"{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[-0.5],"top_logprobs":[{"a":-0.5}]}}]}"#;
        assert_eq!(Answer::default().read(text).unwrap(), pieces[..1]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for garbage in ["", "hello", "[1]", "{\"choices\":7}", "{\"choices\":[{\"delta\":{\"content\":1}}]}"]
        {
            assert_eq!(code(Answer::default().read(garbage)), "remote-invalid", "{garbage}");
        }
        let broken = Answer::default().read(r#"{"error":{"message":"out of memory"}}"#).unwrap_err();
        assert_eq!(
            (broken.code.as_str(), broken.message.contains("out of memory")),
            ("remote-unavailable", true)
        );
    }

    #[test]
    fn vectors_are_put_in_the_order_of_their_inputs() {
        let text = r#"{"data":[{"index":1,"embedding":[3,4]},{"index":0,"embedding":[1,2]}],"usage":{"prompt_tokens":2}}"#;
        let (rows, size, usage) = embeddings(text, 2).unwrap();
        assert_eq!((rows, size, usage.prompt_tokens), (vec![1.0, 2.0, 3.0, 4.0], 2, 2));
        for wrong in [
            "{}",
            r#"{"data":[]}"#,
            r#"{"data":[{"embedding":[1]},{"embedding":[1,2]}]}"#,
            r#"{"data":[{"embedding":[]},{"embedding":[]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]}"#,
            r#"{"data":[{"index":0,"embedding":[1]},{"index":9,"embedding":[2]}]}"#,
            r#"{"data":[{"embedding":[1e300]},{"embedding":[1]}]}"#,
        ] {
            assert_eq!(code(embeddings(wrong, 2)), "remote-invalid", "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}", inputs in 0..4_usize) {
            let _ = (Answer::default().read(&text), embeddings(&text, inputs));
        }

        #[test]
        fn any_shape_is_read_without_a_panic(
            index in any::<u64>(), name in prop::option::of(".{0,4}"), count in any::<u32>(), kind in 0..3_u8,
        ) {
            let call = json!({ "index": index, "function": { "name": name, "arguments": name } });
            let chunk = match kind {
                0 => json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }),
                1 => json!({ "choices": [{ "text": name, "finish_reason": name, "logprobs": { "tokens": [name] } }] }),
                _ => json!({ "usage": { "prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": null } }),
            };
            let mut answer = Answer::default();
            let _ = answer.read(&chunk.to_string());
            let _ = answer.end();
        }
    }
}
