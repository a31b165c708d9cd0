//! What is Whisper's: which tokens may follow which. Follows `SuppressBlank`, `SuppressTokens` and
//! `ApplyTimestampRules` of OpenAI's `whisper/decoding.py`.

use serde::Deserialize;

use super::search::{Rules, log_sum_exp};

/// Tokens that may not come, and how timestamps come.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whisper {
    /// Tokens that never come.
    pub(super) suppress: Vec<u32>,
    /// Tokens that do not come first.
    pub(super) begin_suppress: Vec<u32>,
    /// How timestamps come; without, the prompt says that none do.
    pub(super) timestamps: Option<Timestamps>,
    /// The token that ends a text: text tokens are below it, as Whisper's vocabularies are ordered.
    #[serde(skip)]
    pub(super) end: u32,
}

/// The rules of timestamps.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Timestamps {
    /// The token of 0 s: all from it on are timestamps.
    pub(super) begin: u32,
    /// The token that says that there are none.
    #[serde(default)]
    pub(super) none: Option<u32>,
    /// How many steps after 0 s the first timestamp may be.
    #[serde(default)]
    pub(super) max_initial: Option<u32>,
}

/// What makes a token impossible.
const NEVER: f32 = f32::NEG_INFINITY;

fn forbid(logits: &mut [f32], tokens: &[u32]) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = NEVER;
        }
    }
}

impl Rules for Whisper {
    fn apply(&self, sampled: &[u32], logits: &mut [f32]) {
        if sampled.is_empty() {
            forbid(logits, &self.begin_suppress);
        }
        forbid(logits, &self.suppress);
        if let Some(timestamps) = &self.timestamps {
            timestamps.apply(sampled, logits, self.end as usize);
        }
    }
}

impl Timestamps {
    fn apply(&self, sampled: &[u32], logits: &mut [f32], end: usize) {
        let begin = (self.begin as usize).min(logits.len());
        let end = end.min(begin);
        if let Some(none) = self.none {
            forbid(logits, &[none]);
        }
        // Timestamps come in pairs, except directly before the end.
        let is_time = |token: &u32| *token >= self.begin;
        let last = sampled.last().is_some_and(is_time);
        let before = sampled.len() < 2 || is_time(&sampled[sampled.len() - 2]);
        if last && before {
            logits[begin..].fill(NEVER);
        } else if last {
            logits[..end].fill(NEVER);
        }
        // They do not go back, and a segment is not empty.
        if let Some(latest) = sampled.iter().rev().find(|token| is_time(token)) {
            let least = if last && !before { *latest } else { latest.saturating_add(1) };
            let least = (least as usize).clamp(begin, logits.len());
            logits[begin..least].fill(NEVER);
        }
        if sampled.is_empty() {
            logits[..begin].fill(NEVER);
            if let Some(most) = self.max_initial {
                let after = begin.saturating_add(most as usize).saturating_add(1).min(logits.len());
                logits[after..].fill(NEVER);
            }
        }
        // All timestamps together against the likeliest text token.
        let likeliest = logits[..begin].iter().copied().fold(NEVER, f32::max);
        if log_sum_exp(&logits[begin..]) > likeliest {
            logits[..begin].fill(NEVER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text 0..4, end 4, none 5, timestamps 6..12.
    fn after(sampled: &[u32], logits: [f32; 12]) -> Vec<usize> {
        let timestamps = Some(Timestamps { begin: 6, none: Some(5), max_initial: Some(2) });
        let rules = Whisper { suppress: vec![3], begin_suppress: vec![4], timestamps, end: 4 };
        let mut logits = logits;
        rules.apply(sampled, &mut logits);
        (0..12).filter(|token| logits[*token].is_finite()).collect()
    }

    #[test]
    fn timestamps_come_in_pairs_and_never_go_back() {
        let text = std::array::from_fn(|token| if token < 5 { 9.0 } else { 0.0 });
        assert_eq!(after(&[], text), [6, 7, 8]);
        // After the first timestamp comes text.
        assert_eq!(after(&[6], text), [0, 1, 2, 4]);
        // After text comes text, the end, or a later time.
        assert_eq!(after(&[6, 0], text), [0, 1, 2, 4, 7, 8, 9, 10, 11]);
        // After a closing time comes the end, or an opening one that is not earlier.
        assert_eq!(after(&[6, 0, 9], text), [4, 9, 10, 11]);
        assert_eq!(after(&[6, 0, 9, 9], text), [0, 1, 2, 4]);
    }

    #[test]
    fn times_that_are_likelier_together_than_any_word_win() {
        assert_eq!(after(&[6, 0], [0.0; 12]), [7, 8, 9, 10, 11]);
    }

    #[test]
    fn tokens_beyond_the_vocabulary_are_no_panic() {
        let timestamps = Some(Timestamps { begin: 99, none: Some(70), max_initial: Some(u32::MAX) });
        let rules = Whisper { suppress: vec![u32::MAX], begin_suppress: vec![50], timestamps, end: 80 };
        let mut logits = [0.0; 4];
        rules.apply(&[u32::MAX, 99], &mut logits);
        rules.apply(&[], &mut logits);
    }
}
