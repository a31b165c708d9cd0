//! `cargo xtask fetch-onnxruntime`: brings the ONNX Runtime library that the `onnxruntime` backend opens.
//!
//! The library comes from the wheel on PyPI, through pip. Both are pinned: the wheel's hash is checked before it is
//! unpacked, the library's before it is put in place. Nothing is installed into any Python.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use xshell::{Shell, TempDir, cmd};

/// The version whose interface `ort`, the binding that the plugin uses, was made for.
const VERSION: &str = "1.31.1";

/// The Python for which the pinned wheels are made. The library in them is the same for all.
const PYTHON: &str = "3.12";

/// A wheel and the library in it.
struct Wheel {
    /// `OS-ARCH`, in Rust's words, as the names of the product's archives have it.
    machine: &'static str,
    /// The same in the words of Python's wheels.
    platform: &'static str,
    sha256: &'static str,
    /// The library's path within the wheel.
    library: &'static str,
    library_sha256: &'static str,
}

const WHEELS: &[Wheel] = &[
    Wheel {
        machine: "linux-x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Wheel {
        machine: "linux-aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        library: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
    Wheel {
        machine: "macos-aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        library: "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
        library_sha256: "d586cbe89effc085a09d3341b3cfbd5c322517f9d397aeb20814af21433f2b36",
    },
    Wheel {
        machine: "windows-x86_64",
        platform: "win_amd64",
        sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
        library: "onnxruntime/capi/onnxruntime.dll",
        library_sha256: "e45f61e50d8650885452be538a00bb14a715e46a1bc3691000ce947e89ed0306",
    },
    Wheel {
        machine: "windows-aarch64",
        platform: "win_arm64",
        sha256: "fe8b9ac1ae8e894e12c47ee82e4f6dfc1835768133687257866469fda80d0bf1",
        library: "onnxruntime/capi/onnxruntime.dll",
        library_sha256: "dc9e2fe646a72829386a24ac9185a7a4e26d7dbe5dc433d41df063603c00bbc7",
    },
];

/// Fetches the library for `platform` (`OS-ARCH` or a wheel's platform tag; this machine's when `None`) into `dir` (where the
/// plugin looks when `None`) and returns its path. A library that is there and right is not fetched again.
///
/// # Errors
/// When there is no wheel for the platform, no Python with pip, no network, or a file with another hash than the
/// pinned one.
pub fn fetch(platform: Option<&str>, dir: Option<&Path>) -> Result<PathBuf> {
    let wheel = wheel_for(platform)?;
    let dir = match dir {
        Some(dir) => dir.to_path_buf(),
        None => data_dir()?,
    };
    let name = Path::new(wheel.library).file_name().context("a library without a name")?;
    let target = dir.join(name);
    if target.is_file() && sha256(&target)? == wheel.library_sha256 {
        println!("ONNX Runtime {VERSION} is already at {}", target.display());
        return Ok(target);
    }

    println!("fetching ONNX Runtime {VERSION} for {} with pip", wheel.platform);
    let sh = Shell::new()?;
    let python = python_with_pip(&sh)?;
    let work = sh.create_temp_dir()?;
    let archive = download(&sh, &python, wheel, &work)?;
    verify(&archive, wheel.sha256)?;
    let unpacked = work.path().join("unpacked");
    cmd!(sh, "{python} -m zipfile -e {archive} {unpacked}").quiet().run().context("unpacking the wheel")?;
    let library = unpacked.join(wheel.library);
    verify(&library, wheel.library_sha256)?;
    place(&library, &target)?;
    println!("ONNX Runtime {VERSION} is at {}", target.display());
    Ok(target)
}

fn wheel_for(platform: Option<&str>) -> Result<&'static Wheel> {
    let here = format!("{}-{}", env::consts::OS, env::consts::ARCH);
    let wanted = platform.unwrap_or(&here);
    WHEELS.iter().find(|wheel| wheel.machine == wanted || wheel.platform == wanted).ok_or_else(|| {
        let known: Vec<_> = WHEELS.iter().map(|wheel| wheel.machine).collect();
        anyhow!(
            "no ONNX Runtime {VERSION} is pinned for the platform `{wanted}`, only for {}; \
             install one yourself and point ORT_DYLIB_PATH to it, or stay with the embedded engine",
            known.join(", ")
        )
    })
}

/// Where the plugin looks: the same rule as in its search.
fn data_dir() -> Result<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = match cfg!(windows) {
        true => var("LOCALAPPDATA"),
        false => var("XDG_DATA_HOME").or_else(|| Some(var("HOME")?.join(".local/share"))),
    };
    let base = base.context("no home folder is known; say where to put the library with --dir")?;
    Ok(base.join("pajamas").join("onnxruntime"))
}

/// The name of a Python that has pip.
fn python_with_pip(sh: &Shell) -> Result<String> {
    let candidates = ["python3", "python", "py"];
    let has_pip =
        |python: &&&str| cmd!(sh, "{python} -m pip --version").quiet().ignore_stderr().read().is_ok();
    candidates.iter().find(has_pip).map(|python| (*python).to_owned()).context(
        "fetching ONNX Runtime needs a Python with pip, and none of python3, python and py has one; \
         install it (Debian and Ubuntu: `apt install python3-pip`; elsewhere: `python3 -m ensurepip`), \
         or put the library somewhere yourself and point ORT_DYLIB_PATH to it",
    )
}

/// Has pip download the wheel, and nothing else, into `work`.
fn download(sh: &Shell, python: &str, wheel: &Wheel, work: &TempDir) -> Result<PathBuf> {
    let (platform, folder, package) = (wheel.platform, work.path(), format!("onnxruntime=={VERSION}"));
    cmd!(
        sh,
        "{python} -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all:
         --implementation cp --python-version {PYTHON} --platform {platform} --dest {folder} {package}"
    )
    .quiet()
    .run()
    .context("pip could not download the wheel: is PyPI, or the mirror pip is set up for, within reach?")?;
    let mut wheels =
        sh.read_dir(folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "whl"));
    wheels.next_back().context("pip downloaded no wheel")
}

/// Fails unless the file has this hash.
fn verify(file: &Path, expected: &str) -> Result<()> {
    let found = sha256(file)?;
    if found != expected {
        bail!("{} has the sha256 {found}, {expected} is pinned: it is not what was reviewed", file.display());
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let mut source = File::open(file).with_context(|| file.display().to_string())?;
    let mut hash = Hashing(Sha256::new());
    io::copy(&mut source, &mut hash).with_context(|| file.display().to_string())?;
    Ok(hash.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A hash as a place to write to.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts a copy of `source` at `target`, whole or not at all.
fn place(source: &Path, target: &Path) -> Result<()> {
    let dir = target.parent().context("a target without a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let partial = dir.join(format!(".onnxruntime-{}.partial", std::process::id()));
    let copied = copy_synced(source, &partial).and_then(|()| fs::rename(&partial, target));
    if copied.is_err() {
        // What is left of a failed copy is of no use; that it cannot be removed either is not the news.
        let _ = fs::remove_file(&partial);
    }
    copied.with_context(|| format!("writing {}", target.display()))
}

fn copy_synced(source: &Path, target: &Path) -> io::Result<()> {
    let mut file = File::create(target)?;
    io::copy(&mut File::open(source)?, &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_whole_hashes() {
        for wheel in WHEELS {
            for hash in [wheel.sha256, wheel.library_sha256] {
                assert!(
                    hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
                    "{}",
                    wheel.platform
                );
            }
            assert!(wheel.library.contains(VERSION) || wheel.library.ends_with(".dll"), "{}", wheel.platform);
        }
    }

    #[test]
    fn a_platform_has_two_names() {
        for wheel in WHEELS {
            assert_eq!(wheel_for(Some(wheel.machine)).unwrap().sha256, wheel.sha256);
            assert_eq!(wheel_for(Some(wheel.platform)).unwrap().sha256, wheel.sha256);
        }
        assert_eq!(wheel_for(Some("linux-x86_64")).unwrap().platform, "manylinux_2_28_x86_64");
        assert_eq!(wheel_for(Some("macos-aarch64")).unwrap().platform, "macosx_14_0_arm64");
    }

    #[test]
    fn an_unknown_platform_lists_the_known() {
        let error = wheel_for(Some("solaris-sparc")).err().unwrap().to_string();
        assert!(error.contains("`solaris-sparc`") && error.contains("windows-aarch64"), "{error}");
    }

    #[test]
    fn a_file_is_placed_whole_and_a_wrong_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("a"), dir.path().join("new/folder/b"));
        fs::write(&source, "abc").unwrap();
        place(&source, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abc");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
        verify(&target, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(verify(&target, "00").unwrap_err().to_string().contains("is pinned"));
        place(&dir.path().join("missing"), &target).unwrap_err();
        assert_eq!(fs::read(&target).unwrap(), b"abc", "a failed copy leaves the old file");
    }
}
