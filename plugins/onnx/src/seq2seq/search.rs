//! The choice of tokens: the likeliest, drawn by temperature, or by beams. Follows `GreedyDecoder`,
//! `BeamSearchDecoder` and `MaximumLikelihoodRanker` of OpenAI's `whisper/decoding.py`.

use std::ops::ControlFlow;

use fastrand::Rng;
use pajamas_plugin_api::{Cancel, PluginError, Result};
use serde::Deserialize;

use super::decoder::Decoding;
use super::engine::Engine;
use crate::error::INFERENCE_FAILED;

/// How tokens are chosen.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Plan {
    /// The token that ends a text.
    pub(super) end: u32,
    /// The most tokens.
    pub(super) max_tokens: usize,
    /// 0 takes the likeliest token; above, tokens are drawn.
    #[serde(default)]
    pub(super) temperature: f32,
    /// Beams to follow side by side, at temperature 0.
    #[serde(default)]
    pub(super) beam_size: Option<usize>,
    /// Texts to draw side by side, above temperature 0.
    #[serde(default)]
    pub(super) best_of: Option<usize>,
    /// How many ended beams are enough, in parts of the beams.
    #[serde(default)]
    pub(super) patience: Option<f32>,
    /// The alpha of Google's NMT (Wu et al. 2016, equation 14); without, likelihoods are divided by the length.
    #[serde(default)]
    pub(super) length_penalty: Option<f32>,
    /// Of the random numbers.
    #[serde(default)]
    pub(super) seed: Option<u64>,
}

/// Which tokens may come.
pub(super) trait Rules {
    /// Makes the logits of tokens that may not follow `sampled` minus infinity.
    fn apply(&self, sampled: &[u32], logits: &mut [f32]);
}

/// A text in tokens, without its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequence {
    pub(super) tokens: Vec<u32>,
    /// The natural logarithm of each token's probability.
    pub(super) logprobs: Vec<f32>,
    /// Their sum, with that of the end.
    pub(super) sum: f32,
    /// Whether it came to its end.
    pub(super) ended: bool,
}

impl Sequence {
    fn with(&self, token: u32, logprob: f32, end: u32) -> Self {
        let mut next = self.clone();
        next.sum += logprob;
        if token == end {
            next.ended = true;
        } else {
            next.tokens.push(token);
            next.logprobs.push(logprob);
        }
        next
    }

    fn rank(&self, penalty: Option<f32>) -> f32 {
        let length = self.tokens.len().max(1) as f32;
        self.sum / penalty.map_or(length, |alpha| ((5.0 + length) / 6.0).powf(alpha))
    }
}

/// A decoding with the logits of what comes next.
pub(super) struct Search<'s, 'd, E: Engine> {
    pub(super) decoding: Decoding<'d, E>,
    /// Of the prompt.
    pub(super) logits: Vec<f32>,
    pub(super) plan: &'s Plan,
    pub(super) rules: &'s dyn Rules,
}

/// Told each token of a single text with its log-probability.
pub(super) type Told<'t> = dyn FnMut(u32, f32) -> ControlFlow<()> + 't;

impl<E: Engine> Search<'_, '_, E> {
    /// The best text that the plan finds.
    ///
    /// # Errors
    /// `cancelled`; `inference-failed` when the model gives no numbers.
    pub(super) fn run(self, told: &mut Told<'_>, cancel: &Cancel) -> Result<Sequence> {
        let penalty = self.plan.length_penalty;
        let found = match self.plan.beam_size {
            Some(beams) if self.plan.temperature == 0.0 && beams > 1 => self.beams(beams, cancel)?,
            _ => self.draw(told, cancel)?,
        };
        let best = found.into_iter().reduce(|a, b| if b.rank(penalty) > a.rank(penalty) { b } else { a });
        Ok(best.unwrap_or_default())
    }

    /// One text of the likeliest tokens, or several that are drawn.
    fn draw(mut self, told: &mut Told<'_>, cancel: &Cancel) -> Result<Vec<Sequence>> {
        let Plan { end, max_tokens, temperature, .. } = *self.plan;
        let count = if temperature > 0.0 { self.plan.best_of.unwrap_or(1).max(1) } else { 1 };
        let mut random = self.plan.seed.map_or_else(Rng::new, Rng::with_seed);
        let vocabulary = self.logits.len();
        self.decoding.arrange(&vec![0; count])?;
        let mut sequences = vec![Sequence::default(); count];
        let mut logits = self.logits.repeat(count);
        for number in 0..max_tokens {
            let mut next = Vec::with_capacity(count);
            for (sequence, logits) in sequences.iter_mut().zip(logits.chunks_mut(vocabulary)) {
                if sequence.ended {
                    next.push(end);
                    continue;
                }
                self.rules.apply(&sequence.tokens, logits);
                let total = normalizer(logits)?;
                let token = if temperature > 0.0 {
                    drawn(logits, temperature, &mut random)
                } else {
                    likeliest(logits)
                };
                let logprob = logits[token] - total;
                let token = token as u32;
                *sequence = sequence.with(token, logprob, end);
                if count == 1 && token != end && told(token, logprob).is_break() {
                    return Err(PluginError::cancelled());
                }
                next.push(token);
            }
            if sequences.iter().all(|sequence| sequence.ended) || number + 1 == max_tokens {
                break;
            }
            cancel.check()?;
            logits = self.decoding.step(&next, vocabulary, cancel)?;
        }
        Ok(sequences)
    }

    /// Several texts at once, of which the likelier ones go on.
    fn beams(mut self, beams: usize, cancel: &Cancel) -> Result<Vec<Sequence>> {
        let Plan { end, max_tokens, patience, .. } = *self.plan;
        let enough = ((beams as f32 * patience.unwrap_or(1.0)).round() as usize).max(1);
        let vocabulary = self.logits.len();
        self.decoding.arrange(&vec![0; beams])?;
        let mut living = vec![Sequence::default(); beams];
        let mut ended: Vec<Sequence> = Vec::new();
        let mut logits = self.logits.repeat(beams);
        for number in 0..max_tokens {
            // Each beam's next tokens with the beam they come from. In the beginning all beams are one.
            let mut candidates: Vec<(usize, u32, f32)> = Vec::new();
            let distinct = if number == 0 { 1 } else { living.len() };
            for (beam, logits) in logits.chunks_mut(vocabulary).enumerate().take(distinct) {
                self.rules.apply(&living[beam].tokens, logits);
                let total = normalizer(logits)?;
                let best = best(logits, beams + 1);
                candidates.extend(best.into_iter().map(|token| (beam, token as u32, logits[token] - total)));
            }
            candidates.sort_by(|a, b| (living[b.0].sum + b.2).total_cmp(&(living[a.0].sum + a.2)));
            let (mut next, mut sources) = (Vec::with_capacity(beams), Vec::with_capacity(beams));
            for (beam, token, logprob) in candidates {
                let sequence = living[beam].with(token, logprob, end);
                if sequence.ended {
                    if ended.len() < enough {
                        ended.push(sequence);
                    }
                    continue;
                }
                next.push(sequence);
                sources.push(beam);
                if next.len() == beams {
                    break;
                }
            }
            let over = ended.len() >= enough || number + 1 == max_tokens || next.is_empty();
            living = next;
            if over {
                break;
            }
            cancel.check()?;
            self.decoding.arrange(&sources)?;
            let tokens: Vec<u32> = living.iter().filter_map(|s| s.tokens.last().copied()).collect();
            logits = self.decoding.step(&tokens, vocabulary, cancel)?;
        }
        // Beams that did not end count only where too few did.
        living.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        let missing = beams.saturating_sub(ended.len());
        ended.extend(living.into_iter().take(missing));
        Ok(ended)
    }
}

/// The logarithm of the sum of exponentials.
pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !most.is_finite() {
        return most;
    }
    most + logits.iter().map(|logit| f64::from(logit - most).exp()).sum::<f64>().ln() as f32
}

/// What is subtracted from logits to make log-probabilities of them.
fn normalizer(logits: &[f32]) -> Result<f32> {
    let total = log_sum_exp(logits);
    if total.is_finite() && !logits.iter().any(|logit| logit.is_nan()) {
        return Ok(total);
    }
    Err(PluginError::new(INFERENCE_FAILED, "the decoder gave no number for any token that may come")
        .help("check that the model belongs to its tokenizer, and that its input holds numbers"))
}

fn likeliest(logits: &[f32]) -> usize {
    let best =
        |best: (usize, f32), (at, logit): (usize, &f32)| if *logit > best.1 { (at, *logit) } else { best };
    logits.iter().enumerate().fold((0, f32::NEG_INFINITY), best).0
}

/// The likeliest tokens, the best first.
fn best(logits: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).filter(|at| logits[*at].is_finite()).collect();
    let better = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if order.len() > count {
        order.select_nth_unstable_by(count, better);
        order.truncate(count);
    }
    order.sort_unstable_by(better);
    order
}

/// A token drawn by its probability at a temperature.
fn drawn(logits: &[f32], temperature: f32, random: &mut Rng) -> usize {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from((logit - most) / temperature).exp();
    let mut rest = random.f64() * logits.iter().map(|logit| weight(*logit)).sum::<f64>();
    let mut last = likeliest(logits);
    for (at, logit) in logits.iter().enumerate().filter(|(_, logit)| logit.is_finite()) {
        last = at;
        rest -= weight(*logit);
        if rest < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_by_their_probability() {
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        let mut random = Rng::with_seed(7);
        let ones = (0..4000).filter(|_| drawn(&logits, 1.0, &mut random) == 1).count();
        assert!((2800..3200).contains(&ones), "{ones} of 4000 where 3000 are expected");
        let mut random = Rng::with_seed(7);
        assert!((0..100).all(|_| drawn(&logits, 0.01, &mut random) == 1));
    }

    #[test]
    fn the_best_come_first_and_the_impossible_never() {
        let logits = [1.0, f32::NEG_INFINITY, 5.0, 3.0, 5.0];
        assert_eq!(best(&logits, 3), [2, 4, 3]);
        assert_eq!(best(&logits, 9), [2, 4, 3, 0]);
        assert_eq!(likeliest(&logits), 2);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(normalizer(&[f32::NEG_INFINITY; 3]).unwrap_err().code, INFERENCE_FAILED);
        assert_eq!(normalizer(&[0.0, f32::NAN]).unwrap_err().code, INFERENCE_FAILED);
        assert!((normalizer(&[0.0, 0.0]).unwrap() - 2f32.ln()).abs() < 1e-6);
    }
}
