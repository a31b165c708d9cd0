//! What bits cost: the same bytes spent by llama.cpp's mixture, by how the model is built, and where measurements say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Options;
use crate::progress;
use crate::project::Project;

const PRECISIONS: [&str; 2] = ["Q4_K_M", "Q3_K_M"];
const STRATEGIES: [&str; 3] = ["preset", "architecture", "solve"];

/// A trained model, a text to calibrate and solve with, and one that judges.
struct Case {
    name: &'static str,
    source: PathBuf,
    train: PathBuf,
    held_out: PathBuf,
}

/// What came out: bytes of the file, and its divergence with the error.
#[derive(Clone, Copy)]
struct Measured {
    bytes: u64,
    kld: f64,
    error: f64,
}

/// Measures, and writes the section.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    progress::headline("What bits cost");
    let scratch = project.target.join("bench-quality");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    writeln!(
        page,
        "\n## What bits cost\n\nThe repository's trained models at the size of llama.cpp's mixture, all three with the same importance \
         matrix: mean KL divergence from the original in nats, on text that nothing was calibrated with or chosen by. Less is better; \
         the percentages are against the mixture. The aims: `architecture` no worse, `solve` at least 10 % less.\n\n\
         | model | precision | bytes | mixture | `architecture` | | `solve` | | kept |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for case in cases(project, options, &scratch)? {
        let matrix = scratch.join(format!("{}.imatrix.gguf", case.name));
        let mut calibrate = project.pajamas();
        calibrate
            .arg("calibrate")
            .arg(&case.source)
            .arg("--text")
            .arg(&case.train)
            .arg("--output")
            .arg(&matrix);
        run(threads(&mut calibrate, options))?;
        for precision in PRECISIONS {
            let mut found = BTreeMap::new();
            let mut kept = String::new();
            for strategy in STRATEGIES {
                let output = scratch.join(format!("{}-{precision}-{strategy}", case.name));
                let mut convert = project.pajamas();
                convert.arg("convert").arg(&case.source).args([
                    "-p",
                    precision,
                    "--strategy",
                    strategy,
                    "--json",
                ]);
                convert.arg("--imatrix").arg(&matrix).arg("--output").arg(&output);
                if strategy == "solve" {
                    convert.arg("--text").arg(&case.train);
                }
                let made = run(threads(&mut convert, options))?;
                if let Some(what) = made.pointer("/report/solve/kept").and_then(Value::as_str) {
                    what.clone_into(&mut kept);
                }
                let file =
                    made.pointer("/files/0/path").and_then(Value::as_str).context("no file was made")?;
                found.insert(strategy, validate(project, options, &case, &output.join(file))?);
            }
            let [preset, architecture, solve] = STRATEGIES.map(|strategy| found[strategy]);
            let show = |m: Measured| {
                format!("{:.5} ± {:.5} | {:+.1} %", m.kld, m.error, (m.kld / preset.kld - 1.0) * 100.0)
            };
            let line = format!(
                "| {} | {precision} | {}, {}, {} | {:.5} ± {:.5} | {} | {} | {kept} |",
                case.name,
                preset.bytes,
                architecture.bytes,
                solve.bytes,
                preset.kld,
                preset.error,
                show(architecture),
                show(solve)
            );
            progress::done("Measured", &line);
            writeln!(page, "{line}")?;
        }
    }
    writeln!(
        page,
        "\nBytes are those of the three files. Where `solve` measures no better than the mixture on the last fifth of the text that it \
         was given, the mixture is what it ships: `kept` says which.\n\n{NOTES}"
    )?;
    Ok(())
}

/// What the numbers do not say.
const NOTES: &str = "These models are tiny: rows are short, a tensor is a large part of the file, and what is spent elsewhere is quickly \
                     half a step of bits. In `Q3_K_M` the mixture gives nearly everything that it gives to every layer, which \
                     `architecture` leaves as it is: it comes to the same or nearly the same file.";

fn cases(project: &Project, options: &Options, scratch: &Path) -> Result<Vec<Case>> {
    let families = project.root.join("models/families");
    let (train, held_out) = (families.join("train.txt"), families.join("held-out.txt"));
    let own = |name: &'static str, source: PathBuf| Case {
        name,
        source,
        train: train.clone(),
        held_out: held_out.clone(),
    };
    let mut cases = vec![own("chat", project.root.join("models/chat/hf"))];
    for name in ["moe", "alternating", "hybrid"] {
        cases.push(own(name, families.join(name).join("hf")));
    }
    let stories = options.assets.as_ref().map(|assets| assets.join("llm/TinyStories-656K"));
    if let Some(source) = stories.filter(|folder| folder.is_dir()) {
        // It knows the words of stories, no markup: two texts that its small vocabulary can spell.
        let plain = |from: &str| -> Result<PathBuf> {
            let text = fs::read_to_string(project.root.join("calibration").join(from))?.replace('\n', " ");
            let text: String = text
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || " .,".contains(*c))
                .take(60_000)
                .collect();
            let path = scratch.join(from);
            fs::write(&path, text)?;
            Ok(path)
        };
        let (train, held_out) = (plain("general.txt")?, plain("summarization.txt")?);
        cases.push(Case { name: "TinyStories-656K", source, train, held_out });
    }
    Ok(cases)
}

fn validate(project: &Project, options: &Options, case: &Case, model: &Path) -> Result<Measured> {
    let mut command = project.pajamas();
    command.arg("validate").arg(model).arg("--against").arg(&case.source).arg("--text").arg(&case.held_out);
    command.args(["--json", "-n", "0"]);
    for limit in ["--max-kld", "--max-kld-p99", "--max-perplexity-ratio", "--min-agreement"] {
        command.args([limit, "none"]);
    }
    let report = run(threads(&mut command, options))?;
    let form = report.pointer("/forms/0").context("nothing was measured")?;
    let number =
        |path: &str| form.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path}"));
    Ok(Measured {
        bytes: fs::metadata(model)?.len(),
        kld: number("/kld/mean")?,
        error: number("/kld/error")?,
    })
}

fn threads<'c>(command: &'c mut Command, options: &Options) -> &'c mut Command {
    command.args(["--threads", &options.threads.to_string()])
}

/// The first object that a command prints; `null` where it prints none.
fn run(command: &mut Command) -> Result<Value> {
    let output = command.output().context("running pajamas")?;
    if !output.status.success() {
        anyhow::bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default())
}
