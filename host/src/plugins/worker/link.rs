//! The host's end of a worker: calls by number, one thread that hears what comes, and the end of it all.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{PluginError, Result, TensorView};

use super::outputs::Written;
use super::process::{Process, how};
use super::protocol::{Message, Part, Tensors, broken};
use super::shared::{Mapped, Mapping, Slab};
use super::wire::{Incoming, Receiver, Sender, Silence};
use crate::config::Patience;

/// How long the thread that listens waits before it looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// What a call hears.
pub enum Heard {
    /// Something of its own.
    Came(Incoming),
    /// The worker is lost.
    Lost(PluginError),
}

/// A worker that runs. Dropping it ends the process, and returns when its memory is free.
pub struct Link {
    shared: Arc<Shared>,
    socket: UnixStream,
    listener: Option<JoinHandle<()>>,
    /// Its process.
    pub pid: u32,
}

struct Shared {
    plugin: String,
    sender: Sender,
    calls: Mutex<HashMap<u64, mpsc::Sender<Heard>>>,
    next: AtomicU64,
    process: Mutex<Process>,
    pid: u32,
    /// Why the host killed it.
    hung: OnceLock<String>,
    /// Why it takes no calls any more.
    lost: OnceLock<PluginError>,
    closing: AtomicBool,
    inputs: Written,
    outputs: Mapped,
}

/// Outputs that the worker wrote, in its memory: its again when this is dropped, wherever that is.
pub struct Loan {
    shared: Arc<Shared>,
    map: Arc<Mapping>,
    slab: u64,
}

/// A call under way. Dropping it means that nobody listens to it any more.
pub struct Call<'l> {
    link: &'l Link,
    number: u64,
    heard: mpsc::Receiver<Heard>,
    slab: Option<u64>,
}

impl Link {
    /// Starts a worker for a plugin.
    ///
    /// # Errors
    /// `worker-failed`.
    pub fn start(plugin: &str, patience: Patience) -> Result<Self> {
        let (process, socket) = Process::start(plugin)?;
        let failed =
            |error: std::io::Error| PluginError::new("worker-failed", format!("`{plugin}`: {error}"));
        // A time of zero would mean for ever.
        let heartbeat = patience.heartbeat.duration().max(Duration::from_millis(1));
        socket.set_read_timeout(Some(heartbeat.min(TICK))).map_err(failed)?;
        socket.set_write_timeout(Some(heartbeat)).map_err(failed)?;
        let copies = [socket.try_clone().map_err(failed)?, socket.try_clone().map_err(failed)?];
        let [reading, writing] = copies;
        let pid = process.id();
        let shared = Arc::new(Shared {
            plugin: plugin.to_owned(),
            sender: Sender::new(writing),
            calls: Mutex::default(),
            next: AtomicU64::new(1),
            process: Mutex::new(process),
            pid,
            hung: OnceLock::new(),
            lost: OnceLock::new(),
            closing: AtomicBool::new(false),
            inputs: Written::default(),
            outputs: Mapped::default(),
        });
        let listening = Arc::clone(&shared);
        let listen = move || listening.listen(Receiver::new(reading), heartbeat);
        let listener = std::thread::Builder::new().name("worker".to_owned()).spawn(listen).map_err(failed)?;
        tracing::debug!(plugin, pid, "worker started");
        Ok(Self { shared, socket, listener: Some(listener), pid })
    }

    /// Memory for inputs.
    pub fn inputs(&self) -> &Written {
        &self.shared.inputs
    }

    /// The worker's memory that outputs lie in; `None` when there are none.
    ///
    /// # Errors
    /// `plugin-protocol` when it is not what the worker says.
    pub fn outputs(&self, tensors: &Tensors, file: Option<OwnedFd>) -> Result<Option<Loan>> {
        let map = self.shared.outputs.of(tensors, file)?;
        Ok(map.map(|map| Loan { shared: Arc::clone(&self.shared), map, slab: tensors.slab }))
    }

    /// Whether it can take calls.
    pub fn is_alive(&self) -> bool {
        self.shared.lost.get().is_none()
    }

    /// Begins a call, with a blob and with inputs.
    ///
    /// # Errors
    /// Why the worker is lost.
    pub fn call(&self, message: &Message, blob: &[u8], slab: Option<Slab>) -> Result<Call<'_>> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, heard) = mpsc::channel();
        self.shared.calls().insert(number, sender);
        let mut call = Call { link: self, number, heard, slab: None };
        // Looked at after the call is known: one that is lost later hears of it.
        if let Some(error) = self.shared.lost.get() {
            return Err(error.clone());
        }
        let mut file: Option<OwnedFd> = None;
        if let Some(mut slab) = slab {
            file = slab.file.take();
            call.slab = Some(slab.id);
            self.shared.inputs.lend(slab);
        }
        match self.shared.sender.send_with(number, message, blob, file.as_ref().map(AsFd::as_fd)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(PluginError::invalid_input(format!("the request is {error}")));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.kill("it took no message"),
            // It is gone: whoever listens says why.
            Err(_) => {}
        }
        Ok(call)
    }

    /// Says something that belongs to no call of its own.
    pub fn tell(&self, call: u64, message: &Message) {
        // Who is gone is heard of by whoever listens.
        let _ = self.shared.sender.send(call, message);
    }

    /// Ends a worker that does not do what it should.
    pub fn kill(&self, why: &str) {
        self.shared.kill(why);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // Its end of the socket closes, and with that it ends.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(listener) = self.listener.take() {
            // It does not panic, and waits for the process.
            let _ = listener.join();
        }
    }
}

impl Loan {
    /// The tensor that a part describes.
    ///
    /// # Errors
    /// As [`Mapping::tensor`].
    pub fn tensor<'m>(&'m self, part: &'m Part) -> Result<TensorView<'m>> {
        self.map.tensor(part)
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        self.map.all()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // A worker that is gone needs nothing back.
        let _ = self.shared.sender.send(0, &Message::Release(self.slab));
    }
}

impl Call<'_> {
    /// What came next; `None` when nothing did in this time.
    ///
    /// # Errors
    /// Why the worker is lost.
    pub fn next(&self, wait: Duration) -> Result<Option<Incoming>> {
        match self.heard.recv_timeout(wait) {
            Ok(Heard::Came(incoming)) => Ok(Some(incoming)),
            Ok(Heard::Lost(error)) => Err(error),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self
                .link
                .shared
                .lost
                .get()
                .cloned()
                .unwrap_or_else(|| broken("a call was lost".to_owned()))),
        }
    }

    /// Says something about this call.
    pub fn tell(&self, message: &Message) {
        self.link.tell(self.number, message);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.link.shared.calls().remove(&self.number);
        if let Some(slab) = self.slab {
            for gone in self.link.shared.inputs.released(slab) {
                self.link.tell(0, &Message::Forget(gone));
            }
        }
    }
}

impl Shared {
    /// No panic happens while the lock is held.
    fn calls(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Heard>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self, why: &str) {
        // The first reason counts.
        let _ = self.hung.set(why.to_owned());
        // Held by who listens, while it sees the process to its end: then there is nothing to kill.
        if let Ok(mut process) = self.process.try_lock() {
            process.kill();
        }
    }

    fn listen(&self, mut receiver: Receiver, heartbeat: Duration) {
        // Since when an answer is awaited.
        let mut asked: Option<Instant> = None;
        let fault = loop {
            match receiver.next() {
                Ok(incoming) => {
                    asked = None;
                    self.hear(incoming);
                }
                Err(Silence::Nothing) if self.calls().is_empty() => asked = None,
                Err(Silence::Nothing) => match asked {
                    Some(since) if since.elapsed() >= heartbeat => {
                        self.kill(&format!("it did not answer for {heartbeat:?}"));
                    }
                    Some(_) => {}
                    None => {
                        asked = Some(Instant::now());
                        // When it takes nothing, it does not answer either.
                        let _ = self.sender.send(0, &Message::Ping);
                    }
                },
                Err(Silence::Gone) => break None,
                Err(Silence::Broken(error)) => {
                    self.process().kill();
                    break Some(error);
                }
            }
        };
        let mut process = self.process();
        let status = process.end();
        let error = self.why(fault, &format!("ended {}", how(status)), &process.last_words());
        drop(process);
        if self.closing.load(Ordering::Acquire) {
            tracing::debug!(plugin = self.plugin, pid = self.pid, "worker ended");
        } else {
            tracing::error!(plugin = self.plugin, pid = self.pid, code = error.code, "{}", error.message);
        }
        let _ = self.lost.set(error.clone());
        for call in std::mem::take(&mut *self.calls()).into_values() {
            // Who does not listen any more needs no reason.
            let _ = call.send(Heard::Lost(error.clone()));
        }
    }

    fn why(&self, fault: Option<PluginError>, how: &str, words: &str) -> PluginError {
        let worker = format!("the worker of `{}` (process {})", self.plugin, self.pid);
        let again = "the model is loaded anew for the next request; the log has what the worker said";
        if let Some(fault) = fault {
            let message = format!("{worker} sent what it must not, and was killed: {}", fault.message);
            return PluginError::new("worker-crashed", message).help(again);
        }
        match self.hung.get() {
            Some(why) => PluginError::new("worker-hung", format!("{worker} was killed: {why}; {words}"))
                .help(format!("{again}; `plugins.worker` has the times that it may take")),
            None => PluginError::new("worker-crashed", format!("{worker} {how}; {words}")).help(again),
        }
    }

    fn hear(&self, incoming: Incoming) {
        match incoming.message {
            Some(Message::Pong) => {}
            Some(Message::Log { level, line }) => super::super::log(&self.plugin, level, &line),
            Some(Message::Forget(slab)) => self.outputs.forget(slab),
            _ => {
                let calls = self.calls();
                // A call that nobody waits for any more.
                let Some(call) = calls.get(&incoming.call) else { return };
                let _ = call.send(Heard::Came(incoming));
            }
        }
    }
}
