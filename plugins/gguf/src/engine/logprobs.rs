//! How likely tokens were, before sampling changed anything.

use pajamas_llama_cpp::{Model, Token};
use serde_json::json;

/// A row of logits, with what turns them into logarithms of probabilities.
pub(super) struct Likelihood<'a> {
    logits: &'a [f32],
    /// Logarithm of the sum of all exponentials.
    normalizer: f64,
}

impl<'a> Likelihood<'a> {
    pub fn new(logits: &'a [f32]) -> Self {
        let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - most).exp()).sum();
        Self { logits, normalizer: most + sum.ln() }
    }

    /// Natural logarithm of a token's probability.
    pub fn of(&self, token: Token) -> f32 {
        let logit = usize::try_from(token).ok().and_then(|t| self.logits.get(t));
        logit.map_or(f32::NAN, |l| (f64::from(*l) - self.normalizer) as f32)
    }

    /// The `n` most likely tokens, the most likely first; of equals the lower id.
    pub fn top(&self, n: usize) -> Vec<Token> {
        let mut tokens: Vec<Token> = (0..self.logits.len() as Token).collect();
        let order = |a: &Token, b: &Token| {
            self.logits[*b as usize].total_cmp(&self.logits[*a as usize]).then(a.cmp(b))
        };
        if n < tokens.len() {
            tokens.select_nth_unstable_by(n, order);
            tokens.truncate(n);
        }
        tokens.sort_unstable_by(order);
        tokens
    }

    /// The `n` most likely tokens as JSON.
    pub fn top_json(&self, n: usize, model: &Model) -> String {
        let top: Vec<_> = self
            .top(n)
            .into_iter()
            .map(|token| {
                let bytes = model.piece(token, true).unwrap_or_default();
                json!({ "id": token, "text": String::from_utf8_lossy(&bytes), "logprob": self.of(token) })
            })
            .collect();
        json!({ "top_logprobs": top }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0, 3.0, -2.0, 3.0];
        let likelihood = Likelihood::new(&logits);
        let sum: f32 = (0..4).map(|t| likelihood.of(t).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert!(likelihood.of(7).is_nan());
    }

    #[test]
    fn the_top_is_sorted_and_cut() {
        let logits = [1.0, 3.0, -2.0, 3.0];
        let likelihood = Likelihood::new(&logits);
        assert_eq!(likelihood.top(3), [1, 3, 0]);
        assert_eq!(likelihood.top(0), [] as [Token; 0]);
        assert_eq!(likelihood.top(9).len(), 4);
    }
}
