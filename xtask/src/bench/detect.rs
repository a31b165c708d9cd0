//! Detection, end to end: from the bytes of a JPEG to boxes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::{Options, configuration, json};
use crate::peers::Peers;
use crate::progress;
use crate::project::{Project, tool};

#[derive(Debug, Clone, Deserialize)]
struct Measured {
    /// Without the model there is no whole.
    #[serde(default)]
    total_ms: f64,
    /// Of ours: pictures per second where there are many, some of them under way at the same time.
    #[serde(default)]
    images_per_second_of_many: f64,
    /// The same where the model, too, sees two at a time.
    #[serde(skip)]
    of_two_runs: f64,
    /// Of ours: who ran the model, `plugin/backend`.
    #[serde(default)]
    backend: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
struct Step {
    step: String,
    ms: f64,
}

impl Measured {
    fn of(&self, step: &str) -> Option<f64> {
        self.steps.iter().find(|s| s.step == step).map(|s| s.ms)
    }

    /// The better of two measurements, number by number; the steps are those of the shorter whole.
    fn or(self, other: Self) -> Self {
        let images_per_second_of_many = self.images_per_second_of_many.max(other.images_per_second_of_many);
        let of_two_runs = self.of_two_runs.max(other.of_two_runs);
        let shorter = if self.total_ms <= other.total_ms { self } else { other };
        Self { images_per_second_of_many, of_two_runs, ..shorter }
    }
}

/// Measures both engines and the peer on each model, and writes the tables.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    for (model, image) in inputs(project, options) {
        let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        progress::headline(&format!("Detection with {name}"));
        let mut best: [Option<Measured>; 3] = [None, None, None];
        for _ in 0..options.rounds.max(1) {
            for (side, slot) in best.iter_mut().enumerate() {
                let found = match side {
                    0 => ours(project, "onnxruntime", &model, &image, options.threads),
                    1 => ours(project, "rten", &model, &image, options.threads),
                    _ => peer(project, &model, &image, options.threads),
                };
                match found {
                    Ok(measured) => {
                        *slot = Some(match slot.take() {
                            Some(before) => before.or(measured),
                            None => measured,
                        })
                    }
                    Err(error) => {
                        progress::skipped(["onnxruntime", "rten", "peer"][side], &format!("{error:#}"))
                    }
                }
            }
        }
        let chosen = bench(project, "auto", &model, &image, options.threads, 1)?.backend;
        let stages = native(project, &image, if options.assets.is_some() { 640 } else { 320 });
        let stages = stages.inspect_err(|error| progress::skipped("native", &format!("{error:#}"))).ok();
        table(page, &name, &image, &best, stages.as_ref())?;
        verdict(page, &best, &chosen)?;
    }
    Ok(())
}

fn inputs(project: &Project, options: &Options) -> Vec<(PathBuf, PathBuf)> {
    match &options.assets {
        Some(assets) => ["yolo/yolov8n_int8.onnx", "derived/yolov8n_deq_fp32.onnx"]
            .iter()
            .map(|model| (assets.join(model), assets.join("images/bus.jpg")))
            .collect(),
        None => vec![(project.root.join("models/detect/model.onnx"), project.root.join("models/sample.png"))],
    }
}

fn ours(project: &Project, backend: &str, model: &Path, image: &Path, threads: u32) -> Result<Measured> {
    let measured = bench(project, backend, model, image, threads, 1)?;
    let of_two_runs = bench(project, backend, model, image, threads, 2)?.images_per_second_of_many;
    Ok(Measured { of_two_runs, ..measured })
}

/// As many runs of the model at a time as `parallel` says.
fn bench(
    project: &Project,
    backend: &str,
    model: &Path,
    image: &Path,
    threads: u32,
    parallel: u32,
) -> Result<Measured> {
    let options = match parallel {
        1 => format!("threads = {threads}"),
        _ => format!("threads = {threads}, parallel = {parallel}"),
    };
    let config = configuration(project, backend, &std::path::absolute(model)?, &options)?;
    let mut command = project.pajamas();
    command
        .arg("--config")
        .arg(config)
        .args(["bench", "--model", "bench", "--json", "--repeat", "10", "--image"]);
    json(command.arg(std::path::absolute(image)?))
}

fn peer(project: &Project, model: &Path, image: &Path, threads: u32) -> Result<Measured> {
    let mut command = tool(Peers::Usual.program(project, "python"), &project.root);
    command.args(["tests/peers/detect.py", "--repeat", "10", "--threads", &threads.to_string()]);
    json(
        command
            .arg("--model")
            .arg(std::path::absolute(model)?)
            .arg("--image")
            .arg(std::path::absolute(image)?),
    )
}

/// The stages as native code.
fn native(project: &Project, image: &Path, side: u32) -> Result<Measured> {
    let folder = project.root.join("wasm-stages/native-times");
    let mut command = tool("cargo", &folder);
    command.args(["run", "--release", "--locked", "--quiet", "--target-dir"]);
    command.arg(project.target.join("native-times")).arg("--").arg(std::path::absolute(image)?);
    json(command.args([side.to_string(), side.to_string()]))
}

fn table(
    page: &mut String,
    model: &str,
    image: &Path,
    best: &[Option<Measured>; 3],
    native: Option<&Measured>,
) -> Result<()> {
    let picture = image.file_name().unwrap_or_default().to_string_lossy();
    writeln!(page, "\n## Detection: `{model}` on `{picture}`\n")?;
    writeln!(
        page,
        "Milliseconds for one picture; stages of ours run in WASM, and beside it the same code as native code \
         (`wasm-stages/native-times`, its boxes made up). The peer is Python with onnxruntime, Pillow and numpy \
         (`tests/peers/detect.py`).\n"
    )?;
    writeln!(
        page,
        "| step | ours, onnxruntime | ours, rten | stages, native | peer |\n|---|---|---|---|---|"
    )?;
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2}"));
    for step in ["image-decode", "letterbox", "image-normalize", "model", "yolo-decode", "nms"] {
        let [onnxruntime, rten, peer] = best.each_ref().map(Option::as_ref);
        let sides = [onnxruntime, rten, native, peer];
        let row: Vec<String> = sides.map(|side| cell(side.and_then(|side| side.of(step)))).into();
        writeln!(page, "| {step} | {} |", row.join(" | "))?;
    }
    let [onnxruntime, rten, peer] = best.each_ref().map(|side| cell(side.as_ref().map(|side| side.total_ms)));
    writeln!(page, "| **total** | {onnxruntime} | {rten} | - | {peer} |")?;
    Ok(())
}

/// Images per second on the backend that the host chose, and on the engine that the peer has, too.
fn verdict(page: &mut String, best: &[Option<Measured>; 3], chosen: &str) -> Result<()> {
    let [onnxruntime, rten, Some(peer)] = best else { return Ok(()) };
    for side in [onnxruntime, rten].into_iter().flatten() {
        let choice =
            if side.backend == chosen { ", which the host chooses by itself for this model" } else { "" };
        let (rate, of_peer, ratio) =
            (1e3 / side.total_ms, 1e3 / peer.total_ms, peer.total_ms / side.total_ms);
        writeln!(
            page,
            "\nImages per second on {}{choice}: {rate:.2} against {of_peer:.2}, {ratio:.2} x the peer, which takes one after the \
             other; of many pictures, two of which are under way at a time, {:.2}, {:.2} x the peer, and {:.2}, {:.2} x, where the model \
             sees two at a time, too (`parallel = 2`), on another core.",
            side.backend,
            side.images_per_second_of_many,
            side.images_per_second_of_many / of_peer,
            side.of_two_runs,
            side.of_two_runs / of_peer,
        )?;
    }
    if let Some(side) = onnxruntime {
        let beside = |side: &Measured| side.total_ms - side.of("model").unwrap_or(0.0);
        writeln!(
            page,
            "\nWithout the model's own time, which on onnxruntime is the same library on both sides: {:.1} ms against {:.1} ms.",
            beside(side),
            beside(peer),
        )?;
    }
    Ok(())
}
