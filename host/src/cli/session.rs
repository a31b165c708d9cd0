//! A host for one command: started from the configuration, stopped by Ctrl-C, with its progress on the terminal.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pajamas_plugin_api::Cancel;

use super::Global;
use crate::error::Result;
use crate::host::Host;
use crate::pipeline::{Event, Outcome, Request};

/// A started host and the flag that Ctrl-C sets.
pub struct Session {
    pub host: Host,
    pub cancel: Cancel,
    pub json: bool,
}

impl Session {
    pub fn start(global: &Global) -> Result<Self> {
        let cancel = cancel_on_interrupt();
        Ok(Self { host: Host::start(global.config()?)?, cancel, json: global.json })
    }

    /// A fresh flag after an answer was stopped: the conversation goes on.
    pub fn renew_cancel(&mut self) {
        self.cancel = interrupt_flag().renew();
    }

    /// Carries out a request. Loading is shown on standard error; everything else goes to `events`.
    pub fn run(
        &self,
        request: Request,
        events: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Outcome> {
        let mut loading = LoadingBar::default();
        self.host.run(request, &self.cancel, &mut |event| match event {
            Event::Loading { fraction, message } => {
                loading.show(fraction, message);
                ControlFlow::Continue(())
            }
            other => {
                loading.clear();
                events(other)
            }
        })
    }
}

/// A flag that the first Ctrl-C (or SIGTERM) sets; the second ends the process at once.
pub fn cancel_on_interrupt() -> Cancel {
    let installed = ctrlc::set_handler(|| {
        let cancel = interrupt_flag().current();
        if cancel.is_cancelled() {
            _exit(130);
        }
        cancel.cancel();
    });
    if let Err(error) = installed {
        tracing::warn!("Ctrl-C cannot be handled: {error}");
    }
    interrupt_flag().current()
}

// SAFETY: the C library's `_exit` takes any status, may be called from any thread, and does not return.
unsafe extern "C" {
    /// Ends the process as it stands. `exit` would first destroy what native code on other threads still uses.
    safe fn _exit(status: std::ffi::c_int) -> !;
}

/// The flag that the next Ctrl-C sets: a process has one handler, and a conversation many answers.
struct InterruptFlag(Mutex<Cancel>);

fn interrupt_flag() -> &'static InterruptFlag {
    static FLAG: LazyLock<InterruptFlag> = LazyLock::new(|| InterruptFlag(Mutex::new(Cancel::new())));
    &FLAG
}

impl InterruptFlag {
    fn current(&self) -> Cancel {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn renew(&self) -> Cancel {
        let fresh = Cancel::new();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        fresh
    }
}

/// A bar on standard error while a model loads, if somebody looks.
#[derive(Default)]
pub struct LoadingBar(Option<ProgressBar>);

impl LoadingBar {
    pub fn show(&mut self, fraction: f32, message: &str) {
        let bar = self.0.get_or_insert_with(|| {
            if !std::io::stderr().is_terminal() {
                return ProgressBar::hidden();
            }
            let bar = ProgressBar::new(1000);
            if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {percent}%") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_message(message.to_owned());
        bar.set_position((fraction.clamp(0.0, 1.0) * 1000.0) as u64);
    }

    pub fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for LoadingBar {
    fn drop(&mut self) {
        self.clear();
    }
}
