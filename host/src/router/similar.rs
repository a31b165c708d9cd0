//! How near what the user said is to the examples of rules. Whoever has the model finds that out before a decision, and puts
//! it into the [`Ask`](super::Ask): a decision asks no model.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fingerprint;
use crate::config::{self, Nearness};

/// How near a text is to the nearest of some examples, or why that is not known. In whole numbers, which a record does not
/// change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Similar {
    /// The model that was asked.
    pub model: String,
    /// The cosine of the angle between the text and the nearest example, in thousandths; missing where the model could not be
    /// asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<i16>,
    /// Which example that is; 0 is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<u32>,
    /// The code of the error that the model could not be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the text was longer than the model takes, so that only its beginning was compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Microseconds that it took to say, where somebody measured.
    #[serde(default)]
    pub took: Option<u64>,
}

/// A rule's examples, and the model that says how near a text is to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// What an [`Ask`](super::Ask) calls the answer: the same for all rules with this model and these examples.
    pub name: String,
    /// The model's id.
    pub model: String,
    /// The examples.
    pub examples: Vec<String>,
    /// How near is near enough, in thousandths.
    least: u16,
}

impl Comparison {
    /// That of a rule.
    pub(super) fn new(condition: &config::Similar, of_all: &Nearness) -> Self {
        let model = condition.model.to_string();
        let examples = condition.examples.to_vec();
        Self {
            name: fingerprint(json!([model, examples]).to_string().as_bytes()),
            model,
            examples,
            least: condition.min.unwrap_or(of_all.min).get(),
        }
    }

    /// Whether this is near enough.
    pub(super) fn holds(&self, similar: &Similar) -> bool {
        similar.score.is_some_and(|score| i32::from(score) >= i32::from(self.least))
    }
}

/// The example that is nearest to a text, the first of equals, and the cosine of the angle between the two in thousandths.
/// `None` when they cannot be compared: vectors of other lengths, and those that lead nowhere.
pub fn nearest(text: &[f32], examples: &[Vec<f32>]) -> Option<(u32, i16)> {
    let cosines = examples.iter().map(|example| cosine(text, example)).collect::<Option<Vec<_>>>()?;
    let (place, cosine) =
        (0..).zip(cosines).reduce(|best, next| if next.1 > best.1 { next } else { best })?;
    // Never more than a thousand thousandths, whatever was lost in rounding.
    Some((place, (cosine * 1000.0).round().clamp(-1000.0, 1000.0) as i16))
}

fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (a.len() == b.len() && lengths.is_finite() && lengths > 0.0).then(|| dot(a, b) / lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_the_one_at_the_smallest_angle_whatever_the_lengths() {
        let examples = [vec![0.0, 1.0], vec![30.0, 40.0], vec![3.0, 4.0], vec![-1.0, 0.0]];
        assert_eq!(nearest(&[1.0, 0.0], &examples), Some((1, 600)));
        assert_eq!(nearest(&[0.0, 2.0], &examples), Some((0, 1000)));
        assert_eq!(nearest(&[1.0, 0.0], &examples[3..]), Some((0, -1000)));
    }

    #[test]
    fn what_cannot_be_compared_is_no_number() {
        for (text, example) in [
            (vec![1.0], vec![1.0, 0.0]),
            (vec![0.0, 0.0], vec![1.0, 0.0]),
            (vec![f32::NAN, 1.0], vec![1.0, 0.0]),
            (vec![f32::INFINITY, 1.0], vec![1.0, 0.0]),
            (vec![], vec![]),
        ] {
            assert_eq!(nearest(&text, &[example]), None);
        }
        assert_eq!(nearest(&[1.0], &[]), None);
    }
}
