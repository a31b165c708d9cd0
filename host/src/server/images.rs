//! `POST /v1/images/detect` and the others: what pictures show, in the same shape as `pajamas detect --json` and so on.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json_, json};

use super::stream::{Awaited, route_header};
use super::upload::{Picture, Upload};
use crate::config::Task;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Output, Params, Request, Route, encode};
use crate::value::{Detection, Value, Values};

/// A picture that went through a pipeline.
struct Seen {
    name: String,
    output: Output,
    route: Route,
}

impl Seen {
    /// What the pipeline left, where the task leaves values.
    fn values(&mut self) -> Result<&mut Values> {
        match &mut self.output {
            Output::Values(values) => Ok(values),
            _ => Err(Error::new("internal", "a task on pictures ended without values")),
        }
    }

    fn detections(&mut self) -> Result<Vec<Detection>> {
        match self.values()?.take("detections") {
            Some(Value::Detections(found)) => Ok(found),
            _ => Err(Error::new("pipeline-incomplete", "the pipeline left no `detections`")),
        }
    }

    /// An answer of the picture's name and size, and something found in it.
    fn sized(&mut self, found: &str, what: Json_) -> Result<Json_> {
        let (width, height) = encode::picture_size(self.values()?);
        Ok(json!({ "image": self.name, "width": width, "height": height, found: what }))
    }
}

/// Reads the pictures of a request, runs `task` on each, and answers with what `tell` makes of them: as one object, or, for a
/// list of pictures, as a list.
async fn look(
    host: Arc<Host>,
    request: HttpRequest,
    task: Task,
    tell: fn(&mut Seen) -> Result<Json_>,
) -> Result<Response> {
    let Upload { pictures, many, model, options } = Upload::read(request, &host).await?;
    let limit = host.config().server.request_timeout.duration();
    // All are on their way before the first is waited for; each waits for the model like any other request.
    let running: Vec<(String, Awaited)> = pictures
        .into_iter()
        .map(|Picture { name, bytes }| {
            let mut values = Values::new();
            values.put("bytes", Value::Bytes(bytes));
            let params = Params { options: options.clone(), ..Params::default() };
            let request = Request { task, model: model.clone(), input: Input::Values(values), params };
            (name, Awaited::start(Arc::clone(&host), request))
        })
        .collect();
    let (mut answers, mut route) = (Vec::new(), None);
    for (name, running) in running {
        let within = |error: Error| if many { error.within(format_args!("picture {name}")) } else { error };
        let outcome = running.finish(limit).await.map_err(within)?.outcome;
        let mut seen = Seen { name: name.clone(), output: outcome.output, route: outcome.route };
        answers.push(tell(&mut seen).map_err(within)?);
        route = Some(seen.route);
    }
    let Some(route) = route else {
        return Err(Error::new("invalid-input", "there is no picture in the request")
            .help("send the picture as the form's file `image`, or as `image` in base64"));
    };
    let mut object = match (many, answers.pop()) {
        (false, Some(answer)) => answer,
        (_, last) => {
            answers.extend(last);
            json!({ "results": answers })
        }
    };
    object["model"] = json!(route.model);
    Ok(([("x-pajamas-route", route_header(&route))], Json(object)).into_response())
}

/// `POST /v1/images/detect`
pub async fn detect(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    look(host, request, Task::Detect, |seen| {
        let found = seen.detections()?;
        seen.sized("detections", encode::detections(&found))
    })
    .await
}

/// `POST /v1/images/localize`
pub async fn localize(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    look(host, request, Task::Detect, |seen| {
        let found = seen.detections()?;
        let main = encode::main_object(&found, encode::picture_size(seen.values()?));
        let object = main.map(|at| encode::detections(&found[at..=at])[0].take());
        seen.sized("object", json!(object))
    })
    .await
}

/// `POST /v1/images/segment`
pub async fn segment(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    look(host, request, Task::Segment, |seen| {
        let found = seen.detections()?;
        let Some(Value::Text(masks)) = seen.values()?.take("masks") else {
            return Err(Error::new("pipeline-incomplete", "the pipeline left no `masks`"));
        };
        seen.sized("detections", encode::segments(&found, &masks)?)
    })
    .await
}

/// `POST /v1/images/classify`
pub async fn classify(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    look(host, request, Task::Classify, |seen| {
        let Some(Value::Labels(labels)) = seen.values()?.take("labels") else {
            return Err(Error::new("pipeline-incomplete", "the pipeline left no `labels`"));
        };
        Ok(json!({ "image": seen.name, "classes": encode::labels(&labels) }))
    })
    .await
}

/// `POST /v1/images/embed`
pub async fn embed(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    look(host, request, Task::Embed, |seen| match &seen.output {
        Output::Embeddings(tensor, _) => {
            Ok(json!({ "image": seen.name, "embedding": tensor.as_f32().unwrap_or_default() }))
        }
        _ => Err(Error::new("internal", "a request for embeddings ended without them")),
    })
    .await
}
