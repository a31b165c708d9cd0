//! A model of each family, with what tends to differ: biases, tied embeddings, files, types, scaling of rotations.

use pajamas_quant::source::Dtype;
use serde_json::{Value, json};

use super::Model;
use super::plan::{PLAN, Plan};
use super::tokenizers::{self, Pieces};
use super::weights::Tensor;

/// Every model.
pub fn all() -> Vec<Model> {
    vec![
        llama(),
        llama3(),
        llama_odd(),
        llama_pieces_as_json(),
        llama_output_only(),
        mistral(),
        mixtral(),
        qwen2(),
        qwen3(),
        qwen3_moe(),
        gemma2(),
        gemma3(),
        gemma3_of_several_senses(),
        phi3(),
        phi3_long(),
        gpt_oss(),
        bert(),
    ]
}

/// Models whose rows the largest blocks divide, deep enough for mixtures to differ between layers.
pub fn wide() -> Vec<Model> {
    wide_of(9)
}

/// The same with so many layers, but no more than two of experts.
pub fn wide_of(layers: u64) -> Vec<Model> {
    let wide = || Plan { layers, hidden: 256, heads: 8, kv: 2, head: 32, ffn: 256, ..PLAN };
    let pieces = || tokenizers::pieces(Pieces::Llama);
    let llama = dense(wide());
    let llama_config = llama.config("LlamaForCausalLM", "llama", json!({}));
    // Embeddings that serve as output, from another type, and rows that only small blocks divide.
    let tied =
        dense(Plan { dtype: Dtype::F16, tied: true, bias: true, layers: 3, ffn: 288, kv: 8, ..wide() });
    let tied_config = tied.config("Qwen2ForCausalLM", "qwen2", json!({}));
    let experts = Plan { experts: 8, layers: layers.min(2), ..wide() }.decoder(|p, at| {
        p.attention(at, false);
        p.expert_layer(at, "block_sparse_moe", ["w1", "w2", "w3"]);
    });
    let more = json!({"num_local_experts": 8, "num_experts_per_tok": 2});
    let experts_config = experts.config("MixtralForCausalLM", "mixtral", more);
    let tied_model = model("wide-tied", tied, tied_config, tokenizers::bpe("qwen2", false));
    vec![
        model("wide", llama, llama_config, pieces()),
        Model { pre: Some("qwen2"), ..tied_model },
        model("wide-experts", experts, experts_config, pieces()),
    ]
}

/// A Llama of 0.49 billion parameters: what speed is measured with.
pub fn half_billion() -> Model {
    let sizes =
        Plan { layers: 24, hidden: 1024, heads: 16, kv: 4, head: 64, ffn: 4864, vocab: 32_000, ..PLAN };
    let plan = dense(sizes);
    let config = plan.config("LlamaForCausalLM", "llama", json!({}));
    model("half-billion", plan, config, tokenizers::pieces(Pieces::Llama))
}

fn sampling() -> (String, Vec<u8>) {
    let values = json!({"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05});
    ("generation_config.json".into(), super::pretty(&values))
}

fn model(name: &'static str, plan: Plan, config: Value, files: Vec<(String, Vec<u8>)>) -> Model {
    Model { name, config, tensors: plan.tensors, shards: 1, files, pre: None }
}

fn dense(plan: Plan) -> Plan {
    plan.decoder(|p, at| {
        p.attention(at, false);
        p.mlp(at);
    })
}

fn llama() -> Model {
    let plan = dense(PLAN);
    let config = plan.config("LlamaForCausalLM", "llama", json!({"bos_token_id": 267, "eos_token_id": 269}));
    let mut files = tokenizers::bpe("llama-bpe", true);
    files.push(sampling());
    Model { pre: Some("llama-bpe"), ..model("llama", plan, config, files) }
}

/// Scaled rotations, tied embeddings, several files, a name that says much.
fn llama3() -> Model {
    let plan = dense(Plan { dtype: Dtype::F16, tied: true, head: 32, heads: 2, kv: 1, ..PLAN });
    let scaling = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512
    });
    let more = json!({"rope_scaling": scaling, "rope_theta": 500_000.0, "eos_token_id": [268, 269]});
    let config = plan.config("LlamaForCausalLM", "llama", more);
    let files = tokenizers::bpe("llama-bpe", true);
    Model {
        pre: Some("llama-bpe"),
        shards: 3,
        ..model("tiny-Llama-3.2-70K-instruct-v2", plan, config, files)
    }
}

/// Rows that blocks do not divide, biases, one head of keys, no size of a head, a linear scaling.
fn llama_odd() -> Model {
    let plan = Plan { hidden: 80, ffn: 72, heads: 5, kv: 1, bias: true, vocab: 275, ..PLAN };
    let plan = plan.decoder(|p, at| {
        p.attention(at, true);
        p.mlp(at);
    });
    let more = json!({"attention_bias": true, "rope_scaling": {"type": "linear", "factor": 2.0}});
    let mut config = plan.config("LlamaForCausalLM", "llama", more);
    config.as_object_mut().unwrap().remove("head_dim");
    config.as_object_mut().unwrap().remove("rms_norm_eps");
    Model { pre: Some("gpt-2"), ..model("llama-odd", plan, config, tokenizers::bpe("gpt-2", false)) }
}

fn llama_pieces_as_json() -> Model {
    let plan = dense(Plan { vocab: 266, ..PLAN });
    let config = plan.config("LlamaForCausalLM", "llama", json!({"bos_token_id": 1, "eos_token_id": 2}));
    model("llama-pieces-as-json", plan, config, tokenizers::pieces_as_json())
}

/// The output alone, which serves as embeddings.
fn llama_output_only() -> Model {
    let mut plan = dense(PLAN);
    plan.tensors.retain(|t| t.name != "model.embed_tokens.weight");
    let config = plan.config("LlamaForCausalLM", "llama", json!({"tie_word_embeddings": true}));
    let files = tokenizers::bpe("llama-bpe", true);
    Model { pre: Some("llama-bpe"), ..model("llama-output-only", plan, config, files) }
}

fn mistral() -> Model {
    let plan = dense(PLAN);
    let config = plan.config("MistralForCausalLM", "mistral", json!({"sliding_window": 512}));
    model("Mistral-120K-v0.1", plan, config, tokenizers::pieces(Pieces::Llama))
}

/// Experts that lie in two files.
fn mixtral() -> Model {
    let plan = Plan { experts: 3, ..PLAN }.decoder(|p, at| {
        p.attention(at, false);
        p.expert_layer(at, "block_sparse_moe", ["w1", "w2", "w3"]);
    });
    let config = plan.config(
        "MixtralForCausalLM",
        "mixtral",
        json!({"num_local_experts": 3, "num_experts_per_tok": 2}),
    );
    Model { shards: 2, ..model("mixtral", plan, config, tokenizers::pieces(Pieces::Llama)) }
}

/// Biases, tied embeddings with more rows than there are tokens.
fn qwen2() -> Model {
    let plan = dense(Plan { dtype: Dtype::F32, bias: true, tied: true, vocab: 304, ..PLAN });
    let mut config = plan.config(
        "Qwen2ForCausalLM",
        "qwen2",
        json!({"rope_theta": 1_000_000, "use_sliding_window": false}),
    );
    config.as_object_mut().unwrap().remove("head_dim");
    Model { pre: Some("qwen2"), ..model("qwen2", plan, config, tokenizers::bpe("qwen2", false)) }
}

fn qwen3() -> Model {
    let plan = PLAN.decoder(|p, at| {
        p.attention(at, false);
        p.norms(at, &["self_attn.q_norm", "self_attn.k_norm"], p.head);
        p.mlp(at);
    });
    let scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512});
    let config = plan.config("Qwen3ForCausalLM", "qwen3", json!({"rope_scaling": scaling}));
    Model { pre: Some("qwen2"), ..model("qwen3", plan, config, tokenizers::bpe("qwen2", false)) }
}

/// Eleven experts: in order of their names, the tenth comes before the second.
fn qwen3_moe() -> Model {
    let plan = Plan { experts: 11, ffn: 32, ..PLAN }.decoder(|p, at| {
        p.attention(at, false);
        p.norms(at, &["self_attn.q_norm", "self_attn.k_norm"], p.head);
        p.expert_layer(at, "mlp", ["gate_proj", "down_proj", "up_proj"]);
    });
    let more = json!({"num_experts": 11, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": true});
    let config = plan.config("Qwen3MoeForCausalLM", "qwen3_moe", more);
    Model { pre: Some("qwen2"), ..model("qwen3-moe", plan, config, tokenizers::bpe("qwen2", false)) }
}

fn gemma(plan: Plan, inside: &[&str]) -> Plan {
    plan.decoder(|p, at| {
        p.attention(at, false);
        p.norms(at, inside, p.head);
        p.norms(at, &["pre_feedforward_layernorm", "post_feedforward_layernorm"], p.hidden);
        p.mlp(at);
    })
}

/// Half precision, in which one is added to norms, and an output that the file leaves out.
fn gemma2() -> Model {
    let plan = gemma(Plan { dtype: Dtype::F16, ..PLAN }, &[]);
    let more = json!({
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16,
        "sliding_window": 128, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "bos_token_id": 2,
        "eos_token_id": 1, "pad_token_id": 0
    });
    let config = plan.config("Gemma2ForCausalLM", "gemma2", more);
    model("gemma-2-150k-it", plan, config, tokenizers::pieces(Pieces::Gemma))
}

const GEMMA3_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

/// More rows of embeddings than there are tokens.
fn gemma3() -> Model {
    let plan = gemma(Plan { tied: true, vocab: 300, ..PLAN }, &GEMMA3_NORMS);
    let more = json!({
        "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 16, "sliding_window": 128,
        "rope_theta": 1_000_000.0, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6, "vocab_size": 288,
        "layer_types": ["sliding_attention", "full_attention"], "bos_token_id": 2, "eos_token_id": [1, 4]
    });
    let config = plan.config("Gemma3ForCausalLM", "gemma3_text", more);
    model("gemma3", plan, config, tokenizers::pieces(Pieces::Gemma))
}

/// A language model inside of one that sees too.
fn gemma3_of_several_senses() -> Model {
    let mut plan =
        gemma(Plan { tied: true, dtype: Dtype::F32, prefix: "language_model.", ..PLAN }, &GEMMA3_NORMS);
    plan.prefix = "";
    plan.linear("vision_tower.vision_model.encoder.layers.0.mlp.fc1", 8, 8, true);
    plan.add("multi_modal_projector.mm_input_projection_weight", &[8, 8]);
    let more = json!({
        "query_pre_attn_scalar": 16, "sliding_window": 64, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_theta": 1_000_000.0, "layer_types": ["sliding_attention", "full_attention"]
    });
    let mut text = plan.config("Gemma3ForCausalLM", "gemma3_text", more);
    text.as_object_mut().unwrap().remove("architectures");
    let config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
        "mm_tokens_per_image": 4, "eos_token_id": [1, 4]
    });
    model("gemma3-of-several-senses", plan, config, tokenizers::pieces(Pieces::Gemma))
}

fn phi(plan: Plan) -> Plan {
    plan.decoder(|p, at| {
        let (hidden, rows) = (p.hidden, (p.heads + 2 * p.kv) * p.head);
        p.linear(&format!("{at}self_attn.qkv_proj"), rows, hidden, false);
        p.linear(&format!("{at}self_attn.o_proj"), hidden, p.heads * p.head, false);
        p.linear(&format!("{at}mlp.gate_up_proj"), 2 * p.ffn, hidden, false);
        p.linear(&format!("{at}mlp.down_proj"), hidden, p.ffn, false);
    })
}

fn phi3() -> Model {
    let plan = phi(PLAN);
    let more = json!({"sliding_window": 2047, "original_max_position_embeddings": 2048, "pad_token_id": 0});
    let mut config = plan.config("Phi3ForCausalLM", "phi3", more);
    config.as_object_mut().unwrap().remove("head_dim");
    model("Phi-3-mini-4k-instruct", plan, config, tokenizers::pieces(Pieces::Phi))
}

/// Factors for long texts, part of a head rotated, no window.
fn phi3_long() -> Model {
    let plan = phi(Plan { tied: true, dtype: Dtype::F16, ..PLAN });
    let factors = |step: f64| (0..6).map(|i| 1.0 + f64::from(i) * step).collect::<Vec<_>>();
    let more = json!({
        "original_max_position_embeddings": 512, "max_position_embeddings": 8192, "pad_token_id": 0,
        "partial_rotary_factor": 0.75, "sliding_window": null,
        "rope_scaling": {"type": "longrope", "long_factor": factors(1.7), "short_factor": factors(0.01)}
    });
    let mut config = plan.config("Phi3ForCausalLM", "phi3", more);
    config.as_object_mut().unwrap().remove("head_dim");
    model("phi3-long", plan, config, tokenizers::pieces(Pieces::Phi))
}

/// Experts in four bits.
fn gpt_oss() -> Model {
    let plan = Plan { experts: 3, bias: true, ffn: 64, ..PLAN }.decoder(|p, at| {
        p.attention(at, true);
        p.add(&format!("{at}self_attn.sinks"), &[p.heads]);
        let (e, hidden, ffn) = (p.experts, p.hidden, p.ffn);
        p.linear(&format!("{at}mlp.router"), e, hidden, true);
        for (name, rows, width) in [("down_proj", hidden, ffn), ("gate_up_proj", 2 * ffn, hidden)] {
            p.add(&format!("{at}mlp.experts.{name}_bias"), &[e, rows]);
            let blocks = format!("{at}mlp.experts.{name}_blocks");
            p.tensors.push(Tensor::new(blocks, Dtype::U8, &[e, rows, width / 32, 16]));
            let scales = format!("{at}mlp.experts.{name}_scales");
            p.tensors.push(Tensor::new(scales, Dtype::U8, &[e, rows, width / 32]));
        }
    });
    let more = json!({
        "num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 128, "rope_theta": 150_000,
        "layer_types": ["sliding_attention", "full_attention"], "swiglu_limit": 7.0, "attention_bias": true,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 64
        },
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    });
    let config = plan.config("GptOssForCausalLM", "gpt_oss", more);
    Model { pre: Some("gpt-4o"), ..model("gpt-oss", plan, config, tokenizers::bpe("gpt-4o", false)) }
}

/// An embedder, with the names of the first models of its kind.
fn bert() -> Model {
    let mut plan = Plan { dtype: Dtype::F32, vocab: 64, ..PLAN };
    let (hidden, ffn) = (plan.hidden, plan.ffn);
    plan.add("embeddings.word_embeddings.weight", &[64, hidden]);
    plan.add("embeddings.position_embeddings.weight", &[32, hidden]);
    plan.add("embeddings.token_type_embeddings.weight", &[2, hidden]);
    for name in ["gamma", "beta"] {
        plan.add(&format!("embeddings.LayerNorm.{name}"), &[hidden]);
    }
    for i in 0..plan.layers {
        let at = format!("encoder.layer.{i}.");
        for name in ["query", "key", "value"] {
            plan.linear(&format!("{at}attention.self.{name}"), hidden, hidden, true);
        }
        plan.linear(&format!("{at}attention.output.dense"), hidden, hidden, true);
        plan.linear(&format!("{at}intermediate.dense"), ffn, hidden, true);
        plan.linear(&format!("{at}output.dense"), hidden, ffn, true);
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            plan.norms(&at, &[norm], hidden);
            plan.add(&format!("{at}{norm}.bias"), &[hidden]);
        }
    }
    plan.linear("pooler.dense", hidden, hidden, true);
    let config = json!({
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 64, "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": plan.layers, "num_attention_heads": 4,
        "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0
    });
    let mut files = tokenizers::word_pieces();
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    ]);
    files.push(("modules.json".into(), super::pretty(&modules)));
    let pooling = json!({"word_embedding_dimension": 64, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
    files.push(("1_Pooling/config.json".into(), super::pretty(&pooling)));
    Model { pre: Some("bert-bge"), ..model("bge-tiny-en-v1.5", plan, config, files) }
}
