//! One call as the worker sees it: whether it should go on, and where its results go.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender as Answers, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pajamas_plugin_api::{
    Cancel, EventSink, OutputSpec, PluginError, ProgressSink, Result, TensorSink, TensorViewMut, TokenEvent,
    TokenSink, byte_len, codes,
};

use super::outputs::Written;
use super::protocol::{Message, Part, Tensors, WINDOW};
use super::shared::Slab;
use super::wire::Sender;

/// Outputs of more bytes than this are asked for: the host may want less, and a question takes a tenth of a millisecond.
const ASK_ABOVE: u64 = 64 << 20;
/// How often a call that waits looks whether it was cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(20);

/// What the reader of the socket knows of a call that runs.
pub struct Running {
    /// Set when the host says so.
    pub cancel: Cancel,
    credit: Mutex<u32>,
    changed: Condvar,
    verdicts: Answers<Result<(), PluginError>>,
}

impl Running {
    /// A call that begins, and the answers to its questions.
    pub fn begin() -> (Arc<Self>, Receiver<Result<(), PluginError>>) {
        let (verdicts, answers) = channel();
        let running =
            Self { cancel: Cancel::new(), credit: Mutex::new(WINDOW), changed: Condvar::new(), verdicts };
        (Arc::new(running), answers)
    }

    /// The host took so many tokens or events more.
    pub fn add(&self, credit: u32) {
        let mut left = self.credit();
        *left = left.saturating_add(credit);
        drop(left);
        self.changed.notify_one();
    }

    /// The host's answer to a question.
    pub fn answer(&self, verdict: Result<(), PluginError>) {
        // Nobody waits for the answer to what was not asked.
        let _ = self.verdicts.send(verdict);
    }

    /// Waits until one more token or event may be sent; not for a call that was cancelled.
    fn may_send(&self) -> ControlFlow<()> {
        let mut left = self.credit();
        while *left == 0 {
            if self.cancel.is_cancelled() {
                return ControlFlow::Break(());
            }
            left = self.changed.wait_timeout(left, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *left -= 1;
        ControlFlow::Continue(())
    }

    /// No panic happens while the lock is held.
    fn credit(&self) -> MutexGuard<'_, u32> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the results of a call go: through the socket.
pub struct Way<'w> {
    /// The call's number.
    pub number: u64,
    /// The socket.
    pub sender: &'w Sender,
    /// The call.
    pub running: &'w Running,
}

impl Way<'_> {
    fn flow(&self, sent: std::io::Result<()>) -> ControlFlow<()> {
        match sent {
            Ok(()) if !self.running.cancel.is_cancelled() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

impl TokenSink for Way<'_> {
    fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
        self.running.may_send()?;
        self.flow(self.sender.token(self.number, event))
    }
}

impl EventSink for Way<'_> {
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        self.running.may_send()?;
        self.flow(self.sender.send_with(self.number, &Message::Event(name.to_owned()), payload, None))
    }
}

impl ProgressSink for Way<'_> {
    fn progress(&mut self, fraction: f32, message: &str) -> ControlFlow<()> {
        self.running.may_send()?;
        let message = Message::Progress { fraction, what: message.to_owned() };
        self.flow(self.sender.send(self.number, &message))
    }
}

/// Outputs of a call, written straight into memory that the host sees.
pub struct Outputs<'o> {
    /// The call's way.
    pub way: Way<'o>,
    /// The host's answers.
    pub answers: Receiver<Result<(), PluginError>>,
    /// The memory that the worker made.
    pub written: &'o Written,
    current: Option<(Slab, Tensors)>,
    total: u64,
}

impl<'o> Outputs<'o> {
    /// None yet.
    pub const fn new(way: Way<'o>, answers: Receiver<Result<(), PluginError>>, written: &'o Written) -> Self {
        Self { way, answers, written, current: None, total: 0 }
    }

    /// Sends what is not sent yet, as the call's end.
    pub fn end(mut self, value: serde_json::Value, blob: &[u8]) -> std::io::Result<()> {
        let (slab, tensors) = self.current.take().unzip();
        let message = Message::Done(value, tensors.unwrap_or_default());
        self.hand_over(slab, &message, blob)
    }

    fn hand_over(&self, slab: Option<Slab>, message: &Message, blob: &[u8]) -> std::io::Result<()> {
        let Some(mut slab) = slab else {
            return self.way.sender.send_with(self.way.number, message, blob, None);
        };
        let file = slab.file.take();
        // Known as being read before the host can say that it has read it.
        self.written.lend(slab);
        self.way.sender.send_with(self.way.number, message, blob, file.as_ref().map(AsFd::as_fd))
    }
}

impl TensorSink for Outputs<'_> {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        let mut parts = Vec::with_capacity(outputs.len());
        let mut bytes: u64 = 0;
        for (index, output) in outputs.iter().enumerate() {
            if outputs[..index].iter().any(|earlier| earlier.name == output.name) {
                let message = format!("output `{}` was asked for twice", output.name);
                return Err(PluginError::new(codes::PROTOCOL, message));
            }
            bytes = bytes.saturating_add(byte_len(output.dtype, output.shape)? as u64);
            let (name, shape) = (output.name.to_owned(), output.shape.to_vec());
            parts.push(Part { name, dtype: output.dtype, shape, offset: 0 });
        }
        // Earlier outputs are whole once the sink is used again.
        if let Some((slab, tensors)) = self.current.take() {
            let sent = self.hand_over(Some(slab), &Message::Output(tensors), &[]);
            sent.map_err(|error| PluginError::new(codes::INTERNAL, format!("the host is gone: {error}")))?;
        }
        self.total = self.total.saturating_add(bytes);
        if self.total > ASK_ABOVE {
            let asked = self.way.sender.send(self.way.number, &Message::Allocate(parts.clone()));
            asked.map_err(|error| PluginError::new(codes::INTERNAL, format!("the host is gone: {error}")))?;
            self.answers
                .recv()
                .map_err(|_| PluginError::new(codes::INTERNAL, "the host does not answer"))??;
        }
        let room = bytes.saturating_add(64 * parts.len() as u64);
        let mut slab = self.written.pool().take(room)?;
        let mut places = Vec::with_capacity(parts.len());
        for part in &mut parts {
            let bytes = byte_len(part.dtype, &part.shape)? as u64;
            let offset = slab.reserve(bytes);
            part.offset =
                offset.ok_or_else(|| PluginError::new(codes::OUT_OF_MEMORY, "outputs do not fit"))?;
            places.push((part.offset, bytes));
        }
        let fresh = slab.file.is_some().then(|| slab.size());
        let tensors = Tensors { slab: slab.id, fresh, parts };
        let (slab, tensors) = self.current.insert((slab, tensors));
        let pieces = slab.pieces(&places).into_iter().zip(&tensors.parts);
        pieces.map(|(piece, part)| TensorViewMut::new(part.dtype, &part.shape, piece)).collect()
    }
}
