//! Records which compiler and target a plugin is built with: the probe symbol tells the host before any check.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=PAJAMAS_RUSTC={}", version.trim());
    println!("cargo:rustc-env=PAJAMAS_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo:rerun-if-changed=build.rs");
}
