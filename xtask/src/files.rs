//! Files that are written only when they differ, and then whole.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// Copies a file unless the same content is there already: a program that has the old one mapped keeps it. Returns
/// whether it was copied.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    if same_content(from, to).with_context(|| format!("reading {}", from.display()))? {
        return Ok(false);
    }
    replace(to, |temporary| fs::copy(from, temporary).map(drop))?;
    Ok(true)
}

/// Writes a file unless it holds `content` already. Returns whether it was written.
pub fn write_if_changed(path: &Path, content: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    replace(path, |temporary| fs::write(temporary, content))?;
    Ok(true)
}

/// Makes `path` by writing a temporary file beside it and renaming that.
fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    let name = path.file_name().context("a file has a name")?.to_string_lossy();
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    write(&temporary)
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .with_context(|| format!("writing {}", path.display()))
}

/// Whether both files are there with the same bytes.
fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    let length = fs::metadata(a)?.len();
    if !fs::metadata(b).is_ok_and(|m| m.is_file() && m.len() == length) {
        return Ok(false);
    }
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut rest = length;
    while rest > 0 {
        let n = rest.min(left.len() as u64) as usize;
        a.read_exact(&mut left[..n])?;
        b.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
        rest -= n as u64;
    }
    Ok(true)
}

/// Removes every file below `folder` whose path relative to it is not in `wanted`. Returns whether there was one.
pub fn remove_others(folder: &Path, wanted: &[PathBuf]) -> Result<bool> {
    let mut removed = false;
    for path in all(folder)? {
        let relative = path.strip_prefix(folder)?;
        if !wanted.iter().any(|w| w == relative) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            removed = true;
        }
    }
    Ok(removed)
}

/// What lies directly in a folder, sorted.
pub fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)
        .with_context(|| format!("reading the folder {}", folder.display()))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Every file below a folder, sorted.
pub fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in sorted(folder)? {
        if path.is_dir() {
            found.extend(all(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// SHA-256 over the paths and contents of `parts` of a folder: files, or folders with all that is below them. Line ends
/// do not count, so that a checkout on Windows has the same hash.
pub fn hash<'p>(root: &Path, parts: impl IntoIterator<Item = &'p str>) -> Result<String> {
    let mut found = Vec::new();
    for part in parts {
        let path = root.join(part);
        ensure!(path.exists(), "{} is missing", path.display());
        if path.is_dir() { found.extend(all(&path)?) } else { found.push(path) }
    }
    found.sort();
    let mut hash = Sha256::new();
    for file in found {
        let path = file.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
        let content = fs::read(&file).with_context(|| file.display().to_string())?;
        let content: Vec<u8> = content.into_iter().filter(|b| *b != b'\r').collect();
        hash.update(format!("{path}\n{}\n", content.len()));
        hash.update(&content);
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_only_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("deep/to"));
        fs::write(&from, vec![7; 200_000]).unwrap();
        assert!(copy_if_changed(&from, &to).unwrap());
        assert!(!copy_if_changed(&from, &to).unwrap());
        let mut bytes = vec![7; 200_000];
        bytes[199_999] = 8;
        fs::write(&from, bytes).unwrap();
        assert!(copy_if_changed(&from, &to).unwrap());
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert_eq!(sorted(&dir.path().join("deep")).unwrap(), [to]);
    }

    #[test]
    fn removes_what_does_not_belong() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["keep", "sub/keep", "sub/old"] {
            write_if_changed(&dir.path().join(name), b"x").unwrap();
        }
        let wanted = [PathBuf::from("keep"), PathBuf::from("sub/keep")];
        assert!(remove_others(dir.path(), &wanted).unwrap());
        assert!(!remove_others(dir.path(), &wanted).unwrap());
        assert_eq!(all(dir.path()).unwrap().len(), 2);
    }
}
