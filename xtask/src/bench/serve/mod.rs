//! Many clients: tokens per second of all together and the time to the first token, over HTTP; and what the host costs.

mod floor;
mod server;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::floor::Floor;
use self::server::{Answer, Server};
use super::{Options, json};
use crate::peers::Peers;
use crate::progress;
use crate::project::{Project, tool};

/// Tokens of each answer.
const TOKENS: usize = 64;
/// Requests at the same time that the server computes.
const PARALLEL: u32 = 16;
/// Tokens of each request's context.
const CONTEXT: u32 = 1024;
/// Requests one after the other, for what the host costs.
const ALONE: usize = 1000;

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
    let mut measured = Vec::new();
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let served = best(&servers, number, *scenario, options.rounds)?;
        let bare = measure_peer(project, &model, *scenario, options);
        let bare = bare.inspect_err(|error| progress::skipped("peer", &format!("{error:#}"))).ok();
        measured.push((served, bare));
    }
    drop(servers);
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
    for (scenario, (served, bare)) in SCENARIOS.iter().zip(measured) {
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
    let mut connection = server.connect()?;
    let (mut request, mut floor, mut token) = (Vec::new(), Vec::new(), Vec::new());
    let mut bare = Floor::start()?;
    // The first loads the model, or warms up.
    connection.ask(&prompt(0, 16), 1, false)?;
    for round in 1..=ALONE {
        let answer = connection.ask(&prompt(round, 16), 1, false)?;
        request.push(answer.total_ms - answer.engine_ms);
        // In turn, and after as long a time: what the system takes to wake who waits is the same for both.
        floor.push(bare.ask(answer.engine_ms)?);
    }
    for round in 0..ALONE / 4 {
        let answer = connection.ask(&prompt(2 * ALONE + round, 16), TOKENS, true)?;
        token.push((answer.total_ms - answer.engine_ms).max(0.0) * 1e3 / TOKENS as f64);
    }
    for values in [&mut request, &mut floor, &mut token] {
        values.sort_by(f64::total_cmp);
    }
    let at = |values: &[f64], part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
    writeln!(
        page,
        "\nWhat HTTP, routing and the ABI add to the engine's own time, with the repository's chat model, one request after \
         the other on one connection; a streamed token has its share of its request. The bare socket is asked in turn with ours: a \
         thread that reads as many bytes, computes as long as the engine did, and writes as many back.\n\n\
         | | p50 | p99 | aim |\n|---|---|---|---|\n\
         | a request of 16 tokens for one more | {:.3} ms | {:.3} ms | |\n\
         | a bare socket that answers after the same time | {:.3} ms | {:.3} ms | |\n\
         | the difference | {:.3} ms | {:.3} ms | p99 0.3 ms |\n\
         | a streamed token | {:.1} us | {:.1} us | 20 us |",
        at(&request, 0.5),
        at(&request, 0.99),
        at(&floor, 0.5),
        at(&floor, 0.99),
        at(&request, 0.5) - at(&floor, 0.5),
        at(&request, 0.99) - at(&floor, 0.99),
        at(&token, 0.5),
        at(&token, 0.99),
    )?;
    Ok(())
}

fn measure_peer(project: &Project, model: &Path, scenario: Scenario, options: &Options) -> Result<Peer> {
    let mut command = tool(Peers::Usual.program(project, "python"), &project.root);
    command.args(["tests/peers/batched.py", "--threads", &options.threads.to_string()]);
    command.args(["--tokens", &TOKENS.to_string(), "--repeat", &options.rounds.max(1).to_string()]);
    command.arg("--model").arg(model).arg(serde_json::to_string(&[scenario])?);
    let found: Vec<Peer> = json(&mut command).context("`cargo xtask peers --bench` brings it")?;
    found.into_iter().next().context("the peer measured nothing")
}

/// The best round of each server; they take turns.
fn best(servers: &[Server], number: usize, scenario: Scenario, rounds: u32) -> Result<Vec<Served>> {
    let mut best: Vec<Option<Served>> = vec![None; servers.len()];
    // Each round of each scenario has prompts of its own; the first warms up.
    for round in 0..=rounds.max(1) as usize {
        let seed = (number * 100 + round) * 100;
        for (server, best) in servers.iter().zip(&mut best) {
            let found = together(server, scenario, seed)?;
            if round > 0 && best.as_ref().is_none_or(|b| found.tokens_per_second > b.tokens_per_second) {
                *best = Some(found);
            }
        }
    }
    best.into_iter().collect::<Option<_>>().context("no round")
}

fn together(server: &Server, scenario: Scenario, seed: usize) -> Result<Served> {
    let started = Instant::now();
    let answers = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..scenario.clients)
            .map(|client| {
                let mut tokens = prompt(seed, scenario.shared);
                tokens.extend(prompt(seed + 1 + client, scenario.prompt));
                scope.spawn(move || server.connect()?.ask(&tokens, TOKENS, true))
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

/// A prompt like no other from its first token on: servers keep what they have computed, and find it again.
fn prompt(seed: usize, tokens: usize) -> Vec<u32> {
    let mut state = 0x9e37_79b9 ^ (seed as u32 + 1).wrapping_mul(0x85eb_ca6b);
    let mut next = || {
        // xorshift32, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        10 + state % 200
    };
    // The first two tokens are the seed itself.
    let mut tokens: Vec<u32> = (0..tokens).map(|_| next()).collect();
    for (digit, token) in tokens.iter_mut().take(2).enumerate() {
        *token = 10 + (seed / 200usize.pow(digit as u32) % 200) as u32;
    }
    tokens
}
