//! Artifacts that are made by a server: asked for, watched, stopped, and kept to their folder.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pajamas_journeys::artifacts::{files, large};
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, run};
use serde_json::{Value, json};
use tempfile::TempDir;

const JOBS: &str = "/admin/jobs";
const QUANTIZE: &str = "/admin/jobs/quantize";

/// A folder that jobs may use, with the chat model in it and one that takes seconds.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let chat = place.path("chat");
        fs::create_dir(&chat).unwrap();
        for entry in fs::read_dir(repository().join("models/chat/hf")).unwrap().flatten() {
            fs::copy(entry.path(), chat.join(entry.file_name())).unwrap();
        }
        place
    }

    fn with_large() -> Self {
        let place = Self::new();
        large(place.0.path()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A server whose section `jobs` has more than the folder.
    fn server(&self, more: &str) -> Server {
        Server::start(House::new(&self.toml(more)).unwrap()).unwrap()
    }

    fn toml(&self, more: &str) -> String {
        format!("[jobs]\nfolder = '{}'\n{more}\n", self.0.path().display())
    }
}

fn quick(output: &str) -> Value {
    json!({ "model": "chat", "precision": "Q8_0", "output": output })
}

/// What takes seconds.
fn slow(output: &str) -> Value {
    json!({ "model": "large", "precision": "Q3_K_M", "output": output, "options": { "threads": 1 } })
}

/// Asks for a job that is taken, and gives its path.
fn begin(server: &Server, body: &Value) -> String {
    let answer = server.post_json(QUANTIZE, body).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let job = answer.json().unwrap();
    assert!(["queued", "running"].contains(&job["state"].as_str().unwrap()), "{job}");
    assert_eq!((&job["kind"], &job["model"]), (&json!("quantize"), &body["model"]));
    format!("{JOBS}/{}", job["id"].as_str().unwrap())
}

fn job(server: &Server, path: &str) -> Value {
    server.get(path).unwrap().json().unwrap()
}

/// Waits until a job is worked on, and further than its beginning.
fn under_way(server: &Server, path: &str) -> Value {
    loop {
        let job = job(server, path);
        if job["progress"]["fraction"].as_f64().unwrap() > 0.0 {
            assert_eq!(job["state"], "running", "it ended before it was seen: {job}");
            return job;
        }
    }
}

/// All events of a job, to its end.
fn events(server: &Server, path: &str) -> Vec<(String, Value)> {
    let body = server.get(&format!("{path}/events")).unwrap().body;
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let events = body.split("\n\n").filter(|event| !event.trim().is_empty() && !event.starts_with(':'));
    let read = events.map(|event| {
        (field(event, "event:").unwrap(), serde_json::from_str(&field(event, "data:").unwrap()).unwrap())
    });
    read.collect()
}

/// Waits for a job's end.
fn end(server: &Server, path: &str) -> Value {
    let (name, job) = events(server, path).pop().unwrap();
    assert_eq!(name, "end");
    job
}

fn refused(server: &Server, body: &Value) -> (u16, String) {
    let (status, error) = server.post_json(QUANTIZE, body).unwrap().refusal().unwrap();
    (status, error["code"].as_str().unwrap().to_owned())
}

fn metric(server: &Server, line: &str) -> Option<f64> {
    let text = server.get("/metrics").unwrap().body;
    text.lines().find_map(|l| l.strip_prefix(line).map(|rest| rest.trim().parse().unwrap()))
}

#[test]
fn jobs_are_watched_to_their_end_and_make_what_convert_makes() {
    let place = Place::with_large();
    let server = place.server("");
    let first = begin(&server, &slow("artifacts/large"));
    let second = begin(&server, &quick("artifacts/chat"));
    let third = begin(&server, &quick("never"));
    assert_eq!(job(&server, &second)["state"], "queued");
    let stopped = server.delete(&third).unwrap().json().unwrap();
    assert_eq!((&stopped["state"], &stopped["started"]), (&json!("cancelled"), &Value::Null));

    let told = events(&server, &first);
    let (last, before) = told.split_last().unwrap();
    assert!(before.len() > 3 && before.iter().all(|(name, _)| name == "progress"), "{told:?}");
    assert_eq!((&*last.0, &last.1["state"]), ("end", &json!("done")));
    let fractions: Vec<f64> =
        told.iter().map(|(_, job)| job["progress"]["fraction"].as_f64().unwrap()).collect();
    assert!(fractions.is_sorted() && *fractions.last().unwrap() == 1.0, "{fractions:?}");
    let knows = |job: &Value| {
        let progress = &job["progress"];
        progress["eta_s"].is_u64() && progress["form"] == json!({ "format": "gguf", "precision": "Q3_K_M" })
    };
    assert!(before.iter().any(|(_, job)| knows(job)), "{told:?}");
    assert!(before.iter().any(|(_, job)| job["progress"]["what"] != ""), "{told:?}");

    // Who comes late is told the end alone.
    let done = end(&server, &second);
    assert_eq!(events(&server, &second).len(), 1);
    assert_eq!((&done["state"], &done["made"][0]["skipped"]), (&json!("done"), &json!(false)));
    let elsewhere = place.path("by-hand");
    let arguments = ["convert", "-p", "Q8_0", "-o"].map(Path::new);
    let converted = run([&arguments[..], &[&elsewhere, &place.path("chat")]].concat()).unwrap();
    assert!(converted.status.success(), "{}", converted.stderr);
    let made = place.path("artifacts/chat");
    assert_eq!(files(&made), files(&elsewhere));
    let file = "gguf/Q8_0/chat-Q8_0.gguf";
    assert!(fs::read(made.join(file)).unwrap() == fs::read(elsewhere.join(file)).unwrap());
    let verified = run([Path::new("verify"), &made]).unwrap();
    assert!(verified.status.success(), "{}", verified.stderr);

    // The same again is there already.
    let again = end(&server, &begin(&server, &quick("artifacts/chat")));
    assert_eq!((&again["state"], &again["made"][0]["skipped"]), (&json!("done"), &json!(true)));
    assert!(!place.path("never").exists());
    let all = server.get(JOBS).unwrap().json().unwrap();
    let states: Vec<_> = all["jobs"].as_array().unwrap().iter().map(|job| job["state"].clone()).collect();
    assert_eq!(states, ["done", "done", "cancelled", "done"]);
    for (line, count) in [
        ("pajamas_jobs{state=\"queued\"}", 0.0),
        ("pajamas_jobs{state=\"running\"}", 0.0),
        ("pajamas_jobs_ended_total{state=\"done\"}", 3.0),
        ("pajamas_jobs_ended_total{state=\"cancelled\"}", 1.0),
        ("pajamas_jobs_ended_total{state=\"failed\"}", 0.0),
    ] {
        assert_eq!(metric(&server, line), Some(count), "{line}");
    }
}

#[test]
fn a_job_that_runs_is_stopped_and_leaves_nothing_half_written() {
    let place = Place::with_large();
    let server = place.server("max_queue = 2");
    let before = files(place.0.path());
    let first = begin(&server, &slow("out"));
    let second = begin(&server, &quick("out"));
    under_way(&server, &first);
    let full = server.post_json(QUANTIZE, &quick("more")).unwrap();
    assert_eq!((full.status, full.refusal().unwrap().1["code"].clone()), (429, json!("jobs-full")));
    assert!(full.retry_after.unwrap().parse::<u64>().unwrap() >= 1);

    // The one that waits first: nothing follows that could write into the folder.
    assert_eq!(server.delete(&second).unwrap().json().unwrap()["state"], "cancelled");
    let stopping = server.delete(&first).unwrap().json().unwrap();
    assert!(stopping["stopping"] == true || stopping["state"] == "cancelled", "{stopping}");
    let ended = end(&server, &first);
    assert_eq!((&ended["state"], &ended["error"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(files(place.0.path()), before);
    assert!(!place.path("out").exists());
    // Once more is no mistake, and the folder is free.
    assert_eq!(server.delete(&first).unwrap().json().unwrap()["state"], "cancelled");
    assert_eq!(end(&server, &begin(&server, &quick("out")))["state"], "done");
}

#[test]
fn a_server_that_stops_leaves_nothing_half_written_and_forgets_its_jobs() {
    let place = Place::with_large();
    let before = files(place.0.path());
    let server = place.server("");
    let first = begin(&server, &slow("out"));
    let second = begin(&server, &quick("next"));
    under_way(&server, &first);
    let (status, said) = server.stop().unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(files(place.0.path()), before);

    let server = place.server("");
    assert_eq!(server.get(JOBS).unwrap().json().unwrap(), json!({ "jobs": [] }));
    for path in [&first, &second, &format!("{first}/events")] {
        let (status, error) = server.get(path).unwrap().refusal().unwrap();
        assert_eq!((status, &error["code"]), (404, &json!("job-not-found")));
    }
    assert_eq!(server.delete(&first).unwrap().status, 404);
    let again = begin(&server, &quick("next"));
    assert_ne!(again, second, "an id means one job, whatever was restarted");
    assert_eq!(end(&server, &again)["state"], "done");
}

#[test]
fn what_leads_out_of_the_folder_or_cannot_be_made_is_refused_at_once() {
    let (place, outside) = (Place::new(), Place::new());
    symlink(outside.path("chat"), place.path("away")).unwrap();
    symlink(outside.0.path(), place.path("beyond")).unwrap();
    fs::create_dir(place.path("mixed")).unwrap();
    for entry in fs::read_dir(outside.path("chat")).unwrap().flatten() {
        symlink(entry.path(), place.path("mixed").join(entry.file_name())).unwrap();
    }
    let server = place.server("");
    let before = (files(place.0.path()), files(outside.0.path()));
    let absolute = outside.path("chat");
    let up = format!("../{}/chat", outside.0.path().file_name().unwrap().display());
    for model in [absolute.to_str().unwrap(), &up, "..", "away", "beyond/chat", "mixed", "chat/../away"] {
        let body = json!({ "model": model, "precision": "Q8_0", "output": "out" });
        assert_eq!(refused(&server, &body), (400, "path-outside".into()), "{model}");
    }
    let absolute = outside.path("out");
    for output in [absolute.to_str().unwrap(), "../out", "away", "beyond/out", "beyond"] {
        assert_eq!(refused(&server, &quick(output)), (400, "path-outside".into()), "{output}");
    }
    let with = |key: &str, value: Value| {
        let mut body = quick("out");
        body[key] = value;
        body
    };
    for (body, refusal) in [
        (with("options", json!({ "imatrix": "/etc/passwd" })), (400, "path-outside")),
        (with("options", json!({ "strategy": "solve", "texts": ["../a"] })), (400, "path-outside")),
        (with("options", json!({ "imatrix": "none.gguf" })), (404, "model-not-found")),
        (with("options", json!({ "colour": "red" })), (400, "invalid-option")),
        (with("precision", json!("Q9")), (400, "invalid-option")),
        (with("precision", json!("Q8_0:4bit")), (400, "invalid-option")),
        (with("formats", json!(["gguff"])), (404, "quantizer-not-found")),
        (with("model", json!("none")), (404, "model-not-found")),
        (with("output", json!("chat/config.json")), (400, "invalid-input")),
        (with("outputs", json!("out")), (400, "invalid-input")),
        (json!({ "model": "chat" }), (400, "invalid-input")),
    ] {
        assert_eq!(refused(&server, &body), (refusal.0, refusal.1.to_owned()), "{body}");
    }
    assert_eq!(server.get(JOBS).unwrap().json().unwrap(), json!({ "jobs": [] }));
    assert_eq!((files(place.0.path()), files(outside.0.path())), before, "nothing was made");

    // What only the work itself finds out is told as the end of the job.
    fs::write(place.path("chat/tokenizer.json"), "{").unwrap();
    let failed = end(&server, &begin(&server, &quick("out")));
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&json!("failed"), &json!("tokenizer-invalid")));
    assert!(!place.path("out").exists());
}

#[test]
fn jobs_are_refused_until_a_folder_is_named() {
    let place = Place::new();
    let server = Server::start(House::new("[server]\nwatch = false\n").unwrap()).unwrap();
    let (status, error) = server.post_json(QUANTIZE, &quick("out")).unwrap().refusal().unwrap();
    assert_eq!((status, &error["code"]), (403, &json!("jobs-off")));
    assert!(error["message"].as_str().unwrap().contains("jobs.folder"), "{error}");
    assert_eq!(server.get(JOBS).unwrap().json().unwrap(), json!({ "jobs": [] }));

    server.house().write(&format!("[server]\nwatch = false\n{}", place.toml(""))).unwrap();
    let changes = server.post("/admin/reload", "application/json", b"").unwrap().json().unwrap();
    assert_eq!(changes["changes"]["settings"], json!(["jobs.folder"]));
    let path = begin(&server, &quick("out"));
    assert_eq!(end(&server, &path)["state"], "done");

    // Named no more, new jobs are refused, and what became of the others can still be asked.
    server.house().write("[server]\nwatch = false\n").unwrap();
    assert_eq!(server.post("/admin/reload", "application/json", b"").unwrap().status, 200);
    assert_eq!(refused(&server, &quick("out")), (403, "jobs-off".into()));
    assert_eq!(job(&server, &path)["state"], "done");
}
