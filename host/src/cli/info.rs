//! `pajamas info`: what a model is.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::session::cancel_on_interrupt;
use super::{Global, output, source};
use crate::error::Result;
use crate::plugins::Plugins;
use crate::quantize;

#[derive(Debug, Args)]
pub struct Info {
    /// A Hugging Face model's folder, a GGUF file, an artifact, or the id of a repository, `org/name[@revision]`, which is
    /// fetched first (see `pajamas pull`)
    model: PathBuf,
}

impl Info {
    pub fn run(self, global: &Global) -> Result<()> {
        let plugins = Plugins::load(&global.config()?.plugins);
        let model = source::find(global, &self.model, &cancel_on_interrupt())?;
        let facts = quantize::describe(&model, &plugins)?;
        if global.json {
            return output::json_line(&facts);
        }
        for (label, text) in rows(&facts) {
            output::line(&format!("{label:<13} {text}"))?;
        }
        Ok(())
    }
}

/// What is said of a model, line by line; what is not known is left out.
fn rows(facts: &Value) -> Vec<(&'static str, String)> {
    let attention = &facts["attention"];
    let parameters = &facts["parameters"];
    let mut rows = vec![
        ("name", text(&facts["name"])),
        ("format", join(&[text(&facts["format"]), text(&facts["precision"])], ", ")),
        ("task", text(&facts["task"])),
        ("architecture", join(&[text(&facts["architecture"]), family(&facts["family"])], ", ")),
        ("layers", join(&[text(&facts["layers"]), with("of ", &facts["hidden_size"], " elements")], " ")),
        ("attention", heads(attention)),
        ("window", window(attention, &facts["layers"])),
        ("experts", experts(&facts["experts"])),
        ("context", with("", &facts["context"], " tokens")),
        ("positions", join(&[text(&facts["positions"]), with("base ", &facts["rope_base"], "")], ", ")),
        ("tokenizer", join(&[text(&facts["tokenizer"]), with("", &facts["vocabulary"], " words")], ", ")),
        (
            "embeddings",
            match facts["tied_embeddings"].as_bool() {
                Some(true) => "serve as output, too".to_owned(),
                Some(false) => "and output apart".to_owned(),
                None => String::new(),
            },
        ),
        (
            "parameters",
            join(
                &[
                    count(&parameters["total"], ""),
                    count(&parameters["active"], " active"),
                    count(&parameters["non_embedding"], " without embeddings"),
                ],
                ", ",
            ),
        ),
        ("size", with_mb("", &facts["file_bytes"])),
    ];
    let mut sizes: Vec<_> = facts["bytes"].as_object().into_iter().flatten().collect();
    sizes.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.as_u64()));
    let sizes: Vec<String> =
        sizes.into_iter().map(|(name, bytes)| with_mb(&format!("{name} "), bytes)).collect();
    rows.push(("roughly in", join(&sizes, ", ")));
    let advice = &facts["advice"];
    let reasons: Vec<String> = advice["strategy"].as_array().into_iter().flatten().map(text).collect();
    rows.push(("strategy", reasons.join("\n              ")));
    rows.push(("cache", cache(&advice["key_value_cache"])));
    rows.retain(|(_, text)| !text.is_empty());
    rows
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn with(before: &str, value: &Value, after: &str) -> String {
    match text(value) {
        text if text.is_empty() => text,
        text => format!("{before}{text}{after}"),
    }
}

fn with_mb(before: &str, bytes: &Value) -> String {
    bytes.as_u64().map_or_else(String::new, |bytes| format!("{before}{:.1} MB", bytes as f64 / 1e6))
}

fn join(parts: &[String], between: &str) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(between)
}

/// `mixture-of-experts` in words.
fn family(value: &Value) -> String {
    text(value).replace('-', " ")
}

fn heads(attention: &Value) -> String {
    let [heads, pairs, size] = ["heads", "key_value_heads", "head_size"].map(|key| text(&attention[key]));
    match text(&attention["kind"]).as_str() {
        "" => String::new(),
        kind => format!("{kind}, {heads} heads on {pairs} of keys and values, {size} elements each"),
    }
}

fn window(attention: &Value, layers: &Value) -> String {
    let windowed = with(" in ", &attention["windowed_layers"], &format!(" of {layers} layers"));
    with("", &attention["window"], &format!(" tokens{windowed}"))
}

fn experts(experts: &Value) -> String {
    let shared = match experts["shared"].as_u64() {
        Some(0) | None => String::new(),
        Some(shared) => format!("{shared} shared"),
    };
    join(&[text(&experts["count"]), with("", &experts["active"], " active"), shared], ", ")
}

/// How to keep keys and values.
fn cache(advice: &Value) -> String {
    let size = with_mb(", a full context ", &advice["bytes_of_context"]);
    match text(&advice["precision"]).as_str() {
        "" => String::new(),
        precision => format!("keys and values in {precision}{size}: {}", text(&advice["reason"])),
    }
}

/// A large number as people say it, with all its digits beside.
fn count(value: &Value, after: &str) -> String {
    let Some(number) = value.as_u64() else { return String::new() };
    let (short, unit) = match number {
        1_000_000_000.. => (number as f64 / 1e9, " B"),
        1_000_000.. => (number as f64 / 1e6, " M"),
        1_000.. => (number as f64 / 1e3, " K"),
        _ => return format!("{number}{after}"),
    };
    format!("{short:.2}{unit}{after}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_known_is_said_and_the_rest_left_out() {
        let facts = json!({
            "name": "tiny", "format": "huggingface", "precision": "BF16", "task": "chat", "architecture": "mixtral",
            "family": "mixture-of-experts", "layers": 2, "hidden_size": 64,
            "attention": {"kind": "gqa", "heads": 4, "key_value_heads": 2, "head_size": 16, "window": 512, "windowed_layers": 1},
            "experts": {"count": 8, "active": 2, "shared": 0}, "context": 2048, "positions": "rope", "rope_base": 10000.0,
            "tokenizer": "bpe", "vocabulary": 288, "tied_embeddings": false,
            "parameters": {"total": 1_234_567, "active": 900_000, "non_embedding": 12},
            "file_bytes": 2_469_134, "bytes": {"F32": 4_938_268, "Q8_0": 1_311_727},
            "advice": {
                "strategy": ["attention: every token passes through it", "down projections: at both ends first"],
                "key_value_cache": {"precision": "f16", "bytes_of_context": 1_500_000, "reason": "it is small"}
            }
        });
        let lines: Vec<String> =
            rows(&facts).iter().map(|(label, text)| format!("{label}: {text}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        name: tiny
        format: huggingface, BF16
        task: chat
        architecture: mixtral, mixture of experts
        layers: 2 of 64 elements
        attention: gqa, 4 heads on 2 of keys and values, 16 elements each
        window: 512 tokens in 1 of 2 layers
        experts: 8, 2 active
        context: 2048 tokens
        positions: rope, base 10000.0
        tokenizer: bpe, 288 words
        embeddings: and output apart
        parameters: 1.23 M, 900.00 K active, 12 without embeddings
        size: 2.5 MB
        roughly in: F32 4.9 MB, Q8_0 1.3 MB
        strategy: attention: every token passes through it
                      down projections: at both ends first
        cache: keys and values in f16, a full context 1.5 MB: it is small
        ");
        assert!(rows(&json!({})).is_empty());
    }
}
