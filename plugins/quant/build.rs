//! Tells the dynamic loader where llama.cpp's libraries lie: in a folder `llama` beside the plugin.
//!
//! `pajamas-llama-cpp`'s build script puts them into `target/<profile>/llama`, which is that folder for the plugin in
//! `target/<profile>`; for test programs, in `target/<profile>/deps`, it is one level up.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
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
}
