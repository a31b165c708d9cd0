//! `cargo xtask bench`: ours and the peer's on the same files, taking turns in one run, with the ratios.

mod convert;
mod day;
mod detect;
mod house;
mod isolation;
mod quality;
mod route;
mod serve;
mod sound;
mod text;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::files;
use crate::product;
use crate::progress::{self, Show};
use crate::project::Project;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folder with a YOLOv8 model (`yolo/yolov8n_int8.onnx`, `derived/yolov8n_deq_fp32.onnx`), pictures and recordings; without
    /// it, the repository's own detector and picture.
    #[arg(long, value_name = "FOLDER")]
    assets: Option<PathBuf>,
    /// A GGUF model to measure text with, besides the repository's own.
    #[arg(long, value_name = "FILE")]
    gguf: Option<PathBuf>,
    /// llama.cpp's own `llama-server`, to be asked by many clients in turn with ours.
    #[arg(long, value_name = "FILE")]
    llama_server: Option<PathBuf>,
    /// Threads of both sides.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// How often each side runs; they take turns.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only this part; may be given more than once.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Write the tables to docs/src/benchmarks.md.
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

/// A section of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    House,
    Route,
    Day,
    Detect,
    Sound,
    Text,
    Isolation,
    Serve,
    Convert,
    Quality,
}

type Measure = fn(&Project, &Options, &mut String) -> Result<()>;

const PARTS: [(Part, Measure); 10] = [
    (Part::House, house::measure),
    (Part::Route, route::measure),
    (Part::Day, day::measure),
    (Part::Detect, detect::measure),
    (Part::Sound, sound::measure),
    (Part::Text, text::measure),
    (Part::Isolation, isolation::measure),
    (Part::Serve, serve::measure),
    (Part::Convert, convert::measure),
    (Part::Quality, quality::measure),
];

/// Measures, prints the tables, and with `--write` keeps them in the book.
pub fn run(project: &Project, options: &Options) -> Result<()> {
    let mut page = String::from(
        "# Benchmarks\n\nWritten by `cargo xtask bench --write`: ours and the peer take turns on the same files with the \
         same number of threads; each number is the best of all its rounds.\n\n",
    );
    writeln!(page, "Machine: {}; {} thread(s).", machine(project)?, options.threads)?;
    print!("{page}");
    for (part, measure) in PARTS {
        if options.only.is_empty() || options.only.contains(&part) {
            let before = page.len();
            measure(project, options, &mut page)?;
            // What was measured is not lost when a later part is given up.
            print!("{}", &page[before..]);
        }
    }
    if options.write {
        files::write_if_changed(&project.root.join("docs/src/benchmarks.md"), page.as_bytes())?;
        progress::done("Wrote", "docs/src/benchmarks.md");
    }
    Ok(())
}

fn machine(project: &Project) -> Result<String> {
    #[derive(Deserialize)]
    struct Hardware {
        cpu: Cpu,
        memory: Memory,
    }
    #[derive(Deserialize)]
    struct Cpu {
        brand: String,
        usable_cores: u32,
        features: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Memory {
        total: u64,
    }
    let found: Hardware = json(project.pajamas().args(["hardware", "--json"]))?;
    let widest = ["amx-int8", "avx512f", "avx2", "neon"]
        .into_iter()
        .find(|f| found.cpu.features.iter().any(|g| g == f));
    Ok(format!(
        "{}, {} core(s), {}, {} GiB",
        found.cpu.brand,
        found.cpu.usable_cores,
        widest.unwrap_or("no SIMD"),
        found.memory.total >> 30
    ))
}

/// Runs a program that prints one JSON object.
fn json<T: for<'de> Deserialize<'de>>(command: &mut Command) -> Result<T> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {program} printed"))
}

/// What one of the crates' examples prints, built and run.
fn example(project: &Project, name: &str, arguments: &[&Path]) -> Result<String> {
    let mut cargo = project.cargo();
    cargo.args(["build", "--release"]).args(product::CRATES).args(["--example", name]);
    let log = project.log(&format!("bench-{name}"));
    progress::run(&format!("Building the example {name}"), &mut cargo, &log, Show::Progress)?;
    let program = project.release().join("examples").join(name);
    let output = Command::new(&program)
        .args(arguments)
        .output()
        .with_context(|| format!("{} could not be started", program.display()))?;
    if !output.status.success() {
        bail!("the example {name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("what the example {name} printed"))
}

/// A configuration with one model and its backend's options, as TOML writes them, for `pajamas bench`.
fn configuration(project: &Project, backend: &str, model: &Path, options: &str) -> Result<PathBuf> {
    let file = project.target.join(format!("bench-{backend}.toml"));
    let text = format!(
        "schema = 1\n[[models]]\nid = \"bench\"\npath = {:?}\nbackend = {backend:?}\noptions = {{ {options} }}\n",
        model.display().to_string()
    );
    files::write_if_changed(&file, text.as_bytes())?;
    Ok(file)
}
