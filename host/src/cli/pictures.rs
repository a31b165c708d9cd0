//! Which pictures a command line means: files as they are named, all pictures of a folder, all that a pattern matches.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};

/// What files of pictures end with, in lower case: the formats that the stage image-decode reads.
const ENDINGS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// The most pictures of one command.
const MOST: usize = 100_000;

/// From this many on it is shown how far the command is.
const MANY: usize = 8;

/// The names of the pictures, in order: those of a folder sorted, its folders left aside. A name that is there is never taken
/// for a pattern.
///
/// # Errors
/// `file-not-found` for a folder without pictures and for a pattern that nothing matches; `invalid-input` for a pattern that
/// is none, and for more pictures than anybody means.
pub fn find(named: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in named {
        let path = Path::new(name);
        if path.is_dir() {
            found.extend(of_folder(path)?);
        } else if name != "-" && !path.exists() && name.contains(['*', '?', '[']) {
            found.extend(of_pattern(name)?);
        } else {
            found.push(name.clone());
        }
        if found.len() > MOST {
            return Err(
                Error::new("invalid-input", format!("more than {MOST} pictures")).help("name fewer at once")
            );
        }
    }
    Ok(found)
}

fn of_folder(folder: &Path) -> Result<Vec<String>> {
    let entries = folder.read_dir().map_err(|e| Error::io(folder, &e))?;
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file() && is_picture(path));
    let mut files: Vec<String> = files.map(|path| path.display().to_string()).collect();
    files.sort_unstable();
    if files.is_empty() {
        let what = format!("{}: there is no picture in this folder", folder.display());
        return Err(Error::new("file-not-found", what)
            .help(format!("files that end with {} are looked for", ENDINGS.join(", "))));
    }
    Ok(files)
}

fn of_pattern(pattern: &str) -> Result<Vec<String>> {
    let wrong = |e: glob::PatternError| Error::new("invalid-input", format!("{pattern}: {e}"));
    let files = glob::glob(pattern).map_err(wrong)?.flatten().filter(|path| path.is_file());
    let files: Vec<String> = files.take(MOST + 1).map(|path| path.display().to_string()).collect();
    match files.is_empty() {
        true => Err(Error::new("file-not-found", format!("{pattern}: no file matches this pattern"))),
        false => Ok(files),
    }
}

/// Whether a file's name ends as a picture's does.
pub fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// How far a command with this many pictures is, on the terminal, when somebody watches and it takes long.
pub fn progress(count: usize) -> ProgressBar {
    if count < MANY || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} pictures, {per_sec}, {eta} left");
    ProgressBar::new(count as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_patterns_become_their_pictures() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.jpg", "a.PNG", "notes.txt", "[c].jpg"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let found = |name: &str| find(&[path(name)]);
        assert_eq!(found("").unwrap(), [path("[c].jpg"), path("a.PNG"), path("b.jpg")]);
        assert_eq!(found("?.jpg").unwrap(), [path("b.jpg")]);
        assert_eq!(found("[c].jpg").unwrap(), [path("[c].jpg")], "a file that is there is no pattern");
        assert_eq!(found("none.jpg").unwrap(), [path("none.jpg")], "who reads it says that it is not there");
        assert_eq!(find(&["-".into()]).unwrap(), ["-"]);
        for (name, code) in
            [("empty", "file-not-found"), ("*.gif", "file-not-found"), ("[.gif", "invalid-input")]
        {
            assert_eq!(found(name).unwrap_err().code(), code, "{name}");
        }
    }
}
