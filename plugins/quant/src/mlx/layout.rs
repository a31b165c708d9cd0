//! Which tensors mlx_lm's class of a family has, and which of the source's they are made of.
//!
//! Classes: mlx_lm/models (mlx-lm 0.32). Each has a function `sanitize` that renames and stacks what Hugging Face's names
//! hold; here the wanted names come first, and each says where it comes from. A tensor of the source that no name
//! asks for is refused, as the loader would refuse it.

use std::collections::HashSet;

use pajamas_plugin_api::{PluginError, Result};

use super::sizes::Sizes;
use crate::architecture::Architecture;
use crate::error::codes;
use crate::source::{Source, View};

/// What a tensor is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Vectors of tokens; of a model without an output of its own, the output too.
    Embeddings,
    /// From the last layer to tokens.
    Output,
    /// Chooses experts.
    Router,
    /// Any other matrix.
    Matrix,
    /// Norms, biases and the like.
    Vector,
    /// Numbers that were quantized by the model's authors: moved, never computed with.
    Packed(Packed),
}

/// Parts of numbers in four bits with a scale to 32 of them (`mxfp4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    /// Eight numbers to each word.
    Words,
    /// Exponents.
    Scales,
}

/// A tensor of mlx_lm's class.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    pub name: String,
    pub role: Role,
    /// Dimensions, outermost first, in elements of the type that is written.
    pub shape: Vec<u64>,
    /// Tensors of the source, one after the other along the first dimension.
    pub parts: Vec<View<'a>>,
    /// When only every second row of the source belongs here, whether the first of them is the first.
    pub every_2nd: Option<u64>,
}

/// The tensors of a model, and what a person should know.
pub(super) struct Layout<'a> {
    source: &'a Source,
    sizes: Sizes,
    pub slots: Vec<Slot<'a>>,
    pub notes: Vec<String>,
    used: HashSet<&'a str>,
}

impl<'a> Layout<'a> {
    /// Finds every tensor.
    ///
    /// # Errors
    /// `tensor-missing`, `tensor-unexpected`, `tensor-shape`; those of [`Sizes::of`].
    pub fn of(source: &'a Source, architecture: Architecture) -> Result<Self> {
        let sizes = Sizes::of(source, architecture)?;
        let mut layout = Self { source, sizes, slots: Vec::new(), notes: Vec::new(), used: HashSet::new() };
        layout.model(architecture)?;
        layout.rest()?;
        Ok(layout)
    }

    /// The sizes that tensors were checked against.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn model(&mut self, architecture: Architecture) -> Result<()> {
        let (hidden, vocabulary, tied) = (self.sizes.hidden, self.sizes.vocabulary, self.sizes.tied);
        let inner = if self.sizes.several_senses { "language_model." } else { "" };
        let embeddings = format!("{inner}model.embed_tokens.weight");
        let of = match self.source.output_is_embeddings() {
            true => format!("{inner}lm_head.weight"),
            false => embeddings.clone(),
        };
        let view = self.find(&of)?;
        self.whole(Role::Embeddings, embeddings, view, &[vocabulary, hidden])?;
        for layer in 0..self.sizes.layers {
            self.layer(architecture, layer, &format!("{inner}model.layers.{layer}."))?;
        }
        self.vector(&format!("{inner}model.norm.weight"), hidden)?;
        if !tied {
            self.matrix(Role::Output, &format!("{inner}lm_head"), &[vocabulary, hidden], false)?;
        }
        Ok(())
    }

    fn layer(&mut self, architecture: Architecture, layer: u64, at: &str) -> Result<()> {
        let gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
        let mut norms = vec!["input_layernorm", "post_attention_layernorm"];
        if gemma {
            norms.extend(["pre_feedforward_layernorm", "post_feedforward_layernorm"]);
        }
        for norm in norms {
            self.vector(&format!("{at}{norm}.weight"), self.sizes.hidden)?;
        }
        self.attention(architecture, &format!("{at}self_attn."))?;
        match architecture {
            Architecture::Mixtral => {
                self.experts(&format!("{at}block_sparse_moe."), Role::Matrix, ["w1", "w3", "w2"])
            }
            Architecture::Qwen3Moe if self.sizes.has_experts(layer) => {
                let parts = ["gate_proj", "up_proj", "down_proj"];
                self.experts(&format!("{at}mlp."), Role::Router, parts)
            }
            Architecture::GptOss => self.four_bit_experts(&format!("{at}mlp.")),
            Architecture::Phi3 => {
                let (hidden, inner) = (self.sizes.hidden, self.sizes.feed_forward);
                self.matrix(Role::Matrix, &format!("{at}mlp.gate_up_proj"), &[2 * inner, hidden], false)?;
                self.matrix(Role::Matrix, &format!("{at}mlp.down_proj"), &[hidden, inner], false)
            }
            _ => {
                let (hidden, inner, bias) =
                    (self.sizes.hidden, self.sizes.feed_forward, self.sizes.feed_forward_bias);
                self.matrix(Role::Matrix, &format!("{at}mlp.gate_proj"), &[inner, hidden], bias)?;
                self.matrix(Role::Matrix, &format!("{at}mlp.up_proj"), &[inner, hidden], bias)?;
                self.matrix(Role::Matrix, &format!("{at}mlp.down_proj"), &[hidden, inner], bias)
            }
        }
    }

    fn attention(&mut self, architecture: Architecture, at: &str) -> Result<()> {
        let Sizes { hidden, heads, key_heads, head, attention_bias, output_bias, .. } = self.sizes;
        if architecture == Architecture::Phi3 {
            let rows = (heads + 2 * key_heads) * head;
            self.matrix(Role::Matrix, &format!("{at}qkv_proj"), &[rows, hidden], false)?;
        } else {
            for (name, heads) in [("q_proj", heads), ("k_proj", key_heads), ("v_proj", key_heads)] {
                let shape = [heads * head, hidden];
                self.matrix(Role::Matrix, &format!("{at}{name}"), &shape, attention_bias)?;
            }
        }
        self.matrix(Role::Matrix, &format!("{at}o_proj"), &[hidden, heads * head], output_bias)?;
        match architecture {
            Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3 => {
                self.vector(&format!("{at}q_norm.weight"), head)?;
                self.vector(&format!("{at}k_norm.weight"), head)
            }
            Architecture::GptOss => self.vector(&format!("{at}sinks"), heads),
            _ => Ok(()),
        }
    }

    /// Experts that lie apart in the source, and stacked in the class. `parts` are gate, up and down.
    fn experts(&mut self, at: &str, gate: Role, parts: [&str; 3]) -> Result<()> {
        let Sizes { hidden, experts, expert_feed_forward: inner, .. } = self.sizes;
        self.matrix(gate, &format!("{at}gate"), &[experts, hidden], false)?;
        let shapes = [[inner, hidden], [inner, hidden], [hidden, inner]];
        for ((part, name), shape) in parts.iter().zip(["gate_proj", "up_proj", "down_proj"]).zip(shapes) {
            let mut views: Vec<View<'a>> = Vec::new();
            for expert in 0..experts {
                let view = self.find(&format!("{at}experts.{expert}.{part}.weight"))?;
                check(view, &shape)?;
                if let Some(first) = views.first().filter(|f| f.info.dtype != view.info.dtype) {
                    let what = format!(
                        "tensor `{}` holds elements of {}, and `{}` of {}: experts of a layer have one type",
                        view.info.name, view.info.dtype, first.info.name, first.info.dtype
                    );
                    return Err(PluginError::new(codes::TENSOR_DTYPE_UNSUPPORTED, what));
                }
                views.push(view);
            }
            self.slots.push(Slot {
                name: format!("{at}switch_mlp.{name}.weight"),
                role: Role::Matrix,
                shape: vec![experts, shape[0], shape[1]],
                parts: views,
                every_2nd: None,
            });
        }
        Ok(())
    }

    /// Experts of gpt-oss: blocks of 32 four-bit numbers, of which gate and up projection take turns.
    fn four_bit_experts(&mut self, at: &str) -> Result<()> {
        let Sizes { hidden, experts, expert_feed_forward: inner, .. } = self.sizes;
        self.matrix(Role::Router, &format!("{at}router"), &[experts, hidden], true)?;
        for (from, to, rows, width, turn) in [
            ("gate_up_proj", "gate_proj", inner, hidden, Some(0)),
            ("gate_up_proj", "up_proj", inner, hidden, Some(1)),
            ("down_proj", "down_proj", hidden, inner, None),
        ] {
            let source_rows = if turn.is_some() { 2 * rows } else { rows };
            let blocks = width / 32;
            for (end, new, role, of_source, of_class) in [
                ("_blocks", "weight", Role::Packed(Packed::Words), vec![blocks, 16], vec![blocks * 4]),
                ("_scales", "scales", Role::Packed(Packed::Scales), vec![blocks], vec![blocks]),
                ("_bias", "bias", Role::Vector, vec![], vec![]),
            ] {
                let view = self.find(&format!("{at}experts.{from}{end}"))?;
                check(view, &[vec![experts, source_rows], of_source].concat())?;
                self.slots.push(Slot {
                    name: format!("{at}experts.{to}.{new}"),
                    role,
                    shape: [vec![experts, rows], of_class].concat(),
                    parts: vec![view],
                    every_2nd: turn,
                });
            }
        }
        Ok(())
    }

    fn matrix(&mut self, role: Role, path: &str, shape: &[u64], bias: bool) -> Result<()> {
        let name = format!("{path}.weight");
        let view = self.find(&name)?;
        self.whole(role, name, view, shape)?;
        if bias { self.vector(&format!("{path}.bias"), shape[0]) } else { Ok(()) }
    }

    fn vector(&mut self, name: &str, size: u64) -> Result<()> {
        let view = self.find(name)?;
        self.whole(Role::Vector, name.to_owned(), view, &[size])
    }

    fn whole(&mut self, role: Role, name: String, view: View<'a>, shape: &[u64]) -> Result<()> {
        check(view, shape)?;
        self.slots.push(Slot { name, role, shape: shape.to_vec(), parts: vec![view], every_2nd: None });
        Ok(())
    }

    /// The tensor of the source that has this name in the class.
    fn find(&mut self, name: &str) -> Result<View<'a>> {
        let weights = &self.source.weights;
        let view = weights.get(name).or_else(|| {
            // Newer versions of transformers turned the names of models with several senses round.
            let inner = name.strip_prefix("language_model.")?;
            let turned = inner.strip_prefix("model.").map(|rest| format!("model.language_model.{rest}"));
            weights.get(turned.as_deref().unwrap_or(inner))
        });
        let view = view.ok_or_else(|| {
            PluginError::new(codes::TENSOR_MISSING, format!("the model has no tensor `{name}`"))
                .help("a file of the model is missing, or config.json belongs to another model")
        })?;
        self.used.insert(&view.info.name);
        Ok(view)
    }

    /// What no name asked for.
    fn rest(&mut self) -> Result<()> {
        let mut other_senses = 0;
        for view in self.source.weights.iter() {
            let name = view.info.name.as_str();
            if self.used.contains(name) || name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            if self.sizes.tied && name.ends_with("lm_head.weight") {
                self.notes.push(format!("`{name}` is left out: the embeddings are the output"));
            } else if self.sizes.several_senses && is_of_another_sense(name) {
                other_senses += 1;
            } else {
                let what = format!("tensor `{name}` is none that mlx_lm's class of the family has");
                return Err(PluginError::new(codes::TENSOR_UNEXPECTED, what)
                    .help("the model was changed or quantized already: take the original weights"));
            }
        }
        if other_senses > 0 {
            let what =
                format!("{other_senses} tensors of other senses are left out: mlx_lm runs the text model");
            self.notes.push(what);
        }
        Ok(())
    }
}

fn is_of_another_sense(name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    ["vision_tower.", "multi_modal_projector."].iter().any(|start| name.starts_with(start))
}

fn check(view: View<'_>, shape: &[u64]) -> Result<()> {
    if view.info.shape == shape {
        return Ok(());
    }
    let what = format!(
        "tensor `{}` has the shape {:?}; config.json asks for {shape:?}",
        view.info.name, view.info.shape
    );
    Err(PluginError::new(codes::TENSOR_SHAPE, what)
        .help("config.json and weights belong to different models"))
}
