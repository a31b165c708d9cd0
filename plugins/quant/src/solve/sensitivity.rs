//! How much a model suffers when one of its tensors has fewer bits.
//!
//! A tensor is written into a copy of the model in 32-bit floats as it comes back out of a type's blocks, the copy is
//! compared with the model, and the tensor is put back. What is measured is thus what the rounding of this tensor loses.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use pajamas_llama_cpp::Library;
use pajamas_llama_cpp::gguf::{Header, TensorType};
use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

use crate::error;
use crate::evaluate::Reference;
use crate::quantize::{Importance, Ladder, Original, rounded};

/// A model whose tensors are changed one at a time, and what that makes of it.
pub(super) trait Patient {
    /// Rounds a tensor to a type; to `F32` puts it back. Returns by how much its numbers differ from what they were.
    fn round(&mut self, tensor: usize, to: TensorType) -> Result<f64>;

    /// How far the model is from what it was, in nats.
    fn divergence(&mut self) -> Result<f64>;
}

/// What is told after each measurement; its error stops the work.
pub(super) type Told<'t> = dyn FnMut() -> Result<()> + 't;

/// For each tensor and each type that it could have, the divergence that the type adds to a model whose free tensors
/// are of the types `base`, each measured.
///
/// # Errors
/// Those of the patient and of `told`.
pub(super) fn measured(
    patient: &mut dyn Patient,
    ladders: &[Ladder],
    base: &[TensorType],
    of_base: f64,
    told: &mut Told<'_>,
) -> Result<Vec<Vec<f64>>> {
    let mut all = Vec::with_capacity(ladders.len());
    for (ladder, base) in ladders.iter().zip(base) {
        let mut one = Vec::with_capacity(ladder.types.len());
        for to in &ladder.types {
            if to == base {
                one.push(0.0);
                continue;
            }
            patient.round(ladder.tensor, *to)?;
            one.push(finite(patient.divergence()? - of_base));
            told()?;
        }
        patient.round(ladder.tensor, *base)?;
        all.push(one);
    }
    Ok(all)
}

/// The same of a model without a loss, with one measurement a tensor, of its lowest type: small changes of weights move
/// the divergence by their squares, so that the types of a tensor are told apart by their squared errors.
///
/// # Errors
/// Those of the patient and of `told`.
pub(super) fn estimated(
    patient: &mut dyn Patient,
    ladders: &[Ladder],
    told: &mut Told<'_>,
) -> Result<Vec<Vec<f64>>> {
    let mut all = Vec::with_capacity(ladders.len());
    for ladder in ladders {
        let errors = ladder.types.iter().rev().map(|to| patient.round(ladder.tensor, *to));
        let mut errors = errors.collect::<Result<Vec<f64>>>()?;
        errors.reverse();
        let lowest = finite(patient.divergence()?);
        told()?;
        patient.round(ladder.tensor, TensorType::F32)?;
        let of_lowest = errors.first().copied().unwrap_or(0.0);
        let share = |error: &f64| if of_lowest > 0.0 { lowest * error / of_lowest } else { 0.0 };
        all.push(errors.iter().map(share).collect());
    }
    Ok(all)
}

/// A model that computes nothing any more is infinitely far.
fn finite(divergence: f64) -> f64 {
    if divergence.is_nan() { f64::INFINITY } else { divergence }
}

/// A model in a file of 32-bit floats, which is changed in place. It is loaded for each measurement: nothing reads the
/// file while it is written.
pub(super) struct Copy<'a> {
    original: &'a dyn Original,
    importance: Option<&'a Importance>,
    library: &'a Library,
    reference: &'a Reference,
    path: &'a Path,
    file: File,
    /// Where the original's tensors begin in the file.
    places: Vec<Option<u64>>,
    threads: usize,
    cancel: &'a Cancel,
}

impl<'a> Copy<'a> {
    /// The file `path`, which holds the original's tensors in 32 bits.
    ///
    /// # Errors
    /// `write-failed`, `internal` when it is not as it should be.
    pub fn open(
        original: &'a dyn Original,
        importance: Option<&'a Importance>,
        (library, reference): (&'a Library, &'a Reference),
        path: &'a Path,
        threads: usize,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let header = Header::open(path)
            .map_err(|e| PluginError::new(codes::INTERNAL, format!("{}: {e}", path.display())))?;
        let file = OpenOptions::new().write(true).open(path).map_err(|e| error::unwritable(path, &e))?;
        let place = |name: &String| {
            let found = header.tensors.iter().find(|info| info.name == *name);
            let plain = found.filter(|info| info.tensor_type == TensorType::F32);
            plain.map(|info| header.data_offset + info.offset)
        };
        let places = original.tensors().iter().map(|tensor| place(&tensor.name)).collect();
        Ok(Self { original, importance, library, reference, path, file, places, threads, cancel })
    }
}

impl Patient for Copy<'_> {
    fn round(&mut self, tensor: usize, to: TensorType) -> Result<f64> {
        let Some(place) = self.places[tensor] else {
            let what = format!("tensor `{}` is not in 32 bits", self.original.tensors()[tensor].name);
            return Err(PluginError::new(codes::INTERNAL, what));
        };
        let unwritable = |e: std::io::Error| error::unwritable(self.path, &e);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(place)).map_err(unwritable)?;
        let mut bytes = Vec::new();
        rounded(self.original, tensor, to, self.importance, self.threads, self.cancel, &mut |floats| {
            bytes.clear();
            floats.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            file.write_all(&bytes).map_err(unwritable)
        })
    }

    fn divergence(&mut self) -> Result<f64> {
        Ok(self.reference.compare(self.library, self.path, self.cancel)?.kld.mean)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::ops::Range;

    use pajamas_llama_cpp::gguf::{Value, Writer};

    use super::*;
    use crate::quantize::Tensor;

    /// Tensors without numbers.
    pub struct Nothing(pub Vec<Tensor>);

    impl Original for Nothing {
        fn metadata(&self) -> &Writer {
            unreachable!("nothing of it is written")
        }

        fn value(&self, _: &str) -> Option<&Value> {
            None
        }

        fn family(&self) -> &str {
            "llama"
        }

        fn tensors(&self) -> &[Tensor] {
            &self.0
        }

        fn floats(&self, _: usize, _: Range<u64>, _: &mut Vec<f32>) -> Result<()> {
            unreachable!("it has no numbers")
        }

        fn copy(&self, _: usize, _: bool, _: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
            unreachable!("it has no bytes")
        }
    }

    /// A model whose divergence is the sum of the squared errors of its tensors, each as bad as its weight says.
    pub struct Paper {
        pub weights: Vec<f64>,
        pub errors: Vec<f64>,
    }

    impl Paper {
        pub fn of(weights: &[f64]) -> Self {
            Self { weights: weights.to_vec(), errors: vec![0.0; weights.len()] }
        }
    }

    impl Patient for Paper {
        fn round(&mut self, tensor: usize, to: TensorType) -> Result<f64> {
            let bits = to.block_bytes() as f64 * 8.0 / to.block_len() as f64;
            self.errors[tensor] = if to == TensorType::F32 { 0.0 } else { 4f64.powf(-bits) };
            Ok(self.errors[tensor])
        }

        fn divergence(&mut self) -> Result<f64> {
            Ok(self.errors.iter().zip(&self.weights).map(|(error, weight)| error * weight).sum())
        }
    }

    fn ladders() -> Vec<Ladder> {
        let types = vec![TensorType::Q2_K, TensorType::Q4_K, TensorType::Q8_0];
        (0..2).map(|tensor| Ladder { tensor, types: types.clone() }).collect()
    }

    #[test]
    fn where_errors_are_small_the_estimate_is_what_is_measured() {
        let (mut paper, plain) = (Paper::of(&[1.0, 50.0]), [TensorType::F32; 2]);
        let count = Cell::new(0);
        let mut told = || {
            count.set(count.get() + 1);
            Ok(())
        };
        let measured = measured(&mut paper, &ladders(), &plain, 0.0, &mut told).unwrap();
        assert_eq!((count.get(), &paper.errors), (6, &vec![0.0; 2]), "the model is what it was");
        let estimated = estimated(&mut paper, &ladders(), &mut told).unwrap();
        assert_eq!((count.get(), &paper.errors), (8, &vec![0.0; 2]));
        for (a, b) in measured.iter().flatten().zip(estimated.iter().flatten()) {
            assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        }
        assert!(measured[1][0] > measured[0][0] && measured[0][0] > measured[0][1]);
    }

    #[test]
    fn around_types_that_were_chosen_fewer_bits_add_and_more_take_away() {
        let (mut paper, base) = (Paper::of(&[1.0, 50.0]), [TensorType::Q4_K; 2]);
        for (tensor, to) in base.iter().enumerate() {
            paper.round(tensor, *to).unwrap();
        }
        let of_base = paper.divergence().unwrap();
        let added = measured(&mut paper, &ladders(), &base, of_base, &mut || Ok(())).unwrap();
        assert!(added.iter().all(|one| one[0] > 0.0 && one[1] == 0.0 && one[2] < 0.0), "{added:?}");
        assert_eq!(paper.divergence().unwrap(), of_base);
    }

    #[test]
    fn who_stops_is_obeyed_at_once() {
        let mut paper = Paper::of(&[1.0, 1.0]);
        let stopped = measured(&mut paper, &ladders(), &[TensorType::F32; 2], 0.0, &mut || {
            Err(PluginError::cancelled())
        });
        assert_eq!(stopped.unwrap_err().code, codes::CANCELLED);
    }
}
