//! Templates of conversations, as their models bring them, against Jinja itself.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use pajamas_journeys::fixtures::{repository, target};
use pajamas_journeys::product::{House, Server, asset, model_entry};
use serde_json::{Value, json};

/// The templates at hand, by name: the chat model's own, and those of the assets.
fn templates() -> BTreeMap<String, String> {
    let files = ["phi-3/tokenizer_config.json", "qwen3/chat_template.jinja"]
        .into_iter()
        .chain([
            "chat_templates/gemma-3-chat_chat_template.json",
            "chat_templates/gpt-oss_chat_template.jinja",
        ])
        .chain(["chat_templates/qwen3_tokenizer_config.json"])
        .filter_map(|file| asset(&format!("tokenizers/{file}")));
    let own = repository().join("models/chat/hf/tokenizer_config.json");
    let named = files.chain([own]).enumerate().map(|(index, file)| {
        let text = fs::read_to_string(&file).unwrap();
        let template = match file.extension().is_some_and(|kind| kind == "json") {
            true => {
                serde_json::from_str::<Value>(&text).unwrap()["chat_template"].as_str().unwrap().to_owned()
            }
            false => text,
        };
        (format!("t{index}"), template)
    });
    named.collect()
}

/// Conversations as clients send them.
fn cases() -> Value {
    let weather = json!({ "type": "function", "function": {
        "name": "weather", "description": "The weather of a city",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    } });
    let system = json!({ "role": "system", "content": "Be kind." });
    let user = |text: &str| json!({ "role": "user", "content": text });
    let call = json!({ "role": "assistant", "content": "", "tool_calls": [
        { "id": "call00001", "type": "function", "function": { "name": "weather", "arguments": { "city": "Köln" } } },
    ] });
    let told = json!({ "role": "tool", "content": "{\"sky\": \"blue\"}", "tool_call_id": "call00001" });
    let hello = json!({ "role": "assistant", "content": "Hello <you> & \"all\"." });
    json!({
        "one": { "messages": [user("Hi")] },
        "turns": { "messages": [system, user("Hi"), hello, user("  Bye\n")] },
        "tools": { "messages": [system, user("Weather?")], "tools": [weather] },
        "called": { "messages": [system, user("Weather?"), call, told], "tools": [weather] },
        "without thinking": { "messages": [user("Hi")], "enable_thinking": false, "reasoning_effort": "low" },
        "two users": { "messages": [user("Hi"), user("Ho")] },
    })
}

/// What Jinja makes of them; `None` without the Python that `cargo xtask peers` prepares.
fn jinja(templates: &BTreeMap<String, String>, bos: &str, eos: &str) -> Option<Value> {
    let python = target().unwrap().with_file_name("peers").join("bin/python");
    let there = Command::new(&python).args(["-c", "import jinja2"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: Jinja is not there; `cargo xtask peers` installs it");
        return None;
    }
    let mut cases = cases();
    for case in cases.as_object_mut().unwrap().values_mut() {
        let case = case.as_object_mut().unwrap();
        case.insert("bos_token".into(), json!(bos));
        case.insert("eos_token".into(), json!(eos));
        case.insert("add_generation_prompt".into(), json!(true));
        case.insert("documents".into(), Value::Null);
        case.entry("tools").or_insert(Value::Null);
    }
    let mut child = Command::new(python)
        .arg(repository().join("tests/peers/templates.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({ "templates": templates, "cases": cases });
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn conversations_are_rendered_as_jinja_renders_them() {
    let templates = templates();
    let Some(wanted) = jinja(&templates, "<|endoftext|>", "<|im_end|>") else { return };
    let model = repository().join("models/chat/model.gguf");
    let entry = |name: &String| {
        model_entry(
            name,
            &model,
            &format!("task = \"chat\"\nchat_template = \"{name}.jinja\"\noptions = {{ threads = 1 }}"),
        )
    };
    let house = House::new("").unwrap();
    for (name, template) in &templates {
        fs::write(house.folder().join(format!("{name}.jinja")), template).unwrap();
    }
    house.write(&templates.keys().map(entry).collect::<String>()).unwrap();
    let server = Server::start(house).unwrap();
    let mut compared = 0;
    for (name, template) in &templates {
        for (case, variables) in cases().as_object().unwrap() {
            // A template that knows no functions would leave them out: there the host writes them itself.
            if variables["tools"].is_array() && !template.contains("tools") {
                continue;
            }
            let mut body = variables.clone();
            body["model"] = json!(name);
            for message in body["messages"].as_array_mut().unwrap() {
                // Over HTTP arguments are text; templates get the object.
                if let Some(arguments) = message.pointer_mut("/tool_calls/0/function/arguments") {
                    *arguments = json!(arguments.to_string());
                }
            }
            body["chat_template_kwargs"] = json!({});
            for variable in ["enable_thinking", "reasoning_effort"] {
                if let Some(value) = body.as_object_mut().unwrap().remove(variable) {
                    body["chat_template_kwargs"][variable] = value;
                }
            }
            let answer = server.post_json("/apply-template", &body).unwrap();
            let ours = match answer.status {
                200 => answer.json().unwrap()["prompt"].clone(),
                _ => {
                    let (status, error) = answer.refusal().unwrap();
                    assert_eq!(
                        (status, &error["code"]),
                        (400, &json!("chat-template-failed")),
                        "{name}, {case}"
                    );
                    Value::Null
                }
            };
            assert_eq!(ours, wanted[name][case], "{name}, {case}");
            compared += usize::from(!ours.is_null());
        }
    }
    assert!(compared >= 6, "{compared} prompts were compared");
}
