//! The host itself: how soon it is ready, and what it costs to cross into a plugin.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use pajamas_plugin_api::host::{MANIFEST_NAME, Manifest, library_file_name};
use serde::Deserialize;

use super::{Options, json};
use crate::progress;
use crate::project::Project;
use crate::{dist, files};

/// The plugin whose tokens cost next to nothing: a lookup in a table.
const PLUGIN: &str = "recommended";
/// Tokens of one answer.
const TOKENS: u32 = 60_000;

/// Measures, and writes the section.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    progress::headline("The host itself");
    let rounds = options.rounds.max(1);
    let ready = (0..rounds).map(|_| ready_ms(project)).collect::<Result<Vec<_>>>()?;
    let ready = ready.into_iter().fold(f64::INFINITY, f64::min);
    let crossing = crossing_us(project)?;
    let size = dist::serving_mb(project)?;
    writeln!(
        page,
        "\n## The host itself\n\n| | measured | aim |\n|---|---|---|\n\
         | `pajamas serve` takes requests, its stages compiled before | {ready:.0} ms | 300 ms |\n\
         | one token from a plugin to the caller, the plugin's own work included | {crossing:.3} us | 1 us |\n\
         | host, stages, `gguf` with every CPU variant, `onnx` with rten, stripped | {size:.1} MB | 80 MB |\n\n\
         The plugin is `examples/backend-recommended`, which looks each token up in a table: {TOKENS} tokens in one answer.",
    )?;
    Ok(())
}

/// From starting the server to the line that says it listens.
fn ready_ms(project: &Project) -> Result<f64> {
    let started = Instant::now();
    let mut server = project
        .pajamas()
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the server")?;
    let stderr = server.stderr.take().context("the server has no standard error")?;
    let line = BufReader::new(stderr).lines().map_while(Result::ok).find(|line| line.contains("listens on"));
    let took = started.elapsed().as_secs_f64() * 1e3;
    server.kill()?;
    server.wait()?;
    if line.is_none() {
        bail!("the server ended without listening");
    }
    Ok(took)
}

fn crossing_us(project: &Project) -> Result<f64> {
    #[derive(Deserialize)]
    struct Rates {
        decode_tokens_per_second: f64,
    }
    let config = prepare(project)?;
    let mut command = project.pajamas();
    command.arg("--config").arg(config).args(["bench", "--model", "bench", "--json", "--prompt-tokens", "8"]);
    let rates: Rates = json(command.args(["--tokens", &TOKENS.to_string()]))?;
    Ok(1e6 / rates.decode_tokens_per_second)
}

/// An example plugin built and packed; gives the folder where it is found.
pub fn packed(project: &Project, name: &str) -> Result<PathBuf> {
    let package = format!("backend-{name}");
    let mut cargo = project.cargo_outside(&project.root.join("examples").join(&package));
    progress::run(
        &format!("Building {package}"),
        cargo.args(["build", "--release"]),
        &project.log("bench-plugin"),
        progress::Show::Progress,
    )?;
    let plugins = project.target.join("bench/plugins");
    let plugin = plugins.join(name);
    let library = library_file_name(&package);
    files::copy_if_changed(&project.target.join("outside/release").join(&library), &plugin.join(&library))?;
    let manifest = Manifest::for_library(&plugin.join(&library), name, "0.1.0")?;
    files::write_if_changed(&plugin.join(MANIFEST_NAME), manifest.to_toml()?.as_bytes())?;
    Ok(plugins)
}

/// The plugin built and packed, a model of 256 words in a ring, and a configuration for both.
fn prepare(project: &Project) -> Result<PathBuf> {
    let plugins = packed(project, PLUGIN)?;
    let folder = project.target.join("bench");

    let rules: String = (0..256).map(|word| format!("w{word} w{}\n", (word + 1) % 256)).collect();
    let model = folder.join("ring.bigram");
    files::write_if_changed(&model, rules.as_bytes())?;
    let config = folder.join("pajamas.toml");
    fs::write(
        &config,
        format!(
            "schema = 1\n[plugins]\nsearch = [{:?}]\n[[models]]\nid = \"bench\"\npath = {:?}\nformat = \"bigram\"\n\
             options = {{ context = {} }}\n",
            plugins.display().to_string(),
            model.display().to_string(),
            TOKENS + 1024,
        ),
    )?;
    Ok(config)
}
