//! Requests as people would write them, by route: for readers of the document, and for whoever compares answers with it.

use serde_json::{Map, Value, json};

/// A grey square of 8 by 8 pixels, as PNG.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR42mNogAIGyhgAgIQgARDoahcAAAAASUVORK5CYII=";

/// JSON bodies that the route answers when its model is there, each with its name.
pub fn of(path: &str) -> Map<String, Value> {
    let hello = json!([{ "role": "user", "content": "Hello!" }]);
    let examples = match path {
        "/v1/chat/completions" => vec![
            ("short", json!({ "messages": hello, "max_tokens": 8 })),
            (
                "many",
                json!({ "messages": hello, "max_tokens": 4, "n": 2, "seed": 1, "logprobs": true, "top_logprobs": 2 }),
            ),
            (
                "function",
                json!({
                    "messages": [{ "role": "user", "content": "How warm is it in Rome?" }],
                    "tools": [{ "type": "function", "function": {
                        "name": "weather",
                        "parameters": { "type": "object", "properties": { "celsius": { "type": "boolean" } }, "required": ["celsius"] },
                    } }],
                    "tool_choice": "required",
                }),
            ),
        ],
        "/v1/completions" => vec![
            ("short", json!({ "prompt": "Hello", "max_tokens": 8 })),
            ("several", json!({ "prompt": ["One", "Two"], "max_tokens": 2, "echo": true, "logprobs": 1 })),
        ],
        "/v1/responses" => vec![
            ("short", json!({ "input": "Hello!", "max_output_tokens": 8 })),
            ("turns", json!({ "instructions": "Be brief.", "input": hello, "max_output_tokens": 8 })),
        ],
        "/v1/messages" => vec![("short", json!({ "model": "chat", "max_tokens": 8, "messages": hello }))],
        "/v1/messages/count_tokens" => vec![("short", json!({ "model": "chat", "messages": hello }))],
        "/v1/embeddings" => vec![
            ("one", json!({ "input": "A llama in pajamas" })),
            ("several", json!({ "input": ["A llama", "Pajamas"], "encoding_format": "base64" })),
        ],
        "/v1/rerank" => vec![(
            "two",
            json!({ "query": "What do llamas wear?", "documents": ["Llamas wear pajamas.", "It rains."], "top_n": 1 }),
        )],
        "/tokenize" => vec![
            ("numbers", json!({ "content": "Hello!" })),
            ("pieces", json!({ "content": "Hello!", "with_pieces": true })),
        ],
        "/detokenize" => vec![("two", json!({ "tokens": [10, 11] }))],
        "/apply-template" => vec![("short", json!({ "messages": hello }))],
        "/v1/images/detect" | "/v1/images/localize" | "/v1/images/classify" | "/v1/images/embed" => vec![
            ("base64", json!({ "image": PICTURE })),
            ("several", json!({ "images": [PICTURE, PICTURE] })),
        ],
        "/v1/images/segment" => vec![
            ("base64", json!({ "image": PICTURE })),
            ("polygons", json!({ "images": [PICTURE], "polygons": true })),
        ],
        "/v1/audio/speech" => vec![
            ("short", json!({ "input": "Hello!" })),
            ("faster", json!({ "input": "Hello! How are you?", "response_format": "flac", "speed": 1.5 })),
            ("events", json!({ "input": "Hello!", "response_format": "pcm", "stream_format": "sse" })),
        ],
        "/admin/jobs/quantize" => vec![(
            "two",
            json!({ "model": "Qwen3-0.6B", "precision": "Q4_K_M,Q8_0", "output": "artifacts/qwen3" }),
        )],
        _ => Vec::new(),
    };
    examples.into_iter().map(|(name, value)| (name.to_owned(), json!({ "value": value }))).collect()
}
