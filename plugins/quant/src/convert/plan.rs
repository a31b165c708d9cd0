//! Which tensors the file has, in llama.cpp's converter's order.

use std::collections::BTreeMap;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result};

use super::recipe::{From, Order, Recipe};
use super::{OutType, encode, names, rope};
use crate::architecture::Architecture;
use crate::error::codes;
use crate::source::{Dtype, Source, View};

/// GGUF's type of four-bit blocks with one scale.
const MXFP4: u32 = 39;
/// The most dimensions of a tensor in ggml.
const MAX_DIMENSIONS: usize = 4;

/// The tensors of the file, and what a person should know about them.
pub(super) struct Plan {
    pub recipes: Vec<Recipe>,
    pub notes: Vec<String>,
}

/// Plans the tensors of a conversion.
///
/// `rows` is how many rows the embeddings keep, when the vocabulary decides on it.
///
/// # Errors
/// `tensor-unexpected`, `tensor-missing`, `tensor-shape`, `tensor-dtype-unsupported`, `architecture-unsupported`.
pub(super) fn plan(
    source: &Source,
    architecture: Architecture,
    out_type: OutType,
    rows: Option<u64>,
) -> Result<Plan> {
    let mut planner = Planner {
        source,
        architecture,
        out_type,
        rows,
        experts: BTreeMap::new(),
        plan: Vec::new(),
        skipped: Vec::new(),
    };
    planner.extra()?;
    for view in source.weights.iter() {
        planner.add(view)?;
    }
    planner.finish()
}

struct Planner<'a> {
    source: &'a Source,
    architecture: Architecture,
    out_type: OutType,
    rows: Option<u64>,
    /// Names of experts' tensors that were seen, by layer, until a layer has all.
    experts: BTreeMap<u32, Vec<String>>,
    plan: Vec<Recipe>,
    skipped: Vec<String>,
}

impl Planner<'_> {
    /// Tensors that come first: computed ones, and those that are only moved.
    fn extra(&mut self) -> Result<()> {
        for (name, values) in rope::tensors(self.architecture, &self.source.config)? {
            let shape = vec![values.len() as u64];
            self.push(name, shape, TensorType::F32, From::Values(values));
        }
        if self.architecture != Architecture::GptOss {
            return Ok(());
        }
        for view in self.source.weights.iter() {
            let Some(stem) = view.info.name.strip_suffix("_scales") else { continue };
            let to = TensorType::from_number(MXFP4).unwrap_or(TensorType::F16);
            let blocks = super::recipe::find(self.source, &format!("{stem}_blocks"))?;
            let mut shape = mxfp4_shape(blocks, view)?;
            let parts = match stem.strip_suffix("gate_up_proj") {
                None => vec![(stem.to_owned(), Order::Straight)],
                Some(stem) => {
                    shape[1] /= 2;
                    vec![
                        (format!("{stem}gate_proj"), Order::Every2nd(0)),
                        (format!("{stem}up_proj"), Order::Every2nd(1)),
                    ]
                }
            };
            for (name, order) in parts {
                let name = self.name(&format!("{name}.weight"))?;
                let (blocks, scales) = (blocks.info.name.clone(), view.info.name.clone());
                self.push(name, shape.clone(), to, From::Mxfp4 { blocks, scales, order });
            }
        }
        Ok(())
    }

    fn add(&mut self, view: View<'_>) -> Result<()> {
        let original = view.info.name.as_str();
        if names::is_buffer(original) || self.is_left_out(original) {
            return Ok(());
        }
        if names::of_another_sense(original) {
            self.skipped.push(original.to_owned());
            return Ok(());
        }
        let name = self.plain_name(original);
        if !encode::readable(view.info.dtype) {
            return Err(unreadable(view));
        }
        match self.architecture {
            Architecture::Mixtral if name.contains("block_sparse_moe.experts.") => {
                return self.expert(&name, original, &["w1", "w2", "w3"]);
            }
            Architecture::Qwen3Moe if name.contains("mlp.experts.") => {
                return self.expert(&name, original, &["down_proj", "gate_proj", "up_proj"]);
            }
            Architecture::GptOss if name.contains("mlp.experts.") => return self.gpt_oss_bias(&name, view),
            _ => {}
        }
        let gguf = self.name(&name)?;
        let mut shape = view.info.shape.clone();
        if self.architecture == Architecture::Gemma3
            && name.ends_with("embed_tokens.weight")
            && let (Some(rows), Some(all)) = (self.rows, shape.first_mut())
        {
            *all = (*all).min(rows);
        }
        let order = self.order(&name, &shape)?;
        let gemma = matches!(self.architecture, Architecture::Gemma2 | Architecture::Gemma3);
        let plus_one = gemma && name.ends_with("norm.weight");
        let to = self.type_of(&gguf, &shape);
        self.push(gguf, shape, to, From::Rows { names: vec![original.to_owned()], order, plus_one });
        Ok(())
    }

    /// The name without what models of several senses, or for several ends, put before it.
    fn plain_name(&self, name: &str) -> String {
        let name = name.replace("language_model.", "");
        match self.architecture {
            // llama.cpp takes embeddings for a missing output, and not the other way: what its own converter
            // makes of such a model does not load.
            _ if name == "lm_head.weight" && self.source.output_is_embeddings() => {
                "model.embed_tokens.weight".to_owned()
            }
            Architecture::GptOss if name.contains("sinks") => format!("{name}.weight"),
            Architecture::Bert => {
                let name = name.strip_prefix("bert.").unwrap_or(&name);
                match (name.strip_suffix(".gamma"), name.strip_suffix(".beta")) {
                    (Some(stem), _) => format!("{stem}.weight"),
                    (_, Some(stem)) => format!("{stem}.bias"),
                    _ => name.to_owned(),
                }
            }
            _ => name,
        }
    }

    /// Tensors that this family's file does without.
    fn is_left_out(&self, name: &str) -> bool {
        match self.architecture {
            Architecture::Gemma2 => name == "lm_head.weight" && !self.source.output_is_embeddings(),
            Architecture::GptOss => name.ends_with("_blocks") || name.ends_with("_scales"),
            Architecture::Bert => {
                let name = name.strip_prefix("bert.").unwrap_or(name);
                ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"].contains(&name)
                    || name.starts_with("cls.predictions")
                    || name.starts_with("cls.seq_relationship")
            }
            _ => false,
        }
    }

    /// Queries and keys of the llama family are put in llama.cpp's order.
    fn order(&self, name: &str, shape: &[u64]) -> Result<Order> {
        let family = [Architecture::Llama, Architecture::Mistral, Architecture::Mixtral];
        if !family.contains(&self.architecture) {
            return Ok(Order::Straight);
        }
        let config = &self.source.config;
        let of =
            |part: &str| name.ends_with(&format!("{part}.weight")) || name.ends_with(&format!("{part}.bias"));
        let heads = match (of("q_proj"), of("k_proj")) {
            (true, _) => config.required(&["num_attention_heads"])?,
            (_, true) => match config.count(&["num_key_value_heads"])? {
                Some(heads) => heads,
                None => config.required(&["num_attention_heads"])?,
            },
            _ => return Ok(Order::Straight),
        };
        let rows = shape.first().copied().unwrap_or(0);
        match heads > 0 && rows > 0 && rows.is_multiple_of(u64::from(heads) * 2) {
            true => Ok(Order::Heads(heads)),
            false => Err(wrong_shape(name, shape, &format!("{heads} heads of an even size"))),
        }
    }

    /// Collects a layer's experts, and stacks them once all are there.
    fn expert(&mut self, name: &str, original: &str, parts: &[&str]) -> Result<()> {
        let layer = names::place(name)
            .and_then(|p| p.layer)
            .ok_or_else(|| unexpected(self.architecture, original))?;
        let count = self.source.config.required(&["num_local_experts", "num_experts"])?;
        let seen = self.experts.entry(layer).or_default();
        seen.push(original.to_owned());
        if seen.len() < count as usize * parts.len() {
            return Ok(());
        }
        self.experts.remove(&layer);
        let (stem, _) = original.split_once("experts.").unwrap_or((original, ""));
        for part in parts {
            let names: Vec<String> = (0..count).map(|e| format!("{stem}experts.{e}.{part}.weight")).collect();
            let mut first: Option<View<'_>> = None;
            for name in &names {
                let view = super::recipe::find(self.source, name)?;
                let model = *first.get_or_insert(view);
                if view.info.shape != model.info.shape || view.info.dtype != model.info.dtype {
                    return Err(wrong_shape(name, &view.info.shape, "that of the other experts"));
                }
            }
            let mut shape = vec![u64::from(count)];
            shape.extend(first.map(|f| f.info.shape.clone()).unwrap_or_default());
            let (plain, _) = name.split_once("experts.").unwrap_or((name, ""));
            let gguf = self.name(&format!("{plain}experts.{part}.weight"))?;
            let to = self.type_of(&gguf, &shape);
            self.push(gguf, shape, to, From::Rows { names, order: Order::Straight, plus_one: false });
        }
        Ok(())
    }

    fn gpt_oss_bias(&mut self, name: &str, view: View<'_>) -> Result<()> {
        let Some(stem) = name.strip_suffix("_bias") else {
            let what = format!("tensor `{name}`: experts of gpt-oss that are not in MXFP4 are not converted");
            return Err(PluginError::new(codes::ARCHITECTURE_UNSUPPORTED, what)
                .help("take the model as it was published, with its experts in MXFP4"));
        };
        let [experts, width] = view.info.shape[..] else {
            return Err(wrong_shape(name, &view.info.shape, "one row for each expert"));
        };
        let (parts, width) = match stem.strip_suffix("gate_up_proj") {
            None => (vec![(stem.to_owned(), Order::Straight)], width),
            Some(stem) => {
                let part = |name: &str, first| (format!("{stem}{name}"), Order::Every2nd(first));
                (vec![part("gate_proj", 0), part("up_proj", 1)], width / 2)
            }
        };
        for (part, order) in parts {
            let gguf = self.name(&format!("{part}.bias"))?;
            let names = vec![view.info.name.clone()];
            self.push(
                gguf,
                vec![experts, width],
                TensorType::F32,
                From::Rows { names, order, plus_one: false },
            );
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Result<String> {
        names::gguf(self.architecture, name).ok_or_else(|| unexpected(self.architecture, name))
    }

    /// The type of a tensor in the file, as the converter decides (conversion/base.py, `prepare_tensors`).
    fn type_of(&self, name: &str, shape: &[u64]) -> TensorType {
        let plain = shape.len() <= 1
            || name.ends_with("_norm.weight")
            || !name.ends_with(".weight")
            || ["ffn_gate_inp.weight", "position_embd.weight", "token_types.weight"]
                .iter()
                .any(|end| name.ends_with(end));
        match self.out_type {
            _ if plain => TensorType::F32,
            OutType::F32 => TensorType::F32,
            OutType::F16 => TensorType::F16,
            OutType::Bf16 => TensorType::BF16,
            // Rows that blocks do not divide stay whole numbers of something.
            OutType::Q8_0 if shape.last().is_none_or(|n| n % encode::Q8_BLOCK as u64 != 0) => TensorType::F16,
            OutType::Q8_0 => TensorType::Q8_0,
        }
    }

    fn push(&mut self, name: String, shape: Vec<u64>, to: TensorType, from: From) {
        self.plan.push(Recipe { name, to, shape, from });
    }

    fn finish(self) -> Result<Plan> {
        if let Some((layer, seen)) = self.experts.first_key_value() {
            let what = format!(
                "layer {layer} has {} tensors of experts, fewer than config.json asks for",
                seen.len()
            );
            return Err(PluginError::new(codes::TENSOR_MISSING, what).help("a file of the model is missing"));
        }
        let mut names = std::collections::HashSet::new();
        for recipe in &self.plan {
            if !names.insert(recipe.name.as_str()) {
                let what = format!("two tensors of the model become `{}`", recipe.name);
                return Err(PluginError::new(codes::TENSOR_UNEXPECTED, what));
            }
            if recipe.shape.len() > MAX_DIMENSIONS || recipe.elements() == 0 {
                return Err(wrong_shape(
                    &recipe.name,
                    &recipe.shape,
                    "one to four dimensions that hold something",
                ));
            }
        }
        self.check_layers()?;
        let notes = match self.skipped.len() {
            0 => Vec::new(),
            n => vec![format!(
                "{n} tensors of images or sound were left out, `{}` among them",
                self.skipped[0]
            )],
        };
        Ok(Plan { recipes: self.plan, notes })
    }

    /// Every layer has what the first has: a missing shard must not become a file that cannot run.
    fn check_layers(&self) -> Result<()> {
        let layers = self.source.config.required(&["num_hidden_layers"])?;
        let mut of: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for recipe in &self.plan {
            let Some((layer, rest)) = recipe.name.strip_prefix("blk.").and_then(|n| n.split_once('.')) else {
                continue;
            };
            let Ok(layer) = layer.parse::<u32>() else { continue };
            if layer >= layers {
                let what = format!("`{}`: config.json knows {layers} layers", recipe.name);
                return Err(PluginError::new(codes::TENSOR_UNEXPECTED, what));
            }
            of.entry(layer).or_default().push(rest);
        }
        of.values_mut().for_each(|names| names.sort_unstable());
        let first = of.get(&0).cloned().unwrap_or_default();
        for layer in 0..layers {
            let here = of.get(&layer).cloned().unwrap_or_default();
            if let Some(missing) = first.iter().find(|n| !here.contains(n)) {
                let what = format!("layer {layer} of {layers} has no `{missing}`, which layer 0 has");
                return Err(PluginError::new(codes::TENSOR_MISSING, what)
                    .help("a file of the model is missing, or config.json belongs to another model"));
            }
        }
        match self.plan.iter().any(|r| r.name == "token_embd.weight") && !first.is_empty() {
            true => Ok(()),
            false => Err(PluginError::new(codes::TENSOR_MISSING, "the model has no embeddings or no layers")),
        }
    }
}

/// The shape that blocks of 32 elements hold: experts, rows, elements.
fn mxfp4_shape(blocks: View<'_>, scales: View<'_>) -> Result<Vec<u64>> {
    let sound = blocks.info.dtype == Dtype::U8 && scales.info.dtype == Dtype::U8;
    match (&blocks.info.shape[..], &scales.info.shape[..]) {
        (&[e, rows, n, 16], &[e2, rows2, n2])
            if sound && (e, rows, n) == (e2, rows2, n2) && rows % 2 == 0 =>
        {
            Ok(vec![e, rows, n * 32])
        }
        _ => {
            Err(wrong_shape(&blocks.info.name, &blocks.info.shape, "blocks of 16 bytes with one scale each"))
        }
    }
}

fn unexpected(architecture: Architecture, name: &str) -> PluginError {
    let what = format!("tensor `{name}` is none that {} models have", architecture.name());
    PluginError::new(codes::TENSOR_UNEXPECTED, what)
        .help("the model was changed or quantized already: take the original weights")
}

fn unreadable(view: View<'_>) -> PluginError {
    let what =
        format!("tensor `{}` holds elements of {}, which are not converted", view.info.name, view.info.dtype);
    PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what).help("take the model in F32, F16 or BF16")
}

fn wrong_shape(name: &str, shape: &[u64], wanted: &str) -> PluginError {
    let what = format!("tensor `{name}` has the shape {shape:?}, not {wanted}");
    PluginError::new(codes::TENSOR_SHAPE, what).help("config.json and weights belong to different models")
}
