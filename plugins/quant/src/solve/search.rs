//! Types that lose least: measured, solved for, and measured again around what was found.

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result, codes};
use serde::Serialize;

use super::knapsack::{Choice, Table};
use super::sensitivity::{self, Patient};
use super::{Told, padded};
use crate::quantize::{Ladder, Original};

/// Up to so many numbers of weights times tokens, every type of every tensor is measured.
const SMALL: f64 = 1e14;
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

/// Whether every type can be measured in reasonable time, of so many tokens each.
pub(super) fn is_small(original: &dyn Original, ladders: &[Ladder], tokens: usize) -> bool {
    let weights: u64 = original.tensors().iter().map(|tensor| tensor.elements()).sum();
    let measurements: usize = ladders.iter().map(|ladder| ladder.types.len()).sum();
    weights as f64 * tokens as f64 * (measurements * ROUNDS) as f64 <= SMALL
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
        Self { ladders, patient, method, choices, measurements: 0, rounds: Vec::new() }
    }

    /// Measures what types lose, each alone.
    ///
    /// # Errors
    /// Those of the measurements and of `told`.
    pub fn measure(&mut self, told: &mut Told<'_>) -> Result<()> {
        let plain = vec![TensorType::F32; self.ladders.len()];
        self.around(&plain, 0.0, told)
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

    /// The types that lose least within so many bytes, by what was measured before; `None` where nothing fits.
    pub fn within_once(&self, bytes: u64) -> Option<Vec<TensorType>> {
        Some(self.types(&Table::new(&self.choices, bytes).within(bytes)?))
    }

    /// The cheapest types that lose no more than `kld`, by what was measured before; `None` where none do.
    pub fn losing(&self, kld: f64) -> Option<Vec<TensorType>> {
        Some(self.types(&Table::new(&self.choices, u64::MAX).losing(kld)?))
    }

    /// The tensors whose types are searched.
    pub fn ladders(&self) -> &'a [Ladder] {
        self.ladders
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
            told((before as f32 + part) / rounds as f32, &format!("measurement {done} of {all}, round {}", before + 1))
        };
        let losses = match self.method {
            Method::Every => {
                sensitivity::measured(self.patient, self.ladders, base, of_base, &mut step)?
            }
            Method::One => sensitivity::estimated(self.patient, self.ladders, &mut step)?,
        };
        self.measurements += done;
        for (choices, losses) in self.choices.iter_mut().zip(losses) {
            choices.iter_mut().zip(losses).for_each(|(choice, loss)| choice.loss = loss);
        }
        Ok(())
    }
}
