//! Folders that checks write into, and what lies in them afterwards.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A folder that goes away with this value.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, String> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pajamas-check-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(|e| format!("cannot make a temporary folder: {e}"))?;
        Ok(Self(path))
    }

    /// Every file in it and below, with its bytes, by its path from here; folders alone are nothing.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, u64)>, String> {
        let mut found = Vec::new();
        walk(&self.0, &mut |path, bytes| {
            found.push((path.strip_prefix(&self.0).unwrap_or(path).to_path_buf(), bytes));
        })
        .map_err(|e| format!("{}: {e}", self.0.display()))?;
        found.sort();
        Ok(found)
    }

    /// Requires that no file lies in it: it was to be written into, and nothing was to be left.
    pub(super) fn untouched(&self) -> Result<(), String> {
        match self.files()?.first() {
            None => Ok(()),
            Some((path, bytes)) => Err(format!("it left `{}`, {bytes} bytes", path.display())),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind at worst: the system empties its temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies a file, or a folder with all that is in it, and cuts the largest file in half.
pub(super) fn copy_halved(from: &Path, to: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    walk(from, &mut |path, bytes| files.push((bytes, path.to_path_buf())))?;
    let place = |file: &Path| match file.strip_prefix(from) {
        Ok(below) if below != Path::new("") => to.join(below),
        _ => to.to_path_buf(),
    };
    for (_, file) in &files {
        let place = place(file);
        fs::create_dir_all(place.parent().unwrap_or(to))?;
        fs::copy(file, place)?;
    }
    let Some((bytes, largest)) = files.iter().max() else { return Ok(()) };
    // The copy may be read-only, as its original is.
    fs::write(place(largest), &fs::read(largest)?[..(bytes / 2) as usize])
}

/// The bytes of a file, or of all files in a folder.
pub(super) fn size(path: &Path) -> io::Result<u64> {
    let mut size = 0;
    walk(path, &mut |_, bytes| size += bytes)?;
    Ok(size)
}

fn walk(path: &Path, found: &mut dyn FnMut(&Path, u64)) -> io::Result<()> {
    let about = fs::metadata(path)?;
    if !about.is_dir() {
        found(path, about.len());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        walk(&entry?.path(), found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_all_files_and_half_of_the_largest() {
        let (from, to) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        fs::create_dir(from.0.join("deep")).unwrap();
        fs::write(from.0.join("deep/weights"), "0123456789").unwrap();
        fs::write(from.0.join("config"), "abc").unwrap();
        copy_halved(&from.0, &to.0.join("copy")).unwrap();
        let expected = [("copy/config", 3), ("copy/deep/weights", 5)];
        assert_eq!(to.files().unwrap(), expected.map(|(path, bytes)| (PathBuf::from(path), bytes)));
        assert_eq!(size(&from.0).unwrap(), 13);

        copy_halved(&from.0.join("config"), &to.0.join("one/config")).unwrap();
        assert_eq!(fs::read(to.0.join("one/config")).unwrap(), b"a");
    }
}
