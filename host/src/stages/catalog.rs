//! Where stages are found.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Stage, StageEngine, packed};
use crate::{Error, Result};

/// A stage that is part of this program.
#[derive(Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// SHA-256 of the component, in hexadecimal.
    pub sha256: &'static str,
    /// The stage that it is packed against; empty for that stage itself.
    base: &'static str,
    /// The component, packed.
    packed: &'static [u8],
}

/// The stages that are part of this program, by name. The build script packs them.
pub const BUILT_IN: &[BuiltIn] = include!(concat!(env!("OUT_DIR"), "/stages.rs"));

impl BuiltIn {
    /// The stage of this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        BUILT_IN.iter().find(|stage| stage.name == name)
    }

    /// Loads it; what was compiled before is not unpacked.
    ///
    /// # Errors
    /// As for [`StageEngine::load`].
    pub fn load(&self, engine: &StageEngine) -> Result<Stage> {
        let unpacked = || {
            let base = Self::of(self.base)
                .map_or_else(|| Ok(Vec::new()), |base| packed::unpack(base.packed, &[]))?;
            Ok(packed::unpack(self.packed, &base)?.into())
        };
        engine.load_known(self.name, self.sha256, unpacked)
    }
}

/// Where a stage comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A file in one of the folders.
    File(PathBuf),
    /// Part of this program.
    BuiltIn,
}

/// Stages by name. A folder's stage of the same name comes before a later folder's and before the built-in one.
#[derive(Debug, Clone)]
pub struct Catalog {
    folders: Vec<PathBuf>,
}

impl Catalog {
    /// Looks into the configured folders in their order, then into `stages/` beside the running program, then at
    /// what is built in. Folders need not exist.
    pub fn new(configured: Vec<PathBuf>) -> Self {
        let mut folders = configured;
        let program = std::env::current_exe().ok();
        folders.extend(program.as_deref().and_then(Path::parent).map(|folder| folder.join("stages")));
        Self { folders }
    }

    /// The folders in the order in which they are searched.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Where a stage of this name comes from. A name that ends in `.wasm` is a path.
    pub fn find(&self, name: &str) -> Result<Origin> {
        if name.ends_with(".wasm") {
            let path = PathBuf::from(name);
            return if path.is_file() { Ok(Origin::File(path)) } else { Err(missing_file(&path)) };
        }
        let is_name =
            |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let file = format!("{name}.wasm");
        let in_folder =
            is_name(name).then(|| self.folders.iter().map(|f| f.join(&file)).find(|p| p.is_file())).flatten();
        if let Some(path) = in_folder {
            return Ok(Origin::File(path));
        }
        match BuiltIn::of(name) {
            Some(_) => Ok(Origin::BuiltIn),
            None => Err(self.missing(name)),
        }
    }

    /// Finds and loads a stage.
    pub fn load(&self, engine: &StageEngine, name: &str) -> Result<Stage> {
        match self.find(name)? {
            Origin::File(path) => engine.load_file(&path),
            Origin::BuiltIn => BuiltIn::of(name).ok_or_else(|| self.missing(name))?.load(engine),
        }
    }

    /// Every stage that can be found by name, sorted, with where it comes from.
    pub fn list(&self) -> Vec<(String, Origin)> {
        let in_folders = self.folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
        let mut names: Vec<String> = in_folders
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .chain(BUILT_IN.iter().map(|stage| stage.name.to_owned()))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.find(&name).ok().map(|origin| (name, origin))).collect()
    }

    fn missing(&self, name: &str) -> Error {
        Error::new("stage-not-found", format!("there is no stage `{name}`")).help(self.suggestion(name))
    }

    fn suggestion(&self, name: &str) -> String {
        let names: Vec<String> = self.list().into_iter().map(|(name, _)| name).collect();
        let near = names
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
        match near {
            Some(near) if strsim::jaro_winkler(near, name) > 0.8 => format!("did you mean `{near}`?"),
            _ => format!("there are {}; a path that ends in .wasm is taken as a file", names.join(", ")),
        }
    }
}

fn missing_file(path: &Path) -> Error {
    Error::new("file-not-found", format!("{}: no such file", path.display()))
}
