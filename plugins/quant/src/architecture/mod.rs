//! Which family a model belongs to, and what is known of it.

pub(crate) mod advice;
mod count;
mod facts;
mod of_gguf;

use pajamas_plugin_api::PluginError;

pub use advice::{Advice, CacheAdvice};
pub use count::Parameters;
pub use facts::{Attention, Experts, Facts, Family};

use crate::error::{Result, codes};
use crate::source::{Config, Source};

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Architecture {
    Llama,
    Mistral,
    Mixtral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
    GptOss,
    Bert,
}

/// What a family is called: by its class in transformers, by its name here, and by llama.cpp.
struct Row {
    architecture: Architecture,
    classes: &'static [&'static str],
    name: &'static str,
    gguf: &'static str,
}

const ROWS: [Row; 11] = [
    row(Architecture::Llama, &["LlamaForCausalLM"], "llama", "llama"),
    row(Architecture::Mistral, &["MistralForCausalLM"], "mistral", "llama"),
    row(Architecture::Mixtral, &["MixtralForCausalLM"], "mixtral", "llama"),
    row(Architecture::Qwen2, &["Qwen2ForCausalLM"], "qwen2", "qwen2"),
    row(Architecture::Qwen3, &["Qwen3ForCausalLM"], "qwen3", "qwen3"),
    row(Architecture::Qwen3Moe, &["Qwen3MoeForCausalLM"], "qwen3-moe", "qwen3moe"),
    row(Architecture::Gemma2, &["Gemma2ForCausalLM"], "gemma2", "gemma2"),
    row(Architecture::Gemma3, &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"], "gemma3", "gemma3"),
    row(Architecture::Phi3, &["Phi3ForCausalLM"], "phi3", "phi3"),
    row(Architecture::GptOss, &["GptOssForCausalLM"], "gpt-oss", "gpt-oss"),
    row(Architecture::Bert, &["BertModel", "BertForMaskedLM"], "bert", "bert"),
];

const fn row(
    architecture: Architecture,
    classes: &'static [&'static str],
    name: &'static str,
    gguf: &'static str,
) -> Row {
    Row { architecture, classes, name, gguf }
}

impl Architecture {
    /// Every family.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.architecture)
    }

    /// The family of a model.
    ///
    /// # Errors
    /// `architecture-unsupported`, naming the nearest family that is known.
    pub fn of(config: &Config) -> Result<Self> {
        let class = config.architecture();
        let found = ROWS.iter().find(|row| row.classes.contains(&class));
        found.map(|row| row.architecture).ok_or_else(|| unknown(class))
    }

    /// The family of a model, with a look at its tensors: a configuration alone may tell a story.
    ///
    /// # Errors
    /// `architecture-unsupported`; `tensor-missing` when a tensor is not there that every model of the family has.
    pub fn detect(source: &Source) -> Result<Self> {
        let architecture = Self::of(&source.config)?;
        let marks: &[&str] = match architecture {
            Self::Mixtral => &["model.embed_tokens.weight", "block_sparse_moe.gate.weight"],
            Self::Qwen3Moe => &["model.embed_tokens.weight", "mlp.gate.weight"],
            Self::Qwen3 => &["model.embed_tokens.weight", "self_attn.q_norm.weight"],
            Self::Qwen2 => &["model.embed_tokens.weight", "self_attn.q_proj.bias"],
            Self::Gemma2 | Self::Gemma3 => &["model.embed_tokens.weight", "pre_feedforward_layernorm.weight"],
            Self::Phi3 => &["model.embed_tokens.weight", "self_attn.qkv_proj.weight"],
            Self::GptOss => &["model.embed_tokens.weight", "self_attn.sinks"],
            Self::Bert => &["embeddings.word_embeddings.weight", "attention.self.query.weight"],
            Self::Llama | Self::Mistral => &["model.embed_tokens.weight", "self_attn.q_proj.weight"],
        };
        let tied = source.output_is_embeddings();
        for mark in marks.iter().filter(|m| !(tied && **m == "model.embed_tokens.weight")) {
            if !source.weights.iter().any(|t| t.info.name.ends_with(mark)) {
                let what = format!(
                    "config.json says {} ({}), but no tensor is called *{mark}",
                    source.config.architecture(),
                    architecture.name()
                );
                return Err(PluginError::new(codes::TENSOR_MISSING, what)
                    .help("config.json and weights belong to different models, or a file is missing"));
            }
        }
        Ok(architecture)
    }

    /// Its name here, for example `qwen3-moe`.
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.name)
    }

    /// Its name in a GGUF file, `general.architecture`.
    pub fn gguf(self) -> &'static str {
        self.row().map_or("", |row| row.gguf)
    }

    fn row(self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.architecture == self)
    }
}

/// Refuses a class, naming the nearest that is known.
fn unknown(class: &str) -> PluginError {
    let known = ROWS.iter().flat_map(|row| row.classes.iter().map(move |c| (*c, row.name)));
    let likeness = |other: &str| strsim::jaro_winkler(&class.to_lowercase(), &other.to_lowercase());
    let nearest = known.max_by(|a, b| likeness(a.0).total_cmp(&likeness(b.0)));
    let names = ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    let (nearest, family) = nearest.unwrap_or_default();
    let what = format!(
        "the architecture `{}` is not known; the nearest that is: {nearest} ({family})",
        class.escape_debug()
    );
    PluginError::new(codes::ARCHITECTURE_UNSUPPORTED, what).help(format!("known are: {names}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(class: &str) -> Result<Architecture> {
        let config = json!({"architectures": [class]});
        Architecture::of(&Config::new(config.as_object().unwrap().clone()).unwrap())
    }

    #[test]
    fn every_class_leads_to_its_family() {
        for row in &ROWS {
            for class in row.classes {
                assert_eq!(of(class).unwrap(), row.architecture);
            }
        }
        assert_eq!(Architecture::all().count(), ROWS.len());
    }

    #[test]
    fn an_unknown_class_is_refused_with_the_nearest() {
        for (class, nearest) in [
            ("Qwen4ForCausalLM", "Qwen3ForCausalLM"),
            ("Gemma3nForConditionalGeneration", "Gemma3ForConditionalGeneration"),
            ("MistralForCausalLMX", "MistralForCausalLM"),
        ] {
            let error = of(class).unwrap_err();
            assert_eq!(error.code, "architecture-unsupported");
            assert!(error.message.contains(nearest), "{error}");
        }
    }
}
