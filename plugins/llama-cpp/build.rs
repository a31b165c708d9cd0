//! Compiles the shim and lays llama.cpp's libraries where programs and packages find them.
//!
//! llama.cpp is linked dynamically so that one build serves every processor: `libggml-cpu-*.so` exists once per
//! instruction set and is chosen when the program runs. Its build script leaves the libraries in its own output
//! folder, behind version links that dangle once copied. This one puts the real files, under the names the dynamic
//! loader asks for, into `target/<profile>/llama/`: beside the plugin, which looks for them in `$ORIGIN/llama`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/shim.cpp");
    cc::Build::new().cpp(true).std("c++17").file("src/shim.cpp").compile("pajamas_llama_shim");

    let backends = PathBuf::from(
        std::env::var("DEP_LLAMA_BACKENDS_DIR")
            .map_err(|_| "llama-cpp-sys-2 was built without the feature `dynamic-backends`")?,
    );
    let built = backends.parent().ok_or("DEP_LLAMA_BACKENDS_DIR has no parent folder")?;
    // OUT_DIR is target/<profile>/build/<package>/out.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let staged = out.ancestors().nth(3).ok_or("OUT_DIR is not inside a target folder")?.join("llama");
    fs::create_dir_all(&staged)?;

    for folder in [built.join("lib"), built.join("lib64"), built.join("bin"), backends.clone()] {
        // A folder that is named and is not there would be a change at every build.
        if folder.is_dir() {
            println!("cargo:rerun-if-changed={}", folder.display());
            stage(&folder, &staged)?;
        }
    }
    link_args();
    Ok(())
}

/// Links every library of `folder` into `staged` under its run-time name.
fn stage(folder: &Path, staged: &Path) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let library = name.ends_with(".so") || name.ends_with(".dylib") || name.ends_with(".dll");
        // The common and multimodal libraries of upstream's own programs: nothing here links them.
        if !library || name.contains("llama-common") || name.contains("mtmd") {
            continue;
        }
        // `libllama.so` is a link to `libllama.so.0`, the name recorded in whatever was linked against it.
        let run_time = match fs::read_link(&path) {
            Ok(target) => target.file_name().map(PathBuf::from).unwrap_or_else(|| PathBuf::from(name)),
            Err(_) => PathBuf::from(name),
        };
        let destination = staged.join(run_time);
        let _ = fs::remove_file(&destination);
        let real = fs::canonicalize(&path)?;
        // A hard link keeps the time of the original, so that cargo does not see a change at every build.
        if fs::hard_link(&real, &destination).is_err() {
            fs::copy(&real, &destination)?;
            fs::File::options()
                .write(true)
                .open(&destination)?
                .set_modified(fs::metadata(&real)?.modified()?)?;
        }
        // A file that someone removed is put back by the next build.
        println!("cargo:rerun-if-changed={}", destination.display());
    }
    Ok(())
}

/// Test programs lie in `target/<profile>/deps`, one folder below the libraries' parent.
fn link_args() {
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => println!("cargo:rustc-link-arg=-Wl,-rpath,@loader_path/../llama"),
        Ok("windows") => {}
        _ => {
            println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
            println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../llama");
        }
    }
}
