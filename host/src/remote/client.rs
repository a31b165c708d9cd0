//! Asking another server over HTTP, so that whoever waits can stop at any time.
//!
//! A thread of its own asks and reads; what it reads comes through a channel of few places. Whoever does not wait any
//! more shuts the connection, which ends the thread.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Cancel, PluginError, Result};
use serde_json::Value;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::events::{Broken, Event, Events};
use super::fault::{self, INTERRUPTED, KEY_MISSING, TIMEOUT, UNAVAILABLE};
use crate::config::Remote;
use crate::outbound::{Secret, USER_AGENT, tls};

/// How often a request that waits looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);
/// What may wait to be taken, before the server has to wait.
const PLACES: usize = 64;
/// Connections that are kept for the next request.
const MOST_KEPT: usize = 16;
/// Bytes of the headers of an answer, and of a refusal.
const MOST_HEADERS: usize = 64 << 10;
const MOST_REFUSAL: u64 = 64 << 10;
/// How long the end of a stream may come after its last event, for the connection to be kept.
const LAST: Duration = Duration::from_millis(50);
/// The longest that a server takes to say that it is there.
const THERE: Duration = Duration::from_secs(5);

/// What is read of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A stream of events.
    Events,
    /// All of it at its end.
    Whole,
}

/// What came.
#[derive(Debug)]
pub enum Told {
    /// The data of an event, or the whole.
    Data(String),
    /// The server is there, and has nothing to say yet.
    Alive,
    /// Nothing follows.
    End,
}

/// Asks one server.
#[derive(Debug)]
pub struct Client {
    remote: Remote,
    key: Option<Secret>,
    tls: TlsConfig,
    /// Each with one connection that is open and that nobody uses.
    kept: Arc<Mutex<Vec<Agent>>>,
}

/// The key of a remote that wants one.
fn key(remote: &Remote) -> Result<Option<Secret>> {
    let Some(name) = &remote.key_env else { return Ok(None) };
    match std::env::var(name).ok().and_then(|key| Secret::of(&key)) {
        Some(key) => Ok(Some(key)),
        None => Err(PluginError::new(KEY_MISSING, format!("the variable `{name}` holds no key"))
            .help("set it where the host is started, or take `remote.key_env` out")),
    }
}

impl Client {
    /// For the models of one remote.
    ///
    /// # Errors
    /// `remote-key-missing`.
    pub fn new(remote: Remote) -> Result<Self> {
        let key = key(&remote)?;
        Ok(Self { remote, key, tls: tls(), kept: Arc::default() })
    }

    /// Sends a body to a path below the API's beginning. The connection closes when the exchange is dropped before its
    /// end.
    ///
    /// # Errors
    /// `internal` when there is no thread to do it.
    pub fn ask(&self, path: &str, body: &Value, form: Form) -> Result<Exchange> {
        let mut agents: Vec<Agent> = self.kept().pop().into_iter().collect();
        agents.push(agent(&self.remote, &self.tls));
        let (sender, receiver) = sync_channel(PLACES);
        let request = Request {
            url: self.remote.url.join(path),
            body: body.to_string(),
            key: self.key.clone(),
            form,
            most: self.remote.max_answer.get(),
        };
        let asked = agents.clone();
        let work = move || request.carry_out(&asked, &sender);
        std::thread::Builder::new().name("remote".to_owned()).spawn(work).map_err(|error| {
            PluginError::new("internal", format!("no thread to ask the remote with: {error}"))
        })?;
        let silence = self.remote.silence.duration();
        Ok(Exchange { told: receiver, agents, kept: Arc::clone(&self.kept), silence })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Agent>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a server for its models, only to see whether it answers.
pub fn is_there(remote: &Remote) -> bool {
    let Ok(key) = key(remote) else { return false };
    let mut request = agent(remote, &tls()).get(remote.url.join("/models"));
    if let Some(key) = &key {
        request = request.header("authorization", key.authorization());
    }
    let answer = request.config().timeout_global(Some(THERE)).build().call();
    // Not all have this path: one that says so is there.
    answer.is_ok_and(|answer| answer.status().as_u16() < 500)
}

/// With room for one connection: a request that is cancelled shuts its agent, and no other's connection.
fn agent(remote: &Remote, tls: &TlsConfig) -> Agent {
    let connect = Some(remote.connect.duration());
    Agent::config_builder()
        .http_status_as_error(false)
        // A key goes where the operator said and nowhere else.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_resolve(connect)
        .timeout_connect(connect)
        .timeout_per_read(Some(remote.silence.duration()))
        .max_response_header_size(MOST_HEADERS)
        .max_idle_connections(1)
        .user_agent(USER_AGENT)
        .tls_config(tls.clone())
        .build()
        .new_agent()
}

/// An answer that is being read.
#[derive(Debug)]
pub struct Exchange {
    told: Receiver<Result<Told>>,
    /// Those that have the connection or may get it. Empty once it is kept.
    agents: Vec<Agent>,
    kept: Arc<Mutex<Vec<Agent>>>,
    silence: Duration,
}

impl Exchange {
    /// What comes next.
    ///
    /// # Errors
    /// Those of the answer: `remote-…`; `remote-timeout` after a silence; `cancelled`.
    pub fn next(&mut self, cancel: &Cancel) -> Result<Told> {
        let until = Instant::now() + self.silence;
        loop {
            cancel.check()?;
            let left = until.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left.min(CANCEL_POLL)) {
                Ok(told) => return told,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    let silence = self.silence.as_secs_f64();
                    return Err(PluginError::new(
                        TIMEOUT,
                        format!("the remote said nothing for {silence} s"),
                    )
                    .help("see whether it is overloaded, or raise `remote.silence`"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PluginError::new(INTERRUPTED, "the remote's answer ended without an end"));
                }
            }
        }
    }

    /// All that was wanted came: the connection is kept for the next request, if the server ends its answer, too.
    pub fn settle(mut self) {
        let until = Instant::now() + LAST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(Ok(Told::End)) => break,
                // What comes after the last event is of no matter.
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        self.keep();
    }

    /// Keeps the connection after [`Told::End`].
    pub fn keep(&mut self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            // A second one was there only in case that the server had closed the first one's connection.
            kept.extend(self.agents.drain(..).next());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.agents.drain(..).for_each(Agent::shutdown);
    }
}

/// What is asked.
struct Request {
    url: String,
    body: String,
    key: Option<Secret>,
    form: Form,
    most: u64,
}

impl Request {
    /// Asks, and tells what comes until nobody listens any more.
    fn carry_out(&self, agents: &[Agent], sender: &SyncSender<Result<Told>>) {
        if let Err(mut error) = self.try_to(agents, sender) {
            if let Some(key) = &self.key {
                error.message = key.out_of(&error.message);
            }
            let _ = sender.send(Err(error));
        }
    }

    fn try_to(&self, agents: &[Agent], sender: &SyncSender<Result<Told>>) -> Result<()> {
        let mut answer = self.send(agents)?;
        let status = answer.status().as_u16();
        if status != 200 {
            let mut words = Vec::new();
            // What can be read of a refusal is enough.
            let _ = answer.body_mut().as_reader().take(MOST_REFUSAL).read_to_end(&mut words);
            return Err(fault::refusal(status, &words));
        }
        let body = answer.into_body().into_with_config().limit(self.most).reader();
        match self.form {
            Form::Events => self.stream(BufReader::new(body), sender),
            Form::Whole => self.whole(body, sender),
        }
    }

    /// A connection that was kept may be closed by now, which is seen only when it is used: then a fresh one is taken.
    fn send(&self, agents: &[Agent]) -> Result<ureq::http::Response<Body>> {
        let mut failed = None;
        for agent in agents {
            let mut request = agent.post(&self.url).header("content-type", "application/json");
            if let Some(key) = &self.key {
                request = request.header("authorization", key.authorization());
            }
            match request.send(&self.body) {
                Err(ureq::Error::Io(error)) => failed = Some(ureq::Error::Io(error)),
                Err(error) => return Err(unreachable(&error)),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(failed
            .map_or_else(|| PluginError::new("internal", "nobody to ask the remote"), |e| unreachable(&e)))
    }

    fn stream(&self, body: impl io::BufRead, sender: &SyncSender<Result<Told>>) -> Result<()> {
        let mut events = Events::new(body);
        loop {
            let told = match events.read() {
                Ok(Some(Event::Data(data))) => Told::Data(data),
                Ok(Some(Event::Comment)) => Told::Alive,
                Ok(None) => Told::End,
                Err(Broken::Io(error)) => return Err(self.broken(&error)),
                Err(Broken::Content(what)) => return Err(fault::invalid(what)),
            };
            let over = matches!(told, Told::End);
            if sender.send(Ok(told)).is_err() || over {
                return Ok(());
            }
        }
    }

    fn whole(&self, mut body: impl Read, sender: &SyncSender<Result<Told>>) -> Result<()> {
        let (mut all, mut piece) = (Vec::new(), [0; 16 << 10]);
        loop {
            match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => all.extend_from_slice(&piece[..read]),
                Err(error) => return Err(self.broken(&error)),
            }
            if sender.send(Ok(Told::Alive)).is_err() {
                return Ok(());
            }
        }
        let text = String::from_utf8(all).map_err(|_| fault::invalid("it is no text"))?;
        // Whoever does not listen any more misses nothing.
        let _ = sender.send(Ok(Told::Data(text))).and_then(|()| sender.send(Ok(Told::End)));
        Ok(())
    }

    /// Why a body could not be read to its end.
    fn broken(&self, error: &io::Error) -> PluginError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(ureq::Error::BodyExceedsLimit(_)) => {
                fault::invalid(format_args!("it is longer than {} bytes (`remote.max_answer`)", self.most))
            }
            Some(ureq::Error::Timeout(_)) => {
                PluginError::new(TIMEOUT, "the remote said nothing for too long")
            }
            Some(ureq::Error::Protocol(what)) => fault::invalid(what),
            _ => PluginError::new(INTERRUPTED, format!("the remote broke its answer off: {error}")),
        }
    }
}

/// Why there is no answer.
fn unreachable(error: &ureq::Error) -> PluginError {
    let with = |code: &str| PluginError::new(code, format!("the remote does not answer: {error}"));
    match error {
        ureq::Error::Timeout(_) => with(TIMEOUT),
        ureq::Error::Protocol(what) => fault::invalid(what),
        _ => with(UNAVAILABLE)
            .help("check `remote.url`, and that the server runs and its certificate is trusted here"),
    }
}
