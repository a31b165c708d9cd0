//! What a model is built of, in sizes that fit a test.

use pajamas_quant::source::Dtype;
use serde_json::{Value, json};

use super::weights::Tensor;

/// What a model is built of.
pub struct Plan {
    pub dtype: Dtype,
    pub layers: u64,
    pub hidden: u64,
    pub heads: u64,
    pub kv: u64,
    pub head: u64,
    pub ffn: u64,
    pub vocab: u64,
    pub experts: u64,
    pub tied: bool,
    pub bias: bool,
    pub tensors: Vec<Tensor>,
    pub prefix: &'static str,
}

/// Two layers of the usual build.
pub const PLAN: Plan = Plan {
    dtype: Dtype::BF16,
    layers: 2,
    hidden: 64,
    heads: 4,
    kv: 2,
    head: 16,
    ffn: 96,
    vocab: 288,
    experts: 0,
    tied: false,
    bias: false,
    tensors: Vec::new(),
    prefix: "",
};

impl Plan {
    pub fn add(&mut self, name: &str, shape: &[u64]) {
        self.tensors.push(Tensor::new(format!("{}{name}", self.prefix), self.dtype, shape));
    }

    pub fn linear(&mut self, name: &str, out: u64, into: u64, bias: bool) {
        self.add(&format!("{name}.weight"), &[out, into]);
        if bias {
            self.add(&format!("{name}.bias"), &[out]);
        }
    }

    /// A decoder; `layer` adds what is the family's own to each layer.
    pub fn decoder(mut self, layer: impl Fn(&mut Self, &str)) -> Self {
        let (hidden, vocab) = (self.hidden, self.vocab);
        self.add("model.embed_tokens.weight", &[vocab, hidden]);
        for i in 0..self.layers {
            let at = format!("model.layers.{i}.");
            self.add(&format!("{at}input_layernorm.weight"), &[hidden]);
            self.add(&format!("{at}post_attention_layernorm.weight"), &[hidden]);
            layer(&mut self, &at);
        }
        self.add("model.norm.weight", &[hidden]);
        if !self.tied {
            self.add("lm_head.weight", &[vocab, hidden]);
        }
        self
    }

    pub fn attention(&mut self, at: &str, output_bias: bool) {
        let (hidden, q, kv) = (self.hidden, self.heads * self.head, self.kv * self.head);
        for (name, out) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
            self.linear(&format!("{at}self_attn.{name}"), out, hidden, self.bias);
        }
        self.linear(&format!("{at}self_attn.o_proj"), hidden, q, output_bias);
    }

    pub fn norms(&mut self, at: &str, names: &[&str], size: u64) {
        names.iter().for_each(|name| self.add(&format!("{at}{name}.weight"), &[size]));
    }

    pub fn mlp(&mut self, at: &str) {
        let (hidden, ffn) = (self.hidden, self.ffn);
        self.linear(&format!("{at}mlp.gate_proj"), ffn, hidden, false);
        self.linear(&format!("{at}mlp.up_proj"), ffn, hidden, false);
        self.linear(&format!("{at}mlp.down_proj"), hidden, ffn, false);
    }

    pub fn expert_layer(&mut self, at: &str, gate: &str, names: [&str; 3]) {
        let (hidden, ffn, experts) = (self.hidden, self.ffn, self.experts);
        self.linear(&format!("{at}{gate}.gate"), experts, hidden, false);
        for e in 0..experts {
            let expert = format!("{at}{gate}.experts.{e}.");
            self.linear(&format!("{expert}{}", names[0]), ffn, hidden, false);
            self.linear(&format!("{expert}{}", names[1]), hidden, ffn, false);
            self.linear(&format!("{expert}{}", names[2]), ffn, hidden, false);
        }
    }

    pub fn config(&self, class: &str, kind: &str, more: Value) -> Value {
        let mut config = json!({
            "architectures": [class], "model_type": kind, "vocab_size": self.vocab, "hidden_size": self.hidden,
            "intermediate_size": self.ffn, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv, "head_dim": self.head, "hidden_act": "silu",
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }
}
