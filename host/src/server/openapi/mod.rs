//! `GET /openapi.json`: the [table of routes](super::routes) as an OpenAPI 3.1 document. What is read comes from the
//! types that read it; what is answered is compared with the document by a test.

pub mod answers;
pub mod body;
mod examples;
mod notation;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::{self, Answer, Route};
use body::Body;

use crate::config::Scope;
use crate::host::Host;

/// `GET /openapi.json`
pub async fn serve(State(host): State<Arc<Host>>) -> Json<Value> {
    Json(document(!host.config().server.keys.is_empty()))
}

/// The document of a server, with or without keys.
pub fn document(keys: bool) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.with_transform(body::exact()).into_generator();
    let mut paths = Map::new();
    for (tag, routes) in routes::table() {
        for route in routes {
            let mut operation = operation(&route, &mut generator, keys);
            operation["tags"] = json!([tag]);
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method] = operation;
        }
    }
    let mut schemas = generator.take_definitions(true);
    schemas.extend(answers::schemas());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pajamas",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Serves models. The fields that a request may have are those that are read; others are ignored.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, keys: bool) -> Value {
    let name =
        format!("{}{}", route.method, route.path.replace(['/', '-', '.'], "_").replace(['{', '}'], ""));
    let mut operation = json!({
        "operationId": name.trim_end_matches('_'),
        "summary": route.summary,
        "responses": responses(route),
    });
    if route.path.contains("{id}") {
        operation["parameters"] = json!([{
            "name": "id", "in": "path", "required": true, "schema": { "type": "string" },
            "description": format!("The id of a {}.", if of_jobs(route) { "job" } else { "configured model" }),
        }]);
    }
    let mut content = route.body.content(generator);
    if let Some(json) = content.get_mut("application/json") {
        json["examples"] = Value::Object(examples::of(route.path));
    }
    if !content.is_empty() {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    if let Some(scope) = route.scope() {
        let scopes = [scope.name()];
        operation["description"] = json!(format!("A key needs the scope `{}`.", scope.name()));
        operation["security"] = match keys {
            true => json!([{ "bearer": scopes }, { "key": scopes }]),
            false => json!([{}]),
        };
    }
    operation
}

/// Whether its `{id}` is that of a job, which is not asked of a model.
fn of_jobs(route: &Route) -> bool {
    route.path.starts_with("/admin/jobs")
}

fn responses(route: &Route) -> Value {
    let anthropic = route.path.starts_with("/v1/messages");
    let error = reference(if anthropic { answers::ANTHROPIC_ERROR } else { answers::ERROR });
    let mut responses = Map::new();
    for (status, description) in refusals(route) {
        let mut response = response(description, &json!({ "application/json": { "schema": error } }));
        if matches!(status, 429 | 503) {
            response["headers"]["retry-after"] =
                header("After how many seconds another try makes sense.", false);
        }
        responses.insert(status.to_string(), response);
    }
    let (name, description) = match route.answer {
        Answer::Json(name) | Answer::Streamed(name) | Answer::Transcript(name) | Answer::Condition(name) => {
            (name, "What was asked for.")
        }
        Answer::Accepted(name) => (name, "It is begun: look again what becomes of it."),
        Answer::Sound => ("", "The sound."),
        Answer::Events => ("", "Events."),
        Answer::Text(_) | Answer::File(_) => ("", "The text."),
    };
    let text = json!({ "schema": { "type": "string" } });
    let sound = json!({ "schema": { "type": "string", "format": "binary" } });
    let content = match route.answer {
        Answer::Json(name) | Answer::Accepted(name) | Answer::Condition(name) => {
            json!({ "application/json": { "schema": reference(name) } })
        }
        Answer::Streamed(name) => json!({
            "application/json": { "schema": reference(name) },
            "text/event-stream": { "schema": reference(answers::EVENT) },
        }),
        Answer::Transcript(name) => json!({
            "application/json": { "schema": reference(name) },
            "text/plain": text,
            "text/vtt": text,
            "text/event-stream": { "schema": reference(answers::EVENT) },
        }),
        Answer::Sound => json!({
            "audio/wav": sound,
            "audio/flac": sound,
            "audio/pcm": sound,
            "text/event-stream": { "schema": reference(answers::EVENT) },
        }),
        Answer::Events => json!({ "text/event-stream": { "schema": reference(answers::EVENT) } }),
        Answer::Text(kind) | Answer::File(kind) => json!({ kind: text }),
    };
    let mut good = response(description, &content);
    if route.scope() == Some(Scope::Infer) && !matches!(route.body, Body::None) {
        good["headers"]["x-pajamas-route"] =
            header("The model, backend, device and format that answered.", false);
    }
    if route.answer == Answer::Sound {
        good["headers"]["x-pajamas-sample-rate"] = header("Samples a second.", false);
    }
    let status = if matches!(route.answer, Answer::Accepted(_)) { "202" } else { "200" };
    responses.insert(status.to_owned(), good);
    match route.answer {
        Answer::Condition(_) => {
            let either = json!({ "anyOf": [reference(name), error] });
            responses["503"]["content"]["application/json"]["schema"] = either;
        }
        Answer::File(_) => {
            let headers = json!({ "x-request-id": header("The request's id.", true) });
            let unchanged = json!({ "description": "The client has it already.", "headers": headers });
            responses.insert("304".to_owned(), unchanged);
        }
        _ => {}
    }
    Value::Object(responses)
}

/// The statuses of refusals. Every request's body is read, and may be too large or too slow.
fn refusals(route: &Route) -> Vec<(u16, &'static str)> {
    let mut refusals = vec![
        (400, "The request is wrong."),
        (413, "More than a limit allows."),
        (503, "Not now: memory, load or time."),
    ];
    if route.scope().is_some() {
        refusals.extend([
            (401, "Without a key that is known."),
            (403, "With a key, or from a place, that may not."),
            (500, "The host or a plugin is at fault."),
        ]);
    }
    if route.path.contains("{id}") || !matches!(route.body, Body::None) {
        refusals.push((
            404,
            if of_jobs(route) { "There is no such job, or model." } else { "There is no such model." },
        ));
    }
    if !matches!(route.body, Body::None) {
        refusals.push((429, "Too many at once."));
    }
    refusals
}

fn response(description: &str, content: &Value) -> Value {
    let headers =
        json!({ "x-request-id": header("The request's id, the client's own when it sent one.", true) });
    json!({ "description": description, "headers": headers, "content": content })
}

fn header(description: &str, always: bool) -> Value {
    json!({ "description": description, "required": always, "schema": { "type": "string" } })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` below.
    fn references(value: &Value) -> Vec<String> {
        match value {
            Value::Object(map) => map
                .iter()
                .flat_map(|(key, value)| match value {
                    Value::String(target) if key == "$ref" => vec![target.clone()],
                    value => references(value),
                })
                .collect(),
            Value::Array(list) => list.iter().flat_map(references).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_route_is_in_it_once() {
        let document = document(true);
        let mut count = 0;
        for route in routes::all() {
            let responses = &document["paths"][route.path][route.method]["responses"];
            assert!(["200", "202"].iter().any(|status| responses[status].is_object()), "{}", route.path);
            assert!(route.summary.ends_with('.'), "{}", route.path);
            count += 1;
        }
        let methods = document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object());
        assert_eq!(methods.map(Map::len).sum::<usize>(), count);
    }

    #[test]
    fn every_json_body_has_an_example() {
        for (path, methods) in document(true)["paths"].as_object().unwrap() {
            let json = &methods["post"]["requestBody"]["content"]["application/json"];
            assert!(
                json.is_null() || json["examples"].as_object().is_some_and(|map| !map.is_empty()),
                "{path}"
            );
        }
    }

    #[test]
    fn no_route_is_made_elsewhere() {
        let others = [include_str!("../mod.rs"), include_str!("../page.rs"), include_str!("../admin.rs")];
        assert!(others.iter().all(|source| !source.contains(".route(")), "routes are made of the table");
    }

    #[test]
    fn what_it_refers_to_is_there_and_what_is_there_is_referred_to() {
        let document = document(true);
        let mut targets = references(&document);
        for target in &targets {
            assert!(document.pointer(&target[1..]).is_some(), "{target}");
        }
        targets.sort();
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(targets.contains(&format!("#/components/schemas/{name}")), "{name} is not used");
        }
    }

    #[test]
    fn the_types_of_requests_and_of_answers_have_names_of_their_own() {
        let known = answers::schemas();
        let mut generator = SchemaGenerator::default();
        for route in routes::all() {
            route.body.content(&mut generator);
        }
        for name in generator.definitions().keys() {
            assert!(!known.contains_key(name) && !name.ends_with('2'), "{name} names two types");
        }
    }

    #[test]
    fn a_body_has_the_fields_of_all_that_read_it() {
        let document = document(true);
        let body = |path: &str| {
            document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"].clone()
        };
        let chat = body("/v1/chat/completions");
        for field in
            ["messages", "tools", "temperature", "max_tokens", "max_completion_tokens", "stop_sequences"]
        {
            assert!(chat["properties"][field].is_object(), "{field}");
        }
        assert_eq!(chat["required"], json!(["messages"]));
        assert_eq!(chat["properties"]["max_tokens"]["maximum"], json!(u32::MAX));
        assert_eq!(body("/v1/messages")["required"], json!(["max_tokens", "model", "messages"]));
        assert!(body("/v1/completions")["properties"]["tools"].is_null());
    }

    #[test]
    fn keys_are_asked_for_where_the_server_asks() {
        let security =
            |keys: bool, path: &str, method: &str| document(keys)["paths"][path][method]["security"].clone();
        assert_eq!(
            security(true, "/metrics", "get"),
            json!([{ "bearer": ["metrics"] }, { "key": ["metrics"] }])
        );
        assert_eq!(security(false, "/metrics", "get"), json!([{}]));
        assert!(security(true, "/healthz", "get").is_null());
    }
}
