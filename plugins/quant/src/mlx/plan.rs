//! What the folder will hold, to the byte, before any weight was looked at.

use pajamas_plugin_api::{PluginError, Result};
use serde_json::{Map, Value, json};

use super::affine::Affine;
use super::layout::{Layout, Packed, Role, Slot};
use super::numbers::Float;
use super::recipe::Recipe;
use crate::error::codes;
use crate::source::{Dtype, View};

/// Where a tensor's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Which of the files.
    pub file: usize,
    /// The first byte, counted from the file's beginning.
    pub at: u64,
}

/// How elements become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Bytes(Packed),
    /// Rounded from one type to another, or the same.
    Floats(Float, Float),
    /// Rounded, then quantized: codes, scales and biases.
    Affine(Float, Float, Affine),
}

/// A tensor to make, or the three that a quantized one becomes.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub name: String,
    pub role: Role,
    pub form: Form,
    pub parts: Vec<View<'a>>,
    pub every_2nd: Option<u64>,
    /// Rows that each part gives.
    pub rows: u64,
    /// Bytes of a row of the source.
    pub row_bytes: usize,
    /// Elements of a row.
    pub width: u64,
    pub places: Vec<Place>,
}

impl Tensor<'_> {
    /// How it is quantized, if it is.
    pub fn affine(&self) -> Option<Affine> {
        match self.form {
            Form::Affine(_, _, affine) => Some(affine),
            _ => None,
        }
    }

    /// Elements of the model's own.
    pub fn elements(&self) -> u64 {
        self.parts.len() as u64 * self.rows * self.width
    }

    /// Bytes that a row takes in each of the places.
    pub fn row_sizes(&self) -> Vec<u64> {
        match self.form {
            Form::Bytes(_) => vec![self.row_bytes as u64],
            Form::Floats(_, to) => vec![self.width * to.bytes() as u64],
            Form::Affine(_, to, affine) => {
                let groups = self.width / u64::from(affine.group) * to.bytes() as u64;
                vec![affine.code_bytes(self.width), groups, groups]
            }
        }
    }
}

/// A tensor as a file lists it.
#[derive(Debug)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    bytes: u64,
}

/// A file of tensors.
#[derive(Debug)]
pub(super) struct Shard {
    pub name: String,
    /// What comes before the tensors.
    pub header: Vec<u8>,
    /// All of it.
    pub bytes: u64,
}

/// The tensors and their files.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub tensors: Vec<Tensor<'a>>,
    pub shards: Vec<Shard>,
    /// Which tensor lies in which file, with sums, as JSON.
    pub index: Value,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Parameters of the model.
    pub parameters: u64,
    pub notes: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Plans the files of a model; `asked` is the type that `config.json` asks for.
    ///
    /// # Errors
    /// `tensor-dtype-unsupported`; `tensor-shape` when not one matrix can be quantized.
    pub fn of(layout: Layout<'a>, recipe: &Recipe, asked: Option<Float>) -> Result<Self> {
        let sizes = layout.sizes().clone();
        let (mut tensors, mut entries) = (Vec::new(), Vec::new());
        let (mut matrices, mut whole) = (0, Vec::new());
        for slot in layout.slots {
            let affine = recipe.affine(&slot, &sizes);
            let quantizable = !matches!(slot.role, Role::Vector | Role::Packed(_));
            matrices += usize::from(quantizable);
            if quantizable && affine.is_none() && recipe.bits.is_some() {
                whole.push(slot.name.clone());
            }
            let (tensor, listed) = tensor(slot, recipe, asked, affine)?;
            tensors.push(tensor);
            entries.push(listed);
        }
        let mut notes = layout.notes;
        if let Some(first) = whole.first() {
            let why = format!("whose rows {} does not divide", recipe.group);
            if whole.len() == matrices {
                let what = format!("nothing can be quantized: the model has no matrix but those {why}");
                return Err(PluginError::new(codes::TENSOR_SHAPE, what)
                    .help("a smaller `group_size` may divide them; bf16 and f16 quantize nothing"));
            }
            let others = whole.len() - 1;
            notes.push(format!("`{first}` and {others} other matrices are not quantized: those {why}"));
        }
        let parameters = parameters(&tensors);
        let (shards, map) = files(&entries, recipe.file_bytes, &mut tensors);
        let bytes = entries.iter().flatten().map(|e| e.bytes).sum();
        let index = json!({
            "metadata": {"total_size": bytes, "total_parameters": parameters}, "weight_map": map
        });
        Ok(Self { tensors, shards, index, bytes, parameters, notes })
    }

    /// Elements of all tensors: what progress is measured by.
    pub fn elements(&self) -> u64 {
        self.tensors.iter().map(Tensor::elements).sum()
    }
}

/// A tensor to make, and how files list it.
fn tensor<'a>(
    slot: Slot<'a>,
    recipe: &Recipe,
    asked: Option<Float>,
    affine: Option<Affine>,
) -> Result<(Tensor<'a>, Vec<Entry>)> {
    let Slot { name, role, shape, parts, every_2nd } = slot;
    let form = match role {
        Role::Packed(packed) => {
            check_dtype(&parts, |d| d == Dtype::U8)?;
            Form::Bytes(packed)
        }
        _ => {
            let from = check_dtype(&parts, |d| Float::of(d).is_some())?;
            let from = Float::of(from).unwrap_or(Float::F32);
            let to = recipe.rounded(from, asked);
            affine.map_or(Form::Floats(from, to), |affine| Form::Affine(from, to, affine))
        }
    };
    // Of vectors every second element is a row of its own.
    let by_elements = role == Role::Vector && every_2nd.is_some();
    let width = if by_elements { 1 } else { shape.last().copied().unwrap_or(1) };
    let total: u64 = shape.iter().product();
    let rows = total / width.max(1) / (parts.len() as u64).max(1);
    let row_bytes = match form {
        Form::Bytes(Packed::Words) => width * 4,
        Form::Bytes(Packed::Scales) => width,
        Form::Floats(from, _) | Form::Affine(from, ..) => width * from.bytes() as u64,
    };
    let tensor = Tensor {
        name,
        role,
        form,
        parts,
        every_2nd,
        rows,
        row_bytes: row_bytes as usize,
        width,
        places: Vec::new(),
    };
    let listed = entries(&tensor, &shape);
    Ok((tensor, listed))
}

fn entries(tensor: &Tensor<'_>, shape: &[u64]) -> Vec<Entry> {
    let all_rows = tensor.rows * tensor.parts.len() as u64;
    let sizes: Vec<u64> = tensor.row_sizes().iter().map(|bytes| bytes * all_rows).collect();
    let resized = |width: u64| {
        let mut shape = shape.to_vec();
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        shape
    };
    let entry = |name: String, dtype, shape, bytes| Entry { name, dtype, shape, bytes };
    match (tensor.form, &sizes[..]) {
        (Form::Affine(_, to, affine), &[codes, scales, biases]) => {
            let path = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
            let groups = resized(tensor.width / u64::from(affine.group));
            let words = resized(tensor.width * u64::from(affine.bits) / 32);
            vec![
                entry(tensor.name.clone(), Dtype::U32, words, codes),
                entry(format!("{path}scales"), to.dtype(), groups.clone(), scales),
                entry(format!("{path}biases"), to.dtype(), groups, biases),
            ]
        }
        (form, sizes) => {
            let dtype = match form {
                Form::Bytes(Packed::Words) => Dtype::U32,
                Form::Bytes(Packed::Scales) => Dtype::U8,
                Form::Floats(_, to) | Form::Affine(_, to, _) => to.dtype(),
            };
            vec![entry(tensor.name.clone(), dtype, shape.to_vec(), sizes.iter().sum())]
        }
    }
}

/// The type that all parts have.
fn check_dtype(parts: &[View<'_>], is_good: impl Fn(Dtype) -> bool) -> Result<Dtype> {
    if let Some(bad) = parts.iter().find(|p| !is_good(p.info.dtype)) {
        let what = format!(
            "tensor `{}` holds elements of {}, which are not converted",
            bad.info.name, bad.info.dtype
        );
        return Err(PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what)
            .help("take the model in F32, F16 or BF16"));
    }
    Ok(parts.first().map_or(Dtype::F32, |p| p.info.dtype))
}

/// Puts tensors into files, as many as fit into each, and tells them where they lie.
fn files(entries: &[Vec<Entry>], limit: u64, tensors: &mut [Tensor<'_>]) -> (Vec<Shard>, Map<String, Value>) {
    let all: Vec<&Entry> = entries.iter().flatten().collect();
    let sizes: Vec<u64> = all.iter().map(|e| e.bytes).collect();
    let of = split(&sizes, limit);
    let count = of.last().map_or(1, |last| last + 1);
    let name = |i: usize| match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    };
    let mut map: Vec<(&str, usize)> = all.iter().zip(&of).map(|(e, file)| (e.name.as_str(), *file)).collect();
    map.sort_unstable();
    let map = map.into_iter().map(|(tensor, file)| (tensor.to_owned(), name(file).into())).collect();

    let mut places = Vec::with_capacity(all.len());
    let mut shards = Vec::new();
    for file in 0..count {
        let inside = || all.iter().zip(&of).filter(|(_, f)| **f == file).map(|(e, _)| *e);
        let header = header(inside());
        let mut at = header.len() as u64;
        for entry in inside() {
            places.push(Place { file, at });
            at += entry.bytes;
        }
        shards.push(Shard { name: name(file), header, bytes: at });
    }
    let mut places = places.into_iter();
    for (tensor, entries) in tensors.iter_mut().zip(entries) {
        tensor.places = places.by_ref().take(entries.len()).collect();
    }
    (shards, map)
}

/// Which file each tensor goes into. One that is larger than the limit gets a file of its own (`make_shards`,
/// mlx_lm/utils.py).
fn split(sizes: &[u64], limit: u64) -> Vec<usize> {
    let (mut file, mut bytes, mut first) = (0, 0u64, true);
    let place = |size: &u64| {
        if !first && bytes + size > limit {
            file += 1;
            bytes = 0;
        }
        first = false;
        bytes += size;
        file
    };
    sizes.iter().map(place).collect()
}

/// The header of a file, padded so that tensors begin at a multiple of eight.
fn header<'e>(entries: impl Iterator<Item = &'e Entry>) -> Vec<u8> {
    let mut at = 0;
    let mut listed = Map::new();
    listed.insert("__metadata__".into(), json!({"format": "mlx"}));
    for entry in entries {
        let offsets = [at, at + entry.bytes];
        at = offsets[1];
        let about = json!({"dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": offsets});
        listed.insert(entry.name.clone(), about);
    }
    let mut text = Value::Object(listed).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    header
}

/// Parameters as mlx_lm counts them (`get_total_parameters`, mlx_lm/utils.py): those of modules without modules in them,
/// which leaves out the sinks of gpt-oss; scales are none.
fn parameters(tensors: &[Tensor<'_>]) -> u64 {
    let count = |t: &Tensor<'_>| match t.form {
        Form::Bytes(Packed::Words) => t.elements() * 8,
        Form::Bytes(Packed::Scales) => 0,
        _ if t.name.ends_with(".sinks") => 0,
        _ => t.elements(),
    };
    tensors.iter().map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_filled_up_to_the_limit() {
        assert_eq!(split(&[4, 4, 4, 9, 1, 8], 8), [0, 0, 1, 2, 3, 4]);
        assert_eq!(split(&[9, 1], 8), [0, 1]);
        assert_eq!(split(&[1, 2, 3], 6), [0, 0, 0]);
        assert_eq!(split(&[], 6), [0; 0]);
    }

    #[test]
    fn a_header_is_one_that_our_reader_accepts() {
        let entry = |name: &str, shape: &[u64]| Entry {
            name: name.into(),
            dtype: Dtype::U32,
            shape: shape.to_vec(),
            bytes: shape.iter().product::<u64>() * 4,
        };
        let entries = [entry("a.weight", &[2, 3]), entry("b\"é", &[5])];
        let mut file = header(entries.iter());
        assert_eq!(file.len() % 8, 0);
        file.resize(file.len() + 44, 0);
        let read = crate::source::safetensors::parse(&file).unwrap();
        assert_eq!(read[1].name, "b\"é");
        assert_eq!(read[0].shape, [2, 3]);
    }
}
