//! Making artifacts of a model of half a billion parameters: to GGUF, to MLX, and to fewer bits.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Options;
use crate::peers::{self, Peers};
use crate::progress;
use crate::project::{Project, tool};

/// A way from one file or folder to another, and what is wanted of it: so many times as fast as the peer.
struct Way {
    name: &'static str,
    aim: f64,
    /// Whether it writes as many bytes as it reads, so that copying them is its floor.
    copies: bool,
    /// The program that makes `out`, ours and the peer's.
    ours: Command,
    peer: Result<Command>,
    out: PathBuf,
}

/// Measures, and writes the section.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    progress::headline("Making artifacts");
    let scratch = project.target.join("bench-convert");
    let source = random_model(project, &scratch)?;
    let weights = source.join("model.safetensors");
    let bytes = fs::metadata(&weights)?.len();
    let rounds = options.rounds.max(1);
    let copy = best(rounds, || timed_copy(&weights, &scratch.join("copy")))?;
    writeln!(
        page,
        "\n## Making artifacts\n\nSeconds for a random Llama of half a billion parameters in BF16 ({:.2} GB), from the start of the program \
         to its end; ours also writes the hashes that `pajamas verify` proves. Copying its bytes into a file that is on the disk at the end \
         takes {:.2} s (aim: 1.2 times that). The peers are llama.cpp's converter (`convert_hf_to_gguf.py`), llama.cpp's quantizer called through \
         llama-cpp-python, and `mlx_lm.convert`.\n\n| | ours | peer | times as fast | aim | ours / copy |\n|---|---|---|---|---|---|",
        bytes as f64 / 1e9,
        copy.as_secs_f64()
    )?;
    for way in ways(project, options, &source, &scratch)? {
        writeln!(page, "{}", way.measured(rounds, copy)?)?;
    }
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))
}

fn ways(project: &Project, options: &Options, source: &Path, scratch: &Path) -> Result<Vec<Way>> {
    let ours = |from: &Path, format: &str, precision: &str, out: &Path| {
        let mut command = project.pajamas();
        command.arg("convert").arg(from).args(["--formats", format, "--precision", precision]);
        command.args(["--threads", &options.threads.to_string()]);
        command.arg("--output").arg(out);
        command
    };
    let mut ways = Vec::new();
    for (name, precision, theirs) in
        [("folder to GGUF, BF16", "BF16", "bf16"), ("folder to GGUF, F16", "F16", "f16")]
    {
        let out = scratch.join(precision);
        let peer = peers::converter_script(project).map(|script| {
            let mut peer = tool(Peers::Converter.program(project, "python"), &project.root);
            peer.arg(script)
                .arg(source)
                .args(["--outtype", theirs, "--outfile"])
                .arg(out.with_extension("peer"));
            peer
        });
        let ours = ours(source, "gguf", precision, &out);
        ways.push(Way { name, aim: 5.0, copies: true, ours, peer, out });
    }
    // What is quantized is a file that ours makes first.
    let whole = scratch.join("whole");
    finished(&mut ours(source, "gguf", "BF16", &whole))?;
    let file = gguf_of(&whole)?;
    for (name, precision) in [("GGUF to Q8_0", "Q8_0"), ("GGUF to Q4_K_M", "Q4_K_M")] {
        let out = scratch.join(precision);
        let mut peer = tool(Peers::Usual.program(project, "python"), &project.root);
        peer.arg("tests/peers/quantize.py").arg(&file).arg(out.with_extension("peer")).arg(precision);
        peer.args(["--threads", &options.threads.to_string()]);
        let ours = ours(&file, "gguf", precision, &out);
        ways.push(Way { name, aim: 1.0, copies: false, ours, peer: Ok(peer), out });
    }
    let out = scratch.join("mlx");
    let mut peer = Command::new(Peers::Mlx.program(project, "mlx_lm.convert"));
    peer.arg("--hf-path")
        .arg(source)
        .args(["-q", "--q-bits", "4", "--mlx-path"])
        .arg(out.with_extension("peer"));
    let name = "folder to MLX, 4 bit";
    let ours = ours(source, "mlx", "4bit", &out);
    ways.push(Way { name, aim: 10.0, copies: false, ours, peer: Ok(peer), out });
    Ok(ways)
}

impl Way {
    /// The line of the table. Both sides take turns.
    fn measured(self, rounds: u32, copy: Duration) -> Result<String> {
        let Self { name, aim, copies, mut ours, mut peer, out } = self;
        let (mut own, mut theirs): (Option<Duration>, Option<Duration>) = (None, None);
        for _ in 0..rounds {
            own = least(own, timed(&mut ours, &out)?);
            let Ok(command) = &mut peer else { continue };
            match timed(command, &out.with_extension("peer")) {
                Ok(time) => theirs = least(theirs, time),
                Err(error) => progress::skipped("peer", &format!("{error:#}")),
            }
        }
        if let Err(error) = peer {
            progress::skipped("peer", &format!("{error:#}"));
        }
        let own = own.context("no round")?.as_secs_f64();
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
        let theirs = theirs.map(|time| time.as_secs_f64());
        let line = format!(
            "| {name} | {own:.2} | {} | {} | {aim} | {} |",
            cell(theirs),
            cell(theirs.map(|time| time / own)),
            cell(copies.then(|| own / copy.as_secs_f64()))
        );
        progress::done("Measured", &line);
        Ok(line)
    }
}

fn least(best: Option<Duration>, time: Duration) -> Option<Duration> {
    Some(best.map_or(time, |best| best.min(time)))
}

fn best(rounds: u32, mut run: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut found = None;
    for _ in 0..rounds {
        found = least(found, run()?);
    }
    found.context("no round")
}

/// What a program takes to make `out`, which is removed before and after.
fn timed(command: &mut Command, out: &Path) -> Result<Duration> {
    remove(out)?;
    let begun = Instant::now();
    finished(command)?;
    let time = begun.elapsed();
    remove(out)?;
    Ok(time)
}

fn finished(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.with_context(|| format!("removing {}", path.display()))
}

fn timed_copy(from: &Path, to: &Path) -> Result<Duration> {
    remove(to)?;
    let begun = Instant::now();
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()?;
    let time = begun.elapsed();
    remove(to)?;
    Ok(time)
}

fn gguf_of(folder: &Path) -> Result<PathBuf> {
    let files = crate::files::all(folder)?;
    let found = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "gguf"));
    found.with_context(|| format!("no GGUF file in {}", folder.display()))
}

/// The model, written by an example of the quant plugin.
fn random_model(project: &Project, scratch: &Path) -> Result<PathBuf> {
    remove(scratch)?;
    fs::create_dir_all(scratch)?;
    super::example(project, "random_models", &[scratch, Path::new("half-billion")])?;
    Ok(scratch.join("half-billion"))
}
