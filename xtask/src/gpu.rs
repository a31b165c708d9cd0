//! `cargo xtask gpu`: ggml's library for a kind of GPU, from the very sources that the gguf plugin is built from.
//!
//! The plugins' own build has none of them: they need software of their kind to be built, and most machines do without. A
//! library of other sources than the plugin's would be opened and might fit by chance: hence built here.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::progress::{self, Show};
use crate::project::{Project, tool};
use crate::{deps, files};

/// The crate that holds llama.cpp's sources.
const SOURCES: &str = "llama-cpp-sys-2";
/// What ggml asks of Vulkan's headers first of all that is younger than what Debian 12 has.
const YOUNG_ENOUGH: &str = "VK_EXT_layer_settings";

/// A kind of GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Whatever has a driver for Vulkan: AMD's, Intel's, NVIDIA's, and Mesa's that computes on the processor.
    Vulkan,
}

impl Kind {
    /// As ggml and the command line name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
        }
    }

    /// The library, by the name that ggml looks for.
    pub fn file_name(self) -> String {
        format!("{}ggml-{}{}", std::env::consts::DLL_PREFIX, self.name(), std::env::consts::DLL_SUFFIX)
    }

    /// Where it lies once it is built.
    pub fn library(self, project: &Project) -> PathBuf {
        project.target.join("gpu").join(self.file_name())
    }
}

/// Builds the library, and returns where it lies.
///
/// # Errors
/// When something that it is built with is missing or too old, with what to install; when it cannot be compiled.
pub fn build(project: &Project, kind: Kind) -> Result<PathBuf> {
    deps::ensure(project)?;
    let sources = project.dependency(SOURCES)?.join("llama.cpp");
    let folder = project.target.join("gpu").join(format!("build-{}", kind.name()));
    fs::create_dir_all(&folder)?;
    progress::headline(&format!("Building ggml's library for {}", kind.name()));
    configure(project, kind, &sources, &folder)?;
    let target = format!("ggml-{}", kind.name());
    let mut compile = tool("cmake", &folder);
    compile.args(["--build", ".", "--target", &target, "--parallel"]);
    compile.arg(std::thread::available_parallelism().map_or(1, usize::from).to_string());
    progress::run("Compiling it, and the shaders", &mut compile, &project.log("gpu"), Show::Progress)?;
    let library = kind.library(project);
    files::copy_if_changed(&folder.join("bin").join(kind.file_name()), &library)?;
    Ok(library)
}

fn configure(project: &Project, kind: Kind, sources: &Path, folder: &Path) -> Result<()> {
    let mut cmake = tool("cmake", folder);
    cmake.arg("-S").arg(sources).args(["-B", "."]).args([
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_SHARED_LINKER_FLAGS=-s",
        "-DCMAKE_MODULE_LINKER_FLAGS=-s",
        "-DBUILD_SHARED_LIBS=ON",
        "-DGGML_BACKEND_DL=ON",
        "-DGGML_NATIVE=OFF",
        "-DGGML_CPU=OFF",
        "-DGGML_CCACHE=OFF",
    ]);
    for part in ["APP", "COMMON", "EXAMPLES", "SERVER", "TESTS", "TOOLS"] {
        cmake.arg(format!("-DLLAMA_BUILD_{part}=OFF"));
    }
    match kind {
        Kind::Vulkan => {
            // Found by their place too where a kit is named that is not installed.
            if let Some(kit) = std::env::var_os("VULKAN_SDK") {
                let include = Path::new(&kit).join("include");
                cmake.arg(format!("-DVulkan_INCLUDE_DIR={}", include.display()));
            }
            cmake.arg("-DGGML_VULKAN=ON");
        }
    }
    let help = match kind {
        Kind::Vulkan => {
            "it needs Vulkan's headers, the headers of SPIR-V and the compiler of shaders: on Debian and Ubuntu \
             `sudo apt-get install libvulkan-dev spirv-headers glslc`"
        }
    };
    progress::run("Looking for what it is built with", &mut cmake, &project.log("gpu-cmake"), Show::Progress)
        .context(help)?;
    match kind {
        Kind::Vulkan => young_enough(&folder.join("CMakeCache.txt")),
    }
}

/// Whether Vulkan's headers know what ggml uses: the compiler would say so after minutes, and at length.
fn young_enough(cache: &Path) -> Result<()> {
    let cache = fs::read_to_string(cache)?;
    let include = cache
        .lines()
        .find_map(|line| line.strip_prefix("Vulkan_INCLUDE_DIR:")?.split_once('='))
        .map(|(_, path)| PathBuf::from(path))
        .context("cmake did not say where Vulkan's headers are")?;
    let header = include.join("vulkan/vulkan_core.h");
    let text = fs::read_to_string(&header).with_context(|| format!("{}", header.display()))?;
    if !text.contains(YOUNG_ENOUGH) {
        bail!(
            "Vulkan's headers in {} are older than 1.3.272: take those of Debian 13 or Ubuntu 24.10, or set VULKAN_SDK to \
             the folder of a newer kit",
            include.display()
        );
    }
    Ok(())
}
