//! Text: prompt and decode tokens per second of one stream.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Options, configuration, json};
use crate::peers::Peers;
use crate::progress;
use crate::project::{Project, tool};

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Rates {
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
}

impl Rates {
    fn best(self, other: Self) -> Self {
        Self {
            prompt_tokens_per_second: self.prompt_tokens_per_second.max(other.prompt_tokens_per_second),
            decode_tokens_per_second: self.decode_tokens_per_second.max(other.decode_tokens_per_second),
        }
    }
}

/// Tokens of the prompt and of the answer: what the smallest model's context has room for.
const TOKENS: [&str; 2] = ["256", "64"];

/// Measures ours and the peer on each model, and writes the table.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    writeln!(
        page,
        "\n## Text\n\nTokens per second of one stream: a prompt of {} tokens, then {} tokens one by one. The peer is \
         llama.cpp driven by llama-cpp-python (`tests/peers/text.py`).\n",
        TOKENS[0], TOKENS[1]
    )?;
    writeln!(page, "| model | | ours | peer | ratio |\n|---|---|---|---|---|")?;
    let own = project.root.join("models/chat/model.gguf");
    for model in [Some(own), options.gguf.clone()].into_iter().flatten() {
        let name = model_name(project, &model);
        progress::headline(&format!("Text with {name}"));
        let (mut ours, mut peer): (Option<Rates>, Option<Rates>) = (None, None);
        for _ in 0..options.rounds.max(1) {
            keep(&mut ours, measure_ours(project, &model, options.threads), "ours");
            keep(&mut peer, measure_peer(project, &model, options.threads), "peer");
        }
        row(
            page,
            &name,
            "prompt",
            ours.map(|r| r.prompt_tokens_per_second),
            peer.map(|r| r.prompt_tokens_per_second),
        )?;
        row(
            page,
            &name,
            "decode",
            ours.map(|r| r.decode_tokens_per_second),
            peer.map(|r| r.decode_tokens_per_second),
        )?;
    }
    Ok(())
}

fn model_name(project: &Project, model: &Path) -> String {
    let inside = model.strip_prefix(&project.root).ok().map(|p| p.display().to_string());
    inside.unwrap_or_else(|| model.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

fn keep(best: &mut Option<Rates>, found: Result<Rates>, side: &str) {
    match found {
        Ok(rates) => *best = Some(best.unwrap_or_default().best(rates)),
        Err(error) => progress::skipped(side, &format!("{error:#}")),
    }
}

fn measure_ours(project: &Project, model: &Path, threads: u32) -> Result<Rates> {
    let config =
        configuration(project, "gguf", &std::path::absolute(model)?, &format!("threads = {threads}"))?;
    let mut command = project.pajamas();
    command.arg("--config").arg(config).args(["bench", "--model", "bench", "--json"]);
    json(command.args(["--prompt-tokens", TOKENS[0], "--tokens", TOKENS[1]]))
}

fn measure_peer(project: &Project, model: &Path, threads: u32) -> Result<Rates> {
    let mut command = tool(Peers::Usual.program(project, "python"), &project.root);
    command.args(["tests/peers/text.py", "--threads", &threads.to_string()]);
    command.args(["--prompt-tokens", TOKENS[0], "--tokens", TOKENS[1]]);
    json(command.arg("--model").arg::<PathBuf>(std::path::absolute(model)?))
        .context("`cargo xtask peers --bench` brings it")
}

fn row(page: &mut String, model: &str, what: &str, ours: Option<f64>, peer: Option<f64>) -> Result<()> {
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let ratio = ours.zip(peer).map_or_else(|| "-".to_owned(), |(a, b)| format!("{:.3}", a / b));
    Ok(writeln!(page, "| `{model}` | {what} | {} | {} | {ratio} |", cell(ours), cell(peer))?)
}
