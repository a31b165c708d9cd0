//! Types that lose least: measured, solved for, and measured again around what was found.

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result, codes};
use serde::Serialize;
use serde_json::{Value, json};

use super::Told;
use super::knapsack::{Choice, Table};
use super::room::padded;
use super::sensitivity::{self, Patient};
use crate::quantize::{Ladder, Original};

/// The most rounds.
const ROUNDS: usize = 3;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Every type of every tensor, and again around what was found.
    Every,
    /// One type of each tensor; the others are estimated by their squared errors.
    One,
}

impl Method {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Every => "every type",
            Self::One => "one type of each tensor",
        }
    }
}

/// What was chosen in a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Round {
    /// The divergence that the sensitivities promise.
    pub predicted_kld: f64,
    /// What all chosen types together were measured to have, on the same text.
    pub measured_kld: f64,
}

/// A search for types of the free tensors.
pub(super) struct Search<'a> {
    ladders: &'a [Ladder],
    patient: &'a mut dyn Patient,
    method: Method,
    /// What each type of each tensor loses, and its bytes.
    choices: Vec<Vec<Choice>>,
    measurements: usize,
    rounds: Vec<Round>,
    /// What each type loses alone.
    alone: Vec<Vec<f64>>,
}

impl<'a> Search<'a> {
    /// Nothing is measured yet.
    pub fn new(
        original: &dyn Original,
        ladders: &'a [Ladder],
        patient: &'a mut dyn Patient,
        method: Method,
    ) -> Self {
        let tensors = original.tensors();
        let choice = |ladder: &Ladder, to: &TensorType| Choice {
            bytes: padded(*to, &tensors[ladder.tensor].dimensions),
            loss: 0.0,
        };
        let choices = ladders.iter().map(|l| l.types.iter().map(|to| choice(l, to)).collect()).collect();
        Self { ladders, patient, method, choices, measurements: 0, rounds: Vec::new(), alone: Vec::new() }
    }

    /// Measures what types lose, each alone.
    ///
    /// # Errors
    /// Those of the measurements and of `told`.
    pub fn measure(&mut self, told: &mut Told<'_>) -> Result<()> {
        let plain = vec![TensorType::F32; self.ladders.len()];
        self.around(&plain, 0.0, told)?;
        let losses = |choices: &Vec<Choice>| choices.iter().map(|choice| choice.loss).collect();
        self.alone = self.choices.iter().map(losses).collect();
        Ok(())
    }

    /// The types that lose least within so many bytes, together.
    ///
    /// # Errors
    /// Those of the measurements and of `told`; `internal` for a budget that nothing fits.
    pub fn within(&mut self, bytes: u64, told: &mut Told<'_>) -> Result<Vec<TensorType>> {
        let mut best: Option<(f64, Vec<TensorType>)> = None;
        let mut of_base = 0.0;
        loop {
            let table = Table::new(&self.choices, bytes);
            let Some(chosen) = table.within(bytes) else {
                let what = format!("no types fit {bytes} bytes; the smallest have {}", table.least());
                return Err(PluginError::new(codes::INTERNAL, what));
            };
            let predicted = of_base + table.loss(&chosen);
            let types = self.types(&chosen);
            for (ladder, to) in self.ladders.iter().zip(&types) {
                self.patient.round(ladder.tensor, *to)?;
            }
            let measured = self.patient.divergence()?;
            self.measurements += 1;
            self.rounds.push(Round { predicted_kld: predicted, measured_kld: measured });
            let better = best.as_ref().is_none_or(|(least, _)| measured < *least);
            if better {
                best = Some((measured, types.clone()));
            }
            let last = self.method == Method::One || self.rounds.len() >= ROUNDS;
            match best {
                // What more measuring finds no better is as good as it gets.
                Some((_, types)) if last || !better => return Ok(types),
                _ => {}
            }
            of_base = measured;
            self.around(&types, of_base, told)?;
        }
    }

    /// The types that lose least of all, by what was measured before.
    pub fn best(&self) -> Option<Vec<TensorType>> {
        Some(self.types(&Table::new(&self.choices, u64::MAX).within(u64::MAX)?))
    }

    /// The cheapest types that lose no more than `kld`, by what was measured before; `None` where none do.
    pub fn losing(&self, kld: f64) -> Option<Vec<TensorType>> {
        Some(self.types(&Table::new(&self.choices, u64::MAX).losing(kld)?))
    }

    /// What types lose together, by what was measured before.
    pub fn loss(&self, types: &[TensorType]) -> f64 {
        let all = self.ladders.iter().zip(&self.choices).zip(types);
        let one = |((ladder, choices), to): ((&Ladder, &Vec<Choice>), &TensorType)| {
            ladder.types.iter().zip(choices).find(|(of, _)| *of == to).map_or(0.0, |(_, choice)| choice.loss)
        };
        all.map(one).sum()
    }

    /// What the types of the best round promised.
    pub fn predicted(&self) -> Option<f64> {
        let best = self.rounds.iter().min_by(|a, b| a.measured_kld.total_cmp(&b.measured_kld));
        best.map(|round| round.predicted_kld)
    }

    /// What each type of each tensor loses alone, by their names.
    pub fn sensitivities(&self, original: &dyn Original) -> Value {
        let tensors = original.tensors();
        let of = |(ladder, losses): (&Ladder, &Vec<f64>)| {
            let types = ladder.types.iter().zip(losses).map(|(to, loss)| (to.name().to_owned(), json!(loss)));
            (tensors[ladder.tensor].name.clone(), Value::Object(types.collect()))
        };
        Value::Object(self.ladders.iter().zip(&self.alone).map(of).collect())
    }

    /// How it was measured.
    pub fn method(&self) -> Method {
        self.method
    }

    /// How often it was measured.
    pub fn measurements(&self) -> usize {
        self.measurements
    }

    /// What was chosen, round by round.
    pub fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    fn types(&self, chosen: &[usize]) -> Vec<TensorType> {
        self.ladders.iter().zip(chosen).map(|(ladder, at)| ladder.types[*at]).collect()
    }

    /// Measures what types lose when one tensor is changed and the others are of the types `base`.
    fn around(&mut self, base: &[TensorType], of_base: f64, told: &mut Told<'_>) -> Result<()> {
        let all: usize = match self.method {
            Method::Every => self.ladders.iter().map(|ladder| ladder.types.len()).sum(),
            Method::One => self.ladders.len(),
        };
        let rounds = if self.method == Method::Every { ROUNDS } else { 1 };
        let (before, mut done) = (self.rounds.len(), 0);
        let mut step = || {
            done += 1;
            let part = done as f32 / all.max(1) as f32;
            told(
                (before as f32 + part) / rounds as f32,
                &format!("measurement {done} of {all}, round {}", before + 1),
            )
        };
        let losses = match self.method {
            Method::Every => sensitivity::measured(self.patient, self.ladders, base, of_base, &mut step)?,
            Method::One => sensitivity::estimated(self.patient, self.ladders, &mut step)?,
        };
        self.measurements += done;
        for (choices, losses) in self.choices.iter_mut().zip(losses) {
            choices.iter_mut().zip(losses).for_each(|(choice, loss)| choice.loss = loss);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::Tensor;
    use crate::solve::sensitivity::tests::{Nothing, Paper};

    fn model(weights: &[f64]) -> (Nothing, Vec<Ladder>) {
        let types = vec![TensorType::Q2_K, TensorType::Q4_K, TensorType::Q8_0];
        let tensor = |at: usize| Tensor {
            name: format!("blk.{at}.ffn_up.weight"),
            tensor_type: TensorType::F32,
            dimensions: vec![256, 256],
        };
        let ladder = |tensor: usize| Ladder { tensor, types: types.clone() };
        (Nothing((0..weights.len()).map(tensor).collect()), (0..weights.len()).map(ladder).collect())
    }

    #[test]
    fn bits_go_where_they_were_measured_to_matter() {
        let weights = [1.0, 1e4, 1.0, 10.0];
        let (original, ladders) = model(&weights);
        let budget = 4 * padded(TensorType::Q4_K, &[256, 256]);
        for (method, least) in [(Method::One, 5), (Method::Every, 13)] {
            let mut paper = Paper::of(&weights);
            let mut search = Search::new(&original, &ladders, &mut paper, method);
            search.measure(&mut |_, _| Ok(())).unwrap();
            let types = search.within(budget, &mut |_, _| Ok(())).unwrap();
            assert_eq!(types[1], TensorType::Q8_0, "{types:?}");
            assert!(types.contains(&TensorType::Q2_K));
            assert!(search.measurements() >= least);
            // In this world every tensor is on its own: what is predicted is what is measured.
            let round = &search.rounds()[0];
            assert!((round.predicted_kld - round.measured_kld).abs() < 1e-12, "{round:?}");
            assert_eq!(search.predicted(), Some(round.predicted_kld));
        }
    }

    #[test]
    fn a_divergence_is_met_in_fewer_bytes_than_everything_has() {
        let (original, ladders) = model(&[1.0, 100.0]);
        let mut paper = Paper::of(&[1.0, 100.0]);
        let mut search = Search::new(&original, &ladders, &mut paper, Method::One);
        search.measure(&mut |_, _| Ok(())).unwrap();
        assert_eq!(search.best().unwrap(), [TensorType::Q8_0; 2]);
        let loose = search.losing(10.0).unwrap();
        assert_eq!(loose, [TensorType::Q2_K; 2]);
        let types = search.losing(search.loss(&loose) / 10.0).unwrap();
        assert_eq!(types[0], TensorType::Q2_K, "{types:?}");
        assert_eq!(search.losing(0.0), None);
    }
}
