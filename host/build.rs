//! Packs the built stages, so that the program carries a quarter of their bytes.

use std::collections::HashMap;
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
/// The stage that the others are packed against: all have the kit, its JSON and the allocator in them, and zlib sees no further
/// back than 32 KiB.
const BASE: &str = "labels";
/// The fewest bytes that are worth a copy.
const SHORTEST: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let built = Path::new("../wasm-stages/built");
    println!("cargo::rerun-if-changed={}", built.display());
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let mut stages: Vec<PathBuf> =
        fs::read_dir(built)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    stages.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    stages.sort_unstable();
    let base = fs::read(built.join(format!("{BASE}.wasm")))?;
    let mut table = String::from("&[\n");
    for path in stages {
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("stages have plain names")?;
        if name.starts_with(FOR_TESTS) {
            continue;
        }
        let component = fs::read(&path)?;
        let sha256: String = Sha256::digest(&component).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        let base_of = if name == BASE { "" } else { BASE };
        packed.write_all(&against(if base_of.is_empty() { &[] } else { &base }, &component))?;
        fs::write(out.join(format!("{name}.z")), packed.finish()?)?;
        writeln!(
            table,
            "BuiltIn {{ name: {name:?}, sha256: {sha256:?}, base: {base_of:?}, packed: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.z\")) }},"
        )?;
    }
    table.push(']');
    fs::write(out.join("stages.rs"), table)?;
    Ok(())
}

/// What a component is made of, as `stages::packed` reads it: how many copies, for each how many bytes of its own come before
/// it, where in `base` it begins and how long it is, then the component's own bytes.
fn against(base: &[u8], component: &[u8]) -> Vec<u8> {
    let mut places = HashMap::new();
    for (at, bytes) in base.windows(SHORTEST).enumerate() {
        places.entry(bytes).or_insert(at);
    }
    let (mut copies, mut own) = (Vec::new(), Vec::new());
    let (mut at, mut before, mut count) = (0, 0, 0u32);
    while at < component.len() {
        let place = component.get(at..at + SHORTEST).and_then(|bytes| places.get(bytes));
        let Some(place) = place else {
            own.push(component[at]);
            (at, before) = (at + 1, before + 1);
            continue;
        };
        let same = component[at..].iter().zip(&base[*place..]).take_while(|(a, b)| a == b).count();
        // No component has 4 GiB.
        copies.extend([before, *place, same].into_iter().flat_map(|number| (number as u32).to_le_bytes()));
        (at, before, count) = (at + same, 0, count + 1);
    }
    [&count.to_le_bytes()[..], &copies, &own].concat()
}
