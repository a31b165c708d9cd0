//! What a model makes of a text, written down once, so that many others can be compared with it without asking it again.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use pajamas_llama_cpp::{Library, Token, Windows};
use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

use super::compare::{Comparer, Comparison};
use super::model::{Loaded, refused};
use super::run::{as_text, scored, window};
use crate::error::{self, codes as own};

/// Bytes of logits that are written and read at a time.
const BUFFER: usize = 1 << 20;

/// Which pieces of a text are read.
pub(crate) struct Pieces<'a> {
    /// The text.
    pub text: &'a str,
    /// What people call it.
    pub name: &'a str,
    /// The most windows, spread over the text.
    pub most: usize,
}

/// Windows of a text, and the logits that a model computes of the second half of each.
pub(crate) struct Reference {
    windows: Vec<Vec<Token>>,
    logits: PathBuf,
    vocabulary: usize,
    step: usize,
    threads: u32,
}

impl Reference {
    /// Lets the model in the file `original` read pieces of a text, and keeps its logits in the file `logits`.
    ///
    /// # Errors
    /// `text-too-short` below two windows; those of loading the model; `write-failed`; `cancelled`.
    pub fn of(
        library: &Library,
        original: &Path,
        pieces: &Pieces<'_>,
        logits: PathBuf,
        threads: u32,
        cancel: &Cancel,
    ) -> Result<Self> {
        let loaded = Loaded::open(library, original, Path::new(""), "original", cancel)?;
        let model = &loaded.model;
        let length = window(None, model.context_train())? as usize;
        let tokens = model.tokenize(pieces.text, true, false).map_err(refused)?;
        let all: Vec<&[Token]> = tokens.chunks_exact(length).collect();
        if all.len() < 2 {
            let what = format!(
                "the part of `{}` that is read has {} tokens, and at least {} are needed",
                pieces.name,
                tokens.len(),
                2 * length
            );
            return Err(PluginError::new(own::TEXT_TOO_SHORT, what).help("give a longer text, or a domain"));
        }
        let bos = model.bos().filter(|_| model.adds_bos());
        let count = all.len().min(pieces.most.max(1));
        let windows: Vec<Vec<Token>> =
            (0..count).map(|number| as_text(all[number * all.len() / count], bos)).collect();
        let mut run = Windows::new(model.clone(), length as u32, threads).map_err(refused)?;
        let step = run.step();
        let unwritable = |e: io::Error| error::unwritable(&logits, &e);
        let mut file = BufWriter::with_capacity(BUFFER, File::create(&logits).map_err(unwritable)?);
        let abort = || cancel.is_cancelled();
        for tokens in &windows {
            run.begin();
            run.skip(&tokens[..length / 2], &abort).map_err(refused)?;
            for next in scored(length, step) {
                let rows = run.advance(&tokens[next], &abort).map_err(refused)?;
                rows.iter().try_for_each(|logit| file.write_all(&logit.to_le_bytes())).map_err(unwritable)?;
            }
        }
        file.flush().map_err(unwritable)?;
        drop(file);
        Ok(Self { windows, logits, vocabulary: model.vocab_size().max(1) as usize, step, threads })
    }

    /// Tokens that are read.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// How far the model in the file `candidate`, of the same vocabulary, is from this one.
    ///
    /// # Errors
    /// Those of loading it; `internal` when it is none of the same vocabulary; `cancelled`.
    pub fn compare(&self, library: &Library, candidate: &Path, cancel: &Cancel) -> Result<Comparison> {
        let loaded = Loaded::open(library, candidate, Path::new(""), "candidate", cancel)?;
        let length = self.windows.first().map_or(0, Vec::len);
        let mut run = Windows::new(loaded.model.clone(), length as u32, self.threads).map_err(refused)?;
        let lost =
            |e: io::Error| PluginError::new(codes::INTERNAL, format!("{}: {e}", self.logits.display()));
        let mut file = BufReader::with_capacity(BUFFER, File::open(&self.logits).map_err(lost)?);
        let abort = || cancel.is_cancelled();
        let mut comparer = Comparer::default();
        let (mut bytes, mut kept) = (Vec::new(), Vec::new());
        for tokens in &self.windows {
            run.begin();
            run.skip(&tokens[..length / 2], &abort).map_err(refused)?;
            for next in scored(length, self.step) {
                bytes.resize(next.len() * self.vocabulary * size_of::<f32>(), 0);
                file.read_exact(&mut bytes).map_err(lost)?;
                kept.clear();
                kept.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
                let rows = run.advance(&tokens[next.clone()], &abort).map_err(refused)?;
                if rows.len() != kept.len() {
                    return Err(PluginError::new(codes::INTERNAL, "a model of another vocabulary"));
                }
                comparer.add(&kept, rows, &tokens[next.start + 1..=next.end], self.threads as usize);
            }
        }
        Ok(comparer.finish())
    }
}
