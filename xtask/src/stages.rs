//! Building the WASM stages, and knowing when they have to be built again.
//!
//! The built components are committed, so that nobody needs a WASM toolchain to build or test the host. A lock file says
//! which sources each was made of; a test compares.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files;

const TARGET: &str = "wasm32-unknown-unknown";
const FLAGS: &str = "-Ctarget-feature=+simd128 --cfg getrandom_backend=\"custom\"";

/// What every stage is made of, beside its own folder.
const SHARED: [&str; 5] = ["kit", "wit", "Cargo.toml", "Cargo.lock", ".cargo"];

/// Folder of each crate (below `wasm-stages/`) and the name of what it becomes (below `wasm-stages/built/`).
const STAGES: [(&str, &str); 23] = [
    ("audio-decode", "audio-decode"),
    ("ctc-decode", "ctc-decode"),
    ("detokenize", "detokenize"),
    ("image-decode", "image-decode"),
    ("image-normalize", "image-normalize"),
    ("l2-normalize", "l2-normalize"),
    ("labels", "labels"),
    ("letterbox", "letterbox"),
    ("log-mel", "log-mel"),
    ("mask-decode", "mask-decode"),
    ("nms", "nms"),
    ("pcm-encode", "pcm-encode"),
    ("pool", "pool"),
    ("resample", "resample"),
    ("softmax-topk", "softmax-topk"),
    ("tokenize", "tokenize"),
    ("vad-frame", "vad-frame"),
    ("vad-segments", "vad-segments"),
    ("voice-text", "voice-text"),
    ("yolo-decode", "yolo-decode"),
    ("tests/foreign-import", "test-foreign-import"),
    ("tests/intent", "test-intent"),
    ("tests/misbehaving", "test-misbehaving"),
];

/// `built/stages.lock`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    /// `rustc --version` of the build.
    rustc: String,
    /// Where the standard library came from: `rustup` or `debian`. The bytes differ, the behaviour does not.
    std: String,
    /// Flags beyond the profile.
    flags: String,
    stage: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// SHA-256 of the component.
    wasm: String,
    /// [`sources_hash`] of what it was made of.
    sources: String,
}

/// Builds every stage into `wasm-stages/built`, or (`check`) only says whether that is needed: an error names the stages
/// whose sources and components do not belong together.
pub fn build(check: bool) -> Result<()> {
    let stages = folder();
    if check {
        let drifted = drift(&stages)?;
        ensure!(
            drifted.is_empty(),
            "not built from their sources: {}; run `cargo xtask stages`",
            drifted.join(", ")
        );
        return Ok(());
    }
    let std_flags = standard_library(&stages)?;
    compile(&stages, &std_flags)?;
    let built = stages.join("built");
    let mut stage = BTreeMap::new();
    for (crate_folder, name) in STAGES {
        let library = name.replace('-', "_");
        let module = stages.join("target").join(TARGET).join("release").join(format!("{library}.wasm"));
        let component =
            encode(&module).with_context(|| format!("{name}: no component could be made of it"))?;
        files::write_if_changed(&built.join(format!("{name}.wasm")), &component)?;
        println!("{name:<20} {:>8} bytes", component.len());
        let sources = sources_hash(&stages, crate_folder)?;
        stage.insert(name.to_owned(), Entry { wasm: files::hex(&Sha256::digest(&component)), sources });
    }
    let std = if std_flags.is_empty() { "rustup" } else { "debian" }.to_owned();
    let lock = Lock { rustc: rustc_version(&stages)?, std, flags: FLAGS.into(), stage };
    let text = format!("# Written by `cargo xtask stages`.\n{}", toml::to_string(&lock)?);
    files::write_if_changed(&built.join("stages.lock"), text.as_bytes())?;
    Ok(())
}

/// SHA-256 over everything that a stage is made of: its folder, the kit, the WIT package and what cargo reads.
pub fn sources_hash(stages: &Path, crate_folder: &str) -> Result<String> {
    files::hash(stages, SHARED.into_iter().chain([crate_folder]))
}

/// The stages whose sources, component and lock entry do not belong together.
fn drift(stages: &Path) -> Result<Vec<String>> {
    let path = stages.join("built/stages.lock");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lock: Lock = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut drifted = Vec::new();
    for (crate_folder, name) in STAGES {
        let wasm = fs::read(stages.join("built").join(format!("{name}.wasm"))).unwrap_or_default();
        let now =
            Entry { wasm: files::hex(&Sha256::digest(&wasm)), sources: sources_hash(stages, crate_folder)? };
        if lock.stage.get(name) != Some(&now) {
            drifted.push(name.to_owned());
        }
    }
    Ok(drifted)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-stages")
}

/// Makes the standard library for WASM available; returns the flags with which rustc finds it.
fn standard_library(stages: &Path) -> Result<String> {
    let installed = tool("rustc", stages).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&installed.stdout).trim());
    if libraries.is_dir() {
        return Ok(String::new());
    }
    let output = tool("bash", stages)
        .arg("wasm-std.sh")
        .arg(TARGET)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("bash could not be started; `rustup target add wasm32-unknown-unknown` does the same")?;
    if !output.status.success() {
        bail!("no standard library for {TARGET}: try `rustup target add {TARGET}`");
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn compile(stages: &Path, std_flags: &str) -> Result<()> {
    // Panic messages hold paths: without this the bytes would depend on where the repository lies.
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let here = stages.canonicalize()?;
    let mut flags = format!("{std_flags} {FLAGS} --remap-path-prefix={}=/stages", here.display());
    if let Ok(home) = home {
        flags.push_str(&format!(" --remap-path-prefix={home}/registry/src=/registry"));
    }
    let status = tool("cargo", stages)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .env("CARGO_TARGET_DIR", stages.join("target"))
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags.trim())
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "the stages could not be built");
    Ok(())
}

/// The component of a core module; wit-bindgen left the description of its world inside.
fn encode(module: &Path) -> Result<Vec<u8>> {
    let module = fs::read(module).with_context(|| module.display().to_string())?;
    wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()
}

fn rustc_version(stages: &Path) -> Result<String> {
    let output = tool("rustc", stages).arg("--version").output().context("rustc could not be started")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A program in the stages' workspace, free of the flags and the target folder of the workspace around it.
fn tool(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_stages_belong_to_their_sources() {
        let drifted = drift(&folder()).unwrap();
        assert!(
            drifted.is_empty(),
            "run `cargo xtask stages` and commit wasm-stages/built: {drifted:?} drifted"
        );
    }

    #[test]
    fn every_folder_with_a_crate_is_built() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let members = manifest["workspace"]["members"].as_array().unwrap();
        let members: Vec<_> = members.iter().map(|m| m.as_str().unwrap()).filter(|m| *m != "kit").collect();
        assert_eq!(members, STAGES.map(|(folder, _)| folder));
    }

    #[test]
    fn a_change_of_any_source_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for part in [
            "kit/src/lib.rs",
            "wit/1.0/stage.wit",
            "Cargo.toml",
            "Cargo.lock",
            ".cargo/config.toml",
            "nms/src/lib.rs",
        ] {
            fs::create_dir_all(root.join(part).parent().unwrap()).unwrap();
            fs::write(root.join(part), "one\n").unwrap();
        }
        let first = sources_hash(root, "nms").unwrap();
        fs::write(root.join("Cargo.toml"), "one\r\n").unwrap();
        assert_eq!(sources_hash(root, "nms").unwrap(), first, "line ends do not count");
        for part in ["kit/src/lib.rs", "nms/src/lib.rs", "Cargo.lock"] {
            let before = sources_hash(root, "nms").unwrap();
            fs::write(root.join(part), "two\n").unwrap();
            assert_ne!(sources_hash(root, "nms").unwrap(), before, "{part}");
        }
    }
}
