//! `pajamas hardware`: what this machine is.

use clap::Args;

use super::{Global, output};
use crate::error::Result;
use crate::hardware;

#[derive(Debug, Args)]
pub struct Hardware {}

impl Hardware {
    pub fn run(self, global: &Global) -> Result<()> {
        let found = hardware::Hardware::detect();
        if global.json { output::json_line(&found) } else { output::line(found.to_string().trim_end()) }
    }
}
