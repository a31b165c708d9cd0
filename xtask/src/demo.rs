//! `cargo xtask demo`: from a fresh clone to a chat and a detection.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use console::style;
use serde::Deserialize;

use crate::project::Project;
use crate::{deps, product, progress, stages};

/// What is run, in this order: a list of its own, because a test runs it, too.
const COMMANDS: &str = include_str!("../demo.json");
/// What stands in [`COMMANDS`] for the picture that is drawn.
const BOXES: &str = "BOXES";
/// What an application sends to `pajamas serve`.
const REQUESTS: &str = r#"  curl -N http://127.0.0.1:8797/v1/chat/completions -H 'content-type: application/json' \
    -d '{"model":"chat","stream":true,"messages":[{"role":"user","content":"What is a llama?"}]}'
  curl http://127.0.0.1:8797/v1/images/detect -F model=shapes -F image=@models/sample.png
"#;

/// A command of the program.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// What it shows.
    title: String,
    /// How it is called.
    arguments: Vec<String>,
}

/// The demo's commands; they draw into `boxes`.
fn steps(boxes: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = serde_json::from_str(COMMANDS).context("xtask/demo.json")?;
    for argument in steps.iter_mut().flat_map(|step| &mut step.arguments).filter(|word| *word == BOXES) {
        *argument = boxes.to_owned();
    }
    Ok(steps)
}

/// Installs what is missing, builds, and runs the main jobs with the built program.
pub fn run(project: &Project) -> Result<()> {
    let begun = Instant::now();
    progress::headline("pajamas: building");
    deps::ensure(project)?;
    // The stages come first: the host carries them in itself.
    if stages::build(true).is_ok() {
        progress::done("Stages", "the built ones belong to the sources");
    } else {
        stages::build(false)?;
    }
    product::build(project)?;
    eprintln!("  ready after {}", progress::duration(begun.elapsed()));

    let drawn = project.target.join("demo").join("sample-boxes.png");
    if let Some(folder) = drawn.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let drawn = project.show(&drawn);
    for step in steps(&drawn)? {
        show(project, &step)?;
    }
    println!("\nThe boxes are drawn into {}.", style(&drawn).bold());

    let program = project.show(&project.program());
    println!("\n{}\n", style("To serve both over HTTP").bold());
    println!("  {program} serve\n\nand from another terminal\n\n{REQUESTS}");
    Ok(())
}

/// Runs one command of the program in front of the reader.
fn show(project: &Project, step: &Step) -> Result<()> {
    let program = project.program();
    let line = format!("{} {}", project.show(&program), words(&step.arguments));
    println!("\n{}", style(&step.title).bold());
    println!("{}\n", style(format!("$ {line}")).dim());
    let mut command: Command = project.pajamas();
    let status = command
        .args(&step.arguments)
        .status()
        .with_context(|| format!("{} could not be started", program.display()))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Arguments as a person types them.
fn words(arguments: &[String]) -> String {
    let quoted =
        arguments.iter().map(|word| if word.contains(' ') { format!("\"{word}\"") } else { word.clone() });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_spaces_are_quoted() {
        assert_eq!(words(&["chat".into(), "What is a llama?".into()]), "chat \"What is a llama?\"");
    }

    #[test]
    fn the_picture_is_drawn_where_it_is_wanted() {
        let steps = steps("target/boxes.png").unwrap();
        let words: Vec<_> = steps.iter().flat_map(|step| &step.arguments).map(String::as_str).collect();
        assert!(words.windows(2).any(|pair| pair == ["--draw", "target/boxes.png"]), "{words:?}");
        assert!(!words.contains(&BOXES));
    }
}
