//! Decisions: by rules, by names, by what is observed; and that each can be made again.

mod again;
mod choice;
mod intent;
mod names;
mod similar;

use super::*;
use crate::config::{Affinity, Config, Feature, LoadOptions};
use crate::models::State;

/// Rules of a configuration with the models `large`, `medium`, `small` for chat and `shapes`, `yolo` for detection.
fn rules(toml: &str) -> Rules {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.gguf"), "").unwrap();
    let model = |(id, task)| {
        format!("[[models]]\nid = \"{id}\"\npath = \"m.gguf\"\ntask = \"{task}\"\npreload = true\n")
    };
    let models = MODELS.map(model).concat();
    std::fs::write(folder.path().join("pajamas.toml"), format!("{toml}\n{models}")).unwrap();
    let options = LoadOptions { folder: folder.path().to_owned(), ..LoadOptions::default() };
    let config = Config::load(&options).unwrap_or_else(|problems| panic!("{problems}"));
    Rules::new(&config).unwrap()
}

const MODELS: [(&str, &str); 5] =
    [("large", "chat"), ("medium", "chat"), ("small", "chat"), ("shapes", "detect"), ("yolo", "detect")];
const GIB: u64 = 1 << 30;

/// All of them in memory, idle, the smaller the faster.
fn snapshot() -> Snapshot {
    let average = |mean| Some(Average { mean, spread: 0, count: 5 });
    let models = MODELS.iter().zip([4, 2, 1, 1, 1]).map(|((id, task), size)| {
        let observed = Observed {
            load: average(1_000_000 * size),
            wake: average(10_000 * size),
            service: average(1_000_000 * size),
            first_token: [(1024, average(100_000 * size).unwrap())].into(),
            between_tokens: average(10_000 * size),
            answer: average(101),
        };
        let model = Model {
            task: Some(if *task == "chat" { Task::Chat } else { Task::Detect }),
            state: State::Ready,
            source: (*id).to_owned(),
            device: "cpu".into(),
            memory: Some(size * GIB),
            slots: 1,
            observed,
            ..Model::default()
        };
        ((*id).to_owned(), model)
    });
    let device =
        Device { budget: 16 * GIB, held: 9 * GIB, idle: 9 * GIB, temperature: Some(50), throttled: false };
    Snapshot { models: models.collect(), devices: [("cpu".to_owned(), device)].into(), ..Snapshot::default() }
}

fn chat(text: &str) -> Ask {
    Ask { text: Some(text.to_owned()), tokens: 100, ..Ask::new(Task::Chat, None) }
}

/// The chosen model and why, or the code and the words of the refusal.
fn said(rules: &Rules, ask: &Ask, snapshot: &Snapshot) -> String {
    let decision = decide(rules, ask, snapshot);
    match decision.model() {
        Ok(model) => format!("{model}: {}", decision.reason(ask.task)),
        Err(error) => format!("{}: {} ({})", error.code(), error.message(), error.how_to_fix()),
    }
}
