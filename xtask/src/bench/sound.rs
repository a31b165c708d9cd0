//! The stages that listen: in WASM, and as native code.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Options, json};
use crate::progress;
use crate::project::{Project, tool};

#[derive(Debug, Deserialize)]
struct Native {
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    step: String,
    ms: f64,
}

#[derive(Debug, Deserialize)]
struct Fastest {
    ms: f64,
}

/// Each stage as it is named in the table, the stage itself, its options, and what it is given.
const STEPS: [(&str, &str, &str, Given); 6] = [
    ("audio-decode", "audio-decode", "{}", Given::File),
    ("resample", "resample", "{}", Given::File),
    ("log-mel", "log-mel", "{}", Given::Narrow),
    ("vad-frame", "vad-frame", "{}", Given::Narrow),
    ("pcm-encode", "pcm-encode", "{}", Given::Narrow),
    ("pcm-encode, FLAC", "pcm-encode", "{\"format\": \"flac\"}", Given::Narrow),
];

/// The sound as it was recorded, or of one channel at 16 kHz.
#[derive(Debug, Clone, Copy)]
enum Given {
    File,
    Narrow,
}

/// Measures on the recordings of the assets, and writes the table.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    progress::headline("Sound");
    let Some(assets) = &options.assets else {
        progress::skipped("sound", "its recordings are among the --assets");
        return Ok(());
    };
    let (file, narrow) = (assets.join("audio/jfk.flac"), assets.join("audio/jfk.wav"));
    let native = native(project, &file)?;
    writeln!(
        page,
        "\n## Sound: the stages on 11 seconds of speech\n\nMilliseconds in WASM, and of the same code as native code \
         (`wasm-stages/native-times`): from FLAC of two channels at 44.1 kHz to the spectrogram of 30 s for Whisper.\n\n\
         | step | WASM | native | ratio |\n|---|---|---|---|"
    )?;
    for (name, stage, stage_options, given) in STEPS {
        let source = match given {
            Given::File => &file,
            Given::Narrow => &narrow,
        };
        let wasm = wasm(project, stage, stage_options, source)?;
        let native =
            native.steps.iter().find(|s| s.step == name).context("a stage that native-times leaves out")?.ms;
        writeln!(page, "| {name} | {wasm:.2} | {native:.2} | {:.2} |", wasm / native)?;
    }
    Ok(())
}

/// The stage as the host runs it, its instance and the copies in and out included.
fn wasm(project: &Project, stage: &str, options: &str, source: &Path) -> Result<f64> {
    let mut command = project.pajamas();
    command.args(["stages", "run", "--json", stage, "--options", options, "--repeat", "20"]);
    let output = command.arg(std::path::absolute(source)?).output().context("running pajamas stages run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let fastest: Fastest = serde_json::from_str(last).with_context(|| last.to_owned())?;
    Ok(fastest.ms)
}

fn native(project: &Project, file: &Path) -> Result<Native> {
    let mut command = tool("cargo", &project.root.join("wasm-stages/native-times"));
    command.args(["run", "--release", "--locked", "--quiet", "--target-dir"]);
    command.arg(project.target.join("native-times")).args(["--", "--sound"]).arg(std::path::absolute(file)?);
    json(&mut command)
}
