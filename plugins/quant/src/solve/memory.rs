//! What was measured, kept on the disk as it comes, so that a run that was killed need not measure it again.
//!
//! A search asks for the same changes and measurements in the same order every time: what is kept is the answers in their
//! order. While they last, nothing is computed; then the changes that are still in force are made.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::Result;

use super::sensitivity::Patient;
use crate::error;

/// The two kinds of answers.
const ROUNDED: &str = "rounded";
const DIVERGED: &str = "diverged";

/// A patient whose answers are kept.
pub(super) struct Remembering<'a> {
    patient: &'a mut dyn Patient,
    /// Answers of the run before, and where each begins in the file.
    known: VecDeque<(String, f64, u64)>,
    remembered: usize,
    /// Changes that were answered from memory and not made yet.
    owed: BTreeMap<usize, TensorType>,
    path: PathBuf,
    file: File,
}

impl<'a> Remembering<'a> {
    /// Keeps answers in the file `path`; those of a run of this identity that are in it are taken up.
    ///
    /// # Errors
    /// `write-failed`.
    pub fn open(patient: &'a mut dyn Patient, path: &Path, identity: &str) -> Result<Self> {
        let unwritable = |e: std::io::Error| error::unwritable(path, &e);
        let head = format!("{identity}\n");
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut known = VecDeque::new();
        let mut end = head.len();
        if text.starts_with(&head) {
            // The last line may have been cut off.
            for line in text[head.len()..].split_inclusive('\n') {
                let Some((what, value)) = answer(line) else { break };
                known.push_back((what.to_owned(), value, end as u64));
                end += line.len();
            }
        }
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(unwritable)?;
        if known.is_empty() {
            file.set_len(0).and_then(|()| file.write_all(head.as_bytes())).map_err(unwritable)?;
        } else {
            let cut = file.set_len(end as u64).and_then(|()| file.seek(SeekFrom::End(0)));
            cut.map_err(unwritable)?;
        }
        let remembered = known.iter().filter(|(what, _, _)| what == DIVERGED).count();
        Ok(Self { patient, known, remembered, owed: BTreeMap::new(), path: path.to_owned(), file })
    }

    /// How many measurements need not be made again.
    pub fn remembered(&self) -> usize {
        self.remembered
    }

    /// The next answer of the run before, if it is one to this question.
    fn recall(&mut self, what: &str) -> Result<Option<f64>> {
        match self.known.front() {
            Some((of, value, _)) if of == what => {
                let value = *value;
                self.known.pop_front();
                Ok(Some(value))
            }
            Some((_, _, begin)) => {
                // Another question: what was answered from here on is of another search.
                let cut = self.file.set_len(*begin).and_then(|()| self.file.seek(SeekFrom::End(0)));
                cut.map_err(|e| error::unwritable(&self.path, &e))?;
                self.known.clear();
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn keep(&mut self, what: &str, value: f64) -> Result<f64> {
        let line = format!("{what} {:016x}\n", value.to_bits());
        self.file.write_all(line.as_bytes()).map_err(|e| error::unwritable(&self.path, &e))?;
        Ok(value)
    }

    /// Makes the changes that were answered from memory.
    fn catch_up(&mut self) -> Result<()> {
        for (tensor, to) in std::mem::take(&mut self.owed) {
            // The copy is new: nothing was changed in it.
            if to != TensorType::F32 {
                self.patient.round(tensor, to)?;
            }
        }
        Ok(())
    }
}

/// What a line says.
fn answer(line: &str) -> Option<(&str, f64)> {
    let (what, bits) = line.strip_suffix('\n')?.split_once(' ')?;
    let known = [ROUNDED, DIVERGED].contains(&what) && bits.len() == 16;
    let bits = u64::from_str_radix(bits, 16).ok().filter(|_| known)?;
    Some((what, f64::from_bits(bits)))
}

impl Patient for Remembering<'_> {
    fn round(&mut self, tensor: usize, to: TensorType) -> Result<f64> {
        if let Some(error) = self.recall(ROUNDED)? {
            self.owed.insert(tensor, to);
            return Ok(error);
        }
        self.catch_up()?;
        let error = self.patient.round(tensor, to)?;
        self.keep(ROUNDED, error)
    }

    fn divergence(&mut self) -> Result<f64> {
        if let Some(divergence) = self.recall(DIVERGED)? {
            return Ok(divergence);
        }
        self.catch_up()?;
        let divergence = self.patient.divergence()?;
        self.keep(DIVERGED, divergence)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sensitivity::tests::Paper;
    use super::*;

    /// A patient that counts, and is killed after so many measurements.
    struct Counted {
        paper: Paper,
        rounds: usize,
        measurements: usize,
        most: usize,
    }

    impl Patient for Counted {
        fn round(&mut self, tensor: usize, to: TensorType) -> Result<f64> {
            self.rounds += 1;
            self.paper.round(tensor, to)
        }

        fn divergence(&mut self) -> Result<f64> {
            if self.measurements == self.most {
                return Err(pajamas_plugin_api::PluginError::cancelled());
            }
            self.measurements += 1;
            self.paper.divergence()
        }
    }

    fn patient(most: usize) -> Counted {
        Counted { paper: Paper::of(&[1.0, 50.0, 7.0]), rounds: 0, measurements: 0, most }
    }

    /// Each tensor at two types, one after the other, the lower of which stays.
    fn search(patient: &mut dyn Patient) -> Result<Vec<f64>> {
        let mut found = Vec::new();
        for tensor in 0..3 {
            for to in [TensorType::Q8_0, TensorType::Q2_K] {
                found.push(patient.round(tensor, to)?);
                found.push(patient.divergence()?);
            }
        }
        Ok(found)
    }

    #[test]
    fn a_search_that_was_killed_anywhere_ends_as_if_it_had_not_been() {
        let folder = tempfile::tempdir().unwrap();
        let whole = search(&mut patient(usize::MAX)).unwrap();
        for killed in 0..6 {
            let path = folder.path().join(killed.to_string());
            let mut first = patient(killed);
            assert!(search(&mut Remembering::open(&mut first, &path, "me").unwrap()).is_err());
            let mut second = patient(usize::MAX);
            let mut remembering = Remembering::open(&mut second, &path, "me").unwrap();
            assert_eq!(remembering.remembered(), killed);
            assert_eq!(search(&mut remembering).unwrap(), whole, "{killed}");
            assert_eq!(second.measurements, 6 - killed);
            assert_eq!(second.paper.errors, first_errors(), "the model is as it would have been");
        }
    }

    fn first_errors() -> Vec<f64> {
        let mut patient = patient(usize::MAX);
        search(&mut patient).unwrap();
        patient.paper.errors
    }

    #[test]
    fn of_another_run_or_half_a_line_nothing_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("measured");
        let remembered =
            |identity: &str| Remembering::open(&mut patient(0), &path, identity).unwrap().remembered();
        let whole = search(&mut Remembering::open(&mut patient(usize::MAX), &path, "me").unwrap());
        let text = fs::read_to_string(&path).unwrap();
        for (kept, wanted) in [(text.len(), 6), (text.len() - 1, 5), (text.len() - 40, 5), (5, 0), (0, 0)] {
            fs::write(&path, &text[..kept]).unwrap();
            assert_eq!(remembered("me"), wanted, "{kept}");
        }
        fs::write(&path, &text).unwrap();
        assert_eq!(remembered("you"), 0);
        assert_eq!(remembered("me"), 0, "another run has begun since");

        // A search that asks otherwise than the one before measures for itself from there on.
        fs::write(&path, text.replacen("diverged", "rounded ", 1).replace("rounded  ", "rounded ")).unwrap();
        let again = search(&mut Remembering::open(&mut patient(usize::MAX), &path, "me").unwrap());
        assert_eq!(again.unwrap(), whole.unwrap());
    }
}
