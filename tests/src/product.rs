//! The built product: the `pajamas` program with its plugins, run as people and scripts run it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::{Result, repository};

/// A command of the product, to be run in the repository's root and free of the settings of whoever runs the tests.
///
/// # Errors
/// When the product is not built and packed.
pub fn pajamas() -> Result<Command> {
    // target/release/deps/TEST
    let test = std::env::current_exe()?;
    let release = test.ancestors().nth(2).ok_or("the test's executable has no target folder")?;
    let program = release.join(format!("pajamas{}", std::env::consts::EXE_SUFFIX));
    for part in [program.clone(), release.join("plugins/gguf"), release.join("plugins/onnx")] {
        if !part.exists() {
            return Err(format!(
                "{} is not there: build the product with `cargo xtask build`",
                part.display()
            )
            .into());
        }
    }
    let mut command = Command::new(program);
    command.current_dir(repository());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PAJAMAS_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs a command of the product to its end.
///
/// # Errors
/// When the product is not built, or cannot be started.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Finished> {
    Finished::of(pajamas()?.args(arguments))
}

/// As [`run`], with a text or a picture on standard input.
///
/// # Errors
/// As for [`run`].
pub fn run_with_input<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Result<Finished> {
    let mut command = pajamas()?;
    let mut child = piped(command.args(arguments).stdin(Stdio::piped())).spawn()?;
    // A command that refuses early does not read: that is its answer, not an error of the test.
    let written = child.stdin.take().ok_or("standard input is a pipe")?.write_all(input);
    drop(written);
    Finished::wait(child)
}

/// Lets a command's output be read.
pub fn piped(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its output.
    pub stdout: String,
    /// Its errors, warnings and progress.
    pub stderr: String,
}

impl Finished {
    fn of(command: &mut Command) -> Result<Self> {
        Self::wait(piped(command.stdin(Stdio::null())).spawn()?)
    }

    /// Waits for the end of a command that was started with its output [`piped`].
    ///
    /// # Errors
    /// When its output is not UTF-8.
    pub fn wait(child: Child) -> Result<Self> {
        let output = child.wait_with_output()?;
        let stdout = String::from_utf8(output.stdout)?;
        Ok(Self { status: output.status, stdout, stderr: String::from_utf8(output.stderr)? })
    }

    /// The objects printed with `--json`, one for each line, of a command that succeeded.
    ///
    /// # Errors
    /// When the command failed or printed something else.
    pub fn json(&self) -> Result<Vec<Value>> {
        if !self.status.success() {
            return Err(format!("{}\n{}", self.status, self.stderr).into());
        }
        self.lines()
    }

    /// The objects printed with `--json`, whether or not something else failed.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn lines(&self) -> Result<Vec<Value>> {
        let lines = self.stdout.lines().map(serde_json::from_str);
        Ok(lines.collect::<serde_json::Result<_>>()?)
    }

    /// Whether the program itself panicked; a stage that does is another matter.
    pub fn panicked(&self) -> bool {
        self.stderr.lines().any(|line| line.starts_with("thread '") && line.contains("panicked at"))
    }

    /// The code and the exit status of a command that was refused. Its error goes to standard error, as
    /// `error[CODE]: …` or as JSON.
    ///
    /// # Errors
    /// When the command succeeded, crashed, or gave no code.
    pub fn refusal(&self) -> Result<(String, i32)> {
        let status = self.status.code().ok_or_else(|| format!("killed: {}\n{}", self.status, self.stderr))?;
        let code = self.stderr.lines().rev().find_map(|line| match line.strip_prefix("error[") {
            Some(rest) => rest.split_once(']').map(|(code, _)| code.to_owned()),
            None => Some(serde_json::from_str::<Value>(line).ok()?["error"]["code"].as_str()?.to_owned()),
        });
        match code {
            Some(code) if status != 0 && !self.panicked() => Ok((code, status)),
            _ => Err(format!("no refusal: {}\n{}", self.status, self.stderr).into()),
        }
    }
}

/// A folder with a `pajamas.toml` of its own.
pub struct House(TempDir);

impl House {
    /// Writes the configuration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(toml: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("pajamas.toml"), toml)?;
        Ok(Self(folder))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// The configuration file, for `--config`.
    pub fn config(&self) -> PathBuf {
        self.folder().join("pajamas.toml")
    }

    /// Runs a command of the product under this configuration.
    ///
    /// # Errors
    /// As for [`run`].
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Finished> {
        Finished::of(pajamas()?.arg("--config").arg(self.config()).args(arguments))
    }
}

/// A `[[models]]` entry for a file.
pub fn model_entry(id: &str, path: &Path, rest: &str) -> String {
    // A TOML literal string keeps backslashes as they are.
    format!("[[models]]\nid = \"{id}\"\npath = '{}'\n{rest}\n", path.display())
}

/// The repository's own chat model, run by one thread: on a busy machine threads that wait for each other cost more
/// than they bring.
pub fn chat_entry(id: &str) -> String {
    let model = repository().join("models/chat/model.gguf");
    model_entry(id, &model, "task = \"chat\"\noptions = { threads = 1 }")
}

/// A `logit_bias` against every token that ends an answer of [`chat_entry`]'s model `chat`.
///
/// # Errors
/// When the model cannot be asked for them.
pub fn never_end(server: &Server) -> Result<Value> {
    let special = ["tokenize", "--json", "--special", "--no-special", "--model", "chat", "<|im_end|>"];
    let tokens = server.house().run(special)?.json()?.remove(0);
    let tokens = tokens["tokens"].as_array().ok_or("the tokens are a list")?;
    Ok(tokens.iter().map(|id| (id.to_string(), Value::from(-100))).collect())
}

/// A file among the shared assets; when they are not there, says which test is the poorer for it.
pub fn asset(path: &str) -> Option<PathBuf> {
    let file = repository().join("../shared/assets").join(path);
    if !file.exists() {
        eprintln!("skipped: {} is not there", file.display());
        return None;
    }
    Some(file)
}

/// Sends SIGINT, as Ctrl-C does.
///
/// # Errors
/// When the process is gone already.
#[cfg(unix)]
pub fn interrupt(child: &Child) -> Result<()> {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err("the process is gone already".into()) }
}

/// A server on a port of its own. Dropping it ends it.
pub struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
    house: House,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// What it says when it does not start.
    pub fn start(house: House) -> Result<Self> {
        let mut command = pajamas()?;
        command.arg("--config").arg(house.config()).args(["serve", "--listen", "127.0.0.1:0"]);
        let mut child = piped(command.stdin(Stdio::null())).spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().ok_or("standard error is a pipe")?);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if stderr.read_line(&mut line)? == 0 {
                child.wait()?;
                return Err(format!("the server did not start:\n{said}").into());
            }
            if let Some(address) = line.trim().strip_prefix("pajamas listens on ") {
                let address = address.to_owned();
                return Ok(Self { child, stderr, address, house });
            }
            said.push_str(&line);
        }
    }

    /// The configuration it runs under.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// `127.0.0.1:PORT`.
    pub fn authority(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// Bytes of memory that its process has.
    ///
    /// # Errors
    /// When the process is gone.
    #[cfg(target_os = "linux")]
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When there is no answer; a refusal is one.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        Answer::read(agent.get(format!("{}{path}", self.address)).call()?)
    }

    /// Sends a body.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.post(format!("{}{path}", self.address)).header("content-type", content_type);
        Answer::read(request.send(body)?)
    }

    /// Asks for a path with headers of one's own.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.get(format!("{}{path}", self.address));
        Answer::read(
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call()?,
        )
    }

    /// Sends a JSON object.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Answer> {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    /// Interrupts the server and waits for its end. Gives its exit status and what else it said on standard error.
    ///
    /// # Errors
    /// When it is gone already.
    #[cfg(unix)]
    pub fn stop(mut self) -> Result<(ExitStatus, String)> {
        interrupt(&self.child)?;
        let mut said = String::new();
        while self.stderr.read_line(&mut said)? > 0 {}
        Ok((self.child.wait()?, said))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header `x-pajamas-route`.
    pub route: Option<String>,
    /// Its header `retry-after`.
    pub retry_after: Option<String>,
    /// Its body.
    pub body: String,
}

impl Answer {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Self> {
        let header = |name| response.headers().get(name).map(|v| v.to_str().map(str::to_owned)).transpose();
        Ok(Self {
            status: response.status().as_u16(),
            route: header("x-pajamas-route")?,
            retry_after: header("retry-after")?,
            body: response.body_mut().read_to_string()?,
        })
    }

    /// The body of a request that was carried out.
    ///
    /// # Errors
    /// When it was refused, or its body is no JSON.
    pub fn json(&self) -> Result<Value> {
        if self.status != 200 {
            return Err(format!("{}: {}", self.status, self.body).into());
        }
        Ok(serde_json::from_str(&self.body)?)
    }

    /// The status and the error of a request that was refused.
    ///
    /// # Errors
    /// When it was not, or its body does not say why.
    pub fn refusal(&self) -> Result<(u16, Value)> {
        let body: Value = serde_json::from_str(&self.body)?;
        match body.get("error") {
            Some(error) if self.status >= 400 => Ok((self.status, error.clone())),
            _ => Err(format!("no refusal: {}: {}", self.status, self.body).into()),
        }
    }

    /// The objects of a stream of server-sent events, which must end with `[DONE]`.
    ///
    /// # Errors
    /// When it does not, or holds something else than JSON.
    pub fn events(&self) -> Result<Vec<Value>> {
        let mut data: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        if data.pop() != Some("[DONE]") {
            return Err(format!("the stream has no end: {}", self.body).into());
        }
        Ok(data.into_iter().map(serde_json::from_str).collect::<serde_json::Result<_>>()?)
    }
}

/// The keys of an object, sorted: shapes that others script against are compared whole.
pub fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// What an artifact's manifest says it scores on its held-out data, if it has a manifest.
///
/// # Errors
/// When the manifest is damaged or says nothing.
pub fn quality(artifact: &Path) -> Result<Option<f64>> {
    let file = artifact.join("manifest.json");
    if !file.exists() {
        eprintln!("skipped: {} is not there, its score is not compared", file.display());
        return Ok(None);
    }
    let manifest: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let value = manifest["formats"][0]["quality"]["value"].as_f64();
    Ok(Some(value.ok_or_else(|| format!("{}: no quality", file.display()))?))
}
