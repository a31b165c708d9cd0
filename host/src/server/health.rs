//! Whether the process lives, and which models it knows.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::host::Host;

/// `GET /healthz`
pub async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /v1/models`
pub async fn models(State(host): State<Arc<Host>>) -> Json<Value> {
    let models: Vec<Value> = host
        .config()
        .models
        .iter()
        .map(|m| {
            json!({
                "id": m.id,
                "object": "model",
                "created": 0,
                "owned_by": "pajamas",
                "task": host.task_of(m),
                "description": m.description,
            })
        })
        .collect();
    Json(json!({ "object": "list", "data": models }))
}
