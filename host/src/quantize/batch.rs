//! Many models, one after the other: what a file asks for, and what became of each.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::Cancel;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Job, Made, Progress, forms, names_files};
use crate::error::{Error, Result};
use crate::hub::Repository;
use crate::plugins::Plugins;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// The most models.
const MOST_MODELS: usize = 1000;

/// Models to make artifacts of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Options of every model, unless it has its own.
    #[serde(default)]
    options: Map<String, Value>,
    models: Vec<Entry>,
    /// The file's folder.
    #[serde(skip)]
    folder: PathBuf,
}

/// One model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// The source, relative to the file, or the id of a repository.
    model: PathBuf,
    #[serde(default = "super::usual_formats")]
    formats: Vec<String>,
    /// One list of precisions for each format, with colons between.
    precision: String,
    /// The artifact's folder, relative to the file.
    output: PathBuf,
    #[serde(default)]
    options: Map<String, Value>,
}

/// What became of a model.
#[derive(Debug, Serialize)]
pub struct Ended {
    /// The source, as the file has it.
    pub model: PathBuf,
    /// The artifact's folder.
    pub output: PathBuf,
    /// What was made, when all was.
    pub made: Vec<Made>,
    /// Code and message of what it was refused for.
    pub refused: Option<Refused>,
}

/// Why a model was refused.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Refused {
    pub code: String,
    pub message: String,
    pub help: String,
}

impl Batch {
    /// Reads a file. Everything in it is checked before anything is made.
    ///
    /// # Errors
    /// `file-not-found`, `io`; `batch-invalid` with the line or the entry.
    pub fn read(path: &Path) -> Result<Self> {
        let about = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?;
        let invalid = |what: String| Error::new("batch-invalid", format!("{}: {what}", path.display()));
        if about.len() > MAX_BYTES {
            return Err(invalid(format!("{} bytes, more than {MAX_BYTES}", about.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
        let mut batch: Self = toml::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if batch.models.is_empty() || batch.models.len() > MOST_MODELS {
            return Err(invalid(format!("{} [[models]], not 1 to {MOST_MODELS}", batch.models.len())));
        }
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        for (number, entry) in batch.models.iter_mut().enumerate() {
            let wrong = |e: Error| invalid(format!("model {}: {}", number + 1, e.message()));
            forms(&entry.formats, &entry.precision).map_err(wrong)?;
            let beside = folder.join(&entry.model);
            // What lies beside the file goes before a repository of the same name, and that before what lies elsewhere.
            entry.model = match entry.model.to_str().filter(|_| !beside.exists()).map(Repository::read) {
                Some(read) => read.map_err(wrong)?.map_or(beside, |id| format!("hf:{id}").into()),
                None => beside,
            };
            entry.output = folder.join(&entry.output);
        }
        batch.folder = folder;
        Ok(batch)
    }

    /// Makes one artifact after the other; one that is refused does not stop the others. `progress` and `cancel` are
    /// those of the run at work; `find` is asked where a model lies, and `ended` is told of each.
    ///
    /// # Errors
    /// `cancelled`: what was made until then stays.
    pub fn run(
        &self,
        plugins: &Plugins,
        progress: &mut Progress<'_>,
        cancel: &Cancel,
        find: &mut dyn FnMut(&Path) -> Result<PathBuf>,
        ended: &mut dyn FnMut(&Ended) -> Result<()>,
    ) -> Result<Vec<Ended>> {
        let mut all = Vec::with_capacity(self.models.len());
        for entry in &self.models {
            cancel.check()?;
            let (made, refused) = match self.make(entry, plugins, progress, cancel, find) {
                Ok(made) => (made, None),
                Err(error) if error.code() == "cancelled" => return Err(error),
                Err(error) => (Vec::new(), Some(Refused::from(&error))),
            };
            let one = Ended { model: entry.model.clone(), output: entry.output.clone(), made, refused };
            ended(&one)?;
            all.push(one);
        }
        Ok(all)
    }

    fn make(
        &self,
        entry: &Entry,
        plugins: &Plugins,
        progress: &mut Progress<'_>,
        cancel: &Cancel,
        find: &mut dyn FnMut(&Path) -> Result<PathBuf>,
    ) -> Result<Vec<Made>> {
        let mut job = Job { source: find(&entry.model)?, ..self.job(entry)? };
        for (name, value) in &mut job.options {
            if names_files(plugins, name) {
                self.beside(value);
            }
        }
        job.run(plugins, progress, cancel)
    }

    /// Files that an option names lie where the file does, as models do.
    fn beside(&self, value: &mut Value) {
        match value {
            Value::String(path) => *path = self.folder.join(&*path).to_string_lossy().into_owned(),
            Value::Array(list) => list.iter_mut().for_each(|value| self.beside(value)),
            _ => {}
        }
    }

    fn job(&self, entry: &Entry) -> Result<Job> {
        let mut options = self.options.clone();
        options.extend(entry.options.clone());
        Ok(Job {
            source: entry.model.clone(),
            output: entry.output.clone(),
            forms: forms(&entry.formats, &entry.precision)?,
            options,
        })
    }
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        Self { code: error.code().into(), message: error.message().into(), help: error.how_to_fix().into() }
    }
}

/// The error of a batch of which some models were refused.
pub fn failure(all: &[Ended]) -> Option<Error> {
    let failed = all.iter().filter(|one| one.refused.is_some()).count();
    (failed > 0).then(|| {
        Error::new("batch-failed", format!("{failed} of {} models were refused", all.len())).help(
            "run it again when what they were refused for is mended: what is there already is not made again",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Batch> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch.toml");
        std::fs::write(&path, text).unwrap();
        Batch::read(&path).map_err(|e| {
            assert_eq!(e.code(), "batch-invalid");
            Error::new("batch-invalid", e.message().replace(&format!("{}/", folder.path().display()), ""))
        })
    }

    #[test]
    fn a_file_says_what_to_make_and_its_options_hold_unless_a_model_has_its_own() {
        let batch = read(
            "options = { threads = 2, pure = true }\n[[models]]\nmodel = \"a\"\nprecision = \"Q8_0,F16\"\noutput = \"out/a\"\n\
             [[models]]\nmodel = \"/b\"\nformats = [\"gguf\", \"mlx\"]\nprecision = \"Q4_0:4bit\"\noutput = \"b\"\noptions = { pure = false }\n",
        )
        .unwrap();
        let jobs: Vec<Job> = batch.models.iter().map(|entry| batch.job(entry).unwrap()).collect();
        assert!(jobs[0].source.ends_with("a") && jobs[0].output.ends_with("out/a"));
        assert_eq!(jobs[1].source, Path::new("/b"));
        let precisions = |job: &Job| job.forms.iter().map(|f| f.precision.clone()).collect::<Vec<_>>();
        assert_eq!(
            (precisions(&jobs[0]), precisions(&jobs[1])),
            (vec!["Q8_0".to_owned(), "F16".to_owned()], vec!["Q4_0".to_owned(), "4bit".to_owned()])
        );
        assert_eq!((&jobs[0].options["pure"], &jobs[1].options["pure"]), (&true.into(), &false.into()));
        assert_eq!(jobs[1].options["threads"], 2);
    }

    #[test]
    fn files_that_options_name_lie_beside_the_file() {
        let mut batch = read("[[models]]\nmodel = \"a\"\nprecision = \"Q8_0\"\noutput = \"b\"").unwrap();
        batch.folder = "/batches".into();
        let mut value = serde_json::json!(["a.txt", "/b.txt", 3]);
        batch.beside(&mut value);
        assert_eq!(value, serde_json::json!(["/batches/a.txt", "/b.txt", 3]));
    }

    #[test]
    fn a_repository_may_be_named_where_no_path_is() {
        let entry =
            |model| format!("[[models]]\nmodel = \"{model}\"\nprecision = \"Q8_0\"\noutput = \"out\"\n");
        let of = |model| read(&entry(model)).unwrap().models[0].model.clone();
        assert_eq!(of("org/name@v1"), Path::new("hf:org/name@v1"));
        assert_eq!(of("hf:gpt2"), Path::new("hf:gpt2"));
        assert!(of("./org/name").ends_with("org/name") && of("./org/name").is_absolute());
        assert!(read(&entry("hf:../x")).unwrap_err().message().contains("model 1"));
        // A folder beside the file is meant before a repository of its name.
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("org/name")).unwrap();
        std::fs::write(folder.path().join("batch.toml"), entry("org/name")).unwrap();
        let batch = Batch::read(&folder.path().join("batch.toml")).unwrap();
        assert_eq!(batch.models[0].model, folder.path().join("org/name"));
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_made() {
        for (text, what) in [
            ("models = []", "0 [[models]]"),
            ("[[models]]\nmodel = \"a\"\noutput = \"b\"", "missing field `precision`"),
            (
                "[[models]]\nmodel = \"a\"\noutput = \"b\"\nprecision = \"Q8_0\"\nspeed = 1",
                "unknown field `speed`",
            ),
            ("[[models]]\nmodel = \"a\"\noutput = \"b\"\nprecision = \"Q8_0:4bit\"", "model 1: "),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.message().contains(what), "{}", error.message());
        }
    }
}
