//! Calibrating: a model computes texts, and what its matrices are multiplied by says which of their columns matter.
//!
//! The text is cut into pieces of equal length, as llama-imatrix cuts it (tools/imatrix/imatrix.cpp,
//! `compute_imatrix`), and computed piece by piece. What is collected is safe on the disk every few pieces, so that a run
//! that was stopped goes on.

mod balance;
mod checkpoint;
mod extension;
mod model;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pajamas_llama_cpp::{Token, Weights};
use pajamas_plugin_api::{Cancel, HostContext, PluginError, Result, codes};
use serde::Serialize;

use crate::error::{self, codes as own};
use crate::hash;
use crate::imatrix::{Collector, FEW_HITS, Identity, Matrix};
use checkpoint::State;
use model::{Engine, File};

pub use balance::Coverage;
pub use extension::{Calibrate, NAME};
pub use text::{Part, Text, documents, domains, held_out};

/// The fewest tokens of a text: fewer say nothing about columns.
pub const FEWEST_TOKENS: usize = 4096;
/// Tokens of a piece, as upstream's default.
const CHUNK: u32 = 512;
/// The shortest piece: products of fewer rows are not collected.
const SHORTEST_CHUNK: u32 = 16;
/// Pieces after which what was collected is written down.
const CHECKPOINT_EVERY: usize = 10;

/// What is to be calibrated, and how.
#[derive(Debug, Clone, Default)]
pub struct Calibration {
    /// A GGUF file, or a Hugging Face folder.
    pub source: PathBuf,
    /// Text files, as they are.
    pub texts: Vec<PathBuf>,
    /// Domains by name, their part to train with.
    pub domains: Vec<String>,
    /// Whether the last fifth of the files is left for judging.
    pub hold_out: bool,
    /// The file to write.
    pub output: PathBuf,
    /// The most pieces of text; all without.
    pub chunks: Option<usize>,
    /// Tokens of a piece; 512 or the model's context without.
    pub chunk_size: Option<u32>,
    /// Threads; one for each processor without.
    pub threads: Option<u32>,
    /// Whether to go on where a run was stopped.
    pub resume: bool,
    /// Whether text is computed again to reach experts that it hardly reached.
    pub balance: bool,
    /// llama.cpp's name for how the tokenizer splits text, where it cannot be found out.
    pub pre: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The file.
    pub output: PathBuf,
    /// Whether it was there already, of the same model and text.
    pub skipped: bool,
    /// Its size.
    pub bytes: u64,
    /// The text.
    pub calibration: Identity,
    /// Pieces of text.
    pub chunks: usize,
    /// Tokens of a piece.
    pub chunk_size: u32,
    /// Pieces that an earlier run had computed.
    pub resumed: usize,
    /// Tensors that something was collected of.
    pub tensors: usize,
    /// Of models with experts, how well they are known.
    pub experts: Option<Balanced>,
    /// How long it took.
    pub seconds: f64,
}

/// How well experts are known, before and after some were given more text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balanced {
    /// With the text as it is.
    pub before: Coverage,
    /// With the pieces that were computed again.
    pub after: Coverage,
    /// How many pieces these were.
    pub extra_chunks: usize,
}

/// What is told how far it is (0 to 1), and a few words; its error stops the work.
pub type Progress<'p> = dyn FnMut(f32, &str) -> Result<()> + 'p;

impl Calibration {
    /// Calibrates. A run that is stopped leaves what it collected beside the output, as `OUTPUT.checkpoint`.
    ///
    /// # Errors
    /// `calibration-too-short` with the count; `domain-not-found`, `model-not-found`, `model-invalid`, `unsupported`,
    /// `checkpoint-mismatch`, `importance-not-finite`, `invalid-option`, `write-failed`, `cancelled`.
    pub fn run(&self, host: &HostContext, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<Report> {
        let folder = self.output.parent().filter(|folder| !folder.as_os_str().is_empty());
        let made = folder.filter(|folder| !folder.exists());
        if let Some(folder) = made {
            fs::create_dir_all(folder).map_err(|e| error::unwritable(folder, &e))?;
        }
        let report = self.collect(host, progress, cancel);
        if report.is_err() {
            // Folders that nothing came into go again; those that hold something stay.
            made.into_iter().flat_map(Path::ancestors).take(2).for_each(|folder| _ = fs::remove_dir(folder));
        }
        report
    }

    fn collect(&self, host: &HostContext, progress: &mut Progress<'_>, cancel: &Cancel) -> Result<Report> {
        let started = Instant::now();
        let text = match self.hold_out {
            true => Text::part(&self.texts, &self.domains, Part::Train)?,
            false => Text::gather(&self.texts, &self.domains)?,
        };
        let library = model::library(host)?;
        let scratch = self.scratch()?;
        // The text is counted before a weight is read.
        let (tokens, size) = {
            let file = File::of_vocabulary(&self.source, self.pre.as_deref(), &scratch)?;
            let header = file.header()?;
            let size = self.chunk_size(header.family_u64("context_length"))?;
            (self.tokens(&file, library, &text, cancel)?, size)
        };
        let chunks = (tokens.len() / size as usize).min(self.chunks.unwrap_or(usize::MAX)).max(1);
        let key = self.key(&text, size, chunks)?;
        let identity = Identity {
            name: text.name.clone(),
            sha256: text.sha256.clone(),
            tokens: (chunks * size as usize) as u64,
        };
        let report = |matrix: &Matrix, bytes, resumed, experts| Report {
            output: self.output.clone(),
            skipped: false,
            bytes,
            calibration: identity.clone(),
            chunks,
            chunk_size: size,
            resumed,
            tensors: matrix.entries.len(),
            experts,
            seconds: started.elapsed().as_secs_f64(),
        };
        if let Some((matrix, bytes)) = checkpoint::finished(&self.output, &key) {
            return Ok(Report { skipped: true, ..report(&matrix, bytes, 0, None) });
        }
        let resumed = if self.resume { checkpoint::read(&self.output, &key)? } else { None };
        let (matrix, state) = resumed.unwrap_or_else(|| {
            let matrix = Matrix {
                datasets: vec![text.name.clone()],
                chunk_size: u64::from(size),
                ..Matrix::default()
            };
            (matrix, State { key, ..State::default() })
        });
        let resumed = state.done;

        let file =
            File::of_model(&self.source, self.pre.as_deref(), &scratch, cancel, &mut |name, done, all| {
                progress(0.0, &format!("converting {name}, {} %", done * 100 / all.max(1)))
            })?;
        file.header()?;
        let threads = self.threads.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
        });
        let loaded = file.load(library, Weights::Mapped, cancel)?;
        let mut run = Run {
            engine: Engine::new(loaded, size, threads.max(1))?,
            collector: Collector::new(matrix),
            state,
            tokens: &tokens,
            size: size as usize,
            output: &self.output,
            cancel,
        };
        run.pieces(chunks, progress)?;
        let experts = run.experts(chunks, self.balance, progress)?;
        let mut matrix = run.collector.matrix;
        matrix.calibration = Some(identity.clone());
        let bytes = checkpoint::finish(&self.output, &matrix, &run.state.key)?;
        Ok(report(&matrix, bytes, resumed, experts))
    }

    /// Where a folder is converted to: beside the output, where there is room for what comes out.
    fn scratch(&self) -> Result<PathBuf> {
        let Some(name) = self.output.file_name() else {
            let what = format!("{} names no file", self.output.display());
            return Err(PluginError::new(codes::INVALID_OPTION, what).help("name the file to write"));
        };
        let mut scratch = std::ffi::OsString::from(".");
        scratch.push(name);
        scratch.push(".model");
        Ok(self.output.with_file_name(scratch))
    }

    fn chunk_size(&self, context: Option<u64>) -> Result<u32> {
        let context = context.and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
        let size = self.chunk_size.unwrap_or(CHUNK.min(context));
        match (SHORTEST_CHUNK..=context.max(SHORTEST_CHUNK)).contains(&size) {
            true => Ok(size),
            false => {
                let what = format!("pieces of {size} tokens: from {SHORTEST_CHUNK} to the model's {context}");
                Err(PluginError::new(codes::INVALID_OPTION, what).help("leave `chunk_size` out"))
            }
        }
    }

    /// The text in the model's tokens.
    fn tokens(
        &self,
        file: &File,
        library: &pajamas_llama_cpp::Library,
        text: &Text,
        cancel: &Cancel,
    ) -> Result<Vec<Token>> {
        let vocabulary = file.load(library, Weights::VocabularyOnly, cancel)?;
        let tokens = vocabulary.tokenize(&text.text, true, false).map_err(model::translated)?;
        if tokens.len() < FEWEST_TOKENS {
            let what = format!(
                "the text `{}` has {} of the model's tokens; at least {FEWEST_TOKENS} are needed",
                text.name,
                tokens.len()
            );
            return Err(PluginError::new(own::CALIBRATION_TOO_SHORT, what)
                .help("give a longer text, several, or a domain"));
        }
        Ok(tokens)
    }

    /// What tells this calibration from others.
    fn key(&self, text: &Text, size: u32, chunks: usize) -> Result<String> {
        let model = model::fingerprint(&self.source)?;
        Ok(hash::of(&[format!("1 {model} {} {size} {chunks} {}", text.sha256, self.balance).as_bytes()]))
    }
}

/// A calibration at work.
struct Run<'a> {
    engine: Engine,
    collector: Collector,
    state: State,
    tokens: &'a [Token],
    size: usize,
    output: &'a Path,
    cancel: &'a Cancel,
}

impl Run<'_> {
    /// The text as it is, from where an earlier run was stopped.
    fn pieces(&mut self, chunks: usize, progress: &mut Progress<'_>) -> Result<()> {
        let mut safe = self.state.done;
        while self.state.done < chunks {
            let done = self.state.done;
            let computed = progress(done as f32 / chunks as f32, &format!("piece {} of {chunks}", done + 1))
                .and_then(|()| self.piece(done * self.size));
            if let Err(error) = computed {
                // What was collected up to the piece before is good, whatever stopped this one.
                if done > safe {
                    checkpoint::write(self.output, &self.collector.matrix, &self.state)?;
                }
                let stopped = error.code == codes::CANCELLED && done > 0;
                return Err(if stopped { error.help("`--resume` goes on from here") } else { error });
            }
            self.state.done += 1;
            self.collector.matrix.chunks = self.state.done as u64;
            if self.state.done - safe >= CHECKPOINT_EVERY && self.state.done < chunks {
                checkpoint::write(self.output, &self.collector.matrix, &self.state)?;
                safe = self.state.done;
            }
        }
        Ok(())
    }

    /// One piece of the text. What it would have brought is taken back when it fails half-way.
    fn piece(&mut self, start: usize) -> Result<()> {
        let Some(tokens) = self.tokens.get(start..start + self.size) else {
            return Err(PluginError::new(codes::INTERNAL, "a piece of text beyond its end"));
        };
        let before = self.collector.matrix.clone();
        let computed = self.engine.compute(tokens, self.cancel, &mut self.collector);
        let computed = computed.and_then(|()| self.collector.check());
        match computed {
            Ok(()) if self.collector.only.is_none() => {
                let after = self.collector.matrix.expert_counts();
                self.state.ledger.enter(&before.expert_counts(), &after);
            }
            Ok(()) => {}
            Err(_) => self.collector.matrix = before,
        }
        computed
    }

    /// More text for the experts that few tokens reached: at most as many pieces as there were.
    fn experts(
        &mut self,
        chunks: usize,
        balance: bool,
        progress: &mut Progress<'_>,
    ) -> Result<Option<Balanced>> {
        let Some(before) = Coverage::of(&self.collector.matrix) else { return Ok(None) };
        self.collector.matrix.expert_use = self.collector.matrix.expert_counts();
        let mut windows = match balance {
            true => self.state.ledger.windows(self.size, self.tokens.len()),
            false => Vec::new(),
        };
        let mut extra = 0;
        if before.few > 0 && balance {
            // Not lost when this is stopped.
            checkpoint::write(self.output, &self.collector.matrix, &self.state)?;
        }
        while extra < chunks {
            let short = self.collector.matrix.experts_below(FEW_HITS).into_iter().collect();
            let Some(window) = balance::take_best(&mut windows, &short) else { break };
            let words = format!("{} experts with fewer than {FEW_HITS} tokens", short.len());
            progress(extra as f32 / chunks as f32, &words)?;
            self.collector.only = Some(short);
            self.piece(window.start)?;
            extra += 1;
        }
        self.collector.only = None;
        let after = Coverage::of(&self.collector.matrix).unwrap_or_default();
        Ok(Some(Balanced { before, after, extra_chunks: extra }))
    }
}
