//! Servers that are asked: ours and llama.cpp's own, by the same client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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
    /// What the engine says that it took; only of answers of ours.
    pub engine_ms: f64,
}

#[derive(Deserialize)]
struct Timings {
    queue_ms: f64,
    prompt_ms: f64,
    decode_ms: f64,
}

#[derive(Deserialize)]
struct Timed {
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

    /// A connection for requests one after the other.
    pub fn connect(&self) -> Result<Connection<'_>> {
        let stream = TcpStream::connect(&self.authority)?;
        stream.set_nodelay(true)?;
        Ok(Connection { authority: &self.authority, stream: BufReader::new(stream) })
    }
}

/// An open connection.
pub struct Connection<'s> {
    authority: &'s str,
    stream: BufReader<TcpStream>,
}

impl Connection<'_> {
    /// Asks for an answer of so many tokens, and reads it to its end.
    pub fn ask(&mut self, prompt: &[u32], tokens: usize, stream: bool) -> Result<Answer> {
        let body = serde_json::json!({
            "model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true,
            "stream": stream, "stream_options": { "include_usage": true },
        })
        .to_string();
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        let started = Instant::now();
        self.stream.get_mut().write_all(request.as_bytes())?;
        let length = self.head()?;
        let (mut first_ms, mut engine_ms, mut ended, mut said) = (None, 0.0, false, String::new());
        let mut heard = |line: &str| {
            ended |= line.contains("\"length\"");
            if let Ok(Timed { timings }) = serde_json::from_str(line) {
                engine_ms = timings.queue_ms + timings.prompt_ms + timings.decode_ms;
            }
            line.clone_into(&mut said);
        };
        if let Some(length) = length {
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            heard(&String::from_utf8(body)?);
        } else {
            // In chunks: the last has no length, and an empty line follows.
            loop {
                let line = self.line()?;
                if let Some(data) = line.strip_prefix("data: ") {
                    first_ms.get_or_insert_with(|| started.elapsed().as_secs_f64() * 1e3);
                    heard(data);
                } else if line == "0" {
                    self.line()?;
                    break;
                }
            }
        }
        if !ended {
            bail!("an answer did not come whole: {said}");
        }
        let total_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Answer { total_ms, first_ms: first_ms.unwrap_or(total_ms), engine_ms })
    }

    /// Reads the head of an answer: its length, or that it comes in chunks.
    fn head(&mut self) -> Result<Option<usize>> {
        let mut length = None;
        loop {
            let line = self.line()?.to_lowercase();
            if line.is_empty() {
                return Ok(length);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection ended before the answer did");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
