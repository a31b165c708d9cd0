//! `pajamas config`: check the configuration, say where every value comes from, print its schema.

use clap::Subcommand;
use serde_json::json;

use super::{Global, output};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::host::Host;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration and report everything that is wrong with it
    Check,
    /// Every value in force, and who set it
    Explain,
    /// The JSON Schema of pajamas.toml, for editors
    Schema,
}

impl ConfigCommand {
    pub fn run(self, global: &Global) -> Result<()> {
        match self {
            Self::Check => check(global),
            Self::Explain => {
                let explanation = global.config()?.explain();
                if global.json {
                    explanation.0.iter().try_for_each(output::json_line)
                } else {
                    output::line(explanation.to_string().trim_end())
                }
            }
            Self::Schema => {
                let schema = serde_json::to_string_pretty(&Config::json_schema());
                output::line(&schema.map_err(|e| Error::new("internal", e.to_string()))?)
            }
        }
    }
}

fn check(global: &Global) -> Result<()> {
    let config = global.config()?;
    let stages = crate::stages::Stages::new(&config.stages)?;
    let names = stages.names();
    config.check_stages(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    if !config.routes.is_empty() || !config.ladders.is_empty() {
        // What their models do and need is known to those who load them.
        Host::start(config.clone())?.check_routes()?;
    }
    let file = config.file.as_ref().map(|f| f.display().to_string());
    if global.json {
        return output::json_line(&json!({
            "ok": true,
            "file": file,
            "models": config.models.len(),
            "pipelines": config.pipelines.len(),
        }));
    }
    let file = file.unwrap_or_else(|| "the built-in defaults (no pajamas.toml found)".into());
    output::line(&format!(
        "{file}: fine; {} model(s), {} pipeline(s)",
        config.models.len(),
        config.pipelines.len()
    ))
}
