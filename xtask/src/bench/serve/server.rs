//! Servers that are asked: ours and llama.cpp's own, by the same client.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{CONTEXT, PARALLEL};
use crate::files;
use crate::project::Project;

/// A server with one model.
pub struct Server {
    process: Child,
    authority: String,
}

/// When an answer came.
pub struct Answer {
    pub total_ms: f64,
    pub first_ms: f64,
    /// What the engine says that it took; only of answers of ours that are not streamed.
    pub engine_ms: f64,
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

/// How long a peer may take to load its model.
const LOADING: Duration = Duration::from_secs(60);

impl Server {
    /// Ours.
    pub fn start(project: &Project, model: &Path, threads: u32) -> Result<Self> {
        let config: PathBuf = project.target.join("bench-serve.toml");
        let text = format!(
            "schema = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[[models]]\nid = \"bench\"\npath = {:?}\npreload = true\n\
             options = {{ threads = {threads}, parallel = {PARALLEL}, context_length = {CONTEXT} }}\n",
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

    /// llama.cpp's own: `llama-server`, with as many slots of the same size.
    pub fn start_peer(program: &Path, model: &Path, threads: u32) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program);
        command.arg("-m").arg(model).args(["--host", "127.0.0.1", "--port", &free.port().to_string()]);
        command.args(["-t", &threads.to_string(), "-tb", &threads.to_string()]);
        command.args(["-np", &PARALLEL.to_string(), "-c", &(CONTEXT * PARALLEL).to_string()]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.with_context(|| format!("starting {}", program.display()))?;
        let mut server = Self { process, authority: free.to_string() };
        let started = Instant::now();
        while !server.is_ready() {
            if let Some(status) = server.process.try_wait()? {
                bail!("{} ended with {status}", program.display());
            }
            if started.elapsed() > LOADING {
                bail!("{} was not ready in time", program.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn is_ready(&self) -> bool {
        let ask = || {
            let mut connection = TcpStream::connect(&self.authority).ok()?;
            let head =
                format!("GET /health HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.authority);
            connection.write_all(head.as_bytes()).ok()?;
            BufReader::new(connection).lines().next()?.ok()
        };
        ask().is_some_and(|status| status.contains(" 200 "))
    }

    /// Asks for an answer of so many tokens, and reads it to its end.
    pub fn ask(&self, prompt: &[u32], tokens: usize, stream: bool) -> Result<Answer> {
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
