//! `POST /v1/images/detect` and `/v1/images/classify`: what a picture shows, in the same shape as `pajamas detect --json` and
//! `pajamas classify --json`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, Multipart, Request as HttpRequest, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Number, Value as Json_, json};

use super::body;
use super::stream::{Awaited, route_header};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pipeline::{Input, Output, Params, Request, Route, encode};
use crate::value::{Value, Values};

/// A picture and what to do with it, from JSON (`image` as base64 or data URL), a multipart form (file `image`), or
/// the picture itself as the body with an `image/…` content type.
#[derive(Debug, Default)]
struct Upload {
    name: String,
    bytes: Option<Vec<u8>>,
    model: Option<String>,
    options: Options,
}

/// What is read of a JSON object with a picture.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct JsonBody {
    /// The picture as base64, or as a data URL of it.
    image: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    confidence: Option<f64>,
    #[serde(default)]
    iou: Option<f64>,
    #[serde(default)]
    max_detections: Option<u32>,
    #[serde(default)]
    top_k: Option<u32>,
}

/// Fields, and the options of the pipeline's stages that they set.
const OPTIONS: [(&str, &str); 4] =
    [("confidence", "confidence"), ("iou", "iou"), ("max_detections", "max_detections"), ("top_k", "k")];

impl Upload {
    async fn read(request: HttpRequest, host: &Arc<Host>) -> Result<Self> {
        let kind =
            request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        if kind.starts_with("multipart/form-data") {
            let form = Multipart::from_request(request, host).await;
            return Self::form(form.map_err(|e| body::unreadable(e.body_text(), e.status()))?).await;
        }
        let body = Bytes::from_request(request, host)
            .await
            .map_err(|e| body::unreadable(e.body_text(), e.status()))?;
        if kind.starts_with("image/") || kind == "application/octet-stream" {
            return Ok(Self { name: "body".into(), bytes: Some(body.into()), ..Self::default() });
        }
        Self::json(&body)
    }

    fn json(body: &[u8]) -> Result<Self> {
        let body: JsonBody = body::json(body)?;
        // A data URL's payload begins after its comma; base64 has none.
        let data = body.image.rsplit_once(',').map_or(body.image.as_str(), |(_, data)| data);
        let bytes = STANDARD
            .decode(data.trim())
            .map_err(|e| Error::new("invalid-input", format!("`image` is not base64: {e}")))?;
        let mut options = Options::new();
        let values = [
            body.confidence.map(|v| json!(v)),
            body.iou.map(|v| json!(v)),
            body.max_detections.map(|v| json!(v)),
            body.top_k.map(|v| json!(v)),
        ];
        for ((_, name), value) in OPTIONS.iter().zip(values) {
            options.extend(value.map(|v| ((*name).to_owned(), v)));
        }
        Ok(Self { name: "image".into(), bytes: Some(bytes), model: body.model, options })
    }

    async fn form(mut form: Multipart) -> Result<Self> {
        let wrong = |e: MultipartError| body::unreadable(e.body_text(), e.status());
        let mut upload = Self::default();
        while let Some(field) = form.next_field().await.map_err(wrong)? {
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "image" | "file" => {
                    upload.name = field.file_name().unwrap_or("image").to_owned();
                    upload.bytes = Some(field.bytes().await.map_err(wrong)?.into());
                }
                "model" => upload.model = Some(field.text().await.map_err(wrong)?),
                field_name => {
                    let Some((_, option)) = OPTIONS.iter().find(|(known, _)| *known == field_name) else {
                        continue;
                    };
                    let text = field.text().await.map_err(wrong)?;
                    let number: Number = text.trim().parse().map_err(|_| {
                        Error::new("invalid-input", format!("`{name}` must be a number, not {text:?}"))
                    })?;
                    upload.options.insert((*option).to_owned(), Json_::Number(number));
                }
            }
        }
        Ok(upload)
    }
}

/// A picture that went through a pipeline.
struct Seen {
    name: String,
    values: Values,
    route: Route,
}

impl Seen {
    async fn look(host: Arc<Host>, request: HttpRequest, task: Task) -> Result<Self> {
        let Upload { name, bytes, model, options } = Upload::read(request, &host).await?;
        let bytes = bytes.ok_or_else(|| {
            Error::new("invalid-input", "the form has no file `image`")
                .help("send the picture as the form's file `image`")
        })?;
        let mut values = Values::new();
        values.put("bytes", Value::Bytes(bytes));
        let params = Params { options, ..Params::default() };
        let request = Request { task, model, input: Input::Values(values), params };
        let limit = host.config().server.request_timeout.duration();
        let outcome = Awaited::start(host, request).finish(limit).await?.outcome;
        let Output::Values(values) = outcome.output else {
            return Err(Error::new("internal", format!("{task} ended without values")));
        };
        Ok(Self { name, values, route: outcome.route })
    }

    fn answer(self, object: Json_) -> Response {
        ([("x-pajamas-route", route_header(&self.route))], Json(object)).into_response()
    }
}

/// `POST /v1/images/detect`
pub async fn detect(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    let mut seen = Seen::look(host, request, Task::Detect).await?;
    let (width, height) = encode::picture_size(&seen.values);
    let Some(Value::Detections(found)) = seen.values.take("detections") else {
        return Err(Error::new("pipeline-incomplete", "the pipeline left no `detections`"));
    };
    let object = json!({
        "image": seen.name,
        "width": width,
        "height": height,
        "detections": encode::detections(&found),
        "model": seen.route.model,
    });
    Ok(seen.answer(object))
}

/// `POST /v1/images/classify`
pub async fn classify(State(host): State<Arc<Host>>, request: HttpRequest) -> Result<Response> {
    let mut seen = Seen::look(host, request, Task::Classify).await?;
    let Some(Value::Labels(labels)) = seen.values.take("labels") else {
        return Err(Error::new("pipeline-incomplete", "the pipeline left no `labels`"));
    };
    let object = json!({ "image": seen.name, "classes": encode::labels(&labels), "model": seen.route.model });
    Ok(seen.answer(object))
}
