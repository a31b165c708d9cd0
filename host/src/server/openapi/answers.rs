//! What the routes answer, in the [notation](super::notation): the handlers write JSON, and a test with the document
//! compares what they write with this.

use serde_json::{Map, Value, json};

use super::notation;

/// The name of the error that all routes share.
pub const ERROR: &str = "Error";
/// The name of the error at Anthropic's routes.
pub const ANTHROPIC_ERROR: &str = "AnthropicError";
/// The name of an event of a stream.
pub const EVENT: &str = "Event";

/// The schemas by their names.
pub fn schemas() -> Map<String, Value> {
    let shapes = [errors(), openai(), responses(), anthropic(), vectors(), pictures(), sound(), operating()];
    shapes
        .into_iter()
        .filter_map(|shapes| match shapes {
            Value::Object(shapes) => Some(shapes),
            _ => None,
        })
        .flatten()
        .map(|(name, shape)| (name, notation::schema(&shape)))
        .collect()
}

fn errors() -> Value {
    json!({
        ERROR: { "error": { "message": "string", "type": "string", "code": "string", "param": "null" } },
        ANTHROPIC_ERROR: {
            "type": "=error",
            "error": { "type": "string", "message": "string", "code": "string" },
        },
    })
}

fn openai() -> Value {
    let likely = json!({ "token": "string", "logprob": "number", "bytes": ["integer"] });
    let mut token = likely.clone();
    token["top_logprobs"] = json!([likely]);
    json!({
        "Usage": {
            "prompt_tokens": "integer",
            "completion_tokens": "integer",
            "total_tokens": "integer",
            "prompt_tokens_details": { "cached_tokens": "integer" },
        },
        "Timings": { "queue_ms": "number", "prompt_ms": "number", "decode_ms": "number" },
        "Logprobs": { "content": [token], "refusal": "null" },
        "AssistantMessage": {
            "role": "=assistant",
            "content": "string|null",
            "reasoning_content?": "string",
            "tool_calls?": [{
                "id": "string",
                "type": "=function",
                "function": { "name": "string", "arguments": "string" },
            }],
        },
        "ChatCompletion": {
            "id": "string",
            "object": "=chat.completion",
            "created": "integer",
            "model": "string",
            "choices": [{
                "index": "integer",
                "message": "#AssistantMessage",
                "logprobs": "#Logprobs|null",
                "finish_reason": "=stop|length|tool_calls",
            }],
            "usage": "#Usage",
            "timings": "#Timings",
            "route_trace?": "object",
        },
        "TextLogprobs": {
            "tokens": ["string"],
            "token_logprobs": ["number"],
            "top_logprobs": [{ "*": "number" }],
            "text_offset": ["integer"],
        },
        "Completion": {
            "id": "string",
            "object": "=text_completion",
            "created": "integer",
            "model": "string",
            "choices": [{
                "index": "integer",
                "text": "string",
                "logprobs": "#TextLogprobs|null",
                "finish_reason": "=stop|length",
            }],
            "usage": "#Usage",
            "timings": "#Timings",
            "route_trace?": "object",
        },
        "Models": {
            "object": "=list",
            "data": [{
                "id": "string",
                "object": "=model",
                "created": "integer",
                "owned_by": "string",
                "task": "string|null",
                "description": "string|null",
            }],
        },
    })
}

fn responses() -> Value {
    let status = "=completed|incomplete|in_progress";
    json!({
        "ResponseOutput": { "|": [
            {
                "id": "string",
                "type": "=message",
                "role": "=assistant",
                "status": status,
                "content": [{ "type": "=output_text", "text": "string", "annotations": ["any"] }],
            },
            {
                "id": "string",
                "type": "=reasoning",
                "summary": ["any"],
                "content": [{ "type": "=reasoning_text", "text": "string" }],
                "status": status,
            },
            {
                "id": "string",
                "type": "=function_call",
                "call_id": "string",
                "name": "string",
                "arguments": "string",
                "status": status,
            },
        ] },
        "Response": {
            "id": "string",
            "object": "=response",
            "created_at": "integer",
            "status": "=completed|incomplete",
            "model": "string",
            "output": ["#ResponseOutput"],
            "error": "null",
            "incomplete_details": { "|": [{ "reason": "string" }, "null"] },
            "instructions": "null",
            "metadata": {},
            "parallel_tool_calls": "boolean",
            "tool_choice": "string",
            "tools": ["any"],
            "temperature": "null",
            "top_p": "null",
            "usage": {
                "input_tokens": "integer",
                "input_tokens_details": { "cached_tokens": "integer" },
                "output_tokens": "integer",
                "output_tokens_details": { "reasoning_tokens": "integer" },
                "total_tokens": "integer",
            },
            "route_trace?": "object",
        },
    })
}

fn anthropic() -> Value {
    json!({
        "AnthropicMessage": {
            "id": "string",
            "type": "=message",
            "role": "=assistant",
            "model": "string",
            "content": [{ "|": [
                { "type": "=text", "text": "string" },
                { "type": "=thinking", "thinking": "string", "signature": "string" },
                { "type": "=tool_use", "id": "string", "name": "string", "input": "any" },
            ] }],
            "stop_reason": "=end_turn|max_tokens|stop_sequence|tool_use",
            "stop_sequence": "string|null",
            "usage": {
                "input_tokens": "integer",
                "cache_read_input_tokens": "integer",
                "cache_creation_input_tokens": "integer",
                "output_tokens": "integer",
            },
            "route_trace?": "object",
        },
        "AnthropicCount": { "input_tokens": "integer" },
    })
}

fn vectors() -> Value {
    json!({
        "InputUsage": { "prompt_tokens": "integer", "total_tokens": "integer" },
        "Embeddings": {
            "object": "=list",
            "data": [{
                "object": "=embedding",
                "index": "integer",
                "embedding": { "|": [["number"], "string"] },
            }],
            "model": "string",
            "usage": "#InputUsage",
        },
        "Ranking": {
            "object": "=list",
            "model": "string",
            "results": [{
                "index": "integer",
                "relevance_score": "number",
                "document?": { "text": "string" },
            }],
            "usage": "#InputUsage",
        },
        "Tokens": { "tokens": [{ "|": ["integer", { "id": "integer", "piece": "string" }] }] },
        "Text": { "content": "string" },
        "Prompt": { "prompt": "string" },
    })
}

fn pictures() -> Value {
    let found = json!({ "label": "string", "class_id": "integer", "score": "number", "box": ["number"] });
    let mut outlined = found.clone();
    outlined["mask"] = json!({ "size": ["integer"], "counts": "string" });
    outlined["polygons?"] = json!([["number"]]);
    let sized = |what: &str, shape: Value| {
        one_or_many(json!({ "image": "string", "width": "integer", "height": "integer", what: shape }))
    };
    let class = json!({ "label": "string", "class_id": "integer", "score": "number" });
    json!({
        "Detections": sized("detections", json!([found])),
        "Segments": sized("detections", json!([outlined])),
        "MainObject": sized("object", json!({ "|": [found, "null"] })),
        "Classes": one_or_many(json!({ "image": "string", "classes": [class] })),
        "PictureEmbedding": one_or_many(json!({ "image": "string", "embedding": ["number"] })),
    })
}

fn sound() -> Value {
    json!({
        "Duration": { "type": "=duration", "seconds": "integer" },
        "Transcription": {
            "text": "string",
            "usage": "#Duration",
            "task?": "=transcribe|translate",
            "language?": "string",
            "duration?": "number",
            "segments?": [{
                "id": "integer",
                "seek": "integer",
                "start": "number",
                "end": "number",
                "text": "string",
                "tokens": ["integer"],
                "temperature": "number",
                "avg_logprob": "number",
                "compression_ratio": "number",
                "no_speech_prob": "number",
                "confidence": "number",
            }],
        },
    })
}

/// What is said of one picture, or of each of several, and the model that said it.
fn one_or_many(picture: Value) -> Value {
    let mut alone = picture.clone();
    alone["model"] = json!("string");
    json!({ "|": [alone, { "results": [picture], "model": "string" }] })
}

fn operating() -> Value {
    let state = "=unloaded|loading|ready|busy|sleeping|unloading|failed|quarantined";
    json!({
        "Health": { "status": "=ok", "version": "string" },
        "Failure": { "code": "string", "message": "string" },
        "Readiness": {
            "status": "=ready|not ready",
            "waiting_for": [{ "model": "string", "state": state, "failure": "#Failure|null" }],
        },
        "ModelState": {
            "id": "string",
            "state": state,
            "pinned": "boolean",
            "in_flight": "integer",
            "waiting": "integer",
            "backend": "string|null",
            "device": "string|null",
            "memory": [{ "device": "string", "*": "integer" }],
            "load_ms": "number|null",
            "loads": "integer",
            "wakes": "integer",
            "wake_ms": "number|null",
            "leaks": "integer",
            "expires_ms": "integer|null",
            "failure": "#Failure|null",
        },
        "ModelStates": {
            "models": ["#ModelState"],
            "devices": [{ "device": "string", "total": "integer", "used": "integer", "others": "integer" }],
            "queues": [{
                "model": "string",
                "inside": "integer",
                "waiting": "integer",
                "by_key": { "*": "integer" },
            }],
            "remotes": [{
                "model": "string",
                "url": "string",
                "state": "=closed|open|half-open",
                "failures": "integer",
                "failure_share": "number",
                "retry_ms": "integer|null",
                "code": "string|null",
                "message": "string|null",
            }],
        },
        "Form": { "format": "string", "precision": "string" },
        "Job": {
            "id": "string",
            "kind": "=quantize",
            "state": "=queued|running|done|failed|cancelled",
            "model": "string",
            "output": "string",
            "forms": ["#Form"],
            "stopping": "boolean",
            "created": "integer",
            "started": "integer|null",
            "ended": "integer|null",
            "progress": {
                "fraction": "number",
                "form": "#Form|null",
                "what": "string",
                "eta_s": "integer|null",
            },
            "made": ["object"],
            "error": { "|": [{ "code": "string", "message": "string", "help": "string" }, "null"] },
        },
        "Jobs": { "jobs": ["#Job"] },
        "Plugins": {
            "plugins": ["object"],
            "backends": [{ "plugin": "string", "backend": "object", "probe": "any" }],
        },
        "Decisions": { "rules": "string", "ladders": ["object"], "snapshot": "object", "decisions": ["object"] },
        "Settings": { "settings": ["object"], "file": "string|null", "reload": "object|null" },
        "Changes": { "changes": "object" },
        "Document": "object",
        // Of a stream each event.
        EVENT: { "event?": "string", "data": "string" },
    })
}
