//! The choice of a model: how long a decision takes with many rules and many models.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Options, example, json as run};
use crate::files;
use crate::progress;
use crate::project::Project;

/// Rules, of which the last one applies.
const RULES: usize = 50;
/// Models among which the last rule chooses.
const CANDIDATES: usize = 20;
/// Decisions.
const TIMES: &str = "100000";
/// What the user said last: about 500 letters.
const WORDS: &str = "Please look at the attached numbers of the last quarter and tell me what stands out. ";

/// Measures, and writes the section.
pub fn measure(project: &Project, options: &Options, page: &mut String) -> Result<()> {
    #[derive(Deserialize)]
    struct Explained {
        microseconds: [f64; 2],
    }
    progress::headline("The choice of a model");
    let folder = project.target.join("bench/route");
    std::fs::create_dir_all(&folder)?;
    let file = |name: &str, text: String| -> Result<_> {
        let file = folder.join(name);
        files::write_if_changed(&file, text.as_bytes())?;
        Ok(file)
    };
    let config = file("pajamas.toml", configuration(project))?;
    let ask = json!({ "task": "chat", "tokens": 150, "answer": 200, "text": WORDS.repeat(6) });
    let (ask, snapshot) =
        (file("ask.json", ask.to_string())?, file("snapshot.json", snapshot().to_string())?);
    let mut best = [f64::INFINITY; 2];
    for _ in 0..options.rounds.max(1) {
        let mut command = project.pajamas();
        command.arg("--config").arg(&config).args(["route", "explain", "--json", "--repeat", TIMES]);
        let explained: Explained = run(command.arg("--request").arg(&ask).arg("--snapshot").arg(&snapshot))?;
        for (best, measured) in best.iter_mut().zip(explained.microseconds) {
            *best = best.min(measured);
        }
    }
    let [p50, p99] = best;
    writeln!(
        page,
        "\n## The choice of a model\n\n| | measured | aim |\n|---|---|---|\n\
         | a decision, half of them | {p50:.1} us | |\n| a decision, 99 of 100 | {p99:.1} us | 20 us |\n\n\
         {RULES} rules, half of which look for words in a text of {} letters, {CANDIDATES} models in a ladder of {} steps, all of \
         them with observations; the whole decision is explained each time.",
        WORDS.len() * 6,
        CANDIDATES / 4,
    )?;
    // What a decision waits for, and what carries it out.
    let (intent, fleet) = (example(project, "intent", &[])?, example(project, "fleet", &[])?);
    writeln!(
        page,
        "\nThe classifier of `intent`, for texts of several lengths (aim: 2 ms):\n\n```text\n{}\n```\n\n\
         One event of the state machine of models, a thousand requests in flight (aim: 50 us):\n\n```text\n{}\n```",
        intent.trim_end(),
        fleet.trim_end(),
    )?;
    Ok(())
}

fn configuration(project: &Project) -> String {
    let model = project.root.join("models/chat/model.gguf").display().to_string();
    let mut text = String::from(
        "schema = 1\n[routing]\nlatency_budget = \"1s\"\nvram_headroom = \"1GiB\"\naffinity = \"session\"\n",
    );
    for number in 0..RULES - 1 {
        let when = match number % 4 {
            0 => format!("keywords = [\"word{number}\", \"two words {number}\", \"numb\"]"),
            1 => format!("regex = '(?i)\\bselect{number}\\b.+from'"),
            2 => format!("min_tokens = {}", 1000 + number),
            _ => format!("header = {{ x-team = \"team{number}\" }}, hours = \"22:00-06:00\""),
        };
        let _ = write!(text, "[[routes]]\nid = \"rule{number}\"\nuse = \"model0\"\nwhen = {{ {when} }}\n");
    }
    let _ =
        write!(text, "[[routes]]\nid = \"last\"\nuse = \"ladder\"\n[[ladders]]\nid = \"ladder\"\nsteps = [");
    for step in 0..CANDIDATES / 4 {
        let models: Vec<String> = (0..4).map(|n| format!("\"model{}\"", step * 4 + n)).collect();
        let _ = write!(text, "[{}], ", models.join(", "));
    }
    text += "]\n";
    for number in 0..CANDIDATES {
        let _ = write!(text, "[[models]]\nid = \"model{number}\"\npath = {model:?}\ntask = \"chat\"\n");
    }
    text
}

/// Models with observations, of which only those of the last step keep the policies.
fn snapshot() -> Value {
    let average = |mean: usize| json!({ "mean": mean, "spread": mean / 10, "count": 50 });
    let models = (0..CANDIDATES).map(|number| {
        let slow = CANDIDATES - number;
        let model = json!({
            "task": "chat",
            "state": if number % 3 == 0 { "ready" } else { "unloaded" },
            "source": format!("{number:016x}"),
            "format": "gguf",
            "device": "cuda:0",
            "memory": (slow as u64) << 28,
            "inside": number % 5,
            "slots": 4,
            "observed": {
                "load": average(slow * 50_000),
                "service": average(slow * 100_000),
                "first_token": { "64": average(slow * 1_000), "256": average(slow * 4_000), "1024": average(slow * 9_000) },
                "between_tokens": average(slow * 500),
                "answer": average(150),
            },
        });
        (format!("model{number}"), model)
    });
    json!({
        "models": models.collect::<serde_json::Map<_, _>>(),
        "devices": { "cuda:0": { "budget": 8_u64 << 30, "held": 4_u64 << 30, "idle": 2_u64 << 30, "temperature": 61 } },
        "affinity": { "session": "model18" },
    })
}
