//! What has to be known to load a model: which file, of which format, for which task, on what.

use std::path::{Path, PathBuf};

use crate::artifact::{Source, Wanted};
use crate::config::{BackendChoice, DeviceChoice, GrantedFile, Isolation, Model, Options, Remote, Task};
use crate::error::{Error, Result};
use crate::plugins::Asked;

/// A model, ready to be loaded.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What it is called: the id of the configuration, or the path.
    pub id: String,
    /// Its main file.
    pub file: PathBuf,
    /// Its format, for example `gguf`.
    pub format: String,
    /// Its precision, where somebody said.
    pub precision: Option<String>,
    /// What it was made for, as far as configuration and artifact say.
    pub task: Option<Task>,
    /// The configured pipeline, by id.
    pub pipeline: Option<String>,
    /// The artifact's file with the names of the classes.
    pub labels: Option<GrantedFile>,
    /// Which backend may run it.
    pub backend: BackendChoice,
    /// Where it may run.
    pub device: DeviceChoice,
    /// Whether it runs in a process of its own.
    pub isolation: Isolation,
    /// A template for conversations, in place of the model's own.
    pub chat_template: Option<PathBuf>,
    /// The backend's options.
    pub options: Options,
    folder: PathBuf,
}

impl Spec {
    /// The format of models that other servers run.
    pub const REMOTE: &str = "openai";

    /// As the plugins are asked for a backend.
    pub fn asked(&self) -> Asked<'_> {
        let Self { file, format, backend, device, options, .. } = self;
        Asked { file, format, backend, device, options }
    }

    /// A model of the configuration; of an entry that names several ways the first.
    ///
    /// # Errors
    /// `model-not-found`, `manifest-…`, `variant-not-found`, `artifact-corrupt`, each with the model's id.
    pub fn of_model(model: &Model) -> Result<Self> {
        if let Some(remote) = &model.remote {
            return Ok(Self::of_remote(model, remote));
        }
        let within = |e: Error| e.within(format_args!("model `{}`", &*model.id));
        let location =
            model.location().ok_or_else(|| within(Error::new("model-not-found", "it has no path")))?;
        let format = model.format.as_ref().and_then(|formats| formats.first()).map(String::as_str);
        let precision = model.precision.as_ref().and_then(|all| all.first()).map(String::as_str);
        let source = Source::open_as(location, format).map_err(within)?;
        let wanted = Wanted { format, precision };
        let mut spec = Self::of_source(&model.id, &source, wanted).map_err(within)?;
        spec.task = model.task.or(spec.task);
        spec.pipeline = model.pipeline.as_ref().map(|id| id.to_string());
        spec.backend = model.backend.first().cloned().unwrap_or_default();
        spec.device = model.device.first().cloned().unwrap_or_default();
        spec.isolation = model.isolation;
        spec.chat_template = model.chat_template.as_deref().map(Path::to_path_buf);
        spec.options = model.options.clone();
        Ok(spec)
    }

    /// What lies at a path: an artifact's preferred form, or a single file.
    ///
    /// # Errors
    /// As for [`of_model`](Self::of_model).
    pub fn of_path(path: &str, source: &Source) -> Result<Self> {
        Self::of_source(path, source, Wanted::default())
    }

    /// A model of another server: its backend is told where, and no file is looked at.
    fn of_remote(model: &Model, remote: &Remote) -> Self {
        // Of this type nothing can fail to be written.
        let options = match serde_json::to_value(remote) {
            Ok(serde_json::Value::Object(options)) => options,
            _ => Options::new(),
        };
        Self {
            id: model.id.to_string(),
            file: PathBuf::new(),
            format: Self::REMOTE.to_owned(),
            precision: None,
            task: Some(model.task.unwrap_or(Task::Chat)),
            pipeline: None,
            labels: None,
            backend: BackendChoice::Auto,
            device: DeviceChoice::Auto,
            isolation: Isolation::None,
            chat_template: None,
            options,
            folder: PathBuf::new(),
        }
    }

    fn of_source(id: &str, source: &Source, wanted: Wanted<'_>) -> Result<Self> {
        let variant = source.pick(wanted)?;
        let artifact = source.artifact();
        if let Some(artifact) = artifact {
            artifact.check_sizes()?;
        }
        let folder = artifact.map_or_else(|| variant.path.parent().unwrap_or(Path::new(".")), |a| a.folder());
        Ok(Self {
            id: id.to_owned(),
            folder: folder.to_path_buf(),
            task: artifact.and_then(|a| a.manifest().task).or(match variant.format.as_str() {
                "gguf" => Some(Task::Chat),
                _ => None,
            }),
            labels: artifact.and_then(|a| a.labels()).map(|name| GrantedFile::Artifact(name.to_owned())),
            file: variant.path,
            format: variant.format,
            precision: variant.precision,
            pipeline: None,
            backend: BackendChoice::Auto,
            device: DeviceChoice::Auto,
            isolation: Isolation::None,
            chat_template: None,
            options: Options::new(),
        })
    }

    /// What another server calls the model, if it runs on one.
    pub fn remote(&self) -> Option<&str> {
        let name = self.options.get("model").and_then(serde_json::Value::as_str);
        name.filter(|_| self.format == Self::REMOTE)
    }

    /// Where files that belong to the model are looked for: beside its main file, in the folder above it, and in the
    /// artifact's folder.
    pub fn folders(&self) -> Vec<PathBuf> {
        let beside = self.file.parent().unwrap_or(Path::new("."));
        let mut folders = vec![beside.to_path_buf()];
        folders.extend(beside.parent().map(Path::to_path_buf));
        folders.push(self.folder.clone());
        folders.dedup();
        folders
    }

    /// The folder that `artifact:` paths start from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
