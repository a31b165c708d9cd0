//! Which experts two models choose for the same tokens.

use std::collections::BTreeMap;

use pajamas_llama_cpp::{Operation, OperationKind, Watch};
use serde::Serialize;

use super::compare::{Estimate, mean};
use crate::imatrix::layer_of;

/// The product that every layer with experts has once.
const PRODUCT: &str = "ffn_down_exps";

/// How alike two models choose experts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routing {
    /// Layers with experts.
    pub layers: usize,
    /// Experts of a layer.
    pub experts: usize,
    /// Those that a token is given.
    pub active: usize,
    /// Choices that were compared: tokens, once for each layer.
    pub choices: usize,
    /// The share of the original's experts of a token that the candidate chooses too.
    pub agreement: Estimate,
    /// How often both choose all the same.
    pub same: Estimate,
    /// Correlation (Pearson) of how often each expert is chosen, over the experts of all layers.
    pub usage_correlation: f64,
    /// The layer in which they agree least.
    pub worst: Worst,
}

/// A layer, and how alike both choose there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Worst {
    /// Its number.
    pub layer: u32,
    /// The share of the original's experts that the candidate chooses too.
    pub agreement: f64,
}

/// The experts that a model chose for the tokens of one step.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Layer by layer, those of each token.
    layers: BTreeMap<u32, Vec<Vec<i32>>>,
    experts: usize,
    integers: Vec<i32>,
}

impl Choices {
    /// Forgets the step before.
    pub fn clear(&mut self) {
        self.layers.clear();
    }
}

impl Watch for Choices {
    fn wants(&mut self, operation: &Operation<'_>) -> bool {
        operation.kind() == OperationKind::ExpertProduct
            && operation.operand(0).is_some_and(|weights| weights.name().contains(PRODUCT))
    }

    fn see(&mut self, operation: &Operation<'_>) {
        let (Some(weights), Some(chosen)) = (operation.operand(0), operation.operand(2)) else { return };
        let Some(layer) = layer_of(&weights.name()) else { return };
        let [_, tokens, ..] = chosen.sizes();
        self.experts = weights.sizes()[2];
        if let Some(rows) = chosen.integers(&mut self.integers) {
            let of = |token: usize| rows.row([token, 0, 0]).to_vec();
            self.layers.insert(layer, (0..tokens).map(of).collect());
        }
    }
}

/// What all steps say.
#[derive(Debug, Default)]
pub(super) struct Router {
    layers: BTreeMap<u32, Layer>,
    experts: usize,
    active: usize,
}

#[derive(Debug, Default)]
struct Layer {
    /// How often the original and the candidate chose each expert.
    used: [Vec<u64>; 2],
    /// Of each token, the share of experts that both chose.
    shared: Vec<f64>,
}

impl Router {
    /// Takes in what both chose for the same tokens.
    pub fn add(&mut self, original: &Choices, candidate: &Choices) {
        for (layer, ours) in &original.layers {
            let Some(theirs) = candidate.layers.get(layer).filter(|theirs| theirs.len() == ours.len()) else {
                continue;
            };
            self.experts = self.experts.max(original.experts);
            let of = self.layers.entry(*layer).or_default();
            for (used, tokens) in of.used.iter_mut().zip([ours, theirs]) {
                used.resize(self.experts, 0);
                for expert in tokens.iter().flatten() {
                    let used = usize::try_from(*expert).ok().and_then(|expert| used.get_mut(expert));
                    used.into_iter().for_each(|used| *used += 1);
                }
            }
            for (ours, theirs) in ours.iter().zip(theirs) {
                self.active = self.active.max(ours.len());
                let both = ours.iter().filter(|expert| theirs.contains(expert)).count();
                of.shared.push(both as f64 / ours.len().max(1) as f64);
            }
        }
    }

    /// What it comes to; `None` when nothing was chosen.
    pub fn finish(self) -> Option<Routing> {
        let shared: Vec<f64> = self.layers.values().flat_map(|layer| &layer.shared).copied().collect();
        let all = |of: fn(f64) -> f64| mean(shared.iter().map(|share| of(*share)));
        let used = |which: usize| -> Vec<f64> {
            self.layers.values().flat_map(|layer| &layer.used[which]).map(|n| *n as f64).collect()
        };
        let of_layer = |(number, layer): (&u32, &Layer)| Worst {
            layer: *number,
            agreement: mean(layer.shared.iter().copied()).value,
        };
        let worst = self.layers.iter().map(of_layer).min_by(|a, b| a.agreement.total_cmp(&b.agreement))?;
        Some(Routing {
            layers: self.layers.len(),
            experts: self.experts,
            active: self.active,
            choices: shared.len(),
            agreement: all(|share| share),
            same: all(|share| f64::from(u8::from(share == 1.0))),
            usage_correlation: correlation(&used(0), &used(1)),
            worst,
        })
    }
}

/// Pearson's; of what does not vary, whether both are the same.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(a, b)| f(a - of_a, b - of_b)).sum() };
    let spread = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    match spread > 0.0 {
        true => sum(&|a, b| a * b) / spread,
        false => f64::from(u8::from(a == b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(layers: &[(u32, &[[i32; 2]])]) -> Choices {
        let layer =
            |(layer, tokens): &(u32, &[[i32; 2]])| (*layer, tokens.iter().map(|t| t.to_vec()).collect());
        Choices { layers: layers.iter().map(layer).collect(), experts: 4, integers: Vec::new() }
    }

    #[test]
    fn who_chooses_the_same_agrees_in_any_order() {
        let mut router = Router::default();
        let original = choices(&[(0, &[[0, 1], [2, 0]]), (3, &[[1, 3], [1, 2]])]);
        router.add(&original, &choices(&[(0, &[[1, 0], [2, 0]]), (3, &[[3, 1], [2, 1]])]));
        let routing = router.finish().unwrap();
        assert_eq!((routing.layers, routing.experts, routing.active, routing.choices), (2, 4, 2, 4));
        assert_eq!((routing.agreement.value, routing.same.value), (1.0, 1.0));
        assert!((routing.usage_correlation - 1.0).abs() < 1e-12);
    }

    #[test]
    fn other_choices_are_counted_layer_by_layer() {
        let mut router = Router::default();
        let original = choices(&[(0, &[[0, 1], [0, 1]]), (1, &[[0, 1], [2, 3]])]);
        router.add(&original, &choices(&[(0, &[[0, 1], [0, 1]]), (1, &[[2, 3], [2, 1]])]));
        let routing = router.finish().unwrap();
        assert_eq!(routing.agreement.value, (1.0 + 1.0 + 0.0 + 0.5) / 4.0);
        assert_eq!(routing.same.value, 0.5);
        assert_eq!(routing.worst, Worst { layer: 1, agreement: 0.25 });
        assert!(routing.usage_correlation < 0.9, "{routing:?}");
        assert_eq!(Router::default().finish(), None);
        assert_eq!(
            (correlation(&[2.0, 2.0], &[2.0, 2.0]), correlation(&[2.0, 2.0], &[1.0, 3.0])),
            (1.0, 0.0)
        );
    }
}
