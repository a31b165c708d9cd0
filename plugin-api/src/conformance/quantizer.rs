//! Checks of quantizers that need no source: how they describe themselves, and how they refuse.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::backend::{noise, options_schema};
use super::runner::{Finding, Runner, passed, refused, refused_somehow};
use super::scratch::Scratch;
use super::{extension, source};
use crate::host::LoadedQuantizer;
use crate::{Cancel, QuantizeReport, QuantizeRequest, Quantizer, QuantizerInfo, Result, codes};

/// Whether a quantizer reads what lies at a path: a file or folder whose extension is one of its sources, or a
/// folder of Hugging Face.
pub(super) fn reads(info: &QuantizerInfo, path: &Path) -> bool {
    let named = |format: &str| info.sources.iter().any(|source| source == format);
    path.extension().is_some_and(|e| named(&e.to_string_lossy().to_lowercase()))
        || (named("huggingface") && path.join("config.json").is_file())
}

/// All checks of one quantizer.
pub(super) fn check(runner: &mut Runner, loaded: &LoadedQuantizer) {
    runner.subject(format!("quantizer {}", loaded.info.id));
    let info = loaded.info.clone();
    runner.run("describes itself", move || description(&info));
    let subject = || (Arc::clone(&loaded.quantizer), loaded.info.clone());
    let (quantizer, info) = subject();
    runner.run("refuses a missing source", move || {
        bad_source(&*quantizer, &info, "no-such-folder", |_| Ok(()), &[codes::MODEL_NOT_FOUND])
    });
    let (quantizer, info) = subject();
    runner.run("refuses an empty folder", move || {
        bad_source(&*quantizer, &info, "empty", |path| fs::create_dir(path), &[])
    });
    let (quantizer, info) = subject();
    runner.run("refuses a source of noise", move || {
        let mut finding = passed("");
        for format in &info.sources {
            let write = |path: &Path| fs::write(path, noise());
            finding = bad_source(&*quantizer, &info, &format!("noise.{format}"), write, &[]);
            finding.as_ref().map_err(Clone::clone)?;
        }
        finding
    });
    let quantizer = Arc::clone(&loaded.quantizer);
    extension::check(runner, extension::OF_QUANTIZERS, move |name| quantizer.extension(name));
    let sources: Vec<_> =
        runner.options.models.iter().filter(|path| reads(&loaded.info, path)).cloned().collect();
    if sources.is_empty() {
        let reason = format!("no source was given; it reads {}", loaded.info.sources.join(", "));
        runner.skip("plans, and writes nothing", &reason);
    }
    for path in sources {
        source::check(runner, loaded, &path);
    }
}

fn description(info: &QuantizerInfo) -> Finding {
    for (what, empty) in [
        ("id", info.id.is_empty()),
        ("description", info.description.is_empty()),
        ("sources", info.sources.is_empty()),
        ("target", info.target.is_empty()),
        ("precisions", info.precisions.is_empty()),
    ] {
        if empty {
            return Err(format!("`QuantizerInfo::{what}` is empty"));
        }
    }
    if let Some(twice) = info.precisions.iter().enumerate().find(|(i, p)| info.precisions[..*i].contains(p)) {
        return Err(format!("the precision `{}` is named twice", twice.1));
    }
    options_schema(&info.options_schema)?;
    passed(format!("{} to {}", info.sources.join(", "), info.target))
}

/// Neither plans nor runs with this source, and leaves nothing. Without `expected` the code is the plugin's choice.
fn bad_source(
    quantizer: &dyn Quantizer,
    info: &QuantizerInfo,
    name: &str,
    make: impl Fn(&Path) -> std::io::Result<()>,
    expected: &[&str],
) -> Finding {
    let (folder, output) = (Scratch::new()?, Scratch::new()?);
    let source = folder.0.join(name);
    make(&source).map_err(|e| format!("{}: {e}", source.display()))?;
    let precision = info.precisions.first().cloned().unwrap_or_default();
    let request = QuantizeRequest { source, output: output.0.join("out"), precision, options: Value::Null };
    refuses(quantizer, &request, expected)?;
    output.untouched()?;
    passed("")
}

/// Requires that both a plan and a run are refused.
pub(super) fn refuses(quantizer: &dyn Quantizer, request: &QuantizeRequest, expected: &[&str]) -> Finding {
    let as_expected = |what: &str, result: Result<()>| {
        let finding = if expected.is_empty() { refused_somehow(result) } else { refused(result, expected) };
        finding.map_err(|fault| format!("{what}: {fault}"))
    };
    as_expected("plan", quantizer.plan(request).map(drop))?;
    as_expected("run", run(quantizer, request, &Cancel::new()).map(drop))
}

/// Runs without listening to progress.
pub(super) fn run(
    quantizer: &dyn Quantizer,
    request: &QuantizeRequest,
    cancel: &Cancel,
) -> Result<QuantizeReport> {
    quantizer.run(request, &mut |_: f32, _: &str| std::ops::ControlFlow::Continue(()), cancel)
}
