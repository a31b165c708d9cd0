//! `pajamas pull`: a model of a hub, as far as a conversion reads it.

use clap::Args;

use super::convert::mb;
use super::session::cancel_on_interrupt;
use super::source::watched;
use super::{Global, output};
use crate::error::{Error, Result};
use crate::hub::{Pulled, Repository, Settings, pull};

#[derive(Debug, Args)]
pub struct Pull {
    /// `org/name`, `org/name@revision`, or one file of a repository of GGUF files: `org/name:Q4_K_M`,
    /// `org/name:file.gguf@revision`
    #[arg(value_name = "ID")]
    repository: String,
}

impl Pull {
    pub fn run(self, global: &Global) -> Result<()> {
        let Some(repository) = Repository::read(&self.repository)? else {
            let message = format!("`{}` is no id of a repository", self.repository.escape_debug());
            return Err(Error::new("repository-invalid", message)
                .help("write org/name or org/name@revision; hf:name for one that belongs to nobody"));
        };
        let (settings, cancel) = (Settings::from_process()?, cancel_on_interrupt());
        let pulled = watched(global, |progress| pull(&repository, &settings, progress, &cancel))?;
        match global.json {
            true => output::json_line(&pulled),
            false => show(&pulled),
        }
    }
}

/// The folder alone on standard output, for scripts; the rest beside it.
fn show(pulled: &Pulled) -> Result<()> {
    let bytes = pulled.files.iter().map(|file| file.bytes).sum();
    let came = match pulled.downloaded {
        0 => "all of it was there already".to_owned(),
        came => format!("{:.1} MB downloaded", mb(came)),
    };
    output::aside(&format!(
        "{} at {}: {} files, {:.1} MB, {came}\n",
        pulled.repository,
        pulled.commit,
        pulled.files.len(),
        mb(bytes)
    ));
    output::line(&pulled.path.display().to_string())
}
