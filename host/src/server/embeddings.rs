//! `POST /v1/embeddings` and `POST /v1/rerank`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_plugin_api::{Prompt, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::keep_alive::KeepAlive;
use super::params::Patience;
use super::stream::{Awaited, route_header};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Output, Params, Request};

/// Texts of one request: OpenAI takes as many.
const MOST_INPUTS: usize = 2048;

/// What is read of a request for embeddings.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct EmbeddingsBody {
    model: Option<String>,
    input: Texts,
    #[serde(default)]
    encoding_format: Encoding,
    #[schemars(range(min = 1))]
    dimensions: Option<usize>,
    /// How long the model stays in memory after this request, and after later ones that do not say: a duration such as
    /// `"5m"`, or seconds. 0 frees it when nobody uses it any more; less than 0 keeps it until others need the room.
    keep_alive: Option<KeepAlive>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

/// One text or many, as text or as tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, tokens, or a list of either")]
pub enum Texts {
    /// One text.
    Text(String),
    /// Several.
    Many(Vec<String>),
    /// The tokens of one.
    Tokens(Vec<u32>),
    /// The tokens of several.
    ManyOfTokens(Vec<Vec<u32>>),
}

impl Texts {
    /// As prompts, in order.
    ///
    /// # Errors
    /// `invalid-input` when there is none, or when there are too many.
    pub fn prompts(self, field: &str) -> Result<Vec<Prompt>> {
        let prompts: Vec<Prompt> = match self {
            Self::Text(text) => vec![Prompt::text(text)],
            Self::Many(texts) => texts.into_iter().map(Prompt::text).collect(),
            Self::Tokens(tokens) => vec![Prompt::Tokens(tokens)],
            Self::ManyOfTokens(many) => many.into_iter().map(Prompt::Tokens).collect(),
        };
        check_count(prompts.len(), field)?;
        Ok(prompts)
    }
}

fn check_count(count: usize, field: &str) -> Result<()> {
    match count {
        0 => Err(Error::new("invalid-input", format!("`{field}` is empty"))),
        1..=MOST_INPUTS => Ok(()),
        _ => Err(Error::new("invalid-input", format!("`{field}` has {count} texts"))
            .help(format!("send {MOST_INPUTS} at most"))),
    }
}

/// `POST /v1/embeddings`: vectors of length 1, as OpenAI's are.
pub async fn embeddings(
    State(host): State<Arc<Host>>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body: EmbeddingsBody = body::json(&bytes)?;
    let keep_alive = body.keep_alive.map(|KeepAlive(keep)| keep);
    let params = Params { normalize: true, keep_alive, ..Params::default() };
    let input = Input::Texts(body.input.prompts("input")?);
    let request = Request { task: Task::Embed, model: body.model, input, params };
    let limit = Patience::limit(&bytes, &host.config().server)?;
    let outcome = Awaited::start(host, request).finish(limit).await?.outcome;
    let Output::Embeddings(tensor, usage) = &outcome.output else {
        return Err(Error::new("internal", "a request for embeddings ended without them"));
    };
    let size = tensor.shape().last().copied().unwrap_or(1).max(1) as usize;
    let wanted = body.dimensions.unwrap_or(size);
    if !(1..=size).contains(&wanted) {
        let message = format!("`dimensions` is {wanted}; the model's embeddings have {size}");
        return Err(Error::new("invalid-input", message).help(format!("1 to {size} are possible")));
    }
    let rows = tensor.as_f32().unwrap_or_default().chunks(size);
    let data: Vec<Value> = rows
        .enumerate()
        .map(|(index, row)| {
            let embedding = encode(&shorten(row, wanted), body.encoding_format);
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let object =
        json!({ "object": "list", "data": data, "model": outcome.route.model, "usage": tokens(usage) });
    Ok(([("x-pajamas-route", route_header(&outcome.route))], Json(object)).into_response())
}

/// The beginning of a vector, of length 1 again.
fn shorten(row: &[f32], size: usize) -> Vec<f32> {
    let mut row = row[..size.min(row.len())].to_vec();
    let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    row
}

fn encode(row: &[f32], encoding: Encoding) -> Value {
    match encoding {
        Encoding::Float => json!(row),
        Encoding::Base64 => {
            let bytes: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        }
    }
}

fn tokens(usage: &Usage) -> Value {
    json!({ "prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens })
}

/// What is read of a request to rank documents.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RerankBody {
    model: Option<String>,
    query: String,
    #[schemars(length(min = 1, max = 2048))]
    documents: Vec<Document>,
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    /// How long the model stays in memory after this request, and after later ones that do not say: a duration such as
    /// `"5m"`, or seconds. 0 frees it when nobody uses it any more; less than 0 keeps it until others need the room.
    keep_alive: Option<KeepAlive>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text, or an object with `text`")]
#[schemars(rename = "RankedDocument")]
enum Document {
    Text(String),
    Object { text: String },
}

impl Document {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

/// `POST /v1/rerank`: documents by how well they answer a query, in the shape of Jina's and Cohere's clients.
pub async fn rerank(State(host): State<Arc<Host>>, bytes: Result<Bytes, BytesRejection>) -> Result<Response> {
    let bytes = bytes.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    let body: RerankBody = body::json(&bytes)?;
    check_count(body.documents.len(), "documents")?;
    let pair = |document: &Document| Prompt::Pair {
        query: body.query.clone(),
        document: document.text().to_owned(),
    };
    let input = Input::Texts(body.documents.iter().map(pair).collect());
    let keep_alive = body.keep_alive.map(|KeepAlive(keep)| keep);
    let params = Params { keep_alive, ..Params::default() };
    let request = Request { task: Task::Rerank, model: body.model, input, params };
    let limit = Patience::limit(&bytes, &host.config().server)?;
    let outcome = Awaited::start(host, request).finish(limit).await?.outcome;
    let Output::Scores(scores, usage) = &outcome.output else {
        return Err(Error::new("internal", "a request for scores ended without them"));
    };
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    // Stable: of equals the earlier document comes first.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(body.top_n.unwrap_or(usize::MAX));
    let results: Vec<Value> = ranked
        .into_iter()
        .map(|(index, score)| {
            let mut result = json!({ "index": index, "relevance_score": score });
            if let Some(document) = body.documents.get(index).filter(|_| body.return_documents) {
                result["document"] = json!({ "text": document.text() });
            }
            result
        })
        .collect();
    let object =
        json!({ "object": "list", "model": outcome.route.model, "results": results, "usage": tokens(usage) });
    Ok(([("x-pajamas-route", route_header(&outcome.route))], Json(object)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_cut_short_has_length_one_again() {
        assert_eq!(shorten(&[3.0, 4.0, 12.0], 2), [0.6, 0.8]);
        assert_eq!(shorten(&[0.0, 0.0], 1), [0.0]);
    }

    #[test]
    fn base64_is_little_endian_floats() {
        assert_eq!(encode(&[1.0, -2.0], Encoding::Base64), json!("AACAPwAAAMA="));
    }

    #[test]
    fn inputs_come_in_every_form() {
        let prompts = |input: Value| serde_json::from_value::<Texts>(input).unwrap().prompts("input");
        assert_eq!(prompts(json!("a")).unwrap(), [Prompt::text("a")]);
        assert_eq!(prompts(json!(["a", "b"])).unwrap().len(), 2);
        assert_eq!(prompts(json!([1, 2])).unwrap(), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(prompts(json!([[1], [2]])).unwrap(), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])]);
        assert_eq!(prompts(json!([])).unwrap_err().code(), "invalid-input");
    }
}
