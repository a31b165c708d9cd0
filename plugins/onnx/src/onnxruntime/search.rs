//! Where an ONNX Runtime library may be. Looks at folders only: nothing is opened here, and Python is never run.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A place to look, and the libraries it holds, the newest version first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What it is, for people: `the configuration (/opt/ort)`.
    pub(super) what: String,
    pub(super) libraries: Vec<PathBuf>,
}

/// Everything that decides where to look.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// The plugin's setting `onnxruntime`.
    pub(super) configured: Option<PathBuf>,
    /// `ORT_DYLIB_PATH`.
    pub(super) named: Option<PathBuf>,
    /// Where `cargo xtask fetch-onnxruntime` puts it.
    pub(super) data: Option<PathBuf>,
    /// The plugin's folder and the executable's.
    pub(super) neighbours: Vec<PathBuf>,
    /// Folders that may be a Python installation's or environment's root, and its `site-packages`.
    pub(super) pythons: Vec<PathBuf>,
    pub(super) site_packages: Vec<PathBuf>,
}

impl Surroundings {
    /// This process's.
    pub(super) fn of_process(configured: Option<PathBuf>, plugin_dir: PathBuf) -> Self {
        let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = var(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let under_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let data = match cfg!(windows) {
            true => var("LOCALAPPDATA"),
            false => var("XDG_DATA_HOME").or_else(|| under_home(".local/share")),
        };
        let executable = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
        let mut pythons: Vec<_> = [var("VIRTUAL_ENV"), var("CONDA_PREFIX")].into_iter().flatten().collect();
        pythons.extend(pythons_on_path(env::var_os("PATH")));
        pythons.extend(under_home(".local"));
        pythons.extend(under_home(".pyenv/versions").into_iter().flat_map(|versions| folders(&versions)));
        pythons.extend(["/usr/local", "/usr", "/opt/homebrew"].map(PathBuf::from));
        Self {
            configured,
            named: var("ORT_DYLIB_PATH"),
            data: data.map(|dir| dir.join("pajamas").join("onnxruntime")),
            neighbours: [Some(plugin_dir), executable].into_iter().flatten().collect(),
            pythons,
            site_packages: vec![PathBuf::from("/usr/lib/python3/dist-packages")],
        }
    }

    /// The places in the order of preference. A library that somebody named is the only place: taking another one
    /// in its stead would hide the mistake.
    pub(super) fn places(&self) -> Vec<Place> {
        if let Some(path) = &self.configured {
            return vec![named("the plugin's setting `onnxruntime`", path)];
        }
        if let Some(path) = &self.named {
            return vec![named("ORT_DYLIB_PATH", path)];
        }
        let folder =
            |path: &PathBuf| Place { what: path.display().to_string(), libraries: libraries_in(path) };
        let mut places: Vec<Place> = self.data.iter().chain(&self.neighbours).map(folder).collect();

        let sites = self
            .pythons
            .iter()
            .flat_map(|root| site_packages(root))
            .chain(self.site_packages.iter().cloned());
        let (mut libraries, mut seen) = (Vec::new(), HashSet::new());
        for library in sites.flat_map(|site| libraries_in(&site.join("onnxruntime").join("capi"))) {
            if seen.insert(library.canonicalize().unwrap_or_else(|_| library.clone())) {
                libraries.push(library);
            }
        }
        places.push(Place { what: "onnxruntime of the installed Pythons".to_owned(), libraries });

        let bare = loader_names().iter().map(PathBuf::from).collect();
        places.push(Place { what: "the loader's search path".to_owned(), libraries: bare });
        places
    }
}

/// The place of a file, or of a folder that holds it.
fn named(what: &str, path: &Path) -> Place {
    let libraries = if path.is_dir() { libraries_in(path) } else { vec![path.to_path_buf()] };
    Place { what: format!("{what} ({})", path.display()), libraries }
}

/// Names under which the system's loader may know the library.
fn loader_names() -> &'static [&'static str] {
    if cfg!(windows) {
        // The library in the system folder belongs to Windows and is too old: only a file somebody chose is taken.
        &[]
    } else if cfg!(target_os = "macos") {
        &["libonnxruntime.dylib"]
    } else {
        &["libonnxruntime.so.1", "libonnxruntime.so"]
    }
}

/// The ONNX Runtime libraries in a folder, the newest version first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((version_in(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// The version in a library's file name, empty when it has none; `None` for any other file.
fn version_in(name: &str) -> Option<Vec<u32>> {
    let version = if cfg!(windows) {
        name.eq_ignore_ascii_case("onnxruntime.dll").then_some("")?
    } else if cfg!(target_os = "macos") {
        name.strip_prefix("libonnxruntime")?.strip_suffix(".dylib")?
    } else {
        name.strip_prefix("libonnxruntime.so")?
    };
    match version.strip_prefix('.') {
        Some(numbers) => numbers.split('.').map(|n| n.parse().ok()).collect(),
        None => version.is_empty().then(Vec::new),
    }
}

/// Roots of the Pythons on `PATH`: both where the entry lies (an environment) and where it leads (an installation).
fn pythons_on_path(path: Option<OsString>) -> Vec<PathBuf> {
    let root = |python: &Path| python.parent().and_then(Path::parent).map(Path::to_path_buf);
    env::split_paths(&path.unwrap_or_default())
        .map(|dir| dir.join(if cfg!(windows) { "python.exe" } else { "python3" }))
        .filter(|python| python.is_file())
        .flat_map(|python| {
            let resolved = python.canonicalize().ok();
            // On Windows the interpreter lies in the root itself, in an environment in `Scripts`.
            let own = if cfg!(windows) { python.parent().map(Path::to_path_buf) } else { None };
            [own, root(&python), resolved.and_then(|python| root(&python))]
        })
        .flatten()
        .collect()
}

/// The package folders of a Python root.
fn site_packages(root: &Path) -> Vec<PathBuf> {
    if cfg!(windows) {
        return vec![root.join("Lib").join("site-packages")];
    }
    let is_python =
        |dir: &PathBuf| dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3."));
    let versions = folders(&root.join("lib")).into_iter().filter(is_python);
    versions.flat_map(|dir| [dir.join("site-packages"), dir.join("dist-packages")]).collect()
}

/// The entries of a folder, the last in order first: newer Pythons before older ones.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        std::fs::read_dir(parent).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    entries.reverse();
    entries
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "clippy does not see that this is a test")]
mod tests {
    use std::fs;

    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_newest_version_comes_first_and_strangers_are_left() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime.so",
            "libonnxruntime_providers_shared.so",
            "libonnxruntime.so.bak",
            "onnxruntime.dll",
        ] {
            touch(&dir.path().join(name));
        }
        let names: Vec<_> = libraries_in(dir.path())
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["libonnxruntime.so.1.31.1", "libonnxruntime.so.1.9.0", "libonnxruntime.so"]);
    }

    #[test]
    fn places_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let library = at("venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1");
        touch(&library);
        touch(&at("data/libonnxruntime.so.1.30.0"));
        let surroundings = Surroundings {
            data: Some(at("data")),
            neighbours: vec![at("plugin")],
            // The same environment named twice counts once.
            pythons: vec![at("venv"), at("venv")],
            ..Surroundings::default()
        };
        let places = surroundings.places();
        assert_eq!(places[0].libraries, [at("data/libonnxruntime.so.1.30.0")]);
        assert_eq!(places[1], Place { what: at("plugin").display().to_string(), libraries: vec![] });
        assert_eq!(places[2].libraries, [library]);
        assert_eq!(places[3].libraries, [Path::new("libonnxruntime.so.1"), Path::new("libonnxruntime.so")]);
    }

    #[test]
    fn a_named_library_is_the_only_place() {
        let dir = tempfile::tempdir().unwrap();
        touch(&dir.path().join("libonnxruntime.so.1"));
        let mut surroundings = Surroundings {
            named: Some("/nowhere/libonnxruntime.so".into()),
            data: Some(dir.path().into()),
            ..Surroundings::default()
        };
        let places = surroundings.places();
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].what, "ORT_DYLIB_PATH (/nowhere/libonnxruntime.so)");
        // The setting beats the variable, and may name a folder.
        surroundings.configured = Some(dir.path().into());
        assert_eq!(surroundings.places()[0].libraries, [dir.path().join("libonnxruntime.so.1")]);
    }

    #[test]
    fn pythons_are_found_through_path() {
        let dir = tempfile::tempdir().unwrap();
        touch(&dir.path().join("base/bin/python3.11"));
        fs::create_dir_all(dir.path().join("env/bin")).unwrap();
        std::os::unix::fs::symlink(
            dir.path().join("base/bin/python3.11"),
            dir.path().join("env/bin/python3"),
        )
        .unwrap();
        let base = dir.path().join("base").canonicalize().unwrap();
        assert_eq!(pythons_on_path(Some(dir.path().join("env/bin").into())), [dir.path().join("env"), base]);
    }
}
