//! The pictures of a request, and what is to be done with them: from JSON, a form, or a picture as the whole body.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request as HttpRequest};
use axum::http::header::CONTENT_TYPE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::body;
use crate::config::Options;
use crate::error::{Error, Result};
use crate::host::Host;

/// The most pictures of one request.
const MOST: usize = 64;

/// A picture as it was sent.
#[derive(Debug)]
pub struct Picture {
    /// Its file's name, or its place in a list.
    pub name: String,
    /// Its file.
    pub bytes: Vec<u8>,
}

/// Pictures and what to do with them, from JSON (`image` or `images` as base64 or data URLs), a multipart form (files
/// `image`), or the picture itself as the body with an `image/…` content type.
#[derive(Debug, Default)]
pub struct Upload {
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// Whether they were sent as a list, so that a list is the answer.
    pub many: bool,
    /// The model that was asked for.
    pub model: Option<String>,
    /// Options for the stages.
    pub options: Options,
}

/// What is read of a JSON object with pictures.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct JsonBody {
    /// The picture as base64, or as a data URL of it.
    #[serde(default)]
    image: Option<String>,
    /// Several pictures instead; the answer is a list of as many `results`.
    #[serde(default)]
    #[schemars(length(max = MOST))]
    images: Option<Vec<String>>,
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
    /// Whether outlines are made of the masks.
    #[serde(default)]
    polygons: Option<bool>,
    /// What the pictures may show, for a model that knows no classes but texts, as CLIP.
    #[serde(default)]
    labels: Option<Vec<String>>,
    /// The text that each of these names is put into.
    #[serde(default)]
    template: Option<String>,
}

/// Fields, and the options of the pipeline's stages that they set.
const OPTIONS: [(&str, &str); 7] = [
    ("confidence", "confidence"),
    ("iou", "iou"),
    ("max_detections", "max_detections"),
    ("top_k", "k"),
    ("polygons", "polygons"),
    ("labels", "names"),
    ("template", "template"),
];

impl Upload {
    /// Reads a request.
    ///
    /// # Errors
    /// `invalid-input` for what is no picture or too many of them, and what the body's own errors are.
    pub async fn read(request: HttpRequest, host: &Arc<Host>) -> Result<Self> {
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
            let pictures = vec![Picture { name: "body".into(), bytes: body.into() }];
            return Ok(Self { pictures, ..Self::default() });
        }
        Self::json(&body)
    }

    fn json(body: &[u8]) -> Result<Self> {
        let body: JsonBody = body::json(body)?;
        let many = body.images.is_some();
        let pictures = match (body.image, body.images) {
            (Some(image), None) => vec![decode("image".into(), &image)?],
            (None, Some(images)) => {
                check_count(images.len())?;
                let named = images.iter().enumerate().map(|(at, image)| decode(at.to_string(), image));
                named.collect::<Result<_>>()?
            }
            _ => {
                return Err(Error::new(
                    "invalid-input",
                    "one of `image` and `images` is needed, and only one",
                ));
            }
        };
        let mut options = Options::new();
        let values = [
            body.confidence.map(|v| json!(v)),
            body.iou.map(|v| json!(v)),
            body.max_detections.map(|v| json!(v)),
            body.top_k.map(|v| json!(v)),
            body.polygons.map(|v| json!(v)),
            body.labels.map(|v| json!(v)),
            body.template.map(|v| json!(v)),
        ];
        for ((_, name), value) in OPTIONS.iter().zip(values) {
            options.extend(value.map(|v| ((*name).to_owned(), v)));
        }
        Ok(Self { pictures, many, model: body.model, options })
    }

    async fn form(mut form: Multipart) -> Result<Self> {
        let wrong = |e: MultipartError| body::unreadable(e.body_text(), e.status());
        let mut upload = Self::default();
        while let Some(field) = form.next_field().await.map_err(wrong)? {
            let name = field.name().unwrap_or_default().to_owned();
            match name.as_str() {
                "image" | "images" | "file" => {
                    upload.many |= name == "images" || !upload.pictures.is_empty();
                    let file = field.file_name().unwrap_or("image").to_owned();
                    let bytes = field.bytes().await.map_err(wrong)?.into();
                    upload.pictures.push(Picture { name: file, bytes });
                    check_count(upload.pictures.len())?;
                }
                "model" => upload.model = Some(field.text().await.map_err(wrong)?),
                _ => {
                    if let Some((_, option)) = OPTIONS.iter().find(|(known, _)| *known == name) {
                        let value = value(&name, field).await?;
                        upload.options.insert((*option).to_owned(), value);
                    }
                }
            }
        }
        match upload.pictures.is_empty() {
            true => Err(Error::new("invalid-input", "the form has no file `image`")
                .help("send the picture as the form's file `image`")),
            false => Ok(upload),
        }
    }
}

/// A field of a form: a number, or true or false; names between commas; or a text.
async fn value(name: &str, field: Field<'_>) -> Result<Json> {
    let text = field.text().await.map_err(|e| body::unreadable(e.body_text(), e.status()))?;
    match name {
        "labels" => return Ok(text.split(',').map(str::trim).collect()),
        "template" => return Ok(text.into()),
        _ => {}
    }
    match serde_json::from_str(text.trim()) {
        Ok(value @ (Json::Number(_) | Json::Bool(_))) => Ok(value),
        _ => Err(Error::new("invalid-input", format!("`{name}` must be a number, not {text:?}"))),
    }
}

fn decode(name: String, image: &str) -> Result<Picture> {
    // A data URL's payload begins after its comma; base64 has none.
    let data = image.rsplit_once(',').map_or(image, |(_, data)| data);
    let wrong = |e| Error::new("invalid-input", format!("`{name}` is not base64: {e}"));
    let bytes = STANDARD.decode(data.trim()).map_err(wrong)?;
    Ok(Picture { name, bytes })
}

fn check_count(count: usize) -> Result<()> {
    match count {
        1..=MOST => Ok(()),
        0 => Err(Error::new("invalid-input", "`images` is empty")),
        _ => Err(Error::new("invalid-input", format!("{count} pictures in one request"))
            .help(format!("send {MOST} at most"))),
    }
}
