//! From a model in floats to llama.cpp's quantized types: the same bytes as `llama-quantize` writes.
//!
//! The types are chosen here, by llama.cpp's own rules ([`choose`]); the numbers are rounded by ggml's own functions. In
//! between, rows stream through the threads: a model is read once and written once, without a file in between, and
//! memory is bounded by what the threads hold.

mod category;
mod choose;
mod gguf_file;
mod importance;
mod ladder;
mod original;
mod precision;
mod rounded;
mod strategy;
mod stream;

use std::collections::BTreeMap;
use std::path::Path;

use pajamas_llama_cpp::gguf::{TensorType, Writer};
use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

pub use choose::Wishes;
pub use gguf_file::GgufFile;
pub(crate) use gguf_file::whole_header;
pub use importance::Importance;
pub(crate) use ladder::{Ladder, ladders};
pub use original::{Folder, Original, Tensor};
pub use precision::FileType;
pub(crate) use rounded::rounded;
pub use strategy::Strategy;

use crate::convert::{Progress, QUANTIZATION_VERSION, output};
use crate::error::{self, codes as own};
use category::is_embeddings;
use choose::Chooser;
use stream::Job;

/// Elements that a thread has in memory at a time.
const CHUNK: usize = 1 << 17;

/// How a model is to be quantized.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// What decides on the types of tensors.
    pub strategy: Strategy,
    /// What of it is to be otherwise.
    pub wishes: Wishes,
    /// The type of every tensor, where a search has chosen them already.
    pub types: Option<Vec<TensorType>>,
    /// How important columns are.
    pub importance: Option<&'a Importance>,
    /// What the importance is called in the file's metadata.
    pub importance_name: String,
    /// Also from blocks that were quantized already, which loses what the first time left.
    pub requantize: bool,
    /// Also numbers that are not finite, in types of plain numbers.
    pub allow_non_finite: bool,
}

/// A quantization that was planned.
pub struct Quantization<'a> {
    original: &'a dyn Original,
    writer: Writer,
    types: Vec<TensorType>,
    importance: Vec<Option<&'a [f32]>>,
    notes: Vec<String>,
    allow_non_finite: bool,
}

impl<'a> Quantization<'a> {
    /// Plans a quantization without a look at the weights' values.
    ///
    /// # Errors
    /// `importance-missing`, `importance-mismatch`, `requantize-refused`, `invalid-option`, `tensor-unexpected`.
    pub fn plan(original: &'a dyn Original, file_type: FileType, options: &Options<'a>) -> Result<Self> {
        let (types, notes) = choose(original, file_type, options)?;
        let mut writer = metadata(original, file_type, options);
        let mut important = Vec::new();
        for (tensor, to) in original.tensors().iter().zip(&types) {
            let means = match options.importance {
                Some(importance) if *to != tensor.tensor_type => {
                    importance.of(&tensor.name, &tensor.dimensions)?
                }
                _ => None,
            };
            check(tensor, *to, file_type, means.is_some(), options)?;
            writer.tensor(&tensor.name, *to, &tensor.dimensions);
            important.push(means);
        }
        Ok(Self {
            original,
            writer,
            types,
            importance: important,
            notes,
            allow_non_finite: options.allow_non_finite,
        })
    }

    /// The type of every tensor, in the original's order.
    pub fn chosen(&self) -> &[TensorType] {
        &self.types
    }

    /// What a person should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The file's exact size.
    ///
    /// # Errors
    /// `internal` when the plan does not hold together.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = self.writer.file_bytes();
        bytes.map_err(|e| PluginError::new(codes::INTERNAL, format!("the plan of the file: {e}")))
    }

    /// How many tensors there are of each type, and the bits that a weight takes on average.
    pub fn types(&self) -> (BTreeMap<&'static str, u64>, f64) {
        count_types(self.original.tensors().iter().zip(self.types.iter().copied()))
    }

    /// The most memory that writing with so many threads needs, in bytes, beside the program itself.
    pub fn peak_memory(&self, threads: usize) -> u64 {
        // Floats, what is made of them, and what waits to be written.
        let chunk =
            self.original.tensors().iter().map(|t| t.columns()).max().unwrap_or(1).max(CHUNK as u64) * 4;
        (threads.max(1) * (2 + stream::AHEAD)) as u64 * chunk + output::BUFFER as u64
    }

    /// Writes the file: whole, or not at all. `progress` is told each tensor's name, and bytes written and in
    /// all; its error stops the writing.
    ///
    /// # Errors
    /// `weight-not-finite`, `quantize-failed`, `write-failed`, `cancelled`.
    pub fn write(
        &self,
        path: &Path,
        threads: usize,
        cancel: &Cancel,
        progress: &mut Progress<'_>,
    ) -> Result<u64> {
        self.write_on(path, None, threads, cancel, progress).map(|written| written.bytes)
    }

    /// As [`write`](Self::write), and goes on where a run of the same identity was killed.
    pub(crate) fn write_on(
        &self,
        path: &Path,
        identity: Option<&str>,
        threads: usize,
        cancel: &Cancel,
        progress: &mut Progress<'_>,
    ) -> Result<output::Written> {
        let total = self.bytes()?;
        output::resumable(path, identity, |out, place| {
            let mut next = 0..self.types.len();
            let mut done = 0;
            output::stream(path, |refuse| {
                self.writer.write(out, |info, out| {
                    let Some(at) = next.next() else { return Ok(()) };
                    if place.has(info.bytes) {
                        done += info.bytes;
                        place.skip(info.bytes, out)?;
                        return progress(&info.name, done, total).map_err(&mut *refuse);
                    }
                    let result = self.tensor(at, threads, cancel, &mut |bytes| {
                        out.write_all(bytes).map_err(|e| error::unwritable(path, &e))?;
                        done += bytes.len() as u64;
                        cancel.check()?;
                        progress(&info.name, done, total)
                    });
                    result.map_err(&mut *refuse)
                })
            })
        })
    }

    fn tensor(
        &self,
        at: usize,
        threads: usize,
        cancel: &Cancel,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let tensor = &self.original.tensors()[at];
        if self.types[at] == tensor.tensor_type {
            return self.original.copy(at, self.allow_non_finite, out);
        }
        let job = Job {
            original: self.original,
            index: at,
            to: self.types[at],
            importance: self.importance[at],
            allow_non_finite: self.allow_non_finite,
        };
        job.run(threads, cancel, out)
    }
}

/// The type of every tensor, and what a person should know of the choice.
fn choose(
    original: &dyn Original,
    file_type: FileType,
    options: &Options<'_>,
) -> Result<(Vec<TensorType>, Vec<String>)> {
    let build = original::build(original)?;
    let tensors = original.tensors();
    let by = |wishes: &Wishes| -> Result<(Vec<TensorType>, Vec<String>)> {
        let names = tensors.iter().map(|t| t.name.as_str());
        let mut chooser = Chooser::new(&build, file_type, wishes, options.importance.is_some(), names);
        let choose = |t: &Tensor| chooser.choose(&t.name, t.tensor_type, &t.dimensions);
        let types = tensors.iter().map(choose).collect::<Result<_>>()?;
        Ok((types, fallbacks(&chooser)))
    };
    let (mut types, mut notes) = by(&options.wishes)?;
    if options.strategy != Strategy::Preset && options.wishes.pure {
        let what = "`pure` gives every matrix the same type, a strategy different ones";
        return Err(PluginError::new(codes::INVALID_OPTION, what).help("leave one of them out"));
    }
    if let Some(chosen) = options.types.as_ref().filter(|chosen| chosen.len() == types.len()) {
        types.clone_from(chosen);
    } else if options.strategy == Strategy::Architecture {
        let (mut base, _) = by(&Wishes { pure: true, ..options.wishes.clone() })?;
        for ((base, preset), tensor) in base.iter_mut().zip(&types).zip(tensors) {
            if is_embeddings(&tensor.name) || tensor.name == "output.weight" {
                *base = *preset;
            }
        }
        let model = strategy::Model {
            windowed: &original::windowed(original, build.layers),
            build: &build,
            tensors,
            importance: options.importance,
            overrides: &options.wishes.overrides,
        };
        let (spent, reasons) = strategy::spend(&model, &types, &base);
        types = spent;
        notes.extend(reasons);
    }
    if let Some(importance) = options.importance {
        let asked = |name: &str| options.wishes.overrides.iter().any(|(pattern, _)| pattern.is_match(name));
        let needs = |tensor: &Tensor, to: TensorType| {
            to != tensor.tensor_type
                && !asked(&tensor.name)
                && (requires_importance(&tensor.name, to, file_type) || to.requires_importance())
        };
        notes.extend(strategy::keep_unknown_experts(tensors, importance, needs, &mut types));
    }
    Ok((types, notes))
}

/// How many tensors become each type, and the bits that a weight takes on average.
pub(crate) fn count_types<'t>(
    tensors: impl Iterator<Item = (&'t Tensor, TensorType)>,
) -> (BTreeMap<&'static str, u64>, f64) {
    let mut counts = BTreeMap::new();
    let (mut elements, mut bytes) = (0, 0);
    for (tensor, to) in tensors {
        *counts.entry(to.name()).or_insert(0) += 1;
        elements += tensor.elements();
        bytes += to.tensor_bytes(&tensor.dimensions).unwrap_or(0);
    }
    (counts, bytes as f64 * 8.0 / elements.max(1) as f64)
}

/// What can be refused before a value is read.
fn check(
    tensor: &Tensor,
    to: TensorType,
    file_type: FileType,
    has_importance: bool,
    options: &Options<'_>,
) -> Result<()> {
    if to == tensor.tensor_type {
        return Ok(());
    }
    if !to.can_be_made() {
        let what = format!("tensor `{}` cannot be made {to}", tensor.name);
        return Err(PluginError::new(codes::INVALID_OPTION, what).help("choose another type for it"));
    }
    if !has_importance && (requires_importance(&tensor.name, to, file_type) || to.requires_importance()) {
        return Err(importance::missing(&tensor.name, to));
    }
    if tensor.tensor_type.is_quantized() && !options.requantize {
        let what = format!(
            "tensor `{}` is {} already: made {to} it would lose twice",
            tensor.name, tensor.tensor_type
        );
        return Err(PluginError::new(own::REQUANTIZE_REFUSED, what)
            .help("take the model in F32, F16 or BF16; or set `allow_requantize`"));
    }
    if options.allow_non_finite && to.is_quantized() {
        let what = format!("`allow_nan` is for plain numbers, but tensor `{}` becomes {to}", tensor.name);
        return Err(PluginError::new(codes::INVALID_OPTION, what).help("take F32, F16 or BF16"));
    }
    Ok(())
}

/// `tensor_requires_imatrix`, llama-quant.cpp.
fn requires_importance(name: &str, to: TensorType, file_type: FileType) -> bool {
    if is_embeddings(name) || name == "output.weight" {
        return false;
    }
    match to {
        TensorType::IQ3_XXS
        | TensorType::IQ2_XXS
        | TensorType::IQ2_XS
        | TensorType::IQ2_S
        | TensorType::IQ1_M
        | TensorType::IQ1_S => true,
        TensorType::Q2_K => file_type == FileType::Q2_K_S,
        _ => false,
    }
}

/// The original's metadata, with what llama.cpp's quantizer changes in it.
fn metadata(original: &dyn Original, file_type: FileType, options: &Options<'_>) -> Writer {
    let mut writer = original.metadata().clone();
    writer.set_last("general.quantization_version", QUANTIZATION_VERSION);
    writer.set_last("general.file_type", file_type.number());
    // These come from its command line tool (tools/quantize/quantize.cpp).
    if let Some(importance) = options.importance {
        writer.set_last("quantize.imatrix.file", options.importance_name.as_str());
        if let Some(dataset) = importance.datasets.first() {
            writer.set_last("quantize.imatrix.dataset", dataset.as_str());
        }
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        writer.set_last("quantize.imatrix.entries_count", count(importance.len() as u64));
        if importance.chunks > 0 {
            writer.set_last("quantize.imatrix.chunks_count", count(importance.chunks));
        }
    }
    writer
}

fn fallbacks(chooser: &Chooser<'_>) -> Vec<String> {
    let mut kinds: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (name, wanted, got) in &chooser.fallbacks {
        kinds.entry((wanted.name(), got.name())).or_default().push(name);
    }
    let note = |((wanted, got), names): ((&str, &str), Vec<&str>)| {
        let (count, first) = (names.len(), names[0]);
        format!(
            "{count} tensors became {got} instead of {wanted}, whose blocks do not divide their rows: `{first}` …"
        )
    };
    kinds.into_iter().map(note).collect()
}
