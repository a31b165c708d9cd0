//! Whether the process lives, and which models it knows.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::config::{Id, Model, Task};
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
    let model = |m: &Model| entry(&m.id, host.task_of(m), m.description.as_deref());
    // The ways to run an entry are for who asks for one of them: its own name is what others look for.
    let (ways, models): (Vec<&Model>, Vec<&Model>) = config.models.iter().partition(|m| m.way_of.is_some());
    // What else can be asked for does what the first of its models does.
    let task = |name: &str| {
        let first = config.steps(name).ok()?.into_iter().flatten().next()?;
        host.task_of(config.model(first)?)
    };
    let ladders = config.ladders.iter().map(|l| entry(&l.id, task(&l.id), l.description.as_deref()));
    let aliases = config.aliases.keys().map(|alias| entry(alias, task(alias), None));
    let models = models.into_iter().map(model).chain(ladders).chain(aliases);
    let all: Vec<Value> = models.chain(ways.into_iter().map(model)).collect();
    Json(json!({ "object": "list", "data": all }))
}
