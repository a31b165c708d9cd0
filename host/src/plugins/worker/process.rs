//! The worker as a process: started from this very program, listened to, and seen to its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pajamas_plugin_api::PluginError;

/// Lines of what a worker said last that are kept for the message about its end, and bytes of a line.
const TAIL: (usize, u64) = (8, 1024);
/// How long a worker that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether it has ended.
const POLL: Duration = Duration::from_millis(1);

type Started = mpsc::Sender<std::io::Result<Child>>;

/// A worker's process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    tail: Arc<Mutex<VecDeque<String>>>,
    log: JoinHandle<()>,
}

impl Process {
    /// Starts one, and gives the socket to it.
    ///
    /// # Errors
    /// `worker-failed` when the system does not start it.
    pub fn start(plugin: &str) -> Result<(Self, UnixStream), PluginError> {
        Self::begin(plugin).map_err(|error| {
            PluginError::new("worker-failed", format!("no worker for `{plugin}` can be started: {error}"))
                .help("the system may limit processes or open files: see `ulimit -a`")
        })
    }

    fn begin(plugin: &str) -> std::io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (said, saying) = std::io::pipe()?;
        let mut command = Command::new(program()?);
        command
            .arg0("pajamas")
            .args(["worker", "--host", &std::process::id().to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(saying.try_clone()?)
            .stderr(saying)
            // Signals of a terminal are for the host, which ends its workers itself.
            .process_group(0);
        let child = spawn(command)?;
        let tail = Arc::default();
        let (plugin, lines) = (plugin.to_owned(), Arc::clone(&tail));
        let listen = move || listen(said, &plugin, &lines);
        let log = std::thread::Builder::new().name("worker-log".to_owned()).spawn(listen)?;
        Ok((Self { child, tail, log }, ours))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it now.
    pub fn kill(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
    }

    /// Waits until it has ended, which it does when its socket is closed, and says how.
    pub fn end(&mut self) -> Option<ExitStatus> {
        let until = Instant::now() + GRACE;
        let status = self.ended(until);
        // What it said last may still be on its way; unless a process of its own holds the pipe, it ends now.
        while !self.log.is_finished() && Instant::now() < until {
            std::thread::sleep(POLL);
        }
        status
    }

    fn ended(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(POLL),
                Ok(None) => {
                    self.kill();
                    return self.child.wait().ok();
                }
                Err(_) => return None,
            }
        }
    }

    /// What it said last, for people.
    pub fn last_words(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        match tail.is_empty() {
            true => "it said nothing".to_owned(),
            false => format!("it last said: {}", tail.iter().cloned().collect::<Vec<_>>().join(" | ")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody else waits for it: without this its number would stay taken.
        self.end();
    }
}

/// How a process ended, in words.
pub fn how(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "nobody knows how".to_owned() };
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("unknown", |signal| signal.as_str());
            format!("by signal {signal} ({name})")
        }
        (None, code) => format!("with status {}", code.unwrap_or(-1)),
    }
}

/// This program, also when its file was replaced meanwhile.
fn program() -> std::io::Result<std::path::PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Starts a process on a thread that lives as long as this process: on Linux a worker ends with the thread that started
/// it, and threads of a server come and go.
fn spawn(command: Command) -> std::io::Result<Child> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<(Command, Started)>>> = OnceLock::new();
    let gone = || std::io::Error::other("the thread that starts workers is gone");
    let starter = STARTER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<(Command, Started)>();
        let work = move || {
            for (mut command, started) in receiver {
                // Whoever asked has gone: the process ends when its socket is closed.
                let _ = started.send(command.spawn());
            }
        };
        // Without the thread the receiver is dropped, and sending fails.
        let _ = std::thread::Builder::new().name("workers".to_owned()).spawn(work);
        Mutex::new(sender)
    });
    let (started, child) = mpsc::channel();
    let sent = starter.lock().unwrap_or_else(PoisonError::into_inner).send((command, started));
    sent.map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Hands what a worker prints on to the log, line by line, to its end.
fn listen(said: PipeReader, plugin: &str, tail: &Mutex<VecDeque<String>>) {
    let (most, longest) = TAIL;
    let mut said = BufReader::new(said);
    let mut line = Vec::new();
    loop {
        line.clear();
        match said.by_ref().take(longest).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        tracing::warn!(plugin, "worker: {text}");
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == most {
            tail.pop_front();
        }
        tail.push_back(text.to_owned());
    }
}
