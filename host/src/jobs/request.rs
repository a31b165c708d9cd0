//! What somebody wants to be made, and the job that it is below the jobs' folder.

use std::path::Path;

use serde_json::{Map, Value};

use super::book::Asked;
use super::folder::{Folder, leads_out, outside};
use crate::error::{Error, Result};
use crate::plugins::Plugins;
use crate::quantize::{self, Form, Job};

/// A model to make an artifact of, as in a file of `pajamas batch`.
#[derive(Debug, Clone)]
pub struct Quantize {
    /// The source, below the jobs' folder.
    pub model: String,
    /// The formats to make.
    pub formats: Vec<String>,
    /// One list of precisions for each format, with colons between.
    pub precision: String,
    /// The artifact's folder, below the jobs' folder.
    pub output: String,
    /// Options after the quantizers' schemas.
    pub options: Map<String, Value>,
}

impl Quantize {
    /// What is told of it.
    ///
    /// # Errors
    /// `invalid-option` when formats and precisions are not as many.
    pub fn asked(&self) -> Result<Asked> {
        Ok(Asked { model: self.model.clone(), output: self.output.clone(), forms: self.forms()? })
    }

    /// The job, with its paths found below `folder`. Looked at again whenever it begins: what lies there may be another.
    ///
    /// # Errors
    /// `path-outside`, `model-not-found`, `invalid-input`; `invalid-option`; what [`Job::check`] refuses.
    pub fn within(&self, folder: &Path, plugins: &Plugins) -> Result<Job> {
        let folder = Folder::open(folder)?;
        let job = Job {
            source: folder.source(&self.model)?,
            output: folder.target(&self.output)?,
            forms: self.forms()?,
            options: options(&self.options, &folder, &|key| quantize::names_files(plugins, key))?,
        };
        job.check(plugins)?;
        Ok(job)
    }

    fn forms(&self) -> Result<Vec<Form>> {
        quantize::forms(&self.formats, &self.precision)
    }
}

/// The options, in which those that name files name such below the folder. Which these are the quantizers say; in the
/// others nothing that could be a path out of it is let through.
fn options(
    options: &Map<String, Value>,
    folder: &Folder,
    names_files: &dyn Fn(&str) -> bool,
) -> Result<Map<String, Value>> {
    let one = |(key, value): (&String, &Value)| {
        let value = match names_files(key) {
            true => found(value, folder)?,
            false => harmless(value).map(|()| value.clone())?,
        };
        Ok((key.clone(), value))
    };
    let checked = options.iter().map(one).collect::<Result<_>>();
    checked.map_err(|error: Error| error.within("the options"))
}

fn found(value: &Value, folder: &Folder) -> Result<Value> {
    match value {
        Value::String(said) => {
            let path = folder.source(said)?;
            let text = path.into_os_string().into_string();
            text.map(Value::from)
                .map_err(|_| Error::new("invalid-input", "`jobs.folder` has a name that is no text"))
        }
        Value::Array(list) => list.iter().map(|value| found(value, folder)).collect(),
        // Not what names a file: the quantizer says so.
        other => Ok(other.clone()),
    }
}

fn harmless(value: &Value) -> Result<()> {
    match value {
        Value::String(text) if leads_out(text) => Err(outside(text)),
        Value::Array(list) => list.iter().try_for_each(harmless),
        Value::Object(map) => map.values().try_for_each(harmless),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_that_name_files_name_such_in_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::create_dir(parent.path().join("jobs")).unwrap();
        for file in ["jobs/a.gguf", "jobs/b.txt", "outside.txt"] {
            std::fs::write(parent.path().join(file), "").unwrap();
        }
        let folder = Folder::open(&parent.path().join("jobs")).unwrap();
        let names = |key: &str| ["imatrix", "texts"].contains(&key);
        let read = |value: Value| options(value.as_object().unwrap(), &folder, &names);
        let given = json!({ "imatrix": "a.gguf", "texts": ["b.txt"], "overrides": ["a=q8_0"], "pure": true });
        let read_well = read(given).unwrap();
        for (path, name) in [(&read_well["imatrix"], "a.gguf"), (&read_well["texts"][0], "b.txt")] {
            let path = Path::new(path.as_str().unwrap());
            assert!(path.is_absolute() && path.is_file() && path.ends_with(name), "{path:?}");
        }
        assert_eq!((&read_well["overrides"], &read_well["pure"]), (&json!(["a=q8_0"]), &json!(true)));
        let outside = parent.path().join("outside.txt");
        for refused in [
            json!({ "imatrix": "../outside.txt" }),
            json!({ "imatrix": outside }),
            json!({ "texts": ["b.txt", "../outside.txt"] }),
            json!({ "unknown": outside }),
            json!({ "unknown": [{ "deep": "../outside.txt" }] }),
        ] {
            let error = read(refused.clone()).unwrap_err();
            assert_eq!(error.code(), "path-outside", "{refused}");
        }
        assert_eq!(read(json!({ "imatrix": "none" })).unwrap_err().code(), "model-not-found");
        assert_eq!(read(json!({ "imatrix": 3 })).unwrap()["imatrix"], 3, "the quantizer refuses it");
    }
}
