//! From a Hugging Face folder to a folder that mlx_lm runs: the same tensors and the same configuration as
//! `mlx_lm.convert` writes, on any system and without Python.
//!
//! What is written follows mlx-lm 0.32 on mlx 0.32. A conversion is planned first, without a look at the weights' values,
//! so that its exact size is known and what cannot be converted is refused before anything is written.

mod affine;
mod config;
mod drafts;
mod files;
mod folder;
mod layout;
mod numbers;
mod plan;
mod quantizer;
mod recipe;
mod sizes;
mod write;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use pajamas_plugin_api::{Cancel, OutputFile, Result};
use serde_json::{Value, json};

pub use affine::{Affine, BITS, GROUPS, Quantized};
pub(crate) use folder::Folder;
pub use numbers::Float;
pub use quantizer::MlxQuantizer;
pub use recipe::{PRECISIONS, Recipe};

use crate::architecture::{Architecture, Facts};
use crate::source::Source;
use drafts::Drafts;
use files::Files;
use layout::Layout;
use plan::Plan;

/// A conversion that was planned.
#[derive(Debug)]
pub struct MlxConversion<'a> {
    plan: Plan<'a>,
    recipe: Recipe,
    files: Files,
    facts: Facts,
    notes: Vec<String>,
}

impl<'a> MlxConversion<'a> {
    /// Plans a conversion.
    ///
    /// # Errors
    /// What the model lacks, or has too much of, each with a code of its own ([`crate::error::codes`]).
    pub fn plan(source: &'a Source, recipe: &Recipe) -> Result<Self> {
        let architecture = Architecture::detect(source)?;
        config::check(source, architecture)?;
        let layout = Layout::of(source, architecture)?;
        let sizes = layout.sizes().clone();
        let plan = Plan::of(layout, recipe, config::dtype(source))?;
        let described = config::describe(source, architecture, &sizes, recipe, &plan.tensors)?;
        let files = Files::of(source, &plan, described.config)?;
        let notes = [plan.notes.clone(), described.notes].concat();
        Ok(Self { plan, recipe: recipe.clone(), files, facts: Facts::of(source)?, notes })
    }

    /// What a person should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The files that it writes, with their exact sizes.
    pub fn files(&self) -> Vec<OutputFile> {
        let weights =
            self.plan.shards.iter().map(|s| OutputFile { path: s.name.clone().into(), bytes: s.bytes });
        weights.chain(self.files.listed()).collect()
    }

    /// The most memory that writing needs, in bytes, beside the source's own pages.
    pub fn peak_memory(&self) -> u64 {
        let headers: u64 = self.plan.shards.iter().map(|s| s.header.len() as u64).sum();
        headers + self.files.bytes_in_memory() + write::piece_bytes(&self.plan) * self.recipe.threads as u64
    }

    /// What was made of the model, for a manifest.
    pub fn metadata(&self) -> Value {
        let bits = self.plan.bytes as f64 * 8.0 / self.plan.parameters.max(1) as f64;
        let mut about = json!({
            "method": "none", "parameters": self.plan.parameters, "tensor_bytes": self.plan.bytes,
            "bits_per_weight": (bits * 1e4).round() / 1e4, "notes": self.notes,
            "model": serde_json::to_value(&self.facts).unwrap_or_default()
        });
        if let Some(bits) = self.recipe.bits {
            let quantized = self.plan.tensors.iter().filter(|t| t.affine().is_some()).count();
            about["method"] = "affine".into();
            about["bits"] = bits.into();
            about["group_size"] = self.recipe.group.into();
            about["embeddings_bits"] = self.recipe.embeddings_bits.into();
            about["output_bits"] = self.recipe.output_bits.into();
            about["quantized_tensors"] = quantized.into();
        }
        about
    }

    /// Writes the files into a folder: all of them whole, or none. `progress` is told of elements done, of all, and of the
    /// tensor that was worked on, and may ask to stop.
    ///
    /// # Errors
    /// `weight-not-finite`, `write-failed`, `cancelled`.
    pub fn write(
        &self,
        folder: &Path,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64, &str) -> ControlFlow<()>,
    ) -> Result<()> {
        self.write_on(folder, None, cancel, progress).map(drop)
    }

    /// As [`write`](Self::write), and goes on where a run of the same identity was killed. Returns how many tensors that one
    /// had made.
    pub(crate) fn write_on(
        &self,
        folder: &Path,
        identity: Option<&str>,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64, &str) -> ControlFlow<()>,
    ) -> Result<usize> {
        let total = self.plan.elements();
        files::refuse_strangers(folder, &self.plan.shards)?;
        let mut drafts = Drafts::new(folder)?;
        for shard in &self.plan.shards {
            drafts.begin(&shard.name, shard.bytes)?;
        }
        let noted: Option<BTreeSet<usize>> =
            drafts.noted(identity).and_then(|noted| serde_json::from_value(noted).ok());
        let there = noted.unwrap_or_default();
        for (number, shard) in self.plan.shards.iter().enumerate() {
            let written = drafts::write_at(drafts.file(number).0, &shard.header, 0);
            written.map_err(|e| crate::error::unwritable(&folder.join(&shard.name), &e))?;
        }
        let journal = identity.map(|identity| drafts.journal(identity)).transpose()?;
        let run = write::Run { drafts: &drafts, there: &there, journal: journal.as_ref(), cancel };
        write::tensors(&self.plan, &self.recipe, &run, &mut |done, tensor| progress(done, total, tensor))?;
        drop(journal);
        self.files.write(&mut drafts)?;
        cancel.check()?;
        drafts.keep()?;
        Ok(there.len())
    }
}
