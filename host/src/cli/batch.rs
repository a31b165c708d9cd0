//! `pajamas batch`: artifacts of many models, one after the other.

use std::path::PathBuf;

use clap::Args;

use super::convert;
use super::session::cancel_on_interrupt;
use super::watcher::Watcher;
use super::{Global, output, source};
use crate::error::{Error, Result};
use crate::plugins::Plugins;
use crate::quantize::batch::{self, Batch, Ended};

#[derive(Debug, Args)]
pub struct Run {
    /// A file with `[[models]]`: `model`, `precision`, `output`, and if wanted `formats` and `options`, as for `convert`
    file: PathBuf,
}

impl Run {
    pub fn run(self, global: &Global) -> Result<()> {
        let batch = Batch::read(&self.file)?;
        let plugins = Plugins::load(&global.config()?.plugins);
        let cancel = cancel_on_interrupt();
        let mut watcher = Watcher::new(global.json);
        let all = batch.run(
            &plugins,
            &mut watcher.of_forms(),
            &cancel,
            &mut |model| source::find(global, model, &cancel),
            &mut |ended| {
                if global.json { output::json_line(ended) } else { Ok(()) }
            },
        );
        watcher.clear();
        let all = all?;
        if !global.json {
            all.iter().try_for_each(show)?;
        }
        batch::failure(&all).map_or(Ok(()), Err::<(), Error>)
    }
}

/// What became of a model: a line for each form, or why there is none.
fn show(ended: &Ended) -> Result<()> {
    output::line(&format!("{} -> {}", ended.model.display(), ended.output.display()))?;
    if let Some(refused) = &ended.refused {
        output::line(&format!("  refused [{}]: {}", refused.code, refused.message))?;
        return match refused.help.as_str() {
            "" => Ok(()),
            help => output::line(&format!("  help: {help}")),
        };
    }
    ended
        .made
        .iter()
        .try_for_each(|made| output::line(&format!("  {}", convert::summary(&ended.output, made))))
}
