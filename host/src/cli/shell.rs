//! `pajamas completions` and `pajamas man`: made by clap from the commands themselves.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};
use crate::error::{Error, Result};

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pajamas", &mut script);
        output::piece(&String::from_utf8_lossy(&script))
    }
}

#[derive(Debug, Args)]
pub struct Man {
    /// The folder to write the pages into
    folder: PathBuf,
}

impl Man {
    pub fn run(self) -> Result<()> {
        std::fs::create_dir_all(&self.folder).map_err(|e| Error::io(&self.folder, &e))?;
        clap_mangen::generate_to(Cli::command(), &self.folder).map_err(|e| Error::io(&self.folder, &e))
    }
}
