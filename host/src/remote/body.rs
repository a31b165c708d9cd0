//! What is sent: requests as OpenAI's API has them, with what vLLM, SGLang, llama-server and pajamas know beside it where
//! somebody asked for it.

use pajamas_plugin_api::{
    Constraint, EmbedRequest, GenerateRequest, Grammar, PluginError, Prompt, Result, Sampling,
};
use serde_json::{Map, Number, Value, json};

use crate::chat::native::Question;

/// A body of `/chat/completions`. The messages are sent as they are: the template is the server's.
pub fn chat(model: &str, question: Question) -> Result<Value> {
    let Question { messages, tools, tool_choice, parallel, variables, generate } = question;
    let mut body = shared(model, &generate)?;
    body.insert("messages".to_owned(), Value::Array(messages));
    if !tools.is_empty() {
        body.insert("tools".to_owned(), Value::Array(tools));
        if tool_choice != "auto" {
            body.insert("tool_choice".to_owned(), tool_choice);
        }
        if !parallel {
            body.insert("parallel_tool_calls".to_owned(), json!(false));
        }
    }
    if !variables.is_empty() {
        body.insert("chat_template_kwargs".to_owned(), Value::Object(variables));
    }
    if let Some(alternatives) = generate.logprobs {
        body.insert("logprobs".to_owned(), json!(true));
        body.insert("top_logprobs".to_owned(), json!(alternatives));
    }
    Ok(Value::Object(body))
}

/// A body of `/completions`.
pub fn completion(model: &str, request: &GenerateRequest) -> Result<Value> {
    let mut body = shared(model, request)?;
    let prompt = match &request.prompt {
        Prompt::Text { text, .. } => json!(text),
        Prompt::Tokens(tokens) => json!(tokens),
        Prompt::Infill { prefix, suffix } => {
            body.insert("suffix".to_owned(), json!(suffix));
            json!(prefix)
        }
        _ => return Err(PluginError::unsupported("a remote model", "a prompt of this kind")),
    };
    body.insert("prompt".to_owned(), prompt);
    if let Some(alternatives) = request.logprobs {
        body.insert("logprobs".to_owned(), json!(alternatives));
    }
    Ok(Value::Object(body))
}

/// A body of `/embeddings`.
pub fn embeddings(model: &str, request: &EmbedRequest) -> Result<Value> {
    if let Some(pooling) = &request.pooling {
        return Err(PluginError::unsupported("a remote model", &format!("the pooling {pooling}")));
    }
    let input = request.inputs.iter().map(|prompt| match prompt {
        Prompt::Text { text, .. } => Ok(json!(text)),
        Prompt::Tokens(tokens) => Ok(json!(tokens)),
        _ => Err(PluginError::unsupported("a remote model", "embedding an input of this kind")),
    });
    let input = input.collect::<Result<Vec<_>>>()?;
    if input.iter().any(Value::is_string) && input.iter().any(Value::is_array) {
        return Err(PluginError::invalid_input(
            "a remote model embeds texts or tokens, and not both at once",
        ));
    }
    Ok(json!({ "model": model, "input": input, "encoding_format": "float" }))
}

/// What both kinds of generation have. What OpenAI's API does not know goes along only where it is not what holds without
/// it: a server that is strict refuses what it does not know.
fn shared(model: &str, request: &GenerateRequest) -> Result<Map<String, Value>> {
    if let Some(name) = request.options.keys().next() {
        return Err(PluginError::new("invalid-option", format!("a remote model has no option `{name}`")));
    }
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    put("model", json!(model));
    put("stream", json!(true));
    put("stream_options", json!({ "include_usage": true }));
    if let Some(most) = request.max_tokens {
        put("max_tokens", json!(most));
    }
    let usual = Sampling::default();
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repeat_penalty,
        presence_penalty,
        frequency_penalty,
        seed,
        logit_bias,
        ..
    } = &request.sampling;
    put("temperature", number(*temperature));
    put("top_p", number(*top_p));
    for (name, value) in [("presence_penalty", presence_penalty), ("frequency_penalty", frequency_penalty)] {
        if *value != 0.0 {
            put(name, number(*value));
        }
    }
    if let Some(seed) = seed {
        put("seed", json!(seed));
    }
    if !request.stop.is_empty() {
        put("stop", json!(request.stop));
    }
    if !logit_bias.is_empty() {
        let bias: Map<String, Value> =
            logit_bias.iter().map(|(token, bias)| (token.to_string(), number(*bias))).collect();
        put("logit_bias", Value::Object(bias));
    }
    if *top_k != usual.top_k {
        put("top_k", json!(top_k));
    }
    if *min_p != usual.min_p {
        put("min_p", number(*min_p));
    }
    if *repeat_penalty != usual.repeat_penalty {
        // pajamas and llama-server have one name for it, vLLM and SGLang the other.
        put("repeat_penalty", number(*repeat_penalty));
        put("repetition_penalty", number(*repeat_penalty));
    }
    if request.ignore_eos {
        put("ignore_eos", json!(true));
    }
    match &request.constraint {
        None => {}
        Some(Constraint { grammar: Grammar::JsonSchema(schema), .. }) => {
            put("response_format", response_format(schema))
        }
        Some(Constraint { grammar: Grammar::Gbnf(grammar), .. }) => put("grammar", json!(grammar)),
        Some(_) => return Err(PluginError::unsupported("a remote model", "a grammar of this kind")),
    }
    Ok(body)
}

fn response_format(schema: &Value) -> Value {
    if *schema == json!({ "type": "object" }) {
        return json!({ "type": "json_object" });
    }
    json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema, "strict": true } })
}

/// A number as people write it: 0.8, and not what of it fits a float.
fn number(value: f32) -> Value {
    let written = value.to_string().parse().ok().and_then(Number::from_f64);
    written.map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Conversation, Message};

    fn question(generate: GenerateRequest) -> Value {
        let conversation = Conversation::from(vec![Message::new("user", "Hello")]);
        chat("m", Question::new(&conversation, generate)).unwrap()
    }

    fn plain() -> GenerateRequest {
        GenerateRequest::new(Prompt::text("Hello"))
    }

    #[test]
    fn who_asks_for_nothing_special_sends_only_what_openai_knows() {
        let expected = json!({
            "model": "m",
            "stream": true,
            "stream_options": { "include_usage": true },
            "temperature": 0.8,
            "top_p": 0.95,
            "messages": [{ "role": "user", "content": "Hello" }],
        });
        assert_eq!(question(plain()), expected);
        let body = completion("m", &plain()).unwrap();
        assert_eq!((&body["prompt"], body.get("messages")), (&json!("Hello"), None));
    }

    #[test]
    fn what_was_asked_for_goes_along() {
        let constraint =
            |grammar| Some(Constraint { grammar, after: Vec::new(), begun: false, lenient: false });
        let request = GenerateRequest {
            max_tokens: Some(5),
            stop: vec!["x".into()],
            logprobs: Some(2),
            ignore_eos: true,
            sampling: Sampling {
                temperature: 0.0,
                top_k: 1,
                min_p: 0.1,
                repeat_penalty: 1.1,
                presence_penalty: 0.5,
                seed: Some(7),
                logit_bias: vec![(3, -100.0)],
                ..Sampling::default()
            },
            constraint: constraint(Grammar::JsonSchema(json!({ "type": "integer" }))),
            ..plain()
        };
        let body = question(request.clone());
        for (name, value) in [
            ("max_tokens", json!(5)),
            ("stop", json!(["x"])),
            ("logprobs", json!(true)),
            ("top_logprobs", json!(2)),
            ("ignore_eos", json!(true)),
            ("temperature", json!(0.0)),
            ("top_k", json!(1)),
            ("min_p", json!(0.1)),
            ("repeat_penalty", json!(1.1)),
            ("repetition_penalty", json!(1.1)),
            ("presence_penalty", json!(0.5)),
            ("seed", json!(7)),
            ("logit_bias", json!({ "3": -100.0 })),
        ] {
            assert_eq!(body[name], value, "{name}");
        }
        assert_eq!(body["response_format"]["json_schema"]["schema"], json!({ "type": "integer" }));
        assert_eq!(completion("m", &request).unwrap()["logprobs"], 2);
        let object = Grammar::JsonSchema(json!({ "type": "object" }));
        let body = question(GenerateRequest { constraint: constraint(object), ..plain() });
        assert_eq!(body["response_format"], json!({ "type": "json_object" }));
    }

    #[test]
    fn what_no_remote_can_do_is_refused() {
        let mut request = plain();
        request.options.insert("confidence".into(), json!(0.5));
        assert_eq!(completion("m", &request).unwrap_err().code, "invalid-option");
        let embed = |inputs, pooling: Option<&str>| {
            embeddings("m", &EmbedRequest { inputs, pooling: pooling.map(str::to_owned), normalize: true })
        };
        let text = Prompt::text("a");
        assert_eq!(embed(vec![text.clone()], Some("rank")).unwrap_err().code, "unsupported");
        assert_eq!(
            embed(vec![text.clone(), Prompt::Tokens(vec![1])], None).unwrap_err().code,
            "invalid-input"
        );
        let body = embed(vec![text.clone(), text], None).unwrap();
        assert_eq!(body, json!({ "model": "m", "input": ["a", "a"], "encoding_format": "float" }));
    }
}
