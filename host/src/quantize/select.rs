//! Which quantizer makes which form.

use pajamas_plugin_api::QuantizeRequest;
use serde_json::{Map, Value};

use super::origin::Origin;
use super::{Form, Job, origin};
use crate::config::{suggest, text};
use crate::error::{Error, Result};
use crate::plugins::{ActiveQuantizer, Plugins};

/// A form, who makes it, and what is asked of him.
pub(super) struct Selected<'p> {
    pub form: Form,
    pub quantizer: &'p ActiveQuantizer,
    pub request: QuantizeRequest,
}

/// Finds the quantizer of every form of a job.
pub(super) fn all<'p>(job: &Job, plugins: &'p Plugins) -> Result<Vec<Selected<'p>>> {
    of(job, &origin::of(&job.source)?, plugins)
}

/// As [`all`], out of this source.
pub(super) fn of<'p>(job: &Job, source: &Origin, plugins: &'p Plugins) -> Result<Vec<Selected<'p>>> {
    let mut selected: Vec<Selected<'p>> = Vec::new();
    for form in &job.forms {
        let quantizer = quantizer(plugins, &form.format, &source.format)?;
        let precision = precision(quantizer, &form.precision)?;
        let options = known(quantizer, &job.options);
        let form = Form { format: quantizer.info.target.clone(), precision };
        if selected.iter().any(|other| other.form == form) {
            let message = format!("{} in {} was asked for twice", form.format, form.precision);
            return Err(Error::new("invalid-option", message).help("name each precision of a format once"));
        }
        let request = QuantizeRequest {
            source: source.path.clone(),
            output: job.output.join(&form.format).join(&form.precision),
            precision: form.precision.clone(),
            options: Value::Object(options),
        };
        selected.push(Selected { form, quantizer, request });
    }
    check_options(job, &selected)?;
    Ok(selected)
}

fn quantizer<'p>(plugins: &'p Plugins, format: &str, source: &str) -> Result<&'p ActiveQuantizer> {
    let makes = |q: &&ActiveQuantizer| q.info.target.eq_ignore_ascii_case(format);
    let found = plugins.quantizers().iter().filter(makes);
    if let Some(quantizer) = found.clone().find(|q| q.info.sources.iter().any(|s| s == source)) {
        return Ok(quantizer);
    }
    let sources: Vec<&str> = found.flat_map(|q| q.info.sources.iter().map(String::as_str)).collect();
    let formats = plugins.quantizers().iter().map(|q| q.info.target.as_str());
    let (message, help) = match (sources.is_empty(), plugins.quantizers().is_empty()) {
        (false, _) => (
            format!("no plugin makes {format} out of {source}"),
            format!("{format} is made out of {}", sources.join(", ")),
        ),
        (true, false) => (format!("no plugin makes {format}"), suggest::help(format, "formats", formats)),
        (true, true) => (
            "no plugin that quantizes is here".to_owned(),
            "install the plugin `quant`; `pajamas plugins list` says where plugins are searched".to_owned(),
        ),
    };
    Err(Error::new("quantizer-not-found", message).help(help))
}

/// The precision as the quantizer spells it, which also names a folder.
fn precision(quantizer: &ActiveQuantizer, wanted: &str) -> Result<String> {
    let known = || quantizer.info.precisions.iter().map(String::as_str);
    match known().find(|name| name.eq_ignore_ascii_case(wanted)) {
        Some(name) if text::stays_inside(name) => Ok(name.to_owned()),
        _ => {
            let message = format!("{} has no precision `{}`", quantizer.info.target, wanted.escape_debug());
            Err(Error::new("invalid-option", message).help(suggest::help(wanted, "precisions", known())))
        }
    }
}

/// The options that a quantizer knows.
fn known(quantizer: &ActiveQuantizer, options: &Map<String, Value>) -> Map<String, Value> {
    let knows = |key: &str| properties(quantizer).is_some_and(|p| p.contains_key(key));
    options.iter().filter(|(key, _)| knows(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// An option that none of the quantizers knows is a mistake.
fn check_options(job: &Job, selected: &[Selected<'_>]) -> Result<()> {
    let all =
        || selected.iter().filter_map(|s| properties(s.quantizer)).flat_map(Map::keys).map(String::as_str);
    match job.options.keys().find(|key| !all().any(|known| known == key.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let message = format!("none of these formats has an option `{}`", unknown.escape_debug());
            let known: Vec<&str> = all().collect();
            Err(Error::new("invalid-option", message).help(suggest::help(unknown, "options", known)))
        }
    }
}

/// Whether some quantizer says of an option that it names files: with `"format": "path"`, of itself or of its items.
pub fn names_files(plugins: &Plugins, option: &str) -> bool {
    let marked = |schema: &Value| schema["format"] == "path" || schema["items"]["format"] == "path";
    plugins.quantizers().iter().any(|q| properties(q).and_then(|p| p.get(option)).is_some_and(marked))
}

fn properties(quantizer: &ActiveQuantizer) -> Option<&Map<String, Value>> {
    quantizer.info.options_schema.get("properties").and_then(Value::as_object)
}
