//! From a folder of MLX back to plain numbers in 32 bits, in a folder of Hugging Face: to measure what was lost.
//!
//! A code stands for `code * scale + bias`, which is computed in 32 bits; everything else is widened. Experts that the
//! class has stacked lie apart again.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use pajamas_plugin_api::{Cancel, PluginError, Result};
use serde_json::{Map, Value, json};

use super::affine::Affine;
use super::numbers::{self, Float};
use crate::error::{self, codes};
use crate::evaluate::TensorBits;
use crate::source::{Dtype, Source, View};

/// Weights with a common scale where the configuration does not say (mlx, `quantize`).
const GROUP: u32 = 64;
/// Files beside the weights that a conversion reads.
const COPIED: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
];

/// A folder whose configuration says that MLX quantized it.
#[derive(Debug)]
pub(crate) struct Folder {
    source: Source,
    tensors: Vec<Stored>,
}

/// A tensor of the folder.
#[derive(Debug)]
struct Stored {
    /// The name of its numbers, or of its codes.
    name: String,
    /// How it is quantized, if it is.
    affine: Option<Affine>,
    /// Its dimensions, outermost first, in weights.
    shape: Vec<u64>,
}

impl Folder {
    /// Opens a folder; `None` when it is not one of MLX: plain folders of both are the same.
    ///
    /// # Errors
    /// Those of [`Source::open`]; `tensor-dtype-unsupported` for ways to quantize other than `affine`;
    /// `tensor-shape` and `tensor-missing` when codes, scales and biases do not belong together.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let source = Source::open(path)?;
        // What other tools write has the name of its method.
        let Some(quantization) = source.config.given().get("quantization").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut tensors = Vec::new();
        for view in source.weights.iter() {
            let name = view.info.name.as_str();
            let path = name.strip_suffix(".weight");
            let has = |end: &str| path.and_then(|path| source.weights.get(&format!("{path}{end}")));
            if is_part(&source, name) {
                continue;
            }
            let (Some(path), Some(scales)) = (path, has(".scales")) else {
                let shape = view.info.shape.clone();
                tensors.push(Stored { name: name.to_owned(), affine: None, shape });
                continue;
            };
            let Some(biases) = has(".biases") else {
                let what =
                    format!("tensor `{name}` has scales and no biases: only `affine` codes are read back");
                return Err(PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what));
            };
            let affine = method(quantization, path, view, scales)?;
            tensors.push(Stored::of(view, scales, biases, affine)?);
        }
        Ok(Some(Self { source, tensors }))
    }

    /// How many bits the numbers of each tensor take.
    pub fn tensors(&self) -> Vec<TensorBits> {
        let of = |tensor: &Stored| {
            let path = tensor.name.trim_end_matches(".weight");
            let ends = [".scales", ".biases"].map(|end| format!("{path}{end}"));
            let names = [&tensor.name].into_iter().chain(tensor.affine.iter().flat_map(|_| &ends));
            let bytes: usize = names.filter_map(|n| self.source.weights.get(n)).map(|v| v.bytes.len()).sum();
            let elements: u64 = tensor.shape.iter().product();
            let plain = || self.source.weights.get(&tensor.name).map(|v| v.info.dtype.name().to_lowercase());
            let stored = match tensor.affine {
                Some(affine) => format!("{}-bit/{}", affine.bits, affine.group),
                None => plain().unwrap_or_default(),
            };
            let bits = bytes as f64 * 8.0 / elements.max(1) as f64;
            TensorBits { name: tensor.name.clone(), stored, elements, bits }
        };
        self.tensors.iter().map(of).collect()
    }

    /// Writes plain numbers into a folder that is made for it.
    ///
    /// # Errors
    /// `write-failed`, `tensor-dtype-unsupported`, `cancelled`.
    pub fn restore(&self, folder: &Path, cancel: &Cancel) -> Result<()> {
        fs::create_dir_all(folder).map_err(|e| error::unwritable(folder, &e))?;
        for name in COPIED {
            let from = self.source.path(name);
            if from.is_file() {
                fs::copy(&from, folder.join(name)).map_err(|e| error::unwritable(folder, &e))?;
            }
        }
        let mut config = self.source.config.given().clone();
        config.remove("quantization");
        config.remove("quantization_config");
        let path = folder.join("config.json");
        let text = Value::Object(config).to_string();
        fs::write(&path, text).map_err(|e| error::unwritable(&path, &e))?;
        self.write(&folder.join("model.safetensors"), cancel)
    }

    fn write(&self, path: &Path, cancel: &Cancel) -> Result<()> {
        let failed = |e: std::io::Error| error::unwritable(path, &e);
        let parts: Vec<(&Stored, Vec<Part>)> = self.tensors.iter().map(|t| (t, t.parts())).collect();
        let mut header = Map::new();
        let mut at = 0u64;
        for part in parts.iter().flat_map(|(_, parts)| parts) {
            let end = at + part.shape.iter().product::<u64>() * 4;
            header.insert(
                part.name.clone(),
                json!({ "dtype": "F32", "shape": part.shape, "data_offsets": [at, end] }),
            );
            at = end;
        }
        let header = Value::Object(header).to_string();
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        out.write_all(header.as_bytes()).map_err(failed)?;
        // Parts of a tensor lie in it one after the other, and so does what they become.
        for (tensor, _) in parts {
            self.floats(tensor, &mut |floats| {
                cancel.check()?;
                floats.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())).map_err(failed)
            })?;
        }
        out.flush().map_err(failed)
    }

    /// Gives the numbers of a tensor to `out`, some rows at a time.
    fn floats(&self, tensor: &Stored, out: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let find = |name: &str| {
            let missing = || PluginError::new(codes::TENSOR_MISSING, format!("there is no tensor `{name}`"));
            self.source.weights.get(name).ok_or_else(missing)
        };
        let view = find(&tensor.name)?;
        let Some(affine) = tensor.affine else {
            let float = float(view)?;
            let mut values = vec![0.0; 1 << 16];
            return view.bytes.chunks(values.len() * float.bytes()).try_for_each(|bytes| {
                let values = &mut values[..bytes.len() / float.bytes()];
                numbers::decode(float, bytes, values);
                out(values)
            });
        };
        let path = tensor.name.trim_end_matches(".weight");
        let (scales, biases) = (find(&format!("{path}.scales"))?, find(&format!("{path}.biases"))?);
        let columns = tensor.shape.last().copied().unwrap_or(1) as usize;
        let groups = columns / affine.group as usize;
        let (row, of_scale, of_bias) =
            (affine.code_bytes(columns as u64) as usize, float(scales)?, float(biases)?);
        let (mut steps, mut starts) = (vec![0.0; groups], vec![0.0; groups]);
        let mut values = Vec::with_capacity(columns);
        let ends = scales
            .bytes
            .chunks_exact(groups * of_scale.bytes())
            .zip(biases.bytes.chunks_exact(groups * of_bias.bytes()));
        for (codes, (scales, biases)) in view.bytes.chunks_exact(row).zip(ends) {
            numbers::decode(of_scale, scales, &mut steps);
            numbers::decode(of_bias, biases, &mut starts);
            values.clear();
            affine.restore(codes, &steps, &starts, &mut values);
            out(&values)?;
        }
        Ok(())
    }
}

/// A tensor as a folder of Hugging Face has it.
struct Part {
    name: String,
    shape: Vec<u64>,
}

impl Stored {
    fn of(view: View<'_>, scales: View<'_>, biases: View<'_>, affine: Affine) -> Result<Self> {
        let name = &view.info.name;
        let words = view.info.shape.last().copied().unwrap_or(0);
        let columns = words * 32 / u64::from(affine.bits);
        let mut shape = view.info.shape.clone();
        let mut groups = view.info.shape.clone();
        if let (Some(last), Some(group)) = (shape.last_mut(), groups.last_mut()) {
            (*last, *group) = (columns, columns / u64::from(affine.group));
        }
        let whole = words * 32 == columns * u64::from(affine.bits)
            && columns.is_multiple_of(u64::from(affine.group))
            && columns > 0;
        if !whole
            || view.info.dtype != Dtype::U32
            || scales.info.shape != groups
            || biases.info.shape != groups
        {
            let what = format!("the codes, scales and biases of tensor `{name}` do not belong together");
            return Err(PluginError::new(codes::TENSOR_SHAPE, what)
                .help("config.json and weights belong to different models"));
        }
        Ok(Self { name: name.clone(), affine: Some(affine), shape })
    }

    /// What it becomes: itself, or one tensor for each of the experts that it stacks.
    fn parts(&self) -> Vec<Part> {
        let whole = || vec![Part { name: self.name.clone(), shape: self.shape.clone() }];
        let (Some((before, after)), [experts, rows, columns]) =
            (self.name.split_once(".switch_mlp."), &self.shape[..])
        else {
            return whole();
        };
        // Mixtral's experts have names of their own (mlx_lm/models/mixtral.py, `sanitize`).
        let after = match (before.ends_with("block_sparse_moe"), after) {
            (true, "gate_proj.weight") => "w1.weight",
            (true, "down_proj.weight") => "w2.weight",
            (true, "up_proj.weight") => "w3.weight",
            _ => after,
        };
        let part = |expert: u64| Part {
            name: format!("{before}.experts.{expert}.{after}"),
            shape: vec![*rows, *columns],
        };
        (0..*experts).map(part).collect()
    }
}

/// Whether a tensor is the scales or biases of another.
fn is_part(source: &Source, name: &str) -> bool {
    let path = name.strip_suffix(".scales").or_else(|| name.strip_suffix(".biases"));
    path.is_some_and(|path| source.weights.get(&format!("{path}.weight")).is_some())
}

/// How a layer is quantized: what the configuration says of it, or of all.
fn method(
    quantization: &Map<String, Value>,
    path: &str,
    codes_of: View<'_>,
    scales: View<'_>,
) -> Result<Affine> {
    let own = quantization.get(path).and_then(Value::as_object).unwrap_or(quantization);
    let mode = own.get("mode").or_else(|| quantization.get("mode")).and_then(Value::as_str);
    let number = |key: &str| own.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let group = number("group_size").unwrap_or(GROUP);
    // The number of groups tells the bits, whatever the configuration leaves out.
    let words = codes_of.info.shape.last().copied().unwrap_or(0);
    let columns = scales.info.shape.last().copied().unwrap_or(0) * u64::from(group);
    let told = (words * 32).checked_div(columns).and_then(|bits| u32::try_from(bits).ok());
    let bits = number("bits").or(told).unwrap_or(0);
    let affine = Affine::new(bits, group).filter(|_| mode.is_none_or(|mode| mode == "affine"));
    affine.ok_or_else(|| {
        let mode = mode.unwrap_or("affine").escape_debug().to_string();
        let what = format!("`{path}` is quantized as {mode} with {bits} bits in groups of {group}");
        PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what)
            .help("only MLX's affine codes of 2 to 8 bits are read back")
    })
}

fn float(view: View<'_>) -> Result<Float> {
    Float::of(view.info.dtype).ok_or_else(|| {
        let what = format!("tensor `{}` holds elements of {}", view.info.name, view.info.dtype);
        PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what)
    })
}
