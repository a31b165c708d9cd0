//! Where plugins are searched, in order, with what was found there: printed by `pajamas plugins list`.

use std::path::PathBuf;

use pajamas_plugin_api::host::discover;
use serde::Serialize;

use crate::config;

/// One folder that is searched.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Why it is searched.
    pub reason: String,
    /// What was found there, or why nothing was.
    pub result: String,
}

impl Place {
    fn new(folder: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self { folder: folder.into(), reason: reason.into(), result: "not searched".into() }
    }

    /// Lists the plugins in the folder.
    pub(super) fn look(&mut self) -> Vec<PathBuf> {
        match discover(&self.folder) {
            Ok(found) => {
                self.result = format!("{} plugin(s)", found.len());
                found
            }
            Err(error) => {
                self.result = match error.kind() {
                    std::io::ErrorKind::NotFound => "no such folder".into(),
                    _ => error.to_string(),
                };
                Vec::new()
            }
        }
    }
}

/// The folders in order: the configuration's, the environment's, the installation's. The current folder is not
/// among them: whoever can write there could run code here.
pub fn places(config: &config::Plugins) -> Vec<Place> {
    let mut places: Vec<Place> =
        config.search.iter().map(|folder| Place::new(folder.as_ref(), "plugins.search")).collect();
    if let Some(paths) = std::env::var_os("PAJAMAS_PLUGIN_DIR") {
        places.extend(std::env::split_paths(&paths).map(|folder| Place::new(folder, "PAJAMAS_PLUGIN_DIR")));
    }
    // The real file's folder: the command may be a link to it.
    let executable = std::env::current_exe().and_then(std::fs::canonicalize);
    if let Some(folder) = executable.ok().and_then(|exe| exe.parent().map(PathBuf::from)) {
        places.push(Place::new(folder.join("plugins"), "beside the executable"));
        if let Some(prefix) = folder.parent() {
            places.push(Place::new(prefix.join("lib/pajamas/plugins"), "the installation's library folder"));
        }
    }
    places
}
