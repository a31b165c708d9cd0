//! Makes tensors and writes them to their places: several threads, a piece of a tensor each at a time.
//!
//! A piece is some rows of one tensor of the source. Its place in the file is known beforehand, so that pieces can be
//! written in any order, and no more than a piece for each thread is ever in memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use pajamas_plugin_api::{Cancel, PluginError, Result};

use super::affine::Quantized;
use super::drafts::{self, Drafts};
use super::numbers::{self, Float};
use super::plan::{Form, Plan, Tensor};
use super::recipe::Recipe;
use crate::convert::journal::Journal;
use crate::error::{codes, unwritable};
use crate::source::View;

/// Elements of a piece, unless one row is longer.
const PIECE: u64 = 1 << 19;
/// Elements after which what was written is sent to the disk.
const SYNCED: u64 = 1 << 26;

/// Some rows of a part of a tensor.
struct Piece {
    tensor: usize,
    part: usize,
    rows: Range<u64>,
}

/// Bytes that a piece of a plan needs at most, beside what is mapped.
pub(super) fn piece_bytes(plan: &Plan<'_>) -> u64 {
    let of = |t: &Tensor<'_>| t.row_sizes().iter().sum::<u64>() * rows_of(t).min(t.rows);
    // Scales and biases are there as 32-bit floats too.
    plan.tensors.iter().map(|t| of(t) * 5 / 4).max().unwrap_or(0)
}

fn rows_of(tensor: &Tensor<'_>) -> u64 {
    (PIECE / tensor.width.max(1)).max(1)
}

/// Makes the tensors of a plan that are not there, whose files are the first of the drafts. `progress` is told of elements done, and of the
/// tensor that they belong to, and may ask to stop.
///
/// # Errors
/// `weight-not-finite`, `write-failed`, `cancelled`.
pub(super) fn tensors(
    plan: &Plan<'_>,
    recipe: &Recipe,
    run: &Run<'_>,
    progress: &mut dyn FnMut(u64, &str) -> ControlFlow<()>,
) -> Result<()> {
    let Run { drafts, there, journal, cancel } = *run;
    let mut pieces = Vec::new();
    let elements = |tensor: &Tensor<'_>| tensor.rows * tensor.width * tensor.parts.len() as u64;
    let mut left: Vec<u64> = plan.tensors.iter().map(elements).collect();
    let mut made = there.clone();
    let mut done: u64 = there.iter().filter_map(|number| left.get(*number)).sum();
    for (number, tensor) in plan.tensors.iter().enumerate().filter(|(number, _)| !there.contains(number)) {
        for part in 0..tensor.parts.len() {
            let step = rows_of(tensor);
            let starts = (0..tensor.rows).step_by(step as usize);
            pieces.extend(starts.map(|row| Piece {
                tensor: number,
                part,
                rows: row..(row + step).min(tensor.rows),
            }));
        }
    }
    let work = Work {
        plan,
        recipe,
        drafts,
        cancel,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        refused: Mutex::new(None),
        pieces,
    };
    let threads = recipe.threads.min(work.pieces.len()).max(1);
    thread::scope(|scope| {
        let (told, heard) = mpsc::channel();
        for _ in 0..threads {
            let (work, told) = (&work, told.clone());
            scope.spawn(move || work.run(&told));
        }
        drop(told);
        // Ends when the last thread has let go of its end.
        let mut synced = done;
        for (number, elements) in heard {
            let tensor: &Tensor<'_> = &plan.tensors[number];
            done += elements;
            left[number] = left[number].saturating_sub(elements);
            if left[number] == 0 {
                made.insert(number);
                journal.iter().for_each(|journal| journal.note(|| made.iter().copied().collect()));
            }
            if progress(done, &tensor.name).is_break() {
                work.refuse(PluginError::cancelled());
            }
            // The disk works while threads do, and the end waits for the rest only.
            if done - synced > SYNCED {
                synced = done;
                let files = tensor.places.iter().map(|place| place.file).max();
                files.map_or(Ok(()), |file| drafts.sync(file)).unwrap_or_else(|e| work.refuse(e));
            }
        }
    });
    let refused = work.refused.into_inner().unwrap_or_else(PoisonError::into_inner);
    refused.map_or(Ok(()), Err)
}

/// What tensors are written to, and which of them are there.
pub(super) struct Run<'a> {
    pub drafts: &'a Drafts,
    /// Tensors that a run that was killed had made.
    pub there: &'a BTreeSet<usize>,
    pub journal: Option<&'a Journal>,
    pub cancel: &'a Cancel,
}

struct Work<'a> {
    plan: &'a Plan<'a>,
    recipe: &'a Recipe,
    drafts: &'a Drafts,
    cancel: &'a Cancel,
    pieces: Vec<Piece>,
    next: AtomicUsize,
    stop: AtomicBool,
    refused: Mutex<Option<PluginError>>,
}

impl Work<'_> {
    fn run(&self, told: &Sender<(usize, u64)>) {
        let mut buffers = Buffers::default();
        while !self.stop.load(Ordering::Relaxed) {
            let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let Some(tensor) = self.plan.tensors.get(piece.tensor) else { return };
            let made = self.cancel.check().and_then(|()| self.piece(tensor, piece, &mut buffers));
            if let Err(error) = made {
                return self.refuse(error);
            }
            // Nobody listens any more only when the caller's thread is gone.
            let _ = told.send((piece.tensor, (piece.rows.end - piece.rows.start) * tensor.width));
        }
    }

    /// Stops all threads; the first reason is kept.
    fn refuse(&self, error: PluginError) {
        self.stop.store(true, Ordering::Relaxed);
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn piece(&self, tensor: &Tensor<'_>, piece: &Piece, buffers: &mut Buffers) -> Result<()> {
        let Some(view) = tensor.parts.get(piece.part) else { return Ok(()) };
        buffers.clear();
        if tensor.every_2nd.is_none() {
            let first = piece.rows.start as usize * tensor.row_bytes;
            let last = piece.rows.end as usize * tensor.row_bytes;
            self.rows(tensor, *view, first, view.bytes.get(first..last).unwrap_or(&[]), buffers)?;
        } else {
            for row in piece.rows.clone() {
                let at = (row * 2 + tensor.every_2nd.unwrap_or(0)) as usize * tensor.row_bytes;
                self.rows(
                    tensor,
                    *view,
                    at,
                    view.bytes.get(at..at + tensor.row_bytes).unwrap_or(&[]),
                    buffers,
                )?;
            }
        }
        buffers.finish(tensor.form);
        let row = piece.part as u64 * tensor.rows + piece.rows.start;
        let written = [&buffers.bytes, &buffers.scales, &buffers.biases];
        for ((bytes, size), place) in written.into_iter().zip(tensor.row_sizes()).zip(&tensor.places) {
            let (file, path): (&File, &Path) = self.drafts.file(place.file);
            drafts::write_at(file, bytes, place.at + row * size).map_err(|e| unwritable(path, &e))?;
        }
        Ok(())
    }

    /// Converts bytes of a tensor that lie at a place in it.
    fn rows(
        &self,
        tensor: &Tensor<'_>,
        view: View<'_>,
        at: usize,
        bytes: &[u8],
        buffers: &mut Buffers,
    ) -> Result<()> {
        let before = buffers.bytes.len();
        let odd = match tensor.form {
            Form::Bytes(_) => {
                buffers.bytes.extend_from_slice(bytes);
                None
            }
            Form::Floats(from, to) => {
                match from == to {
                    true => buffers.bytes.extend_from_slice(bytes),
                    false => convert(from, to, bytes, &mut buffers.bytes),
                }
                numbers::not_finite(to, &buffers.bytes[before..]).map(|element| (element, from))
            }
            Form::Affine(from, to, affine) => {
                let finite = affine.quantize(bytes, from, to, &mut buffers.quantized);
                let odd = if finite { None } else { numbers::not_finite_as(from, to, bytes) };
                odd.map(|element| (element, from))
            }
        };
        match odd.filter(|_| !self.recipe.allow_non_finite) {
            Some((element, from)) => Err(not_finite(view, at / from.bytes() + element)),
            None => Ok(()),
        }
    }
}

/// What a thread makes of a piece.
#[derive(Default)]
struct Buffers {
    quantized: Quantized,
    bytes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Buffers {
    fn clear(&mut self) {
        self.quantized.clear();
        self.bytes.clear();
        self.scales.clear();
        self.biases.clear();
    }

    /// Scales and biases get their type once codes are made with the exact ones.
    fn finish(&mut self, form: Form) {
        if let Form::Affine(_, to, _) = form {
            std::mem::swap(&mut self.bytes, &mut self.quantized.codes);
            numbers::encode(to, &self.quantized.scales, &mut self.scales);
            numbers::encode(to, &self.quantized.biases, &mut self.biases);
        }
    }
}

/// Rounds numbers to another type, some at a time.
fn convert(from: Float, to: Float, bytes: &[u8], out: &mut Vec<u8>) {
    let mut some = [0.0; 1024];
    for bytes in bytes.chunks(some.len() * from.bytes()) {
        let some = &mut some[..bytes.len() / from.bytes()];
        numbers::decode(from, bytes, some);
        numbers::encode(to, some, out);
    }
}

fn not_finite(view: View<'_>, at: usize) -> PluginError {
    let what = format!(
        "element {at} of tensor `{}` is not a finite number, or too large for the type it is rounded to",
        view.info.name
    );
    PluginError::new(codes::WEIGHT_NOT_FINITE, what)
        .help("take another copy of the model, a wider type, or set `allow_nan`")
}
