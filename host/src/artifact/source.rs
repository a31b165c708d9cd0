//! From what a person writes to a model: an id of the configuration, an artifact's folder, or a model file.

use std::path::{Path, PathBuf};

use super::folder::{Artifact, Variant, Wanted};
use super::magic;
use crate::config::{self, Config, suggest};
use crate::error::{Error, Result};

/// Where a model's bytes come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A folder with a manifest.
    Artifact(Box<Artifact>),
    /// A single file.
    File(ModelFile),
}

/// A single model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it lies.
    pub path: PathBuf,
    /// `gguf` or `onnx`, by what the file begins with; or what the configuration says it is.
    pub format: String,
}

/// What a person's word for a model stands for.
#[derive(Debug, Clone)]
pub enum Reference<'c> {
    /// An entry of the configuration.
    Configured(&'c config::Model),
    /// A path.
    Path(Source),
}

impl Source {
    /// What lies at `path`: an artifact, a model file, or a manifest, which stands for its artifact.
    ///
    /// # Errors
    /// `model-not-found` with the nearest name beside it; `model-invalid` for a file that is no model, with what it is;
    /// as for [`Artifact::open`] for a folder.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, None)
    }

    /// As [`open`](Self::open), where somebody said what format it has: formats that the host does not know by their
    /// first bytes are left to the backend that does.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_as(path: &Path, format: Option<&str>) -> Result<Self> {
        if path.is_dir() {
            return Artifact::open(path).map(|artifact| Self::Artifact(Box::new(artifact)));
        }
        if !path.exists() {
            let message = format!("{}: no such file or folder", path.display());
            return Err(Error::new("model-not-found", message).help(beside(path)));
        }
        match (path.file_name(), path.parent()) {
            (Some(name), Some(folder)) if name == super::MANIFEST => {
                Self::open(match folder.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => folder,
                })
            }
            _ => {
                let format = match format.filter(|format| !magic::FORMATS.contains(format)) {
                    Some(format) => format.to_owned(),
                    None => magic::format_of(path)?.to_owned(),
                };
                Ok(Self::File(ModelFile { path: path.to_owned(), format }))
            }
        }
    }

    /// The forms of the model, the preferred one first.
    pub fn variants(&self) -> Vec<Variant> {
        match self {
            Self::Artifact(artifact) => artifact.variants().collect(),
            Self::File(file) => vec![file.variant()],
        }
    }

    /// The first form that is wanted.
    ///
    /// # Errors
    /// `variant-not-found` with what there is; `artifact-corrupt`. A file's precision is not known before it is loaded:
    /// asking for one is asking too much.
    pub fn pick(&self, wanted: Wanted<'_>) -> Result<Variant> {
        match self {
            Self::Artifact(artifact) => artifact.pick(wanted),
            Self::File(file) if wanted.admits(&file.variant()) => Ok(file.variant()),
            Self::File(file) => {
                let message = format!(
                    "{}: asked for {wanted}, but this is a single {} file",
                    file.path.display(),
                    file.format
                );
                Err(Error::new("variant-not-found", message)
                    .help("leave out `format` and `precision`, or name an artifact"))
            }
        }
    }

    /// The artifact, when it is one.
    pub fn artifact(&self) -> Option<&Artifact> {
        match self {
            Self::Artifact(artifact) => Some(artifact),
            Self::File(_) => None,
        }
    }
}

impl ModelFile {
    fn variant(&self) -> Variant {
        Variant { format: self.format.clone(), precision: None, path: self.path.clone() }
    }
}

/// What `word` stands for: first an id of the configuration, then a path.
///
/// # Errors
/// `model-not-found` with what was tried; for a path that exists, as for [`Source::open`].
pub fn resolve<'c>(word: &str, config: &'c Config) -> Result<Reference<'c>> {
    if let Some(model) = config.model(word) {
        return Ok(Reference::Configured(model));
    }
    let path = Path::new(word);
    if path.exists() {
        return Source::open(path).map(Reference::Path);
    }
    let ids: Vec<&str> = config.names().collect();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let message = format!(
        "there is no model `{word}`: tried the ids of the configuration ({}) and the path {}",
        if ids.is_empty() { "it has none".to_owned() } else { ids.join(", ") },
        absolute.display()
    );
    let help = match suggest::nearest(word, ids.iter().copied()) {
        Some(id) => format!("did you mean `{id}`?"),
        None => beside(path),
    };
    Err(Error::new("model-not-found", message).help(help))
}

/// The file or folder that may have been meant by a path that leads nowhere.
fn beside(path: &Path) -> String {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match suggest::nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {}?", path.with_file_name(near).display()),
        None if !folder.exists() => format!("the folder {} does not exist either", folder.display()),
        None => "name a configured model, an artifact's folder, or a .gguf or .onnx file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadOptions;

    /// A folder with a GGUF file, and a configuration that names it `chat`.
    fn house() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("small.gguf"), "GGUF\x03").unwrap();
        let toml = "[[models]]\nid = \"chat\"\npath = \"small.gguf\"\n";
        std::fs::write(folder.path().join("pajamas.toml"), toml).unwrap();
        let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
        let config = Config::load(&options).unwrap();
        (folder, config)
    }

    #[test]
    fn a_format_that_only_a_plugin_knows_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.bigram");
        std::fs::write(&path, "a b\n").unwrap();
        let open = |format| Source::open_as(&path, format).map(|source| source.variants()[0].format.clone());
        assert_eq!(open(Some("bigram")).unwrap(), "bigram");
        assert_eq!(open(Some("gguf")).unwrap_err().code(), "model-invalid");
        assert_eq!(open(None).unwrap_err().code(), "model-invalid");
    }

    #[test]
    fn an_id_goes_before_a_path() {
        let (folder, config) = house();
        assert!(matches!(resolve("chat", &config).unwrap(), Reference::Configured(m) if *m.id == *"chat"));
        let path = folder.path().join("small.gguf");
        match resolve(path.to_str().unwrap(), &config).unwrap() {
            Reference::Path(Source::File(file)) => {
                assert_eq!((file.format.as_str(), &file.path), ("gguf", &path));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_model_is_refused_with_what_was_tried() {
        let (folder, config) = house();
        let error = resolve("chta", &config).unwrap_err();
        assert_eq!((error.code(), error.how_to_fix()), ("model-not-found", "did you mean `chat`?"));
        assert!(
            error.message().contains("(chat)") && error.message().contains("/chta"),
            "{}",
            error.message()
        );
        let path = folder.path().join("smal.gguf");
        let error = resolve(path.to_str().unwrap(), &config).unwrap_err();
        assert!(error.how_to_fix().ends_with("/small.gguf?"), "{}", error.how_to_fix());
        let error = Source::open(&folder.path().join("no/x.gguf")).unwrap_err();
        assert!(error.how_to_fix().ends_with("/no does not exist either"), "{}", error.how_to_fix());
    }

    #[test]
    fn a_single_file_has_one_form() {
        let (folder, _) = house();
        let source = Source::open(&folder.path().join("small.gguf")).unwrap();
        assert_eq!(source.variants().len(), 1);
        assert!(source.pick(Wanted::default()).is_ok() && source.artifact().is_none());
        let error = source.pick(Wanted { format: Some("onnx"), precision: None }).unwrap_err();
        assert_eq!(error.code(), "variant-not-found");
    }

    #[test]
    fn a_manifest_stands_for_its_folder() {
        let (folder, _) = house();
        let json = r#"{ "model_id": "m", "formats": [{ "type": "gguf", "path": "small.gguf" }] }"#;
        std::fs::write(folder.path().join("manifest.json"), json).unwrap();
        for path in [folder.path().to_owned(), folder.path().join("manifest.json")] {
            let source = Source::open(&path).unwrap();
            assert_eq!(source.pick(Wanted::default()).unwrap().path, folder.path().join("small.gguf"));
        }
    }
}
