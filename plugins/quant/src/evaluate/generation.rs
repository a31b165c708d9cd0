//! What two models write after the same prompts, taking the likeliest token each time.

use pajamas_llama_cpp::{Model, Result, Token, Windows};
use serde::Serialize;

/// How far two models write the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Generation {
    /// Prompts that were continued.
    pub prompts: usize,
    /// Those that both continue in the same way to the end.
    pub exact: usize,
    /// Tokens that the original wrote.
    pub tokens: usize,
    /// Those of them that come before the first difference.
    pub common: usize,
    /// The share of tokens before the first difference.
    pub match_rate: f64,
    /// For each prompt, how many tokens are the same, and how many the original wrote.
    pub each: Vec<(usize, usize)>,
}

impl Generation {
    /// Compares what was written after each prompt.
    pub fn of(original: &[Vec<Token>], candidate: &[Vec<Token>]) -> Self {
        let mut generation = Self { prompts: original.len(), ..Self::default() };
        for (a, b) in original.iter().zip(candidate) {
            let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            generation.exact += usize::from(a == b);
            generation.tokens += a.len();
            generation.common += common;
            generation.each.push((common, a.len()));
        }
        generation.match_rate = generation.common as f64 / generation.tokens.max(1) as f64;
        generation
    }
}

/// Continues a prompt by at most `most` tokens; what ends the text belongs to it.
pub(super) fn greedy(
    windows: &mut Windows,
    prompt: &[Token],
    most: usize,
    abort: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Token>> {
    let Some((last, before)) = prompt.split_last() else { return Ok(Vec::new()) };
    windows.begin();
    windows.skip(before, abort)?;
    let (mut written, mut next) = (Vec::new(), *last);
    while written.len() < most {
        next = likeliest(windows.advance(&[next], abort)?);
        written.push(next);
        if windows.model().is_end(next) {
            break;
        }
    }
    Ok(written)
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> Token {
    let (mut top, mut max) = (0, f32::NEG_INFINITY);
    for (token, logit) in (0..).zip(logits) {
        if *logit > max {
            (top, max) = (token, *logit);
        }
    }
    top
}

/// A prompt in tokens, with what the model puts before a text of its own.
pub(super) fn prompt(model: &Model, text: &str) -> Result<Vec<Token>> {
    let mut tokens = model.tokenize(text, true, true)?;
    // A text that is to be continued has no end.
    if model.adds_eos() && tokens.last().copied() == model.eos() && tokens.len() > 1 {
        tokens.pop();
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_alike_is_counted_up_to_the_first_difference() {
        let original = [vec![1, 2, 3, 4], vec![5, 6], vec![7]];
        let candidate = [vec![1, 2, 9, 4], vec![5, 6], vec![7, 8]];
        let made = Generation::of(&original, &candidate);
        assert_eq!((made.prompts, made.exact, made.tokens, made.common), (3, 1, 7, 5));
        assert_eq!(made.each, [(2, 4), (2, 2), (1, 1)]);
        assert!((made.match_rate - 5.0 / 7.0).abs() < 1e-12);
        assert_eq!(Generation::of(&[], &[]).match_rate, 0.0);
    }

    #[test]
    fn of_equal_logits_the_first_is_taken() {
        assert_eq!(likeliest(&[0.5, 2.0, 2.0, f32::NAN]), 1);
    }
}
