//! What a person does to the repository: `cargo xtask demo`, `test`, `dist` and the rest.

mod abi;
mod bench;
mod demo;
mod deps;
mod dist;
mod docs;
mod files;
mod gpu;
mod onnxruntime;
mod page;
mod peers;
mod product;
mod progress;
mod project;
mod skips;
mod stages;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use console::style;

use crate::project::Project;

/// What a person does to this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing, build, and run a chat and a detection.
    Demo,
    /// Run every check and every test. What $PAJAMAS_REQUIRE names (assets, cargo-deny, chromium, onnxruntime, peers) may not be
    /// missing.
    Test {
        /// Only these, separated by commas.
        #[arg(long, value_name = "CHECKS", value_delimiter = ',')]
        only: Vec<suite::Check>,
    },
    /// Build the program and its plugins into target/release.
    Build,
    /// Install what the build needs from the system; says nothing when it is there.
    Deps,
    /// Assemble what ships into target/dist, and print its size.
    Dist(dist::Options),
    /// Build ggml's library for a kind of GPU, which the gguf plugin finds when it lies beside its own; `dist --gpu` ships it.
    Gpu {
        /// Which.
        kind: gpu::Kind,
    },
    /// Rebuild the committed WASM stages from their sources.
    Stages {
        /// Only say whether they belong to the sources.
        #[arg(long)]
        check: bool,
    },
    /// Rebuild the committed page of the server from its sources; needs npm.
    Page {
        /// Only say whether it belongs to the sources.
        #[arg(long)]
        check: bool,
    },
    /// Measure against the peers, side by side in one run; `peers --bench` brings them.
    Bench(bench::Options),
    /// Compare the layout of the plugins' ABI with the committed one.
    AbiCheck {
        /// Write the layout of now, after it has grown.
        #[arg(long)]
        update: bool,
    },
    /// Generate the reference pages of the book from the built program.
    Docs {
        /// Only say whether they are those of the program.
        #[arg(long)]
        check: bool,
    },
    /// Fetch ONNX Runtime, which the onnx plugin prefers to its built-in engine.
    FetchOnnxruntime {
        /// For another platform, for example linux-aarch64.
        #[arg(long, value_name = "OS-ARCH")]
        platform: Option<String>,
        /// Into this folder instead of the user's data folder.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Install the Python programs that tests and benchmarks compare with, into target/peers.
    Peers {
        /// Also llama.cpp with its Python bindings, for `bench`: compiled here, which takes ten minutes.
        #[arg(long)]
        bench: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", style("error:").red().bold().for_stderr());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let project = Project::open()?;
    match command {
        Command::Demo => demo::run(&project),
        Command::Test { only } => suite::run(&project, &only),
        Command::Build => {
            deps::ensure(&project)?;
            product::build(&project)
        }
        Command::Deps => deps::ensure(&project),
        Command::Dist(options) => dist::run(&project, &options),
        Command::Gpu { kind } => {
            println!("{}", gpu::build(&project, kind)?.display());
            Ok(())
        }
        Command::Bench(options) => {
            product::build(&project)?;
            bench::run(&project, &options)
        }
        Command::Stages { check } => stages::build(check),
        Command::Page { check } => page::build(&project, check),
        Command::AbiCheck { update } => abi::check(update),
        Command::Docs { check } => docs::generate(&project, check),
        Command::FetchOnnxruntime { platform, dir } => {
            let library = onnxruntime::fetch(platform.as_deref(), dir.as_deref())?;
            println!("{}", library.display());
            Ok(())
        }
        Command::Peers { bench } => peers::install(&project, bench),
    }
}
