//! Many clients: tokens per second of all together and the time to the first token, over HTTP; and what the host costs.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Options, json};
use crate::files;
use crate::peers;
use crate::progress;
use crate::project::{Project, tool};

/// Tokens of each answer.
const TOKENS: usize = 64;
/// Requests at the same time that the server computes.
const PARALLEL: u32 = 16;
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
struct Ours {
    tokens_per_second: f64,
    /// Sorted.
    first_token_ms: Vec<f64>,
}

/// Measures, and writes the section.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    let model = match &options.gguf {
        Some(file) => std::path::absolute(file)?,
        None => project.root.join("models/chat/model.gguf"),
    };
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    progress::headline(&format!("Many clients with {name}"));
    let server = Server::start(project, &model, options.threads)?;
    let ours = SCENARIOS.iter().map(|s| best(&server, *s, options.rounds)).collect::<Result<Vec<_>>>()?;
    drop(server);
    let peer = match measure_peer(project, &model, options) {
        Ok(peer) => peer.into_iter().map(Some).collect(),
        Err(error) => {
            progress::skipped("peer", &format!("{error:#}"));
            vec![None; SCENARIOS.len()]
        }
    };
    writeln!(
        page,
        "\n## Many clients\n\n`{name}` over HTTP, all clients at once, {TOKENS} tokens each; tokens per second of all \
         together, from the first request to the last answer. The peer is llama.cpp's own batched decoding without a server \
         (`tests/peers/batched.py`), which has all prompts at the same moment; its first tokens come together.\n\n\
         | clients | prompt | shared | ours | peer | ratio | first token p50 | p95 | peer |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    for ((scenario, ours), peer) in SCENARIOS.iter().zip(ours).zip(peer) {
        let Scenario { clients, prompt, shared } = scenario;
        let at = |part: f64| ours.first_token_ms[((clients - 1) as f64 * part).round() as usize];
        let (rate, ratio, first) = match peer {
            Some(peer) => (
                format!("{:.1}", peer.tokens_per_second),
                format!("{:.3}", ours.tokens_per_second / peer.tokens_per_second),
                format!("{:.0} ms", peer.first_token_ms),
            ),
            None => ("-".into(), "-".into(), "-".into()),
        };
        writeln!(
            page,
            "| {clients} | {prompt} | {shared} | {:.1} | {rate} | {ratio} | {:.0} ms | {:.0} ms | {first} |",
            ours.tokens_per_second,
            at(0.5),
            at(0.95),
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
         the other on a kept connection:\n\n| | p50 | p99 | aim |\n|---|---|---|---|\n\
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

fn best(server: &Server, scenario: Scenario, rounds: u32) -> Result<Ours> {
    let mut best: Option<Ours> = None;
    // Each round has prompts of its own; the first warms up.
    for round in 0..=rounds.max(1) as usize {
        let found = together(server, scenario, round)?;
        if round > 0 && best.as_ref().is_none_or(|b| found.tokens_per_second > b.tokens_per_second) {
            best = Some(found);
        }
    }
    best.context("no round")
}

fn together(server: &Server, scenario: Scenario, round: usize) -> Result<Ours> {
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
    Ok(Ours { tokens_per_second: (scenario.clients * TOKENS) as f64 / seconds, first_token_ms })
}

/// A prompt that begins like no other.
fn prompt(seed: usize, tokens: usize, from: usize) -> Vec<u32> {
    (from..from + tokens).map(|i| (10 + (i * 7 + seed * 13 + seed / 15) % 200) as u32).collect()
}

/// A server with one model.
struct Server {
    process: Child,
    authority: String,
}

struct Answer {
    total_ms: f64,
    first_ms: f64,
    /// What the engine says that it took; only of answers that are not streamed.
    engine_ms: f64,
}

#[derive(Deserialize)]
struct Timings {
    queue_ms: f64,
    prompt_ms: f64,
    decode_ms: f64,
}

#[derive(Deserialize)]
struct Whole {
    timings: Timings,
}

impl Server {
    fn start(project: &Project, model: &Path, threads: u32) -> Result<Self> {
        let config: PathBuf = project.target.join("bench-serve.toml");
        let text = format!(
            "schema = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[[models]]\nid = \"bench\"\npath = {:?}\npreload = true\n\
             options = {{ threads = {threads}, parallel = {PARALLEL}, context_length = 1024 }}\n",
            model.display().to_string()
        );
        files::write_if_changed(&config, text.as_bytes())?;
        let mut command = project.pajamas();
        command.arg("--config").arg(config).arg("serve").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().context("starting the server")?;
        let stderr = process.stderr.take().context("the server has no standard error")?;
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let authority = lines
            .find_map(|line| Some(line.split_once("listens on http://")?.1.to_owned()))
            .context("the server ended without listening")?;
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, authority })
    }

    /// Asks for an answer of so many tokens, and reads it to its end.
    fn ask(&self, prompt: &[u32], tokens: usize, stream: bool) -> Result<Answer> {
        let body = serde_json::json!({
            "model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "stream": stream,
        })
        .to_string();
        let mut connection = TcpStream::connect(&self.authority)?;
        connection.set_nodelay(true)?;
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.authority,
            body.len()
        );
        let started = Instant::now();
        connection.write_all(format!("{head}{body}").as_bytes())?;
        let (mut first_ms, mut engine_ms, mut ended, mut said) = (None, 0.0, false, String::new());
        for line in BufReader::new(connection).lines() {
            let line = line?;
            if let Some(data) = line.strip_prefix("data: ") {
                first_ms.get_or_insert_with(|| started.elapsed().as_secs_f64() * 1e3);
                ended |= data.contains("\"length\"");
            } else if line.starts_with('{') {
                if let Ok(Whole { timings }) = serde_json::from_str(&line) {
                    engine_ms = timings.queue_ms + timings.prompt_ms + timings.decode_ms;
                    ended = true;
                }
                said = line;
            }
        }
        if !ended {
            bail!("an answer did not come whole: {said}");
        }
        let total_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Answer { total_ms, first_ms: first_ms.unwrap_or(total_ms), engine_ms })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
