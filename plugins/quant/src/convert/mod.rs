//! From a Hugging Face folder to a GGUF file: the same tensors and the same metadata as llama.cpp's own converter
//! (`convert_hf_to_gguf.py`) writes.
//!
//! A conversion is planned first, without a look at the weights' values, so that its exact size is known and what
//! cannot be converted is refused before anything is written. Then tensors stream through, one at a time.

mod encode;
pub(crate) mod journal;
mod mxfp4;
mod names;
pub(crate) mod output;
mod params;
mod plan;
mod recipe;
mod rope;
mod sum;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use pajamas_llama_cpp::gguf::Writer;
use pajamas_plugin_api::{Cancel, PluginError, Result, codes};

use crate::architecture::Architecture;
use crate::general::{self, Size};
use crate::quantize::Tensor;
use crate::source::Source;
use crate::tokenizer::Vocabulary;
use recipe::Recipe;

/// The version of quantized blocks (`GGML_QNT_VERSION`, ggml.h).
pub(crate) const QUANTIZATION_VERSION: u32 = 2;

/// What is told a tensor's name, and the bytes written so far and in all; its error stops the work.
pub type Progress<'p> = dyn FnMut(&str, u64, u64) -> Result<()> + 'p;

/// How matrices are stored: what the converter calls `--outtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    Bf16,
    /// Blocks of 32 signed bytes with one 16-bit scale.
    Q8_0,
}

impl OutType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The number of `general.file_type` (`llama_ftype`, llama.h).
    fn file_type(self, family: &str) -> u32 {
        match self {
            Self::Q8_0 => 7,
            // Experts stay in their four-bit blocks, which names the file.
            _ if family == Architecture::GptOss.gguf() => 38,
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
        }
    }
}

impl FromStr for OutType {
    type Err = PluginError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            PluginError::new(codes::INVALID_OPTION, format!("`{}` is no type of a file", name.escape_debug()))
                .help(format!("types are: {names}"))
        })
    }
}

/// A conversion that was planned.
#[derive(Debug)]
pub struct Conversion<'a> {
    source: &'a Source,
    writer: Writer,
    recipes: Vec<Recipe>,
    notes: Vec<String>,
    allow_non_finite: bool,
}

impl<'a> Conversion<'a> {
    /// Plans a conversion. `pre` is llama.cpp's name for how the tokenizer splits text, where it cannot be found out.
    ///
    /// # Errors
    /// What the model lacks, or has too much of, each with a code of its own ([`crate::error::codes`]).
    pub fn plan(source: &'a Source, out_type: OutType, pre: Option<&str>) -> Result<Self> {
        let architecture = Architecture::detect(source)?;
        refuse_quantized(source, architecture)?;
        let vocabulary = Vocabulary::of(source, architecture, pre)?;
        let plan = plan::plan(source, architecture, out_type, Some(vocabulary.len() as u64))?;
        let mut writer = Writer::new(architecture.gguf());
        params::early(source, architecture, &mut writer)?;
        general::write(source, size(&plan.recipes), &mut writer)?;
        params::write(source, architecture, out_type, &mut writer)?;
        writer.set("general.quantization_version", QUANTIZATION_VERSION);
        vocabulary.write(source, architecture, &mut writer)?;
        for recipe in &plan.recipes {
            let inner: Vec<u64> = recipe.shape.iter().rev().copied().collect();
            writer.tensor(&recipe.name, recipe.to, &inner);
        }
        Ok(Self { source, writer, recipes: plan.recipes, notes: plan.notes, allow_non_finite: false })
    }

    /// Converts weights that are no finite numbers too, instead of refusing them.
    #[must_use]
    pub fn allow_non_finite(mut self, allow: bool) -> Self {
        self.allow_non_finite = allow;
        self
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
        crate::quantize::count_types(self.tensors().iter().map(|t| (t, t.tensor_type)))
    }

    /// The most memory that writing needs, in bytes, beside the program itself.
    pub fn peak_memory(&self) -> u64 {
        // Rows are joined up to a chunk, as floats and as what they become; longer ones come alone.
        let row = self.recipes.iter().filter_map(|r| r.shape.last()).max().copied().unwrap_or(1);
        row.max(recipe::CHUNK as u64) * 8 + output::BUFFER as u64
    }

    /// Writes the file: whole, or not at all. `progress` is told each tensor's name, and bytes written and in all; its
    /// error stops the writing.
    ///
    /// # Errors
    /// `weight-not-finite`, `write-failed`, `cancelled`.
    pub fn write(&self, path: &Path, cancel: &Cancel, progress: &mut Progress<'_>) -> Result<u64> {
        self.write_on(path, None, cancel, progress).map(|written| written.bytes)
    }

    /// As [`write`](Self::write), and goes on where a run of the same identity was killed.
    pub(crate) fn write_on(
        &self,
        path: &Path,
        identity: Option<&str>,
        cancel: &Cancel,
        progress: &mut Progress<'_>,
    ) -> Result<output::Written> {
        let total = self.bytes()?;
        let mut done = 0;
        let mut recipes = self.recipes.iter();
        output::resumable(path, identity, |out, place| {
            output::stream(path, |refuse| {
                self.writer.write(out, |info, out| {
                    let Some(recipe) = recipes.next() else { return Ok(()) };
                    if place.has(info.bytes) {
                        done += info.bytes;
                        place.skip(info.bytes, out)?;
                        return progress(&recipe.name, done, total).map_err(&mut *refuse);
                    }
                    let written = recipe.write(self.source, self.allow_non_finite, &mut |bytes| {
                        // A tensor that is copied whole comes in one piece.
                        bytes.chunks(output::BUFFER).try_for_each(|bytes| {
                            cancel.check()?;
                            out.write_all(bytes).map_err(|e| crate::error::unwritable(path, &e))?;
                            done += bytes.len() as u64;
                            progress(&recipe.name, done, total)
                        })
                    });
                    written.map_err(&mut *refuse)
                })
            })
        })
    }

    /// The tensors of the file, in its order.
    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let tensor = |recipe: &Recipe| Tensor {
            name: recipe.name.clone(),
            tensor_type: recipe.to,
            dimensions: recipe.shape.iter().rev().copied().collect(),
        };
        self.recipes.iter().map(tensor).collect()
    }

    /// The file's metadata.
    pub(crate) fn metadata(&self) -> Writer {
        self.writer.metadata_only()
    }

    /// Appends rows of a tensor as floats.
    pub(crate) fn floats(&self, tensor: usize, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        self.recipes[tensor].floats(self.source, rows, out)
    }

    /// Gives a tensor's bytes to `out`, some at a time.
    pub(crate) fn copy(
        &self,
        tensor: usize,
        allow_non_finite: bool,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.recipes[tensor].write(self.source, allow_non_finite, out)
    }
}

/// Weights that were quantized already are other numbers than the names of their tensors promise.
fn refuse_quantized(source: &Source, architecture: Architecture) -> Result<()> {
    let Some(quantization) = source.config.get("quantization_config") else { return Ok(()) };
    let method = quantization.get("quant_method").and_then(|m| m.as_str()).unwrap_or("unknown");
    if architecture == Architecture::GptOss && method == "mxfp4" {
        return Ok(());
    }
    let what = format!("the model is quantized already, with the method `{}`", method.escape_debug());
    Err(PluginError::new(crate::error::codes::TENSOR_DTYPE_UNSUPPORTED, what)
        .help("take the model in F32, F16 or BF16"))
}

/// Counts parameters the way that the converter's size label wants them (gguf-py/gguf/gguf_writer.py,
/// `get_total_parameter_count`).
fn size(recipes: &[Recipe]) -> Size {
    let mut size = Size::default();
    let (mut experts, mut tensors) = (0, 0);
    for recipe in recipes {
        let elements = recipe.elements();
        size.total += elements;
        match (recipe.name.contains("_exps."), &recipe.shape[..]) {
            (true, [.., count, _, _]) if !recipe.name.contains(".bias") => {
                size.expert += elements / count.max(&1);
                experts += count;
                tensors += 1;
            }
            _ => size.shared += elements,
        }
    }
    size.experts = experts.checked_div(tensors).unwrap_or(0);
    size
}
