//! What all requests for text share: how tokens are chosen, when the answer ends, what it must look like.

use std::collections::BTreeMap;
use std::time::Duration;

use pajamas_plugin_api::{Constraint, Grammar, Sampling};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body;
use super::keep_alive::KeepAlive;
use crate::config::{Priority, Server};
use crate::error::{Error, Result};
use crate::pipeline::{Hints, Params};

/// The fields, read from the same body as those of the family: a field that is wrong is named with its path.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fields {
    /// The most tokens of the answer.
    #[schemars(range(min = 1))]
    max_tokens: Option<u32>,
    /// OpenAI's newer name of `max_tokens`.
    #[schemars(range(min = 1))]
    max_completion_tokens: Option<u32>,
    /// The name of `max_tokens` in OpenAI's responses.
    #[schemars(range(min = 1))]
    max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Option<u64>,
    /// Texts that end the answer, and are no part of it.
    stop: Option<Stop>,
    /// Anthropic's name of `stop`.
    stop_sequences: Option<Stop>,
    /// What is added to the logits of tokens, by their ids.
    #[schemars(with = "Option<BTreeMap<String, f32>>")]
    logit_bias: Option<Map<String, Value>>,
    response_format: Option<Format>,
    /// Where OpenAI's responses have it.
    text: Option<TextFormat>,
    /// llama-server's own: a grammar in GBNF.
    grammar: Option<String>,
    /// llama-server's own: goes on past the end, for measurements.
    ignore_eos: bool,
    /// How long the model stays in memory after this request, and after later ones that do not say: a duration such as
    /// `"5m"`, or seconds. 0 frees it when nobody uses it any more; less than 0 keeps it until others need the room.
    keep_alive: Option<KeepAlive>,
    /// Ours: waiting requests of a higher priority go first.
    priority: Option<Priority>,
    /// What rules may look at; texts, numbers and truth values count. Its `session_id` is the request's session.
    metadata: Option<Map<String, Value>>,
    /// The request's session, when nothing else says it.
    prompt_cache_key: Option<String>,
    /// The request's session, when nothing else says it.
    user: Option<String>,
    /// Ours: the answer says how its model was chosen.
    route_trace: bool,
}

/// How long a request may take, read from the same body as the rest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Patience {
    /// Seconds after which the request ends with `request-timeout`, waiting included; at most `server.request_timeout`,
    /// which counts without it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    timeout: Option<f64>,
}

impl Patience {
    /// What a request with this body asks for.
    fn asked(bytes: &[u8]) -> Result<Option<Duration>> {
        let seconds = body::json::<Self>(bytes)?.timeout;
        Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }

    /// The limit of a request with this body.
    ///
    /// # Errors
    /// `invalid-input` when it is no time, or longer than the server's own.
    pub fn limit(bytes: &[u8], server: &Server) -> Result<Duration> {
        let most = server.request_timeout.duration();
        let Some(seconds) = body::json::<Self>(bytes)?.timeout else { return Ok(most) };
        match Duration::try_from_secs_f64(seconds) {
            Ok(limit) if !limit.is_zero() && limit <= most => Ok(limit),
            _ => Err(Error::new("invalid-input", format!("`timeout` is {seconds}, in seconds"))
                .help(format!("more than 0, and {} at most", most.as_secs_f64()))),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text or a list of texts")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ResponseFormat")]
struct Format {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["text", "json_object", "json_schema"]))]
    kind: String,
    json_schema: Option<NamedSchema>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct TextFormat {
    format: Option<FlatFormat>,
}

/// As [`Format`], with the schema beside the type.
#[derive(Debug, Deserialize, JsonSchema)]
struct FlatFormat {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["text", "json_object", "json_schema"]))]
    kind: String,
    schema: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NamedSchema {
    schema: Option<Value>,
}

impl Fields {
    /// Reads them from a body.
    ///
    /// # Errors
    /// `invalid-input` with the path of the field that is wrong.
    pub fn params(bytes: &[u8]) -> Result<Params> {
        let fields: Self = body::json(bytes)?;
        fields.check_finite()?;
        let max_tokens = fields.max_tokens()?;
        let defaults = Sampling::default();
        let constraint = fields.constraint()?;
        let metadata = metadata(fields.metadata.unwrap_or_default());
        let session = metadata.get("session_id").cloned();
        let logit_bias = fields.logit_bias.unwrap_or_default();
        let logit_bias = logit_bias.iter().map(|(id, bias)| {
            let bias = bias.as_f64().map(|bias| bias as f32).filter(|bias| bias.is_finite());
            id.parse().ok().zip(bias).ok_or_else(|| {
                Error::new("invalid-input", format!("`logit_bias.{id}`: token ids map to numbers"))
            })
        });
        Ok(Params {
            max_tokens,
            sampling: Sampling {
                temperature: fields.temperature.unwrap_or(defaults.temperature),
                top_p: fields.top_p.unwrap_or(defaults.top_p),
                top_k: fields.top_k.unwrap_or(defaults.top_k),
                min_p: fields.min_p.unwrap_or(defaults.min_p),
                presence_penalty: fields.presence_penalty.unwrap_or(0.0),
                frequency_penalty: fields.frequency_penalty.unwrap_or(0.0),
                repeat_penalty: fields.repeat_penalty.unwrap_or(1.0),
                seed: fields.seed,
                logit_bias: logit_bias.collect::<Result<_>>()?,
                ..defaults
            },
            stop: match fields.stop.or(fields.stop_sequences) {
                None => Vec::new(),
                Some(Stop::One(text)) => vec![text],
                Some(Stop::Many(texts)) => texts,
            },
            constraint,
            priority: fields.priority.map(|priority| priority.0),
            ignore_eos: fields.ignore_eos,
            keep_alive: fields.keep_alive.map(|KeepAlive(keep)| keep),
            hints: Hints {
                session: session.or(fields.prompt_cache_key).or(fields.user),
                metadata,
                trace: fields.route_trace,
                deadline: Patience::asked(bytes)?,
                ..Hints::default()
            },
            ..Params::default()
        })
    }

    /// The limit, whichever family's name it has. One that is wrong is refused also beside one that counts.
    fn max_tokens(&self) -> Result<Option<u32>> {
        let names = [
            ("max_tokens", self.max_tokens),
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_output_tokens", self.max_output_tokens),
        ];
        match names.iter().find(|(_, limit)| *limit == Some(0)) {
            Some((name, _)) => Err(Error::new("invalid-input", format!("`{name}` is 0: 1 is the least"))),
            None => Ok(names.iter().find_map(|(_, limit)| *limit)),
        }
    }

    /// JSON has larger numbers than fit, and none for what they become.
    fn check_finite(&self) -> Result<()> {
        let numbers = [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
            ("repeat_penalty", self.repeat_penalty),
        ];
        match numbers.iter().find(|(_, number)| number.is_some_and(|number| !number.is_finite())) {
            Some((name, _)) => Err(Error::new("invalid-input", format!("`{name}` is out of range"))),
            None => Ok(()),
        }
    }

    fn constraint(&self) -> Result<Option<Constraint>> {
        let text = self.text.as_ref().and_then(|text| text.format.as_ref());
        let text = text.map(|f| schema("text.format", "schema", &f.kind, f.schema.as_ref())).transpose()?;
        let response = self.response_format.as_ref().map(|Format { kind, json_schema }| {
            let written = json_schema.as_ref().and_then(|named| named.schema.as_ref());
            schema("response_format", "json_schema.schema", kind, written)
        });
        // Both are looked at, though only one counts.
        let format = response.transpose()?.or(text).flatten();
        let grammar = match (format, &self.grammar) {
            (Some(_), Some(_)) => {
                return Err(Error::new(
                    "invalid-input",
                    "`response_format` and `grammar` exclude each other",
                ));
            }
            (Some(schema), None) => Grammar::JsonSchema(schema),
            (None, Some(gbnf)) => Grammar::Gbnf(gbnf.clone()),
            (None, None) => return Ok(None),
        };
        Ok(Some(Constraint { grammar, after: Vec::new(), begun: false, lenient: false }))
    }
}

/// What of metadata is text, or can be written as one.
fn metadata(written: Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::String(text) => Some(text),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    written.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

/// The schema of a format; `None` for plain text.
fn schema(field: &str, at: &str, kind: &str, schema: Option<&Value>) -> Result<Option<Value>> {
    match (kind, schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(json!({ "type": "object" }))),
        ("json_schema", Some(schema)) => Ok(Some(schema.clone())),
        ("json_schema", None) => Err(Error::new("invalid-input", format!("`{field}.{at}` is missing"))),
        (other, _) => {
            let message = format!("`{field}.type`: there is no format `{other}`");
            Err(Error::new("invalid-input", message).help("text, json_object or json_schema"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &Value) -> String {
        let error = Fields::params(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.code(), "invalid-input");
        error.message().to_owned()
    }

    #[test]
    fn a_field_has_the_names_of_all_families_and_may_be_null_under_the_others() {
        let params = |body: Value| Fields::params(body.to_string().as_bytes()).unwrap();
        for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            let mut body =
                json!({ "max_tokens": null, "max_completion_tokens": null, "max_output_tokens": null });
            body[name] = json!(5);
            assert_eq!(params(body).max_tokens, Some(5), "{name}");
        }
        assert_eq!(params(json!({ "stop": null, "stop_sequences": ["a"] })).stop, ["a"]);
    }

    #[test]
    fn what_rules_look_at_is_text() {
        let body =
            json!({ "metadata": { "team": "red", "tier": 2, "deep": {}, "session_id": "s" }, "user": "u" });
        let hints = Fields::params(body.to_string().as_bytes()).unwrap().hints;
        assert_eq!(hints.session.as_deref(), Some("s"));
        let metadata: Vec<_> = hints.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(metadata, ["session_id=s", "team=red", "tier=2"]);
    }

    #[test]
    fn formats_become_grammars() {
        let grammar = |body: Value| {
            Fields::params(body.to_string().as_bytes())
                .unwrap()
                .constraint
                .map(|constraint| constraint.grammar)
        };
        let schema = json!({ "type": "integer" });
        let format = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema, "strict": true } });
        assert_eq!(grammar(json!({ "response_format": format })), Some(Grammar::JsonSchema(schema)));
        assert_eq!(grammar(json!({ "response_format": { "type": "text" } })), None);
        assert_eq!(
            grammar(json!({ "response_format": { "type": "json_object" } })),
            Some(Grammar::JsonSchema(json!({ "type": "object" })))
        );
        assert_eq!(
            grammar(json!({ "grammar": "root ::= \"a\"" })),
            Some(Grammar::Gbnf("root ::= \"a\"".into()))
        );
        assert_eq!(grammar(json!({})), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, words) in [
            (json!({ "stop": 7 }), "`stop`"),
            (json!({ "temperature": "hot" }), "`temperature`"),
            (json!({ "seed": -1 }), "`seed`"),
            (json!({ "max_tokens": 1, "max_output_tokens": 0 }), "`max_output_tokens`"),
            (json!({ "max_tokens": 1e30 }), "`max_tokens`"),
            (json!({ "logit_bias": { "x": 1 } }), "`logit_bias.x`"),
            (json!({ "logit_bias": { "1": 1e300 } }), "`logit_bias.1`"),
            (json!({ "min_p": -1e300 }), "`min_p`"),
            (json!({ "response_format": { "type": "xml" } }), "`response_format.type`"),
            (json!({ "response_format": { "type": "json_schema" } }), "`response_format.json_schema.schema`"),
            (
                json!({ "response_format": { "type": "json_object" }, "grammar": "root ::= \"a\"" }),
                "`grammar`",
            ),
        ] {
            let message = refusal(&body);
            assert!(message.contains(words), "{body}: {message}");
        }
    }
}
