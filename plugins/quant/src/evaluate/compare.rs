//! Logits of two models after the same tokens, compared: function by function as llama.cpp's `llama-perplexity
//! --kl-divergence` does it (tools/perplexity/perplexity.cpp). There the original's log-probabilities come out of a file
//! of 16-bit numbers; here they are as the original computes them.

use std::thread;

use serde::Serialize;

/// Probabilities below its exponential do not count for the divergence: what upstream's file cannot express.
const LEAST_LOG_PROBABILITY: f32 = -16.0;
/// Fewer values have no error that means anything.
const FEWEST_FOR_AN_ERROR: usize = 10;

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// How far the mean of other texts of this kind would be, typically.
    pub error: f64,
}

/// How the divergence is distributed over tokens, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub struct Distribution {
    pub mean: f64,
    pub error: f64,
    pub median: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// How close two models are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Tokens whose probability was compared.
    pub scored: usize,
    /// Perplexity of the candidate.
    pub perplexity: Estimate,
    /// Perplexity of the original.
    pub original_perplexity: Estimate,
    /// The candidate's perplexity divided by the original's; its error knows that both read the same text.
    pub perplexity_ratio: Estimate,
    /// Divergence of the candidate's distribution from the original's (Kullback and Leibler).
    pub kld: Distribution,
    /// Root of the mean square of the differences of the right token's probability.
    pub probability_rms: Estimate,
    /// The mean of these differences: below zero the candidate is less sure of what is right.
    pub probability_shift: Estimate,
    /// How often both find the same token the likeliest.
    pub top1: Estimate,
}

/// What one token says.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Negative logarithms of the right token's probability.
    nll: f64,
    original_nll: f64,
    kld: f64,
    same_top: bool,
}

/// What all tokens so far say.
#[derive(Debug, Default)]
pub(super) struct Comparer {
    rows: Vec<Row>,
}

impl Comparer {
    /// Takes in rows of logits as long as the vocabulary, of which the token that comes next is known.
    pub fn add(&mut self, original: &[f32], candidate: &[f32], next: &[i32], threads: usize) {
        if next.is_empty() {
            return;
        }
        let vocabulary = original.len() / next.len();
        let start = self.rows.len();
        self.rows.resize(start + next.len(), Row::default());
        // Rows are measured side by side and added up in their order: the result does not depend on the threads.
        let each = next.len().div_ceil(threads.max(1));
        let chunks = self.rows[start..].chunks_mut(each).zip(next.chunks(each));
        let logits = original.chunks(each * vocabulary).zip(candidate.chunks(each * vocabulary));
        thread::scope(|scope| {
            for ((rows, next), (original, candidate)) in chunks.zip(logits) {
                scope.spawn(move || {
                    let logits = original.chunks_exact(vocabulary).zip(candidate.chunks_exact(vocabulary));
                    for ((row, next), (original, candidate)) in rows.iter_mut().zip(next).zip(logits) {
                        *row = Row::of(original, candidate, *next as usize);
                    }
                });
            }
        });
    }

    /// The candidate's perplexity so far.
    pub fn perplexity(&self) -> f64 {
        mean(self.rows.iter().map(|r| r.nll)).value.exp()
    }

    /// What it comes to (`kl_divergence`).
    pub fn finish(self) -> Comparison {
        let rows = &self.rows;
        let of = |value: fn(&Row) -> f64| mean(rows.iter().map(value));
        let (log, original_log) = (of(|r| r.nll), of(|r| r.original_nll));
        let exp = |log: Estimate| Estimate { value: log.value.exp(), error: log.value.exp() * log.error };
        let covariance = covariance(rows, log.value, original_log.value);
        let ratio_variance = log.error.powi(2) + original_log.error.powi(2) - 2.0 * covariance;
        let ratio = Estimate { value: log.value - original_log.value, error: ratio_variance.max(0.0).sqrt() };
        let square = of(|r| r.difference().powi(2));
        let rms = square.value.sqrt();
        let same = of(|r| f64::from(u8::from(r.same_top))).value;
        let spread = same * (1.0 - same) / (rows.len().saturating_sub(1).max(1)) as f64;
        Comparison {
            scored: rows.len(),
            perplexity: exp(log),
            original_perplexity: exp(original_log),
            perplexity_ratio: exp(ratio),
            kld: distribution(rows.iter().map(|r| r.kld).collect(), of(|r| r.kld)),
            probability_rms: Estimate {
                value: rms,
                error: if rms > 0.0 { 0.5 / rms * square.error } else { 0.0 },
            },
            probability_shift: of(Row::difference),
            top1: Estimate { value: same, error: spread.sqrt() },
        }
    }
}

impl Row {
    /// `log_softmax` with a second distribution.
    fn of(original: &[f32], candidate: &[f32], next: usize) -> Self {
        let (a, b) = (Softmax::of(original), Softmax::of(candidate));
        let nll = |softmax: &Softmax, logits: &[f32]| {
            logits.get(next).map_or(0.0, |logit| softmax.log_sum - f64::from(*logit))
        };
        let (offset, other) = (a.log_sum as f32, b.log_sum as f32);
        let kld = original.iter().zip(candidate).map(|(p, q)| {
            let log = p - offset;
            if log > LEAST_LOG_PROBABILITY { f64::from(log.exp() * (log - q + other)) } else { 0.0 }
        });
        Self {
            nll: nll(&b, candidate),
            original_nll: nll(&a, original),
            kld: kld.sum(),
            same_top: a.top == b.top,
        }
    }

    /// The right token's probability, less what the original gives it.
    fn difference(&self) -> f64 {
        (-self.nll).exp() - (-self.original_nll).exp()
    }
}

/// The likeliest token, and what turns logits into logarithms of probabilities when it is taken from them.
struct Softmax {
    top: usize,
    log_sum: f64,
}

impl Softmax {
    fn of(logits: &[f32]) -> Self {
        let (mut top, mut max) = (0, f32::NEG_INFINITY);
        for (at, logit) in logits.iter().enumerate() {
            if *logit > max {
                (top, max) = (at, *logit);
            }
        }
        let sum: f64 = logits.iter().map(|logit| f64::from((logit - max).exp())).sum();
        Self { top, log_sum: f64::from(max) + sum.ln() }
    }
}

/// `mean_and_uncertainty`.
pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> Estimate {
    let count = values.len();
    if count == 0 {
        return Estimate::default();
    }
    let (sum, squares) = values.fold((0.0, 0.0), |(sum, squares), v| (sum + v, squares + v * v));
    let value = sum / count as f64;
    let variance = squares / count as f64 - value * value;
    let error = if variance > 0.0 && count > FEWEST_FOR_AN_ERROR {
        (variance / (count - 1) as f64).sqrt()
    } else {
        0.0
    };
    Estimate { value, error }
}

/// Of the means of both logarithms.
fn covariance(rows: &[Row], mean: f64, original: f64) -> f64 {
    if rows.len() < FEWEST_FOR_AN_ERROR {
        return 0.0;
    }
    let products: f64 = rows.iter().map(|r| r.nll * r.original_nll).sum();
    (products / rows.len() as f64 - mean * original) / (rows.len() - 1) as f64
}

fn distribution(mut values: Vec<f64>, mean: Estimate) -> Distribution {
    values.sort_unstable_by(f64::total_cmp);
    let at = |fraction: f64| percentile(&values, fraction);
    Distribution {
        mean: mean.value,
        error: mean.error,
        median: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: at(1.0),
    }
}

/// `percentile`, of sorted values.
fn percentile(values: &[f64], fraction: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let place = fraction * last as f64;
    let (at, rest) = (place as usize, place.fract());
    (1.0 - rest) * values[at.min(last)] + rest * values[(at + 1).min(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of ten tokens after twelve others, made up.
    fn logits(seed: f32) -> Vec<f32> {
        (0..120).map(|i| ((i as f32 * 0.7).sin() * 4.0) + (i as f32 * seed).cos()).collect()
    }

    fn compare(original: &[f32], candidate: &[f32], threads: usize) -> Comparison {
        let next: Vec<i32> = (0..12).map(|i| i % 10).collect();
        let mut comparer = Comparer::default();
        comparer.add(&original[..50], &candidate[..50], &next[..5], threads);
        comparer.add(&original[50..], &candidate[50..], &next[5..], threads);
        comparer.finish()
    }

    #[test]
    fn a_model_is_itself() {
        let same = compare(&logits(1.0), &logits(1.0), 2);
        assert_eq!((same.scored, same.top1.value, same.perplexity_ratio.value), (12, 1.0, 1.0));
        assert!(same.kld.max < 1e-6 && same.probability_rms.value == 0.0, "{same:?}");
        assert_eq!(same.perplexity, same.original_perplexity);
    }

    /// Against the definitions, in 64 bits.
    #[test]
    fn another_is_as_far_as_the_definitions_say() {
        let (a, b) = (logits(1.0), logits(2.3));
        let made = compare(&a, &b, 1);
        assert_eq!(made, compare(&a, &b, 5), "threads change nothing");
        let softmax = |row: &[f32]| -> Vec<f64> {
            let exps: Vec<f64> = row.iter().map(|v| f64::from(*v).exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.iter().map(|e| e / sum).collect()
        };
        let rows: Vec<(Vec<f64>, Vec<f64>)> =
            a.chunks(10).zip(b.chunks(10)).map(|(a, b)| (softmax(a), softmax(b))).collect();
        let kld: Vec<f64> =
            rows.iter().map(|(p, q)| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} is not {b}");
        near(made.kld.mean, mean(&kld));
        near(made.kld.max, kld.iter().copied().fold(0.0, f64::max));
        let nll: Vec<f64> = rows.iter().enumerate().map(|(i, (_, q))| -q[i % 10].ln()).collect();
        near(made.perplexity.value, mean(&nll).exp());
        let square: Vec<f64> =
            rows.iter().enumerate().map(|(i, (p, q))| (q[i % 10] - p[i % 10]).powi(2)).collect();
        near(made.probability_rms.value, mean(&square).sqrt());
        let top = |row: &[f64]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
        let same = rows.iter().filter(|(p, q)| top(p) == top(q)).count();
        near(made.top1.value, same as f64 / 12.0);
        assert!(same < 12 && made.kld.median <= made.kld.p90 && made.kld.p99 <= made.kld.max);
    }

    #[test]
    fn places_between_two_values_are_shared() {
        assert_eq!(percentile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!((percentile(&[5.0], 0.99), percentile(&[], 0.5)), (5.0, 0.0));
    }
}
