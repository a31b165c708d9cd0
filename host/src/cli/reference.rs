//! Reference documentation in Markdown, generated from the code so that it cannot drift from it.

use std::fmt::Write;

use clap::{Command, CommandFactory, Subcommand};

use super::{Cli, output};
use crate::codes::CODES;
use crate::config::Config;
use crate::error::{Class, Result};

#[derive(Debug, Subcommand)]
pub enum Reference {
    /// Every command and option
    Cli,
    /// Every key of pajamas.toml
    Config,
    /// Every error code
    Errors,
    /// Every built-in stage
    Stages,
    /// Every route of the server
    Routes,
}

impl Reference {
    pub fn run(self) -> Result<()> {
        let mut text = String::new();
        match self {
            Self::Cli => {
                text.push_str("# Commands\n");
                command(&mut text, &mut Cli::command(), "");
            }
            Self::Config => config(&mut text),
            Self::Errors => errors(&mut text),
            Self::Stages => stages(&mut text)?,
            Self::Routes => routes(&mut text),
        }
        output::piece(&text)
    }
}

fn command(text: &mut String, command_: &mut Command, prefix: &str) {
    let name = format!("{prefix}{}", command_.get_name());
    let help = command_.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    let prefix = format!("{name} ");
    for sub in command_.get_subcommands_mut().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        command(text, sub, &prefix);
    }
}

fn errors(text: &mut String) {
    text.push_str(
        "# Error codes\n\nThe same code appears on the command line, over HTTP and in the log.\n\n",
    );
    text.push_str("| code | exit | HTTP | meaning |\n|---|---|---|---|\n");
    let mut codes = CODES.to_vec();
    codes.sort_by_key(|(code, _, _)| *code);
    for (code, class, meaning) in codes {
        let _ = writeln!(
            text,
            "| `{code}` | {} | {} | {meaning} |",
            output::exit_status(class),
            crate::server::http_status(class).as_u16()
        );
    }
    let _ = writeln!(
        text,
        "\nA plugin or stage may add codes of its own; they exit with {} and answer with {}.",
        output::exit_status(Class::Internal),
        crate::server::http_status(Class::Internal).as_u16()
    );
}

fn routes(text: &mut String) {
    text.push_str(
        "# Routes\n\nA server has them as an OpenAPI 3.1 document at `/openapi.json`, with the fields of requests and \
         answers. A key needs the scope; what has none is open to everybody.\n",
    );
    for (family, routes) in crate::server::table() {
        let _ = write!(text, "\n## {family}\n\n| route | what it does | scope |\n|---|---|---|\n");
        for route in routes {
            let method = route.method.to_uppercase();
            let scope = route.scope().map_or("-", crate::config::Scope::name);
            let _ = writeln!(text, "| `{method} {}` | {} | {scope} |", route.path, route.summary);
        }
    }
}

fn config(text: &mut String) {
    text.push_str("# pajamas.toml\n\nEvery key, from the schema that `pajamas config schema` prints.\n");
    let schema = Config::json_schema();
    object(text, &schema, &schema, "");
}

fn object(text: &mut String, root: &serde_json::Value, schema: &serde_json::Value, title: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    if !title.is_empty() {
        let _ = write!(text, "\n## {title}\n");
    }
    if let Some(doc) = schema["description"].as_str().filter(|_| !title.is_empty()) {
        let _ = write!(text, "\n{doc}\n");
    }
    let mut below = Vec::new();
    text.push_str("\n| key | default | meaning |\n|---|---|---|\n");
    for (key, property) in properties {
        let default = match &property["default"] {
            serde_json::Value::Null | serde_json::Value::Object(_) => String::new(),
            value => format!("`{value}`"),
        };
        let doc = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = writeln!(text, "| `{key}` | {default} | {} |", doc.replace('|', "\\|"));
        let target = ["$ref", "/items/$ref"].iter().find_map(|pointer| match *pointer {
            "$ref" => property["$ref"].as_str().map(|r| (format!("[{key}]"), r)),
            _ => property["items"]["$ref"].as_str().map(|r| (format!("[[{key}]]"), r)),
        });
        if let Some((name, reference)) = target.filter(|_| title.is_empty()) {
            below.push((name, reference.to_owned()));
        }
    }
    for (name, reference) in below {
        if let Some(found) = root.pointer(reference.trim_start_matches('#')) {
            object(text, root, found, &format!("`{name}`"));
        }
    }
}

fn stages(text: &mut String) -> Result<()> {
    text.push_str("# Built-in stages\n");
    let stages = crate::stages::Stages::new(&crate::config::Stages::default())?;
    for name in stages.names() {
        let stage = stages.get(&name)?;
        let d = stage.describe();
        let _ = write!(
            text,
            "\n## `{}` {}\n\n{}\n\n| port | kind | |\n|---|---|---|\n",
            d.name, d.version, d.doc
        );
        for (direction, ports) in [("in", &d.inputs), ("out", &d.outputs)] {
            for port in ports {
                let optional = if port.optional { ", optional" } else { "" };
                let _ = writeln!(
                    text,
                    "| {direction} `{}` | {}{optional} | {} |",
                    port.name, port.kind, port.doc
                );
            }
        }
        let options = d.options_schema["properties"].as_object().cloned().unwrap_or_default();
        if !options.is_empty() {
            text.push_str("\n| option | default | meaning |\n|---|---|---|\n");
        }
        for (key, option) in options {
            let default = option.get("default").map(|v| format!("`{v}`")).unwrap_or_default();
            let _ = writeln!(
                text,
                "| `{key}` | {default} | {} |",
                option["description"].as_str().unwrap_or_default()
            );
        }
    }
    Ok(())
}
