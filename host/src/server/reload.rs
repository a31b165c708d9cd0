//! What makes the host read its configuration again: SIGHUP, another file, and who asks for it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use pajamas_plugin_api::Cancel;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::request_log::RequestLog;
use crate::config::{Changes, Stamp};
use crate::error::{Error, Result};
use crate::host::{Cause, Host};

/// How often the file is looked at. Looking, rather than being told by the system, works on every file system, for files
/// that are replaced by renaming and for links that are led elsewhere; it costs one call.
const LOOK: Duration = Duration::from_millis(500);

/// `POST /admin/reload`: answers with what is different, or why the configuration stays as it is.
pub async fn ask(
    State(host): State<Arc<Host>>,
    Extension(log): Extension<Arc<RequestLog>>,
) -> Result<Json<Value>> {
    reload(host, log, Cause::Admin).await.map(|changes| Json(json!({ "changes": changes })))
}

/// Reads the configuration again, tells who watches, and loads what it wants ready.
async fn reload(host: Arc<Host>, log: Arc<RequestLog>, cause: Cause) -> Result<Changes> {
    let again = Arc::clone(&host);
    let ended = spawn_blocking(move || again.reload(cause)).await;
    let changes = ended.unwrap_or_else(|_| Err(Error::new("internal", "the reload's thread ended early")));
    if cause.is_news(&changes) {
        log.tell("config", json!(host.last_reload()));
    }
    let changes = changes?;
    let wanted = changes.clone();
    spawn_blocking(move || host.preload_changed(&wanted, &Cancel::new()));
    Ok(changes)
}

/// Takes the file over when it was changed and rests: one that is being written is not looked into.
pub async fn watch(host: Arc<Host>, log: Arc<RequestLog>) {
    let mut taken = host.config().stamp.clone();
    let mut seen = taken.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        let config = host.config();
        let Some(file) = config.file.clone().filter(|_| config.server.watch) else { continue };
        // A call that may wait, on a file system of the network. A file that is gone is most likely about to come back.
        let Ok(Some(now)) = spawn_blocking(move || Stamp::of(&file)).await else { continue };
        let rests = seen.as_ref() == Some(&now);
        seen = Some(now.clone());
        if rests && taken.as_ref() != Some(&now) {
            taken = Some(now);
            // An error is logged and told where it happens; the next change is another try.
            let _ = reload(Arc::clone(&host), Arc::clone(&log), Cause::File).await;
        }
    }
}

/// Reads the configuration again at every SIGHUP. When the terminal that the server was started from is closed, that is
/// SIGHUP, too: then the server stops.
#[cfg(unix)]
pub fn on_hangup(host: Arc<Host>, log: Arc<RequestLog>, stop: Cancel) {
    use std::io::IsTerminal;

    use tokio::signal::unix::{SignalKind, signal};

    // SAFETY: both numbers are the C library's own, and ignoring a signal touches no memory. Who stops the program at
    // SIGTERM has taken SIGHUP as well, and tokio would call that handler before its own.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!("SIGHUP cannot be handled: {error}"),
    };
    let terminal = std::io::stderr().is_terminal();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            if terminal && !std::io::stderr().is_terminal() {
                return stop.cancel();
            }
            let _ = reload(Arc::clone(&host), Arc::clone(&log), Cause::Signal).await;
        }
    });
}
