//! A quantizer of the words of `trouble`: it writes the word of its source into two files, unless the word says otherwise.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use pajamas_plugin_api::{
    Cancel, Extension, OutputFile, PluginError, ProgressSink, QuantizePlan, QuantizeReport, QuantizeRequest,
    Quantizer, QuantizerInfo, Result, SUMS, Sums, SumsExtension, codes,
};

use crate::words::{deaf, word};

/// Sound in itself; its sources are not.
#[derive(Default)]
pub struct Scribbler {
    plans: AtomicU64,
}

impl Quantizer for Scribbler {
    fn describe(&self) -> QuantizerInfo {
        QuantizerInfo {
            id: "scribbler".into(),
            description: "Does what the word in the source says".into(),
            sources: vec!["trouble".into()],
            target: "scribble".into(),
            precisions: vec!["costly".into(), "plain".into()],
            options_schema: serde_json::json!({
                "type": "object", "properties": {}, "additionalProperties": false
            }),
        }
    }

    fn plan(&self, request: &QuantizeRequest) -> Result<QuantizePlan> {
        assert!(fs::read(&request.source).ok().as_deref() != Some(b"cut-"), "told to panic at half a word");
        let word = word(&request.source)?;
        let invalid = |what: &str| PluginError::new(codes::INVALID_OPTION, what);
        let knows = matches!(&*request.precision, "costly" | "plain") || word == "plan-anything";
        if !knows || request.options.as_object().is_some_and(|options| !options.is_empty()) {
            return Err(invalid("there is no such precision or option"));
        }
        if request.precision == "costly" {
            return Err(PluginError::new("importance-missing", "this precision needs more than the source"));
        }
        let bytes = word.len() as u64;
        let file = |name: &str, bytes: u64| OutputFile { path: name.into(), bytes };
        let mut files = vec![file("one", bytes), file("deep/two", bytes)];
        match word {
            "plan-panic" => panic!("told to panic in plan"),
            "plan-fickle" => files[0].bytes += self.plans.fetch_add(1, Ordering::Relaxed),
            "plan-nothing" => files.clear(),
            "plan-elsewhere" => files[0].path = "../one".into(),
            "plan-writes" => write(&request.output, "draft", word)?,
            "plan-leak" => std::mem::forget(vec![1u8; 8 << 20]),
            _ => {}
        }
        Ok(QuantizePlan { files, peak_memory: 1, notes: Vec::new() })
    }

    fn run(
        &self,
        request: &QuantizeRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<QuantizeReport> {
        let files = self.plan(request)?.files;
        let word = word(&request.source)?;
        assert!(word != "run-panic", "told to panic in run");
        let stubborn = word == "run-stubborn";
        let stops = |cancel: &Cancel| match word {
            "run-deaf" if cancel.is_cancelled() => {
                deaf(&request.source);
                Err(PluginError::cancelled())
            }
            "run-stubborn" => Ok(()),
            _ => cancel.check(),
        };
        stops(cancel)?;
        if request.output.is_file() {
            if word != "run-replaces" {
                return Err(PluginError::new("write-failed", "the output is a file"));
            }
            fs::remove_file(&request.output).map_err(|e| PluginError::new("write-failed", e.to_string()))?;
        }
        if word == "run-half" {
            write(&request.output, "one.part", "ru")?;
        }
        for fraction in if word == "run-backwards" { [0.7, 0.4] } else { [0.4, 0.7] } {
            if progress.progress(fraction, "scribbling").is_break() && !stubborn {
                return Err(PluginError::cancelled());
            }
            stops(cancel)?;
        }
        for file in &files {
            let more = if word == "run-other-size" { "!" } else { "" };
            write(&request.output, &file.path, &format!("{word}{more}"))?;
        }
        match word {
            "run-half" => fs::remove_file(request.output.join("one.part"))
                .map_err(|e| PluginError::new("write-failed", e.to_string()))?,
            "run-surplus" => write(&request.output, "notes", word)?,
            _ => {}
        }
        Ok(QuantizeReport { files, metadata: serde_json::Value::Null })
    }

    fn extension(&self, name: &str) -> Option<Box<dyn Extension>> {
        let sums = |folder: &Path| match fs::read_to_string(folder.join("one")).as_deref() {
            Ok("run-sums") => [("one".into(), "of another file".into())].into(),
            _ => Sums::new(),
        };
        (name == SUMS).then(|| -> Box<dyn Extension> { Box::new(SumsExtension(sums)) })
    }
}

fn write(folder: &Path, name: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap_or(folder))
        .and_then(|()| fs::write(&path, text))
        .map_err(|e| PluginError::new("write-failed", format!("{}: {e}", path.display())))
}
