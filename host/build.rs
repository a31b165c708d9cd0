//! Packs the built stages, so that the program carries a third of their bytes.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha2::{Digest, Sha256};

/// Components that only tests load.
const FOR_TESTS: &str = "test-";

fn main() -> Result<(), Box<dyn Error>> {
    let built = Path::new("../wasm-stages/built");
    println!("cargo::rerun-if-changed={}", built.display());
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut stages: Vec<PathBuf> =
        fs::read_dir(built)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    stages.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    stages.sort_unstable();
    let mut table = String::from("&[\n");
    for path in stages {
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("stages have plain names")?;
        if name.starts_with(FOR_TESTS) {
            continue;
        }
        let component = fs::read(&path)?;
        let sha256: String = Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&component)?;
        fs::write(out.join(format!("{name}.z")), packed.finish()?)?;
        writeln!(
            table,
            "BuiltIn {{ name: {name:?}, sha256: {sha256:?}, packed: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.z\")) }},"
        )?;
    }
    table.push(']');
    fs::write(out.join("stages.rs"), table)?;
    Ok(())
}
