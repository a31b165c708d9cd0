//! `pajamas verify`: whether an artifact is what its manifest says.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;

use super::session::{LoadingBar, cancel_on_interrupt};
use super::{Global, output};
use crate::artifact::Artifact;
use crate::error::Result;

#[derive(Debug, Args)]
pub struct Verify {
    /// The artifact's folder
    artifact: PathBuf,
}

impl Verify {
    pub fn run(self, global: &Global) -> Result<()> {
        let artifact = Artifact::open(&self.artifact)?;
        let cancel = cancel_on_interrupt();
        let mut bar = LoadingBar::default();
        let verified = artifact.verify(
            &mut |fraction: f32, file: &str| {
                bar.show(fraction, file);
                ControlFlow::Continue(())
            },
            &cancel,
        );
        bar.clear();
        let verified = verified?;
        if global.json {
            return output::json_line(&verified);
        }
        let mb = verified.bytes as f64 / 1e6;
        output::line(&match verified.files {
            0 => "whole, but without hashes: made by a version that wrote none".to_owned(),
            files => format!("{files} files, {mb:.1} MB: as the manifest says"),
        })
    }
}
