//! Whether the process lives, and which models it knows.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::config::{Id, Task};
use crate::host::Host;

/// `GET /healthz`
pub async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /v1/models`: models, and the ladders and aliases that can be asked for like them.
pub async fn models(State(host): State<Arc<Host>>) -> Json<Value> {
    let config = host.config();
    let entry = |id: &Id, task: Option<Task>, description: Option<&str>| {
        json!({
            "id": id,
            "object": "model",
            "created": 0,
            "owned_by": "pajamas",
            "task": task,
            "description": description,
        })
    };
    let models = config.models.iter().map(|m| entry(&m.id, host.task_of(m), m.description.as_deref()));
    // What else can be asked for does what the first of its models does.
    let task = |name: &str| {
        let first = config.steps(name).ok()?.into_iter().flatten().next()?;
        host.task_of(config.model(first)?)
    };
    let ladders = config.ladders.iter().map(|l| entry(&l.id, task(&l.id), l.description.as_deref()));
    let aliases = config.aliases.keys().map(|alias| entry(alias, task(alias), None));
    let models: Vec<Value> = models.chain(ladders).chain(aliases).collect();
    Json(json!({ "object": "list", "data": models }))
}
