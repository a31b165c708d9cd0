//! `pajamas hardware`: what this machine is, and what to load a model with on it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Global, output};
use crate::error::Result;
use crate::hardware;
use crate::host::recommended;
use crate::plugins::Plugins;

#[derive(Debug, Args)]
pub struct Hardware {
    #[command(subcommand)]
    question: Option<Question>,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// What to load a model with: device, layers, threads, context, cache; computed from the model and checked against memory
    Recommend(Recommend),
}

#[derive(Debug, Args)]
struct Recommend {
    /// A model of the configuration, a model file, or an artifact
    model: String,
    /// Another machine: what `pajamas hardware --json` printed there
    #[arg(long, value_name = "FILE")]
    machine: Option<PathBuf>,
}

impl Hardware {
    pub fn run(self, global: &Global) -> Result<()> {
        match self.question {
            None => {
                let mut found = hardware::Hardware::detect();
                ask(&mut found, global);
                if global.json {
                    output::json_line(&found)
                } else {
                    output::line(found.to_string().trim_end())
                }
            }
            Some(Question::Recommend(recommend)) => recommend.run(global),
        }
    }
}

/// Asks the backends what they can compute on. A machine is told also where the configuration, and with it where plugins lie, cannot be
/// read.
fn ask(machine: &mut hardware::Hardware, global: &Global) {
    let plugins = match global.config() {
        Ok(config) => Plugins::load(&config.plugins),
        Err(error) => {
            let first = error.message().lines().next().unwrap_or_default();
            machine.devices.why_none = Some(format!("no plugin was asked: {first} [{}]", error.code()));
            return;
        }
    };
    plugins.add_devices(machine);
}

impl Recommend {
    fn run(self, global: &Global) -> Result<()> {
        let found = recommended(&global.config()?, &self.model, self.machine.as_deref())?;
        if global.json {
            let mut json = serde_json::json!(found);
            json["options"] = found.options().into();
            json["entry"] = found.entry().into();
            return output::json_line(&json);
        }
        output::line(found.to_string().trim_end())
    }
}
