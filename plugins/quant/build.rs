//! Tells the dynamic loader where llama.cpp's libraries lie, in a folder `llama` beside the plugin; and lists the texts
//! that models are calibrated with, which become part of the plugin.
//!
//! `pajamas-llama-cpp`'s build script puts them into `target/<profile>/llama`, which is that folder for the plugin in
//! `target/<profile>`; for test programs, in `target/<profile>/deps`, it is one level up.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    domains()?;
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => {
            println!("cargo:rustc-link-arg=-Wl,-rpath,@loader_path/llama");
            println!("cargo:rustc-link-arg=-Wl,-rpath,@loader_path/../llama");
        }
        Ok("windows") => {}
        _ => {
            // The older tag also holds for libraries that these libraries need, and comes before LD_LIBRARY_PATH:
            // the plugin runs with what it was shipped with.
            println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/llama");
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../llama");
        }
    }
    Ok(())
}

/// Writes the list of domains: each `calibration/NAME.txt` of the repository, with its text.
fn domains() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../calibration");
    println!("cargo:rerun-if-changed={}", folder.display());
    let files = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    let mut list = String::from("pub(super) const DOMAINS: &[(&str, &str)] = &[\n");
    for file in files {
        let name = file.file_stem().and_then(|n| n.to_str()).ok_or("a domain with a strange name")?;
        writeln!(list, "    ({name:?}, include_str!({:?})),", fs::canonicalize(&file)?)?;
    }
    list.push_str("];\n");
    fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("domains.rs"), list)?;
    Ok(())
}
