//! The worker: opens one plugin, loads one model, does what the host says, and ends with it.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::signal::{SigHandler, Signal, signal};
use pajamas_plugin_api::host::{self, Policy};
use pajamas_plugin_api::{
    Backend, Extension, HostContext, HostServices, Level, NamedTensor, PluginError, Result, Session, codes,
};
use serde::Serialize;
use serde_json::Value;

use super::call::{Outputs, Running, Way};
use super::crew::Crew;
use super::outputs::Written;
use super::protocol::{Message, Tensors, VERSION, broken};
use super::shared::{Mapped, Mapping};
use super::wire::{Incoming, Receiver, Sender, Silence};

/// Extensions that a host holds at the same time.
const MOST_EXTENSIONS: usize = 1024;

/// The program as a worker of the process `host`, whose socket is standard input. Returns only when it could not begin;
/// when the host is gone the process ends, whatever it is doing.
pub fn serve(host: u32) -> ExitCode {
    match begin(host) {
        Ok(socket) => run(socket),
        Err(error) => {
            eprintln!("a worker cannot begin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn begin(host: u32) -> std::io::Result<[UnixStream; 2]> {
    // Whoever stops a service or presses Ctrl-C signals workers, too; but the host still has requests to end, and the
    // end of its socket is the signal here.
    for sent in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { signal(sent, SigHandler::SigIgn) }?;
    }
    #[cfg(target_os = "linux")]
    {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // When memory runs out the model goes, not the host. Where that may not be set, the kernel decides.
        let _ = std::fs::write("/proc/self/oom_score_adj", "800");
    }
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(host) {
        return Err(std::io::Error::other("its host is gone already, or it was started by hand"));
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    // A plugin that reads standard input must not read the host's messages.
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let socket = UnixStream::from(socket);
    Ok([socket.try_clone()?, socket])
}

fn run([reading, writing]: [UnixStream; 2]) -> ExitCode {
    let worker = Arc::new(Worker::new(Sender::new(writing)));
    let crew = Arc::new(Crew::default());
    let mut receiver = Receiver::new(reading);
    let mut code = 0;
    loop {
        match receiver.next() {
            Ok(incoming) => worker.take(&crew, incoming),
            Err(Silence::Nothing) => {}
            Err(Silence::Gone) => break,
            Err(Silence::Broken(error)) => {
                eprintln!("{error}");
                code = 1;
                break;
            }
        }
    }
    // SAFETY: ends the process at once. Calls may hang, and what libraries do at an orderly exit may crash: the kernel
    // takes all memory back.
    unsafe { libc::_exit(code) }
}

struct Worker {
    sender: Sender,
    /// The host's memory, with inputs.
    inputs: Mapped,
    /// The worker's, with outputs.
    written: Written,
    calls: Mutex<HashMap<u64, Arc<Running>>>,
    backend: OnceLock<Arc<dyn Backend>>,
    session: OnceLock<Box<dyn Session>>,
    extensions: Mutex<HashMap<u64, Arc<dyn Extension>>>,
    found: AtomicU64,
}

impl Worker {
    fn new(sender: Sender) -> Self {
        Self {
            sender,
            inputs: Mapped::default(),
            written: Written::zeroed(),
            calls: Mutex::default(),
            backend: OnceLock::new(),
            session: OnceLock::new(),
            extensions: Mutex::default(),
            found: AtomicU64::default(),
        }
    }

    /// What the reader of the socket does itself, and what it has done: it never waits.
    fn take(self: &Arc<Self>, crew: &Arc<Crew>, incoming: Incoming) {
        let Incoming { call, message, blob, file } = incoming;
        let (message, cancelled) = match message {
            Some(Message::Cancelled(message)) => (*message, true),
            Some(message) => (message, false),
            None => return,
        };
        let running = || self.calls().get(&call).cloned();
        match message {
            Message::Ping => self.later(crew, Message::Pong),
            Message::Cancel => {
                if let Some(running) = running() {
                    running.cancel.cancel();
                }
            }
            Message::Credit(more) => {
                if let Some(running) = running() {
                    running.add(more);
                }
            }
            Message::Verdict(verdict) => {
                if let Some(running) = running() {
                    running.answer(verdict.map_err(PluginError::from));
                }
            }
            Message::Release(slab) => {
                let worker = Arc::clone(self);
                crew.run(move || {
                    for gone in worker.written.released(slab) {
                        let _ = worker.sender.send(0, &Message::Forget(gone));
                    }
                });
            }
            Message::Forget(slab) => self.inputs.forget(slab),
            Message::Drop(extension) => {
                let gone = self.extensions().remove(&extension);
                // Code of the plugin: it may take its time.
                crew.run(move || drop(gone));
            }
            message => {
                // Mapped here, in the order of the messages: a later one may name the same memory.
                let inputs = match &message {
                    Message::Infer(_, tensors) | Message::Call(_, tensors) => self.inputs.of(tensors, file),
                    _ => Ok(None),
                };
                let (running, answers) = Running::begin();
                if cancelled {
                    running.cancel.cancel();
                }
                self.calls().insert(call, Arc::clone(&running));
                let worker = Arc::clone(self);
                let begun = crew.run(move || {
                    let way = Way { number: call, sender: &worker.sender, running: &running };
                    let outputs = Outputs::new(way, answers, &worker.written);
                    if let Err(error) = inputs.and_then(|map| worker.carry_out(message, &blob, map, outputs))
                    {
                        let _ = worker.sender.send(call, &Message::Failed(error.into()));
                    }
                    worker.calls().remove(&call);
                });
                if !begun {
                    let error = PluginError::new(codes::INTERNAL, "the worker gets no thread");
                    let _ = self.sender.send(call, &Message::Failed(error.into()));
                }
            }
        }
    }

    /// Sends something without waiting for the host to take it: two that wait for each other would wait for ever.
    fn later(self: &Arc<Self>, crew: &Arc<Crew>, message: Message) {
        let worker = Arc::clone(self);
        crew.run(move || drop(worker.sender.send(0, &message)));
    }

    fn carry_out(
        self: &Arc<Self>,
        message: Message,
        blob: &[u8],
        inputs: Option<Arc<Mapping>>,
        mut outputs: Outputs<'_>,
    ) -> Result<()> {
        let number = outputs.way.number;
        let running = outputs.way.running;
        let cancel = &running.cancel;
        let mut way = Way { number, sender: &self.sender, running };
        let mut result = Vec::new();
        let value = match message {
            Message::Open { version, plugin, require_hash, settings, backend } => {
                self.open(version, &plugin, require_hash, settings, &backend)?;
                Value::Null
            }
            Message::Estimate(request) => json(&self.backend()?.estimate(&request)?)?,
            Message::Load(request) => {
                let session = self.backend()?.load(&request, &mut way, cancel)?;
                let signature = json(&session.signature())?;
                let kept = self.session.set(session);
                kept.map_err(|_| broken("a second model for one worker".to_owned()))?;
                signature
            }
            Message::Usage => json(&self.session()?.usage())?,
            Message::Infer(request, tensors) => {
                let inputs = views(inputs.as_deref(), &tensors)?;
                json(&self.session()?.infer(&request, &inputs, &mut outputs, cancel)?)?
            }
            Message::Generate(request) => json(&self.session()?.generate(&request, &mut way, cancel)?)?,
            Message::Embed(request) => json(&self.session()?.embed(&request, &mut outputs, cancel)?)?,
            Message::Tokenize(prompt) => json(&self.session()?.tokenize(&prompt)?)?,
            Message::Detokenize(tokens) => json(&self.session()?.detokenize(&tokens)?)?,
            Message::Find { of_session, name } => {
                let found = match of_session {
                    true => self.session()?.extension(&name),
                    false => self.backend()?.extension(&name),
                };
                json(&found.map(|extension| self.keep(extension)).transpose()?)?
            }
            Message::Call(number, tensors) => {
                let extension = self.extensions().get(&number).cloned();
                let extension = extension.ok_or_else(|| broken(format!("no extension {number}")))?;
                let inputs = views(inputs.as_deref(), &tensors)?;
                result = extension.call(blob, &inputs, &mut way, &mut outputs, cancel)?;
                Value::Null
            }
            other => return Err(broken(format!("a worker is not asked for {other:?}"))),
        };
        let sent = outputs.end(value, &result);
        sent.map_err(|error| PluginError::new(codes::INTERNAL, format!("the answer cannot be sent: {error}")))
    }

    fn open(
        self: &Arc<Self>,
        version: u32,
        plugin: &Path,
        require_hash: bool,
        settings: Value,
        backend: &str,
    ) -> Result<()> {
        if version != VERSION {
            return Err(broken(format!("the host speaks version {version}, this program {VERSION}")));
        }
        let services = |_: &str, folder: &Path| {
            HostContext::new(Services { worker: Arc::clone(self), folder: folder.to_path_buf(), settings })
        };
        let (report, opened) = host::open(plugin, Policy { require_hash }, services);
        let opened =
            opened.ok_or_else(|| report.error().unwrap_or_else(|| broken("no plugin".to_owned())))?;
        let found = opened.backends.into_iter().find(|found| found.info.id == backend);
        let found = found.ok_or_else(|| broken(format!("the plugin has no backend `{backend}` any more")))?;
        self.backend.set(found.backend).map_err(|_| broken("a second plugin for one worker".to_owned()))
    }

    fn backend(&self) -> Result<&Arc<dyn Backend>> {
        self.backend.get().ok_or_else(|| broken("no plugin is open".to_owned()))
    }

    fn session(&self) -> Result<&dyn Session> {
        self.session.get().map(|session| &**session).ok_or_else(|| broken("no model is loaded".to_owned()))
    }

    fn keep(&self, extension: Box<dyn Extension>) -> Result<u64> {
        let mut extensions = self.extensions();
        if extensions.len() >= MOST_EXTENSIONS {
            return Err(broken(format!("more than {MOST_EXTENSIONS} extensions in use")));
        }
        let number = self.found.fetch_add(1, Ordering::Relaxed);
        extensions.insert(number, Arc::from(extension));
        Ok(number)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Arc<Running>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extensions(&self) -> MutexGuard<'_, HashMap<u64, Arc<dyn Extension>>> {
        self.extensions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn views<'v>(map: Option<&'v Mapping>, tensors: &'v Tensors) -> Result<Vec<NamedTensor<'v>>> {
    let parts = tensors.parts.iter().map(|part| {
        let map = map.ok_or_else(|| broken("tensors without memory".to_owned()))?;
        Ok(NamedTensor { name: &part.name, tensor: map.tensor(part)? })
    });
    parts.collect()
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| broken(error.to_string()))
}

/// The host as the plugin sees it from here.
struct Services {
    worker: Arc<Worker>,
    folder: PathBuf,
    settings: Value,
}

impl HostServices for Services {
    fn log(&self, level: Level, message: &str) {
        let _ = self.worker.sender.send(0, &Message::Log { level: level as u8, line: message.to_owned() });
    }

    fn plugin_dir(&self) -> PathBuf {
        self.folder.clone()
    }

    fn settings(&self) -> Value {
        self.settings.clone()
    }
}
