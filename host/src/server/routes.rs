//! Every route of the server, in one table: the router, the OpenAPI document, the reference page and the words of a
//! refusal are made of it, so that none knows a route that another does not.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};

use super::openapi::body::{self, Body};
use super::{
    access, admin, audio, chat, completions, embeddings, health, images, jobs, messages, openapi, page,
    reload, responses, speech, tokens, upload,
};
use crate::config::Scope;
use crate::host::Host;

/// A method at a path, and all that is said of it.
pub struct Route {
    /// `get`, `post` or `delete`.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// What it does, in Markdown.
    pub summary: &'static str,
    /// What is sent.
    pub body: Body,
    /// What comes back when all goes well.
    pub answer: Answer,
    handler: MethodRouter<Arc<Host>>,
}

/// What comes back when all goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The JSON of this name in [`openapi::answers`].
    Json(&'static str),
    /// The same with 202: what was asked for is begun, and not done.
    Accepted(&'static str),
    /// As JSON, or, when the body says `stream`, as server-sent events.
    Streamed(&'static str),
    /// As JSON, text or subtitles, as the body says, or as server-sent events.
    Transcript(&'static str),
    /// Sound, as the body says, or server-sent events with it.
    Sound,
    /// Server-sent events.
    Events,
    /// As JSON, with 503 instead of 200 as long as it is not so.
    Condition(&'static str),
    /// Something of this media type.
    Text(&'static str),
    /// A file of this media type, which a client may have already.
    File(&'static str),
}

impl Route {
    /// What a key needs for it; `None` is open to everybody.
    pub fn scope(&self) -> Option<Scope> {
        access::scope(self.path)
    }
}

/// The routes, by what they are for.
pub fn table() -> Vec<(&'static str, Vec<Route>)> {
    vec![
        ("Text", text()),
        ("Pictures", pictures()),
        ("Sound", sound()),
        ("Operating", operating()),
        ("The page", files()),
    ]
}

fn text() -> Vec<Route> {
    use Answer::{Json, Streamed};
    vec![
        get("/v1/models", "The configured models, ladders and aliases.", Json("Models"), health::models),
        post(
            "/v1/chat/completions",
            "OpenAI's chat: streamed or not, `n`, `logprobs`, `tools`, `response_format`, `grammar` in GBNF.",
            Body::Json(body::conversation::<chat::Body>),
            Streamed("ChatCompletion"),
            chat::completions,
        ),
        post(
            "/v1/completions",
            "OpenAI's older API: several prompts, `echo`, `suffix` where the model fills gaps.",
            Body::Json(body::prompt::<completions::Body>),
            Streamed("Completion"),
            completions::completions,
        ),
        post(
            "/v1/responses",
            "OpenAI's newer API, without a memory of earlier responses.",
            Body::Json(body::conversation::<responses::Body>),
            Streamed("Response"),
            responses::create,
        ),
        post(
            "/v1/messages",
            "Anthropic's API; its errors have Anthropic's shape.",
            Body::Json(body::insisting::<messages::Limit, messages::Body>),
            Streamed("AnthropicMessage"),
            messages::create,
        ),
        post(
            "/v1/messages/count_tokens",
            "How many tokens a conversation has, as Anthropic's API tells it.",
            Body::Json(body::turns::<messages::Body>),
            Json("AnthropicCount"),
            messages::count_tokens,
        ),
        post(
            "/v1/embeddings",
            "Texts or tokens to vectors of length 1, as numbers or base64, cut to `dimensions`.",
            Body::Json(body::timed::<embeddings::EmbeddingsBody>),
            Json("Embeddings"),
            embeddings::embeddings,
        ),
        post(
            "/v1/rerank",
            "Documents by how well they answer a query, with a model that was trained to.",
            Body::Json(body::timed::<embeddings::RerankBody>),
            Json("Ranking"),
            embeddings::rerank,
        ),
        post(
            "/tokenize",
            "Text to tokens.",
            Body::Json(body::plain::<tokens::TokenizeBody>),
            Json("Tokens"),
            tokens::tokenize,
        ),
        post(
            "/detokenize",
            "Tokens to text.",
            Body::Json(body::plain::<tokens::DetokenizeBody>),
            Json("Text"),
            tokens::detokenize,
        ),
        post(
            "/apply-template",
            "The prompt that a conversation becomes.",
            Body::Json(body::turns::<chat::Body>),
            Json("Prompt"),
            tokens::apply_template,
        ),
    ]
}

fn pictures() -> Vec<Route> {
    use Answer::Json;
    let body = Body::Picture(body::plain::<upload::JsonBody>);
    vec![
        post(
            "/v1/images/detect",
            "Objects in a picture: a form with the file `image`, JSON with base64, or the picture itself as the body. With \
             `images` instead, a list of pictures, the answer is a list.",
            body,
            Json("Detections"),
            images::detect,
        ),
        post(
            "/v1/images/segment",
            "Objects and their outlines: each `mask` is COCO's RLE, with `polygons` also as polygons; sent as for detect.",
            body,
            Json("Segments"),
            images::segment,
        ),
        post(
            "/v1/images/localize",
            "The main object of a picture: large, central and certain; sent as for detect.",
            body,
            Json("MainObject"),
            images::localize,
        ),
        post(
            "/v1/images/classify",
            "What a picture shows, the likeliest first, `top_k` of them; sent as for detect.",
            body,
            Json("Classes"),
            images::classify,
        ),
        post(
            "/v1/images/embed",
            "A picture as a vector of length 1; sent as for detect.",
            body,
            Json("PictureEmbedding"),
            images::embed,
        ),
    ]
}

fn sound() -> Vec<Route> {
    vec![
        post(
            "/v1/audio/transcriptions",
            "OpenAI's API: what is said in a recording, the form's `file`, as JSON, text or subtitles, streamed or not.",
            Body::Sound(body::plain::<audio::Form>),
            Answer::Transcript("Transcription"),
            audio::transcriptions,
        ),
        post(
            "/v1/audio/translations",
            "The same in English, whatever the language spoken, with a model that was trained to.",
            Body::Sound(body::plain::<audio::Form>),
            Answer::Transcript("Transcription"),
            audio::translations,
        ),
        post(
            "/v1/audio/speech",
            "OpenAI's API: a text, spoken, as WAV, FLAC or bare samples, sentence by sentence as it is spoken; \
             `x-pajamas-sample-rate` says how many samples are a second.",
            Body::Json(body::timed::<speech::SpeechBody>),
            Answer::Sound,
            speech::speak,
        ),
    ]
}

fn operating() -> Vec<Route> {
    use Answer::{Accepted, Condition, Events, Json, Text};
    let model = |path, summary, handler| Route {
        method: "post",
        path,
        summary,
        body: Body::None,
        answer: Json("ModelState"),
        handler,
    };
    vec![
        get("/healthz", "Whether the process answers.", Json("Health"), health::healthz),
        get(
            "/readyz",
            "503 until every model with `preload = true` is in memory, with what is missing.",
            Condition("Readiness"),
            admin::readyz,
        ),
        get(
            "/metrics",
            "OpenMetrics text for Prometheus.",
            Text("application/openmetrics-text"),
            admin::metrics,
        ),
        get(
            "/admin/models",
            "Every model's state, memory, requests and latest failure; the memory of every device.",
            Json("ModelStates"),
            admin::models,
        ),
        model(
            "/admin/models/{id}/load",
            "Loads a model; answers when it is in memory.",
            routing::post(admin::load),
        ),
        model(
            "/admin/models/{id}/unload",
            "Unloads a model; requests under way end first.",
            routing::post(admin::unload),
        ),
        model(
            "/admin/models/{id}/pin",
            "The model stays in memory when others need room.",
            routing::post(admin::pin),
        ),
        model("/admin/models/{id}/unpin", "The model may give way again.", routing::post(admin::unpin)),
        get("/admin/plugins", "Each plugin with each step of opening it.", Json("Plugins"), admin::plugins),
        get(
            "/admin/routes",
            "The latest decisions of the router with all that they were made of, the oldest first; models and devices as \
             a decision would see them now.",
            Json("Decisions"),
            admin::routes,
        ),
        get(
            "/admin/config",
            "Each setting with its source, and how the latest reload ended.",
            Json("Settings"),
            admin::config,
        ),
        post(
            "/admin/reload",
            "Reads the configuration again; answers with what is different, or why all stays as it is.",
            Body::None,
            Json("Changes"),
            reload::ask,
        ),
        get(
            "/admin/events",
            "Server-sent events without an end: `model` for each change of a state, `request` for each request that \
             ended, with its route and timings, `config` for each reload.",
            Events,
            admin::events,
        ),
        post(
            "/admin/jobs/quantize",
            "Makes an artifact of a model below `jobs.folder`, after the jobs before it; answers at once with the job.",
            Body::Json(body::exactly::<jobs::QuantizeBody>),
            Accepted("Job"),
            jobs::quantize,
        ),
        get("/admin/jobs", "The jobs that run and wait, and the latest that ended.", Json("Jobs"), jobs::all),
        get(
            "/admin/jobs/{id}",
            "A job: its state, how far it is, what became of it.",
            Json("Job"),
            jobs::one,
        ),
        Route {
            method: "delete",
            path: "/admin/jobs/{id}",
            summary: "Stops a job: one that waits at once, one that runs a little later, and nothing of it is left \
                      half-written.",
            body: Body::None,
            answer: Json("Job"),
            handler: routing::delete(jobs::cancel),
        },
        get(
            "/admin/jobs/{id}/events",
            "Server-sent events of a job: `progress` with the job as it is now, and whenever it is further, then `end`.",
            Events,
            jobs::events,
        ),
        get("/openapi.json", "These routes as an OpenAPI 3.1 document.", Json("Document"), openapi::serve),
    ]
}

fn files() -> Vec<Route> {
    let file = |(path, kind)| get(path, "A file of the page.", Answer::File(kind), page::asset);
    page::FILES.into_iter().map(file).collect()
}

fn get<T: 'static>(
    path: &'static str,
    summary: &'static str,
    answer: Answer,
    handler: impl Handler<T, Arc<Host>>,
) -> Route {
    Route { method: "get", path, summary, body: Body::None, answer, handler: routing::get(handler) }
}

fn post<T: 'static>(
    path: &'static str,
    summary: &'static str,
    body: Body,
    answer: Answer,
    handler: impl Handler<T, Arc<Host>>,
) -> Route {
    Route { method: "post", path, summary, body, answer, handler: routing::post(handler) }
}

/// A router of all of them.
pub fn router() -> Router<Arc<Host>> {
    all().fold(Router::new(), |router, route| router.route(route.path, route.handler))
}

/// All of them.
pub fn all() -> impl Iterator<Item = Route> {
    table().into_iter().flat_map(|(_, routes)| routes)
}

/// The paths, for whoever asked for another one.
pub fn paths() -> String {
    let mut known = String::new();
    // The page's own files are nothing to ask for.
    for route in all().filter(|route| !matches!(route.answer, Answer::File(_)) || route.path == "/") {
        let between = if known.is_empty() { "" } else { ", " };
        let _ = write!(known, "{between}{}", route.path);
    }
    known
}
