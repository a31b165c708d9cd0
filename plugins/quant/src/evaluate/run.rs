//! Both models through the same text, side by side.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;

use pajamas_llama_cpp::{Token, Windows};
use pajamas_plugin_api::{Cancel, HostContext, PluginError, Result};

use super::compare::Comparer;
use super::generation::{self, Generation};
use super::model::{Loaded, refused};
use super::routing::{Choices, Router};
use super::{Answer, Call};
use crate::error::{self, codes};

/// Tokens of a window when nobody says: upstream's.
const WINDOW: u32 = 512;
/// The fewest: something must come before what is scored.
const SHORTEST_WINDOW: u32 = 8;
/// The longest text that is read.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Windows of which the beginnings are continued when there are no prompts, and how many tokens of each.
const PROMPTS: usize = 8;
const PROMPT_TOKENS: usize = 32;
/// The most prompts, and tokens to continue each by.
const MOST_PROMPTS: usize = 1024;
const MOST_TOKENS: usize = 1024;
/// The shares of the work that loading and comparing take; continuing prompts comes after.
const LOADED: f64 = 0.05;
const COMPARED: f64 = 0.9;

/// What is told how far it is (0 to 1), and a few words; its error stops the work.
pub(super) type Told<'t> = dyn FnMut(f64, &str) -> Result<()> + 't;

/// Carries out a call.
///
/// # Errors
/// `text-too-short`, `vocabulary-mismatch`, `invalid-option`; those of reading both models; `out-of-memory`; `cancelled`.
pub(super) fn run(host: &HostContext, call: &Call, told: &mut Told<'_>, cancel: &Cancel) -> Result<Answer> {
    check(call)?;
    let text = read_text(&call.text)?;
    let library = super::model::library(host)?;
    told(0.0, "the original")?;
    let original = Loaded::open(library, &call.original, &call.scratch, "original", cancel)?;
    told(LOADED / 2.0, "the candidate")?;
    let candidate = Loaded::open(library, &call.candidate, &call.scratch, "candidate", cancel)?;
    same_words(&original, &candidate)?;

    let threads = call.threads.unwrap_or_else(|| {
        thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
    });
    let trained = original.model.context_train().min(candidate.model.context_train());
    let window = window(call.window, trained)?;
    let tokens = original.model.tokenize(&text, true, false).map_err(refused)?;
    let chunks = chunks(tokens.len(), window, call)?;
    let notes = [original.notes.clone(), candidate.notes.clone()].concat();

    let bench = Bench { original: &original, candidate: &candidate, threads, cancel };
    let (comparer, router) = bench.compare(&tokens, window, chunks, told)?;
    let prompts = prompts(call, &original, &tokens, window, chunks)?;
    let generation = bench.generate(&prompts, call.tokens, trained, told)?;
    told(1.0, "")?;
    Ok(Answer {
        window,
        chunks,
        text_tokens: tokens.len(),
        comparison: comparer.finish(),
        generation,
        routing: router.finish(),
        original: original.size,
        candidate: candidate.size,
        tensors: candidate.tensors,
        notes,
    })
}

/// Two models, and what they are measured with.
struct Bench<'a> {
    original: &'a Loaded,
    candidate: &'a Loaded,
    threads: u32,
    cancel: &'a Cancel,
}

impl Bench<'_> {
    fn windows(&self, of: &Loaded, length: u32) -> Result<Windows> {
        Windows::new(of.model.clone(), length, self.threads).map_err(refused)
    }

    /// `perplexity` and `kl_divergence` in one.
    fn compare(
        &self,
        tokens: &[Token],
        window: u32,
        chunks: usize,
        told: &mut Told<'_>,
    ) -> Result<(Comparer, Router)> {
        let abort = || self.cancel.is_cancelled();
        // Who watches slows down: only experts are worth it.
        let watches = self.original.experts > 0 && self.candidate.experts > 0;
        let windows = |of: &Loaded| match watches {
            true => Windows::watched(of.model.clone(), window, self.threads).map_err(refused),
            false => self.windows(of, window),
        };
        let mut original = windows(self.original)?;
        let mut candidate = windows(self.candidate)?;
        let (mut router, mut ours, mut theirs) = (Router::default(), Choices::default(), Choices::default());
        let bos = self.original.model.bos().filter(|_| self.original.model.adds_bos());
        let length = window as usize;
        let (first, step) = (length / 2, original.step().min(candidate.step()));
        let mut comparer = Comparer::default();
        for (number, chunk) in tokens.chunks_exact(length).take(chunks).enumerate() {
            let chunk = as_text(chunk, bos);
            for model in [&mut original, &mut candidate] {
                model.begin();
                model.skip(&chunk[..first], &abort).map_err(refused)?;
            }
            for next in scored(length, step) {
                let some = &chunk[next.clone()];
                let a = advance(&mut original, some, watches.then_some(&mut ours), &abort)?;
                let b = advance(&mut candidate, some, watches.then_some(&mut theirs), &abort)?;
                router.add(&ours, &theirs);
                comparer.add(a, b, &chunk[next.start + 1..=next.end], self.threads as usize);
            }
            let done = (number + 1) as f64 / chunks as f64;
            let words = format!("window {} of {chunks}, perplexity {:.4}", number + 1, comparer.perplexity());
            told(LOADED + (COMPARED - LOADED) * done, &words)?;
        }
        Ok((comparer, router))
    }

    fn generate(
        &self,
        prompts: &[Vec<Token>],
        most: usize,
        trained: u32,
        told: &mut Told<'_>,
    ) -> Result<Generation> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + most;
        if prompts.is_empty() || most == 0 {
            return Ok(Generation::default());
        }
        let length = u32::try_from(longest).unwrap_or(u32::MAX);
        if length > trained {
            let what =
                format!("a prompt and {most} tokens after it are {longest}; the models know {trained}");
            return Err(PluginError::new(pajamas_plugin_api::codes::CONTEXT_LENGTH_EXCEEDED, what)
                .help("shorten the prompt, or have fewer tokens written"));
        }
        let abort = || self.cancel.is_cancelled();
        let mut written = Vec::new();
        let work = 2 * prompts.len();
        for model in [self.original, self.candidate] {
            let mut windows = self.windows(model, length)?;
            let mut texts = Vec::with_capacity(prompts.len());
            for prompt in prompts {
                texts.push(generation::greedy(&mut windows, prompt, most, &abort).map_err(refused)?);
                let done = (written.len() * prompts.len() + texts.len()) as f64 / work as f64;
                told(COMPARED + (1.0 - COMPARED) * done, "prompts")?;
            }
            written.push(texts);
        }
        Ok(Generation::of(&written[0], &written[1]))
    }
}

/// The logits after each of some tokens, and which experts were chosen for them.
fn advance<'w>(
    windows: &'w mut Windows,
    tokens: &[Token],
    choices: Option<&mut Choices>,
    abort: &(dyn Fn() -> bool + Sync),
) -> Result<&'w [f32]> {
    let rows = match choices {
        Some(choices) => {
            choices.clear();
            windows.advance_watched(tokens, abort, choices)
        }
        None => windows.advance(tokens, abort),
    };
    rows.map_err(refused)
}

fn check(call: &Call) -> Result<()> {
    let wrong = |what: String| Err(PluginError::new(pajamas_plugin_api::codes::INVALID_OPTION, what));
    if call.prompts.len() > MOST_PROMPTS || call.tokens > MOST_TOKENS {
        return wrong(format!(
            "{} prompts to continue by {} tokens: at most {MOST_PROMPTS} by {MOST_TOKENS}",
            call.prompts.len(),
            call.tokens
        ));
    }
    if call.chunks == Some(0) || call.threads == Some(0) {
        return wrong("at least one window is read, by at least one thread".to_owned());
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String> {
    let about = fs::metadata(path).map_err(|e| error::unreadable(path, &e))?;
    if !about.is_file() || about.len() > MAX_TEXT_BYTES {
        let what = format!("is no file of at most {MAX_TEXT_BYTES} bytes");
        return Err(error::at(codes::SOURCE_NOT_FOUND, path, what).help("name a file of text"));
    }
    let bytes = fs::read(path).map_err(|e| error::unreadable(path, &e))?;
    String::from_utf8(bytes).map_err(|e| {
        error::at(pajamas_plugin_api::codes::INVALID_INPUT, path, format!("is no UTF-8: {e}"))
            .help("name a file of text in UTF-8")
    })
}

/// The tokens of a window whose logits are looked at, at most `step` at a time: the second half, without the last one, after
/// which nothing is known that could be scored.
pub(super) fn scored(window: usize, step: usize) -> impl Iterator<Item = Range<usize>> {
    let last = window.saturating_sub(1);
    (window / 2..last).step_by(step.max(1)).map(move |from| from..(from + step.max(1)).min(last))
}

/// Tokens out of the middle of a text, that begin like a text of their own.
pub(super) fn as_text(tokens: &[Token], bos: Option<Token>) -> Vec<Token> {
    let mut tokens = tokens.to_vec();
    if let (Some(bos), Some(start)) = (bos, tokens.first_mut()) {
        *start = bos;
    }
    tokens
}

pub(super) fn window(asked: Option<u32>, trained: u32) -> Result<u32> {
    // A model that does not say what it was trained with is taken at its word nowhere else, either.
    let most = if trained == 0 { u32::MAX } else { trained };
    let window = asked.unwrap_or(WINDOW.min(most));
    if (SHORTEST_WINDOW..=most).contains(&window) {
        return Ok(window);
    }
    let what = format!("a window of {window} tokens: these models read {SHORTEST_WINDOW} to {most}");
    Err(PluginError::new(pajamas_plugin_api::codes::INVALID_OPTION, what))
}

fn chunks(tokens: usize, window: u32, call: &Call) -> Result<usize> {
    let all = tokens / window as usize;
    // Upstream's limit: one window is an anecdote.
    if all < 2 {
        let what = format!(
            "the text has {tokens} tokens, and at least {} are needed for windows of {window}",
            2 * window
        );
        return Err(error::at(codes::TEXT_TOO_SHORT, &call.text, what)
            .help("name a longer text, or choose a shorter window"));
    }
    Ok(call.chunks.unwrap_or(all).min(all))
}

/// Tokens of one must mean the same to the other.
fn same_words(original: &Loaded, candidate: &Loaded) -> Result<()> {
    let (a, b) = (&original.model, &candidate.model);
    let sizes = (a.vocab_size(), b.vocab_size());
    let differ = match sizes.0 == sizes.1 {
        true => a.compare_vocabulary(b),
        false => Err(format!("their vocabularies have {} and {} tokens", sizes.0, sizes.1)),
    };
    differ.map_err(|what| {
        PluginError::new(codes::VOCABULARY_MISMATCH, format!("the models cannot be compared: {what}"))
            .help("compare a model with the one that it was made of")
    })
}

/// The prompts in tokens: those of the call, or beginnings of windows spread over the text that is read.
fn prompts(
    call: &Call,
    original: &Loaded,
    tokens: &[Token],
    window: u32,
    chunks: usize,
) -> Result<Vec<Vec<Token>>> {
    if !call.prompts.is_empty() {
        let prompt = |text: &String| generation::prompt(&original.model, text).map_err(refused);
        return call.prompts.iter().map(prompt).collect();
    }
    let bos = original.model.bos().filter(|_| original.model.adds_bos());
    let length = PROMPT_TOKENS.min(window as usize / 2);
    let begin = |chunk: usize| as_text(&tokens[chunk * window as usize..][..length], bos);
    Ok((0..chunks).step_by(chunks.div_ceil(PROMPTS)).map(begin).collect())
}
