//! Probabilities, and the best of them.

use pajamas_stage::{Error, Label, Result};
use serde::Deserialize;

/// What makes probabilities of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Nothing if the scores are probabilities already, softmax otherwise.
    Auto,
    /// exp(x) / sum of exp.
    Softmax,
    /// 1 / (1 + exp(-x)): classes that do not exclude each other.
    Sigmoid,
    /// Nothing.
    None,
}

/// The `k` likeliest classes, best first; of equal ones the lower class first.
pub fn likeliest(scores: &[f32], k: usize, activation: Activation) -> Result<Vec<Label>> {
    if scores.is_empty() {
        return Err(Error::invalid_input("the model's output holds no scores"));
    }
    if let Some(at) = scores.iter().position(|s| !s.is_finite()) {
        return Err(Error::invalid_input(format!(
            "the score of class {at} is {}: not a number to rank",
            scores[at]
        )));
    }
    let probabilities: Vec<f32> = match activation {
        Activation::Auto if are_probabilities(scores) => scores.to_vec(),
        Activation::Auto | Activation::Softmax => softmax(scores),
        Activation::Sigmoid => scores.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Activation::None => scores.to_vec(),
    };
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    let better = |a: &usize, b: &usize| probabilities[*b].total_cmp(&probabilities[*a]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k, better);
        order.truncate(k);
    }
    order.sort_unstable_by(better);
    Ok(order
        .into_iter()
        .map(|i| Label { class_id: i as u32, score: probabilities[i], label: None })
        .collect())
}

/// Within 0 and 1 and together 1, up to the rounding of half precision.
fn are_probabilities(scores: &[f32]) -> bool {
    let sum: f64 = scores.iter().map(|x| f64::from(*x)).sum();
    scores.iter().all(|x| (0.0..=1.0).contains(x)) && (sum - 1.0).abs() < 0.01
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Summed in f64: a thousand small terms lose digits in f32.
    let powers: Vec<f64> = scores.iter().map(|x| f64::from(x - highest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| (p / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(scores: &[f32], k: usize, activation: Activation) -> Vec<(u32, f32)> {
        likeliest(scores, k, activation).unwrap().iter().map(|l| (l.class_id, l.score)).collect()
    }

    #[test]
    fn scores_become_probabilities() {
        let found = ranked(&[0.0, 2.0_f32.ln(), 1000.0 - 1000.0 + 5.0_f32.ln()], 2, Activation::Softmax);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [2, 1]);
        assert!((found[0].1 - 0.625).abs() < 1e-6 && (found[1].1 - 0.25).abs() < 1e-6, "{found:?}");
        assert_eq!(ranked(&[1000.0, 0.0], 1, Activation::Softmax), [(0, 1.0)]);
        assert_eq!(ranked(&[0.0, 50.0], 2, Activation::Sigmoid), [(1, 1.0), (0, 0.5)]);
    }

    #[test]
    fn probabilities_are_left_alone() {
        assert_eq!(ranked(&[0.25, 0.75], 2, Activation::Auto), [(1, 0.75), (0, 0.25)]);
        assert_ne!(ranked(&[0.25, 0.25], 1, Activation::Auto), [(0, 0.25)]);
        assert_eq!(ranked(&[7.0, 8.0], 1, Activation::None), [(1, 8.0)]);
    }

    #[test]
    fn ties_and_a_k_beyond_the_classes() {
        assert_eq!(ranked(&[0.5, 0.0, 0.5], 9, Activation::Auto), [(0, 0.5), (2, 0.5), (1, 0.0)]);
        assert_eq!(ranked(&[0.5, 0.0, 0.5], 1, Activation::Auto), [(0, 0.5)]);
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        assert!(likeliest(&[], 1, Activation::Auto).is_err());
        assert!(likeliest(&[0.0, f32::NAN], 1, Activation::Auto).unwrap_err().message.contains("class 1"));
    }
}
