//! `pajamas hardware`: what this machine is, and what to load a model with on it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Global, output};
use crate::error::Result;
use crate::hardware;
use crate::host::recommended;

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
                let found = hardware::Hardware::detect();
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
