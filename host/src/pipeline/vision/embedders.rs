//! Models that give vectors: of pictures, of texts, or of both in one space.

use pajamas_plugin_api::{DType, Signature, TensorSpec};
use serde_json::{Value as Json, json};

use super::picture::Picture;
use super::{Beside, size, stage, unknown};
use crate::config::{StageStep, Step, Task, Wiring};
use crate::error::{Error, Result};

/// The value that an embedding pipeline leaves: [N, size].
pub const EMBEDDING: &str = "embedding";

/// Texts that go through a model at once.
const BATCH: usize = 32;

/// Names under which transformers exports vectors of a whole picture or text, the better ones first.
const PICTURES: [&str; 3] = ["image_embeds", "pooler_output", "last_hidden_state"];
const TEXTS: [&str; 5] =
    ["text_embeds", "sentence_embedding", "last_hidden_state", "token_embeddings", "pooler_output"];

/// How many texts go through the model at once: as many as its input has rows.
pub fn most_texts(signature: &Signature) -> usize {
    let rows = signature.inputs.first().and_then(|spec| size(spec.shape.first()?));
    rows.and_then(|rows| usize::try_from(rows).ok()).map_or(BATCH, |rows| rows.clamp(1, BATCH))
}

/// From the decoded picture to a vector of length 1.
pub fn of_pictures(picture: &Picture<'_>, signature: &Signature, beside: &Beside) -> Result<Vec<Step>> {
    let output = vectors(signature, &PICTURES)
        .ok_or_else(|| unknown(Task::Embed, signature, "an output [1, size] or [1, patches, size]"))?;
    let mut steps = vec![
        stage("image-normalize", picture.normalize(signature, beside)),
        Step::Model(model_wiring(signature, "tensor", &picture.spec.name)),
    ];
    // The first vector of a vision transformer stands for the picture.
    steps.extend(reduced(signature, output, "cls"));
    Ok(steps)
}

/// From texts to vectors of length 1.
///
/// # Errors
/// `pipeline-unknown` when the model takes no tokens, or there is no `tokenizer.json`.
pub fn of_texts(signature: &Signature, beside: &Beside) -> Result<Vec<Step>> {
    let tokenize = tokenize(signature, beside)?;
    let output = vectors(signature, &TEXTS)
        .ok_or_else(|| unknown(Task::Embed, signature, "an output [texts, size] or [texts, tokens, size]"))?;
    let mode = match beside.pooling["pooling_mode_cls_token"] == true {
        true => "cls",
        false => "mean",
    };
    let mut steps =
        vec![Step::Stage(tokenize), Step::Model(model_wiring(signature, "input_ids", "input_ids"))];
    steps.extend(reduced(signature, output, mode));
    Ok(steps)
}

/// From texts to the tokens that the model takes.
pub fn tokenize(signature: &Signature, beside: &Beside) -> Result<StageStep> {
    let tokens = signature.inputs.iter().find(|spec| spec.name == "input_ids");
    let tokens = tokens.ok_or_else(|| unknown(Task::Embed, signature, "an input `input_ids`"))?;
    let file = beside.tokenizer.clone().ok_or_else(|| {
        Error::new(
            "pipeline-unknown",
            "there is no tokenizer.json beside the model, so texts cannot become tokens",
        )
        .help("put the tokenizer.json that the model was trained with into its folder")
    })?;
    let mut tokenize = StageStep::new("tokenize", json!({}));
    tokenize.files.insert("tokenizer.json".into(), file);
    if tokens.dtype == DType::I32 {
        tokenize.options.insert("dtype".into(), json!("i32"));
    }
    // A model with a fixed length wants all of it; one with position embeddings no more than those.
    let fixed = tokens.shape.get(1).and_then(size);
    let positions = [&beside.config, &beside.config["text_config"]].into_iter().find_map(positions);
    if let Some(length) = fixed {
        tokenize.options.insert("pad_to".into(), json!(length));
    }
    if let Some(length) = fixed.or(positions) {
        tokenize.options.insert("max_length".into(), json!(length));
    }
    Ok(tokenize)
}

/// The most tokens that a model has positions for, as its `config.json` says.
fn positions(config: &Json) -> Option<u64> {
    let most = config["max_position_embeddings"].as_u64()?;
    // RoBERTa and what came of it count from behind the token that fills up.
    match config["model_type"].as_str() {
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => Some(most.saturating_sub(2)),
        _ => Some(most),
    }
}

/// A model of one input gets the value of this name, whatever the input is called.
fn model_wiring(signature: &Signature, value: &str, input: &str) -> Wiring {
    let mut wiring = Wiring::default();
    if signature.inputs.len() == 1 || value != input {
        wiring.inputs.insert(input.to_owned(), value.to_owned());
    }
    wiring
}

/// The output with the vectors: by its name, else the first of two or three dimensions.
fn vectors<'s>(signature: &'s Signature, names: &[&str]) -> Option<&'s TensorSpec> {
    let named = names.iter().find_map(|name| signature.outputs.iter().find(|output| output.name == *name));
    named.or_else(|| signature.outputs.first()).filter(|output| matches!(output.shape.len(), 2 | 3))
}

/// From an output to [`EMBEDDING`].
fn reduced(signature: &Signature, output: &TensorSpec, mode: &str) -> Vec<Step> {
    let mut value = match signature.outputs.len() {
        1 => "tensor".to_owned(),
        _ => output.name.clone(),
    };
    let mut steps = Vec::new();
    let mut then = |name: &str, options: Json| {
        let mut step = StageStep::new(name, options);
        step.wiring.inputs.insert("tensor".into(), std::mem::replace(&mut value, EMBEDDING.to_owned()));
        step.wiring.outputs.insert("tensor".into(), EMBEDDING.to_owned());
        steps.push(Step::Stage(step));
    };
    if output.shape.len() == 3 {
        then("pool", json!({ "mode": mode }));
    }
    then("l2-normalize", json!({}));
    steps
}
