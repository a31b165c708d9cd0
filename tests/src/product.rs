//! The built product: the `pajamas` program with its plugins, run as people and scripts run it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::{Result, repository};
pub use crate::server::{Answer, Server};

/// A command of the product, to be run in the repository's root and free of the settings of whoever runs the tests.
///
/// # Errors
/// When the product is not built and packed.
pub fn pajamas() -> Result<Command> {
    // target/release/deps/TEST
    let test = std::env::current_exe()?;
    let release = test.ancestors().nth(2).ok_or("the test's executable has no target folder")?;
    let program = release.join(format!("pajamas{}", std::env::consts::EXE_SUFFIX));
    let plugins = ["gguf", "onnx", "quant"].map(|name| release.join("plugins").join(name));
    for part in [program.clone()].into_iter().chain(plugins) {
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

    /// Writes another configuration, and puts it in the place of the one before as editors do: whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, toml: &str) -> Result<()> {
        let fresh = self.folder().join("pajamas.toml.new");
        std::fs::write(&fresh, toml)?;
        Ok(std::fs::rename(fresh, self.config())?)
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

/// A part of the header `x-pajamas-route`.
pub fn part<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let route = answer.route.as_deref()?;
    route.split("; ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
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
    signal(child, "-INT")
}

#[cfg(unix)]
pub(crate) fn signal(child: &Child, name: &str) -> Result<()> {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status()?;
    if status.success() { Ok(()) } else { Err("the process is gone already".into()) }
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

/// The engines that can run ONNX models here: rten always, ONNX Runtime where its library is found.
///
/// # Errors
/// When the plugins cannot be listed.
pub fn engines() -> Result<Vec<String>> {
    let listed = run(["plugins", "list", "--json"])?.json()?.remove(0);
    let backends = listed["backends"].as_array().cloned().unwrap_or_default();
    let backends = backends.into_iter().filter(|b| b["plugin"] == "onnx");
    let (usable, missing): (Vec<Value>, Vec<Value>) =
        backends.partition(|b| b["probe"]["score"].as_u64() > Some(0));
    for backend in missing {
        eprintln!("skipped: {}: {}", backend["backend"]["id"], backend["probe"]["reason"]);
    }
    Ok(usable.iter().filter_map(|b| b["backend"]["id"].as_str().map(str::to_owned)).collect())
}
