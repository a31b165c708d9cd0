//! What a process of its own costs a text model: tokens per second in the host and in a worker, taking turns.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;

use super::house::packed;
use super::{Options, configuration, example, json};
use crate::progress;
use crate::project::Project;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Rates {
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
}

/// Measures the repository's own model, whose tokens are the fastest and so the dearest to send, and `--gguf`.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    writeln!(
        page,
        "\n## Isolation\n\nTokens per second of one stream, in the host and with `isolation = \"process\"`.\n\n\
         | model | | host | worker | ratio |\n|---|---|---|---|---|"
    )?;
    let own = project.root.join("models/chat/model.gguf");
    for model in [Some(own), options.gguf.clone()].into_iter().flatten() {
        let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        progress::headline(&format!("Isolation with {name}"));
        let config = configuration(project, "gguf", &model, &format!("threads = {}", options.threads))?;
        let mut best = [Rates::default(); 2];
        for _ in 0..options.rounds.max(1) {
            for (isolation, best) in ["none", "process"].into_iter().zip(&mut best) {
                let mut command = project.pajamas();
                command.arg("--config").arg(&config);
                command.args(["--json", "--set", &format!("models.bench.isolation={isolation}")]);
                let found: Rates = json(command.args(["bench", "-m", "bench", "-p", "256", "-n", "64"]))?;
                best.prompt_tokens_per_second =
                    best.prompt_tokens_per_second.max(found.prompt_tokens_per_second);
                best.decode_tokens_per_second =
                    best.decode_tokens_per_second.max(found.decode_tokens_per_second);
            }
        }
        let [host, worker] = best;
        for (what, host, worker) in [
            ("prompt", host.prompt_tokens_per_second, worker.prompt_tokens_per_second),
            ("decode", host.decode_tokens_per_second, worker.decode_tokens_per_second),
        ] {
            writeln!(page, "| {name} | {what} | {host:.1} | {worker:.1} | {:.3} |", worker / host)?;
        }
    }
    let folder = packed(project, "minimal")?;
    let tensor = example(project, "isolation", &[&folder])?;
    writeln!(page, "\nA tensor there and back (aim: 0.5 ms more):\n\n```text\n{}\n```", tensor.trim_end())?;
    Ok(())
}
