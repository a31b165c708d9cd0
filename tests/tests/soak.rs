//! Ten models where three fit: mixed load, right answers, no memory beyond the limit, every decision made again, and a
//! worker that is killed in the middle of it, once a round.
//!
//! `PAJAMAS_SOAK_MINUTES=10 cargo nextest run --release --workspace --exclude xtask --run-ignored all -E 'binary(soak)'
//! --no-capture` goes on for ten minutes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first trouble")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{House, Server, model_entry};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Forms of the repository's chat model, the best first: the steps of the ladder.
const FORMS: [&str; 5] = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"];
/// The model in a process of its own.
const WORKER: &str = "worker";
const CLIENTS: usize = 8;
/// Requests of a client in a round: all of a round's decisions are kept until its end.
const REQUESTS: usize = 24;
const ROUNDS: usize = 3;
const QUESTIONS: [&str; 6] = [
    "What is 2 plus 3?",
    "What is 7 minus 2?",
    "What is 4 plus 4?",
    "What do llamas wear?",
    "What color is the sky?",
    "How many legs has a llama?",
];

/// What a request was, and what a right answer to it is.
#[derive(Clone, Debug)]
enum Task {
    /// A question to a model, a ladder, or whoever the rules say.
    Chat {
        model: Option<String>,
        question: usize,
        stream: bool,
    },
    Image {
        path: &'static str,
        model: &'static str,
    },
    Rerank,
}

/// The ten models. `folder` holds the forms of the chat model.
fn models(folder: &Path) -> String {
    let gguf = |form: &str| -> PathBuf { folder.join(format!("gguf/{form}/hf-{form}.gguf")) };
    let options = "task = \"chat\"\noptions = { threads = 1, context_length = 512, parallel = 4 }";
    let chat = |form: &&str| model_entry(&form.to_lowercase(), &gguf(form), options);
    let worker = model_entry(WORKER, &gguf("Q8_0"), &format!("{options}\nisolation = \"process\""));
    let file = |id: &str, file: &str, task: &str| {
        model_entry(id, &repository().join(file), &format!("task = \"{task}\"\noptions = {{ threads = 1 }}"))
    };
    let mut all: String = FORMS.iter().map(chat).collect();
    all += &worker;
    all += &file("shapes", "models/detect/model.onnx", "detect");
    all += &file("shapes-too", "models/detect/model.onnx", "detect");
    all += &file("kinds", "models/classify/model.onnx", "classify");
    all += &file("ranker", "tests/fixtures/ranker.gguf", "rerank");
    let steps: Vec<String> = FORMS.iter().map(|form| format!("\"{}\"", form.to_lowercase())).collect();
    format!(
        "[server]\nmax_queue = 1000\n[routing]\nrecord = \"text\"\n[defaults]\nchat = \"answers\"\ndetect = \"shapes\"\n\
         [[ladders]]\nid = \"answers\"\nsteps = [{}]\n\
         [[routes]]\nid = \"sums\"\nwhen = {{ task = \"chat\", keywords = [\"plus\"] }}\nuse = [\"q6_k\", \"q8_0\"]\n{all}",
        steps.join(", ")
    )
}

fn server(toml: &str) -> Server {
    Server::start(House::new(toml).unwrap()).unwrap()
}

/// Sends a request; gives who answered and what, or the code of the refusal.
fn ask(server: &Server, task: &Task) -> Result<(String, Value), String> {
    let refused = |code: &Value| code.as_str().unwrap_or("no code").to_owned();
    let answer = match task {
        Task::Chat { model, question, stream } => {
            let turns = json!([{ "role": "user", "content": QUESTIONS[*question] }]);
            let mut body = json!({ "messages": turns, "temperature": 0, "max_tokens": 40, "stream": stream });
            if let Some(model) = model {
                body["model"] = json!(model);
            }
            server.post_json(CHAT, &body).unwrap()
        }
        Task::Image { path, model } => {
            let picture = std::fs::read(repository().join("models/sample.png")).unwrap();
            server.post_json(path, &json!({ "model": model, "image": STANDARD.encode(picture) })).unwrap()
        }
        Task::Rerank => {
            let body = json!({ "model": "ranker", "query": "What do llamas wear?", "documents": ["pajamas", "a hat", "rain"] });
            server.post_json("/v1/rerank", &body).unwrap()
        }
    };
    if answer.status != 200 {
        return Err(refused(&answer.refusal().unwrap().1["code"]));
    }
    if matches!(task, Task::Chat { stream: true, .. }) {
        let events = answer.events().unwrap();
        if let Some(error) = events.iter().find(|event| event["error"].is_object()) {
            return Err(refused(&error["error"]["code"]));
        }
        let words: String =
            events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        return Ok((events[0]["model"].as_str().unwrap().to_owned(), json!(words)));
    }
    let mut answer = answer.json().unwrap();
    let model = answer["model"].as_str().unwrap().to_owned();
    let said = match task {
        Task::Chat { .. } => answer["choices"][0]["message"]["content"].take(),
        Task::Image { .. } if answer["detections"].is_array() => answer["detections"].take(),
        Task::Image { .. } => answer["classes"].take(),
        Task::Rerank => {
            let results = answer["results"].as_array().unwrap();
            results.iter().map(|result| result["index"].clone()).collect()
        }
    };
    Ok((model, said))
}

/// What a client asks, one after the other: all kinds, in an order of its own.
fn task(client: usize, number: usize) -> Task {
    let (turn, question) = (client * 7 + number * 5, (client + number) % QUESTIONS.len());
    let chat = |model: Option<&str>| Task::Chat {
        model: model.map(str::to_lowercase),
        question,
        stream: number.is_multiple_of(2),
    };
    match turn % 12 {
        0 | 1 => chat(None),
        2 => chat(Some("answers")),
        form @ 3..=7 => chat(Some(FORMS[form - 3])),
        8 => chat(Some(WORKER)),
        9 => Task::Image { path: "/v1/images/detect", model: ["shapes", "shapes-too"][number % 2] },
        10 => Task::Image { path: "/v1/images/classify", model: "kinds" },
        _ => Task::Rerank,
    }
}

/// Bytes that models hold, and may hold.
fn memory(server: &Server) -> (u64, u64) {
    let device = server.get("/admin/models").unwrap().json().unwrap()["devices"][0].clone();
    (device["used"].as_u64().unwrap(), device["total"].as_u64().unwrap())
}

/// What each model says when it is alone, and what the three largest hold together.
fn alone(toml: &str) -> (BTreeMap<(String, usize), Value>, u64) {
    let server = server(toml);
    let mut answers = BTreeMap::new();
    let mut sizes = Vec::new();
    let chats = FORMS.iter().map(|form| form.to_lowercase()).chain([WORKER.to_owned()]);
    let chats =
        chats.flat_map(|id| (0..QUESTIONS.len()).map(move |question| (question, chat_of(&id, question))));
    let picture = |path, model| (0, Task::Image { path, model });
    let others = [
        picture("/v1/images/detect", "shapes"),
        picture("/v1/images/detect", "shapes-too"),
        picture("/v1/images/classify", "kinds"),
        (0, Task::Rerank),
    ];
    for (question, task) in chats.chain(others) {
        let (model, said) = ask(&server, &task).unwrap();
        assert!(!said.is_null() && said != json!("") && said != json!([]), "{task:?}: {said}");
        answers.insert((model, question), said);
    }
    let status = server.get("/admin/models").unwrap().json().unwrap();
    for model in status["models"].as_array().unwrap() {
        let held = &model["memory"][0];
        let part = |part: &&str| held[part].as_u64().unwrap_or_else(|| panic!("{model}"));
        sizes.push(["weights", "kv", "scratch"].iter().map(part).sum::<u64>());
    }
    assert_eq!(sizes.len(), 10, "{status}");
    sizes.sort_unstable();
    (answers, sizes.iter().rev().take(3).sum())
}

fn chat_of(id: &str, question: usize) -> Task {
    Task::Chat { model: Some(id.to_owned()), question, stream: false }
}

#[test]
fn ten_models_answer_rightly_where_three_fit() {
    let folder = tempfile::tempdir().unwrap();
    let hf = repository().join("models/chat/hf");
    let made = House::new("").unwrap().run([
        "convert".as_ref(),
        hf.as_os_str(),
        "--precision".as_ref(),
        FORMS.join(",").as_ref(),
        "--output".as_ref(),
        folder.path().as_os_str(),
    ]);
    assert!(made.unwrap().status.success());
    let toml = models(folder.path());
    let (right, limit) = alone(&toml);
    let server = server(&format!("[memory]\nlimit = \"{limit}B\"\n{toml}"));
    let minutes = std::env::var("PAJAMAS_SOAK_MINUTES").ok().map(|minutes| minutes.parse::<u64>().unwrap());
    let (begun, mut rounds) = (Instant::now(), 0);
    let goes_on = |rounds| match minutes {
        Some(minutes) => begun.elapsed() < Duration::from_secs(60 * minutes),
        None => rounds < ROUNDS,
    };
    let (asked, crashed, peak) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (mut killed, mut kept) = (0_u64, BTreeSet::new());
    let log = server.house().folder().join("decisions.jsonl");
    while goes_on(rounds) {
        rounds += 1;
        let client = |client: usize| {
            for number in 0..REQUESTS {
                let task = task(client, number + rounds);
                asked.fetch_add(1, Ordering::Relaxed);
                match ask(&server, &task) {
                    Ok((model, said)) => {
                        let question = if let Task::Chat { question, .. } = task { question } else { 0 };
                        assert_eq!(right.get(&(model.clone(), question)), Some(&said), "{model}: {task:?}");
                    }
                    // What its worker was loading, or had begun to say, when it was killed.
                    Err(code) if code == "worker-crashed" => {
                        assert!(
                            matches!(&task, Task::Chat { model: Some(id), .. } if id == WORKER),
                            "{task:?}"
                        );
                        crashed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(code) => panic!("{task:?}: {code}"),
                }
                let (used, may) = memory(&server);
                assert!(used <= may && may <= limit, "{used} of {may} bytes are held");
                peak.fetch_max(used, Ordering::Relaxed);
            }
        };
        let (over, ends) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                // As soon as there is one, in each round.
                let ends = ends;
                loop {
                    if let Some(pid) = server.workers().unwrap().first() {
                        return u64::from(
                            Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success(),
                        );
                    }
                    if ends.recv_timeout(Duration::from_millis(20))
                        == Err(mpsc::RecvTimeoutError::Disconnected)
                    {
                        return 0;
                    }
                }
            });
            let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
            drop(over);
            killed += killer.join().unwrap();
        });
        // A round's decisions are fewer than the host keeps.
        let decisions = server.get("/admin/routes").unwrap().json().unwrap()["decisions"].take();
        let mut lines = std::fs::read_to_string(&log).unwrap_or_default();
        for decision in decisions.as_array().unwrap() {
            let line = decision.to_string();
            if kept.insert(line.clone()) {
                lines += &(line + "\n");
            }
        }
        std::fs::write(&log, lines).unwrap();
    }
    let asked = asked.into_inner();
    // One decision for each request, and one more for each that was tried again.
    assert!(kept.len() as u64 >= asked, "{} decisions of {asked} requests", kept.len());
    let replayed = server.house().run(["route", "replay", "--json", log.to_str().unwrap()]).unwrap();
    let replayed = replayed.json().unwrap().remove(0);
    assert_eq!(
        (&replayed["decisions"], &replayed["same"]),
        (&json!(kept.len()), &json!(kept.len())),
        "{replayed}"
    );
    let crashed = crashed.into_inner();
    assert!(
        killed > 0 && crashed <= killed * CLIENTS as u64,
        "{killed} workers killed, {crashed} requests lost"
    );
    let status = server.get("/admin/models").unwrap().json().unwrap();
    let models = status["models"].as_array().unwrap();
    let sum = |what: &str| models.iter().map(|model| model[what].as_u64().unwrap()).sum::<u64>();
    let (loads, wakes) = (sum("loads"), sum("wakes"));
    assert!(loads + wakes > 10, "models came and went: {loads} loads, {wakes} wakes");
    println!(
        "{rounds} rounds in {:.0?}: {asked} requests, each answered rightly but {} that a killed worker had; {killed} \
         workers killed; {loads} loads, {wakes} wakes; {} decisions made again; at most {} of {} KiB held",
        begun.elapsed(),
        crashed,
        kept.len(),
        peak.into_inner() >> 10,
        limit >> 10,
    );
}
