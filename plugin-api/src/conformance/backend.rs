//! Checks that need no model: how a backend describes itself, and how it refuses.

use std::sync::Arc;

use serde_json::Value;

use super::runner::{Finding, Runner, passed, refused, skipped};
use super::scratch::Scratch;
use super::{extension, model};
use crate::host::{LoadedBackend, LoadedPlugin};
use crate::{Backend, BackendInfo, Cancel, LoadRequest, PluginInfo, Result, Session, capability, codes};

/// The ids of all backends and quantizers.
pub(super) fn ids(plugin: &LoadedPlugin) -> Vec<String> {
    let backends = plugin.backends.iter().map(|b| format!("backend {}", b.info.id));
    backends.chain(plugin.quantizers.iter().map(|q| format!("quantizer {}", q.info.id))).collect()
}

pub(super) fn plugin_description(info: &PluginInfo, ids: &[String]) -> Finding {
    if ids.is_empty() {
        return Err("it exports neither a backend nor a quantizer".into());
    }
    if let Some(twice) = ids.iter().enumerate().find(|(i, id)| ids[..*i].contains(id)) {
        return Err(format!("{} is exported twice", twice.1));
    }
    for (what, text) in [("name", &info.name), ("version", &info.version), ("license", &info.license)] {
        if text.is_empty() {
            return Err(format!("`PluginInfo::{what}` is empty"));
        }
    }
    passed(format!("{} {}: {}", info.name, info.version, ids.join(", ")))
}

/// All checks of one backend.
pub(super) fn check(runner: &mut Runner, loaded: &LoadedBackend) {
    runner.subject(format!("backend {}", loaded.info.id));
    let info = loaded.info.clone();
    runner.run("describes itself", move || description(&info));
    let backend = Arc::clone(&loaded.backend);
    runner.run("probes alike twice", move || probe(&*backend));
    if loaded.probe.score == 0 {
        runner.skip("refuses bad models", &format!("it does not run here: {}", loaded.probe.reason));
        return;
    }
    for (name, content, expected) in [
        ("refuses a missing model", Content::Missing, codes::MODEL_NOT_FOUND),
        ("refuses an empty model", Content::Bytes(Vec::new()), codes::MODEL_INVALID),
        ("refuses a model of noise", Content::Bytes(noise()), codes::MODEL_INVALID),
    ] {
        let (backend, info) = (Arc::clone(&loaded.backend), loaded.info.clone());
        runner.run(name, move || bad_model(&*backend, &info, &content, expected));
    }
    let backend = Arc::clone(&loaded.backend);
    extension::check(runner, extension::OF_BACKENDS, move |name| backend.extension(name));
    for path in runner.options.models.clone() {
        if let Some(format) = model::format_for(&loaded.info, &path) {
            model::check(runner, loaded, &path, &format);
        }
    }
}

fn description(info: &BackendInfo) -> Finding {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let named =
        |what: &str, names: &[String]| match names.iter().find(|n| n.is_empty() || !n.chars().all(plain)) {
            Some(name) => Err(format!("{what} {name:?} must be lower-case letters, digits, `-`, `_` or `.`")),
            None => Ok(()),
        };
    named("the id", std::slice::from_ref(&info.id))?;
    named("the format", &info.formats)?;
    named("the device kind", &info.device_kinds)?;
    named("the capability", &info.capabilities)?;
    for (what, empty) in [
        ("description", info.description.is_empty()),
        ("formats", info.formats.is_empty()),
        ("device_kinds", info.device_kinds.is_empty()),
        ("capabilities", info.capabilities.is_empty()),
    ] {
        if empty {
            return Err(format!("`BackendInfo::{what}` is empty"));
        }
    }
    options_schema(&info.options_schema)?;
    let known = [capability::INFER, capability::GENERATE, capability::EMBED, capability::TOKENIZE];
    let other: Vec<&str> =
        info.capabilities.iter().map(String::as_str).filter(|c| !known.contains(c)).collect();
    passed(match other.is_empty() {
        true => format!("formats {}", info.formats.join(", ")),
        false => format!("capabilities unknown to this version: {}", other.join(", ")),
    })
}

/// Whether options can be read off a schema.
pub(super) fn options_schema(schema: &Value) -> std::result::Result<(), String> {
    match schema {
        Value::Null => Ok(()),
        Value::Object(schema) if schema.get("properties").is_some_and(Value::is_object) => Ok(()),
        _ => Err("`options_schema` must be a JSON Schema object with `properties`, or null".into()),
    }
}

fn probe(backend: &dyn Backend) -> Finding {
    let (first, second) = (backend.probe(), backend.probe());
    let devices = |p: &crate::Probe| p.devices.iter().map(|d| d.id.clone()).collect::<Vec<_>>();
    if first.score != second.score || devices(&first) != devices(&second) {
        return Err(format!("score {} first, then {}", first.score, second.score));
    }
    if first.reason.is_empty() {
        return Err("the score has no reason".into());
    }
    if first.score > 0 && first.devices.is_empty() {
        return Err("it scores, but names no device".into());
    }
    passed(format!("score {}: {}", first.score, first.reason))
}

/// What lies at a model's path.
enum Content {
    Missing,
    Bytes(Vec<u8>),
}

fn bad_model(backend: &dyn Backend, info: &BackendInfo, content: &Content, expected: &str) -> Finding {
    let Some(format) = info.formats.first() else { return skipped("it has no formats") };
    let folder = Scratch::new()?;
    let path = folder.0.join(format!("model.{format}"));
    if let Content::Bytes(bytes) = content {
        std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let request = LoadRequest { path, format: format.clone(), device: String::new(), options: Value::Null };
    refused(backend.estimate(&request), &[expected]).map_err(|fault| format!("estimate: {fault}"))?;
    refused(load(backend, &request, &Cancel::new()), &[expected]).map_err(|fault| format!("load: {fault}"))
}

/// Loads without listening to progress.
pub(super) fn load(
    backend: &dyn Backend,
    request: &LoadRequest,
    cancel: &Cancel,
) -> Result<Box<dyn Session>> {
    backend.load(request, &mut |_: f32, _: &str| std::ops::ControlFlow::Continue(()), cancel)
}

/// Bytes that are no model of any format, the same every time.
pub(super) fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..4096).map(next).collect()
}
