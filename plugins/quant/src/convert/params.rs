//! What the metadata says of a model's build: entries, their order and their types are llama.cpp's converter's.

use pajamas_llama_cpp::gguf::{Value, Writer};
use pajamas_plugin_api::Result;

use super::OutType;
use super::rope::{self, Rope};
use crate::architecture::Architecture;
use crate::error;
use crate::source::Source;

/// Of so many layers of Gemma 3 one sees everything, the last, where nobody says otherwise.
const GEMMA3_GROUP: u32 = 6;

/// Entries that come before everything but the family's name: the converter writes them while it looks at tensors.
pub(super) fn early(source: &Source, architecture: Architecture, writer: &mut Writer) -> Result<()> {
    if architecture == Architecture::Phi3
        && let Some(factor) = rope::phi3_attention_factor(&Rope::of(&source.config)?, &source.config)?
    {
        writer.set("phi3.rope.scaling.attn_factor", factor as f32);
    }
    Ok(())
}

/// Entries about a model's build.
pub(super) fn write(
    source: &Source,
    architecture: Architecture,
    out_type: OutType,
    writer: &mut Writer,
) -> Result<()> {
    let mut entries = Entries { source, family: architecture.gguf(), writer };
    match architecture {
        Architecture::Gemma2 => entries.gemma2(out_type),
        Architecture::Phi3 => entries.phi3(out_type),
        _ => {
            entries.common(out_type)?;
            match architecture {
                Architecture::Llama | Architecture::Mistral | Architecture::Mixtral => entries.llama(),
                Architecture::Qwen2 | Architecture::Qwen3 => entries.pooling(),
                Architecture::Qwen3Moe => entries.qwen3_moe(),
                Architecture::Gemma3 => entries.gemma3(),
                Architecture::GptOss => entries.gpt_oss(),
                Architecture::Bert => entries.bert(),
                Architecture::Gemma2 | Architecture::Phi3 => Ok(()),
            }
        }
    }
}

struct Entries<'a> {
    source: &'a Source,
    family: &'static str,
    writer: &'a mut Writer,
}

impl Entries<'_> {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.writer.set(&format!("{}.{key}", self.family), value);
    }

    /// A count that must be in the configuration.
    fn count(&mut self, key: &str, from: &[&str]) -> Result<()> {
        let value = self.source.config.required(from)?;
        self.set(key, value);
        Ok(())
    }

    /// A count that is written when it is in the configuration.
    fn count_if(&mut self, key: &str, from: &[&str]) -> Result<()> {
        if let Some(value) = self.source.config.count(from)? {
            self.set(key, value);
        }
        Ok(())
    }

    fn number_if(&mut self, key: &str, from: &[&str]) -> Result<()> {
        if let Some(value) = self.source.config.number(from)? {
            self.set(key, value as f32);
        }
        Ok(())
    }

    /// conversion/base.py, `TextModel.set_gguf_parameters`.
    fn common(&mut self, out_type: OutType) -> Result<()> {
        self.count("block_count", &["num_hidden_layers"])?;
        self.count_if("context_length", &["max_position_embeddings"])?;
        self.count_if("embedding_length", &["hidden_size"])?;
        self.count_if("feed_forward_length", &["intermediate_size"])?;
        self.count_if("attention.head_count", &["num_attention_heads"])?;
        self.count_if("attention.head_count_kv", &["num_key_value_heads"])?;
        if self.source.config.flag("is_causal") == Some(false) {
            self.set("attention.causal", false);
        }
        Rope::of(&self.source.config)?.write(self.writer, self.family)?;
        self.number_if("attention.layer_norm_rms_epsilon", &["rms_norm_eps", "norm_eps"])?;
        self.number_if(
            "attention.layer_norm_epsilon",
            &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"],
        )?;
        self.count_if("expert_count", &["num_local_experts", "num_experts", "n_routed_experts"])?;
        self.count_if("expert_used_count", &["num_experts_per_tok", "num_experts_per_token"])?;
        self.count_if("expert_group_count", &["n_group"])?;
        self.count_if("expert_group_used_count", &["topk_group"])?;
        self.count_if("attention.key_length", &["head_dim"])?;
        self.count_if("attention.value_length", &["head_dim"])?;
        self.file_type(out_type);
        Ok(())
    }

    fn file_type(&mut self, out_type: OutType) {
        self.writer.set("general.file_type", out_type.file_type(self.family));
    }

    fn llama(&mut self) -> Result<()> {
        self.count("vocab_size", &["vocab_size"])?;
        let dimensions = rope::dimensions(&self.source.config)?;
        self.set("rope.dimension_count", dimensions);
        Ok(())
    }

    fn qwen3_moe(&mut self) -> Result<()> {
        self.count_if("expert_feed_forward_length", &["moe_intermediate_size"])?;
        self.count_if("expert_shared_feed_forward_length", &["shared_expert_intermediate_size"])
    }

    fn gemma2(&mut self, out_type: OutType) -> Result<()> {
        self.count("context_length", &["max_position_embeddings"])?;
        self.count("embedding_length", &["hidden_size"])?;
        self.count("block_count", &["num_hidden_layers"])?;
        self.count("feed_forward_length", &["intermediate_size"])?;
        self.count("attention.head_count", &["num_attention_heads"])?;
        self.count("attention.head_count_kv", &["num_key_value_heads"])?;
        self.number_if("attention.layer_norm_rms_epsilon", &["rms_norm_eps"])?;
        self.count("attention.key_length", &["head_dim"])?;
        self.count("attention.value_length", &["head_dim"])?;
        self.file_type(out_type);
        self.number_if("attn_logit_softcapping", &["attn_logit_softcapping"])?;
        self.number_if("final_logit_softcapping", &["final_logit_softcapping"])?;
        self.count("attention.sliding_window", &["sliding_window"])
    }

    fn gemma3(&mut self) -> Result<()> {
        // What the common part wrote keeps its place; the rest of the family's class says the same again.
        if self.source.config.get("attn_logit_softcapping").is_some() {
            return Err(error::config("`attn_logit_softcapping` is set, which Gemma 3 does not have"));
        }
        if let Some(cap) = self.source.config.number(&["final_logit_softcapping"])?.filter(|c| *c != 0.0) {
            self.set("final_logit_softcapping", cap as f32);
        }
        // llama.cpp takes every sixth layer to see everything unless it is told otherwise, which its own converter does not.
        let group = self.source.config.count(&["sliding_window_pattern"])?;
        if let Some(group) = group.filter(|group| *group != GEMMA3_GROUP) {
            self.set("attention.sliding_window_pattern", group);
        }
        self.count("attention.sliding_window", &["sliding_window"])
    }

    fn gpt_oss(&mut self) -> Result<()> {
        self.count("attention.sliding_window", &["sliding_window"])?;
        self.count("expert_feed_forward_length", &["intermediate_size"])
    }

    fn phi3(&mut self, out_type: OutType) -> Result<()> {
        let config = &self.source.config;
        let rope = Rope::of(config)?;
        let original = rope.required("original_max_position_embeddings")? as u32;
        let dimensions = rope::phi3_dimensions(&rope, config)?;
        let base = rope.required("rope_theta")?;
        let window = config.count(&["sliding_window"])?.unwrap_or(0);
        self.count("context_length", &["max_position_embeddings"])?;
        self.set("rope.scaling.original_context_length", original);
        self.count("embedding_length", &["hidden_size"])?;
        self.count("feed_forward_length", &["intermediate_size"])?;
        self.count("block_count", &["num_hidden_layers"])?;
        self.count("attention.head_count", &["num_attention_heads"])?;
        self.count("attention.head_count_kv", &["num_key_value_heads"])?;
        self.number_if("attention.layer_norm_rms_epsilon", &["rms_norm_eps"])?;
        self.set("rope.dimension_count", dimensions);
        self.set("rope.freq_base", base as f32);
        self.file_type(out_type);
        // Zero tells Phi-4 apart from the models with a window.
        self.set("attention.sliding_window", window);
        Ok(())
    }

    fn bert(&mut self) -> Result<()> {
        self.set("attention.causal", false);
        self.pooling()
    }

    /// How an embedder makes one vector of many, from the files of sentence-transformers.
    fn pooling(&mut self) -> Result<()> {
        let Some(modules) = self.source.bytes("modules.json")? else { return Ok(()) };
        let wrong = |file: &str, e: serde_json::Error| error::config(format!("beside it, {file}: {e}"));
        let modules: serde_json::Value =
            serde_json::from_slice(&modules).map_err(|e| wrong("modules.json", e))?;
        let text = |m: &serde_json::Value, key: &str| m.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        let pooling = modules.as_array().into_iter().flatten();
        let mut pooling = pooling.filter(|m| text(m, "type").is_some_and(|t| t.ends_with("Pooling")));
        let Some(path) = pooling.next().and_then(|m| text(m, "path")) else { return Ok(()) };
        if path.contains("..") || path.starts_with('/') {
            return Err(error::config(format!(
                "beside it, modules.json leads out of the folder, to `{path}`"
            )));
        }
        let file = format!("{path}/config.json");
        let Some(pooling) = self.source.json(&file, error::codes::CONFIG_INVALID)? else {
            return Err(error::config(format!("beside it, {file} is missing")));
        };
        let is = |key: &str| pooling.get(key).and_then(|v| v.as_bool()).unwrap_or(false);
        let mode = pooling.get("pooling_mode").and_then(|v| v.as_str());
        // llama.cpp's numbers (`llama_pooling_type`, llama.h).
        let number = if is("pooling_mode_mean_tokens") || mode == Some("mean") {
            1
        } else if is("pooling_mode_cls_token") || mode == Some("cls") {
            2
        } else if is("pooling_mode_lasttoken") || mode == Some("lasttoken") {
            3
        } else {
            return Err(error::config(format!("beside it, {file} asks for a pooling that llama.cpp lacks")));
        };
        self.set("pooling_type", number as u32);
        Ok(())
    }
}
