//! Many clients: tokens per second of all together and the time to the first token, over HTTP; and what the host costs.

mod server;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::server::{Answer, Server};
use super::{Options, json};
use crate::peers;
use crate::progress;
use crate::project::{Project, tool};

/// Tokens of each answer.
const TOKENS: usize = 64;
/// Requests at the same time that the server computes.
const PARALLEL: u32 = 16;
/// Tokens of each request's context.
const CONTEXT: u32 = 1024;
/// Requests one after the other, for what the host costs.
const ALONE: usize = 300;

/// Clients that all ask at once.
#[derive(Debug, Clone, Copy, Serialize)]
struct Scenario {
    clients: usize,
    /// Tokens of each client's own prompt.
    prompt: usize,
    /// Tokens that all prompts begin with.
    shared: usize,
}

const SCENARIOS: [Scenario; 9] = [
    Scenario { clients: 1, prompt: 32, shared: 0 },
    Scenario { clients: 4, prompt: 32, shared: 0 },
    Scenario { clients: 8, prompt: 32, shared: 0 },
    Scenario { clients: 16, prompt: 32, shared: 0 },
    Scenario { clients: 4, prompt: 384, shared: 0 },
    Scenario { clients: 16, prompt: 384, shared: 0 },
    Scenario { clients: 4, prompt: 32, shared: 500 },
    Scenario { clients: 8, prompt: 32, shared: 500 },
    Scenario { clients: 16, prompt: 32, shared: 500 },
];

#[derive(Debug, Clone, Copy, Deserialize)]
struct Peer {
    tokens_per_second: f64,
    first_token_ms: f64,
}

#[derive(Debug, Clone)]
struct Served {
    tokens_per_second: f64,
    /// Sorted.
    first_token_ms: Vec<f64>,
}

impl Served {
    fn first(&self, part: f64) -> f64 {
        self.first_token_ms[((self.first_token_ms.len() - 1) as f64 * part).round() as usize]
    }
}

/// Measures, and writes the section.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    let model = match &options.gguf {
        Some(file) => std::path::absolute(file)?,
        None => project.root.join("models/chat/model.gguf"),
    };
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    progress::headline(&format!("Many clients with {name}"));
    let mut servers = vec![Server::start(project, &model, options.threads)?];
    if let Some(program) = &options.llama_server {
        servers.push(Server::start_peer(program, &model, options.threads)?);
    }
    let served = SCENARIOS.iter().map(|s| best(&servers, *s, options.rounds)).collect::<Result<Vec<_>>>()?;
    drop(servers);
    let bare = match measure_peer(project, &model, options) {
        Ok(peer) => peer.into_iter().map(Some).collect(),
        Err(error) => {
            progress::skipped("peer", &format!("{error:#}"));
            vec![None; SCENARIOS.len()]
        }
    };
    writeln!(
        page,
        "\n## Many clients\n\n`{name}` over HTTP, all clients at once, {TOKENS} tokens each; tokens per second of all \
         together, from the first request to the last answer, and the time to each client's first token. llama-server is \
         llama.cpp's own, asked by the same clients in turn with ours; the bare loop is its batched decoding without a server \
         (`tests/peers/batched.py`), which has all prompts at the same moment and gives all first tokens at once.\n\n\
         | clients | prompt | shared | ours | llama-server | ratio | bare loop | ratio | first token, ours p50 / p95 | llama-server | bare loop |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    let absent = || "-".to_owned();
    for ((scenario, served), bare) in SCENARIOS.iter().zip(served).zip(bare) {
        let Scenario { clients, prompt, shared } = scenario;
        let ours = &served[0];
        let beside = |rate: f64| (format!("{rate:.1}"), format!("{:.3}", ours.tokens_per_second / rate));
        let first = |served: &Served| format!("{:.0} / {:.0} ms", served.first(0.5), served.first(0.95));
        let peer = served.get(1);
        let (peer_rate, peer_ratio) =
            peer.map_or_else(|| (absent(), absent()), |peer| beside(peer.tokens_per_second));
        let (bare_rate, bare_ratio) =
            bare.map_or_else(|| (absent(), absent()), |bare| beside(bare.tokens_per_second));
        writeln!(
            page,
            "| {clients} | {prompt} | {shared} | {:.1} | {peer_rate} | {peer_ratio} | {bare_rate} | {bare_ratio} | {} | {} | {} |",
            ours.tokens_per_second,
            first(ours),
            peer.map_or_else(absent, first),
            bare.map_or_else(absent, |bare| format!("{:.0} ms", bare.first_token_ms)),
        )?;
    }
    tax(project, page)
}

/// What the host adds to the engine's own time, with a model that takes next to none.
fn tax(project: &Project, page: &mut String) -> Result<()> {
    let server = Server::start(project, &project.root.join("models/chat/model.gguf"), 1)?;
    let mut request = Vec::new();
    for round in 0..=ALONE {
        let alone = server.ask(&prompt(round, 16, 0), 1, false)?;
        // The first loads the model.
        if round > 0 {
            request.push(alone.total_ms - alone.engine_ms);
        }
    }
    let mut token = Vec::new();
    for round in 0..ALONE / 10 {
        let alone = server.ask(&prompt(round, 16, 0), TOKENS, true)?;
        let one = server.ask(&prompt(round, 16, 0), TOKENS, false)?;
        token.push((alone.total_ms - one.engine_ms).max(0.0) * 1e3 / TOKENS as f64);
    }
    request.sort_by(f64::total_cmp);
    token.sort_by(f64::total_cmp);
    let at = |values: &[f64], part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
    writeln!(
        page,
        "\nWhat HTTP, routing and the ABI add to the engine's own time, with the repository's chat model, one request after \
         the other, each on a connection of its own:\n\n| | p50 | p99 | aim |\n|---|---|---|---|\n\
         | a request of 16 tokens for one more | {:.3} ms | {:.3} ms | p99 0.3 ms |\n\
         | a streamed token | {:.1} us | {:.1} us | 20 us |",
        at(&request, 0.5),
        at(&request, 0.99),
        at(&token, 0.5),
        at(&token, 0.99),
    )?;
    Ok(())
}

fn measure_peer(project: &Project, model: &Path, options: &Options) -> Result<Vec<Peer>> {
    let mut command = tool(peers::python(project), &project.root);
    command.args(["tests/peers/batched.py", "--threads", &options.threads.to_string()]);
    command.args(["--tokens", &TOKENS.to_string(), "--repeat", &options.rounds.max(1).to_string()]);
    command.arg("--model").arg(model).arg(serde_json::to_string(&SCENARIOS)?);
    json(&mut command)
}

/// The best round of each server; they take turns.
fn best(servers: &[Server], scenario: Scenario, rounds: u32) -> Result<Vec<Served>> {
    let mut best: Vec<Option<Served>> = vec![None; servers.len()];
    // Each round has prompts of its own; the first warms up.
    for round in 0..=rounds.max(1) as usize {
        for (server, best) in servers.iter().zip(&mut best) {
            let found = together(server, scenario, round)?;
            if round > 0 && best.as_ref().is_none_or(|b| found.tokens_per_second > b.tokens_per_second) {
                *best = Some(found);
            }
        }
    }
    best.into_iter().collect::<Option<_>>().context("no round")
}

fn together(server: &Server, scenario: Scenario, round: usize) -> Result<Served> {
    let started = Instant::now();
    let answers = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..scenario.clients)
            .map(|client| {
                let seed = round * 101 + client;
                let mut tokens: Vec<u32> =
                    (0..scenario.shared).map(|i| (10 + (i * 3 + round) % 200) as u32).collect();
                tokens.extend(prompt(seed, scenario.prompt, 0));
                scope.spawn(move || server.ask(&tokens, TOKENS, true))
            })
            .collect();
        let join = |client: std::thread::ScopedJoinHandle<'_, Result<Answer>>| {
            client.join().unwrap_or_else(|_| bail!("a client panicked"))
        };
        clients.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let mut first_token_ms: Vec<f64> = answers.iter().map(|a| a.first_ms).collect();
    first_token_ms.sort_by(f64::total_cmp);
    Ok(Served { tokens_per_second: (scenario.clients * TOKENS) as f64 / seconds, first_token_ms })
}

/// A prompt that begins like no other.
fn prompt(seed: usize, tokens: usize, from: usize) -> Vec<u32> {
    (from..from + tokens).map(|i| (10 + (i * 7 + seed * 13 + seed / 15) % 200) as u32).collect()
}
