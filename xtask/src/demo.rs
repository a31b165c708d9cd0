//! `cargo xtask demo`: from a fresh clone to a chat and a detection.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use console::style;

use crate::project::Project;
use crate::{deps, product, progress, stages};

const QUESTION: &str = "What is a llama?";
const PICTURE: &str = "models/sample.png";
/// What an application sends to `pajamas serve`.
const REQUESTS: &str = r#"  curl -N http://127.0.0.1:8797/v1/chat/completions -H 'content-type: application/json' \
    -d '{"model":"chat","stream":true,"messages":[{"role":"user","content":"What is a llama?"}]}'
  curl http://127.0.0.1:8797/v1/images/detect -F model=shapes -F image=@models/sample.png
"#;

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
    show(project, "This machine", &["hardware"])?;
    show(project, "The plugins, and why each is chosen", &["plugins", "list"])?;
    show(project, "A chat", &["chat", "--model", "chat", "--temperature", "0", QUESTION])?;
    show(project, "Things in a picture", &["detect", "--model", "shapes", PICTURE, "--draw", &drawn])?;
    println!("\nThe boxes are drawn into {}.", style(&drawn).bold());

    let program = project.show(&project.program());
    println!("\n{}\n", style("To serve both over HTTP").bold());
    println!("  {program} serve\n\nand from another terminal\n\n{REQUESTS}");
    Ok(())
}

/// Runs one command of the program in front of the reader.
fn show(project: &Project, title: &str, arguments: &[&str]) -> Result<()> {
    let program = project.program();
    println!("\n{}", style(title).bold());
    println!("{}\n", style(format!("$ {} {}", project.show(&program), words(arguments))).dim());
    let mut command: Command = project.pajamas();
    let status = command
        .args(arguments)
        .status()
        .with_context(|| format!("{} could not be started", program.display()))?;
    if !status.success() {
        bail!("`{} {}` ended with {status}", project.show(&program), words(arguments));
    }
    Ok(())
}

/// Arguments as a person types them.
fn words(arguments: &[&str]) -> String {
    let quoted = arguments
        .iter()
        .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_spaces_are_quoted() {
        assert_eq!(words(&["chat", QUESTION]), "chat \"What is a llama?\"");
    }
}
