//! `pajamas worker`: what a host starts for a model that is isolated. Not for people.

use std::process::ExitCode;

use clap::Args;

use crate::plugins::worker;

#[derive(Debug, Args)]
pub struct Worker {
    /// The process that started it
    #[arg(long)]
    host: u32,
}

impl Worker {
    pub fn run(self) -> ExitCode {
        worker::serve(self.host)
    }
}
